"""The command `beamlit-hooks simulate`, as a user runs it."""

import gzip
import json
import os
import pty
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.deadlines import SECONDS
from tools.repository import ROOT

MANIFEST = "examples/simulate/queue.yaml"
LOAD = ("--load", "step,from=1,to=6,at=60,until=400", "--duration", "10m", "--capacity", "600")


def simulate(*words: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command until it ends."""
    return subprocess.run(
        [sys.executable, "-m", "hooks", "simulate", *map(str, words)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def ended(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], str]:
    """Return an end of the command with everything that it can be asked for, and the page that it wrote."""
    page = tmp_path_factory.mktemp("page") / "page.html"
    variant = "spec.offloadingConfig.behavior.mode=proportional"
    ended = simulate(
        *(MANIFEST, *LOAD, "--set", variant, "-o", "json", "--html", page, "--price", "2"),
        *("--max-changes", "0", "--max-remote-share", "99", "--max-ttft", "1h"),
    )
    return ended, page.read_text(encoding="utf-8")


def test_json(ended: tuple[subprocess.CompletedProcess[str], str]) -> None:
    """JSON has a result for the manifest, each variant and the two to compare with, whose figures add up."""
    document: dict[str, Any] = json.loads(ended[0].stdout)
    names = ["as written", "mode=proportional", "100 % at the trigger", "never offload"]
    assert [one["name"] for one in document["results"]] == names
    for one in document["results"]:
        assert one["local"]["requests"] + one["remote"]["requests"] == one["requests"]
        assert one["cost"]["all"] == pytest.approx(one["remote"]["tokens"] * 2e-6)
        assert sum(part["seconds"] for part in one["slices"]) == one["seconds"] == 600
        first = one["timeToFirstToken"]
        assert 0 < first["p50"] <= first["p95"] <= first["p99"]
    first, _, _, never = document["results"]
    assert first["changes"][0]["reason"] == "MetricReached"
    assert never["remote"]["requests"] == 0


def test_a_limit_that_is_exceeded(ended: tuple[subprocess.CompletedProcess[str], str]) -> None:
    """A limit that is exceeded is exit status 1 and a sentence for each row; nothing is drawn where no terminal is."""
    assert ended[0].returncode == 1
    lines = ended[0].stderr.splitlines()
    assert [line.partition(": ")[2].split(":")[0] for line in lines] == ["as written", "mode=proportional"]
    assert all(line.endswith("more than --max-changes 0.") for line in lines)
    assert json.loads(ended[0].stdout)["exceeded"] == [line.removeprefix("hooks: ") for line in lines]


def test_the_page(ended: tuple[subprocess.CompletedProcess[str], str]) -> None:
    """The page holds everything that it shows: the table, the curves, and the library that draws them."""
    page = ended[1]
    assert page.startswith("<!DOCTYPE html>")
    assert "<td>mode=proportional</td>" in page
    assert "Time to first token, 95th percentile" in page
    assert re.findall(r"<(?:script|link|img)[^>]* (?:src|href)=", page) == []
    assert len(page) < 2_000_000


def test_text(tmp_path: Path) -> None:
    """Text has a table, the share over time and its changes; a trace may be compressed."""
    trace = tmp_path / "trace.csv.gz"
    rows = [f"{number / 10},200,100" for number in range(1200)]
    trace.write_bytes(gzip.compress("\n".join(rows).encode()))
    ended = simulate(MANIFEST, "--trace", trace, "--capacity", "300")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    assert lines[0] == "default/chat, trace.csv.gz, 1 replica of 300 tokens/s"
    assert lines[1].strip().startswith("1,200 requests in 2 min; 240,000 prompt tokens")
    assert {"as written", "100 % at the trigger", "never offload"} <= {line[:24].strip() for line in lines}
    assert any(line.endswith("50 %  MetricReached") for line in lines)


def test_what_cannot_be_used() -> None:
    """A trace that is none is exit status 2 and a sentence that names file and line, and nothing is printed."""
    ended = simulate(MANIFEST, "--trace", "Makefile", "--capacity", "6")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("hooks: Makefile line 1: must name the columns: time,prompt,generated, or ")


def test_a_terminal_has_a_progress_bar() -> None:
    """Where standard error is a terminal a bar shows how far the simulation is, and is wiped at the end."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "hooks", "simulate", MANIFEST, *LOAD]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # the terminal ends with the process
            break
        if not part:
            break
        shown += part
    os.close(ours)
    assert process.wait(SECONDS) == 0
    assert b"100 %" in shown
    assert shown.rstrip(b" \r").rstrip().endswith(b"%")
    assert shown.endswith(b"\r")
