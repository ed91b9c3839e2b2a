"""What became of the children that were asked for.

Metacontroller never says that it could not create a child: where another object has the name, it does nothing and is
silent. So what is asked for and stays away is noticed here. The memory is the condition Synced: its message names what
was awaited, its time says since when.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from hooks import reasons
from hooks.kube.objects import Key, Object, key_of
from hooks.kube.unstructured import mapping
from hooks.observation.observation import Observation
from hooks.reconcile.children import route_of

PATIENCE: Final = timedelta(seconds=10)
"""How long a child may take to appear. Metacontroller sees its own writes after a fraction of a second; more than this
is no delay but a refusal."""

_AWAITED: Final = "Waiting to appear: "


@dataclass(frozen=True, slots=True)
class Applied:
    """Whether what is observed is what is desired."""

    in_sync: bool
    reason: str
    message: str
    conflicts: tuple[Key, ...] = ()
    """Children that were asked for and never appeared."""
    next_instant: datetime | None = None
    """When a child that is awaited will be overdue."""


def compare(desired: tuple[Object, ...], observation: Observation, *, now: datetime) -> Applied:
    """Hold what is desired against what is observed."""
    keys = tuple(key for child in desired if (key := key_of(child)) is not None)
    missing = tuple(sorted(key for key in keys if key not in observation.children))
    if missing:
        return _awaiting(missing, observation, now)
    going = sorted(key for key in keys if mapping(observation.children[key], "metadata").get("deletionTimestamp"))
    if going:
        message = f"Being deleted, to be created again: {_listed(going)}."
        return Applied(in_sync=False, reason=reasons.TERMINATING, message=message)
    for key, child in zip(keys, desired, strict=True):
        if key.kind == "ConfigMap" and route_of(observation.children[key]) != route_of(child):
            message = "The gateway is being given a new route."
            return Applied(in_sync=False, reason=reasons.ROUTE_PENDING, message=message)
    return Applied(in_sync=True, reason=reasons.IN_SYNC, message="The gateway has the present route.")


def _awaiting(missing: tuple[Key, ...], observation: Observation, now: datetime) -> Applied:
    message = f"{_AWAITED}{_listed(missing)}."
    parent = observation.parent
    held = parent.held.get("Synced")
    pending = Applied(in_sync=False, reason=reasons.CHILD_PENDING, message=message)
    if parent.deleting:
        return pending  # Metacontroller creates nothing for a parent that goes.
    if held is None or held.status != "False" or held.since is None:
        return Applied(False, reasons.CHILD_PENDING, message, next_instant=now.replace(microsecond=0) + PATIENCE)
    overdue_at = min(held.since, now) + PATIENCE
    if now < overdue_at:
        return Applied(False, reasons.CHILD_PENDING, message, next_instant=overdue_at)
    awaited = held.message.removeprefix(_AWAITED).removesuffix(".").split(", ")
    conflicts = tuple(key for key in missing if held.reason == reasons.CHILD_PENDING and str(key) in awaited)
    return Applied(False, reasons.CHILD_PENDING, message, conflicts=conflicts)


def _listed(keys: tuple[Key, ...] | list[Key]) -> str:
    return ", ".join(map(str, keys))
