"""Metrics of each route in force: the requests that have arrived for it, and the split.

They are there as long as the route is, also before its first request: `rate()` of a counter that begins with the first
request lacks that one, and a workload without replicas would not be woken by it.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from program.metric_parts import in_parts


class RouteState(NamedTuple):
    """State of one route at one moment."""

    namespace: str
    name: str
    arrived: int
    """Requests that have arrived for the route so far."""
    weights: Sequence[tuple[str, int]]
    """Ids of its backends, with the percentage of the requests that the split sends to each."""


class RouteMetrics(Collector):
    """Collector of the metrics of all routes in force."""

    def __init__(self) -> None:
        self.states: Callable[[], Iterable[RouteState]] = tuple
        """Function that returns the states of all routes in force."""

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families as they are now, each in parts: there may be thousands of routes."""
        for part in in_parts(self.states()):
            arrived = CounterMetricFamily(
                "beamlit_gateway_arrived_requests",
                "Requests that have arrived for a route, counted as they arrive and whatever becomes of them; none of"
                " callers that may not use the model",
                labels=("namespace", "model"),
            )
            for one in part:
                arrived.add_metric((one.namespace, one.name), one.arrived)
            yield arrived
        for part in in_parts(self.states()):
            weight = GaugeMetricFamily(
                "beamlit_gateway_backend_weight",
                "Percentage of a route's requests that the split in force sends to a backend",
                labels=("namespace", "model", "backend"),
            )
            for one in part:
                for backend, percentage in one.weights:
                    weight.add_metric((one.namespace, one.name, backend), percentage)
            yield weight
