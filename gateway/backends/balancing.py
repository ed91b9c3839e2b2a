"""Weighted choice of a backend, exact and without randomness.

Each request of a route takes the next turn, counted 0, 1, 2, …, and each turn belongs to one backend. The pattern of
turns repeats after a hundred and spreads the turns of each backend evenly, so any hundred consecutive requests are
split exactly by weight.
"""

from collections.abc import Sequence
from typing import Final

CYCLE: Final = 100
"""Turns after which the pattern repeats: the sum of the weights."""


def pattern(weights: Sequence[int]) -> tuple[int, ...]:
    """Return the index of the backend for each of a hundred turns; nothing when no weight is above zero.

    This is smooth weighted round robin: each turn goes to the backend that is furthest behind its share, and to the
    first of those that are equally far behind.

    Raises:
        ValueError: A weight is negative, or the weights sum up to neither 0 nor 100.
    """
    if any(weight < 0 for weight in weights) or sum(weights) not in (0, CYCLE):
        raise ValueError(f"weights must sum up to {CYCLE} or 0, got {list(weights)}")
    if not any(weights):
        return ()
    credit = [0] * len(weights)
    turns = []
    for _ in range(CYCLE):
        for index, weight in enumerate(weights):
            credit[index] += weight
        chosen = max(range(len(weights)), key=lambda index: (credit[index], -index))
        credit[chosen] -= CYCLE
        turns.append(chosen)
    return tuple(turns)


def choose(turns: Sequence[int], turn: int) -> int | None:
    """Return the index of the backend that `turn` belongs to in a `pattern`; None when the pattern is empty."""
    return turns[turn % CYCLE] if turns else None
