"""How an object is kept in step with the platform: what is to be done there, when, and what is said of it.

What the platform has must be known without asking it at every sync, and hooks remember nothing: the memory is
`status.platform`. It holds the hash of what the platform took last, so nothing is sent while that is what is wanted;
and how often in a row an attempt failed, and when, so the next one comes after a delay that grows. Something else to
send is tried at once.

One thing is done in one sync. What is registered under a name that is no longer wanted is removed first.

| wanted | in memory | what is done |
| --- | --- | --- |
| nothing | nothing | nothing |
| nothing | a name | the name is removed |
| a name | another name | that one is removed, then this one registered |
| a name | nothing, or another hash | it is registered |
| a name | that name and hash | nothing; now and then it is looked whether it is there still, and ours |
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Final

from hooks import reasons
from hooks.kube.objects import Object
from hooks.kube.unstructured import text
from hooks.observation.conditions import Condition, condition_as_written
from hooks.observation.observation import Held, Parent
from hooks.platform.state import (
    CARRIED,
    DesiredObject,
    PlatformKey,
    PlatformKind,
    RegistrationState,
    carried_over,
    delay,
)

SOON: Final = 1.0
"""Seconds until something that need not wait for anything but this answer."""
FINAL_TRIES: Final = 5
"""Attempts to remove what belongs to an object that is being deleted."""
FINAL_TIME: Final = timedelta(minutes=5)
"""For which they are made at least. Then the object goes, and what it had stays on the platform."""
LONGEST_FINAL: Final = timedelta(minutes=10)
"""After which it goes in any case, even where nothing could be tried."""
REMOVAL: Final = "removal"
"""In the place of a hash: a removal was tried."""


@dataclass(frozen=True, slots=True)
class PlatformTask:
    """What is to be done on the platform now, on behalf of an object."""

    kind: str
    """Of the object."""
    parent: Parent
    memory: RegistrationState
    wanted: DesiredObject | None
    """What shall be there in the end; None: nothing."""
    removal: PlatformKey | None = None
    """What is to be removed; None: what is wanted is registered."""
    final: bool = False
    """Whether the object is being deleted, which it must be for a removal then."""
    check: bool = False
    """Whether it is there according to the memory: it is changed only where that is wrong."""
    expected: DesiredObject | None = None
    """What is there, as far as the object says, of what is to be removed."""

    @property
    def tried(self) -> str:
        """What an attempt is remembered by."""
        return REMOVAL if self.removal is not None or self.wanted is None else self.wanted.hash


@dataclass(frozen=True, slots=True)
class Registration:
    """How an object stands to the platform, and what is next."""

    condition: Condition
    memory: RegistrationState
    facts: Mapping[str, str]
    """What the platform says, under the names of status."""
    resync: float | None = None
    """Seconds until there may be something to do; None with a task, of which more is known when it has been tried."""
    task: PlatformTask | None = None
    """What there is to do now."""
    abandoned: PlatformKey | None = None
    """What stays on the platform although the object goes."""

    @property
    def fields(self) -> Object:
        """What status says of it besides the condition."""
        state = self.memory.as_json()
        return {**self.facts, **({"platform": state} if state else {})}


@dataclass(frozen=True, slots=True)
class Done:
    """The platform has what is wanted."""

    facts: Mapping[str, str] = field(default_factory=dict)
    owned: bool = True
    """False: it was there before, the same, and is left alone."""
    changed: bool = True
    """Whether anything was written."""


@dataclass(frozen=True, slots=True)
class Removed:
    """It is not there, or belongs to another object by now."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The object itself is no more, or another has its name: nothing was done on its behalf."""


@dataclass(frozen=True, slots=True)
class Postponed:
    """Nothing was done: the object is no longer as the request has it, or as much as may be is under way."""


@dataclass(frozen=True, slots=True)
class RegistrationFailed:
    """It could not be done."""

    reason: str
    message: str
    tried: bool = True
    """Whether it counts as an attempt."""
    sent: bool = False
    """Whether it may have been done nevertheless."""
    foreign: bool = False
    """Whether what is there under the name is known to be somebody else's."""
    retry_after: float | None = None
    """Seconds that the platform asks to wait, or until it is asked again at all."""


Outcome = Done | Removed | Gone | Postponed | RegistrationFailed

