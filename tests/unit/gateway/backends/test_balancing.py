"""Exact shares without dice."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends import balancing


@given(st.integers(0, 100), st.integers(0, 1000))
def test_any_hundred_consecutive_turns_are_split_exactly(weight: int, start: int) -> None:
    """Whatever turn one begins to count at, a backend of weight w gets w of a hundred."""
    turns = balancing.pattern([100 - weight, weight])

    chosen = [balancing.choose(turns, turn) for turn in range(start, start + 100)]

    assert chosen.count(1) == weight


def test_turns_are_spread_evenly() -> None:
    """At a quarter, every fourth turn is the smaller one's."""
    turns = balancing.pattern([75, 25])

    assert [sum(turns[n : n + 4]) for n in range(0, 100, 4)] == [1] * 25


def test_nobody_is_chosen_without_weight() -> None:
    """Without any weight there is nobody to choose."""
    assert balancing.choose(balancing.pattern([0, 0]), 3) is None


@pytest.mark.parametrize("weights", [[50, 40], [101], [-1, 101]])
def test_weights_that_make_no_hundred_are_refused(weights: list[int]) -> None:
    """Weights sum up to a hundred or to nothing."""
    with pytest.raises(ValueError, match="must sum up"):
        balancing.pattern(weights)
