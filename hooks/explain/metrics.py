"""Explanations of metrics: the arithmetic of each, or why there is none and what to change."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from fractions import Fraction
from math import ceil

from hooks import reasons
from hooks.api.common import format_time
from hooks.api.metrics import MetricSpec, MetricType
from hooks.kube.quantities import NANO, Format, Quantity
from hooks.observation.readings import Readings
from hooks.offloading.measures import Measured, Missing
from hooks.offloading.targets import Misdeclared, declared, metric_name, per_pod, per_replica, utilization
from hooks.reconcile.assessment import Assessment
from hooks.reconcile.conditions import standings


@dataclass(frozen=True, slots=True)
class MetricAccount:
    """The explanation of one metric."""

    name: str
    type: MetricType
    target: str
    """Target in words; empty where it is invalid."""
    state: str
    """Standing of the metric, or the reason why it cannot be read."""
    measure: Measured | Missing
    estimate: Fraction | None = None
    """Estimated ratio with all requests here, where there is an estimate."""
    estimated_share: int | None = None
    """Share that the estimate assumes, in percent."""
    age: timedelta | None = None
    """Age of the oldest sample that counts."""
    advice: str = ""
    """Sentence that says what to change, where the metric cannot be read and its reason does not say it."""
    pages: str = ""
    """Where the metric is read, in words, if that is on pages of the pods themselves."""


def accounts(assessment: Assessment, readings: Readings | None, now: datetime) -> tuple[MetricAccount, ...]:
    """Return the explanation of every metric of the specification."""
    course, measures = assessment.decision.course, assessment.facts.measures
    states = standings(assessment.metrics, measures, course)
    estimates = course.estimates or (None,) * len(measures)
    result = []
    for place, (metric, one) in enumerate(zip(assessment.metrics, measures, strict=True)):
        estimate = estimates[place]
        result.append(
            MetricAccount(
                metric_name(metric),
                metric.type,
                target(metric),
                states[place].state,
                one,
                estimate,
                0 if estimate is not None else None,
                now - one.oldest if isinstance(one, Measured) else None,
                _advice(one, place, assessment, readings, now) if isinstance(one, Missing) else "",
                readings.pages if readings is not None and metric.type is MetricType.PODS else "",
            )
        )
    return tuple(result)


def target(metric: MetricSpec) -> str:
    """Return a target in words; empty where it is invalid."""
    try:
        wanted = declared(metric)
    except Misdeclared:
        return ""
    if wanted.formula is utilization:
        return f"{float(wanted.target * 100):g} % of what is requested"
    amount = wanted.amount
    for formula, words in ((per_pod, " for each pod"), (per_replica, " for each ready replica")):
        if wanted.formula is formula:
            return amount + words
    return amount


def amount(measured: Measured, exact: Fraction) -> Quantity:
    """Return the smallest quantity that is not less, in the notation of what was measured."""
    form = next((one.value.format for one in measured.counted if one.value.nanos), Format.DECIMAL)
    return Quantity(ceil(exact * NANO), form)


def _advice(missing: Missing, place: int, assessment: Assessment, readings: Readings | None, now: datetime) -> str:
    """Return what to change, where the message does not say it."""
    reading = readings.metrics[place] if readings is not None and place < len(readings.metrics) else None
    newest = max((sample.time for sample in reading.samples), default=None) if reading is not None else None
    match missing.reason:
        case reasons.NOT_EVALUATED if assessment.facts.spec.enabled:
            return "Give what was observed as --observed."
        case reasons.STALE if newest is not None:
            apart = span(abs(now - newest))
            return (
                f"The newest is of {format_time(newest)}, {apart} from now: read it again, or give that time as --now."
            )
        case reasons.SETTLING if assessment.previous.since is not None:
            return f"The split is what it is since {format_time(assessment.previous.since)}; the next samples count."
        case reasons.NO_SAMPLE if reading is not None and reading.unread is None:
            return "Its source responded without one: see that the name and the selector are right."
        case reasons.NO_READY_PODS:
            return "It can be read when a pod is ready."
    return ""


def span(length: timedelta) -> str:
    """Return a duration in words: `45 s`, `3 min`, `2 h 5 min`, `3 d 4 h`."""
    seconds = length // timedelta(seconds=1)
    for unit, larger, name, smaller in ((86400, 3600, "d", "h"), (3600, 60, "h", "min"), (60, 1, "min", "s")):
        if seconds >= unit:
            rest = seconds % unit // larger
            return f"{seconds // unit} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{seconds} s"
