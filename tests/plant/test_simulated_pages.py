"""Figures of the simulator in the documentation: they are what the simulator prints."""

import re
import subprocess

from tests.deadlines import SECONDS
from tools import metric_table
from tools.repository import ROOT


def test_the_output_of_simulate() -> None:
    """The command on the page about simulating prints the output that the page shows."""
    page = (ROOT / "docs/simulate.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```console\n\$ (.venv/bin/beamlit-hooks simulate .*?)```", page, re.DOTALL)
    command, _, expected = block.replace("\\\n", " ").partition("\n")
    ended = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=True
    )
    assert (ended.stdout, ended.stderr) == (expected, "")


def test_the_table_of_metrics() -> None:
    """The table of what each metric costs is the one that `make metric-table` writes."""
    page = metric_table.PAGE.read_text(encoding="utf-8")
    assert metric_table.written_into(page, metric_table.table()) == page
