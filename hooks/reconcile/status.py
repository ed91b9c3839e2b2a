"""The parent's status, whole: conditions, the state of offloading, and what is carried over.

It changes when something changes and at no other time: no measured values, no numbers that move, times in whole
seconds and only those of transitions. https://github.com/kubernetes/community (API conventions, "conditions")
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from hooks import reasons
from hooks.api.common import format_time
from hooks.kube.objects import Object
from hooks.kube.times import whole_seconds
from hooks.observation.conditions import Condition, condition_as_written
from hooks.observation.observation import Parent
from hooks.offloading.hysteresis import NOTHING, Memory
from hooks.offloading.rules import Previous, Split

SKEW: Final = timedelta(minutes=1)
"""How far ahead of ours the clock of another replica may be. What it wrote stays, for samples are held against it."""


class MetricStanding(NamedTuple):
    """What is known of a metric."""

    name: str
    type: str
    state: str
    """How it stands to its target, or why it cannot be read."""


@dataclass(frozen=True, slots=True)
class Report:
    """What is true, before it is written down."""

    conditions: tuple[Condition, ...]
    """In the order in which they are shown."""
    split: Split
    ports: Mapping[str, int | None] = field(default_factory=dict)
    """servingPort and metricPort, as far as known."""
    memory: Memory = NOTHING
    """Of the metrics, for the next sync."""
    metrics: tuple[MetricStanding, ...] = ()
    """What is known of each metric."""
    platform: Mapping[str, Any] = field(default_factory=dict)
    """What is known of the platform, and the memory of it."""


def build_status(report: Report, parent: Parent, *, now: datetime) -> Object:
    """The status to write. Whatever did not change keeps its time."""
    status: Object = {
        "conditions": [condition_as_written(condition, parent, now) for condition in report.conditions],
        "offloadingStatus": report.split.percentage > 0,
        "offloading": _offloading(report, parent, now),
    }
    if parent.generation:
        # Metacontroller writes it as well; said here so that the answer is the status that is stored.
        status["observedGeneration"] = parent.generation
    status |= {name: port for name, port in report.ports.items() if port is not None}
    return {**status, **report.platform}


def overview(
    accepted: Condition,
    others: Iterable[Condition],
    warnings: Iterable[Condition],
    *,
    serving: bool,
    deleting: bool,
    local_only: bool = False,
) -> tuple[Condition, ...]:
    """All conditions: these, then Ready, which sums them up, then the warnings.

    With `local_only` all that is not resolved is where to offload to: a model that is served here is Ready anyway.
    """
    conditions = (accepted, *others)
    ready = _ready(conditions, serving=serving, deleting=deleting, local_only=local_only)
    return (*conditions, ready, *warnings)


def _ready(conditions: tuple[Condition, ...], *, serving: bool, deleting: bool, local_only: bool) -> Condition:
    by_type = {condition.type: condition for condition in conditions}
    if deleting:
        return Condition("Ready", "False", reasons.TERMINATING, "The ModelDeployment is being deleted.")
    for type_, reason in _NEEDED:
        if by_type[type_].status == "False" and not (local_only and type_ == "RefsResolved"):
            return Condition("Ready", "False", reason, by_type[type_].message)
    if not serving:
        message = "No local replica is ready and nothing is offloaded: requests fail."
        return Condition("Ready", "False", reasons.NO_BACKEND, message)
    if local_only:
        message = f"Requests are served by the local replicas alone. {by_type['RefsResolved'].message}"
        return Condition("Ready", "True", reasons.SERVING, message)
    return Condition("Ready", "True", reasons.SERVING, "Requests are served.")


_NEEDED: Final = (
    ("Accepted", reasons.NOT_ACCEPTED),
    ("RefsResolved", reasons.REFERENCES_UNRESOLVED),
    ("Synced", reasons.NOT_SYNCED),
)
"""Conditions without which the model is not Ready, with the reason each gives."""


def _offloading(report: Report, parent: Parent, now: datetime) -> dict[str, Any]:
    previous, split, memory = Previous.of(parent), report.split, report.memory
    same = previous.percentage == split.percentage
    since = previous.since if same and previous.since is not None else now
    if since > now + SKEW:
        since = now
    written: dict[str, Any] = {
        "percentage": split.percentage,
        "reason": split.reason,
        "message": split.message,
        "since": format_time(whole_seconds(since)),
    }
    for field_, moment in (("reachedSince", memory.reached_since), ("belowSince", memory.below_since)):
        if moment is not None:
            written[field_] = format_time(moment)
    if memory.step is not None:
        written["step"] = memory.step
    if report.metrics:
        written["metrics"] = [standing._asdict() for standing in report.metrics]
    return written
