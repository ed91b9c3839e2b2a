"""What the sources of metrics answered for one specification, before anything is made of it."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from hooks.kube.pods import Pod
from hooks.kube.quantities import Quantity


@dataclass(frozen=True, slots=True)
class Sample:
    """What a source says about one thing at one time."""

    of: str
    """Name of the pod or of the described object; for External any name of the series."""
    value: Quantity
    time: datetime
    """End of the time that it is about, with its offset."""
    window: timedelta = timedelta(0)
    """Length of that time; zero for a momentary value."""
    container: str = ""
    """For cpu and memory: there is one sample for each container of a pod."""


@dataclass(frozen=True, slots=True)
class Unread:
    """Why a source gave no answer. A fact with a reason, never an exception."""

    reason: str
    """One of `hooks.reasons`."""
    message: str
    """The reason as a sentence that says what to change, without anything that changes by itself, without a secret."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What the source of one metric answered: samples, possibly none, or why it gave no answer."""

    samples: tuple[Sample, ...] = ()
    unread: Unread | None = None


@dataclass(frozen=True, slots=True)
class Readings:
    """Everything that was gathered for the metrics of a specification."""

    metrics: tuple[Reading, ...] = ()
    """One for each entry of spec.offloadingConfig.metrics, in that order."""
    pods: tuple[Pod, ...] = ()
    """Those that the selector of the workload selects; none are needed for Object and External."""
    pods_unread: Unread | None = None
    """Why the pods are not known."""
