"""Holds the routing table in force, and what has to outlive it.

A change of the source is judged document by document: one that does not parse is reported and its last good version
stays. Changes that come close together make one new table, swapped in whole. It is built between turns of the event
loop, some milliseconds at a time, while requests are served from the one before.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from gateway.api import v1alpha1
from gateway.backends.failover import RetryBudget
from gateway.backends.runtime import RouteRuntime
from gateway.routes import sources
from gateway.routes.table import BareHostnames, Entry, RoutingTable
from gateway.settings import RetrySettings
from gateway.telemetry import Metrics

COALESCE_SECONDS: Final = 0.05
"""How long a change waits for others that come with it."""
SLICE_SECONDS: Final = 0.002
"""How long a table is built until the loop gets a turn."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DocumentState:
    """What is known of one ConfigMap."""

    config_map: sources.ConfigMap
    """As last seen, good or not."""
    good: v1alpha1.RouteDocument | None
    """The last version that could be served."""
    unknown_fields: int
    error: str | None
    """Why the version last seen is not in force."""
    applied_at: float
    """Wall-clock seconds at which `good` came into force."""


class RouteStore:
    """The current table and how it came about."""

    def __init__(
        self,
        *,
        namespaces: frozenset[str] | None,
        cluster_domain: str,
        bare_hostnames: BareHostnames,
        metrics: Metrics,
        clock: Callable[[], float],
        retry: RetrySettings | None = None,
        slice_seconds: float = SLICE_SECONDS,
    ) -> None:
        self.table = RoutingTable()
        self.loaded = asyncio.Event()
        """Set by the first complete load, and never cleared."""
        self.documents: Mapping[str, DocumentState] = {}
        self.source_errors: Mapping[str, str] = {}
        self.refreshed_at = 0.0
        """Wall-clock seconds at which the source was last known to be up to date."""
        self.generation = 0
        """Counts swaps."""
        self._namespaces = namespaces
        self._cluster_domain = cluster_domain
        self._bare_hostnames = bare_hostnames
        self._metrics = metrics
        self._clock = clock
        self._retry = retry or RetrySettings()
        self._slice_seconds = slice_seconds
        self._runtime: dict[str, RouteRuntime] = {}
        self._subscribers: list[Callable[[], None]] = []
        self._pending: sources.Snapshot | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._work: Iterator[None] | None = None
        """The rest of a swap that is under way."""
        self._turn: asyncio.Handle | None = None

    def subscribe(self, subscriber: Callable[[], None]) -> None:
        """Call `subscriber` after each swap, when the new table is in force."""
        self._subscribers.append(subscriber)

    def known(self, key: str) -> RouteRuntime | None:
        """The state of the route `namespace/name`, if it has any yet."""
        return self._runtime.get(key)

    def runtime(self, key: str) -> RouteRuntime:
        """The state of the route `namespace/name`."""
        state = self._runtime.get(key)
        if state is None:
            budget = RetryBudget(self._retry.budget_percentage, self._retry.budget_per_second)
            state = self._runtime[key] = RouteRuntime(budget)
        return state

    def apply(self, snapshot: sources.Snapshot) -> None:
        """Bring `snapshot` into force: the first complete one at once, later ones wait for `COALESCE_SECONDS`, and both
        for as many turns of the loop as their number asks for."""
        if not self.loaded.is_set() and self._work is None:
            if not snapshot.complete:
                self.source_errors = dict(snapshot.errors)
                self._metrics.document_errors.set(len(snapshot.errors))
                return
            self._begin(snapshot)
            return
        # What is fresh stays so when a mere error comes with it.
        fresh = snapshot.fresh or (self._pending is not None and self._pending.fresh)
        self._pending = replace(snapshot, fresh=fresh)
        self._wait_for_more()

    def confirm(self) -> None:
        """The source is up to date and nothing has changed."""
        self.refreshed_at = self._clock()

    def close(self) -> None:
        """Drop a change that still waits or is under way."""
        for handle in (self._timer, self._turn):
            if handle is not None:
                handle.cancel()

    def _wait_for_more(self) -> None:
        if self._timer is None and self._work is None:
            self._timer = asyncio.get_running_loop().call_later(COALESCE_SECONDS, self._apply_pending)

    def _apply_pending(self) -> None:
        self._timer = None
        snapshot, self._pending = self._pending, None
        if snapshot is not None:
            self._begin(snapshot)

    def _begin(self, snapshot: sources.Snapshot) -> None:
        self._work = self._swap(snapshot)
        self._go_on(self._work)

    def _go_on(self, work: Iterator[None]) -> None:
        end = time.perf_counter() + self._slice_seconds
        try:
            for _ in work:
                if time.perf_counter() >= end:
                    self._turn = asyncio.get_running_loop().call_soon(self._go_on, work)
                    return
        except BaseException:
            self._work = None
            raise
        self._work = None
        if self._pending is not None:
            self._wait_for_more()

    def _swap(self, snapshot: sources.Snapshot) -> Iterator[None]:
        """Build a table and bring it into force, in small steps; the swap itself is one of them."""
        before = dict(self.documents)
        documents: dict[str, DocumentState] = {}
        entries: list[Entry] = []
        refused = unknown_fields = 0
        for seen in snapshot.config_maps:
            yield
            documents[seen.key] = one = self._judge(before.get(seen.key), seen)
            refused += one.error is not None
            unknown_fields += one.unknown_fields
            if one.good is not None:
                entries.append(Entry(seen.namespace, seen.name, seen.created, one.good))
        for place, error in snapshot.errors.items():
            if self.source_errors.get(place) != error:
                log.error("route_source_unreadable", place=place, error=error)
        table = yield from RoutingTable.building(
            entries,
            namespaces=self._namespaces,
            cluster_domain=self._cluster_domain,
            bare_hostnames=self._bare_hostnames,
        )
        yield
        old = list(self.table.routes.values())
        self.documents, self.source_errors, self.table = documents, dict(snapshot.errors), table
        # Runtime state of a route that is gone goes once nothing runs on it any more.
        for key in [key for key, state in self._runtime.items() if key not in table.routes and not state.in_flight]:
            del self._runtime[key]
        self.generation += 1
        for subscriber in self._subscribers:
            subscriber()
        if snapshot.fresh:
            self.refreshed_at = self._clock()
        self._metrics.routes.set(len(table.routes))
        self._metrics.document_errors.set(refused + len(snapshot.errors))
        self._metrics.unknown_fields.set(unknown_fields)
        log.info("routing_table_replaced", routes=len(table.routes), conflicts=len(table.conflicts))
        self.loaded.set()
        del entries, table, documents
        yield
        while before:  # what nobody needs any more is let go by and by, too
            before.popitem()
            yield
        while old:
            old.pop()
            yield

    def _judge(self, before: DocumentState | None, seen: sources.ConfigMap) -> DocumentState:
        """Parse what changed, and only that."""
        if before is not None and before.config_map.text == seen.text:
            return before if before.config_map == seen else replace(before, config_map=seen)
        try:
            if seen.text is None:
                raise v1alpha1.DocumentError(f"the ConfigMap has no key {v1alpha1.KEY}")
            document, unknown = v1alpha1.read(seen.text)
        except v1alpha1.DocumentError as exc:
            log.error("route_document_refused", config_map=seen.key, origin=seen.origin, error=str(exc))
            if before is None:
                return DocumentState(seen, None, 0, str(exc), 0.0)
            return replace(before, config_map=seen, error=str(exc))
        return DocumentState(seen, document, unknown, None, self._clock())
