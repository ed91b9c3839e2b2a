"""Measures: the exact ratio of a metric to its target, from its samples and the pods, or the reason why there is none.

At a ratio of 1 the metric has reached its target. The formulas are those of the HorizontalPodAutoscaler of
Kubernetes 1.36 (https://kubernetes.io/docs/concepts/workloads/autoscaling/horizontal-pod-autoscale/), which this module
leaves where `DIFFERENCES` says so. Every amount is a whole number or a fraction of two; what a metric cannot give is a
fact with a reason, never an exception.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from fractions import Fraction
from functools import cached_property
from typing import Final

from hooks import reasons
from hooks.api.metrics import MetricSpec, MetricType
from hooks.kube.pods import RUNNING, Pod, total
from hooks.kube.quantities import NANO, Quantity
from hooks.observation.readings import Reading, Readings, Sample
from hooks.offloading.targets import Declared, Misdeclared, Scale, declared, per_replica, utilization

MAX_AGE: Final = timedelta(minutes=5)
"""Default for how far from now a sample may be. External metrics of clouds are minutes late."""
YOUNG: Final = timedelta(minutes=2)
"""Time after a pod became ready in which its first sample is late and not missing. metrics-server has to look at the
pod twice, and Prometheus to discover it."""

_AT_ONCE: Final = timedelta(0)
_SECOND: Final = timedelta(seconds=1)
_NOTHING: Final = Quantity(0)
_ZERO: Final = Fraction(0)


class Exclusion(StrEnum):
    """The reason why a pod does not count."""

    TERMINATING = "it is being deleted"
    NOT_RUNNING = "it is not running"
    NOT_READY = "it is not ready"
    NO_CONTAINER = "it has no such container"
    NO_SAMPLE = "there is no sample of it"
    INCOMPLETE = "there is no sample of one of its containers"
    YOUNG = "it became ready lately, and there is no sample of it yet"
    SETTLING = "its sample began before the split last changed or before it became ready"
    STALE = "its sample is too far from now"


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A pod that does not count."""

    name: str
    why: Exclusion


@dataclass(frozen=True, slots=True)
class Counted:
    """A pod, an object or a series that counts."""

    name: str
    value: Quantity
    time: datetime
    """Time of its oldest sample."""
    requested: Quantity = _NOTHING
    """Requests that the value is compared with; for Utilization only."""


@dataclass(frozen=True)
class Measured:
    """The ratio of a metric to its target, and the values it was computed from."""

    counted: tuple[Counted, ...]
    """What counts, at least one, sorted by name."""
    left_out: tuple[LeftOut, ...]
    """What does not count, sorted by name."""
    target: Fraction
    """Target: a fraction of the requests for Utilization (80 % is 4/5), else an amount."""
    times: Fraction
    """Positive factor that the target is multiplied by."""

    @cached_property
    def nanos(self) -> int:
        """Return the sum of what was measured, in billionths."""
        return sum([item.value.nanos for item in self.counted])

    @property
    def numerator(self) -> Fraction:
        """Return the sum of what was measured."""
        return Fraction(self.nanos, NANO)

    @property
    def denominator(self) -> Fraction:
        """Return the amount at which the target is reached."""
        return self.target * self.times

    @cached_property
    def ratio(self) -> Fraction:
        """Return the ratio; at 1 the target is reached."""
        target, times = self.target, self.times
        # In whole numbers, for a fraction of fractions is reduced four times over.
        return Fraction(self.nanos * target.denominator * times.denominator, NANO * target.numerator * times.numerator)

    @property
    def is_reached(self) -> bool:
        """Return whether the target is reached."""
        return self.ratio.numerator >= self.ratio.denominator

    @property
    def oldest(self) -> datetime:
        """Return the time of the oldest sample that counts."""
        return min(item.time for item in self.counted)

    @property
    def arithmetic(self) -> str:
        """Return the whole calculation as one line, for instance `(350m + 600m) / (4/5 × 1) = 19/16`."""
        values = " + ".join(str(item.value) for item in self.counted)
        return f"({values}) / ({self.target} × {self.times}) = {self.ratio}"


