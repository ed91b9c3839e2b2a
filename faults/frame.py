"""The frame of a campaign: its folder for state, the signals that end it, its progress and its exit status."""

import importlib.metadata
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

from faults.processes import CampaignError, Processes

_ENDING: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""Signals that end a campaign."""


def run(name: str, campaign: Callable[[Processes], int], *, keep: Path | None = None) -> int:
    """Run a campaign and end all that it has started; return its exit status, which is 2 where it cannot run here.

    Args:
        name: Name of the campaign.
        campaign: Function that runs it and returns its exit status.
        keep: Folder for a copy of logs and records; None for none.
    """
    # Also SIGINT: a shell script that starts the campaign in the background has it ignored, as does what it starts.
    for number in _ENDING:
        signal.signal(number, _interrupted)
    folder = Path(tempfile.mkdtemp(prefix=f"beamlit-{name}-"))
    processes = Processes(folder)
    try:
        return campaign(processes)
    except CampaignError as exc:
        print(f"{name}: {exc}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return 130
    finally:
        for number in _ENDING:
            signal.signal(number, signal.SIG_IGN)  # it ends already
        processes.stop()
        if keep is not None:
            shutil.copytree(folder, keep, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)


class Progress:
    """A progress report on standard error, with the time."""

    def __init__(self, began: float) -> None:
        self._began = began

    def __call__(self, what: str) -> None:
        """Say what begins now."""
        print(f"{time.monotonic() - self._began:6.1f} s  {what}", file=sys.stderr, flush=True)


def machine() -> dict[str, str]:
    """Return what a report says about the machine and the versions of packages."""
    model = ""
    if (info := Path("/proc/cpuinfo")).exists():
        model = next(
            (line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line), ""
        )
    versions = {name: importlib.metadata.version(name) for name in ("httptools", "uvloop", "h11", "openai")}
    return {"cpu": model, "kernel": platform.release(), "python": platform.python_version(), **versions}


def _interrupted(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt
