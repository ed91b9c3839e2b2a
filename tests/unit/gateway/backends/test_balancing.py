"""Weighted choice of backends: exact shares without randomness."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.backends import balancing


@given(st.integers(0, 100), st.integers(0, 1000))
def test_any_hundred_consecutive_turns_are_split_exactly(weight: int, start: int) -> None:
    """A backend of weight w gets exactly w of any hundred consecutive turns."""
    turns = balancing.pattern([100 - weight, weight])

    chosen = [balancing.choose(turns, turn) for turn in range(start, start + 100)]

    assert chosen.count(1) == weight


def test_turns_are_spread_evenly() -> None:
    """A backend of weight 25 gets exactly one of every four turns."""
    turns = balancing.pattern([75, 25])

    assert [sum(turns[n : n + 4]) for n in range(0, 100, 4)] == [1] * 25


def test_no_backend_is_chosen_without_weight() -> None:
    """No backend is chosen when all weights are zero."""
    assert balancing.choose(balancing.pattern([0, 0]), 3) is None


@pytest.mark.parametrize("weights", [[50, 40], [101], [-1, 101]])
def test_weights_that_make_no_hundred_are_refused(weights: list[int]) -> None:
    """Weights that sum up to neither a hundred nor zero are an error."""
    with pytest.raises(ValueError, match="must sum up"):
        balancing.pattern(weights)
