"""The limit of streams in flight: what cuts it, what raises it, and what says nothing."""

from itertools import pairwise
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends.stream_limit import LEAST_EVENTS, LEAST_SECONDS, Admission, Move, StreamLimit

TARGET = 2.0


class Backend:
    """Streams at a backend, and the limit on them."""

    def __init__(self, ceiling: int, target: float = TARGET) -> None:
        self.limit = StreamLimit(target, ceiling)
        self.now = 100.0
        self.streams: list[Admission] = []
        self.moves: list[Move] = []

    def note(self) -> None:
        """Take note of a move."""
        if self.limit.last is not None and (not self.moves or self.moves[-1] is not self.limit.last):
            self.moves.append(self.limit.last)

    def send(self) -> bool:
        """Send a stream if the limit allows it; return whether it does."""
        if self.limit.is_reached(self.now, len(self.streams)):
            self.note()
            return False
        in_flight = len(self.streams) + 1
        self.streams.append(self.limit.admit(self.now, in_flight, alone=in_flight == 1))
        self.note()
        return True

    def event(self, index: int = 0) -> None:
        """Let the first event of a stream come."""
        self.limit.first_event(self.streams[index], self.now)
        self.note()

    def end(self, index: int = 0) -> None:
        """Let a stream end."""
        self.limit.end(self.streams.pop(index), self.now)
        self.note()

    def serve(self, streams: int, seconds: float) -> None:
        """Send streams, let their first events come after a time, and end them."""
        sent = [self.send() for _ in range(streams)].count(True)
        self.now += seconds
        for index in range(sent):
            self.event(len(self.streams) - sent + index)
        for _ in range(sent):
            self.end(len(self.streams) - 1)


def test_it_begins_at_its_ceiling() -> None:
    """Before anything is known there may be as many streams as there may ever be."""
    backend = Backend(3)
    assert [backend.send() for _ in range(4)] == [True, True, True, False]
    assert (backend.limit.limit, backend.limit.last) == (3, None)


def test_late_events_cut_it_to_four_fifths() -> None:
    """More than a tenth of twenty events late, with the limit used, makes it four fifths, and the move says why."""
    backend = Backend(30)
    assert sum(backend.send() for _ in range(31)) == 30
    backend.now += 1.9
    for index in range(17):
        backend.event(index)
    assert backend.limit.limit == 30
    backend.now += 0.2
    assert backend.limit.is_reached(backend.now, 24)
    assert backend.limit.last == Move(backend.now, 30, 24, 3, 20)


def test_late_streams_need_no_event() -> None:
    """A backend that is silent is late as soon as the target has passed, and by one cut only."""
    backend = Backend(20)
    for _ in range(20):
        backend.send()
    backend.now += 60
    assert not backend.send()
    assert (backend.limit.limit, backend.limit.cuts) == (16, 1)


@pytest.mark.parametrize("late", [2, 3])
def test_a_tenth_may_be_late(late: int) -> None:
    """Two late events of twenty are a tenth, which is no reason to cut; three are more than that."""
    backend = Backend(20)
    for _ in range(20):
        backend.send()
    backend.now += 1.5
    for index in range(20 - late):
        backend.event(index)
    backend.now += 1
    backend.limit.look(backend.now)
    assert backend.limit.cuts == (late == 3)


def test_one_window_raises_it_by_one() -> None:
    """A window in which the limit was used and events came in time raises it by one, up to the ceiling."""
    backend = Backend(21)
    backend.limit.limit = 20
    backend.serve(20, 1.5)
    assert (backend.limit.limit, backend.limit.raises) == (21, 1)
    for _ in range(3):
        backend.serve(21, 1.5)
    assert (backend.limit.limit, backend.limit.raises) == (21, 1)


def test_a_limit_that_is_not_used_stays() -> None:
    """Events in time say nothing about a limit that was not used, and half of them late are not enough."""
    backend = Backend(50)
    backend.limit.limit = 40
    for _ in range(5):
        backend.serve(20, 1.5)
    for _ in range(10):
        backend.send()
    backend.now += 1.5
    for index in range(10):
        backend.event(index)
    for _ in range(10):
        backend.send()
    backend.now += 3
    backend.limit.look(backend.now)
    assert backend.limit.last is None


