"""Responses of the sources of metrics for one specification, as they were read."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from hooks.kube.pods import Pod
from hooks.kube.quantities import Quantity


@dataclass(frozen=True, slots=True)
class Sample:
    """One value of a metric, for one pod, object or series at one time."""

    of: str
    """Name of the pod or of the described object; for External some name of the series."""
    value: Quantity
    time: datetime
    """End of the time span that the value is about, with its offset."""
    window: timedelta = timedelta(0)
    """Length of that time span; zero for a momentary value."""
    container: str = ""
    """Name of the container, for cpu and memory: each container of a pod has a sample of its own."""


@dataclass(frozen=True, slots=True)
class Unread:
    """The reason why a source could not be read. It is a fact, never an exception."""

    reason: str
    """One of `hooks.reasons`."""
    message: str
    """Sentence that says what to change. It has nothing in it that changes by itself, and no secret."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The result of reading one metric: samples, possibly none, or the reason why it could not be read."""

    samples: tuple[Sample, ...] = ()
    unread: Unread | None = None
    without_traffic: tuple[Sample, ...] = ()
    """Samples with 0 in place of NaN, where NaN alone is why there are none. A quotient is NaN without traffic, so they
    count while requests are offloaded."""


@dataclass(frozen=True, slots=True)
class Readings:
    """Everything that was read for the metrics of a specification."""

    metrics: tuple[Reading, ...] = ()
    """Readings, one for each entry of spec.offloadingConfig.metrics, in that order."""
    pods: tuple[Pod, ...] = ()
    """Pods that the selector of the workload selects. Object and External need none."""
    pods_unread: Unread | None = None
    """Reason why the pods are not known; None where they are."""
    pages: str = ""
    """Where the metrics of type Pods were read, in words, if that was on pages of the pods themselves."""
