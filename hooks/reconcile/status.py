"""Status of a ModelDeployment, built whole and once: conditions, the state of offloading, and the platform's fields.

Status changes when something changes and at no other time: it has no measured values, no numbers that move, and only
times of transitions, in whole seconds. That is what Kubernetes' API conventions ask of conditions:
https://github.com/kubernetes/community/blob/main/contributors/devel/sig-architecture/api-conventions.md
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from hooks.api.common import format_time
from hooks.kube.objects import Object
from hooks.kube.times import whole_seconds
from hooks.observation.conditions import Condition, condition_as_written
from hooks.observation.observation import Parent
from hooks.offloading.hysteresis import NEVER_FAILED, NOTHING, Memory
from hooks.offloading.rules import Previous, Split
from hooks.reconcile.drill_record import DrillRecord

SKEW: Final = timedelta(minutes=1)
"""How far the clock of another replica may be ahead of ours. A `since` within it is kept, because samples of metrics
are compared with it."""


class MetricStanding(NamedTuple):
    """Entry of `status.offloading.metrics`: one metric, and how it stands."""

    name: str
    type: str
    state: str
    """Standing of the metric to its target, or the reason why it cannot be read."""


@dataclass(frozen=True, slots=True)
class StatusContent:
    """Everything that a status is written from."""

    conditions: tuple[Condition, ...]
    """Conditions in the order in which they are written."""
    split: Split
    ports: Mapping[str, int | None] = field(default_factory=dict)
    """Values of servingPort and metricPort; None, and left out, where one is not known."""
    memory: Memory = NOTHING
    """Record of the metrics' windows, steps and trials for the next sync."""
    metrics: tuple[MetricStanding, ...] = ()
    platform_fields: Mapping[str, Any] = field(default_factory=dict)
    """Fields about the platform, as `Registration.status_fields` has them."""
    drill: DrillRecord | None = None
    """Record of the last drill by hand."""


def build_status(content: StatusContent, parent: Parent, *, now: datetime) -> Object:
    """Return the status to write. What did not change since the present status keeps its time."""
    status: Object = {
        "conditions": [condition_as_written(condition, parent, now) for condition in content.conditions],
        "offloadingStatus": content.split.percentage > 0,
        "offloading": _offloading(content, parent, now),
    }
    if parent.generation:
        # Metacontroller sets it as well; with it, the response is exactly the status that is stored.
        status["observedGeneration"] = parent.generation
    status |= {name: port for name, port in content.ports.items() if port is not None}
    return {**status, **content.platform_fields}


def _offloading(content: StatusContent, parent: Parent, now: datetime) -> Object:
    previous, split, memory = Previous.of(parent), content.split, content.memory
    is_same = previous.percentage == split.percentage
    since = previous.since if is_same and previous.since is not None else now
    if since > now + SKEW:
        since = now
    offloading: Object = {
        "percentage": split.percentage,
        "reason": split.reason,
        "message": split.message,
        "since": format_time(whole_seconds(since)),
    }
    for name, moment in (("reachedSince", memory.reached_since), ("belowSince", memory.below_since)):
        if moment is not None:
            offloading[name] = format_time(moment)
    if memory.step is not None:
        offloading["step"] = memory.step
    if memory.held is not None:
        offloading["heldShare"] = memory.held
    if memory.claim is not None:
        offloading["claim"] = memory.claim.value
    if memory.attempts != NEVER_FAILED:
        offloading["attempts"] = {"supported": memory.attempts.supported, "blind": memory.attempts.blind}
    if content.metrics:
        offloading["metrics"] = [standing._asdict() for standing in content.metrics]
    if content.drill is not None:
        offloading["drill"] = content.drill.as_status()
    return offloading
