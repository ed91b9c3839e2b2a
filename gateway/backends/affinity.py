"""Affinity: requests of one conversation go to the same backend, so that it finds their beginning in its cache.

A key says to which conversation a request belongs: `KEY_BYTES` bytes that look random and are the same in every
gateway. Nothing here draws random numbers, so that several gateways, and one that was started again, decide alike.
"""

import zlib
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar

from gateway.backends.balancing import CYCLE
from gateway.backends.pods import Choice, Pod

KEY_BYTES: Final = 16
"""Bytes of a key."""
RECENT_KEYS: Final = 4096
"""Conversations that are remembered, each of which counts once for the split."""
MOST_CREDIT: Final = 50 * CYCLE
"""Credit that a backend can have or owe: 50 requests, so that none waits long for its share."""

BLOCK_BYTES: Final = 8
"""Bytes of the digest of one block of a prompt."""
LEAST_BOUND: Final = 4
"""Requests in flight that a pod may have however few there are in all, so that chance alone moves no conversation."""
MOST_BLOCKS: Final = 32768
"""Blocks of prompts that are remembered."""
MOST_HOLDERS: Final = 16
"""Pods that are remembered for one block: the last ones that got it."""

_BITS: Final = 32
_MASK: Final = (1 << _BITS) - 1


class Loaded(Protocol):
    """What counts of a pod here."""

    @property
    def name(self) -> str:
        """Name by which all gateways know it."""
        ...

    @property
    def in_flight(self) -> int:
        """Requests that it has now from this gateway."""
        ...


_Pod = TypeVar("_Pod", bound=Loaded)


class KeyedSplit:
    """Division of requests between backends by weight: those with a key by the key, and all others exactly.

    A key belongs to the backend in whose part of the whole it lies. Where the percentage changes by some points, the
    conversations of so many points move. Requests without a key make up for what keys leave uneven; a conversation
    counts once while it is remembered, so that a long one does not send all others elsewhere.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        """Divide by weights that sum up to 100."""
        self._weights = tuple(weights)
        self._credit = [0] * len(self._weights)
        """Requests that each backend is behind its share, in hundredths."""
        self._recent: dict[bytes, None] = {}
        """Conversations that have counted, the one whose last request is the longest ago first."""

    def choose(self, key: bytes | None) -> int:
        """Return the index of the backend for a request with this key, or without one."""
        credit = self._credit
        if key is None:
            for index, weight in enumerate(self._weights):
                credit[index] += weight
            chosen = 0
            for index in range(1, len(credit)):
                if self._weights[index] and (credit[index] > credit[chosen] or not self._weights[chosen]):
                    chosen = index
            credit[chosen] = max(credit[chosen] - CYCLE, -MOST_CREDIT)
            return chosen
        chosen = part(key, self._weights)
        recent = self._recent
        if key in recent:
            del recent[key]
        else:
            if len(recent) >= RECENT_KEYS:
                del recent[next(iter(recent))]
            for index, weight in enumerate(self._weights):
                credit[index] = min(credit[index] + weight, MOST_CREDIT)
            credit[chosen] = max(credit[chosen] - CYCLE, -MOST_CREDIT)
        recent[key] = None
        return chosen


def part(key: bytes, weights: Sequence[int]) -> int:
    """Return the index of the weight in whose part of the whole a key lies; the weights sum up to 100."""
    place = int.from_bytes(key[:4], "big") * CYCLE
    end = 0
    for index, weight in enumerate(weights):
        end += weight
        if place < end << _BITS:
            return index
    raise ValueError(f"weights must sum up to {CYCLE}, got {list(weights)}")


def bound(pods: Sequence[Loaded]) -> int:
    """Return how many requests in flight a pod may have that gets another one: a quarter more than the mean.

    The one with the fewest is always below it.
    """
    total = sum(pod.in_flight for pod in pods) + 1
    return max(LEAST_BOUND, -(-5 * total // (4 * len(pods))))


def preferred(pods: Sequence[_Pod], key: bytes) -> _Pod:
    """Return the pod of a conversation: the first one in the key's own order of pods that is below the bound.

    Where a pod comes or goes, only the conversations that it gets or had go elsewhere: no other order changes.
    This is rendezvous hashing, with bounded loads. https://arxiv.org/abs/1608.01350
    """
    most = bound(pods)
    chosen, best = pods[0], -1
    for pod in pods:
        if pod.in_flight < most and (rank := _rank(key, pod.name)) > best:
            chosen, best = pod, rank
    return chosen


class ByConversation:
    """Choice of the pod of the request's conversation (`gateway.backends.pods.Choice`)."""

    def __init__(self, otherwise: Choice) -> None:
        """Choose as `otherwise` does where a request has no key."""
        self._otherwise = otherwise

    def __call__(self, pods: Sequence[Pod], key: bytes | None, /) -> Pod:
        """Return one of `pods`."""
        return self._otherwise(pods, None) if key is None else preferred(pods, key)


