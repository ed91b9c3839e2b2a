"""What is to be done on the platform, when, and what is said of it."""

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
from hooks.platform.registration import (
    SOON,
    Done,
    Gone,
    Outcome,
    PlatformTask,
    Postponed,
    Registration,
    RegistrationFailed,
    Removed,
    leaving,
    settle,
    standing,
    undecided,
)
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
THING = PlatformKey("models", "llama", "production")
OTHER = PlatformKey("models", "other", "production")
WANTED = DesiredObject.of(THING, {"metadata": {"name": "llama"}, "spec": {}}, "us")
FACTS = {"workspace": "acme", "createdAtOnBeamlit": "2026-02-01T00:00:00Z"}
DOWN = RegistrationFailed(reasons.UNREACHABLE, "It does not answer.")


def parent(memory: RegistrationState = EMPTY, *, said: tuple[str, str, str] | None = None, **status: Any) -> Parent:
    """A ModelDeployment that remembers so."""
    conditions = [] if said is None else [dict(zip(("status", "reason", "message"), said, strict=True))]
    held = [one | {"type": "Registered", "lastTransitionTime": "2026-03-01T11:00:00Z"} for one in conditions]
    return Parent.of(model_deployment(status={"platform": memory.as_json(), "conditions": held, **status}))


def going(memory: RegistrationState, minutes: float, **rest: Any) -> Parent:
    """One that has been on its way out for so long."""
    return replace(parent(memory, **rest), deleting_since=NOW - timedelta(minutes=minutes))


def has(thing: PlatformKey = THING, hash_: str = WANTED.hash, **rest: Any) -> RegistrationState:
    """A memory of what is there."""
    return RegistrationState(thing, hash_, **rest)


def task_of(found: Registration) -> PlatformTask:
    """What there is to do."""
    assert found.task is not None
    assert found.resync is None
    return found.task


@pytest.mark.parametrize(
    ("memory", "wanted", "removal", "registers"),
    [
        (RegistrationState(), None, None, False),
        (has(), None, THING, False),
        (has(OTHER), WANTED, OTHER, False),
        (RegistrationState(), WANTED, None, True),
        (has(hash_=""), WANTED, None, True),
        (has(hash_="another"), WANTED, None, True),
        (has(), WANTED, None, False),
    ],
)
def test_what_is_done(
    memory: RegistrationState, wanted: DesiredObject | None, removal: PlatformKey | None, registers: bool
) -> None:
    """The table of the module."""
    found = standing(KIND, parent(memory), wanted, now=NOW)
    if removal is None and not registers:
        assert (found.task, found.resync) == (None, None)
        assert found.condition == (registration.NOT_WANTED if wanted is None else registration.UP_TO_DATE)
    else:
        task = task_of(found)
        assert (task.removal, task.wanted) == (removal, wanted)


def test_not_before_the_cluster_is_settled() -> None:
    """Then soon; where there is nothing to do it does not matter."""
    found = standing(KIND, parent(), WANTED, now=NOW, settled=False)
    assert (found.task, found.resync, found.condition) == (None, SOON, registration.AWAITED)
    assert standing(KIND, parent(has()), WANTED, now=NOW, settled=False).resync is None


def test_a_failure_delays_the_next_attempt() -> None:
    """Until then what was said stays, and the rest of the delay is told."""
    memory = RegistrationState().failed(WANTED.hash, NOW)
    said = ("False", reasons.UNREACHABLE, "It does not answer.")
    found = standing(KIND, parent(memory, said=said), WANTED, now=NOW + timedelta(seconds=2))
    assert found.task is None
    assert found.resync == pytest.approx(delay(1, parent().uid) - 2)
    assert found.condition[1:] == said
    assert found.memory == memory
    task_of(standing(KIND, parent(memory), WANTED, now=NOW + timedelta(seconds=7)))


def test_something_else_is_tried_at_once() -> None:
    """Another hash, or a removal."""
    memory = RegistrationState(THING, "", "another", 9, NOW)
    task_of(standing(KIND, parent(memory), WANTED, now=NOW))
    task_of(standing(KIND, parent(memory), None, now=NOW))
    assert settle(task_of(standing(KIND, parent(memory), None, now=NOW)), DOWN, now=NOW).memory.attempts == 1


def test_a_clock_that_was_ahead() -> None:
    """An attempt in the future was one of now."""
    memory = RegistrationState().failed(WANTED.hash, NOW + timedelta(hours=1))
    found = standing(KIND, parent(memory), WANTED, now=NOW)
    assert found.resync == delay(1, parent().uid)


