"""The last decision about each ModelDeployment with metrics, as metrics of hooks: values, targets, and what comes next.

A decision is made with exact amounts. Only here, for people to look at, they become floating point.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from hooks.api.offloading import OffloadingBehavior
from hooks.offloading.hysteresis import Course, InForce, advance
from hooks.offloading.measures import Measured, Missing
from hooks.offloading.rules import BY_METRICS, behavior
from hooks.offloading.targets import metric_name
from hooks.reconcile.assessment import Assessment
from hooks.reconcile.conditions import shortened, standings

MAX_MODELS: Final = 10_000
"""ModelDeployments whose last decision is exposed. Above it, the oldest decision is dropped."""
LIFETIME: Final = timedelta(minutes=5)
"""Time after which a decision is dropped: the ModelDeployment is gone, or another replica of hooks decides about it."""

_MODEL_LABELS: Final = ("namespace", "name")
_METRIC_LABELS: Final = (*_MODEL_LABELS, "index", "metric", "type")


@dataclass(frozen=True, slots=True)
class _LastDecision:
    """The parts of a decision that are exposed. The request it was made for is not kept."""

    time: datetime
    percentage: int
    reason: str
    course: Course
    measures: tuple[Measured | Missing, ...]
    labels: tuple[tuple[str, ...], ...]
    """Values of the labels index, metric and type, for each metric."""
    states: tuple[str, ...]
    behavior: OffloadingBehavior
    in_force: InForce

    @property
    def next_share(self) -> int:
        """Share that the metrics ask for at the end of the running window, if they stay as they are."""
        until = self.course.next_instant
        if until is None:
            return self.course.share or 0
        return advance(self.course.memory, self.measures, self.behavior, self.in_force, now=until).share or 0


class Decisions(Collector):
    """Collector of the last decisions: MAX_MODELS at most, each for LIFETIME at most."""

    def __init__(self) -> None:
        self._last: OrderedDict[tuple[str, str], _LastDecision] = OrderedDict()

    def record(self, assessment: Assessment, *, now: datetime) -> None:
        """Expose the decision of a sync; none when the model has no metrics."""
        facts, decision = assessment.facts, assessment.decision
        parent = facts.observation.parent
        key = (parent.namespace, parent.name)
        self._last.pop(key, None)
        self._drop_old(now)
        if not assessment.metrics:
            return
        states = tuple(one.state for one in standings(assessment.metrics, facts.measures, decision.course))
        in_force = InForce(
            decision.split.percentage,
            now,
            by_metrics=decision.split.reason in BY_METRICS,
            ready=facts.readiness.is_ready,
            standings=states,
        )
        self._last[key] = _LastDecision(
            now,
            decision.split.percentage,
            decision.split.reason,
            decision.course,
            facts.measures,
            tuple(
                (str(index), shortened(metric_name(metric)), metric.type)
                for index, metric in enumerate(assessment.metrics)
            ),
            states,
            behavior(facts.spec),
            in_force,
        )
        if len(self._last) > MAX_MODELS:
            self._last.popitem(last=False)

    def forget(self, namespace: str, name: str) -> None:
        """Drop the decision about a ModelDeployment that is being deleted."""
        self._last.pop((namespace, name), None)

    def _drop_old(self, now: datetime) -> None:
        while self._last:
            oldest = next(iter(self._last))
            if now - self._last[oldest].time <= LIFETIME:
                return
            del self._last[oldest]

    def collect(self) -> Iterator[Metric]:
        """Yield all gauges, as they are at one moment."""
        gauges = {
            name: GaugeMetricFamily(f"beamlit_hooks_{name}", help_text, labels=labels)
            for name, (help_text, labels) in _GAUGES.items()
        }
        for model, last in list(self._last.items()):
            gauges["decision_timestamp_seconds"].add_metric(model, last.time.timestamp())
            gauges["offloading_percentage"].add_metric((*model, last.reason), last.percentage)
            if last.course.next_instant is not None:
                gauges["offloading_next_timestamp_seconds"].add_metric(model, last.course.next_instant.timestamp())
                gauges["offloading_next_percentage"].add_metric(model, last.next_share)
            for labels, measure, state in zip(last.labels, last.measures, last.states, strict=True):
                metric = (*model, *labels)
                gauges["metric_state"].add_metric((*metric, state), 1)
                if isinstance(measure, Measured):
                    gauges["metric_value"].add_metric(metric, float(measure.numerator))
                    gauges["metric_target"].add_metric(metric, float(measure.denominator))
                    gauges["metric_ratio"].add_metric(metric, float(measure.ratio))
        yield from gauges.values()


_GAUGES: Final = {
    "decision_timestamp_seconds": ("Time of this replica's last decision about the ModelDeployment", _MODEL_LABELS),
    "offloading_percentage": ("Percentage of the requests that go to the remote backend", (*_MODEL_LABELS, "reason")),
    "offloading_next_timestamp_seconds": ("Time when a window ends if the metrics stay as they are", _MODEL_LABELS),
    "offloading_next_percentage": ("Percentage that the metrics ask for when the window ends", _MODEL_LABELS),
    "metric_value": ("Measured value of the metric, the sum over all pods or series that count", _METRIC_LABELS),
    "metric_target": ("Value at which the metric reaches its target", _METRIC_LABELS),
    "metric_ratio": ("Value of the metric divided by its target; 1 at the target", _METRIC_LABELS),
    "metric_state": (
        "1 for the state of the metric: how it stands to its target, or why it cannot be read",
        (*_METRIC_LABELS, "state"),
    ),
}
"""Help text and labels of each gauge, by its name without the prefix."""
