"""The command `beamlit-hooks simulate`, as a user runs it."""

import json
import os
import pty
import re
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.deadlines import SECONDS
from tools.repository import ROOT

COMMAND = (sys.executable, "-m", "hooks", "simulate", "examples/simulate/queue.yaml")

pytestmark = pytest.mark.xdist_group("simulate")


@dataclass(frozen=True)
class Ended:
    """What a process left behind."""

    status: int
    document: dict[str, Any]
    """What it printed."""
    terminal: str
    """What it wrote to its standard error, which is a terminal."""
    page: str


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> Ended:
    """Return the end of a process with everything that the command can be asked for."""
    page = tmp_path_factory.mktemp("page") / "page.html"
    words = (
        *(*COMMAND, "--load", "step,from=1,to=5,at=60", "--duration", "5m", "--capacity", "600", "--price", "2"),
        *("--set", "spec.offloadingConfig.behavior.mode=proportional", "-o", "json", "--html", str(page)),
        *("--max-changes", "0", "--max-remote-share", "99", "--max-ttft", "1h"),
    )
    ours, theirs = pty.openpty()
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = bytearray()

    def read() -> None:
        while part := _read(ours):
            shown.extend(part)

    reader = threading.Thread(target=read)
    reader.start()
    output, _ = process.communicate(timeout=SECONDS)
    reader.join(SECONDS)
    os.close(ours)
    return Ended(process.returncode, json.loads(output), shown.decode(), page.read_text(encoding="utf-8"))


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # the terminal ends with the process
        return b""


def test_json(ended: Ended) -> None:
    """JSON has a result for the manifest, each variant and the two to compare with, whose figures add up."""
    names = ["as written", "mode=proportional", "100 % at the trigger", "never offload"]
    results = ended.document["results"]
    assert [one["name"] for one in results] == names
    for one in results:
        assert one["local"]["requests"] + one["remote"]["requests"] == one["requests"]
        assert one["cost"]["all"] == pytest.approx(one["remote"]["tokens"] * 2e-6)
        assert sum(part["seconds"] for part in one["slices"]) == one["seconds"] == 300
        first = one["timeToFirstToken"]
        assert 0 < first["p50"] <= first["p95"] <= first["p99"]
    assert results[0]["changes"][0]["reason"] == "MetricReached"
    assert results[-1]["remote"]["requests"] == 0


def test_a_limit_that_is_exceeded(ended: Ended) -> None:
    """A limit that is exceeded is exit status 1 and a sentence for each row that is no comparison."""
    lines = ended.terminal.replace("\r\n", "\n").rpartition("\r")[2].splitlines()
    assert ended.status == 1
    assert [line.split(": ")[1] for line in lines] == ["as written", "mode=proportional"]
    assert all(line.endswith("more than --max-changes 0.") for line in lines)
    assert ended.document["exceeded"] == [line.removeprefix("hooks: ") for line in lines]


def test_a_terminal_has_a_progress_bar(ended: Ended) -> None:
    """Where standard error is a terminal a bar shows how far the simulation is, and is wiped at its end."""
    bars = re.findall(r"\rsimulating \[(#*) *\] +([0-9]+) %", ended.terminal)
    parts = [int(part) for _, part in bars]
    assert parts == sorted(parts)
    assert (parts[-1], len(bars[-1][0])) == (100, 40)
    assert re.search(r"100 %\r {61}\rhooks: as written", ended.terminal)


def test_the_page(ended: Ended) -> None:
    """The page holds everything that it shows: the table, the curves, and the library that draws them."""
    assert ended.page.startswith("<!DOCTYPE html>")
    assert "<td>mode=proportional</td>" in ended.page
    assert "Time to first token, 95th percentile" in ended.page
    assert re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=", ended.page) == []
    assert len(ended.page) < 2_000_000


def test_what_cannot_be_used() -> None:
    """A trace that is none is exit status 2 and a sentence that names file and line, and nothing is printed."""
    words = [*COMMAND, "--trace", str(Path("Makefile")), "--capacity", "6"]
    ended = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("hooks: Makefile line 1: must name the columns: time,prompt,generated, or ")
