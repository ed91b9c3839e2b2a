"""Processes of the end-to-end tests: each with a log of its own, ended by its id."""

import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.e2e.binaries import find


class MissingProgram(Exception):
    """A program of the control plane is missing."""


class CommandFailed(Exception):
    """A command ended with an error; the message is its output."""


def program(name: str) -> str:
    """Return the path of a program.

    Raises:
        MissingProgram: it is not found.
    """
    path = find(name)
    if path is None:
        raise MissingProgram(f"{name} is missing: `make e2e` builds it")
    return str(path)


class Process:
    """A process of the tests with a log of its own; it is ended by its id."""

    def __init__(
        self, name: str, folder: Path, command: list[str], environment: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.command = command
        self.log = folder / f"{name}.log"
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def pid(self) -> int:
        """Return its process id."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Start it, also again after an end."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=self._environment
            )

    def alive(self) -> bool:
        """Return whether it runs."""
        return self._process is not None and self._process.poll() is None

    def tail(self) -> str:
        """Return the end of its log."""
        return self.log.read_text(errors="replace")[-3000:]

    def stop(self, number: signal.Signals = signal.SIGTERM, seconds: float = 10) -> int:
        """End it and return its exit code; kill it when it does not end in time."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.send_signal(number)
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                self._process.kill()
        return self._process.wait()
