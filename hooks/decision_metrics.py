"""What was decided last of each ModelDeployment with metrics, as metrics of hooks: values, targets, what comes next.

Amounts are exact where they are decided on; only here, to be looked at, they become floating point.
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
from hooks.offloading.rules import behavior
from hooks.offloading.targets import metric_name
from hooks.reconcile.assessment import Assessment
from hooks.reconcile.conditions import shortened, standings

KEPT: Final = 10_000
"""ModelDeployments of which the last decision is kept."""
LIFETIME: Final = timedelta(minutes=5)
"""After which a decision is forgotten: the ModelDeployment is gone, or another replica is asked."""

_OF_MODEL: Final = ("namespace", "name")
_OF_METRIC: Final = (*_OF_MODEL, "index", "metric", "type")


@dataclass(frozen=True, slots=True)
class _Decided:
    """As little as is needed to tell of a decision, so that no request is kept."""

    at: datetime
    percentage: int
    reason: str
    course: Course
    measures: tuple[Measured | Missing, ...]
    labels: tuple[tuple[str, ...], ...]
    """Of each metric: index, name, type."""
    states: tuple[str, ...]
    behavior: OffloadingBehavior
    in_force: InForce

    @property
    def next_share(self) -> int:
        """What the metrics ask for at the end of the window that runs, if they stay as they are."""
        until = self.course.next_instant
        if until is None:
            return self.course.share or 0
        return advance(self.course.memory, self.measures, self.behavior, self.in_force, now=until).share or 0


class Decisions(Collector):
    """The last decisions, for a registry. A number of them that is bounded, each for a time that is."""

    def __init__(self) -> None:
        self._decided: OrderedDict[tuple[str, str], _Decided] = OrderedDict()

    def record(self, assessment: Assessment, *, now: datetime) -> None:
        """Keep what came of a sync at that time."""
        facts, decision = assessment.facts, assessment.decision
        parent = facts.observation.parent
        key = (parent.namespace, parent.name)
        self._decided.pop(key, None)
        self._forget(now)
        if not assessment.metrics:
            return
        in_force = InForce(decision.split.percentage, now, by_metrics=True, ready=facts.readiness.is_ready)
        self._decided[key] = _Decided(
            now,
            decision.split.percentage,
            decision.split.reason,
            decision.course,
            facts.measures,
            tuple((str(at), shortened(metric_name(one)), one.type) for at, one in enumerate(assessment.metrics)),
            tuple(one.state for one in standings(assessment.metrics, facts.measures, decision.course)),
            behavior(facts.spec),
            in_force,
        )
        if len(self._decided) > KEPT:
            self._decided.popitem(last=False)

    def forget(self, namespace: str, name: str) -> None:
        """The ModelDeployment is being deleted."""
        self._decided.pop((namespace, name), None)

    def _forget(self, now: datetime) -> None:
        while self._decided:
            oldest = next(iter(self._decided))
            if now - self._decided[oldest].at <= LIFETIME:
                return
            del self._decided[oldest]

    def collect(self) -> Iterator[Metric]:
        """All gauges, from one and the same state."""
        gauges = {
            name: GaugeMetricFamily(f"beamlit_hooks_{name}", meaning, labels=labels)
            for name, (meaning, labels) in _GAUGES.items()
        }
        for (namespace, name), one in list(self._decided.items()):
            model = (namespace, name)
            gauges["decision_timestamp_seconds"].add_metric(model, one.at.timestamp())
            gauges["offloading_percentage"].add_metric((*model, one.reason), one.percentage)
            if one.course.next_instant is not None:
                gauges["offloading_next_timestamp_seconds"].add_metric(model, one.course.next_instant.timestamp())
                gauges["offloading_next_percentage"].add_metric(model, one.next_share)
            for labels, measure, state in zip(one.labels, one.measures, one.states, strict=True):
                metric = (*model, *labels)
                gauges["metric_state"].add_metric((*metric, state), 1)
                if isinstance(measure, Measured):
                    gauges["metric_value"].add_metric(metric, float(measure.numerator))
                    gauges["metric_target"].add_metric(metric, float(measure.denominator))
                    gauges["metric_ratio"].add_metric(metric, float(measure.ratio))
        yield from gauges.values()


_GAUGES: Final = {
    "decision_timestamp_seconds": ("When the ModelDeployment was decided on last, by this replica", _OF_MODEL),
    "offloading_percentage": ("Share of the requests that goes to the remote backend", (*_OF_MODEL, "reason")),
    "offloading_next_timestamp_seconds": ("When a window ends, if the metrics stay as they are", _OF_MODEL),
    "offloading_next_percentage": ("The share that the metrics ask for then", _OF_MODEL),
    "metric_value": ("What was measured, added up over what counts", _OF_METRIC),
    "metric_target": ("The amount of it at which the target is reached", _OF_METRIC),
    "metric_ratio": ("The one over the other: 1 at the target", _OF_METRIC),
    "metric_state": ("1 for how the metric stands, or why it cannot be read", (*_OF_METRIC, "state")),
}
