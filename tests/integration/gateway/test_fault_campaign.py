"""`make faults` in its short form: the whole campaign in miniature, and proof that it can go red."""

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

BUSY: Final = ("--slack", "3", "--rate", "60")
"""Flags for a machine that runs other tests as well: what clients see is tested here, `make faults` holds the times."""


def campaign(folder: Path, *words: str) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """Run it to its end: how it ended, and what it wrote."""
    output = folder / "faults.json"
    ended = subprocess.run(
        [sys.executable, "-m", "faults", "--short", "--seed", "1", "--output", str(output), *BUSY, *words],
        cwd=ROOT, capture_output=True, text=True, timeout=5 * SECONDS,
    )  # fmt: skip
    assert output.exists(), ended.stderr
    return ended, json.loads(output.read_text())


def has_haproxy() -> bool:
    """Whether the whole campaign can run here."""
    return shutil.which("haproxy", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin") is not None


def test_c1_c6_c7_c8_c9_no_client_notices(tmp_path: Path) -> None:
    """C1, C6, C7, C8, C9: under every fault no retryable request fails, no stream loses, repeats or crosses a byte, and
    the `openai` client's calls and classes of errors are what they always are."""
    if not has_haproxy():
        pytest.skip("haproxy is not installed")
    ended, found = campaign(tmp_path)
    assert ended.returncode == 0, ended.stdout
    assert found["requests"] > 1000
    assert found["openai_requests"] > 100
    assert found["kills"] == 2
    assert len(found["restarts"]) == 1
    assert [found[name] for name in ("client_errors", "duplicated", "lost")] == [0, 0, 0]
    assert found["error_bound"] == pytest.approx(3 / found["requests"])
    assert found["faults"]["restart"]["cut"] > 0  # streams that outlast the drain time are cut, and say so
    assert "fewer than" in ended.stdout


def test_c1_without_failover_the_campaign_goes_red(tmp_path: Path) -> None:
    """C1, the control: where a failed attempt is the last one, clients see that a backend was killed."""
    ended, found = campaign(tmp_path, "--only", "kill", "--without-failover")
    assert ended.returncode == 1, ended.stdout
    assert "missed: client_errors is" in ended.stdout
    assert found["client_errors"] > 0
    assert found["goals"]["openai_errors"]["met"] is False
    assert found["error_bound"] is None


def test_ctrl_c_leaves_no_process_behind(tmp_path: Path) -> None:
    """An interrupted campaign ends what it has started, and nothing else."""
    command = [sys.executable, "-m", "faults", "--seconds", "90", "--only", "kill"]  # which goes on for a minute
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
