"""Spellings of the key `model`: the key itself, and what some readers take for it."""

from itertools import product
from typing import Final

KEY: Final = "model"
OTHER_CASES: Final = frozenset(map("".join, product(*zip(KEY, KEY.upper(), strict=True)))) - {KEY}
"""The key with letters in upper case: all that some readers take for it, of keys in ASCII that have no NUL."""


def is_lookalike(key: str) -> bool:
    """Return whether some readers take `key` for the key `model` although it is another one.

    Such readers ignore case (Go), characters that they cannot decode, or all that follows a NUL.
    """
    if key == KEY:
        return False
    if key.isascii() and "\0" not in key:
        return len(key) == 5 and key.lower() == KEY
    return "".join(letter for letter in key.partition("\0")[0] if letter.isascii()).lower() == KEY
