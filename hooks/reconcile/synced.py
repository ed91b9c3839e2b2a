"""Comparison of the desired children with the observed ones, for the condition Synced.

Metacontroller does not report to hooks that it could not create a child. Where another object has the name it does
nothing; what the API server refused is an event SyncError of the parent. So a child that was desired and does not
appear is noticed here, without its cause. The record of it is the condition Synced: its message names the children that
are awaited, and its time says since when.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from hooks import reasons
from hooks.kube.objects import Key, Object, key_of
from hooks.kube.unstructured import mapping
from hooks.observation.observation import Observation
from hooks.reconcile.children import route_of

CHILD_DEADLINE: Final = timedelta(seconds=10)
"""Time in which a desired child must appear. Metacontroller sees its own writes within a fraction of a second, so a
child that takes longer was refused."""

_AWAITED: Final = "Waiting to appear: "


@dataclass(frozen=True, slots=True)
class Comparison:
    """Result of the comparison, as the condition Synced reports it."""

    in_sync: bool
    reason: str
    message: str
    conflicts: tuple[Key, ...] = ()
    """Children that were desired and did not appear in time."""
    next_instant: datetime | None = None
    """Deadline of an awaited child."""


def compare(desired: tuple[Object, ...], observation: Observation, *, now: datetime) -> Comparison:
    """Compare the desired children with the observed ones."""
    keys = tuple(key for child in desired if (key := key_of(child)) is not None)
    missing = tuple(sorted(key for key in keys if key not in observation.children))
    if missing:
        return _awaiting(missing, observation, now)
    going = sorted(key for key in keys if mapping(observation.children[key], "metadata").get("deletionTimestamp"))
    if going:
        message = f"Being deleted, to be created again: {_listed(going)}."
        return Comparison(in_sync=False, reason=reasons.TERMINATING, message=message)
    for key, child in zip(keys, desired, strict=True):
        if key.kind == "ConfigMap" and route_of(observation.children[key]) != route_of(child):
            message = "The gateway is being given a new route."
            return Comparison(in_sync=False, reason=reasons.ROUTE_PENDING, message=message)
    return Comparison(in_sync=True, reason=reasons.IN_SYNC, message="The gateway has the present route.")


def _awaiting(missing: tuple[Key, ...], observation: Observation, now: datetime) -> Comparison:
    message = f"{_AWAITED}{_listed(missing)}."
    parent = observation.parent
    held = parent.held.get("Synced")
    if parent.deleting:  # Metacontroller creates nothing for a parent that is being deleted.
        return Comparison(in_sync=False, reason=reasons.CHILD_PENDING, message=message)
    if held is None or held.status != "False" or held.since is None:
        deadline = now.replace(microsecond=0) + CHILD_DEADLINE
        return Comparison(False, reasons.CHILD_PENDING, message, next_instant=deadline)
    deadline = min(held.since, now) + CHILD_DEADLINE
    if now < deadline:
        return Comparison(False, reasons.CHILD_PENDING, message, next_instant=deadline)
    awaited = held.message.removeprefix(_AWAITED).removesuffix(".").split(", ")
    conflicts = tuple(key for key in missing if held.reason == reasons.CHILD_PENDING and str(key) in awaited)
    return Comparison(False, reasons.CHILD_PENDING, message, conflicts=conflicts)


def _listed(keys: tuple[Key, ...] | list[Key]) -> str:
    return ", ".join(map(str, keys))
