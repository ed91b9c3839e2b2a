"""Figures of the simulator in the documentation: they are what the simulator prints."""

import re
import subprocess
import time

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


def test_an_hour_of_twenty_thousand_requests() -> None:
    """A row of the table, for an hour of twenty thousand requests, takes less than ten seconds of CPU."""
    trace = metric_table.requests()
    begun = time.thread_time()
    found = metric_table.outcome(trace, metric_table.METRICS["waiting requests, 5 per pod"])
    assert time.thread_time() - begun < 10
    assert found.requests == len(trace) == 19366
