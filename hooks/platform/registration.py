"""Registration of an object with the platform: which task is due there, when, and what the condition Registered says.

What the platform has must be known without asking it at every sync, and hooks keep nothing in memory: the record is
`status.platform`. It holds the hash of the body that the platform accepted last, so nothing is sent while that body is
the desired one. It also holds how many attempts failed in a row and when, so that the next one waits for a delay that
grows. An attempt with another body is made at once.

A sync carries out one task at most. An object that is registered under a name that is no longer desired is removed
first.

| desired | in status.platform | task |
| --- | --- | --- |
| nothing | nothing | none |
| nothing | a name | remove that name |
| a name | another name | remove the other name; register the desired one in the next sync |
| a name | nothing, or another hash | register |
| a name | that name and hash | none; from time to time, a recheck that it is still there and still ours |
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Final

from hooks import reasons
from hooks.kube.objects import Object
from hooks.kube.unstructured import text
from hooks.observation.conditions import Condition
from hooks.observation.observation import Held, Parent
from hooks.platform.outcomes import Gone, Outcome, Registered, RegistrationFailed, Removed
from hooks.platform.state import DesiredObject, PlatformKey, PlatformKind, RegistrationState, delay, platform_fields

SOON: Final = 1.0
"""Seconds until the next sync when its task only has to wait for the response to this one."""
FINAL_TRIES: Final = 5
"""Attempts to remove the registration of an object that is being deleted, before it may go without a removal."""
FINAL_TIME: Final = timedelta(minutes=5)
"""Least time for which the removal is attempted. After it, what the object registered stays on the platform."""
LONGEST_FINAL: Final = timedelta(minutes=10)
"""Most time for which a deletion waits, even when the removal could not be attempted."""
REMOVAL: Final = "removal"
"""Value of `status.platform.tried` when the failed attempts were removals."""


@dataclass(frozen=True, slots=True)
class PlatformTask:
    """One change to make, or recheck, on the platform on behalf of a Kubernetes object."""

    kind: str
    """Kind of the Kubernetes object."""
    parent: Parent
    state: RegistrationState
    """State before the task is carried out."""
    desired: DesiredObject | None
    """Object that the platform should have in the end; None when it should have none."""
    removal: PlatformKey | None = None
    """Object to remove; None when the desired one is to be registered."""
    final: bool = False
    """Whether the Kubernetes object is being deleted. The removal is refused when it is not."""
    recheck: bool = False
    """Whether the state says that the desired object is there, so that it is written only where the state is wrong."""
    expected: DesiredObject | None = None
    """Object to remove as the Kubernetes object specifies it, for kinds that carry no label of their owner."""

    @property
    def tried(self) -> str:
        """Value of `status.platform.tried` by which an attempt at this task is recognized."""
        return REMOVAL if self.removal is not None or self.desired is None else self.desired.hash


@dataclass(frozen=True, slots=True)
class Registration:
    """Relation of a Kubernetes object to the platform, and the task that is due, if any."""

    condition: Condition
    """Condition Registered."""
    state: RegistrationState
    platform_fields: Mapping[str, str]
    """Values that the platform chose, by the field of status that shows them."""
    resync: float | None = None
    """Seconds until there may be a task; None with a task, whose outcome decides about the next one."""
    task: PlatformTask | None = None
    """Task to carry out before the response is given."""
    abandoned: PlatformKey | None = None
    """Object that stays on the platform although its owner is deleted."""

    @property
    def is_at_rest(self) -> bool:
        """Whether there is nothing to do on the platform, now or later."""
        return self.task is None and self.resync is None

    @property
    def status_fields(self) -> Object:
        """Fields of status about the platform, besides the condition."""
        state = self.state.as_json()
        return {**self.platform_fields, **({"platform": state} if state else {})}


NO_ACCOUNT: Final = Condition(
    "Registered", "False", reasons.DISABLED, "Hooks have no token of the platform: nothing is registered there."
)
NOT_DESIRED: Final = Condition(
    "Registered", "False", reasons.DISABLED, "spec.enabled is false: the model is not registered with the platform."
)
UP_TO_DATE: Final = Condition("Registered", "True", reasons.UP_TO_DATE, "The platform has it as it is specified.")
SHARED: Final = Condition(
    "Registered",
    "True",
    reasons.UP_TO_DATE,
    "The platform had it already as it is specified, from elsewhere: it is left there when this object is deleted.",
)
AWAITED: Final = Condition(
    "Registered", "Unknown", reasons.NOT_EVALUATED, "It is registered once everything in the cluster is as desired."
)
NOT_ACCEPTED: Final = Condition(
    "Registered", "Unknown", reasons.NOT_EVALUATED, "Not evaluated before the specification is accepted."
)


def plan(
    kind: str,
    parent: Parent,
    desired: DesiredObject | None,
    *,
    now: datetime,
    settled: bool = True,
    recheck: bool = False,
) -> Registration:
    """Return the registration of an object whose specification is in force, with the task that is due.

    Args:
        kind: kind of the Kubernetes object.
        parent: the Kubernetes object.
        desired: the object that the platform should have; None when it should have none.
        now: the present.
        settled: whether the children in the cluster are as desired. Until they are, no task is due.
        recheck: whether a recheck of the platform is due.
    """
    state = RegistrationState.of(_PLATFORM_KINDS[kind], parent)
    fields = platform_fields(parent)
    removal = state.key if state.key is not None and (desired is None or state.key != desired.key) else None
    if removal is None and (desired is None or state.hash == desired.hash):
        rest = replace(state, tried="", attempts=0, since=None)
        if desired is None:
            return Registration(NOT_DESIRED, rest, fields)
        task = PlatformTask(kind, parent, state, desired, recheck=True) if recheck and settled else None
        return Registration(UP_TO_DATE, rest, fields, task=task)
    task = PlatformTask(kind, parent, state, desired, removal)
    condition = _condition_of_last_attempt(parent)
    if not settled:
        return Registration(condition, state, fields, SOON)
    wait = state.seconds_until_retry(task.tried, parent.uid, now)
    if wait > 0:
        return Registration(condition, state, fields, wait)
    return Registration(condition, state, fields, task=task)


def unchanged(kind: str, parent: Parent, *, account: str | None) -> Registration:
    """Return the registration of an object whose desired state is not known, or for which there is no account."""
    held = parent.held.get("Registered")
    condition = NO_ACCOUNT
    if account is not None:
        condition = _condition(held) if held is not None and held.reason != reasons.DISABLED else NOT_ACCEPTED
    return Registration(condition, RegistrationState.of(_PLATFORM_KINDS[kind], parent), platform_fields(parent))


def plan_removal(kind: str, parent: Parent, *, now: datetime, expected: DesiredObject | None = None) -> Registration:
    """Return the registration of an object that is being deleted. Once it is at rest, the object may go.

    Args:
        kind: kind of the Kubernetes object.
        parent: the Kubernetes object.
        now: the present.
        expected: the object that the platform should have had until now, for kinds that carry no label of their owner.
    """
    state, held = RegistrationState.of(_PLATFORM_KINDS[kind], parent), parent.held.get("Registered")
    fields = platform_fields(parent)
    condition = AWAITED if held is None else _condition(held)
    if state.key is None:
        return Registration(condition, state, fields)
    task = PlatformTask(kind, parent, state, None, state.key, final=True, expected=expected)
    if _may_abandon(state, parent, now):
        return _abandoned(task, condition)
    wait = state.seconds_until_retry(task.tried, parent.uid, now)
    if wait > 0:
        return Registration(condition, state, fields, wait)
    return Registration(condition, state, fields, task=task)


def after(task: PlatformTask, outcome: Outcome, *, now: datetime) -> Registration:
    """Return the registration after an attempt at its task."""
    parent = task.parent
    if isinstance(outcome, RegistrationFailed):
        return _after_failure(task, outcome, now)
    match outcome:
        case Registered(fields, owned, _) if task.desired is not None:
            state = RegistrationState(task.desired.key, task.desired.hash) if owned else RegistrationState()
            # The path to the remote backend may depend on the workspace, so another one calls for another sync.
            is_news = text(parent.status, "workspace") != fields.get("workspace", "")
            return Registration(UP_TO_DATE if owned else SHARED, state, fields, SOON if is_news else None)
        case Registered() | Removed():
            if task.desired is None:
                return Registration(NOT_DESIRED, RegistrationState(), {})
            return Registration(AWAITED, RegistrationState(), {}, SOON)
        case Gone() if task.final:
            return Registration(NOT_DESIRED, RegistrationState(), {})
        case _:
            return Registration(_condition_of_last_attempt(parent), task.state, platform_fields(parent), SOON)


def _after_failure(task: PlatformTask, failure: RegistrationFailed, now: datetime) -> Registration:
    parent, state = task.parent, task.state
    condition = Condition("Registered", "False", failure.reason, failure.message)
    if task.recheck and not failure.foreign:
        return Registration(UP_TO_DATE, state, platform_fields(parent))
    if failure.foreign:
        state = replace(state, key=None, hash="")
    if failure.tried:
        state = state.with_failure(task.tried, now)
    if failure.sent:
        desired = task.desired if task.removal is None else None
        state = replace(state, key=state.key if desired is None else desired.key, hash="")
    if task.final and _may_abandon(state, parent, now):
        return _abandoned(replace(task, state=state), condition)
    wait = delay(state.attempts if failure.tried else 1, parent.uid)
    return Registration(condition, state, platform_fields(parent), max(wait, failure.retry_after or 0.0))


def _may_abandon(state: RegistrationState, parent: Parent, now: datetime) -> bool:
    """Return whether a deletion has waited for its removal for long enough."""
    if parent.deleting_since is None:
        return False
    waited = now - parent.deleting_since
    tries = state.attempts if state.tried == REMOVAL else 0
    return waited >= LONGEST_FINAL or (tries >= FINAL_TRIES and waited >= FINAL_TIME)


def _abandoned(task: PlatformTask, condition: Condition) -> Registration:
    message = f"{condition.message.removesuffix(_ABANDONED)}{_ABANDONED}"
    fields = platform_fields(task.parent)
    return Registration(condition._replace(message=message), task.state, fields, abandoned=task.removal)


_ABANDONED: Final = " It was tried for long enough: it stays there, remove it by hand."


def _condition(held: Held) -> Condition:
    return Condition("Registered", held.status, held.reason, held.message)


def _condition_of_last_attempt(parent: Parent) -> Condition:
    """Return the condition that the last attempt left in status, or AWAITED when there was none yet."""
    held = parent.held.get("Registered")
    return AWAITED if held is None or held.reason in (reasons.DISABLED, reasons.NOT_EVALUATED) else _condition(held)


_PLATFORM_KINDS: Final[Mapping[str, PlatformKind]] = {"ModelDeployment": "models", "Policy": "policies"}
"""Collection of the platform's API for each kind of Kubernetes object."""
