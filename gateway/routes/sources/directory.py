"""Routes from a directory of YAML files: ConfigMaps, EndpointSlices, Secrets, ModelDeployments, as kubectl prints them.

A file that cannot be read or parsed, or that is empty, is reported, and its last objects stay in force. A file that is
written in place counts once no program writes to it any longer: its first part may well be YAML, of other objects.
Changes are noticed by the kernel's notifications; a poll repairs one that was missed. Files are read in a thread, since
a large one takes a second.
"""

import asyncio
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
import watchfiles

from gateway.api import v1alpha1
from gateway.backends.endpoints import EndpointTable
from gateway.backends.endpoints import read as read_slice
from gateway.routes import sources
from gateway.routes.sources.objects import identity, objects
from program.files import Unreadable, problem

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

    def __init__(
        self, directory: Path, *, endpoints: EndpointTable | None = None, poll_seconds: float = POLL_SECONDS
    ) -> None:
        """Read `directory`, and look at all of its files after `poll_seconds` without a notification.

        `endpoints` is the table in which the pods of Services are kept; without one, EndpointSlices do not count.
        """
        self._directory = directory
        self._endpoints = endpoints
        self._poll_seconds = poll_seconds
        self._files: dict[Path, _File] = {}
        self._unsettled: dict[Path, tuple[tuple[int, int, int], float]] = {}
        """Files that are being written, with the version last seen and the time since when it is the same."""
        self._stopped = threading.Event()
        """Event that ends the thread that reads: the process must not wait for all files."""

    def read(self) -> tuple[sources.Snapshot, bool]:
        """Look at each file whose version is new; return all ConfigMaps, and whether any of them may be new."""
        try:
            paths = self._paths() if self._directory.is_dir() else None
        except OSError as exc:
            return self._snapshot({_place(self._directory): problem(exc)}), True
        if paths is None:
            # Not the same as an empty one: taking the directory away is not meant to end all routes.
            return self._snapshot({_place(self._directory): "is not a directory"}), True
        changed = False
        files: dict[Path, _File] = {}
        unsettled, self._unsettled = self._unsettled, {}
        for path in paths:
            if self._stopped.is_set():
                return self._snapshot(), False
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
            files[path] = _read(path, signature, before.objects if before else ())
        changed = changed or files.keys() != self._files.keys()
        self._files = files
        return self._snapshot(), changed

    async def run(self, apply: Callable[[sources.Snapshot], None], confirm: Callable[[], None]) -> None:
        """Apply the ConfigMaps that are there, then each change, until cancelled; confirm that nothing has changed."""
        stop = asyncio.Event()
        self._stopped.clear()
        try:
            snapshot, _ = await asyncio.to_thread(self.read)
            self._keep_endpoints()
            apply(snapshot)
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
                await self._look(apply, confirm)
                while self._unsettled:  # of their last change there was a notification already
                    await asyncio.sleep(SETTLE_SECONDS)
                    await self._look(apply, confirm)
        finally:
            self._stopped.set()
            stop.set()

    async def _look(self, apply: Callable[[sources.Snapshot], None], confirm: Callable[[], None]) -> None:
        snapshot, changed = await asyncio.to_thread(self.read)
        if changed:
            self._keep_endpoints()
            apply(snapshot)
        else:
            confirm()

    def _keep_endpoints(self) -> None:
        """Keep the pods that the EndpointSlices in the files have now."""
        if self._endpoints is None:
            return
        names: dict[str, set[str]] = {}
        for file in self._files.values():
            for one in file.objects:
                if one["kind"] != "EndpointSlice":
                    continue
                known = read_slice({**one, "metadata": {"namespace": "default", **one["metadata"]}})
                if known is not None and known.name not in names.setdefault(known.namespace, set()):
                    names[known.namespace].add(known.name)
                    self._endpoints.put(known)
        self._endpoints.keep_only(names)

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
                if one["kind"] == kind and identity(one["metadata"]) == (namespace, name):
                    return one
        return None

    def _paths(self) -> list[Path]:
        """Return the files to read.

        Raises:
            OSError: A directory cannot be listed.
        """
        return [
            path
            for path in sorted(self._directory.rglob("*"))
            if path.suffix in SUFFIXES
            and path.is_file()
            and not any(part.startswith(".") for part in path.relative_to(self._directory).parts)
        ]

    def _snapshot(self, problems: Mapping[str, str] | None = None) -> sources.Snapshot:
        config_maps: dict[str, sources.ConfigMap] = {}
        for path, file in self._files.items():
            for one in file.objects:
                config_map = _config_map(one, path)
                if config_map is not None:
                    config_maps.setdefault(config_map.key, config_map)
        errors = {_place(path): file.error for path, file in self._files.items() if file.error is not None}
        return sources.Snapshot(tuple(config_maps.values()), errors | dict(problems or {}))


def _read(path: Path, signature: tuple[int, int, int], last: tuple[Mapping[str, Any], ...]) -> _File:
    """Return the objects of a file, or those that it had last and why it has none now."""
    try:
        text = _text(path)
        if not text.strip() and last:
            # A program that is about to write, more often than a wish to remove all objects.
            raise ValueError("is empty, and its last objects stay in force: remove the file to remove them")
        return _File(signature, tuple(objects(text, max_chars=MAX_FILE_BYTES)), None)
    except Unreadable as exc:
        return _File(signature, last, problem(exc))
    except ValueError as exc:
        return _File(signature, last, str(exc))
    except Exception as exc:  # one file must not end the updates of all others
        log.exception("route_file_failed", place=_place(path))
        return _File(signature, last, f"the gateway failed at it: {type(exc).__name__}")


def _text(path: Path) -> str:
    """Return the text of a file.

    Raises:
        OSError: the file cannot be read.
        ValueError: the file is too large, or not UTF-8.
    """
    with path.open("rb") as file:
        content = file.read(MAX_FILE_BYTES + 1)
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(f"larger than {MAX_FILE_BYTES} bytes")
    return content.decode()


def _config_map(one: Mapping[str, Any], path: Path) -> sources.ConfigMap | None:
    """Return a ConfigMap with the route label; None for any other object."""
    metadata = one["metadata"]
    if one["kind"] != "ConfigMap" or (metadata.get("labels") or {}).get(v1alpha1.LABEL) != v1alpha1.LABEL_VALUE:
        return None
    namespace, name = identity(metadata) or ("", "")
    return sources.ConfigMap(
        namespace=namespace,
        name=name,
        created=metadata.get("creationTimestamp") or "",
        text=(one.get("data") or {}).get(v1alpha1.KEY),
        origin=_place(path),
    )


def _place(path: Path) -> str:
    """Return a path as text that can be logged and shown, also where its name is not UTF-8."""
    return str(path).encode(errors="backslashreplace").decode()