class ByPrefix:
    """Choice of the pod that has most of the beginning of the request's prompt (`gateway.backends.pods.Choice`).

    The blocks of the prompt follow the key of the conversation.
    """

    def __init__(self, otherwise: Choice) -> None:
        """Choose as `otherwise` does where a request has no key."""
        self._otherwise = otherwise
        self._index = PrefixIndex()

    def __call__(self, pods: Sequence[Pod], key: bytes | None, /) -> Pod:
        """Return one of `pods`."""
        if key is None:
            return self._otherwise(pods, None)
        if len(key) <= KEY_BYTES:
            return preferred(pods, key)
        blocks = [key[start : start + BLOCK_BYTES] for start in range(KEY_BYTES, len(key), BLOCK_BYTES)]
        return self._index.choose(pods, key, blocks)


class PrefixIndex:
    """Index of the beginnings of prompts by the pods that have had them, of one gateway.

    A prompt is cut into blocks, whose digests stand for all of the prompt up to their end.
    """

    def __init__(self, most: int = MOST_BLOCKS) -> None:
        """Know no block yet, and `most` at a time."""
        self._most = most
        self._holders: dict[bytes, tuple[str, ...]] = {}
        """Names of the pods that have had a block, the last one first; the block that came the longest ago first."""

    def __len__(self) -> int:
        """Return the number of blocks that are remembered."""
        return len(self._holders)

    def choose(self, pods: Sequence[_Pod], key: bytes, blocks: Sequence[bytes]) -> _Pod:
        """Return the pod for a prompt, and remember that it gets it.

        It is the one below the bound that has the most blocks of its beginning, where a request in flight weighs as
        much as a block. Of equal ones it is the first in the key's own order.
        """
        depths = self._depths(blocks)
        most = bound(pods)
        chosen = pods[0]
        best: tuple[int, int] | None = None
        for pod in pods:
            if pod.in_flight < most:
                worth = depths.get(pod.name, 0) - pod.in_flight, _rank(key, pod.name)
                if best is None or worth > best:
                    chosen, best = pod, worth
        self._remember(chosen.name, blocks)
        return chosen

    def _depths(self, blocks: Sequence[bytes]) -> dict[str, int]:
        """Return how many blocks of the beginning each pod has that has the first one."""
        depths: dict[str, int] = {}
        left: tuple[str, ...] | list[str] | None = None
        for block in blocks:
            holders = self._holders.get(block, ())
            left = holders if left is None else [name for name in left if name in holders]
            if not left:
                break
            for name in left:
                depths[name] = depths.get(name, 0) + 1
        return depths

    def _remember(self, name: str, blocks: Sequence[bytes]) -> None:
        """Note that a pod gets these blocks. The end of a prompt is forgotten before its beginning, as in the pod."""
        for block in reversed(blocks):
            holders = self._holders.pop(block, ())
            if not holders or holders[0] != name:
                holders = (name, *[other for other in holders if other != name][: MOST_HOLDERS - 1])
            self._holders[block] = holders
        while len(self._holders) > self._most:
            del self._holders[next(iter(self._holders))]


def _rank(key: bytes, name: str) -> int:
    """Return the place of a pod in the order of a key, as a number that looks random.

    Other bytes of the key count than for the split, so that the two have nothing to do with each other.
    """
    value = int.from_bytes(key[4:8], "big") ^ zlib.crc32(name.encode())
    # The end of MurmurHash3, by which every bit of the number changes with every bit of the value.
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)
