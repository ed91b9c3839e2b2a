"""Division of requests by the conversations that they belong to."""

import hashlib
import itertools
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends import balancing
from gateway.backends.affinity import KEY_BYTES, RECENT_KEYS, KeyedSplit, part

percentages = st.integers(0, 100)
seeds = st.integers(0, 10**6)


def keys(number: int, seed: int) -> list[bytes]:
    """Return the keys of so many conversations."""
    return [hashlib.blake2b(b"%d %d" % (seed, one), digest_size=KEY_BYTES).digest() for one in range(number)]


def margin(percentage: int, number: int) -> float:
    """Return by how many points the share of so many conversations may be off."""
    return 3 * sqrt(percentage * (100 - percentage) / number) + 1


@settings(max_examples=40, derandomize=True)
@given(percentages, st.sampled_from([100, 300, 1000]), seeds)
def test_the_share_of_conversations_is_the_percentage(percentage: int, number: int, seed: int) -> None:
    """The share of conversations at the remote is within three standard deviations of the percentage, plus a point."""
    remote = sum(part(key, [100 - percentage, percentage]) for key in keys(number, seed))
    assert abs(100 * remote / number - percentage) <= margin(percentage, number)


@settings(max_examples=40, derandomize=True)
@given(percentages, percentages, seeds)
def test_a_change_of_the_percentage_moves_as_little_as_it_can(before: int, after: int, seed: int) -> None:
    """A change by d points moves the conversations of d points, and all of them in the direction of the change."""
    number = 500
    moves = [part(key, [100 - after, after]) - part(key, [100 - before, before]) for key in keys(number, seed)]
    change = abs(after - before)
    assert 100 * sum(map(abs, moves)) / number <= change + margin(min(change, 50), number)
    assert not any(move < 0 < after - before or move > 0 > after - before for move in moves)


@given(seeds, percentages)
def test_gateways_decide_alike(seed: int, percentage: int) -> None:
    """Two gateways with other requests between, and one that was started again, divide conversations alike."""
    weights = [100 - percentage, percentage]
    conversations = keys(20, seed)
    one, other = KeyedSplit(weights), KeyedSplit(weights)
    first = [one.choose(key) for key in conversations]
    for _ in range(7):
        other.choose(None)
    assert [other.choose(key) for key in reversed(conversations)] == first[::-1]
    assert [KeyedSplit(weights).choose(key) for key in conversations] == first


@given(percentages, st.integers(1, 300))
def test_requests_without_a_key_are_divided_exactly(percentage: int, start: int) -> None:
    """Without keys the split is that of the pattern: exact over any hundred requests."""
    weights = [100 - percentage, percentage]
    split, turns = KeyedSplit(weights), balancing.pattern(weights)
    chosen = [split.choose(None) for _ in range(start + 100)]
    assert chosen == [turns[turn % 100] for turn in range(start + 100)]
    assert sum(chosen[start:]) == percentage


@settings(max_examples=20, derandomize=True)
@given(st.integers(5, 95), seeds)
def test_requests_without_a_key_make_up_for_the_others(percentage: int, seed: int) -> None:
    """With as many requests without a key as there are conversations, the split of all is exact to a few requests."""
    split = KeyedSplit([100 - percentage, percentage])
    remote = sum(split.choose(key) + split.choose(None) for key in keys(1000, seed))
    assert abs(remote - 20 * percentage) <= 60


@pytest.mark.parametrize("percentage", [1, 30, 50, 99])
def test_a_long_conversation_counts_once(percentage: int) -> None:
    """A conversation of thousands of requests changes nothing in the split of all others."""
    split = KeyedSplit([100 - percentage, percentage])
    (key,) = keys(1, 7)
    remote = 0
    for _ in range(2000):
        split.choose(key)
        remote += split.choose(None)
    assert abs(remote - 20 * percentage) <= 2


def test_conversations_are_remembered_up_to_a_bound() -> None:
    """A conversation that has had no request for long is forgotten, and counts again."""
    split = KeyedSplit([50, 50])
    first, *others = keys(RECENT_KEYS + 1, 1)
    for key in itertools.chain([first], others):
        split.choose(key)
    assert len(split._recent) == RECENT_KEYS
    assert first not in split._recent


def test_no_backend_waits_for_long() -> None:
    """After thousands of conversations on one side, the other one gets fifty requests in a row at most to make up."""
    split = KeyedSplit([50, 50])
    local = [key for key in keys(12000, 3) if part(key, [50, 50]) == 0]
    for key in local:
        split.choose(key)
    chosen = [split.choose(None) for _ in range(200)]
    assert sum(chosen[:40]) == 40
    assert sum(chosen[100:]) == 50


@pytest.mark.parametrize("weights", [[0, 0, 0, 100], [0, 100], [100, 0], [100]])
def test_a_backend_without_weight_gets_nothing(weights: list[int]) -> None:
    """A backend whose weight is 0 gets no request, with or without a key."""
    split = KeyedSplit(weights)
    chosen = {split.choose(None) for _ in range(200)} | {split.choose(key) for key in keys(200, 1)}
    assert chosen == {weights.index(100)}


def test_weights_that_are_no_split() -> None:
    """Weights that sum up to less than 100 leave keys without a backend."""
    with pytest.raises(ValueError, match="must sum up to 100"):
        part(b"\xff" * KEY_BYTES, [1, 1])
