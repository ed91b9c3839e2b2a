"""Objects on disk: one YAML file each, written whole or not at all. Files of others are never written.

`DIR/objects/<namespace>/<resource>/<name>.yaml`. A file is written beside its place, flushed and renamed, so a
reader sees the old or the new object, and a `kill -9` loses nothing that was acknowledged. The first line of each file
says that it is ours and which manifest it came from; a file without that line is left alone and reported.
"""

import fcntl
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from metacontroller.local import errors
from metacontroller.local.apiserver import yaml
from metacontroller.local.apiserver.objects import Key, Object

MARK = "# Written by metacontroller.local: edit the manifest instead, changes here are overwritten."
"""First line of every file that the store writes."""

_ORIGIN = re.compile(r"# From manifests/(.+)\.$")
_CLUSTER = "_cluster"
"""Name of the folder for cluster-scoped objects. No namespace can have this name."""

_BLOCK = 1000
"""Number of revisions that are reserved at once: one small write for a thousand, and none is used twice after a
crash."""


@dataclass(frozen=True, slots=True)
class Record:
    """A stored object and its origin."""

    item: Object
    origin: str | None = None
    """Manifest, relative to DIR/manifests; None for an object that a controller made."""


class Store:
    """The objects of one state directory, which one process at a time may use.

    Raises errors.SetupError when another process holds the directory.
    """

    def __init__(self, directory: Path, report: Callable[[str], None]) -> None:
        """Lock the directory. `report` takes one sentence about each file that is left alone."""
        self._objects = directory / "objects"
        self._private = directory / ".local"
        self._report = report
        try:
            self._objects.mkdir(parents=True, exist_ok=True)
            self._private.mkdir(exist_ok=True)
            self._lock = _locked(self._private / "lock", directory)
        except OSError as exc:
            raise errors.SetupError(f"--state {directory}: {exc.strerror or exc}") from exc
        self._revision = self._reserved = self._read_revision()
        self.writes = 0
        """Number of files that were written or removed since the start."""

    def close(self) -> None:
        """Unlock the directory."""
        self._lock.close()

    def next_revision(self) -> int:
        """Return the next resourceVersion, larger than any before in this directory."""
        if self._revision == self._reserved:
            self._reserved += _BLOCK
            _write_whole(self._private / "revision", f"{self._reserved}\n")
        self._revision += 1
        return self._revision

    def load(self) -> Iterator[tuple[Key, Record]]:
        """Return all stored objects. Half-written files of a killed process are removed, foreign files are reported."""
        for path in sorted(self._objects.rglob("*")):
            if path.is_dir():
                continue
            if path.name.startswith(".") and path.name.endswith(".partial"):
                path.unlink(missing_ok=True)
            elif path.suffix in {".yaml", ".yml", ".json"} and (found := self._read(path)) is not None:
                yield found

    def save(self, key: Key, record: Record) -> None:
        """Write one object; raise errors.Refused where a foreign file has its place."""
        path = self._path(key)
        if path.exists() and not _is_ours(path):
            raise errors.Refused(f"{path} is not a file of the stand-in and is left alone: move it away")
        header = MARK if record.origin is None else f"{MARK}\n# From manifests/{record.origin}."
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(path, f"{header}\n{yaml.render(record.item)}")
        except OSError as exc:
            raise errors.Refused(f"cannot write {path}: {exc.strerror or exc}") from exc
        self.writes += 1

    def remove(self, key: Key) -> None:
        """Remove an object's file, and its folders when they are empty."""
        path = self._path(key)
        if not path.exists() or not _is_ours(path):
            return
        path.unlink()
        self.writes += 1
        for folder in (path.parent, path.parent.parent):
            try:
                folder.rmdir()
            except OSError:
                break  # not empty

    def _path(self, key: Key) -> Path:
        return self._objects / (key.namespace or _CLUSTER) / key.resource / f"{key.name}.yaml"

    def _read(self, path: Path) -> tuple[Key, Record] | None:
        relative = path.relative_to(self._objects)
        if len(relative.parts) != 3 or not _is_ours(path):
            self._report(f"objects/{relative} is not ours and is left alone")
            return None
        namespace, resource, _ = relative.parts
        key = Key(resource, "" if namespace == _CLUSTER else namespace, path.stem)
        text = path.read_text(encoding="utf-8")
        try:
            (item,) = yaml.read(text)
            metadata = item["metadata"]
            if (metadata["name"], metadata.get("namespace", "")) != (key.name, key.namespace):
                raise ValueError("it holds another object than its name says")
            if not metadata["uid"] or not metadata["resourceVersion"]:
                raise ValueError("it has no uid or no resourceVersion")
        except (ValueError, KeyError, TypeError) as exc:
            self._report(f"objects/{relative} cannot be read and counts as absent: {exc}")
            return None
        origin = _ORIGIN.match(text.split("\n", 2)[1])
        return key, Record(item, origin.group(1) if origin else None)

    def _read_revision(self) -> int:
        try:
            return int((self._private / "revision").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return 0

    def raise_revision(self, least: int) -> None:
        """Continue above the revisions of stored objects. This is needed only after the counter's file was lost."""
        if least > self._revision:
            self._revision = self._reserved = least


def _locked(path: Path, directory: Path) -> IO[str]:
    handle = path.open("a+", encoding="ascii")
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.seek(0)
        holder = handle.read().strip()
        handle.close()
        raise errors.SetupError(f"{directory} is in use by another metacontroller.local (pid {holder})") from None
    handle.seek(0)
    handle.truncate()
    handle.write(f"{os.getpid()}\n")
    handle.flush()
    return handle


def _is_ours(path: Path) -> bool:
    try:
        with path.open(encoding="utf-8") as handle:
            return handle.readline().rstrip("\n") == MARK
    except (OSError, UnicodeDecodeError):
        return False


def _write_whole(path: Path, text: str) -> None:
    partial = path.with_name(f".{path.name}.partial")
    with partial.open("w", encoding="utf-8") as handle:
        handle.write(text)
        handle.flush()
        os.fsync(handle.fileno())
    partial.replace(path)
