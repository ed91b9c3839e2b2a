"""The child processes of `make run`: started with a log each, watched, and ended together."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

STOP_SECONDS: Final = 6.0
"""Seconds children may take to end before they are killed."""
_TAIL_LINES: Final = 15
_TAIL_BYTES: Final = 16384


@dataclass(frozen=True, slots=True)
class Child:
    """A running program."""

    name: str
    """Name of the program for people."""
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """Return the last lines of its log, indented."""
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
        return "\n".join(f"    {line}" for line in lines[-_TAIL_LINES:]) or "    (it is empty)"

    def how_it_ended(self) -> str:
        """Return one clause about the exit of a process that has ended."""
        code = self.process.returncode
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit status {code}"


class Children:
    """The child processes, which live no longer than this process."""

    def __init__(self, root: Path, logs: Path) -> None:
        """Create an empty set. Programs run in the directory `root`; their output goes to files in `logs`."""
        self._root, self._logs = root, logs
        self._all: list[Child] = []
        # Never written to: its end tells the children that we are gone (see examples.child).
        self._theirs, self._ours = os.pipe()

    def start(self, name: str, module: str, *arguments: str) -> Child:
        """Start a module. Its log is `<name>.log`, with dashes for spaces."""
        log = self._logs / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "examples.child", module, *arguments],
                cwd=self._root,
                stdin=self._theirs,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
                # Ctrl-C reaches this process alone, which then ends the others in order.
                start_new_session=True,
            )
        child = Child(name, process, log)
        self._all.append(child)
        return child

    def dead(self) -> Child | None:
        """Return a child that has ended, or None."""
        return next((child for child in self._all if child.process.poll() is not None), None)

    def forget(self, child: Child) -> None:
        """Look no longer after a child that has ended."""
        self._all.remove(child)

    def stop(self, hurry: Callable[[], bool]) -> None:
        """End all children, the last started first. Kill those that are left after a while, or as soon as `hurry` is
        true."""
        for child in reversed(self._all):
            if child.process.poll() is None:
                child.process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        while any(child.process.poll() is None for child in self._all):
            if time.monotonic() > deadline or hurry():
                for child in self._all:
                    child.process.kill()
                break
            time.sleep(0.02)
        for child in self._all:
            child.process.wait()
        os.close(self._ours)
        os.close(self._theirs)