@given(st.integers(1, 10**6), st.text(max_size=20))
def test_delays(attempts: int, uid: str) -> None:
    """They grow up to the longest one, and differ by a fifth at most."""
    seconds = min(LONGEST_DELAY, FIRST_DELAY * 2 ** min(attempts - 1, 30))
    assert seconds * (1 - JITTER) - 0.01 <= delay(attempts, uid) <= seconds * (1 + JITTER) + 0.01
    assert delay(attempts, uid) <= delay(attempts + 1, uid)


OUTCOMES = st.sampled_from(
    [
        Done(FACTS),
        Done({}, owned=False),
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
    """After any history, a platform that answers has what is wanted within a few syncs, and nothing that is not; the
    memory is one that the schema takes, and never forgets what is there."""
    there: set[PlatformKey] = set()
    state: Json = {}
    now = NOW

    def turn(outcome: Outcome | None, name: str | None) -> bool:
        nonlocal state
        thing = None if name is None else PlatformKey("models", name, "production")
        wanted = None if thing is None else DesiredObject.of(thing, {"name": name}, "us")
        item = Parent.of(model_deployment(status=state))
        found = standing(KIND, item, wanted, now=now)
        if found.task is None:
            state = dict(found.fields)
            return found.resync is None
        task = found.task
        success: Outcome = Removed() if task.removal is not None else Done(FACTS)
        came = outcome or success
        if isinstance(came, Done | Removed):
            came = success
        is_done = came is success or (isinstance(came, RegistrationFailed) and came.sent)
        if is_done and task.removal is not None:
            there.discard(task.removal)
        elif is_done and task.wanted is not None:
            there.add(task.wanted.thing)
        state = dict(settle(task, came, now=now).fields)
        return False

    for outcome, name, seconds in steps:
        turn(outcome, name)
        known = RegistrationState.of("models", Parent.of(model_deployment(status=state))).thing
        assert there <= {known}
        schema = crd_schema("modeldeployments")["properties"]["status"]
        assert problems(schema, state) == []
        assert pruned(schema, state) == state
        PlatformState.model_validate(state.get("platform", {}))
        now += timedelta(seconds=seconds)
    for wanted in (steps[-1][1] if steps else None, None):
        for _ in range(4):
            now += timedelta(hours=1)
            if turn(None, wanted):
                break
        assert there == (set() if wanted is None else {PlatformKey("models", wanted, "production")})


@given(st.dictionaries(st.sampled_from(["name", "environment", "hash", "tried", "attempts", "since"]),
                       st.none() | st.text(max_size=5) | st.integers() | st.lists(st.none(), max_size=1)))  # fmt: skip
def test_a_memory_that_somebody_wrote(state: Json) -> None:
    """What cannot be read is forgotten, and nothing fails."""
    item = Parent.of(model_deployment(status={"platform": state}))
    standing(KIND, item, WANTED, now=NOW)
    leaving(KIND, item, now=NOW)
    found = RegistrationState.of("models", item)
    assert 0 <= found.attempts <= 10**6


def test_done() -> None:
    """The hash is remembered, the platform's facts replace the old ones, a new workspace is news."""
    task = task_of(standing(KIND, parent(), WANTED, now=NOW))
    found = settle(task, Done(FACTS), now=NOW)
    assert (found.condition, found.memory, found.resync) == (registration.UP_TO_DATE, has(), SOON)
    assert found.fields == {**FACTS, "platform": has().as_json()}
    task = task_of(standing(KIND, parent(workspace="acme", updatedAtOnBeamlit="2026-01-01T00:00:00Z"), WANTED, now=NOW))
    found = settle(task, Done(FACTS), now=NOW)
    assert (found.resync, found.facts) == (None, FACTS)


def test_done_by_somebody_else() -> None:
    """It is not remembered as ours."""
    task = task_of(standing(KIND, parent(), WANTED, now=NOW))
    found = settle(task, Done({}, owned=False), now=NOW)
    assert (found.condition, found.memory, found.fields) == (registration.SHARED, RegistrationState(), {})


@pytest.mark.parametrize("said", [None, ("False", reasons.DISABLED, "x"), ("Unknown", reasons.NOT_EVALUATED, "x")])
def test_before_an_attempt(said: tuple[str, str, str] | None) -> None:
    """What was said before there was anything to do does not count."""
    found = standing(KIND, parent(said=said), WANTED, now=NOW)
    assert found.condition == registration.AWAITED
    assert settle(task_of(found), Postponed(), now=NOW).condition == registration.AWAITED


def test_postponed() -> None:
    """Nothing changes, and it comes back soon."""
    said = ("False", reasons.REJECTED, "no")
    item = parent(has(hash_="old"), said=said, workspace="acme")
    task = task_of(standing(KIND, item, WANTED, now=NOW))
    for outcome in (Postponed(), Gone()):
        found = settle(task, outcome, now=NOW)
        assert (found.condition[1:], found.memory, found.resync) == (said, task.memory, SOON)
        assert found.facts == {"workspace": "acme"}


def test_removed() -> None:
    """Nothing is left to be remembered; what is wanted instead comes next."""
    task = task_of(standing(KIND, parent(has(OTHER), workspace="acme"), WANTED, now=NOW))
    found = settle(task, Removed(), now=NOW)
    assert (found.condition, found.fields, found.resync) == (registration.AWAITED, {}, SOON)
    task = task_of(standing(KIND, parent(has()), None, now=NOW))
    found = settle(task, Removed(), now=NOW)
    assert (found.condition, found.fields, found.resync) == (registration.NOT_WANTED, {}, None)


def test_failed() -> None:
    """It is said, counted, and what the platform said before stays."""
    task = task_of(standing(KIND, parent(has(hash_="old"), workspace="acme"), WANTED, now=NOW))
    found = settle(task, DOWN, now=NOW + timedelta(microseconds=9))
    assert found.condition == ("Registered", "False", reasons.UNREACHABLE, "It does not answer.")
    assert found.memory == RegistrationState(THING, "old", WANTED.hash, 1, NOW)
    assert (found.facts, found.resync) == ({"workspace": "acme"}, delay(1, parent().uid))
    assert settle(task, RegistrationFailed("R", "m", retry_after=99.0), now=NOW).resync == 99
    assert settle(task, RegistrationFailed("R", "m", sent=True), now=NOW).memory.hash == ""


@pytest.mark.parametrize("foreign", [False, True])
def test_what_is_somebody_elses(foreign: bool) -> None:
    """It is not remembered as ours; a refusal of the platform alone is no reason to forget what is there."""
    task = task_of(standing(KIND, parent(has(hash_="old")), WANTED, now=NOW))
    found = settle(task, RegistrationFailed(reasons.CONFLICT, "x", foreign=foreign), now=NOW)
    assert found.memory.thing == (None if foreign else THING)


def test_not_even_tried() -> None:
    """It is said, and not counted."""
    memory = RegistrationState().failed(WANTED.hash, NOW - timedelta(seconds=60))
    task = task_of(standing(KIND, parent(memory), WANTED, now=NOW))
    found = settle(task, RegistrationFailed(reasons.UNREACHABLE, "x", tried=False, retry_after=3.0), now=NOW)
    assert (found.memory, found.resync) == (memory, delay(1, parent().uid))


def test_a_look() -> None:
    """It is taken when it is time, the cluster is settled and there is something to look after."""
    assert standing(KIND, parent(), None, now=NOW, check=True).task is None
    assert standing(KIND, parent(has()), WANTED, now=NOW, check=True, settled=False).task is None
    task = task_of(standing(KIND, parent(has(), workspace="acme"), WANTED, now=NOW, check=True))
    assert task.check
    found = settle(task, Done(FACTS, changed=False), now=NOW)
    assert (found.condition, found.memory, found.facts) == (registration.UP_TO_DATE, has(), FACTS)
    found = settle(task, DOWN, now=NOW)
    assert (found.condition, found.memory, found.resync) == (registration.UP_TO_DATE, has(), None)
    assert found.facts == {"workspace": "acme"}
    assert settle(task, RegistrationFailed(reasons.CONFLICT, "Taken."), now=NOW).condition == registration.UP_TO_DATE
    found = settle(task, RegistrationFailed(reasons.CONFLICT, "Taken.", foreign=True), now=NOW)
    assert (found.condition.reason, found.memory.thing, found.memory.attempts) == (reasons.CONFLICT, None, 1)
    assert not task_of(standing(KIND, parent(RegistrationState()), WANTED, now=NOW, check=True)).check


def test_without_account() -> None:
    """It is said; what was remembered stays for when there is one again."""
    item = parent(has(), said=("True", reasons.UP_TO_DATE, "x"), workspace="acme")
    found = undecided(KIND, item, account=None)
    assert found.condition == registration.NO_ACCOUNT
    assert (found.fields, found.task, found.resync) == ({"workspace": "acme", "platform": has().as_json()}, None, None)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (None, ("Unknown", reasons.NOT_EVALUATED)),
        (("False", reasons.DISABLED, "x"), ("Unknown", reasons.NOT_EVALUATED)),
        (("True", reasons.UP_TO_DATE, "x"), ("True", reasons.UP_TO_DATE)),
    ],
)
def test_of_what_is_not_in_force(said: tuple[str, str, str] | None, expected: tuple[str, str]) -> None:
    """What was said last stays."""
    assert undecided(KIND, parent(said=said), account="us").condition[1:3] == expected


