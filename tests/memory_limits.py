"""Limits of memory for programs under test, as a container has one."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final
from uuid import uuid4

from tests.processes import poll

_CGROUPS: Final = Path("/sys/fs/cgroup")
_ENTER: Final = 'echo $$ > "$0"/cgroup.procs && exec "$@"'
_UNITS: Final = {"Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30}


def quantity(text: str) -> int:
    """Return the bytes of a quantity such as 512Mi."""
    return int(text[:-2]) * _UNITS[text[-2:]]


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process had at a time."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) << 10


@contextlib.contextmanager
def limited(size: int) -> Iterator[list[str]]:
    """Yield the words to put in front of a command whose process the kernel ends when it needs more than `size` bytes.

    It is in a control group of its own, by itself or by systemd. Where neither can be had, `ulimit -d` makes the
    process fail when it asks for more.
    """
    folder = _control_group(size)
    if folder is not None:
        try:
            yield ["sh", "-c", _ENTER, str(folder)]
        finally:
            poll(lambda: not (folder / "cgroup.procs").read_text().strip(), "the control group is empty")
            folder.rmdir()
    elif _has_systemd():
        yield ["systemd-run", "--user", "--scope", "--quiet", "-p", f"MemoryMax={size}", "-p", "MemorySwapMax=0", "--"]
    else:
        yield ["sh", "-c", f'ulimit -d {size >> 10} && exec "$@"', "limited"]


def _control_group(size: int) -> Path | None:
    """Return a new control group with a limit, of either version; None when none can be made."""
    for parent, limit in ((_CGROUPS, "memory.max"), (_CGROUPS / "memory", "memory.limit_in_bytes")):
        folder = parent / f"beamlit-{uuid4().hex[:12]}"
        try:
            folder.mkdir()
        except OSError:
            continue
        try:
            if (folder / limit).exists():
                (folder / limit).write_text(str(size))
                return folder
        except OSError:
            pass
        folder.rmdir()
    return None


def _has_systemd() -> bool:
    words = ["systemd-run", "--user", "--scope", "--quiet", "true"]
    if shutil.which(words[0]) is None or "XDG_RUNTIME_DIR" not in os.environ:
        return False
    return subprocess.run(words, capture_output=True, timeout=30, check=False).returncode == 0
