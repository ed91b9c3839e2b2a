"""Routes from the cluster: ConfigMaps with the route label, listed once and watched from there.

One thread per namespace blocks on the API server; what it learns is handed to the event loop, which alone touches the
objects. While the API server is away everything read before stays. A list every few minutes repairs whatever a watch
might have missed.
"""

import asyncio
import contextlib
import queue
import random
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from typing import Any, Final
from urllib.parse import quote

import structlog

from gateway.api import v1alpha1
from gateway.cluster import ApiError, Cluster
from gateway.routes import sources

SELECTOR: Final = f"{v1alpha1.LABEL}={v1alpha1.LABEL_VALUE}"
RELIST_SECONDS: Final = 300.0
BACKOFF_SECONDS: Final = (0.2, 10.0)
"""Between two attempts, doubled from the first to the last: what an API server has that comes back is soon known."""
STEADY_SECONDS: Final = 5.0
"""A watch that lasted so long was a good one: after it the waiting starts from the shortest again."""
LOG_SECONDS: Final = 60.0
"""Between two log lines about the same trouble."""
GATHER_SECONDS: Final = 0.01
"""How long what was learned waits for more of it: a snapshot is of everything there is."""
READERS: Final = 4
"""Threads that read single Secrets and ModelDeployments."""

log = structlog.get_logger(__name__)

Change = Callable[[], bool]
"""Changes what is known, in the event loop; tells whether that was any different."""
Tell = Callable[[Change, bool], None]
"""Hands a change, and whether it is news of the API server, to the event loop."""