def test_leaving_without_a_registration() -> None:
    """There is nothing to wait for."""
    found = leaving(KIND, going(RegistrationState(), 0), now=NOW)
    assert (found.task, found.resync, found.condition) == (None, None, registration.AWAITED)


def test_leaving() -> None:
    """It is removed; only then the object goes."""
    task = task_of(leaving(KIND, going(has(), 0), now=NOW))
    assert (task.removal, task.final, task.tried) == (THING, True, registration.REMOVAL)
    for outcome in (Removed(), Gone()):
        found = settle(task, outcome, now=NOW)
        assert (found.resync, found.task, found.memory) == (None, None, RegistrationState())
    assert settle(task, Postponed(), now=NOW).resync == SOON


def test_what_failed_before_does_not_delay_the_removal() -> None:
    """The last update was refused for long; the removal is tried at once, and counts by itself."""
    memory = has(hash_="", tried="x", attempts=30, since=NOW)
    task = task_of(leaving(KIND, going(memory, 6), now=NOW))
    assert settle(task, DOWN, now=NOW).memory.attempts == 1


@pytest.mark.parametrize(
    ("attempts", "minutes", "goes"),
    [(4, 4.9, False), (4, 5, True), (3, 5, False), (4, 0, False), (0, 9.9, False), (0, 10, True), (30, 60, True)],
)
def test_leaving_is_bounded(attempts: int, minutes: float, goes: bool) -> None:
    """After five attempts and five minutes, or ten minutes in any case, it lets go and says so."""
    memory = has(hash_="", tried=registration.REMOVAL, attempts=attempts, since=NOW - timedelta(hours=1))
    item = going(memory, minutes, said=("False", reasons.UNREACHABLE, "Down."))
    found = leaving(KIND, item, now=NOW)
    if found.task is not None:
        found = settle(found.task, RegistrationFailed(reasons.UNREACHABLE, "Down."), now=NOW)
    assert (found.resync is None) is goes
    assert (found.condition.message == f"Down.{registration._LEFT}") is goes
    assert found.condition.reason == reasons.UNREACHABLE


