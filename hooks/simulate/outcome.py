"""Outcome of a simulation: what became of the requests, how long first tokens took, and what it cost."""

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from hooks.simulate.loop import Change, ClosedLoop
from hooks.simulate.request_plant import Moment, RequestPlant
from hooks.simulate.requests import Request

MILLION: Final = 1_000_000
PERCENTILES: Final = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class Prices:
    """What things cost, in any currency."""

    prompt: float = 0.0
    """Price of a million tokens of prompts at the remote backend."""
    generated: float = 0.0
    """Price of a million tokens of completions at the remote backend."""
    replica_hour: float = 0.0
    """Price of a replica for an hour."""


FREE: Final = Prices()
"""Prices where nothing costs anything."""


@dataclass(frozen=True, slots=True)
class Traffic:
    """Requests and their tokens."""

    requests: int
    prompt: int
    generated: int

    @property
    def tokens(self) -> int:
        """Return the number of all tokens."""
        return self.prompt + self.generated


@dataclass(frozen=True, slots=True)
class FirstToken:
    """Percentiles of the time to first token in seconds; None where there was no request."""

    p50: float | None
    p95: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class Slice:
    """A part of the time. All parts are of the same length, but for the last."""

    start: float
    """Seconds since time zero."""
    seconds: float
    rate: float
    """Requests in a second on average."""
    share: float
    """Share of the gateway in percent, on average."""
    remote: float
    """Part of the requests that went to the remote backend, in percent; overflow counts, too."""
    waiting: float
    """Requests that waited in replicas, on average."""
    running: float
    """Requests that replicas served at once, on average."""
    ready: float
    """Ready replicas, on average."""
    first_token: float | None
    """95th percentile of the time to first token in seconds, for requests that arrived; None without any."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Everything that came of a simulation."""

    seconds: float
    """Length of the simulation."""
    local: Traffic
    """Requests that stayed, also those that were not finished at the end."""
    remote: Traffic
    unfinished: int
    """Requests that stayed and were not finished at the end."""
    first_token: FirstToken
    """Times to first token of all requests."""
    first_token_local: FirstToken
    """Times to first token of the requests that stayed."""
    changes: tuple[Change, ...]
    """Changes of the share, in order."""
    average_share: float
    """Share that was decided on in percent, on average over time."""
    replica_hours: float
    remote_cost: float
    replica_cost: float
    slices: tuple[Slice, ...]

    @property
    def requests(self) -> int:
        """Return the number of all requests."""
        return self.local.requests + self.remote.requests

    @property
    def remote_share(self) -> float:
        """Return the part of the requests that went to the remote backend, in percent."""
        return percent(self.remote.requests, self.requests)

    @property
    def remote_token_share(self) -> float:
        """Return the part of the tokens that went to the remote backend, in percent."""
        return percent(self.remote.tokens, self.remote.tokens + self.local.tokens)

    @property
    def cost(self) -> float:
        """Return the cost of everything."""
        return self.remote_cost + self.replica_cost


def percent(part: float, whole: float) -> float:
    """Return a part in percent of the whole; 0 of nothing."""
    return 100 * part / whole if whole else 0.0


LENGTHS: Final = (1, 2, 5, 10, 15, 30, 60, 120, 180, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400)
"""Lengths in seconds that a slice may have: those that people count time by."""


def length_of(seconds: float, most: int, multiple_of: int = 1) -> int:
    """Return the shortest length of a slice of which at most so many make up a time."""
    fitting = (one for one in LENGTHS if one % multiple_of == 0 and seconds <= one * most)
    return next(fitting, LENGTHS[-1])


def outcome(loop: ClosedLoop[RequestPlant], prices: Prices, *, slices: int) -> Outcome:
    """Return the outcome of a loop that has run and whose plant has been drained, in that many slices at most."""
    plant = loop.plant
    requests, remote, end = plant.world.requests, plant.remote, plant.now
    away = [one for one, is_remote in zip(requests, remote, strict=True) if is_remote]
    stayed = [one for one, is_remote in zip(requests, remote, strict=True) if not is_remote]
    local_times = [seconds for seconds, is_remote in zip(plant.first_tokens, remote, strict=True) if not is_remote]
    gone, replica_hours = _traffic(away), plant.replica_seconds / 3600
    unfinished = sum(ends > end for ends, is_remote in zip(plant.ends, remote, strict=True) if not is_remote)
    return Outcome(
        seconds=end,
        local=_traffic(stayed),
        remote=gone,
        unfinished=unfinished,
        first_token=_percentiles(plant.first_tokens),
        first_token_local=_percentiles(local_times),
        changes=tuple(loop.changes),
        average_share=loop.share_seconds / end if end else 0.0,
        replica_hours=replica_hours,
        remote_cost=(gone.prompt * prices.prompt + gone.generated * prices.generated) / MILLION,
        replica_cost=replica_hours * prices.replica_hour,
        slices=tuple(_slices(plant, slices)),
    )


def _traffic(requests: Sequence[Request]) -> Traffic:
    return Traffic(len(requests), sum(one.prompt for one in requests), sum(one.generated for one in requests))


def _percentiles(seconds: Sequence[float]) -> FirstToken:
    ordered = sorted(seconds)
    return FirstToken(*(percentile(ordered, part) for part in PERCENTILES))


def percentile(ordered: Sequence[float], part: float) -> float | None:
    """Return a percentile of values in their order, by the nearest rank; None where there are none."""
    return ordered[max(0, math.ceil(part / 100 * len(ordered)) - 1)] if ordered else None


def _slices(plant: RequestPlant, most: int) -> Iterator[Slice]:
    """Yield the slices of the time, of which the last may be shorter."""
    length, moments = length_of(plant.now, most), plant.moments
    times = [one.time for one in plant.world.requests]
    for start in range(0, len(moments), length):
        numbers = range(bisect_left(times, start), bisect_left(times, start + length))
        yield _slice(plant, start, moments[start : start + length], numbers)


def _slice(plant: RequestPlant, start: float, moments: Sequence[Moment], numbers: range) -> Slice:
    ticks = len(moments)
    return Slice(
        start=start,
        seconds=ticks * plant.tick_seconds,
        rate=len(numbers) / ticks / plant.tick_seconds,
        share=sum(one.share for one in moments) / ticks,
        remote=percent(sum(plant.remote[number] for number in numbers), len(numbers)),
        waiting=sum(one.waiting for one in moments) / ticks,
        running=sum(one.running for one in moments) / ticks,
        ready=sum(one.ready for one in moments) / ticks,
        first_token=percentile(sorted(plant.first_tokens[number] for number in numbers), 95),
    )