@dataclass(frozen=True, slots=True)
class Missing:
    """The reason why a metric has no ratio."""

    reason: str
    """One of `hooks.reasons`."""
    message: str
    """Reason as a sentence, with nothing in it that changes by itself."""
    left_out: tuple[LeftOut, ...] = ()
    """What does not count, sorted by name."""

    @property
    def is_failure(self) -> bool:
        """Return whether something is wrong. Nothing is while it only takes time, or where the metric was not read."""
        return self.reason not in (reasons.SETTLING, reasons.NOT_EVALUATED)


@dataclass(frozen=True, slots=True)
class Difference:
    """A difference between the measures and the HorizontalPodAutoscaler."""

    autoscaler: str
    here: str
    why: str


DIFFERENCES: Final = (
    Difference(
        "Leaves out pods that are pending, failed or being deleted; those that are not ready only for cpu, and only"
        " while they start or when they were never ready.",
        "A pod counts only while it is running, ready and not being deleted, for every metric.",
        "Only such pods get requests, so only they say what requests cost.",
    ),
    Difference(
        "Assumes that a pod without a sample uses nothing when the others are above the target, and when they are below"
        " it, all that it requests, or the target.",
        "Such a pod does not count. When none is left, the metric is Missing.",
        "The assumption damps a number of replicas; a share of the traffic would only be wrong by it.",
    ),
    Difference(
        "Does not look at the time of samples, except for cpu while a pod starts.",
        "A sample counts only if the time it is about began after the split last changed and after its pod became"
        " ready, and if it is not more than five minutes from now. When one series does not count, External is"
        " Missing.",
        "An older one shows the load of another split, or how the model was loaded.",
    ),
    Difference(
        "Rounds samples up to thousandths, averages down to thousandths, utilization down to whole percents, and caps"
        " at 64 bits.",
        "Amounts are exact to the billionth, their sums and ratios entirely, and of any size.",
        "79.9 % is not 80 %, and it is not 79 % either.",
    ),
    Difference(
        "Fails for Utilization when a container of any pod has no request.",
        "Missing with NoRequests, for pods that are ready only.",
        "A pod that does not serve changes nothing.",
    ),
    Difference(
        "Takes the requests of the pod as a whole as soon as they name any resource, with its overhead and with the"
        " peak of its init containers.",
        "They count for the resources that they name; for others those of the containers and sidecars are added up,"
        " without overhead.",
        "What is used is the use of these containers, so what they may use is what it is held against.",
    ),
    Difference(
        "Adds up the containers that the metrics API happens to report.",
        "A pod counts when there is a sample of each of its containers and sidecars, and only these are added up.",
        "Use and requests must be those of the same containers.",
    ),
    Difference(
        "Fails for ContainerResource with Utilization when a single pod lacks the container.",
        "That pod does not count. When all lack it, the metric is Misdeclared.",
        "During a rollout the old pods may lack it.",
    ),
    Difference(
        "Takes averageValue where it is set, whatever target.type says; only for Object the type decides.",
        "target.type decides; its field must be there, be positive, and be the only one.",
        "A value that is accepted and ignored offloads at another load than the one that was written.",
    ),
    Difference(
        "Divides Object and External with AverageValue by all replicas.",
        "Divides by the ready replicas.",
        "The others carry no load.",
    ),
    Difference(
        "Takes the last of several series of one pod.",
        "Missing with Ambiguous, as for several series of one object; External adds them up.",
        "Which one is last is chance.",
    ),
)
"""All differences between the measures and the HorizontalPodAutoscaler."""


@dataclass(frozen=True, slots=True)
class _Clock:
    """The times that decide whether a sample counts."""

    now: datetime
    since: datetime | None
    max_age: timedelta

    def refuses(self, sample: Sample, ready_since: datetime | None = None) -> Exclusion | None:
        """Return the reason why the sample does not count, or None where it does."""
        if abs(self.now - sample.time) > self.max_age:
            return Exclusion.STALE
        window = max(sample.window, _AT_ONCE)
        # Times have whole seconds: what began within the second of a transition may have begun before it.
        for moment in (self.since, ready_since):
            if moment is not None and sample.time - moment - _SECOND < window:
                return Exclusion.SETTLING
        return None

    def lacks(self, ready_since: datetime | None) -> bool:
        """Return whether a sample of a pod should be there by now."""
        return ready_since is None or self.now - ready_since > YOUNG


_MESSAGES: Final = {
    reasons.NO_SAMPLE: "There is no sample of the metric.",
    reasons.SETTLING: "No sample of the metric is from after the split last changed and a pod became ready.",
    reasons.STALE: "The samples of the metric are too old.",
    reasons.NO_READY_PODS: "No pod is ready, so there is nothing to measure.",
    reasons.AMBIGUOUS: "Several series of the metric belong to one object: narrow its selector until one is left.",
}


