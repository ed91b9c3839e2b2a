"""Metrics of the requests to one backend of a route, beyond status and duration: time, tokens, attempts.

Only the thread of the event loop counts, so this needs no locks. A histogram takes no memory before its first value,
for there may be thousands of routes.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Final, NamedTuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.utils import floatToGoString

from gateway.journal import RequestRecord, number_of_attempts

WAITS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Bounds of histograms of waits, in seconds."""
INTERVALS: Final = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5)
"""Bounds of the histogram of times between tokens, in seconds."""
OVERHEADS: Final = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1, 5)
"""Bounds of the histogram of the gateway's own time, in seconds."""
NUMBERS: Final = (1, 2, 3)
"""Bounds of the histogram of attempts; a request has three at most."""
_LABELS: Final = ("namespace", "model", "backend")


MILLION: Final = 1e6
"""Tokens that a price is for."""


class Prices(NamedTuple):
    """Prices of a million tokens."""

    prompt: float
    completion: float

    def cost(self, prompt_tokens: int | None, completion_tokens: int | None) -> float:
        """Return what tokens cost, as far as their numbers are known."""
        return ((prompt_tokens or 0) * self.prompt + (completion_tokens or 0) * self.completion) / MILLION


class Histogram:
    """Counts of values by bounds, and their sum."""

    __slots__ = ("_bounds", "_counts", "_sum")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self._counts: list[int] | None = None
        self._sum = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        if self._counts is None:
            self._counts = [0] * (len(self._bounds) + 1)
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str], *, zeros: bool = False) -> None:
        """Add the counts of this moment to a family of metrics; where nothing was counted, only with `zeros`."""
        counts = [0] * (len(self._bounds) + 1) if self._counts is None and zeros else self._counts
        if counts is not None:
            family.add_metric(labels, _cumulative(self._bounds, counts), self._sum)


class RequestSeries:
    """Metrics of the requests to one backend of a route."""

    __slots__ = (
        "attempts", "between_tokens", "completion_tokens", "cost", "first_token", "overhead", "prompt_tokens", "queue",
    )  # fmt: skip

    def __init__(self) -> None:
        self.first_token = Histogram(WAITS)
        """Seconds from a request's head to the first event of its event stream."""
        self.between_tokens = Histogram(INTERVALS)
        """Mean seconds between two events of an event stream."""
        self.overhead = Histogram(OVERHEADS)
        """Seconds from a request's head to the start of its first attempt, without the wait in the queue."""
        self.queue = Histogram(WAITS)
        """Seconds that a request waited in the queue."""
        self.attempts = Histogram(NUMBERS)
        """Attempts of a request."""
        self.prompt_tokens = 0
        self.completion_tokens = 0
        self.cost: float | None = None
        """Costs of the tokens; None where no price is known."""

    def count(self, record: RequestRecord, sent: float | None, prices: Prices | None = None) -> None:
        """Count one request.

        Args:
            record: Record of the request.
            sent: Seconds from the request's head to the start of its first attempt; None without one.
            prices: Prices at the backend that responded; None where they are not known.
        """
        if sent is not None:
            self.overhead.observe(sent - record.queued)
            self.attempts.observe(number_of_attempts(record))
        if record.queued:
            self.queue.observe(record.queued)
        if record.first_event is not None:
            self.first_token.observe(record.first_event)
        if record.between_events is not None:
            self.between_tokens.observe(record.between_events)
        if record.prompt_tokens is not None:
            self.prompt_tokens += record.prompt_tokens
        if record.completion_tokens is not None:
            self.completion_tokens += record.completion_tokens
        if prices is not None:
            self.cost = (self.cost or 0.0) + prices.cost(record.prompt_tokens, record.completion_tokens)


_HISTOGRAMS: Final[tuple[tuple[str, str, Callable[[RequestSeries], Histogram]], ...]] = (
    (
        "beamlit_gateway_first_token_seconds",
        "Seconds from a request's head to the first event of its event stream",
        lambda series: series.first_token,
    ),
    (
        "beamlit_gateway_between_tokens_seconds",
        "Mean seconds between two events of an event stream, one value per request",
        lambda series: series.between_tokens,
    ),
    (
        "beamlit_gateway_overhead_seconds",
        "Seconds from a request's head to the start of its first attempt, without the wait in the queue",
        lambda series: series.overhead,
    ),
    (
        "beamlit_gateway_queue_seconds",
        "Seconds that requests waited in the queue, of those that waited",
        lambda series: series.queue,
    ),
    (
        "beamlit_gateway_request_attempts",
        "Attempts of a request at backends and their pods",
        lambda series: series.attempts,
    ),
)
"""Histograms: name, meaning, and where the counts are."""


def families(parts: Sequence[Sequence[tuple[tuple[str, str, str], RequestSeries]]]) -> Iterator[Metric]:
    """Yield the families of metrics with the counts of this moment, each in parts: some backends, by their labels."""
    for name, meaning, histogram in _HISTOGRAMS:
        for part in parts:
            histograms = HistogramMetricFamily(name, meaning, labels=_LABELS)
            for key, series in part:
                histogram(series).add_to(histograms, key)
            yield histograms
    for part in parts:
        tokens = CounterMetricFamily(
            "beamlit_gateway_tokens",
            "Tokens that responses have named: input for those of prompts, output for those of completions",
            labels=(*_LABELS, "direction"),
        )
        for key, series in part:
            if series.prompt_tokens or series.completion_tokens:
                tokens.add_metric((*key, "input"), series.prompt_tokens)
                tokens.add_metric((*key, "output"), series.completion_tokens)
        yield tokens
    for part in parts:
        costs = CounterMetricFamily(
            "beamlit_gateway_estimated_cost",
            "Costs of the tokens that responses have named, by the prices of the backend, in the currency of these",
            labels=_LABELS,
        )
        for key, series in part:
            if series.cost is not None:
                costs.add_metric(key, series.cost)
        yield costs


def _cumulative(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    """Return buckets as Prometheus defines them: each one contains the counts of all smaller ones."""
    names = (*map(floatToGoString, bounds), "+Inf")
    return list(zip(names, map(float, accumulate(counts)), strict=True))
