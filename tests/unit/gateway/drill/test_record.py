"""What follows from the results of drills, and from requests that succeed between them."""

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from gateway.api.vocabulary import DrillRequest
from gateway.drill.findings import Finding, Reason
from gateway.drill.record import DrillRecord

PROVEN: Final = Finding(Reason.PROVEN, "It works.")
REFUSED: Final = Finding(Reason.CONNECT_FAILED, "It is away.")
REFUSED_REQUESTS: Final = Finding(Reason.TOKEN_REFUSED, "It does not accept the key.", of_requests=True)
NO_TOKEN: Final = Finding(Reason.TOKEN_REFUSED, "There is no token.", of_token=True)


def test_failures_in_a_row() -> None:
    """Failures count up, a success ends the row and is remembered with its time."""
    record = DrillRecord()
    assert (record.reason, record.failing, record.observed_at) == (Reason.NOT_TRIED, False, None)
    for now in (1.0, 2.0):
        record.note(REFUSED, now)
    assert (record.failures, record.failing, record.observed_at, record.success_at) == (2, True, 2.0, None)
    record.note(PROVEN, 3.0)
    assert (record.failures, record.failing, record.success_at, record.by) == (0, False, 3.0, "drill")
    assert record.counts == {Reason.CONNECT_FAILED: 2, Reason.PROVEN: 1}


def test_a_request_that_succeeds_later_proves_the_backend() -> None:
    """A success after a failed drill is the result from then on; one before it is only remembered."""
    record = DrillRecord()
    record.note(REFUSED, 2.0)
    record.note_traffic(1.0)
    assert (record.reason, record.failures, record.success_at, record.by) == (Reason.CONNECT_FAILED, 1, 1.0, "traffic")
    record.note_traffic(3.0)
    assert (record.reason, record.failures, record.success_at, record.observed_at) == (Reason.PROVEN, 0, 3.0, 3.0)


def test_a_request_with_an_older_token_says_nothing_about_a_new_one() -> None:
    """A success does not end the failure to get a new token, but it is remembered."""
    record = DrillRecord()
    record.note(NO_TOKEN, 2.0)
    record.note_traffic(3.0)
    assert (record.reason, record.failures, record.success_at, record.by) == (Reason.TOKEN_REFUSED, 1, 3.0, "traffic")
    record.note(PROVEN, 4.0)
    assert (record.reason, record.success_at, record.by) == (Reason.PROVEN, 4.0, "drill")


def test_a_drill_without_a_request_does_not_end_a_refusal() -> None:
    """What a request has found stays until a drill tells of the credentials, or another request succeeds."""
    record = DrillRecord()
    record.note(PROVEN, 1.0)
    record.note_refusal(REFUSED_REQUESTS, 2.0)
    record.note(PROVEN, 3.0, tells_of_credentials=False)
    assert (record.reason, record.failures, record.observed_at) == (Reason.TOKEN_REFUSED, 1, 2.0)
    record.note_refusal(REFUSED_REQUESTS, 4.0)
    assert (record.failures, record.request) == (1, "client")
    record.note(PROVEN, 5.0)
    assert (record.reason, record.failures) == (Reason.PROVEN, 0)
    record.note_refusal(REFUSED_REQUESTS, 4.5)
    assert record.reason is Reason.PROVEN
    record.note_refusal(REFUSED_REQUESTS, 6.0)
    record.note_traffic(7.0)
    assert record.reason is Reason.PROVEN


def test_requests_that_are_refused_again_and_again() -> None:
    """A refusal counts as another failure once some seconds have passed, so that a key which requests never get in with
    is known to fail although drills send none."""
    record = DrillRecord()
    for seconds in range(61):
        record.note_refusal(REFUSED_REQUESTS, 100.0 + seconds / 2)
        record.note(PROVEN, 100.0 + seconds / 2, tells_of_credentials=False)
    assert record.failures == 4
    record.note_traffic(200.0)
    assert record.failures == 0


def test_completions() -> None:
    """The last completion of a drill is remembered with its seconds, and requests of clients count as served."""
    record = DrillRecord()
    record.note(PROVEN, 1.0, request=DrillRequest.COMPLETION, token_seconds=0.4)
    record.note(PROVEN, 2.0)
    assert (record.served_at, record.token_at, record.token_seconds, record.request) == (1.0, 1.0, 0.4, "none")
    record.note_traffic(3.0)
    assert (record.served_at, record.token_at, record.request) == (3.0, 1.0, "client")


@given(st.lists(st.sampled_from([PROVEN, REFUSED, NO_TOKEN, None]), max_size=12))
def test_times_only_grow(steps: list[Finding | None]) -> None:
    """Whatever happens, times never go back, and there are failures in a row exactly while the result is one."""
    record = DrillRecord()
    seen: tuple[float, float] = (0.0, 0.0)
    for now, step in enumerate(steps, 1):
        if step is None:
            record.note_traffic(float(now))
        else:
            record.note(step, float(now))
        times = (record.observed_at or 0.0, record.success_at or 0.0)
        assert times >= seen
        assert all(after >= before for after, before in zip(times, seen, strict=True))
        assert record.failing is (record.failures > 0)
        seen = times
