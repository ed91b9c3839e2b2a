"""Conditions of an object's status, and how they are written with the times of their transitions.

https://github.com/kubernetes/community/blob/main/contributors/devel/sig-architecture/api-conventions.md
"""

from datetime import datetime
from typing import Any, NamedTuple

from hooks.api.common import format_time
from hooks.kube.times import whole_seconds
from hooks.observation.observation import Parent


class Condition(NamedTuple):
    """A condition of an object's status, without its times."""

    type: str
    status: str
    """Status of the condition: True, False or Unknown."""
    reason: str
    message: str


def condition_as_written(condition: Condition, parent: Parent, now: datetime) -> dict[str, Any]:
    """Return the condition as status holds it. Its lastTransitionTime stays the same as long as its status does."""
    held = parent.held.get(condition.type)
    kept = held is not None and held.status == condition.status and held.since is not None
    since = held.since if held is not None and held.since is not None and kept else now
    written: dict[str, Any] = {
        **condition._asdict(),
        "lastTransitionTime": format_time(whole_seconds(min(since, now))),
    }
    if parent.generation:
        written["observedGeneration"] = parent.generation
    return written
