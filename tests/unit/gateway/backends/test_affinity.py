"""Affinity: backends and pods by the conversations that requests belong to, and pods by the prefixes of prompts."""

import hashlib
import itertools
from collections import Counter
from dataclasses import dataclass
from math import sqrt

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.affinity import best_hit_rate, by_conversation, by_prefix, less_busy_of_two, outcome, read_trace
from gateway.backends import balancing
from gateway.backends.affinity import (
    KEY_BYTES,
    LEAST_BOUND,
    MOST_HOLDERS,
    RECENT_KEYS,
    KeyedSplit,
    PrefixIndex,
    bound,
    part,
    preferred,
)

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


@dataclass
class FakePod:
    """Pod with a number of requests in flight."""

    name: str
    in_flight: int = 0


def pods(number: int) -> list[FakePod]:
    """Return so many idle pods."""
    return [FakePod(f"demo-{index}") for index in range(number)]


def blocks(*numbers: int) -> list[bytes]:
    """Return blocks of a prompt."""
    return [number.to_bytes(8, "big") for number in numbers]


@settings(max_examples=20, derandomize=True)
@given(st.integers(1, 12), seeds)
def test_conversations_are_spread_over_pods(number: int, seed: int) -> None:
    """Every pod gets its share of the conversations, whatever side of the split they are on."""
    those = pods(number)
    conversations = [key for key in keys(2000, seed) if part(key, [50, 50])]
    counts = Counter(preferred(those, key).name for key in conversations)
    mean = len(conversations) / number
    assert all(abs(counts[pod.name] - mean) <= 5 * sqrt(mean) for pod in those)


@settings(max_examples=20, derandomize=True)
@given(st.integers(2, 10), st.data())
def test_a_pod_that_goes_takes_only_its_conversations_along(number: int, data: st.DataObject) -> None:
    """When a pod goes, its conversations go elsewhere and all others stay; when it is back, so are they."""
    those = pods(number)
    gone = data.draw(st.sampled_from(those))
    left = [pod for pod in those if pod is not gone]
    for key in keys(100, number):
        before = preferred(those, key)
        after = preferred(left, key)
        assert after is not gone
        assert before in (after, gone)


@given(st.lists(st.integers(0, 30), min_size=1, max_size=12), seeds)
def test_no_pod_above_its_bound_gets_a_conversation(loads: list[int], seed: int) -> None:
    """A pod with a quarter more requests than the mean gets no other, and below the bounds gateways agree."""
    those = [FakePod(f"demo-{index}", load) for index, load in enumerate(loads)]
    (key,) = keys(1, seed)
    chosen = preferred(those, key)
    assert chosen.in_flight < bound(those)
    assert bound(those) >= LEAST_BOUND
    assert bound(those) - 1 < max(LEAST_BOUND, 1.25 * (sum(loads) + 1) / len(loads))
    below = [pod for pod in those if pod.in_flight < bound(those)]
    assert chosen.name == preferred([FakePod(pod.name) for pod in below], key).name
    assert PrefixIndex().choose(those, key, blocks(1, 2)).in_flight < bound(those)


def test_a_prompt_goes_to_the_pod_that_has_its_beginning() -> None:
    """The pod with most of the beginning gets a prompt; what follows a block that it does not have does not count."""
    index, those = PrefixIndex(), pods(4)
    one, other, third = keys(3, 5)
    first = index.choose(those, one, blocks(0, 1, 2, 3))
    first.in_flight = 3
    second = index.choose(those, other, blocks(0, 7, 8, 9))
    assert second is not first
    first.in_flight = 0
    assert index.choose(those, third, blocks(0, 1, 2, 4)) is first
    assert index.choose(those, third, blocks(0, 7, 8, 9, 3)) is second
    first.in_flight = 3
    assert index.choose(those, third, blocks(0, 1)) is not first  # a request in flight weighs as much as a block


def test_a_prompt_that_no_pod_has_goes_to_the_least_busy_one() -> None:
    """Without a block in common the pod with the fewest requests gets a prompt, the same one in every gateway."""
    for key in keys(20, 1):
        those = pods(3)
        assert PrefixIndex().choose(those, key, []).name == preferred(those, key).name
        those[0].in_flight = those[2].in_flight = 1
        assert PrefixIndex().choose(those, key, blocks(1)) is those[1]


@settings(max_examples=20)
@given(st.lists(st.lists(st.integers(0, 40), max_size=12), max_size=30))
def test_the_index_has_a_bound(prompts: list[list[int]]) -> None:
    """The index keeps as many blocks as it may, those of the last prompts, and a few pods for each."""
    index, those = PrefixIndex(8), pods(40)
    for number, prompt in enumerate(prompts):
        index.choose(those[number % 40 :], b"k" * KEY_BYTES, blocks(*prompt))
        assert len(index) <= 8
        assert all(len(holders) <= MOST_HOLDERS for holders in index._holders.values())
        if prompt:
            assert blocks(prompt[0])[0] in index._holders


def test_the_trace_of_a_conversation_service() -> None:
    """On ten minutes of a trace, choosing by prefix has 0.85 of the best hit rate known, and loads all pods alike."""
    requests = read_trace(limit=2000)
    best = best_hit_rate(requests)
    prefix, conversation = outcome(requests, by_prefix()), outcome(requests, by_conversation)
    assert prefix.hit_rate >= 0.85 * best
    assert prefix.busiest <= 1.25
    assert conversation.busiest <= 1.25
    assert best > prefix.hit_rate > conversation.hit_rate > 1.5 * outcome(requests, less_busy_of_two()).hit_rate
