"""A machine is as before after a node whose maker was killed, at whatever moment.

The name of this file comes before those of the tests that have a node running.
"""

import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.node import base_image, lifecycle, machine, programs, state
from tests.node.given import EXISTING, existing
from tests.node.inside import READY
from tests.node.state import Node
from tests.processes import poll
from tools.repository import ROOT

NAME: Final = f"killed-{os.getpid()}"
MAKE: Final = f"""\
import time
from tests.node import lifecycle
lifecycle.up("{NAME}", ends_with_us=True)
time.sleep(3600)
"""
"""Script that starts a node as a test run does, and holds it."""


@pytest.fixture
def before() -> Iterator[machine.Machine]:
    """The machine before the test. Nothing of the node is left afterwards, whatever the test did."""
    if existing() is not None:
        pytest.skip(f"{EXISTING} names a cluster, so no node is started")
    if os.geteuid() != 0 or (reason := programs.missing()):
        reason = "a node needs root: it mounts, and makes networks" if os.geteuid() else reason
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    yield machine.look()
    lifecycle.down(NAME)


@contextlib.contextmanager
def maker(*words: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program that starts the node, and kill it at the end of the context."""
    process = subprocess.Popen([sys.executable, *words], cwd=ROOT, stdout=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def has_process() -> bool:
    """Return whether the node is recorded with its process."""
    node = state.find(NAME)
    return node is not None and node.pid != 0


def is_ready() -> bool:
    """Return whether everything of the node runs."""
    return (Node(NAME).folder / READY).exists()


@pytest.mark.parametrize("moment", [has_process, is_ready], ids=["as it starts", "as it runs"])
def test_a_runner_that_is_killed(before: machine.Machine, moment: object) -> None:
    """All processes of a node end with the test run that started it, also where that is killed, and the next command
    removes what they leave: the machine is as before."""
    assert callable(moment)
    with maker("-c", MAKE) as process:
        poll(lambda: moment() or process.poll() is not None, "the node is that far", seconds=300)
        assert process.poll() is None
    after = machine.look()
    poll(lambda: not machine.look().processes, "the processes of the node end")
    assert dataclasses.replace(after, processes=(), records=(), cgroups=()) == dataclasses.replace(
        before, processes=(), records=(), cgroups=()
    )
    lifecycle.down("another")
    assert machine.look() == before


def test_a_command_that_is_killed(before: machine.Machine) -> None:
    """A node whose `up` was killed is found by the next `up`, which leaves it alone, and ended by `down`."""
    with maker("-m", "tests.node", "up", "--name", NAME) as process:
        poll(lambda: has_process() or process.poll() is not None, "the node is recorded", seconds=300)
    with pytest.raises(lifecycle.NodeError, match="runs already"):
        lifecycle.up(NAME)
    lifecycle.down(NAME)
    assert machine.look() == before


@pytest.fixture
def records(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for records in place of the machine's."""
    monkeypatch.setattr(state, "RECORDS", tmp_path)
    return tmp_path


def test_a_record_without_a_process(records: Path) -> None:
    """A record whose maker died before there was a process is removed; one whose maker is about to start it is kept."""
    us = psutil.Process()
    Node("starting", maker=us.pid, maker_born=us.create_time()).record()
    Node("dead", maker=us.pid, maker_born=us.create_time() - 1).record()
    Node("gone", pid=us.pid, born=us.create_time() - 1).record()
    lifecycle.down("another")
    assert [path.name for path in records.iterdir()] == ["starting"]
    with pytest.raises(lifecycle.NodeError, match="runs already"):
        lifecycle.up("starting")


def test_a_node_that_is_not_recorded_ends() -> None:
    """The first process of a node ends by itself where nobody recorded the node, so that none runs unseen."""
    command = [sys.executable, "-c", "from tests.node import inside; inside._RECORDED = 0.1; inside.main('lost', 0)"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert result.returncode == 1
    assert "the node is recorded" in result.stderr


def test_folders_of_killed_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed process laid into the cache is removed when the next one lays something there."""
    monkeypatch.setattr(base_image, "CACHE", tmp_path)
    script = "import os, time; from pathlib import Path; from tests.node import base_image\n"
    script += f"base_image.CACHE = Path({str(tmp_path)!r})\n"
    script += "with base_image.scratch(): os.kill(os.getpid(), 9)"
    result = subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False)
    assert result.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    with base_image.scratch() as outer, base_image.scratch() as inner:
        assert set(tmp_path.iterdir()) == {outer, inner}
    assert not list(tmp_path.iterdir())