NO_ACCOUNT: Final = Condition(
    "Registered", "False", reasons.DISABLED, "Hooks have no token of the platform: nothing is registered there."
)
NOT_WANTED: Final = Condition(
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


def standing(
    kind: str,
    parent: Parent,
    wanted: DesiredObject | None,
    *,
    now: datetime,
    settled: bool = True,
    check: bool = False,
) -> Registration:
    """How an object stands that is in force, with what is to be done.

    Args:
        kind: of the object.
        parent: the object.
        wanted: what the platform shall have.
        now: the present.
        settled: whether everything in the cluster is as desired. Before it is, nothing is done elsewhere.
        check: whether it is time to look whether the memory is right.
    """
    memory = RegistrationState.of(_KINDS[kind], parent)
    facts = carried_over(parent)
    removal = memory.thing if memory.thing is not None and (wanted is None or memory.thing != wanted.thing) else None
    if removal is None and (wanted is None or memory.hash == wanted.hash):
        rest = replace(memory, tried="", attempts=0, since=None)
        look = (
            PlatformTask(kind, parent, memory, wanted, check=True) if wanted is not None and check and settled else None
        )
        return Registration(NOT_WANTED if wanted is None else UP_TO_DATE, rest, facts, task=look)
    task = PlatformTask(kind, parent, memory, wanted, removal)
    said = _said_before(parent.held.get("Registered"))
    if not settled:
        return Registration(said, memory, facts, SOON)
    wait = memory.wait(task.tried, parent.uid, now)
    if wait > 0:
        return Registration(said, memory, facts, wait)
    return Registration(said, memory, facts, task=task)


def undecided(kind: str, parent: Parent, *, account: str | None) -> Registration:
    """How an object stands of which it is not known what is wanted, or for which there is no account."""
    held = parent.held.get("Registered")
    said = NO_ACCOUNT
    if account is not None:
        said = _said(held) if held is not None and held.reason != reasons.DISABLED else NOT_ACCEPTED
    return Registration(said, RegistrationState.of(_KINDS[kind], parent), carried_over(parent))


def leaving(kind: str, parent: Parent, *, now: datetime, expected: DesiredObject | None = None) -> Registration:
    """How an object stands that is being deleted, with what is to be done; without a task and a resync it may go.

    Args:
        kind: of the object.
        parent: the object.
        now: the present.
        expected: what it wanted until now, for what cannot be recognized otherwise.
    """
    memory, held = RegistrationState.of(_KINDS[kind], parent), parent.held.get("Registered")
    said = AWAITED if held is None else _said(held)
    if memory.thing is None:
        return Registration(said, memory, carried_over(parent))
    task = PlatformTask(kind, parent, memory, None, memory.thing, final=True, expected=expected)
    if _lets_go(memory, parent, now):
        return _let_go(task, said)
    wait = memory.wait(task.tried, parent.uid, now)
    if wait > 0:
        return Registration(said, memory, carried_over(parent), wait)
    return Registration(said, memory, carried_over(parent), task=task)


def settle(task: PlatformTask, outcome: Outcome, *, now: datetime) -> Registration:
    """How an object stands after an attempt."""
    parent, memory = task.parent, task.memory
    if isinstance(outcome, RegistrationFailed):
        return _failed(task, outcome, now)
    match outcome:
        case Done(facts, owned, _) if task.wanted is not None:
            kept = RegistrationState(task.wanted.thing, task.wanted.hash) if owned else RegistrationState()
            # Where requests go may depend on the workspace.
            news = text(parent.status, "workspace") != facts.get("workspace", "")
            return Registration(UP_TO_DATE if owned else SHARED, kept, facts, SOON if news else None)
        case Done() | Removed():
            if task.wanted is None:
                return Registration(NOT_WANTED, RegistrationState(), {})
            return Registration(AWAITED, RegistrationState(), {}, SOON)
        case Gone() if task.final:
            return Registration(NOT_WANTED, RegistrationState(), {})
        case _:
            return Registration(_said_before(parent.held.get("Registered")), memory, carried_over(parent), SOON)


def _failed(task: PlatformTask, failure: RegistrationFailed, now: datetime) -> Registration:
    parent, memory = task.parent, task.memory
    said = Condition("Registered", "False", failure.reason, failure.message)
    if task.check and not failure.foreign:
        return Registration(UP_TO_DATE, memory, carried_over(parent))
    if failure.foreign:
        memory = replace(memory, thing=None, hash="")
    if failure.tried:
        memory = memory.failed(task.tried, now)
    if failure.sent:
        wanted = task.wanted if task.removal is None else None
        memory = replace(memory, thing=memory.thing if wanted is None else wanted.thing, hash="")
    if task.final and _lets_go(memory, parent, now):
        return _let_go(replace(task, memory=memory), said)
    wait = delay(memory.attempts if failure.tried else 1, parent.uid)
    return Registration(said, memory, carried_over(parent), max(wait, failure.retry_after or 0.0))


def applied(status: Object, registration: Registration, parent: Parent, *, now: datetime) -> Object:
    """A status with what it says of the platform replaced."""
    said = condition_as_written(registration.condition, parent, now)
    conditions = [said if one["type"] == said["type"] else one for one in status["conditions"]]
    rest = {key: value for key, value in status.items() if key not in (*CARRIED, "platform")}
    return {**rest, "conditions": conditions, **registration.fields}


def _lets_go(memory: RegistrationState, parent: Parent, now: datetime) -> bool:
    """Whether an object that is being deleted has waited for long enough."""
    if parent.deleting_since is None:
        return False
    waited = now - parent.deleting_since
    tries = memory.attempts if memory.tried == REMOVAL else 0
    return waited >= LONGEST_FINAL or (tries >= FINAL_TRIES and waited >= FINAL_TIME)


def _let_go(task: PlatformTask, said: Condition) -> Registration:
    begun = said.message.removesuffix(_LEFT)
    said = said._replace(message=f"{begun}{_LEFT}")
    return Registration(said, task.memory, carried_over(task.parent), abandoned=task.removal)


_LEFT: Final = " It was tried for long enough: it stays there, remove it by hand."


def _said(held: Held) -> Condition:
    return Condition("Registered", held.status, held.reason, held.message)


def _said_before(held: Held | None) -> Condition:
    """What was said of the last attempt; what is true while there is none yet."""
    return AWAITED if held is None or held.reason in (reasons.DISABLED, reasons.NOT_EVALUATED) else _said(held)


_KINDS: Final[Mapping[str, PlatformKind]] = {"ModelDeployment": "models", "Policy": "policies"}
"""What an object of each kind is on the platform."""
