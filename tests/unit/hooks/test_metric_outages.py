"""When a source is left alone."""

from hooks import reasons
from hooks.metrics.failures import Trouble
from hooks.metrics.outages import Outage
from hooks.readings import Unread

FIRST, SECOND = Unread(reasons.TIMED_OUT, "first"), Unread(reasons.UNREACHABLE, "second")


def test_a_source_that_cannot_be_reached_is_left_alone_at_once() -> None:
    """For a pause, after which one asks and the others are still told what was learned last."""
    outage = Outage(5)
    assert outage.answer(0) is None
    outage.learn(Trouble.GONE, FIRST, 1)
    assert [outage.answer(now) for now in (1, 5.9)] == [FIRST, FIRST]
    assert outage.answer(6) is None
    assert outage.answer(6) is FIRST
    outage.learn(Trouble.SILENT, SECOND, 7)
    assert outage.answer(11.9) is SECOND
    assert outage.answer(12) is None
    outage.learn(Trouble.NONE, None, 13)
    assert [outage.answer(13), outage.answer(13)] == [None, None]


def test_silence_counts_when_it_repeats() -> None:
    """Three in a row; an answer between begins anew."""
    outage = Outage(5)
    for trouble in (Trouble.SILENT, Trouble.SILENT, Trouble.NONE, Trouble.SILENT, Trouble.SILENT):
        outage.learn(trouble, FIRST, 1)
        assert outage.answer(1) is None
    outage.learn(Trouble.SILENT, SECOND, 1)
    assert outage.answer(1) is SECOND


def test_a_failure_that_is_an_answer_is_none() -> None:
    """A refusal shows that the source is there."""
    outage = Outage(5)
    outage.learn(Trouble.GONE, FIRST, 1)
    outage.learn(Trouble.NONE, SECOND, 2)
    assert outage.answer(2) is None
