"""Follows the objects of one kind in one namespace, or in the whole cluster: listed once and watched from there.

While the API server is away everything read before stays in force. A list every few minutes repairs whatever a watch
might have missed.
"""

import asyncio
import random
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol
from urllib.parse import quote

import structlog

from program.kubernetes.errors import ApiError, ApiRefusal

if TYPE_CHECKING:
    from program.kubernetes.client import KubernetesClient

BACKOFF_SECONDS: Final = (0.2, 10.0)
"""Seconds between two attempts, doubled from the first to the last: an API server that comes back is soon noticed."""
STEADY_SECONDS: Final = 5.0
"""Seconds after which a watch counts as a good one: after it the backoff starts from the shortest again."""
LOG_SECONDS: Final = 60.0
"""Seconds between two log lines about the same trouble."""

log = structlog.get_logger(__name__)

Learn = Callable[[bool, bool], None]
"""Takes whether something changed, and whether that is news of the API server."""


class Kind(NamedTuple):
    """Kind of the objects that are followed."""

    group: str
    """Path of its group and version, such as /api/v1."""
    plural: str
    selector: str
    """Label selector of the objects."""
    unreadable: str
    """Event of the log line that they cannot be read."""
    readable: str
    """Event of the log line that they are followed again."""
    failed: str
    """Event of the log line that following them has failed by a fault of the gateway."""


class Kept(Protocol):
    """What is kept of the objects."""

    def begin(self) -> None:
        """Begin with a new list."""
        ...

    def add(self, item: Mapping[str, Any]) -> None:
        """Take an object of the list."""
        ...

    def end(self) -> bool:
        """Keep what the list has and nothing else; return whether that is a change."""
        ...

    def change(self, item: Mapping[str, Any], *, deleted: bool) -> bool:
        """Take an object that was added, changed or deleted; return whether that is a change."""
        ...


class Scope:
    """The objects of one kind in one namespace, or in the whole cluster."""

    def __init__(
        self, namespace: str, client: "KubernetesClient", kind: Kind, kept: Kept, relist_seconds: float
    ) -> None:
        self.namespace = namespace
        self.place = place(namespace)
        self.error: str | None = None
        """Why the objects cannot be read or followed; None when they are."""
        self.listed = False
        """Whether the objects were listed once."""
        self.refused = False
        """Whether the API server once said that they are not to be read: forbidden or missing."""
        self._client = client
        self._kind = kind
        self._kept = kept
        self._relist_seconds = relist_seconds
        inside = f"/namespaces/{segment(namespace)}" if namespace else ""
        self._path = f"{kind.group}{inside}/{kind.plural}"
        self._logged_at: float | None = None
        self._troubled = False
        """Whether the last log line told of trouble."""
        self._wait = BACKOFF_SECONDS[0]
        self._expired = False
        """Whether the last attempt ended because its version was too old."""

    async def follow(self, learn: Learn) -> None:
        """List and watch until cancelled."""
        while True:
            try:
                version = await self._list(learn)
                await self._watch(version, learn)
            except ApiError as exc:
                failure = exc
            except Exception as exc:
                log.exception(self._kind.failed, place=self.place)
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
        """Read all objects; return the resourceVersion of the list.

        Raises:
            ApiError: a page cannot be had.
        """
        version = ""
        self._kept.begin()
        async for items, version in self._client.pages(self._path, self._kind.selector):  # noqa: B007 - the last counts
            for item in items:
                self._kept.add(item)
        changed = self._kept.end() or not self.listed
        self.listed = True
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
                async with self._client.watch(self._path, self._kind.selector, version, left) as events:
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
            learn(self._kept.change(item, deleted=kind == "DELETED"), True)
        metadata = item.get("metadata")
        return str(metadata.get("resourceVersion") or "") if isinstance(metadata, dict) else ""

    def _recover(self, learn: Learn) -> None:
        """Note that the objects are listed and watched."""
        changed, self.error = self.error is not None, None
        learn(changed, True)
        if self._troubled:
            self._troubled = False
            log.info(self._kind.readable, place=self.place)

    def _fail(self, error: str, refused: bool) -> bool:
        """Store why the objects cannot be read; return whether that was a change."""
        changed = self.error != error or (refused and not self.refused)
        self.error, self.refused = error, self.refused or refused
        return changed

    def _log(self, exc: ApiError) -> None:
        now = time.monotonic()
        if self._logged_at is None or now - self._logged_at >= LOG_SECONDS:
            self._logged_at, self._troubled = now, True
            log.warning(self._kind.unreadable, place=self.place, error=str(exc), status=exc.status)


def place(namespace: str) -> str:
    """Return a namespace, or all of them when it is empty, as errors and log lines name it."""
    return f"namespace {namespace}" if namespace else "the cluster"


def segment(name: str) -> str:
    """Return a name as one segment of a path.

    Raises:
        OSError: it cannot be the name of an object.
    """
    if name in ("", ".", ".."):
        raise ApiError(f"{name!r} is not the name of an object")
    return quote(name, safe="")
