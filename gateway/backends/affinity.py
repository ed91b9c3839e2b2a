"""Affinity: requests of one conversation go to the same backend, so that it finds their beginning in its cache.

A key says to which conversation a request belongs: `KEY_BYTES` bytes that look random and are the same in every
gateway. Nothing here draws random numbers, so that several gateways, and one that was started again, decide alike.
"""

from collections.abc import Sequence
from typing import Final

from gateway.backends.balancing import CYCLE

KEY_BYTES: Final = 16
"""Bytes of a key."""
RECENT_KEYS: Final = 4096
"""Conversations that are remembered, each of which counts once for the split."""
MOST_CREDIT: Final = 50 * CYCLE
"""Credit that a backend can have or owe: 50 requests, so that none waits long for its share."""

_BITS: Final = 32


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