class ConfigMapSource:
    """The route ConfigMaps of a cluster."""

    def __init__(
        self, cluster: Cluster, namespaces: frozenset[str] | None, *, relist_seconds: float = RELIST_SECONDS
    ) -> None:
        """Follow `namespaces`, or all of them when None."""
        self._readers = _Readers(cluster)
        self._scopes = [_Scope(name, cluster, relist_seconds) for name in sorted(namespaces or {""})]

    async def run(self, apply: Callable[[sources.Snapshot], None], confirm: Callable[[], None]) -> None:
        """Apply what is there, then every change, until cancelled.

        Complete once one namespace was listed and every other one was, too, or is known not to be readable.
        """
        loop = asyncio.get_running_loop()
        stop = threading.Event()

        gathered: list[bool] = []
        """Whether each change was news of the API server."""

        def learned(change: Change, fresh: bool) -> None:
            if stop.is_set():
                return
            changed = change()
            fresh = fresh and self._followed
            if changed:
                if not gathered:
                    loop.call_later(GATHER_SECONDS, say)
                gathered.append(fresh)
            elif fresh and self._complete:
                confirm()

        def say() -> None:
            fresh = any(gathered)
            gathered.clear()
            if not stop.is_set():
                apply(self._snapshot(fresh))

        def tell(change: Change, fresh: bool) -> None:
            # A loop that has ended needs no news.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(learned, change, fresh)

        for scope in self._scopes:
            name = f"configmaps-{scope.namespace or 'all'}"
            threading.Thread(target=scope.follow, args=(stop, tell), name=name, daemon=True).start()
        try:
            await asyncio.Event().wait()
        finally:
            stop.set()

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """The labels (as `label:<name>`) and decoded data of a Secret; None when there is none.

        Raises:
            OSError: it cannot be read now.
        """
        found = await self._readers.read(f"/api/v1/namespaces/{_segment(namespace)}/secrets/{_segment(name)}")
        return None if found is None else sources.secret_content(found)

    async def model_deployment(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """A ModelDeployment as stored; None when there is none.

        Raises:
            OSError: it cannot be read now.
        """
        group = "deployment.beamlit.com/v1alpha1"
        path = f"/apis/{group}/namespaces/{_segment(namespace)}/modeldeployments/{_segment(name)}"
        return await self._readers.read(path)

    @property
    def _complete(self) -> bool:
        scopes = self._scopes
        return any(one.listed for one in scopes) and all(one.listed or one.refused for one in scopes)

    @property
    def _followed(self) -> bool:
        """Whether nothing is in trouble: the table is as young as the news only when all of it is followed."""
        return all(one.error is None or one.refused for one in self._scopes)

    def _snapshot(self, fresh: bool) -> sources.Snapshot:
        return sources.Snapshot(
            [one for scope in self._scopes for one in scope.objects.values()],
            {scope.place: scope.error for scope in self._scopes if scope.error is not None},
            fresh=fresh,
            complete=self._complete,
        )


class _Readers:
    """Threads that read single objects, started when they are needed.

    Daemons, unlike those of an executor: a process that stops does not wait for an API server that does not answer.
    """

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._work: queue.SimpleQueue[tuple[str, Future[dict[str, Any] | None]]] = queue.SimpleQueue()
        self._started = 0

    async def read(self, path: str) -> dict[str, Any] | None:
        """The object at `path`; None when there is none.

        Raises:
            OSError: it cannot be read now.
        """
        if self._started < READERS:
            self._started += 1
            threading.Thread(target=self._run, name=f"cluster-reader-{self._started}", daemon=True).start()
        answer: Future[dict[str, Any] | None] = Future()
        self._work.put((path, answer))
        return await asyncio.wrap_future(answer)

    def _run(self) -> None:
        while True:
            path, answer = self._work.get()
            if not answer.set_running_or_notify_cancel():
                continue  # nobody waits for it any more
            try:
                answer.set_result(self._cluster.get(path))
            except Exception as exc:  # noqa: BLE001 - whoever waits for it deals with it
                answer.set_exception(exc)


class _Scope:
    """One namespace, or the whole cluster: what is known of it, and the thread's work."""

    def __init__(self, namespace: str, cluster: Cluster, relist_seconds: float) -> None:
        self.namespace = namespace
        self.place = f"namespace {namespace}" if namespace else "the cluster"
        self.objects: dict[str, sources.ConfigMap] = {}
        """By `namespace/name`. Touched by the event loop's thread alone, as are the following."""
        self.error: str | None = None
        self.listed = False
        """Whether it was listed once."""
        self.refused = False
        """Whether the API server once said that it is not to be read: forbidden or missing."""
        self._cluster = cluster
        self._relist_seconds = relist_seconds
        self._path = f"/api/v1/namespaces/{_segment(namespace)}/configmaps" if namespace else "/api/v1/configmaps"
        self._logged_at: float | None = None
        """The thread's own, as are the following."""
        self._troubled = False
        """Whether the last log line told of trouble."""
        self._wait = BACKOFF_SECONDS[0]
        self._expired = False
        """Whether the last attempt ended because its version was too old."""

    def follow(self, stop: threading.Event, tell: Tell) -> None:
        """List and watch until told to stop."""
        while not stop.is_set():
            try:
                version = self._list(tell)
                self._watch(version, stop, tell)
            except ApiError as exc:
                failure = exc
            except Exception as exc:
                log.exception("routes_following_failed", place=self.place)
                failure = ApiError(0, f"the gateway failed at it: {type(exc).__name__}")
            else:
                continue
            if stop.is_set():
                return
            if failure.status == 410 and not self._expired:
                self._expired = True
                continue  # too old to go on from: list again at once, but not for ever
            self._log(failure)
            tell(self._failure(str(failure), failure.status in (403, 404)), False)
            # Not all replicas at the same moment.
            stop.wait(self._wait * (0.5 + 0.5 * random.random()))  # noqa: S311
            self._wait = min(2 * self._wait, BACKOFF_SECONDS[1])

    def _list(self, tell: Tell) -> str:
        """Read everything; return the version it has.

        Raises:
            ApiError: it cannot be had.
        """
        objects: dict[str, sources.ConfigMap] = {}
        version = ""
        for items, version in self._cluster.pages(self._path, SELECTOR):  # noqa: B007 - the last one counts
            objects |= {one.key: one for one in map(_config_map, items)}
        tell(self._replacement(objects), True)
        return version

    def _watch(self, version: str, stop: threading.Event, tell: Tell) -> None:
        """Follow changes until it is time to list again.

        Raises:
            ApiError: the watch broke off; 410 when the version is too old.
        """
        until = time.monotonic() + self._relist_seconds * (0.9 + 0.2 * random.random())  # noqa: S311
        while not stop.is_set() and (left := until - time.monotonic()) > 0:
            began = time.monotonic()
            try:
                with self._cluster.watch(self._path, SELECTOR, version, left) as events:
                    self._recovered(tell)
                    for event in events:
                        if stop.is_set() or time.monotonic() >= until:
                            return  # even where the API server would go on
                        version = self._event(event, tell) or version
                        self._expired = False
            finally:
                if time.monotonic() - began >= STEADY_SECONDS:
                    self._wait, self._expired = BACKOFF_SECONDS[0], False
            if time.monotonic() - began < 1:
                stop.wait(BACKOFF_SECONDS[0])  # a server that ends every watch at once is not asked in a tight loop

    def _event(self, event: Mapping[str, Any], tell: Tell) -> str:
        """Tell what an event says; return the version it brings, empty where it brings none.

        Raises:
            ApiError: the API server gives the watch up.
        """
        kind, item = event.get("type"), event.get("object")
        if not isinstance(item, dict):
            raise ApiError(0, "the watch sent an event without an object")
        if kind == "ERROR":
            code = item.get("code")
            raise ApiError(code if isinstance(code, int) else 0, str(item.get("reason") or "an error in the watch"))
        if kind == "BOOKMARK":
            tell(lambda: False, True)
        elif kind in ("ADDED", "MODIFIED", "DELETED"):
            tell(self._change(_config_map(item), kind == "DELETED"), True)
        metadata = item.get("metadata")
        return str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""

    def _recovered(self, tell: Tell) -> None:
        """Listed and watching: all is well."""

        def apply() -> bool:
            changed, self.error = self.error is not None, None
            return changed

        tell(apply, True)
        if self._troubled:
            self._troubled = False
            log.info("routes_are_followed_again", place=self.place)

    def _replacement(self, objects: dict[str, sources.ConfigMap]) -> Change:
        def apply() -> bool:
            changed = objects != self.objects or not self.listed
            self.objects, self.listed = objects, True
            return changed

        return apply

    def _change(self, one: sources.ConfigMap, gone: bool) -> Change:
        def apply() -> bool:
            before = self.objects.get(one.key)
            if gone:
                self.objects.pop(one.key, None)
                return before is not None
            self.objects[one.key] = one
            return before != one

        return apply

    def _failure(self, error: str, refused: bool) -> Change:
        def apply() -> bool:
            changed = self.error != error or (refused and not self.refused)
            self.error, self.refused = error, self.refused or refused
            return changed

        return apply

    def _log(self, exc: ApiError) -> None:
        now = time.monotonic()
        if self._logged_at is None or now - self._logged_at >= LOG_SECONDS:
            self._logged_at, self._troubled = now, True
            log.warning("routes_cannot_be_read", place=self.place, error=str(exc), status=exc.status)


def _config_map(item: Mapping[str, Any]) -> sources.ConfigMap:
    metadata, data = item.get("metadata"), item.get("data")
    if not isinstance(metadata, dict):
        metadata = {}
    namespace, name = str(metadata.get("namespace", "")), str(metadata.get("name", ""))
    text = data.get(v1alpha1.KEY) if isinstance(data, dict) else None
    return sources.ConfigMap(
        namespace=namespace,
        name=name,
        created=str(metadata.get("creationTimestamp") or ""),
        text=text if isinstance(text, str) else None,
        origin=f"{namespace}/{name}",
    )


def _segment(name: str) -> str:
    """A name as one segment of a path.

    Raises:
        OSError: it cannot be the name of an object.
    """
    if name in ("", ".", ".."):
        raise ApiError(0, f"{name!r} is not the name of an object")
    return quote(name, safe="")
