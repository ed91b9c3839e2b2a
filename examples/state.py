"""The state folder of `make run`: a copy of the examples that is the user's to edit, and what the programs keep."""

from __future__ import annotations

import fcntl
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from program.files import Unreadable, load, problem

HERE: Final = Path(__file__).resolve().parent

_MARK: Final = ".make-run.json"
"""Name of the file that marks a state folder and holds the ports in its files."""
_LOCK: Final = ".make-run.lock"
_OWN: Final = (
    "manifests",
    "objects",
    "logs",
    ".local",
    "config.yaml",
    "workloads.yaml",
    "metrics.yaml",
    "pods.yaml",
    _MARK,
)
"""Files and folders that `--reset` removes."""
_WRITTEN_PORTS: Final = {"local": 9101, "remote": 9102, "admin": 8081, "second": 9103}
"""Ports of the model servers, and of the gateway for administrators, in the examples."""


class StateError(Exception):
    """The folder cannot be used. The message is one line that says what to do."""


@dataclass(frozen=True, slots=True)
class StateFolder:
    """A state folder that is ready for use. The lock on it lasts as long as this object."""

    path: Path
    lock: IO[str]

    @property
    def config(self) -> Path:
        """Path of the configuration of hooks and gateway."""
        return self.path / "config.yaml"

    @property
    def workloads(self) -> Path:
        """Path of the file that names the process behind each workload."""
        return self.path / "workloads.yaml"

    @property
    def metrics(self) -> Path:
        """Path of the file with the responses of a metrics API."""
        return self.path / "metrics.yaml"

    @property
    def pods(self) -> Path:
        """Path of the file in which the processes of the workloads stand as pods."""
        return self.path / "pods.yaml"

    @property
    def manifests(self) -> Path:
        """Folder of the user's objects."""
        return self.path / "manifests"

    @property
    def objects(self) -> Path:
        """Folder of the objects that a cluster would hold."""
        return self.path / "objects"

    @property
    def logs(self) -> Path:
        """Folder of the logs, one file per program."""
        return self.path / "logs"

    def resolve(self) -> tuple[str, ...]:
        """Return the addresses of Service names, as `host:port=address:port`.

        Raises:
            StateError: workloads.yaml cannot be read.
        """
        try:
            content = load(self.workloads.read_text(encoding="utf-8")) or {}
        except FileNotFoundError:
            return ()
        except Unreadable as error:
            raise StateError(f"{self.workloads} {problem(error)}") from error
        entries = content.get("resolve") if isinstance(content, dict) else None
        if not isinstance(entries or [], list) or not all(isinstance(entry, str) for entry in entries or []):
            raise StateError(f'{self.workloads}: resolve must be a list of "host:port=address:port"')
        return tuple(entries or ())


def prepare(path: Path, *, local: int, remote: int, admin: int, second: int = 9103, reset: bool) -> StateFolder:
    """Lock the folder, and copy the examples into it the first time or with `reset`.

    Edits stay as they are, except that the addresses of the model servers and of the gateway's port for administrators,
    and the ports that stand for them in manifests, follow their ports.

    Raises:
        StateError: the folder cannot be used.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        if reset and not (path / _MARK).exists() and any(part.name != _LOCK for part in path.iterdir()):
            raise StateError(f"--reset empties state folders of `make run` only, which {path} is not.")
        folder = StateFolder(path, _locked(path))
        if reset:
            _empty(path)
        ports = {"local": local, "remote": remote, "admin": admin, "second": second}
        mark = path / _MARK
        if not mark.exists():
            _copy_examples(path)
            _write_whole(mark, json.dumps(_WRITTEN_PORTS))
        # A folder of an earlier version knows no second server, and its files have no such port.
        if (before := _WRITTEN_PORTS | json.loads(mark.read_text(encoding="utf-8"))) != ports:
            _move_ports(folder, before, ports)
            _write_whole(mark, json.dumps(ports))
        for needed in (folder.manifests, folder.objects, folder.logs):
            needed.mkdir(exist_ok=True)
    except (OSError, ValueError) as error:
        raise StateError(f"--state {path} cannot be used: {error}") from error
    return folder


def _locked(path: Path) -> IO[str]:
    lock = (path / _LOCK).open("w", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        raise StateError(f"Another `make run` uses {path}: end it, or choose another folder with --state.") from None
    return lock


def _empty(path: Path) -> None:
    for name in _OWN:
        part = path / name
        if part.is_dir() and not part.is_symlink():
            shutil.rmtree(part)
        else:
            part.unlink(missing_ok=True)


def _copy_examples(path: Path) -> None:
    files = [HERE / name for name in ("config.yaml", "workloads.yaml", "metrics.yaml")]
    sources = [*files, *sorted((HERE / "manifests").glob("*.yaml"))]
    for source in sources:
        target = path / source.relative_to(HERE)
        if not target.exists():
            target.parent.mkdir(exist_ok=True)
            _write_whole(target, source.read_text(encoding="utf-8"))


def _move_ports(folder: StateFolder, before: dict[str, int], after: dict[str, int]) -> None:
    for file in (folder.config, folder.workloads, *sorted(folder.manifests.glob("*.y*ml"))):
        if not file.is_file():
            continue
        text = moved = file.read_text(encoding="utf-8")
        # In two steps, for the two may have changed places.
        for name, port in before.items():
            moved = re.sub(rf"(127\.0\.0\.1:|\b(?:containerPort|port): ){port}\b", rf"\g<1><{name}>", moved)
        for name, port in after.items():
            moved = re.sub(rf"(127\.0\.0\.1:|\b(?:containerPort|port): )<{name}>", rf"\g<1>{port}", moved)
        if moved != text:
            _write_whole(file, moved)


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8")
    partial.replace(path)
