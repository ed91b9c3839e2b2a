"""Store of the routing table in force and of the runtime state that outlives it.

Each document of a new snapshot is checked alone: one that does not parse is reported, and its last good version stays
in force. Changes that come close together make one new table, which replaces the old one at once. The new table is
built between turns of the event loop, some milliseconds at a time, while requests are served from the old one.
"""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final

import structlog

from gateway.api import v1alpha1
from gateway.backends.failover import RetryBudget
from gateway.backends.runtime import RouteRuntime, TenantRuntime
from gateway.route_metrics import RouteState
from gateway.routes import sources
from gateway.routes.table import BareHostnames, Entry, RoutingTable
from gateway.settings import RetrySettings
from gateway.telemetry import Metrics

COALESCE_SECONDS: Final = 0.05
"""Seconds that a change waits for others, to make one table of them."""
SLICE_SECONDS: Final = 0.002
"""Seconds for which a table is built before the event loop gets a turn."""
DOCUMENT_BYTES: Final = 1 << 20
"""Bytes of the largest document that is read: as much as an API server stores in a ConfigMap."""
SOURCE: Final = "the source of routes"
"""Place of the error that the source has ended."""
TABLE: Final = "the routing table"
"""Place of the error that no table could be made of the documents."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class DocumentState:
    """State of the document in one ConfigMap."""

    config_map: sources.ConfigMap
    """ConfigMap as last read, with a good document or a bad one."""
    good: v1alpha1.RouteDocument | None
    """Last version that parsed, from which the routing table is built."""
    unknown_fields: int
    """Number of its fields that this version of the gateway does not know."""
    error: str | None
    """Why the version last read is not in force; None when it is."""
    applied_at: float
    """Time at which `good` came into force, in seconds since 1970."""


class RouteStore:
    """Routing table in force, its documents, and the runtime state of its routes."""

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
        """Event that the first complete load sets; it is never cleared."""
        self.documents: Mapping[str, DocumentState] = {}
        self.source_errors: Mapping[str, str] = {}
        """Errors by place: those of the source, and that it has ended or that no table could be made."""
        self.refreshed_at = 0.0
        """Time at which the source was last known to be up to date, in seconds since 1970."""
        self.generation = 0
        """Number of swaps so far."""
        self._own_errors: dict[str, str] = {}
        """Errors of this gateway itself by place: that the source has ended, or that no table could be made."""
        self._reported: Mapping[str, str] = {}
        """Errors that the source reported last."""
        self._refused = 0
        """Documents whose latest version is not in force."""
        self._namespaces = namespaces
        self._cluster_domain = cluster_domain
        self._bare_hostnames = bare_hostnames
        self._metrics = metrics
        self._clock = clock
        self._retry = retry or RetrySettings()
        self._slice_seconds = slice_seconds
        self._runtime: dict[str, RouteRuntime] = {}
        self._tenants: dict[str, TenantRuntime] = {}
        """Runtime state by namespace."""
        self._subscribers: list[Callable[[], None]] = []
        self._pending: sources.Snapshot | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._work: Iterator[None] | None = None
        """Remaining steps of a swap in progress."""
        self._next_turn: asyncio.Handle | None = None
        metrics.routes_in_force.states = self._states

    def why_not_ready(self, *, draining: bool) -> str | None:
        """Return in a few words why requests should go to another gateway now; None when they may come.

        Args:
            draining: Whether the process has been asked to stop.
        """
        if draining:
            return "draining"
        if not self.loaded.is_set():
            return "routes are not loaded yet"
        return "routes are not followed" if SOURCE in self._own_errors else None

    def source_ended(self, error: str) -> None:
        """Note that the source has ended and will begin again: until it has, the gateway is not ready."""
        self._metrics.source_ends.inc()
        self._own_errors[SOURCE] = error
        self._show_errors()

    def host_of(self, namespace: str, service: str) -> str:
        """Return the host name of a Service."""
        return f"{service}.{namespace}.svc.{self._cluster_domain}"

    def subscribe(self, subscriber: Callable[[], None]) -> None:
        """Call `subscriber` after each swap, when the new table is in force."""
        self._subscribers.append(subscriber)

    def find_runtime(self, key: str) -> RouteRuntime | None:
        """Return the runtime state of the route `namespace/name`; None when it has none yet."""
        return self._runtime.get(key)

    def runtime(self, key: str) -> RouteRuntime:
        """Return the runtime state of the route `namespace/name`, a new one when it has none yet."""
        state = self._runtime.get(key)
        if state is None:
            budget = RetryBudget(self._retry.budget_percentage, self._retry.budget_per_second)
            tenant = self._tenants.setdefault(key.partition("/")[0], TenantRuntime())
            state = self._runtime[key] = RouteRuntime(budget, tenant)
        return state

    def authorities(self) -> Iterator[tuple[str, str]]:
        """Yield the certificate authorities that routes in force trust, in PEM, by `namespace/name/backend`."""
        for key, route in self.table.routes.items():
            for one in route.document.backends:
                if one.tls.ca_bundle is not None:
                    yield f"{key}/{one.id}", one.tls.ca_bundle

    def _states(self) -> Iterator[RouteState]:
        """Yield the state of each route in force."""
        for key, route in self.table.routes.items():
            runtime = self._runtime.get(key)
            weights = tuple((one.id, one.weight) for one in route.document.backends)
            yield RouteState(route.namespace, route.name, 0 if runtime is None else runtime.arrived, weights)

    def apply(self, snapshot: sources.Snapshot) -> None:
        """Bring `snapshot` into force: the first complete one at once, later ones after `COALESCE_SECONDS`.

        Building the table takes as many turns of the event loop as the number of documents requires.
        """
        self._source_runs()
        if not self.loaded.is_set() and self._work is None:
            if not snapshot.complete:
                self._reported = dict(snapshot.errors)
                self._show_errors()
                return
            self._begin(snapshot)
            return
        # A fresh snapshot that has not been applied yet counts, when one follows that only brings an error.
        fresh = snapshot.fresh or (self._pending is not None and self._pending.fresh)
        self._pending = replace(snapshot, fresh=fresh)
        self._schedule()

    def confirm(self) -> None:
        """Note that the source is up to date and nothing has changed."""
        self._source_runs()
        self.refreshed_at = self._clock()

    def close(self) -> None:
        """Cancel a swap that waits or is in progress."""
        for handle in (self._timer, self._next_turn):
            if handle is not None:
                handle.cancel()

    def _source_runs(self) -> None:
        if self._own_errors.pop(SOURCE, None) is not None:
            self._show_errors()

    def _show_errors(self) -> None:
        self.source_errors = {**self._reported, **self._own_errors}
        self._metrics.document_errors.set(self._refused + len(self.source_errors))

    def _schedule(self) -> None:
        if self._timer is None and self._work is None:
            self._timer = asyncio.get_running_loop().call_later(COALESCE_SECONDS, self._apply_pending)

    def _apply_pending(self) -> None:
        self._timer = None
        snapshot, self._pending = self._pending, None
        if snapshot is not None:
            self._begin(snapshot)

    def _begin(self, snapshot: sources.Snapshot) -> None:
        self._work = self._swap(snapshot)
        self._continue(self._work)

    def _continue(self, work: Iterator[None]) -> None:
        end = time.perf_counter() + self._slice_seconds
        try:
            for _ in work:
                if time.perf_counter() >= end:
                    self._next_turn = asyncio.get_running_loop().call_soon(self._continue, work)
                    return
        except Exception as exc:  # raised in a source, it would end it; the table in force stays
            log.exception("routing_table_failed")
            self._own_errors[TABLE] = f"the gateway failed at it: {type(exc).__name__}"
            self._show_errors()
        self._work = None
        if self._pending is not None:
            self._schedule()

    def _swap(self, snapshot: sources.Snapshot) -> Iterator[None]:
        """Build a table and bring it into force in small steps; the swap itself is one of them."""
        before = dict(self.documents)
        documents: dict[str, DocumentState] = {}
        entries: list[Entry] = []
        refused = unknown_fields = 0
        for config_map in snapshot.config_maps:
            yield
            documents[config_map.key] = one = self._judge(before.get(config_map.key), config_map)
            refused += one.error is not None
            unknown_fields += one.unknown_fields
            if one.good is not None:
                entries.append(Entry(config_map.namespace, config_map.name, config_map.created, one.good))
        for place, error in snapshot.errors.items():
            if self._reported.get(place) != error:
                log.error("route_source_unreadable", place=place, error=error)
        table = yield from RoutingTable.building(
            entries,
            namespaces=self._namespaces,
            cluster_domain=self._cluster_domain,
            bare_hostnames=self._bare_hostnames,
        )
        yield
        old = list(self.table.routes.values())
        self.documents, self.table = documents, table
        self._reported, self._refused = dict(snapshot.errors), refused
        self._own_errors.pop(TABLE, None)
        self._show_errors()
        # The runtime state of a route that is gone is dropped when none of its requests is in flight any more.
        gone = [key for key, state in self._runtime.items() if key not in table.routes and not state.in_flight]
        for key in gone:
            del self._runtime[key]
        if gone:
            used = {key.partition("/")[0] for key in self._runtime}
            self._tenants = {namespace: one for namespace, one in self._tenants.items() if namespace in used}
        self.generation += 1
        for subscriber in self._subscribers:
            subscriber()
        if snapshot.fresh:
            self.refreshed_at = self._clock()
        self._metrics.routes.set(len(table.routes))
        self._metrics.unknown_fields.set(unknown_fields)
        log.info("routing_table_replaced", routes=len(table.routes), conflicts=len(table.conflicts))
        self.loaded.set()
        del entries, table, documents
        yield
        while before:  # old documents and routes are freed in small steps, too
            before.popitem()
            yield
        while old:
            old.pop()
            yield

    def _judge(self, before: DocumentState | None, config_map: sources.ConfigMap) -> DocumentState:
        """Return the state of the document in `config_map`; parse it only when its text has changed."""
        if before is not None and before.config_map.text == config_map.text:
            return before if before.config_map == config_map else replace(before, config_map=config_map)
        try:
            if config_map.text is None:
                raise v1alpha1.DocumentError(f"the ConfigMap has no key {v1alpha1.KEY}")
            if len(config_map.text) > DOCUMENT_BYTES:
                raise v1alpha1.DocumentError(f"{v1alpha1.KEY} is larger than {DOCUMENT_BYTES} bytes")
            document, unknown = v1alpha1.read(config_map.text)
        except v1alpha1.DocumentError as exc:
            error = str(exc)
        except Exception as exc:  # one document must not end the updates of all others
            log.exception("route_document_failed", config_map=config_map.key)
            error = f"the gateway failed at it: {type(exc).__name__}"
        else:
            return DocumentState(config_map, document, unknown, None, self._clock())
        log.error("route_document_refused", config_map=config_map.key, origin=config_map.origin, error=error)
        if before is None:
            return DocumentState(config_map, None, 0, error, 0.0)
        return replace(before, config_map=config_map, error=error)
