"""Routes from a directory of YAML files: ConfigMaps, Secrets and ModelDeployments as `kubectl get -o yaml` prints them.

A file that cannot be read or parsed, or that is empty, is reported, and its last objects stay in force. A file that is
written in place counts once no program writes to it any longer: its first part may well be YAML, of other objects.
Changes are noticed by the kernel's notifications; a poll repairs one that was missed.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
import watchfiles

from gateway.api import v1alpha1
from gateway.routes import sources
from program.files import FastLoader, Unreadable, load_all, problem

POLL_SECONDS: Final = 5.0
"""Seconds after which all files are looked at again, in case a notification was missed."""
SETTLE_SECONDS: Final = 0.3
"""Seconds for which a file that is written in place has to stay unchanged before it counts."""
SUFFIXES: Final = (".yaml", ".yml", ".json")
"""Suffixes of the files that are read."""
MAX_FILE_BYTES: Final = 4 << 20
"""Bytes of the largest file that is read."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _File:
    """The objects of a file when it could last be read."""

    signature: tuple[int, int, int]
    """Modification time, size and inode of the version that was last looked at."""
    objects: tuple[Mapping[str, Any], ...]
    error: str | None


class DirectorySource:
    """The route ConfigMaps in the files of a directory and its sub-directories."""

    def __init__(self, directory: Path, *, poll_seconds: float = POLL_SECONDS) -> None:
        """Read `directory`, and look at all of its files after `poll_seconds` without a notification."""
        self._directory = directory
        self._poll_seconds = poll_seconds
        self._files: dict[Path, _File] = {}
        self._unsettled: dict[Path, tuple[tuple[int, int, int], float]] = {}
        """Files that are being written, with the version last seen and the time since when it is the same."""

    def read(self) -> tuple[sources.Snapshot, bool]:
        """Look at each file whose version is new; return all ConfigMaps, and whether any of them may be new."""
        if not self._directory.is_dir():
            # Not the same as an empty one: taking the directory away is not meant to end all routes.
            return self._snapshot({str(self._directory): "is not a directory"}), True
        changed = False
        files: dict[Path, _File] = {}
        unsettled, self._unsettled = self._unsettled, {}
        for path in self._paths():
            before = self._files.get(path)
            try:
                status = path.stat()
            except OSError:
                continue  # removed between listing and looking
            signature = (status.st_mtime_ns, status.st_size, status.st_ino)
            if before is not None and before.signature == signature:
                files[path] = before
                continue
            if before is not None and before.signature[2] == signature[2]:
                now = time.monotonic()
                version, since = unsettled.get(path, (signature, now))
                if version != signature or now < since + SETTLE_SECONDS:
                    self._unsettled[path] = (signature, since if version == signature else now)
                    files[path] = before
                    continue
            changed = True
            try:
                text = _text(path)
                if not text.strip() and before is not None and before.objects:
                    # A program that is about to write, more often than a wish to remove all objects.
                    raise ValueError("is empty, and its last objects stay in force: remove the file to remove them")
                files[path] = _File(signature, tuple(_objects(text)), None)
            except Unreadable as exc:
                files[path] = _File(signature, before.objects if before else (), problem(exc))
            except ValueError as exc:
                files[path] = _File(signature, before.objects if before else (), str(exc))
        changed = changed or files.keys() != self._files.keys()
        self._files = files
        return self._snapshot(), changed

    async def run(self, apply: Callable[[sources.Snapshot], None], confirm: Callable[[], None]) -> None:
        """Apply the ConfigMaps that are there, then each change, until cancelled; confirm that nothing has changed."""
        snapshot, _ = self.read()
        apply(snapshot)
        stop = asyncio.Event()
        try:
            async for _ in watchfiles.awatch(
                self._directory,
                watch_filter=None,
                debounce=50,
                step=20,
                rust_timeout=int(self._poll_seconds * 1000),
                yield_on_timeout=True,
                stop_event=stop,
                recursive=True,
            ):
                self._look(apply, confirm)
                while self._unsettled:  # of their last change there was a notification already
                    await asyncio.sleep(SETTLE_SECONDS)
                    self._look(apply, confirm)
        finally:
            stop.set()

    def _look(self, apply: Callable[[sources.Snapshot], None], confirm: Callable[[], None]) -> None:
        snapshot, changed = self.read()
        if changed:
            apply(snapshot)
        else:
            confirm()

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return labels and decoded data of a Secret, as `label:<name>` and data keys; None when there is none."""
        item = self._object("Secret", namespace, name)
        return None if item is None else sources.secret_content(item)

    async def model_deployment(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return a ModelDeployment as its file has it; None when there is none."""
        return self._object("ModelDeployment", namespace, name)

    def _object(self, kind: str, namespace: str, name: str) -> Mapping[str, Any] | None:
        for file in self._files.values():
            for one in file.objects:
                metadata = one.get("metadata") or {}
                if (
                    one.get("kind") == kind
                    and metadata.get("name") == name
                    and metadata.get("namespace", "default") == namespace
                ):
                    return one
        return None

    def _paths(self) -> Iterator[Path]:
        for path in sorted(self._directory.rglob("*")):
            relative = path.relative_to(self._directory)
            if path.suffix in SUFFIXES and path.is_file() and not any(part.startswith(".") for part in relative.parts):
                yield path

    def _snapshot(self, problems: Mapping[str, str] | None = None) -> sources.Snapshot:
        config_maps: dict[str, sources.ConfigMap] = {}
        for path, file in self._files.items():
            for one in file.objects:
                config_map = _config_map(one, path)
                if config_map is not None:
                    config_maps.setdefault(config_map.key, config_map)
        errors = {str(path): file.error for path, file in self._files.items() if file.error is not None}
        return sources.Snapshot(tuple(config_maps.values()), errors | dict(problems or {}))


def _text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too large, or not UTF-8.
    """
    if path.stat().st_size > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
    return path.read_text(encoding="utf-8")


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """Return the Kubernetes objects in a YAML text, with those in Lists.

    Raises:
        ValueError: the text has something else.
    """
    for document in load_all(text, FastLoader):
        if document is None:
            continue
        if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
            raise ValueError("holds something that is not a Kubernetes object")
        items = document.get("items") if document["kind"].endswith("List") else [document]
        for one in items or ():
            if not isinstance(one, dict) or not isinstance(one.get("metadata"), dict):
                raise ValueError("holds an object without metadata")
            yield one


def _config_map(one: Mapping[str, Any], path: Path) -> sources.ConfigMap | None:
    metadata = one["metadata"]
    if one.get("kind") != "ConfigMap" or (metadata.get("labels") or {}).get(v1alpha1.LABEL) != v1alpha1.LABEL_VALUE:
        return None
    text = (one.get("data") or {}).get(v1alpha1.KEY)
    created = metadata.get("creationTimestamp") or ""
    return sources.ConfigMap(
        namespace=str(metadata.get("namespace", "default")),
        name=str(metadata.get("name")),
        created=created if isinstance(created, str) else created.strftime("%Y-%m-%dT%H:%M:%SZ"),
        text=None if text is None else str(text),
        origin=str(path),
    )
