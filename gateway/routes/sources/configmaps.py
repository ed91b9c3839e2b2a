"""Routes from the cluster: ConfigMaps with the route label, listed once and watched from there.

One task for each namespace follows it. While the API server is away everything read before stays in force. A list every
few minutes repairs whatever a watch might have missed.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import structlog

from gateway.api import v1alpha1
from gateway.routes import sources
from gateway.routes.sources.objects import identity
from program.kubernetes.errors import ApiError, ApiRefusal

if TYPE_CHECKING:
    from program.kubernetes.client import KubernetesClient

SELECTOR: Final = f"{v1alpha1.LABEL}={v1alpha1.LABEL_VALUE}"
RELIST_SECONDS: Final = 300.0
"""Seconds from a list to the next, give or take a tenth."""
BACKOFF_SECONDS: Final = (0.2, 10.0)
"""Seconds between two attempts, doubled from the first to the last: an API server that comes back is soon noticed."""
STEADY_SECONDS: Final = 5.0
"""Seconds after which a watch counts as a good one: after it the backoff starts from the shortest again."""
LOG_SECONDS: Final = 60.0
"""Seconds between two log lines about the same trouble."""
GATHER_SECONDS: Final = 0.01
"""Seconds for which a change waits for more of them: a snapshot is of all objects."""
GET_SECONDS: Final = 10.0
"""Seconds without a byte of a single object."""
BUSY_SECONDS: Final = 1.0
"""Seconds before an API server that is busy is asked again, as API servers say in Retry-After."""
UNUSABLE: Final = "a ConfigMap without a name of its own was left out"
"""Error of a place where something is no object that can be stored."""
READS: Final = 4
"""Single Secrets and ModelDeployments that are read at the same time."""

log = structlog.get_logger(__name__)

Learn = Callable[[bool, bool], None]
"""Takes whether something changed, and whether that is news of the API server."""


class ConfigMapSource:
    """The route ConfigMaps of a cluster."""

    def __init__(
        self, client: "KubernetesClient", namespaces: frozenset[str] | None, *, relist_seconds: float = RELIST_SECONDS
    ) -> None:
        """Follow `namespaces`, or all of them when None. The caller closes the client."""
        self._client = client
        self._reading = asyncio.Semaphore(READS)
        self._scopes = [_Scope(name, client, relist_seconds) for name in sorted(namespaces or {""})]

    async def run(self, apply: Callable[[sources.Snapshot], None], confirm: Callable[[], None]) -> None:
        """Apply the ConfigMaps that are there, then each change, until cancelled.

        Complete once one namespace was listed and every other one was, too, or is known not to be readable.
        """
        loop = asyncio.get_running_loop()
        gathered: list[bool] = []
        """Whether each change since the last snapshot was news of the API server."""
        timer: asyncio.TimerHandle | None = None

        def learn(changed: bool, fresh: bool) -> None:
            nonlocal timer
            fresh = fresh and self._followed
            if changed:
                if not gathered:
                    timer = loop.call_later(GATHER_SECONDS, take_snapshot)
                gathered.append(fresh)
            elif fresh and self._complete:
                confirm()

        def take_snapshot() -> None:
            fresh = any(gathered)
            gathered.clear()
            apply(self._snapshot(fresh))

        try:
            async with asyncio.TaskGroup() as tasks:
                for scope in self._scopes:
                    tasks.create_task(scope.follow(learn), name=f"configmaps-{scope.namespace or 'all'}")
        finally:
            if timer is not None:
                timer.cancel()

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the labels (as `label:<name>`) and decoded data of a Secret; None when there is none.

        Raises:
            OSError: it cannot be read now.
        """
        item = await self._read(f"/api/v1/namespaces/{_segment(namespace)}/secrets/{_segment(name)}")
        return None if item is None else sources.secret_content(item)

    async def model_deployment(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return a ModelDeployment as stored; None when there is none.

        Raises:
            OSError: it cannot be read now.
        """
        group = "deployment.beamlit.com/v1alpha1"
        return await self._read(f"/apis/{group}/namespaces/{_segment(namespace)}/modeldeployments/{_segment(name)}")

    async def _read(self, path: str) -> Mapping[str, Any] | None:
        """Return the object at a path; None when there is none.

        An API server that is busy, or has just started and prepares a kind, says 429: then it is asked once more.
        """
        async with self._reading:
            try:
                try:
                    return await self._client.get(path, read_seconds=GET_SECONDS)
                except ApiRefusal as exc:
                    if exc.status != 429:
                        raise
                    await asyncio.sleep(BUSY_SECONDS)
                    return await self._client.get(path, read_seconds=GET_SECONDS)
            except ApiRefusal as exc:
                if exc.status == 404:
                    return None
                raise

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
            {scope.place: scope.problem for scope in self._scopes if scope.problem is not None},
            fresh=fresh,
            complete=self._complete,
        )


class _Scope:
    """The route ConfigMaps of one namespace, or of the whole cluster."""

    def __init__(self, namespace: str, client: "KubernetesClient", relist_seconds: float) -> None:
        self.namespace = namespace
        self.place = f"namespace {namespace}" if namespace else "the cluster"
        self.objects: dict[str, sources.ConfigMap] = {}
        """ConfigMaps by `namespace/name`."""
        self.error: str | None = None
        """Why the ConfigMaps cannot be read or followed; None when they are."""
        self.unusable: str | None = None
        """What is wrong with a ConfigMap that was left out since the last list; None when there was none."""
        self.listed = False
        """Whether the ConfigMaps were listed once."""
        self.refused = False
        """Whether the API server once said that they are not to be read: forbidden or missing."""
        self._client = client
        self._relist_seconds = relist_seconds
        self._path = f"/api/v1/namespaces/{_segment(namespace)}/configmaps" if namespace else "/api/v1/configmaps"
        self._logged_at: float | None = None
        self._troubled = False
        """Whether the last log line told of trouble."""
        self._wait = BACKOFF_SECONDS[0]
        self._expired = False
        """Whether the last attempt ended because its version was too old."""

    @property
    def problem(self) -> str | None:
        """Error to show; None when all ConfigMaps are followed."""
        return self.error or self.unusable

    async def follow(self, learn: Learn) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                version = await self._list(learn)
                await self._watch(version, learn)
            except ApiError as exc:
                failure = exc
            except Exception as exc:
                log.exception("routes_following_failed", place=self.place)
                failure = ApiError(f"the gateway failed at it: {type(exc).__name__}")
            else:
                continue
            if failure.status == 410 and not self._expired:
                self._expired = True
                continue  # too old to go on from: list again at once, but not for ever
            self._log(failure)
            learn(self._fail(str(failure), failure.status in (403, 404)), False)
            # Not all replicas at the same moment.
            await asyncio.sleep(self._wait * (0.5 + 0.5 * random.random()))  # noqa: S311
            self._wait = min(2 * self._wait, BACKOFF_SECONDS[1])

    async def _list(self, learn: Learn) -> str:
        """Read all ConfigMaps; return the resourceVersion of the list.

        Raises:
            ApiError: a page cannot be had.
        """
        objects: dict[str, sources.ConfigMap] = {}
        version, unusable = "", None
        async for items, version in self._client.pages(self._path, SELECTOR):  # noqa: B007 - the last one counts
            for item in items:
                one = _config_map(item)
                if one is None:
                    unusable = UNUSABLE
                else:
                    objects[one.key] = one
        changed = objects != self.objects or not self.listed or unusable != self.unusable
        self.objects, self.listed, self.unusable = objects, True, unusable
        learn(changed, True)
        return version

    async def _watch(self, version: str, learn: Learn) -> None:
        """Follow changes until it is time to list again.

        Raises:
            ApiError: the watch broke off; the status is 410 when the version is too old.
        """
        until = time.monotonic() + self._relist_seconds * (0.9 + 0.2 * random.random())  # noqa: S311
        while (left := until - time.monotonic()) > 0:
            began = time.monotonic()
            try:
                async with self._client.watch(self._path, SELECTOR, version, left) as events:
                    self._recover(learn)
                    async for event in events:
                        if time.monotonic() >= until:
                            return  # even where the API server would go on
                        version = self._event(event, learn) or version
                        self._expired = False
            finally:
                if time.monotonic() - began >= STEADY_SECONDS:
                    self._wait, self._expired = BACKOFF_SECONDS[0], False
            if time.monotonic() - began < 1:
                await asyncio.sleep(BACKOFF_SECONDS[0])  # a server that ends every watch at once meets no tight loop

    def _event(self, event: Mapping[str, Any], learn: Learn) -> str:
        """Take an event; return the resourceVersion it brings, empty where it brings none.

        Raises:
            ApiError: the API server gives the watch up.
        """
        kind, item = event.get("type"), event.get("object")
        if not isinstance(item, dict):
            raise ApiError("the watch sent an event without an object")
        if kind == "ERROR":
            code = item.get("code")
            raise ApiRefusal(code if isinstance(code, int) else 0, str(item.get("reason") or "an error in the watch"))
        if kind == "BOOKMARK":
            learn(False, True)
        elif kind in ("ADDED", "MODIFIED", "DELETED"):
            one = _config_map(item)
            if one is None:
                changed, self.unusable = self.unusable is None, UNUSABLE
            else:
                changed = self._change(one, deleted=kind == "DELETED")
            learn(changed, True)
        metadata = item.get("metadata")
        return str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""

    def _recover(self, learn: Learn) -> None:
        """Note that the ConfigMaps are listed and watched."""
        changed, self.error = self.error is not None, None
        learn(changed, True)
        if self._troubled:
            self._troubled = False
            log.info("routes_are_followed_again", place=self.place)

    def _change(self, one: sources.ConfigMap, *, deleted: bool) -> bool:
        """Store or remove a ConfigMap; return whether that was a change."""
        before = self.objects.get(one.key)
        if deleted:
            self.objects.pop(one.key, None)
            return before is not None
        self.objects[one.key] = one
        return before != one

    def _fail(self, error: str, refused: bool) -> bool:
        """Store why the ConfigMaps cannot be read; return whether that was a change."""
        changed = self.error != error or (refused and not self.refused)
        self.error, self.refused = error, self.refused or refused
        return changed

    def _log(self, exc: ApiError) -> None:
        now = time.monotonic()
        if self._logged_at is None or now - self._logged_at >= LOG_SECONDS:
            self._logged_at, self._troubled = now, True
            log.warning("routes_cannot_be_read", place=self.place, error=str(exc), status=exc.status)


def _config_map(item: Mapping[str, Any]) -> sources.ConfigMap | None:
    """Return a ConfigMap as the API server sent it; None when it has no namespace and name, which one always has."""
    metadata, data = item.get("metadata"), item.get("data")
    if not isinstance(metadata, dict) or "namespace" not in metadata:
        return None
    known = identity(metadata)
    if known is None:
        return None
    namespace, name = known
    text = data.get(v1alpha1.KEY) if isinstance(data, dict) else None
    created = metadata.get("creationTimestamp")
    return sources.ConfigMap(
        namespace=namespace,
        name=name,
        created=created if isinstance(created, str) else "",
        text=text if isinstance(text, str) else None,
        origin=f"{namespace}/{name}",
    )


def _segment(name: str) -> str:
    """Return a name as one segment of a path.

    Raises:
        OSError: it cannot be the name of an object.
    """
    if name in ("", ".", ".."):
        raise ApiError(f"{name!r} is not the name of an object")
    return quote(name, safe="")
