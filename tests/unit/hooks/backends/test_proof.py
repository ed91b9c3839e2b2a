"""The verdict on a remote backend, from what gateways report of their drills."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks import reasons
from hooks.backends import proof
from hooks.backends.proof import FAILURES, MESSAGES, Verdict, settled, verdict
from hooks.observation.drills import Drill, Reading
from hooks.observation.observation import Held
from hooks.observation.readings import Unread
from tests.builders import NOW

RESULTS = sorted(set(MESSAGES) - {reasons.NOT_TRIED})
FATAL = (
    reasons.NAME_UNKNOWN,
    reasons.CONNECT_FAILED,
    reasons.CERTIFICATE_REFUSED,
    reasons.TOKEN_REFUSED,
    reasons.CREDENTIAL_MISSING,
)
PROVEN = Drill(reasons.PROVEN, "", 0)
TEN = timedelta(seconds=10)
drills = st.lists(
    st.builds(
        Drill,
        st.sampled_from(RESULTS),
        st.sampled_from(["", "This.", "That."]),
        st.integers(0, 5),
        st.sampled_from([None, NOW, NOW + TEN]),
        st.sampled_from([None, NOW - TEN, NOW + TEN + TEN]),
    ),
    max_size=4,
)


def refused(reason: str = reasons.TOKEN_REFUSED, failures: int = FAILURES, message: str = "Change it.") -> Drill:
    """Return a drill that failed."""
    return Drill(reason, message, failures, NOW, NOW - TEN)


def reading(*found: Drill, seconds: float = 0) -> Reading:
    """Return a reading that was taken so many seconds after NOW."""
    return Reading(NOW + timedelta(seconds=seconds), found)


def held(found: Verdict, seconds: float = -3600) -> Held:
    """Return the condition of a verdict as a status has it since so many seconds after NOW."""
    return Held(found.status, found.reason, found.message, NOW + timedelta(seconds=seconds))


def test_a_gateway_that_reaches_it_proves_it() -> None:
    """One success makes the condition True, and the message tells of gateways that fail nevertheless."""
    assert verdict(reading(PROVEN, PROVEN)) == Verdict("True", reasons.PROVEN, MESSAGES[reasons.PROVEN])
    mixed = verdict(reading(refused(), PROVEN))
    assert (mixed.status, mixed.reason, mixed.fails) == ("True", reasons.PROVEN, False)
    assert mixed.message.endswith("at least one does not: Change it.")


@pytest.mark.parametrize("request_", ["client", "completion", "models", "none"])
def test_a_sentence_for_each_proof(request_: str) -> None:
    """A proof says what it rests on; of several gateways that whose request tells most counts."""
    found = replace(PROVEN, request=request_)
    bare = replace(PROVEN, request="none")
    assert verdict(reading(bare, found)) == verdict(reading(found))
    assert ("sent no request" in verdict(reading(found)).message) == (request_ == "none")


@pytest.mark.parametrize("reason", [reasons.TOKEN_REFUSED, reasons.MODEL_UNKNOWN, reasons.FORBIDDEN])
def test_what_one_gateway_finds_by_a_request(reason: str) -> None:
    """A gateway whose drill sent no request has not tried what the request of another one has found: its success speaks
    against nothing but failures that it would have had, too."""
    found = replace(refused(reason), request="completion")
    bare = replace(PROVEN, request="none")
    one = verdict(reading(bare, found, bare))
    assert (one.status, one.reason, one.message) == ("False", reason, found.message)
    assert one.fails == (reason == reasons.TOKEN_REFUSED)
    for other in (replace(PROVEN, request="models"), replace(bare, served=NOW + TEN), PROVEN):
        assert verdict(reading(bare, found, other)).status == "True"
    assert verdict(reading(replace(found, request="none"), bare)).status == "True"
    assert verdict(reading(replace(refused(reasons.CONNECT_FAILED), request="completion"), bare)).status == "True"


def test_nothing_is_known_without_a_result() -> None:
    """Without a gateway that has tried it, or that reports anything, the condition is Unknown."""
    assert verdict(reading()).reason == reasons.NOT_TRIED
    unread = Unread(reasons.UNREACHABLE, "Nobody responds.")
    assert verdict(Reading(NOW, (), unread)) == Verdict("Unknown", reasons.UNREACHABLE, "Nobody responds.")


@pytest.mark.parametrize("reason", FATAL)
def test_three_failures_in_a_row_of_every_gateway(reason: str) -> None:
    """A remote backend is known to fail after three failed drills in a row at every gateway that tried it."""
    assert verdict(reading(refused(reason), refused(reason))).fails
    assert not verdict(reading(refused(reason), refused(reason, FAILURES - 1))).fails
    assert not verdict(reading(refused(reason), PROVEN)).fails


@pytest.mark.parametrize("reason", [reasons.MODEL_UNKNOWN, reasons.FORBIDDEN])
def test_some_reasons_only_warn(reason: str) -> None:
    """A model that is not listed, and a list that is not allowed, are no proof that requests fail."""
    found = verdict(reading(refused(reason, 99)))
    assert (found.status, found.reason, found.fails) == ("False", reason, False)


def test_a_success_after_the_last_drill() -> None:
    """A request that succeeded after the last failed drill, with an older token, shows that requests are served, and
    does not make the condition True."""
    late = replace(refused(), succeeded=NOW + TEN)
    assert (verdict(reading(late)).status, verdict(reading(late)).fails) == ("False", False)
    for before in (replace(refused(), succeeded=NOW - TEN), replace(refused(), observed=None)):
        assert (verdict(reading(before)).status, verdict(reading(before)).fails) == ("False", True)


@pytest.mark.parametrize("reason", RESULTS)
def test_a_sentence_for_each_reason(reason: str) -> None:
    """Without a message of the gateway each reason has a sentence of its own."""
    assert verdict(reading(Drill(reason, "", 1))).message == MESSAGES[reason]


@given(drills, st.randoms(use_true_random=False))
def test_laws_of_a_verdict(found: list[Drill], chance: object) -> None:
    """The order of gateways changes nothing; False needs all of them, and only False may be known to fail."""
    result = verdict(reading(*found))
    chance.shuffle(found)  # type: ignore[attr-defined]
    assert verdict(reading(*found)) == result
    assert verdict(reading(*found, PROVEN)).status == "True"
    assert (result.status == "Unknown") == (not found)
    assert not result.fails or result.status == "False"
    assert result.message


def test_two_equal_readings_are_written() -> None:
    """A verdict is written once two readings have it, and until then the status stays as it is and is looked at again
    soon."""
    good, bad = verdict(reading(PROVEN)), verdict(reading(refused()))
    before = held(good)
    first = settled((reading(refused(), seconds=10), reading(PROVEN)), before, NOW, failed=False)
    assert first == replace(good, awaits=True)
    second = settled((reading(refused(), seconds=20), reading(refused(), seconds=10)), before, NOW, failed=False)
    assert second == bad


def test_readings_whose_sentences_differ() -> None:
    """Two readings agree where they have the same reason in other words, and words alone change no status."""
    two = (reading(refused(message="It is away."), seconds=10), reading(refused(message="It is late.")))
    good = verdict(reading(PROVEN))
    written = settled(two, held(good), NOW, failed=False)
    assert (written.status, written.reason, written.message) == ("False", reasons.TOKEN_REFUSED, "It is away.")
    before = verdict(reading(refused()))
    assert settled(two, held(before), NOW, failed=True) == replace(before, awaits=True)
    assert settled(two, held(before), NOW, failed=False).fails


@pytest.mark.parametrize("readings", [(), (reading(refused()),)])
def test_a_new_process_changes_nothing(readings: tuple[Reading, ...]) -> None:
    """With fewer than two readings the condition stays as it is, and whether the backend is known to fail too."""
    good, bad = verdict(reading(PROVEN)), verdict(reading(refused()))
    assert settled(readings, held(good), NOW, failed=False) == replace(good, awaits=True)
    assert settled(readings, held(bad), NOW, failed=True) == replace(bad, awaits=True)
    assert settled(readings, held(bad), NOW, failed=False) == replace(bad, fails=False, awaits=True)


@pytest.mark.parametrize("reason", [reasons.NOT_CONFIGURED, reasons.NOT_EVALUATED, reasons.OVERRIDE_FORCED, "Other"])
def test_what_was_said_without_drills_is_not_held(reason: str) -> None:
    """A condition that is not about drills, or none, gives way to NotTried until two readings are equal."""
    for before in (None, Held("False", reason, "It is so.", NOW)):
        found = settled((reading(PROVEN),), before, NOW, failed=False)
        assert (found.status, found.reason, found.awaits) == ("Unknown", reasons.NOT_TRIED, True)
        two = (reading(PROVEN), reading(PROVEN, seconds=-10))
        assert settled(two, before, NOW, failed=False).status == "True"


def test_why_nothing_is_known_is_said_at_once() -> None:
    """Where the status has no verdict yet, the reason why none is known is written with the first reading."""
    silent = Reading(NOW, (), Unread(reasons.UNREACHABLE, "Nobody responds."))
    for readings in ((silent,), (silent, reading(PROVEN))):
        found = settled(readings, None, NOW, failed=False)
        assert (found.reason, found.awaits) == (reasons.UNREACHABLE, True)
    assert settled((silent,), held(verdict(reading(PROVEN))), NOW, failed=False).status == "True"


def test_replicas_with_older_readings_do_not_undo_a_change() -> None:
    """Readings from before the last change of the condition do not change it back; later ones do, and a time in the
    future, which a user may have written, does not count."""
    two = (reading(refused(), seconds=10), reading(refused()))
    good, bad = verdict(reading(PROVEN)), verdict(reading(refused()))
    now = NOW + timedelta(seconds=30)
    assert settled(two, held(good, seconds=5), now, failed=False) == replace(good, awaits=True)
    assert settled(two, held(good, seconds=0), now, failed=False) == bad
    assert settled(two, held(good, seconds=99), now, failed=False) == bad
    assert settled(two, Held("True", reasons.PROVEN, "", None), now, failed=False) == bad


@given(
    st.lists(st.sampled_from(["True", "False", "Unknown"]), min_size=1, max_size=20),
    st.lists(st.sampled_from([0, 1]), min_size=1, max_size=20),
)
def test_two_replicas_agree_on_what_lasts(states: list[str], asked: list[int]) -> None:
    """Of two replicas that read at different times, either writes only what one of the last rounds had, and both write
    what lasts."""
    found = {"True": (PROVEN,), "False": (refused(),), "Unknown": ()}
    rounds = [*states, *states[-1:] * 4]
    readings: list[tuple[Reading, ...]] = [(), ()]
    before = held(verdict(reading()))
    for number in range(len(rounds)):
        for replica in (0, 1):  # the second sees each change a round later
            seen = reading(*found[rounds[max(0, number - replica)]], seconds=number * 10 + replica)
            readings[replica] = (seen, *readings[replica][:1])
        now = NOW + timedelta(seconds=number * 10 + 5)
        written = settled(readings[asked[number % len(asked)]], before, now, failed=False)
        assert written.status in (before.status, *rounds[max(0, number - 2) : number + 1])
        if written.status != before.status:
            before = held(written, seconds=number * 10 + 5)
    later = NOW + timedelta(hours=1)
    assert {settled(one, before, later, failed=False).status for one in readings} == {states[-1]}


def test_messages_are_sentences() -> None:
    """Every sentence ends with a full stop and fits a condition."""
    assert all(
        message.endswith(".") and len(message) < 300 for message in (*MESSAGES.values(), proof.NOT_ASKED.message)
    )
