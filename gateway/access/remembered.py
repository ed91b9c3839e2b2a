"""Tokens that were verified, by their digests, so that a request with one of them costs no second verification."""

from typing import Final

from gateway.access.caller import Caller

MOST_TOKENS: Final = 4096
"""Largest number of tokens that are remembered; when there is another one, the oldest is verified again."""


class RememberedTokens:
    """Callers of tokens that were verified."""

    __slots__ = ("_callers",)

    def __init__(self) -> None:
        self._callers: dict[bytes, tuple[float, Caller]] = {}
        """Callers with the time at which their token counts no more, by the SHA-256 digest of the token."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self._callers)

    def find(self, digest: bytes, now: float) -> Caller | None:
        """Return the caller of a token at the time `now`; None where it is not known, or not any more."""
        found = self._callers.get(digest)
        if found is None:
            return None
        if found[0] > now:
            return found[1]
        del self._callers[digest]
        return None

    def add(self, digest: bytes, caller: Caller, until: float) -> None:
        """Remember the caller of a token until a time."""
        if len(self._callers) >= MOST_TOKENS:
            del self._callers[next(iter(self._callers))]
        self._callers[digest] = until, caller

    def clear(self) -> None:
        """Forget all of them: other keys are in force."""
        self._callers.clear()
