"""Periods that differ from object to object."""

import uuid

from hooks.kube.jitter import jittered, share

UIDS = [str(uuid.UUID(int=number)) for number in range(1000)]


def test_an_object_keeps_its_share() -> None:
    """The share of an object depends on nothing but its uid."""
    assert [share(uid) for uid in UIDS] == [share(uid) for uid in UIDS]
    assert share("0d6b1a6e-5a0e-4a55-8a3d-0f4d0c1b2a39") == 0.025127692852431837


def test_shares_are_spread_evenly() -> None:
    """Each tenth of the range from 0 to 1 has its part of a thousand objects."""
    shares = [share(uid) for uid in UIDS]
    assert all(0 <= one <= 1 for one in shares)
    counts = [sum(tenth <= 10 * one < tenth + 1 for one in shares) for tenth in range(10)]
    assert min(counts) > 50


def test_a_period_stays_within_its_jitter() -> None:
    """Periods reach from the least to the greatest that the jitter allows, in thousandths."""
    periods = [jittered(30, 0.1, uid) for uid in UIDS]
    assert 27 <= min(periods) < 27.1
    assert 32.9 < max(periods) <= 33
    assert all(period == round(period, 3) for period in periods)
    assert {jittered(30, 0, uid) for uid in UIDS} == {30}
