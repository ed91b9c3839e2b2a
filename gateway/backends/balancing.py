"""Which backend a request goes to: exact shares, no dice.

The turns of a route count 0, 1, 2, … and each belongs to one backend. The pattern repeats after a hundred turns and
spreads each backend's turns evenly, so any hundred consecutive requests are split exactly by weight.
"""

from collections.abc import Sequence
from typing import Final

CYCLE: Final = 100
"""Turns after which the pattern repeats: the sum of the weights."""


def pattern(weights: Sequence[int]) -> tuple[int, ...]:
    """Which index each of a hundred turns belongs to; empty when no weight is above zero.

    The smooth weighted round robin: each turn goes to the one that is furthest behind its share, the first of equals.

    Raises:
        ValueError: a weight is negative, or they sum up to neither 0 nor 100.
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
    """The index that `turn` belongs to in a `pattern`; None when there is nobody to choose."""
    return turns[turn % CYCLE] if turns else None