def test_letting_go_is_said_once() -> None:
    """Asked again after it, the same is answered."""
    memory = has(hash_="", tried=registration.REMOVAL, attempts=9, since=NOW)
    first = leaving(KIND, going(memory, 30, said=("False", reasons.UNREACHABLE, "Down.")), now=NOW)
    again = leaving(KIND, going(memory, 30, said=first.condition[1:]), now=NOW)
    assert again.condition == first.condition


def test_leaving_waits_between_two_attempts() -> None:
    """As otherwise; without a time of deletion it never lets go."""
    memory = has(tried=registration.REMOVAL, attempts=1, since=NOW)
    assert leaving(KIND, going(memory, 1), now=NOW).resync == delay(1, parent().uid)
    forever = has(tried=registration.REMOVAL, attempts=99, since=NOW - timedelta(days=1))
    task_of(leaving(KIND, parent(forever), now=NOW))


def test_a_hash_is_that_of_the_account_too() -> None:
    """Another account has nothing of what was sent to this one."""
    assert (
        DesiredObject.of(THING, WANTED.body, "them").hash
        != WANTED.hash
        == DesiredObject.of(THING, dict(WANTED.body), "us").hash
    )


def test_names_for_people() -> None:
    """As they stand in messages."""
    assert str(THING) == "model llama in environment production"
    assert str(PlatformKey("policies", "eu")) == "policy eu"


def test_applied() -> None:
    """What status says of the platform is replaced, with the time of the transition, and the rest stays."""
    item = parent(said=("False", reasons.UNREACHABLE, "x"), workspace="old", servingPort=1)
    found = Registration(registration.UP_TO_DATE, has(), FACTS)
    status = {"conditions": [{"type": "Accepted"}, {"type": "Registered"}], "servingPort": 1, "workspace": "old"}
    after = registration.applied(status, found, item, now=NOW)
    assert after["conditions"][0] == {"type": "Accepted"}
    assert after["conditions"][1]["reason"] == reasons.UP_TO_DATE
    assert after["conditions"][1]["lastTransitionTime"] == "2026-03-01T12:00:00Z"
    del after["conditions"]
    assert after == {"servingPort": 1, **FACTS, "platform": has().as_json()}
