"""Times at which an object at rest is due for a recheck."""

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hooks.platform.rechecks import INTERVAL, MAX_OBJECTS, Rechecks
from tests.builders import NOW


@given(st.text(max_size=40))
def test_once_in_each_interval(uid: str) -> None:
    """An object is due after at least half an interval and at most a whole one, counted from when it was first seen."""
    rechecks = Rechecks()
    moments = [timedelta(seconds=second) for second in range(0, 3600, 10)]
    times = [moment for moment in moments if rechecks.is_due(uid, NOW + moment)]
    assert INTERVAL / 2 <= times[0] <= INTERVAL + timedelta(seconds=10)
    for one, next_ in pairwise(times):
        assert INTERVAL / 2 <= next_ - one <= INTERVAL + timedelta(seconds=10)


def test_not_all_at_once() -> None:
    """Objects that were first seen together are due at different times."""
    rechecks = Rechecks()
    uids = [f"uid-{number}" for number in range(100)]
    for uid in uids:
        rechecks.is_due(uid, NOW)
    due = sum(rechecks.is_due(uid, NOW + INTERVAL * 0.75) for uid in uids)
    assert 20 < due < 80


def test_bounded() -> None:
    """Above the bound the object whose last use is longest ago is dropped first; a deleted one is dropped at once."""
    rechecks = Rechecks()
    for number in range(MAX_OBJECTS):
        rechecks.is_due(str(number), NOW)
    rechecks.is_due("0", NOW)
    rechecks.is_due("more", NOW)
    later = NOW + INTERVAL
    assert rechecks.is_due("0", later)
    assert not rechecks.is_due("1", later)
    rechecks.forget("2")
    assert not rechecks.is_due("2", later)
    rechecks.forget("unknown")
