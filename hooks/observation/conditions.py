"""Conditions of an object's status, and how they are written with the times of their transitions.

https://github.com/kubernetes/community/blob/main/contributors/devel/sig-architecture/api-conventions.md
"""

from datetime import datetime
from typing import Any, NamedTuple

from hooks.api.common import format_time
from hooks.kube.times import whole_seconds
from hooks.observation.observation import Parent


class Condition(NamedTuple):
    """One aspect of the state, without its times."""

    type: str
    status: str
    """True, False or Unknown."""
    reason: str
    message: str


def condition_as_written(condition: Condition, parent: Parent, now: datetime) -> dict[str, Any]:
    """A condition with its times: that of its last transition is kept while its status stays."""
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
