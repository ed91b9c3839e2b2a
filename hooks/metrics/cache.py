"""Answers of sources, kept for as long as a metric takes to change, each asked for once however many want it.

A call is a flight: whoever asks the same meanwhile waits for it too, and it goes on when one of them gives up. What
failed is kept as well, for a shorter time. Everything is bounded: entries, what they hold, and how long a flight takes.
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
"""For how long a failure is kept."""
ENTRIES: Final = 20_000
WEIGHT: Final = 500_000
"""Samples, pods and the like that are kept in all; each takes some hundred bytes."""
OUTAGES: Final = 10_000

log = structlog.get_logger(__name__)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Query:
    """What is asked; equal ones have one answer."""

    api: Api
    key: Hashable
    """All else that the answer depends on."""
    namespace: str = field(default="", compare=False)
    """On whose behalf it is asked first."""


@dataclass(frozen=True, slots=True)
class _Entry:
    value: Any
    until: float
    weight: int


class Cache:
    """What sources answered lately."""

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
        """
        Args:
            metrics: where reads are counted.
            seconds: for how long an answer is kept.
            flight_seconds: for one call, however long those who wait for it have.
            entries: kept at most.
            weight: kept at most, as a number of samples, pods and the like.
            clock: seconds that only rise.
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
        """The answer to a query, kept or new.

        Args:
            query: what is asked.
            load: asks the source; raises `CallFailed`.
            seconds: for how long the answer is kept, where that is another time than usual.
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
            told = self._outage(query).answer(self._clock())
            if told is not None:
                self._metrics.metric_reads.labels(query.api.name, "outage").inc()
                return told
            self._metrics.metric_reads.labels(query.api.name, "source").inc()
            flight = asyncio.create_task(self._fly(query, load, self._seconds if seconds is None else seconds))
            self._flights[query] = flight
        return cast("T | Unread", await asyncio.shield(flight))

    async def close(self) -> None:
        """End all flights."""
        flights = list(self._flights.values())
        for flight in flights:
            flight.cancel()
        await asyncio.gather(*flights, return_exceptions=True)

    async def _fly(self, query: Query, load: Callable[[], Awaitable[T]], seconds: float) -> T | Unread:
        answer: T | Unread
        trouble, started = Trouble.NONE, self._clock()
        try:
            async with asyncio.timeout(self._flight_seconds):
                answer = await load()
        except TimeoutError:
            words = f"{query.api.words} did not answer in time: see that it is up and not overloaded."
            answer, trouble = Unread(reasons.TIMED_OUT, words), Trouble.SILENT
        except CallFailed as exc:
            answer, trouble = exc.unread, exc.trouble
        except Exception:
            log.exception("metric_source_failed", api=query.api.name, namespace=query.namespace)
            words = f"{query.api.words} gave an answer that hooks failed at: their log says why."
            answer = Unread(reasons.UNREACHABLE, words)
        finally:
            del self._flights[query]
        unread = answer if isinstance(answer, Unread) else None
        self._outage(query).learn(trouble, unread, started, self._clock())
        self._keep(query, answer, self._failure_seconds if isinstance(answer, Unread) else seconds)
        return answer

    def _keep(self, query: Query, answer: object, seconds: float) -> None:
        old = self._entries.pop(query, None)
        weight = _weight(answer)
        self._weight += weight - (old.weight if old is not None else 0)
        self._entries[query] = _Entry(answer, self._clock() + seconds, weight)
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


def _weight(answer: object) -> int:
    """One, and one for each thing in it and in the tuples in it."""
    if not isinstance(answer, Sized) or isinstance(answer, str):
        return 1
    nested = sum(len(item) for item in answer if isinstance(item, tuple)) if isinstance(answer, tuple) else 0
    return 1 + len(answer) + nested
