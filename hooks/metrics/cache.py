"""A cache of what sources responded, in which many callers of the same query cause one call.

A call to a source is a flight: callers that have the same query meanwhile wait for it too, and it goes on when one of
them gives up. Failures are cached as well, for a shorter time. Everything is bounded: the number of entries, what they
hold, and the time of a flight.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Sized
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar, cast

import structlog

from hooks import reasons
from hooks.clients.errors import Api, CallFailed, Trouble
from hooks.metrics.outages import Outage
from hooks.observation.readings import Unread
from hooks.telemetry import Metrics

FAILURE_SECONDS: Final = 5.0
"""Seconds for which a failure stays in the cache, at most."""
ENTRIES: Final = 20_000
"""Entries that a cache has at most."""
WEIGHT: Final = 500_000
"""Samples, pods and the like that all entries hold together at most; each takes some hundred bytes."""
OUTAGES: Final = 10_000
"""Pairs of API and namespace whose outages are remembered at most."""

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Query:
    """A query to a source. Equal queries share one entry of the cache."""

    api: Api
    """API that is called."""
    key: Hashable
    """Everything else that the response depends on."""
    namespace: str = field(default="", compare=False)
    """Namespace of the model that has the query. Outages are remembered by it."""


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    until: float
    weight: int


class Cache:
    """Recent responses and failures of sources."""

    def __init__(
        self,
        metrics: Metrics,
        *,
        seconds: float,
        flight_seconds: float,
        entries: int = ENTRIES,
        weight: int = WEIGHT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create an empty cache.

        Args:
            metrics: counts the reads.
            seconds: seconds for which a response is used.
            flight_seconds: seconds that one call to a source may take, whatever the deadlines of its callers.
            entries: entries that the cache has at most.
            weight: samples, pods and the like that all entries hold together at most.
            clock: returns seconds that only rise.
        """
        self._metrics = metrics
        self._seconds = seconds
        self._failure_seconds = min(seconds, FAILURE_SECONDS)
        self._flight_seconds = flight_seconds
        self._most_entries, self._most_weight = entries, weight
        self._clock = clock
        self._entries: OrderedDict[Query, _Entry] = OrderedDict()
        self._weight = 0
        self._flights: dict[Query, asyncio.Task[Any]] = {}
        self._outages: OrderedDict[tuple[str, str], Outage] = OrderedDict()

    async def get(self, query: Query, load: Callable[[], Awaitable[T]], *, seconds: float | None = None) -> T | Unread:
        """Return the value for a query from the cache or from its source, or the reason why there is none.

        Args:
            query: the query.
            load: calls the source; raises `CallFailed`.
            seconds: seconds for which the value is used; those of the cache when None.
        """
        entry = self._entries.get(query)
        if entry is not None and self._clock() < entry.until:
            self._entries.move_to_end(query)
            self._metrics.metric_reads.labels(query.api.name, "cache").inc()
            return cast("T | Unread", entry.value)
        flight = self._flights.get(query)
        if flight is not None:
            self._metrics.metric_reads.labels(query.api.name, "flight").inc()
        else:
            unread = self._outage(query).unread(self._clock())
            if unread is not None:
                self._metrics.metric_reads.labels(query.api.name, "outage").inc()
                return unread
            self._metrics.metric_reads.labels(query.api.name, "source").inc()
            flight = asyncio.create_task(self._fly(query, load, self._seconds if seconds is None else seconds))
            self._flights[query] = flight
        return cast("T | Unread", await asyncio.shield(flight))

    async def close(self) -> None:
        """Cancel all flights."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(self, query: Query, load: Callable[[], Awaitable[T]], seconds: float) -> T | Unread:
        value: T | Unread
        trouble, started = Trouble.NONE, self._clock()
        try:
            async with asyncio.timeout(self._flight_seconds):
                value = await load()
        except TimeoutError:
            words = f"{query.api.words} did not respond in time: see that it is up and not overloaded."
            value, trouble = Unread(reasons.TIMED_OUT, words), Trouble.SILENT
        except CallFailed as exc:
            value, trouble = exc.unread, exc.trouble
        except Exception:
            log.exception("metric_source_failed", api=query.api.name, namespace=query.namespace)
            words = f"{query.api.words} gave a response that hooks failed at: their log says why."
            value = Unread(reasons.UNREACHABLE, words)
        finally:
            del self._flights[query]
        unread = value if isinstance(value, Unread) else None
        self._outage(query).learn(trouble, unread, started, self._clock())
        self._store(query, value, seconds if unread is None else self._failure_seconds)
        return value

    def _store(self, query: Query, value: object, seconds: float) -> None:
        old = self._entries.pop(query, None)
        weight = _weight(value)
        self._weight += weight - (old.weight if old is not None else 0)
        self._entries[query] = _Entry(value, self._clock() + seconds, weight)
        while len(self._entries) > self._most_entries or self._weight > self._most_weight:
            _, dropped = self._entries.popitem(last=False)
            self._weight -= dropped.weight

    def _outage(self, query: Query) -> Outage:
        key = (query.api.name, query.namespace)
        outage = self._outages.get(key)
        if outage is None:
            outage = self._outages[key] = Outage(self._failure_seconds)
            if len(self._outages) > OUTAGES:
                self._outages.popitem(last=False)
        return outage


def _weight(value: object) -> int:
    """Return one for the value, one for each item in it, and one for each item of the tuples in it."""
    if not isinstance(value, Sized) or isinstance(value, str):
        return 1
    nested = sum(len(item) for item in value if isinstance(item, tuple)) if isinstance(value, tuple) else 0
    return 1 + len(value) + nested
