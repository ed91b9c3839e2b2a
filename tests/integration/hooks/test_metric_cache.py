"""The cache of what sources of metrics respond: its bounds, lifetimes and failures, and callers that are cancelled."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
import structlog

from hooks import reasons
from hooks.clients.errors import Api, CallFailed, Trouble
from hooks.metrics import cache as module
from hooks.metrics.cache import Cache, Query
from hooks.observation.readings import Unread
from hooks.telemetry import Metrics

API = Api("api", "The api")


class Source:
    """Source of metrics that counts how often it is read, and waits until its gate is open."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.gate = asyncio.Event()
        self.gate.set()

    def load(self, key: str, content: object = ("value",)) -> Callable[[], Awaitable[object]]:
        """Return a call that returns this content, or raises it if it is an exception."""

        async def call() -> object:
            self.asked.append(key)
            await self.gate.wait()
            if isinstance(content, Exception):
                raise content
            return content

        return call


class Clock:
    """Clock that stands still until it is set."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """Return the time that was set."""
        return self.now


def query(key: str, namespace: str = "a") -> Query:
    """Return a query of the API."""
    return Query(API, key, namespace)


async def test_an_entry_lives_for_its_time() -> None:
    """A reading is kept for its lifetime, and a failure for a shorter one."""
    source, clock = Source(), Clock()
    cache = Cache(Metrics(), seconds=15, flight_seconds=1, clock=clock)
    failure = CallFailed(reasons.FORBIDDEN, "no")
    for now in (0, 4.9, 5, 14.9, 15):
        clock.now = now
        assert await cache.get(query("good"), source.load("good")) == ("value",)
        assert await cache.get(query("bad"), source.load("bad", failure)) == Unread(reasons.FORBIDDEN, "no")
        assert await cache.get(query("long"), source.load("long"), seconds=100) == ("value",)
    assert [source.asked.count(key) for key in ("good", "bad", "long")] == [2, 3, 1]


async def test_a_cancelled_caller_does_not_end_the_flight() -> None:
    """When one of the callers that wait is cancelled, the others and later callers still get the result of its call."""
    source = Source()
    source.gate.clear()
    cache = Cache(Metrics(), seconds=15, flight_seconds=5)
    first, second = (asyncio.create_task(cache.get(query("x"), source.load("x"))) for _ in range(2))
    while not source.asked:
        await asyncio.sleep(0)
    first.cancel()
    await asyncio.gather(first, return_exceptions=True)
    source.gate.set()
    assert await second == ("value",)
    assert await cache.get(query("x"), source.load("x")) == ("value",)
    assert (first.cancelled(), source.asked) == (True, ["x"])


async def test_a_flight_has_its_own_time() -> None:
    """A source that never responds is given up after the time of a flight, with a reason that says so."""
    source = Source()
    source.gate.clear()
    cache = Cache(Metrics(), seconds=15, flight_seconds=0.05)
    assert await cache.get(query("x"), source.load("x")) == Unread(
        reasons.TIMED_OUT, "The api did not respond in time: see that it is up and not overloaded."
    )


async def test_the_number_of_entries_is_bounded() -> None:
    """When there are too many entries, the one that was not asked for longest is removed first."""
    source = Source()
    cache = Cache(Metrics(), seconds=15, flight_seconds=1, entries=2)
    for key in ("a", "b", "a", "c", "a", "b"):
        await cache.get(query(key), source.load(key))
    assert source.asked == ["a", "b", "c", "b"]


async def test_what_entries_hold_is_bounded() -> None:
    """A nested value counts with everything in it, and one that is too large by itself is not kept."""
    source = Source()
    cache = Cache(Metrics(), seconds=15, flight_seconds=1, weight=12)
    values = {"four": ((1, 2), (3, 4)), "three": ("a", "b", "c"), "huge": tuple(range(100))}
    for key in ("four", "three", "four", "three", "huge", "huge", "four"):
        assert await cache.get(query(key), source.load(key, values[key])) == values[key]
    assert source.asked == ["four", "three", "huge", "huge", "four"]


async def test_an_outage_is_that_of_a_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outage pauses the calls of its own namespace, and when the pause is over the source is called again."""
    monkeypatch.setattr(module, "OUTAGES", 1)
    source, clock = Source(), Clock()
    metrics = Metrics()
    cache = Cache(metrics, seconds=15, flight_seconds=1, clock=clock)
    gone = CallFailed(reasons.UNREACHABLE, "gone", Trouble.GONE)
    assert isinstance(await cache.get(query("x"), source.load("x", gone)), Unread)
    assert await cache.get(query("y"), source.load("y")) == gone.unread
    clock.now = 5
    assert await cache.get(query("y"), source.load("y")) == ("value",)
    assert await cache.get(query("z", "b"), source.load("z")) == ("value",)
    assert source.asked == ["x", "y", "z"]
    counted = [
        metrics.registry.get_sample_value("beamlit_hooks_metric_reads_total", {"api": "api", "by": by})
        for by in ("source", "outage")
    ]
    assert counted == [3, 1]


async def test_a_bug_is_a_reason_too() -> None:
    """An unexpected exception of a source is logged, and the reading has a reason without the exception's words."""
    cache = Cache(Metrics(), seconds=15, flight_seconds=1)
    with structlog.testing.capture_logs() as logs:
        reading = await cache.get(query("x"), Source().load("x", KeyError("canary")))
    assert reading == Unread(reasons.UNREACHABLE, "The api gave a response that hooks failed at: their log says why.")
    assert [entry["event"] for entry in logs] == ["metric_source_failed"]


async def test_flights_end_with_the_cache() -> None:
    """A caller that waits when the cache is closed is cancelled."""
    source = Source()
    source.gate.clear()
    cache = Cache(Metrics(), seconds=15, flight_seconds=5)
    waiting = asyncio.create_task(cache.get(query("x"), source.load("x")))
    while not source.asked:
        await asyncio.sleep(0)
    await cache.close()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
