"""Manifests of the user: an object in DIR/manifests is created, and deleted once it is removed there.

Files are looked at five times a second. A file that cannot be read keeps what it gave before; an object the API server
refuses keeps its stored form, and one sentence says why. Two files may not hold the same object: the first one has it.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from metacontroller.local import errors
from metacontroller.local.apiserver import yaml
from metacontroller.local.apiserver.objects import Key, Object, controller_of, copy, equal, key_of
from metacontroller.local.apiserver.server import ApiServer

INTERVAL: Final = 0.2
"""Seconds between two looks at the folder."""

_SUFFIXES = {".yaml", ".yml", ".json"}
_SYSTEM = ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp")
_OTHERS = ("ownerReferences", "finalizers")
"""Metadata that controllers write and manifests usually leave out."""


@dataclass(frozen=True, slots=True)
class _File:
    stamp: tuple[int, int, int]
    """Modification time in nanoseconds, size and inode of the file."""
    items: tuple[Object, ...] | None
    """Objects of the file; None where it could not be read."""


class Manifests:
    """A folder of manifests that is applied to an API server."""

    def __init__(self, api: ApiServer, folder: Path, report: Callable[[str], None]) -> None:
        """Create a reader. `report` takes one line for each object created, configured, deleted or refused."""
        self._api, self._folder, self._report = api, folder, report
        self._files: dict[str, _File] | None = None
        self._reported: dict[str, str] = {}
        self._leaving: set[Key] = set()
        """Objects of manifests that are still being deleted: they are created again once they are gone."""
        folder.mkdir(parents=True, exist_ok=True)

    def look(self) -> bool:
        """Apply the changes since the last look. Return whether there were any."""
        names = sorted(
            path.relative_to(self._folder).as_posix()
            for path in self._folder.rglob("*")
            if path.suffix in _SUFFIXES and not path.name.startswith(".") and path.is_file()
        )
        files = {name: file for name in names if (file := self._read(name)) is not None}
        gone = {key for key in self._leaving if self._api.find(key) is None}
        if files == self._files and not gone:
            return False
        self._leaving -= gone
        changed = {name for name, file in files.items() if file != (self._files or {}).get(name)}
        self._files = files
        self._apply(files, changed)
        return True

    def _read(self, name: str) -> _File | None:
        path = self._folder / name
        before = (self._files or {}).get(name)
        try:
            info = path.stat()
            stamp = (info.st_mtime_ns, info.st_size, info.st_ino)
            if before is not None and before.stamp == stamp:
                return before
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as exc:
            if not isinstance(exc, FileNotFoundError):
                self._report(f"manifests/{name}: not read, what it gave before stays: {exc}")
            return None if isinstance(exc, FileNotFoundError) else before
        if not text.strip() and before is not None and before.items:
            # An editor that is about to write, more often than a user who wants all of it deleted.
            self._report(f"manifests/{name}: it is empty, what it gave before stays: remove the file to delete that")
            return _File(stamp, before.items)
        try:
            return _File(stamp, tuple(yaml.read(text)))
        except yaml.DocumentError as exc:
            self._report(f"manifests/{name}: not read, what it gave before stays: {exc}")
            return _File(stamp, before.items if before is not None else None)

    def _apply(self, files: dict[str, _File], changed: set[str]) -> None:
        owners: dict[Key, str] = {}
        # Objects of a file that is not understood in full stay: a typing error must not delete anything.
        unclear = {name for name, file in files.items() if file.items is None}
        for name, file in files.items():
            for item in file.items or ():
                key = self._key(name, item)
                if key is None:
                    unclear.add(name)
                elif key in owners:
                    if name in changed:
                        self._report(f"manifests/{name}: {key} refused: manifests/{owners[key]} has it already")
                else:
                    owners[key] = name
                    self._place(name, key, copy(item), loud=name in changed)
        for key in self._api.all_keys():
            origin = self._api.origin(key)
            if origin is not None and key not in owners and origin not in unclear:
                self._delete(key)

    def _key(self, name: str, item: Object) -> Key | None:
        """Return the key of an object, or None after a reported sentence where it has none."""
        metadata = item.get("metadata")
        try:
            kind = self._api.kind_named(item["apiVersion"], item["kind"])
            if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
                raise errors.Invalid("metadata.name is required")
        except errors.Refused as exc:
            if name not in self._reported or self._reported[name] != str(exc):
                self._report(f"manifests/{name}: {item['kind']} refused, nothing changed: {exc}")
            self._reported[name] = str(exc)
            return None
        if kind.namespaced and not metadata.get("namespace"):
            metadata["namespace"] = "default"
        return key_of(kind, item)

    def _place(self, name: str, key: Key, item: Object, *, loud: bool) -> None:
        label = f"manifests/{name}: {item['kind']} {key.namespace}/{key.name}"
        try:
            if loud:
                for field in self._api.unknown_fields(item):
                    self._report(f"{label}: the field {field} is not known and is dropped")
            self._write(key, item, name, label)
        except errors.Refused as exc:
            if loud:
                self._report(f"{label} refused, nothing changed: {exc}")

    def _write(self, key: Key, item: Object, name: str, label: str) -> None:
        metadata = item["metadata"]
        for field in _SYSTEM:
            metadata.pop(field, None)
        item.pop("status", None)
        before = self._api.find(key)
        if before is None:
            self._api.create(item, origin=name)
            self._report(f"{label} created")
            return
        if "deletionTimestamp" in before["metadata"]:
            self._leaving.add(key)
            return
        if self._api.origin(key) is None and controller_of(before) is not None:
            raise errors.Invalid("a controller made the object of this name: choose another name")
        for field in _OTHERS:
            if field in before["metadata"] and field not in metadata:
                metadata[field] = before["metadata"][field]
        after = self._api.update(item, origin=name)
        if not equal(_visible(after), _visible(before)):
            self._report(f"{label} configured")

    def _delete(self, key: Key) -> None:
        item = self._api.find(key)
        if item is None or "deletionTimestamp" in item["metadata"]:
            return
        try:
            self._api.delete(key)
        except errors.NotFound:
            return  # its owner went before it
        self._report(f"{key} deleted with its manifest")


def _visible(item: Object) -> Object:
    return {**item, "metadata": {**item["metadata"], "resourceVersion": ""}}
