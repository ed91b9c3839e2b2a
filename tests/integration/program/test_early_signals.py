"""SIGTERM and SIGINT while a program starts or ends, which always lead to an orderly end with exit status 0."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from tests.deadlines import SECONDS
from tests.processes import poll
from tools.repository import ROOT

COMMANDS: Final = {
    "gateway": ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
    "hooks": ("--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0"),
}
Running = subprocess.Popen[str]


def takes_signals(process: Running) -> bool:
    """Return whether the program has its handler for SIGTERM, which it cannot have while Python itself starts."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = re.search(r"^SigCgt:\t([0-9a-f]+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)


def imports(library: str) -> Callable[[Running], bool]:
    """Return a function that returns whether a program has imported this library."""
    return lambda process: library in Path(f"/proc/{process.pid}/maps").read_text()


def is_up(process: Running) -> bool:
    """Return whether the program has logged that it listens."""
    return "listening" in errors(process)


def errors(process: Running) -> str:
    """Return what the program has printed."""
    return Path(f"/proc/self/fd/{LOGS[process.pid]}").read_text()


LOGS: Final[dict[int, int]] = {}
"""Open log of each process, by its id."""


@contextmanager
def starting(name: str, folder: Path, config: Path | None = None) -> Iterator[Running]:
    """Start a program and yield it at once."""
    (folder / "routes").mkdir()
    if config is None:
        config = folder / "config.yaml"
        config.write_text("gateway: {lameDuckSeconds: 0}")
    words = ("--routes", str(folder / "routes")) if name == "gateway" else ()
    log = os.open(folder / "log", os.O_RDWR | os.O_CREAT)
    process = subprocess.Popen(
        [sys.executable, "-m", name, "--config", str(config), *words, *COMMANDS[name]], cwd=ROOT, stderr=log, text=True
    )
    LOGS[process.pid] = log
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        del LOGS[process.pid]
        os.close(log)


def ended(process: Running) -> list[str]:
    """Wait for the end of a program, assert that it was orderly, and return the events of its log."""
    code = process.wait(SECONDS)
    log = errors(process)
    assert (code, "Traceback" in log) == (0, False), log
    return [json.loads(line)["event"] for line in log.splitlines()]


@pytest.mark.parametrize(
    ("name", "number", "moment"),
    [
        pytest.param("gateway", signal.SIGTERM, takes_signals, id="gateway at once"),
        pytest.param("gateway", signal.SIGTERM, imports("/uvloop/"), id="gateway, first imports"),
        pytest.param("gateway", signal.SIGINT, imports("/orjson/"), id="gateway, more imports, SIGINT"),
        pytest.param("gateway", signal.SIGTERM, imports("/_pydantic_core"), id="gateway, last imports"),
        pytest.param("gateway", signal.SIGTERM, is_up, id="gateway, just up"),
        pytest.param("hooks", signal.SIGTERM, takes_signals, id="hooks at once"),
        pytest.param("hooks", signal.SIGTERM, imports("/uvloop/"), id="hooks, imports"),
    ],
)
def test_rd_08_a_signal_while_it_starts(
    tmp_path: Path, name: str, number: signal.Signals, moment: Callable[[Running], bool]
) -> None:
    """RD-08: a signal at any moment after the program's own code has begun ends it in order."""
    with starting(name, tmp_path) as process:
        poll(lambda: moment(process))
        process.send_signal(number)
        assert ended(process)[-1] == "stopped"


@pytest.mark.parametrize(("name", "twice"), [("gateway", False), ("gateway", True), ("hooks", False)])
def test_rd_08_a_signal_while_its_settings_are_read(tmp_path: Path, name: str, twice: bool) -> None:
    """RD-08: a signal while the settings are read ends the program in order afterwards, and a second one at once."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with starting(name, tmp_path, pipe) as process:
        writer = -1

        def is_read() -> bool:
            nonlocal writer
            with contextlib.suppress(OSError):  # the program has not opened it yet
                writer = os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
            return writer >= 0

        poll(is_read)
        process.send_signal(signal.SIGTERM)
        if twice:

            def is_gone() -> bool:
                process.send_signal(signal.SIGTERM)  # again, because two at the same time may arrive as one
                return process.poll() is not None

            poll(is_gone)
            assert ended(process) == []
            os.close(writer)
        else:
            os.write(writer, b"gateway: {lameDuckSeconds: 0}")
            os.close(writer)
            events = ended(process)
            assert (events[0], events[-1]) == ("signal", "stopped")


@pytest.mark.parametrize(("name", "moment"), [("gateway", takes_signals), ("gateway", is_up), ("hooks", is_up)])
def test_rd_08_signals_without_end(tmp_path: Path, name: str, moment: Callable[[Running], bool]) -> None:
    """RD-08: signals without end after the second one change nothing until the process has ended."""
    with starting(name, tmp_path) as process:
        poll(lambda: moment(process))
        deadline = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            process.send_signal(signal.SIGTERM)
            time.sleep(0.001)  # without a pause they could arrive as one
        ended(process)


def test_a_signal_ends_a_command_that_serves_nothing(tmp_path: Path) -> None:
    """The command `render`, which serves nothing, is ended by the signal itself."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    process = subprocess.Popen([sys.executable, "-m", "hooks", "render", pipe], cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        poll(lambda: "/_pydantic_core" in Path(f"/proc/{process.pid}/maps").read_text())
        # SIGTERM, because a process whose parent ignores SIGINT ignores it as well.
        process.send_signal(signal.SIGTERM)
        assert process.wait(SECONDS) == -signal.SIGTERM
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