def measure(
    metric: MetricSpec,
    samples: Iterable[Sample],
    pods: Iterable[Pod],
    *,
    ready_replicas: int,
    now: datetime,
    since: datetime | None = None,
    max_age: timedelta = MAX_AGE,
) -> Measured | Missing:
    """Return the ratio of the metric to its target, or the reason why there is none.

    Args:
        metric: as specified.
        samples: of this metric; those of other pods or objects are ignored.
        pods: of the workload. Object and External need none.
        ready_replicas: of the workload, as its status says.
        now: the present.
        since: when the split last changed; None when it never did.
        max_age: how far from now, in either direction, a sample may be.
    """
    try:
        declared_metric = declared(metric)
    except Misdeclared as exc:
        return Missing(reasons.MISDECLARED, str(exc))
    clock = _Clock(now, since, max_age)
    if declared_metric.type in (MetricType.OBJECT, MetricType.EXTERNAL):
        return _of_series(declared_metric, samples, ready_replicas, clock)
    return _of_pods(declared_metric, samples, sorted(pods, key=lambda pod: pod.name), clock)


def measure_all(
    metrics: Iterable[MetricSpec],
    readings: Readings | None,
    *,
    ready_replicas: int,
    now: datetime,
    since: datetime | None = None,
    offloads: bool = False,
) -> tuple[Measured | Missing, ...]:
    """Return the ratio of every metric to its target. A source that could not be read is a reason why there is none.

    Args:
        metrics: as specified.
        readings: what was gathered for them, in the same order; None when they were not read.
        ready_replicas: of the workload, as its status says.
        now: the present.
        since: when the split last changed; None when it never did.
        offloads: whether requests are offloaded. NaN counts as 0 then: a quotient is NaN without traffic, and without
            its value it would never be known whether requests may come back.
    """
    if readings is None:
        return tuple(Missing(reasons.NOT_EVALUATED, "Metrics are not read here.") for _ in metrics)
    results = []
    for place, metric in enumerate(metrics):
        reading = readings.metrics[place] if place < len(readings.metrics) else Reading()
        if offloads and reading.without_traffic:
            reading = Reading(reading.without_traffic)
        unread = reading.unread
        if unread is None and metric.type not in (MetricType.OBJECT, MetricType.EXTERNAL):
            unread = readings.pods_unread
        # What is wrong with the specification is reported first: no source can mend it.
        samples = () if unread is not None else reading.samples
        result = measure(metric, samples, readings.pods, ready_replicas=ready_replicas, now=now, since=since)
        if unread is not None and not (isinstance(result, Missing) and result.reason == reasons.MISDECLARED):
            result = Missing(unread.reason, unread.message)
        results.append(result)
    return tuple(results)


def _of_series(metric: Declared, samples: Iterable[Sample], ready: int, clock: _Clock) -> Measured | Missing:
    if metric.formula is per_replica and ready <= 0:
        return _missing(reasons.NO_READY_PODS)
    matching = [item for item in samples if metric.type is MetricType.EXTERNAL or item.of == metric.described]
    if not matching:
        return _missing(reasons.NO_SAMPLE)
    if metric.type is MetricType.OBJECT and len(matching) > 1:
        return _missing(reasons.AMBIGUOUS)
    # A part of the series is not the whole: one that does not count takes all with it.
    refused = {clock.refuses(item) for item in matching} - {None}
    if refused:
        return _missing(reasons.STALE if Exclusion.STALE in refused else reasons.SETTLING)
    counted = [Counted(item.of, item.value, item.time) for item in matching]
    counted.sort(key=lambda item: (item.name, item.time, str(item.value), item.value.format.value))
    return Measured(tuple(counted), (), metric.target, metric.formula(Scale(_ZERO, 0, ready)))


