"""Programs that live no longer than the campaign: started with a log each, killed, restarted, and ended together."""

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

READY_SECONDS: Final = 60.0
"""Seconds a program may take to listen. They are many, because the machine may be busy."""
STOP_SECONDS: Final = 3.0


class CampaignError(RuntimeError):
    """The campaign cannot continue. The message says what to install or to look at."""


class Processes:
    """The running programs by name."""

    def __init__(self, folder: Path) -> None:
        """Create an empty set. Output of programs is appended to `<name>.log` in `folder`."""
        self.folder = folder
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        setpriv = shutil.which("setpriv")
        # The kernel kills them even if we are killed. Where there is no setpriv, only an orderly end does.
        self._prefix = (setpriv, "--pdeathsig", "KILL") if setpriv else ()

    def start(self, name: str, command: Sequence[str], port: int | None = None, *, pipe: bool = False) -> None:
        """Start a program, on request with a pipe to its standard input, and return when it listens on `port`."""
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                [*self._prefix, *command],
                stdin=subprocess.PIPE if pipe else subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C reaches the campaign alone, which ends the others
            )
        self._running[name] = process
        if port is not None:
            self.wait(name, lambda: accepts(port), f"does not listen on {port}")

    def wait(self, name: str, condition: Callable[[], bool], problem: str) -> None:
        """Wait until a condition holds, as long as the program runs.

        Raises:
            CampaignError: it ended, or it took too long; the message ends with its log.
        """
        deadline = time.monotonic() + READY_SECONDS
        while not condition():
            if self._running[name].poll() is not None or time.monotonic() > deadline:
                raise CampaignError(f"{name} {problem}:\n{self.log(name)[-2000:]}")
            time.sleep(0.01)

    def pause(self, seconds: float, *names: str) -> None:
        """Wait for `seconds`, as long as the programs of these names run; without a name, all of them.

        Raises:
            CampaignError: one of them has ended by itself meanwhile.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            time.sleep(min(left, 0.2))
            if dead := [name for name in self.dead() if not names or name in names]:
                raise CampaignError(f"{dead[0]} has ended:\n{self.log(dead[0])[-2000:]}")

    def log(self, name: str) -> str:
        """Return all output of a program."""
        return (self.folder / f"{name}.log").read_text("utf-8", "replace")

    def pid(self, name: str) -> int:
        """Return the process id of a program."""
        return self._running[name].pid

    def say(self, name: str, line: str) -> None:
        """Write a line to the standard input of a program."""
        pipe = self._running[name].stdin
        assert pipe is not None
        pipe.write(line.encode() + b"\n")
        pipe.flush()

    def signal(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a program."""
        self._running[name].send_signal(number)

    def kill(self, name: str) -> None:
        """End a program immediately with SIGKILL."""
        self._running[name].kill()
        self._running[name].wait()

    def ended(self, name: str, seconds: float) -> int | None:
        """Return the exit code of a program, or None if it has not ended within `seconds`."""
        try:
            return self._running[name].wait(seconds)
        except subprocess.TimeoutExpired:
            return None

    def dead(self) -> list[str]:
        """Return the programs that have ended by themselves."""
        return [name for name, process in self._running.items() if process.poll() is not None]

    def stop(self) -> None:
        """End all programs."""
        for process in self._running.values():
            if process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.terminate()
        deadline = time.monotonic() + STOP_SECONDS
        for process in self._running.values():
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdin is not None:
                process.stdin.close()


def accepts(port: int) -> bool:
    """Return whether a program listens on a port."""
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return False
    return True
