"""Routes from the cluster: ConfigMaps with the route label, listed once and watched from there.

One thread per namespace blocks on the API server; what it learns is handed to the event loop, which alone touches the
objects. While the API server is away everything read before stays. A list every few minutes repairs whatever a watch
might have missed.
"""

import asyncio
import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import structlog

from gateway import sources
from gateway.api import v1alpha1
from gateway.cluster import ApiError, Cluster

SELECTOR: Final = f"{v1alpha1.LABEL}={v1alpha1.LABEL_VALUE}"
RELIST_SECONDS: Final = 300.0
BACKOFF_SECONDS: Final = (0.2, 30.0)
LOG_SECONDS: Final = 60.0
"""Between two log lines about the same trouble."""
READERS: Final = 4
"""Threads that read single Secrets and ModelDeployments."""

log = structlog.get_logger(__name__)


class ConfigMapSource:
    """The route ConfigMaps of a cluster."""

    def __init__(
        self, cluster: Cluster, namespaces: frozenset[str] | None, *, relist_seconds: float = RELIST_SECONDS
    ) -> None:
        """Follow `namespaces`, or all of them when None."""
        self._cluster = cluster
        self._scopes = [_Scope(name, cluster, relist_seconds) for name in sorted(namespaces or {""})]
        self._executor = ThreadPoolExecutor(READERS, thread_name_prefix="cluster-reader")

    async def run(self, apply: Callable[[sources.Snapshot], None], confirm: Callable[[], None]) -> None:
        """Apply what is there, then every change, until cancelled. The first time once every namespace was listed."""
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        def learned(change: Callable[[], bool], fresh: bool) -> None:
            changed = change()
            if not all(one.known for one in self._scopes):
                return
            if changed:
                apply(self._snapshot(fresh))
            elif fresh:
                confirm()

        def tell(change: Callable[[], bool], fresh: bool) -> None:
            if not stop.is_set():
                loop.call_soon_threadsafe(learned, change, fresh)

        for scope in self._scopes:
            name = f"configmaps-{scope.namespace or 'all'}"
            threading.Thread(target=scope.follow, args=(stop, tell), name=name, daemon=True).start()
        try:
            await asyncio.Event().wait()
        finally:
            stop.set()
            self._executor.shutdown(wait=False, cancel_futures=True)

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """The labels (as `label:<name>`) and decoded data of a Secret; None when there is none.

        Raises:
            OSError: it cannot be read now.
        """
        found = await self._read(f"/api/v1/namespaces/{namespace}/secrets/{name}")
        return None if found is None else sources.secret_content(found)

    async def model_deployment(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """A ModelDeployment as stored; None when there is none.

        Raises:
            OSError: it cannot be read now.
        """
        group = "deployment.beamlit.com/v1alpha1"
        return await self._read(f"/apis/{group}/namespaces/{namespace}/modeldeployments/{name}")

    async def _read(self, path: str) -> Mapping[str, Any] | None:
        return await asyncio.get_running_loop().run_in_executor(self._executor, self._cluster.get, path)

    def _snapshot(self, fresh: bool) -> sources.Snapshot:
        return sources.Snapshot(
            [one for scope in self._scopes for one in scope.objects.values()],
            {scope.place: scope.error for scope in self._scopes if scope.error is not None},
            fresh=fresh,
        )


Tell = Callable[[Callable[[], bool], bool], None]
"""Hands a change, and whether it is news of the API server, to the event loop."""


class _Scope:
    """One namespace, or the whole cluster: what is known of it, and the thread's work."""

    def __init__(self, namespace: str, cluster: Cluster, relist_seconds: float) -> None:
        self.namespace = namespace
        self.place = f"namespace {namespace}" if namespace else "the cluster"
        self.objects: dict[str, sources.ConfigMap] = {}
        """By `namespace/name`. Touched by the event loop's thread alone, as are the following."""
        self.error: str | None = None
        self.known = False
        """Whether it was listed once, or is known not to be readable."""
        self._cluster = cluster
        self._relist_seconds = relist_seconds
        self._path = f"/api/v1/namespaces/{namespace}/configmaps" if namespace else "/api/v1/configmaps"
        self._logged_at = float("-inf")

    def follow(self, stop: threading.Event, tell: Tell) -> None:
        """List and watch until told to stop."""
        shortest, longest = BACKOFF_SECONDS
        wait = shortest
        while not stop.is_set():
            try:
                items, version = self._cluster.collection(self._path, SELECTOR)
                tell(lambda items=items: self._replace(items), True)  # type: ignore[misc]
                wait = shortest
                self._watch(version, stop, tell)
            except ApiError as exc:
                if exc.status == 410:
                    continue  # too old to go on from: list again at once
                self._log(exc)
                gone = exc.status in (403, 404)
                tell(lambda exc=exc, gone=gone: self._fail(str(exc), gone), False)  # type: ignore[misc]
                # Not all replicas at the same moment.
                stop.wait(wait * (0.5 + random.random()))  # noqa: S311
                wait = min(2 * wait, longest)

    def _watch(self, version: str, stop: threading.Event, tell: Tell) -> None:
        """Follow changes until it is time to list again.

        Raises:
            ApiError: the watch broke off; 410 when the version is too old.
        """
        until = time.monotonic() + self._relist_seconds * (0.9 + 0.2 * random.random())  # noqa: S311
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            began = time.monotonic()
            for event in self._cluster.watch(self._path, SELECTOR, version, left):
                if stop.is_set():
                    return
                item = event.get("object") or {}
                if event.get("type") == "ERROR":
                    raise ApiError(int(item.get("code") or 0), str(item.get("reason") or "an error in the watch"))
                version = str(item.get("metadata", {}).get("resourceVersion", version))
                if event.get("type") == "BOOKMARK":
                    tell(lambda: False, True)
                else:
                    gone = event.get("type") == "DELETED"
                    tell(lambda item=item, gone=gone: self._change(item, gone), True)  # type: ignore[misc]
            if time.monotonic() - began < 1:
                stop.wait(BACKOFF_SECONDS[0])  # a server that ends every watch at once is not asked in a tight loop

    def _replace(self, items: Iterable[Mapping[str, Any]]) -> bool:
        objects = {one.key: one for one in map(_config_map, items)}
        changed = objects != self.objects or self.error is not None or not self.known
        self.objects, self.error, self.known = objects, None, True
        return changed

    def _change(self, item: Mapping[str, Any], gone: bool) -> bool:
        one = _config_map(item)
        before = self.objects.get(one.key)
        if gone:
            self.objects.pop(one.key, None)
            return before is not None
        self.objects[one.key] = one
        return before != one

    def _fail(self, error: str, gone: bool) -> bool:
        changed = self.error != error or (gone and not self.known)
        self.error = error
        self.known = self.known or gone
        return changed

    def _log(self, exc: ApiError) -> None:
        now = time.monotonic()
        if now - self._logged_at >= LOG_SECONDS:
            self._logged_at = now
            log.warning("routes_cannot_be_read", place=self.place, error=str(exc), status=exc.status)


def _config_map(item: Mapping[str, Any]) -> sources.ConfigMap:
    metadata = item.get("metadata") or {}
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    text = (item.get("data") or {}).get(v1alpha1.KEY)
    return sources.ConfigMap(
        namespace=namespace,
        name=name,
        created=str(metadata.get("creationTimestamp") or ""),
        text=text if isinstance(text, str) else None,
        origin=f"{namespace}/{name}",
    )
