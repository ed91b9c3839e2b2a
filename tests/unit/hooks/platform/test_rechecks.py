"""When an object that is at rest is looked after again."""

from datetime import timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from hooks.platform.rechecks import INTERVAL, KEPT, Rechecks
from tests.builders import NOW


@given(st.text(max_size=40))
def test_once_in_each_interval(uid: str) -> None:
    """Not at first sight, and at the latest after an interval; of two in a row at least half of one is between."""
    checks = Rechecks()
    moments = [timedelta(seconds=second) for second in range(0, 3600, 10)]
    times = [moment for moment in moments if checks.is_due(uid, NOW + moment)]
    assert INTERVAL / 2 <= times[0] <= INTERVAL + timedelta(seconds=10)
    for one, next_ in pairwise(times):
        assert INTERVAL / 2 <= next_ - one <= INTERVAL + timedelta(seconds=10)


def test_not_all_at_once() -> None:
    """Objects that came together are due at different times."""
    checks = Rechecks()
    uids = [f"uid-{number}" for number in range(100)]
    for uid in uids:
        checks.is_due(uid, NOW)
    due = sum(checks.is_due(uid, NOW + INTERVAL * 0.75) for uid in uids)
    assert 20 < due < 80


def test_bounded() -> None:
    """What was not seen for longest is forgotten first, and what is no more at once."""
    checks = Rechecks()
    for number in range(KEPT):
        checks.is_due(str(number), NOW)
    checks.is_due("0", NOW)
    checks.is_due("more", NOW)
    later = NOW + INTERVAL
    assert checks.is_due("0", later)
    assert not checks.is_due("1", later)
    checks.forget("2")
    assert not checks.is_due("2", later)
    checks.forget("nobody")