def test_a_queue_far_below_the_limit() -> None:
    """Where more than half of the events are late, a limit that was not used comes down to what was in flight."""
    backend = Backend(1000)
    for _ in range(50):
        backend.send()
    backend.now += 3
    backend.limit.look(backend.now)
    assert (backend.limit.limit, backend.limit.cuts) == (40, 1)


def test_what_was_sent_before_a_cut_is_no_evidence() -> None:
    """A cut is for all that was sent until then; the next one needs requests that were sent after it."""
    backend = Backend(100)
    for _ in range(100):
        backend.send()
    backend.now += 2.5
    backend.limit.look(backend.now)
    assert backend.limit.limit == 80
    for _ in range(50):
        backend.now += 1
        backend.event()
        backend.end()
    assert backend.limit.limit == 80
    assert [backend.send() for _ in range(31)].count(True) == 30
    backend.now += 2.5
    backend.limit.look(backend.now)
    assert backend.limit.limit == 64


def test_the_level_of_the_last_cut_needs_patience() -> None:
    """After each cut at a level the limit stays below it for longer, and no longer once it has held there."""
    backend = Backend(100)
    backend.limit.limit = 20
    windows = []
    for _ in range(3):
        for _ in range(backend.limit.limit):
            backend.send()
        backend.now += 3
        backend.limit.look(backend.now)
        while backend.streams:
            backend.end()
        count = 0
        while backend.limit.limit < 20:
            backend.serve(backend.limit.limit, 1.5)
            count += 1
        windows.append(count)
    assert backend.limit.cuts == 3
    assert windows[1] - windows[0] >= 2
    assert windows[2] - windows[1] >= 4
    for _ in range(4):
        backend.serve(backend.limit.limit, 1.5)
    assert backend.limit.limit >= 23


def test_a_stream_that_ends_without_an_event() -> None:
    """A stream that fails or whose client leaves before it is late says nothing."""
    backend = Backend(20)
    for _ in range(5):
        for _ in range(20):
            backend.send()
        backend.now += 1.9
        while backend.streams:
            backend.end()
    assert backend.limit.last is None


def test_another_ceiling() -> None:
    """A limit at its ceiling follows it; one below it is only lowered."""
    limit = StreamLimit(TARGET, 10)
    limit.apply(TARGET, 20)
    assert limit.limit == 20
    limit.limit = 15
    limit.apply(TARGET, 30)
    assert limit.limit == 15
    limit.apply(TARGET, 12)
    assert (limit.limit, limit.ceiling) == (12, 12)


class Step(NamedTuple):
    """Something that happens at a backend."""

    kind: str
    which: int
    seconds: float


STEPS = st.lists(
    st.builds(
        Step,
        st.sampled_from(["send", "send", "send", "event", "end"]),
        st.integers(0, 30),
        st.sampled_from([0.0, 0.01, 0.1, 0.5, 3.0]),
    ),
    max_size=300,
)


@given(STEPS, st.integers(1, 8), st.sampled_from([0.05, 0.5, 2.0]))
@settings(max_examples=60, deadline=None)
def test_any_course(steps: list[Step], ceiling: int, target: float) -> None:
    """The limit stays between 1 and its ceiling, moves as it should, and no two cuts are closer than the target."""
    backend = Backend(ceiling, target)
    for step in steps:
        backend.now += step.seconds
        if step.kind == "send":
            backend.send()
        elif backend.streams:
            index = step.which % len(backend.streams)
            (backend.event if step.kind == "event" else backend.end)(index)
        assert 1 <= backend.limit.limit <= ceiling
    for move in backend.moves:
        if move.after > move.before:
            assert move.after == move.before + 1
            assert move.events >= LEAST_EVENTS
            assert move.late * 10 <= move.events
        else:
            assert move.after <= max(1, move.before * 4 // 5)
            assert move.late * 10 > LEAST_EVENTS
    for one, following in pairwise(backend.moves):
        assert following.at - one.at >= LEAST_SECONDS
    cuts = [move.at for move in backend.moves if move.after < move.before]
    assert all(following - one >= target for one, following in pairwise(cuts))
    assert len(backend.limit._waiting) <= len(backend.streams)


@given(st.lists(st.sampled_from([0.0, 1.0, 2.0, 50.0]), min_size=1, max_size=60))
@settings(max_examples=25, deadline=None)
def test_alone(seconds: list[float]) -> None:
    """Requests that are alone at the backend never cut, however long their first events take."""
    backend = Backend(1)
    for one in seconds * 3:
        backend.serve(1, one)
    assert backend.limit.cuts == 0
