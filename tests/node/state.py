"""Nodes that run on this machine, recorded so that another process can end them, also after their own died.

A node is one process, `unshare`, whose child is the first process of a PID namespace: when the former ends, the kernel
ends all processes of the node, and with them its mounts and its network. What remains are its folder and its cgroups.
"""

import contextlib
import json
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.processes import poll

RECORDS: Final = Path(tempfile.gettempdir()) / "beamlit-nodes"
"""Folder with a folder for each node."""
CGROUPS: Final = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Node:
    """One node of this machine."""

    name: str
    pid: int = 0
    """Process id of its `unshare`; 0 before that is started."""
    born: float = 0.0
    """Time at which that process began, as a process id may be given again."""
    maker: int = 0
    """Process id of the program that starts it."""
    maker_born: float = 0.0
    """Time at which that program began."""

    @property
    def folder(self) -> Path:
        """Folder with everything that the node writes."""
        return RECORDS / self.name

    @property
    def cgroup(self) -> str:
        """Name of its cgroup, below which those of its pods are."""
        return f"beamlit-node-{self.name}"

    @property
    def kubeconfig(self) -> Path:
        """Kubeconfig of its administrator."""
        return self.folder / "admin.kubeconfig"

    @property
    def process(self) -> psutil.Process | None:
        """Process that holds the node; None when it does not run."""
        return _find(self.pid, self.born)

    @property
    def remains(self) -> bool:
        """Whether it is over and left something: its process died, or its maker did before there was one."""
        return self.process is None and (self.pid != 0 or _find(self.maker, self.maker_born) is None)

    @property
    def inside(self) -> int:
        """Process id, on this machine, of the first process in the node's namespaces.

        Raises:
            RuntimeError: the node does not run.
        """
        process = self.process
        children = process.children() if process else []
        if not children:
            raise RuntimeError(f"the node {self.name} does not run")
        return int(children[0].pid)

    def record(self) -> None:
        """Record the node."""
        self.folder.mkdir(parents=True, exist_ok=True)
        partial = self.folder / ".node.json"
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(self.folder / "node.json")

    def end(self) -> None:
        """End all processes of the node, and remove its cgroups, its folder and its record."""
        process = self.process
        if process is not None:
            children = process.children()
            process.send_signal(signal.SIGKILL)
            # `unshare --kill-child` ends the first process with it, and the kernel all others.
            poll(lambda: not any(map(_runs, (process, *children))), f"the processes of the node {self.name} end")
        for path in self.cgroups():
            poll(lambda path=path: _removed(path), f"{path} is empty")  # type: ignore[misc]
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):
            RECORDS.rmdir()

    def cgroups(self) -> list[Path]:
        """Return the folders of its cgroups, the innermost first."""
        tops = [path for path in CGROUPS.glob(f"*/{self.cgroup}") if path.is_dir()]
        if (CGROUPS / self.cgroup).is_dir():
            tops.append(CGROUPS / self.cgroup)
        inner = [path for top in tops for path in top.rglob("*") if path.is_dir()]
        return [*sorted(inner, key=lambda path: len(path.parts), reverse=True), *tops]


def recorded() -> Iterator[Node]:
    """Yield all nodes that are recorded, also those that died."""
    for path in sorted(RECORDS.glob("*/node.json")):
        yield Node(**json.loads(path.read_text()))


def find(name: str) -> Node | None:
    """Return the node of that name; None when none is recorded."""
    return next((node for node in recorded() if node.name == name), None)


def _find(pid: int, born: float) -> psutil.Process | None:
    """Return the process of that id and time of birth; None when it does not run any more."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        if pid and process.create_time() == born and process.status() != psutil.STATUS_ZOMBIE:
            return process
    return None


def _runs(process: psutil.Process) -> bool:
    try:
        return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _removed(cgroup: Path) -> bool:
    """Remove a cgroup, and return whether it is gone: one whose processes are still ending is busy."""
    with contextlib.suppress(OSError):
        cgroup.rmdir()
    return not cgroup.exists()
