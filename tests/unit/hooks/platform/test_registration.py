"""Registration with the platform: which task is due, when, and what the condition Registered says."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks import reasons
from hooks.api.common import PlatformState
from hooks.observation.observation import Parent
from hooks.platform import registration
from hooks.platform.outcomes import Gone, Outcome, Postponed, Registered, RegistrationFailed, Removed
from hooks.platform.registration import SOON, PlatformTask, Registration, after, plan, plan_removal, unchanged
from hooks.platform.state import (
    FIRST_DELAY,
    JITTER,
    LONGEST_DELAY,
    DesiredObject,
    PlatformKey,
    RegistrationState,
    delay,
)
from tests.builders import NOW, Json, model_deployment
from tests.structural import crd_schema, problems, pruned

KIND = "ModelDeployment"
EMPTY = RegistrationState()
KEY = PlatformKey("models", "llama", "production")
OTHER = PlatformKey("models", "other", "production")
DESIRED = DesiredObject.of(KEY, {"metadata": {"name": "llama"}, "spec": {}}, "us")
FIELDS = {"workspace": "acme", "createdAtOnBeamlit": "2026-02-01T00:00:00Z"}
DOWN = RegistrationFailed(reasons.UNREACHABLE, "It does not respond.")


def parent(state: RegistrationState = EMPTY, *, condition: tuple[str, str, str] | None = None, **status: Any) -> Parent:
    """Return a ModelDeployment with this state and this condition Registered in its status."""
    conditions = [] if condition is None else [dict(zip(("status", "reason", "message"), condition, strict=True))]
    held = [one | {"type": "Registered", "lastTransitionTime": "2026-03-01T11:00:00Z"} for one in conditions]
    return Parent.of(model_deployment(status={"platform": state.as_json(), "conditions": held, **status}))


def going(state: RegistrationState, minutes: float, **rest: Any) -> Parent:
    """Return a ModelDeployment that has been marked for deletion for this many minutes."""
    return replace(parent(state, **rest), deleting_since=NOW - timedelta(minutes=minutes))


def has(key: PlatformKey = KEY, hash_: str = DESIRED.hash, **rest: Any) -> RegistrationState:
    """Return the state in which the platform has an object."""
    return RegistrationState(key, hash_, **rest)


def task_of(result: Registration) -> PlatformTask:
    """Return the task of a registration that has one."""
    assert result.task is not None
    assert result.resync is None
    return result.task


@pytest.mark.parametrize(
    ("state", "desired", "removal", "registers"),
    [
        (RegistrationState(), None, None, False),
        (has(), None, KEY, False),
        (has(OTHER), DESIRED, OTHER, False),
        (RegistrationState(), DESIRED, None, True),
        (has(hash_=""), DESIRED, None, True),
        (has(hash_="another"), DESIRED, None, True),
        (has(), DESIRED, None, False),
    ],
)
def test_due_task(
    state: RegistrationState, desired: DesiredObject | None, removal: PlatformKey | None, registers: bool
) -> None:
    """The due task is the one that the table of the module names."""
    result = plan(KIND, parent(state), desired, now=NOW)
    if removal is None and not registers:
        assert (result.task, result.resync) == (None, None)
        assert result.condition == (registration.NOT_DESIRED if desired is None else registration.UP_TO_DATE)
    else:
        task = task_of(result)
        assert (task.removal, task.desired) == (removal, desired)


def test_not_before_the_cluster_is_settled() -> None:
    """No task is due before the cluster is settled; one that is at rest does not wait for it."""
    result = plan(KIND, parent(), DESIRED, now=NOW, settled=False)
    assert (result.task, result.resync, result.condition) == (None, SOON, registration.AWAITED)
    assert plan(KIND, parent(has()), DESIRED, now=NOW, settled=False).resync is None


def test_a_failure_delays_the_next_attempt() -> None:
    """After a failure the condition stays and the next attempt waits for the rest of the delay."""
    state = RegistrationState().with_failure(DESIRED.hash, NOW)
    condition = ("False", reasons.UNREACHABLE, "It does not respond.")
    result = plan(KIND, parent(state, condition=condition), DESIRED, now=NOW + timedelta(seconds=2))
    assert result.task is None
    assert result.resync == pytest.approx(delay(1, parent().uid) - 2)
    assert result.condition[1:] == condition
    assert result.state == state
    task_of(plan(KIND, parent(state), DESIRED, now=NOW + timedelta(seconds=7)))


def test_something_else_is_tried_at_once() -> None:
    """After failures, another body and a removal are attempted at once, and are counted from one."""
    state = RegistrationState(KEY, "", "another", 9, NOW)
    task_of(plan(KIND, parent(state), DESIRED, now=NOW))
    task_of(plan(KIND, parent(state), None, now=NOW))
    assert after(task_of(plan(KIND, parent(state), None, now=NOW)), DOWN, now=NOW).state.attempts == 1


def test_a_clock_that_was_ahead() -> None:
    """The time of a failure that is in the future, because a clock was ahead, counts as now."""
    state = RegistrationState().with_failure(DESIRED.hash, NOW + timedelta(hours=1))
    result = plan(KIND, parent(state), DESIRED, now=NOW)
    assert result.resync == delay(1, parent().uid)


@given(st.integers(1, 10**6), st.text(max_size=20))
def test_delays(attempts: int, uid: str) -> None:
    """Delays double up to the longest one, and differ between objects by a fifth at most."""
    seconds = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempts - 1, 30))
    assert seconds * (1 - JITTER) - 0.01 <= delay(attempts, uid) <= seconds * (1 + JITTER) + 0.01
    assert delay(attempts, uid) <= delay(attempts + 1, uid)


OUTCOMES = st.sampled_from(
    [
        Registered(FIELDS),
        Registered({}, owned=False),
        Removed(),
        Gone(),
        Postponed(),
        DOWN,
        RegistrationFailed(reasons.UNREACHABLE, "x", sent=True),
        RegistrationFailed(reasons.REJECTED, "y"),
        RegistrationFailed(reasons.UNREACHABLE, "x", tried=False, retry_after=20.0),
    ]
)
STEPS = st.lists(st.tuples(OUTCOMES, st.sampled_from([None, "a", "b", "c"]), st.integers(0, 700)), max_size=30)


@given(STEPS)
def test_whatever_happens_it_comes_to_rest(steps: list[tuple[Outcome, str | None, int]]) -> None:
    """After any history, a platform that responds has the desired object and no other within a few syncs.

    On the way the state fits the schema of the CustomResourceDefinition, and names whatever the platform has.
    """
    registered: set[PlatformKey] = set()
    state: Json = {}
    now = NOW

    def turn(outcome: Outcome | None, name: str | None) -> bool:
        nonlocal state
        key = None if name is None else PlatformKey("models", name, "production")
        desired = None if key is None else DesiredObject.of(key, {"name": name}, "us")
        item = Parent.of(model_deployment(status=state))
        result = plan(KIND, item, desired, now=now)
        if result.task is None:
            state = dict(result.status_fields)
            return result.resync is None
        task = result.task
        success: Outcome = Removed() if task.removal is not None else Registered(FIELDS)
        actual = outcome or success
        if isinstance(actual, Registered | Removed):
            actual = success
        is_done = actual is success or (isinstance(actual, RegistrationFailed) and actual.sent)
        if is_done and task.removal is not None:
            registered.discard(task.removal)
        elif is_done and task.desired is not None:
            registered.add(task.desired.key)
        state = dict(after(task, actual, now=now).status_fields)
        return False

    for outcome, name, seconds in steps:
        turn(outcome, name)
        known = RegistrationState.of("models", Parent.of(model_deployment(status=state))).key
        assert registered <= {known}
        schema = crd_schema("modeldeployments")["properties"]["status"]
        assert problems(schema, state) == []
        assert pruned(schema, state) == state
        PlatformState.model_validate(state.get("platform", {}))
        now += timedelta(seconds=seconds)
    for desired in (steps[-1][1] if steps else None, None):
        for _ in range(4):
            now += timedelta(hours=1)
            if turn(None, desired):
                break
        assert registered == (set() if desired is None else {PlatformKey("models", desired, "production")})


@given(st.dictionaries(st.sampled_from(["name", "environment", "hash", "tried", "attempts", "since"]),
                       st.none() | st.text(max_size=5) | st.integers() | st.lists(st.none(), max_size=1)))  # fmt: skip
def test_state_that_a_user_wrote(state: Json) -> None:
    """A state that a user wrote raises no error: values of a wrong type count as absent."""
    item = Parent.of(model_deployment(status={"platform": state}))
    plan(KIND, item, DESIRED, now=NOW)
    plan_removal(KIND, item, now=NOW)
    result = RegistrationState.of("models", item)
    assert 0 <= result.attempts <= 10**6


def test_after_a_registration() -> None:
    """After a registration the state has the hash and status the new fields; a new workspace brings another sync."""
    task = task_of(plan(KIND, parent(), DESIRED, now=NOW))
    result = after(task, Registered(FIELDS), now=NOW)
    assert (result.condition, result.state, result.resync) == (registration.UP_TO_DATE, has(), SOON)
    assert result.status_fields == {**FIELDS, "platform": has().as_json()}
    task = task_of(plan(KIND, parent(workspace="acme", updatedAtOnBeamlit="2026-01-01T00:00:00Z"), DESIRED, now=NOW))
    result = after(task, Registered(FIELDS), now=NOW)
    assert (result.resync, result.platform_fields) == (None, FIELDS)


def test_equal_object_of_another_client() -> None:
    """An equal object that another client made is not recorded as registered by hooks."""
    task = task_of(plan(KIND, parent(), DESIRED, now=NOW))
    result = after(task, Registered({}, owned=False), now=NOW)
    assert (result.condition, result.state, result.status_fields) == (registration.SHARED, RegistrationState(), {})


@pytest.mark.parametrize("condition", [None, ("False", reasons.DISABLED, "x"), ("Unknown", reasons.NOT_EVALUATED, "x")])
def test_condition_before_an_attempt(condition: tuple[str, str, str] | None) -> None:
    """A condition from before there was a task is not kept while a task is due."""
    result = plan(KIND, parent(condition=condition), DESIRED, now=NOW)
    assert result.condition == registration.AWAITED
    assert after(task_of(result), Postponed(), now=NOW).condition == registration.AWAITED


def test_after_a_postponed_attempt() -> None:
    """After a postponed attempt nothing changes, and the next sync comes soon."""
    condition = ("False", reasons.REJECTED, "no")
    item = parent(has(hash_="old"), condition=condition, workspace="acme")
    task = task_of(plan(KIND, item, DESIRED, now=NOW))
    for outcome in (Postponed(), Gone()):
        result = after(task, outcome, now=NOW)
        assert (result.condition[1:], result.state, result.resync) == (condition, task.state, SOON)
        assert result.platform_fields == {"workspace": "acme"}


def test_after_a_removal() -> None:
    """After a removal the state is empty, and a desired object is registered in the next sync."""
    task = task_of(plan(KIND, parent(has(OTHER), workspace="acme"), DESIRED, now=NOW))
    result = after(task, Removed(), now=NOW)
    assert (result.condition, result.status_fields, result.resync) == (registration.AWAITED, {}, SOON)
    task = task_of(plan(KIND, parent(has()), None, now=NOW))
    result = after(task, Removed(), now=NOW)
    assert (result.condition, result.status_fields, result.resync) == (registration.NOT_DESIRED, {}, None)


def test_after_a_failure() -> None:
    """A failure becomes the condition and is counted; the fields that the platform chose stay."""
    task = task_of(plan(KIND, parent(has(hash_="old"), workspace="acme"), DESIRED, now=NOW))
    result = after(task, DOWN, now=NOW + timedelta(microseconds=9))
    assert result.condition == ("Registered", "False", reasons.UNREACHABLE, "It does not respond.")
    assert result.state == RegistrationState(KEY, "old", DESIRED.hash, 1, NOW)
    assert (result.platform_fields, result.resync) == ({"workspace": "acme"}, delay(1, parent().uid))
    assert after(task, RegistrationFailed("R", "m", retry_after=99.0), now=NOW).resync == 99
    assert after(task, RegistrationFailed("R", "m", sent=True), now=NOW).state.hash == ""


@pytest.mark.parametrize("foreign", [False, True])
def test_after_a_conflict(foreign: bool) -> None:
    """After a conflict with another owner no object is recorded; any other failure leaves the recorded object."""
    task = task_of(plan(KIND, parent(has(hash_="old")), DESIRED, now=NOW))
    result = after(task, RegistrationFailed(reasons.CONFLICT, "x", foreign=foreign), now=NOW)
    assert result.state.key == (None if foreign else KEY)


def test_failure_before_any_attempt() -> None:
    """A failure before any attempt becomes the condition and is not counted."""
    state = RegistrationState().with_failure(DESIRED.hash, NOW - timedelta(seconds=60))
    task = task_of(plan(KIND, parent(state), DESIRED, now=NOW))
    result = after(task, RegistrationFailed(reasons.UNREACHABLE, "x", tried=False, retry_after=3.0), now=NOW)
    assert (result.state, result.resync) == (state, delay(1, parent().uid))


def test_recheck() -> None:
    """A recheck is due when its time has come, the cluster is settled and an object is registered."""
    assert plan(KIND, parent(), None, now=NOW, recheck=True).task is None
    assert plan(KIND, parent(has()), DESIRED, now=NOW, recheck=True, settled=False).task is None
    task = task_of(plan(KIND, parent(has(), workspace="acme"), DESIRED, now=NOW, recheck=True))
    assert task.recheck
    result = after(task, Registered(FIELDS, changed=False), now=NOW)
    assert (result.condition, result.state, result.platform_fields) == (registration.UP_TO_DATE, has(), FIELDS)
    result = after(task, DOWN, now=NOW)
    assert (result.condition, result.state, result.resync) == (registration.UP_TO_DATE, has(), None)
    assert result.platform_fields == {"workspace": "acme"}
    assert after(task, RegistrationFailed(reasons.CONFLICT, "Taken."), now=NOW).condition == registration.UP_TO_DATE
    result = after(task, RegistrationFailed(reasons.CONFLICT, "Taken.", foreign=True), now=NOW)
    assert (result.condition.reason, result.state.key, result.state.attempts) == (reasons.CONFLICT, None, 1)
    assert not task_of(plan(KIND, parent(RegistrationState()), DESIRED, now=NOW, recheck=True)).recheck


def test_unchanged_without_account() -> None:
    """Without an account the condition says so, and the state is kept for when there is one again."""
    item = parent(has(), condition=("True", reasons.UP_TO_DATE, "x"), workspace="acme")
    result = unchanged(KIND, item, account=None)
    assert result.condition == registration.NO_ACCOUNT
    assert (result.status_fields, result.task, result.resync) == (
        {"workspace": "acme", "platform": has().as_json()},
        None,
        None,
    )


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (None, ("Unknown", reasons.NOT_EVALUATED)),
        (("False", reasons.DISABLED, "x"), ("Unknown", reasons.NOT_EVALUATED)),
        (("True", reasons.UP_TO_DATE, "x"), ("True", reasons.UP_TO_DATE)),
    ],
)
def test_unchanged_keeps_the_condition(condition: tuple[str, str, str] | None, expected: tuple[str, str]) -> None:
    """The condition of a specification that is not in force stays as it was."""
    assert unchanged(KIND, parent(condition=condition), account="us").condition[1:3] == expected


def test_removal_without_a_registration() -> None:
    """A deletion without a registration waits for nothing."""
    result = plan_removal(KIND, going(RegistrationState(), 0), now=NOW)
    assert (result.task, result.resync, result.condition) == (None, None, registration.AWAITED)


def test_removal() -> None:
    """A deletion waits until the registered object is removed."""
    task = task_of(plan_removal(KIND, going(has(), 0), now=NOW))
    assert (task.removal, task.final, task.tried) == (KEY, True, registration.REMOVAL)
    for outcome in (Removed(), Gone()):
        result = after(task, outcome, now=NOW)
        assert (result.resync, result.task, result.state) == (None, None, RegistrationState())
    assert after(task, Postponed(), now=NOW).resync == SOON


def test_what_failed_before_does_not_delay_the_removal() -> None:
    """Failed registrations do not delay the removal, which is attempted at once and counted from one."""
    state = has(hash_="", tried="x", attempts=30, since=NOW)
    task = task_of(plan_removal(KIND, going(state, 6), now=NOW))
    assert after(task, DOWN, now=NOW).state.attempts == 1


@pytest.mark.parametrize(
    ("attempts", "minutes", "goes"),
    [(4, 4.9, False), (4, 5, True), (3, 5, False), (4, 0, False), (0, 9.9, False), (0, 10, True), (30, 60, True)],
)
def test_removal_is_bounded(attempts: int, minutes: float, goes: bool) -> None:
    """After five attempts and five minutes, or ten minutes in any case, the object is abandoned."""
    state = has(hash_="", tried=registration.REMOVAL, attempts=attempts, since=NOW - timedelta(hours=1))
    item = going(state, minutes, condition=("False", reasons.UNREACHABLE, "Down."))
    result = plan_removal(KIND, item, now=NOW)
    if result.task is not None:
        result = after(result.task, RegistrationFailed(reasons.UNREACHABLE, "Down."), now=NOW)
    assert (result.resync is None) is goes
    assert (result.condition.message == f"Down.{registration._ABANDONED}") is goes
    assert result.condition.reason == reasons.UNREACHABLE


def test_abandoning_is_idempotent() -> None:
    """An abandoned object gives the same condition when finalize is called again."""
    state = has(hash_="", tried=registration.REMOVAL, attempts=9, since=NOW)
    first = plan_removal(KIND, going(state, 30, condition=("False", reasons.UNREACHABLE, "Down.")), now=NOW)
    again = plan_removal(KIND, going(state, 30, condition=first.condition[1:]), now=NOW)
    assert again.condition == first.condition


def test_removal_waits_between_two_attempts() -> None:
    """A removal waits between two attempts; without a time of deletion it is never abandoned."""
    state = has(tried=registration.REMOVAL, attempts=1, since=NOW)
    assert plan_removal(KIND, going(state, 1), now=NOW).resync == delay(1, parent().uid)
    forever = has(tried=registration.REMOVAL, attempts=99, since=NOW - timedelta(days=1))
    task_of(plan_removal(KIND, parent(forever), now=NOW))


def test_hash_depends_on_the_account() -> None:
    """The hash depends on the account, for another account was sent nothing."""
    assert (
        DesiredObject.of(KEY, DESIRED.body, "them").hash
        != DESIRED.hash
        == DesiredObject.of(KEY, dict(DESIRED.body), "us").hash
    )


def test_keys_in_messages() -> None:
    """A key is written as messages have it: kind, name and environment."""
    assert str(KEY) == "model llama in environment production"
    assert str(PlatformKey("policies", "eu")) == "policy eu"
