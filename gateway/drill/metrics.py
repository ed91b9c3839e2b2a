"""Metrics of drills, made of their records when they are read."""

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector

from gateway.drill.findings import Reason
from gateway.drill.record import DrillRecord
from program.metric_parts import in_parts

Key = tuple[str, str, str]
"""Namespace, model and backend."""
_LABELS: Final = ("namespace", "model", "backend")


class DrillMetrics(Collector):
    """Collector of the results of drills, with series for routes in force alone."""

    def __init__(self, records: Callable[[], Iterator[tuple[Key, DrillRecord]]]) -> None:
        self._records = records

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families with the results of now, each in parts: there may be thousands of routes."""
        parts = list(in_parts(self._records()))
        for part in parts:
            drills = CounterMetricFamily(
                "beamlit_gateway_drills",
                "Drills at remote backends, by result",
                labels=(*_LABELS, "reason"),
            )
            for key, record in part:
                for reason, number in tuple(record.counts.items()):
                    drills.add_metric((*key, reason.value), number)
            yield drills
        for part in parts:
            success = GaugeMetricFamily(
                "beamlit_gateway_drill_success",
                "Whether the last drill at a remote backend, or a request since, succeeded; absent before any",
                labels=_LABELS,
            )
            for key, record in part:
                if record.reason is not Reason.NOT_TRIED:
                    success.add_metric(key, float(not record.failing))
            yield success
        for part in parts:
            times = GaugeMetricFamily(
                "beamlit_gateway_drill_timestamp_seconds",
                "Time of the last result of drills at a remote backend, in seconds since 1970, with its reason; absent"
                " before any",
                labels=(*_LABELS, "reason"),
            )
            for key, record in part:
                if record.observed_at is not None:
                    times.add_metric((*key, record.reason.value), record.observed_at)
            yield times
