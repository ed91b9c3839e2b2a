"""Short form of `make faults`: the whole campaign in miniature, and proof that it can fail."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

import psutil
import pytest

from tests.deadlines import SECONDS
from tests.processes import poll
from tools.repository import ROOT

pytestmark = pytest.mark.long

BUSY: Final = ("--slack", "3", "--rate", "60")
"""Flags for a machine that runs other tests as well; `make faults` checks the times, this test what clients see."""


def campaign(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run the campaign to its end; return the process and the report."""
    output = folder / "faults.json"
    ended = subprocess.run(
        [sys.executable, "-m", "faults", "--short", "--seed", "1", "--output", str(output), *BUSY, *words],
        cwd=ROOT, capture_output=True, text=True, timeout=5 * SECONDS,
    )  # fmt: skip
    assert output.exists(), ended.stderr
    return ended, json.loads(output.read_text())


def has_haproxy() -> bool:
    """Return whether haproxy is installed, which the whole campaign needs."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def test_c1_c6_c7_c8_c9_no_client_notices(tmp_path: Path) -> None:
    """C1, C6, C7, C8, C9: under every fault no retryable request fails, each stream has its own bytes exactly once, and
    the `openai` client's calls and classes of errors are as usual."""
    if not has_haproxy():
        pytest.skip("haproxy is not installed")
    ended, report = campaign(tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert report["requests"] > 1000
    assert report["openai_requests"] > 100
    assert report["kills"] == 2
    assert len(report["restarts"]) == 1
    assert [report[name] for name in ("client_errors", "duplicated", "lost")] == [0, 0, 0]
    assert report["error_bound"] == pytest.approx(3 / report["requests"])
    assert report["faults"]["restart"]["cut"] > 0  # streams that outlast the drain time are cut, with an error
    assert "fewer than" in ended.stdout


def test_c1_without_failover_the_campaign_goes_red(tmp_path: Path) -> None:
    """C1: without failover the campaign fails, because clients see that a backend was killed."""
    ended, report = campaign(tmp_path, "--only", "kill", "--without-failover")
    assert ended.returncode == 1, ended.stdout
    assert "missed: client_errors is" in ended.stdout
    assert report["client_errors"] > 0
    assert report["goals"]["openai_errors"]["met"] is False
    assert report["error_bound"] is None


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    """An interrupted campaign ends all processes that it has started."""
    command = [sys.executable, "-m", "faults", "--seconds", "90", "--only", "kill"]  # it goes on for a minute
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "--output", str(tmp_path / "faults.json")],
            cwd=ROOT, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip
    try:
        poll(lambda: "kill" in (tmp_path / "log").read_text(), "the first fault begins")
        started = psutil.Process(process.pid).children(recursive=True)
        assert len(started) >= 7
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 130
        gone, left = psutil.wait_procs(started, timeout=SECONDS)
        assert (len(gone), left) == (len(started), [])
    finally:
        process.kill()
        process.wait()
