"""Outages of a metrics source, and the pause in which it is not asked."""

from hooks import reasons
from hooks.clients.errors import Trouble
from hooks.metrics.outages import Outage
from hooks.observation.readings import Unread

FIRST, SECOND = Unread(reasons.TIMED_OUT, "first"), Unread(reasons.UNREACHABLE, "second")


def test_a_source_that_cannot_be_reached_is_left_alone_at_once() -> None:
    """A source that cannot be reached gets no request for a pause, after which one caller tries it and the others get
    the last error."""
    outage = Outage(5)
    assert outage.unread(0) is None
    outage.learn(Trouble.GONE, FIRST, 0, 1)
    assert [outage.unread(now) for now in (1, 5.9)] == [FIRST, FIRST]
    assert outage.unread(6) is None
    assert outage.unread(6) is FIRST
    outage.learn(Trouble.SILENT, SECOND, 6, 7)
    assert outage.unread(11.9) is SECOND
    assert outage.unread(12) is None
    outage.learn(Trouble.NONE, None, 12, 13)
    assert [outage.unread(13), outage.unread(13)] == [None, None]


def test_silence_counts_when_it_repeats() -> None:
    """Three timeouts in a row are an outage; a response between them starts the count anew."""
    outage = Outage(5)
    troubles = (Trouble.SILENT, Trouble.SILENT, Trouble.NONE, Trouble.SILENT, Trouble.SILENT)
    for now, trouble in zip((0, 2, 4, 6, 8), troubles, strict=True):
        outage.learn(trouble, FIRST, now, now + 1)
        assert outage.unread(now + 1) is None
    outage.learn(Trouble.SILENT, SECOND, 10, 11)
    assert outage.unread(11) is SECOND


def test_a_refusal_is_no_outage() -> None:
    """A response that is a refusal ends an outage: it shows that the source is there."""
    outage = Outage(5)
    outage.learn(Trouble.GONE, FIRST, 0, 1)
    outage.learn(Trouble.NONE, SECOND, 1, 2)
    assert outage.unread(2) is None


def test_silence_while_others_get_responses_does_not_count() -> None:
    """Timeouts of requests that began before another got a response are no outage."""
    outage = Outage(5)
    outage.learn(Trouble.NONE, None, 0, 2)
    for _ in range(10):
        outage.learn(Trouble.SILENT, FIRST, 1, 3)
    assert outage.unread(3) is None