def _of_pods(metric: Declared, samples: Iterable[Sample], pods: Sequence[Pod], clock: _Clock) -> Measured | Missing:
    excluded = {pod.name: why for pod in pods if (why := _excluded(pod, metric.container)) is not None}
    serving = [pod for pod in pods if pod.name not in excluded]
    if not serving:
        left_out = _left_out(excluded)
        lacking = Exclusion.NO_CONTAINER in excluded.values()
        message = f"No ready pod has a container {metric.container!r}: containerResource.container must name one."
        return Missing(reasons.MISDECLARED, message, left_out) if lacking else _missing(reasons.NO_READY_PODS, left_out)
    if metric.formula is utilization:
        unbounded = _without_request(metric, serving)
        if unbounded is not None:
            return Missing(reasons.NO_REQUESTS, unbounded, _left_out(excluded))
    of_pod: dict[str, list[Sample]] = {pod.name: [] for pod in serving}
    for sample in samples:
        if (own := of_pod.get(sample.of)) is not None:
            own.append(sample)
    counted = []
    for pod in serving:
        result = _of_pod(metric, pod, of_pod[pod.name], clock)
        if isinstance(result, Missing):
            return result
        if isinstance(result, Exclusion):
            excluded[pod.name] = result
        else:
            counted.append(result)
    left_out = _left_out(excluded)
    if not counted:
        # Waiting helps a sample that is too early, so that is reported first.
        order = {
            Exclusion.SETTLING: reasons.SETTLING,
            Exclusion.STALE: reasons.STALE,
            Exclusion.NO_SAMPLE: reasons.NO_SAMPLE,
            Exclusion.INCOMPLETE: reasons.NO_SAMPLE,
            Exclusion.YOUNG: reasons.SETTLING,
        }
        whys = set(excluded.values())
        return _missing(next(order[why] for why in order if why in whys), left_out)
    requested = Fraction(sum(item.requested.nanos for item in counted), NANO)
    times = metric.formula(Scale(requested, len(counted), 0))
    if times <= 0:
        return Missing(reasons.NO_REQUESTS, f"The requests for {metric.resource} are zero.", left_out)
    return Measured(tuple(counted), left_out, metric.target, times)


def _excluded(pod: Pod, container: str | None) -> Exclusion | None:
    """Return why a pod does not count whatever its samples are, or None where it may count."""
    if pod.terminating:
        return Exclusion.TERMINATING
    if pod.phase != RUNNING:
        return Exclusion.NOT_RUNNING
    if not pod.ready:
        return Exclusion.NOT_READY
    if container is not None and all(item.name != container for item in pod.containers):
        return Exclusion.NO_CONTAINER
    return None


def _without_request(metric: Declared, pods: Sequence[Pod]) -> str | None:
    """Return a sentence that says what to change where a needed request is absent."""
    for pod in pods:
        container = pod.without_request(metric.resource, metric.container)
        if container is not None:
            return f"The container {container!r} has no request for {metric.resource}: set one, or use AverageValue."
    return None


def _of_pod(metric: Declared, pod: Pod, samples: Sequence[Sample], clock: _Clock) -> Counted | Exclusion | Missing:
    """Return what a pod that serves adds to the measure."""
    containers = _containers(metric, pod)
    taken = [sample for sample in samples if sample.container in containers]
    if len({sample.container for sample in taken}) < len(taken):
        return _missing(reasons.AMBIGUOUS)
    if len(taken) < len(containers):
        lacking = Exclusion.INCOMPLETE if taken else Exclusion.NO_SAMPLE
        return lacking if clock.lacks(pod.ready_since) else Exclusion.YOUNG
    refused = {clock.refuses(sample, pod.ready_since) for sample in taken} - {None}
    if refused:
        return Exclusion.STALE if Exclusion.STALE in refused else Exclusion.SETTLING
    taken.sort(key=lambda sample: sample.container)
    requested = pod.requested(metric.resource, metric.container) if metric.formula is utilization else _NOTHING
    value, oldest = total([sample.value for sample in taken]), min(sample.time for sample in taken)
    return Counted(pod.name, value, oldest, requested)


def _containers(metric: Declared, pod: Pod) -> frozenset[str]:
    """Return the containers whose samples make up the pod's value."""
    if metric.container is not None:
        return frozenset({metric.container})
    if metric.type is MetricType.RESOURCE:
        return frozenset(container.name for container in pod.containers)
    return frozenset({""})


def _missing(reason: str, left_out: tuple[LeftOut, ...] = ()) -> Missing:
    return Missing(reason, _MESSAGES[reason], left_out)


def _left_out(excluded: Mapping[str, Exclusion]) -> tuple[LeftOut, ...]:
    return tuple(LeftOut(name, why) for name, why in sorted(excluded.items()))
