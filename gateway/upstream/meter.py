"""Meter of a response: the times between the reads of its body, and the tokens that the body says it has."""

from typing import Final

from gateway.http.token_usage import USAGE_BYTES, TokenUsage, completed, usage_in

KEPT_BYTES: Final = 2048
"""Bytes of a body that are kept before a usage is looked for in them."""
_OVERLAP_BYTES: Final = USAGE_BYTES + 16
"""Bytes that are looked at a second time, together with what follows them: a usage may have begun in them."""
_MOST_PIECES: Final = 64
"""Pieces of a body that are kept apart before they are joined."""


class ResponseMeter:
    """Meter of one response whose body passes.

    The time between two events is that between two reads: events that arrive together count as one. All times are
    seconds on the clock of the event loop.
    """

    __slots__ = ("_found", "_keeps", "_older", "_pieces", "_size", "gaps", "last", "longest", "seconds")

    def __init__(self, *, keeps: bool) -> None:
        """Measure nothing yet; tokens are looked for in a body that can be read, of which parts are kept for that."""
        self.last = 0.0
        """Time of the last read; 0 before the first one."""
        self.gaps = 0
        """Number of times between two reads so far."""
        self.seconds = 0.0
        """Sum of these times."""
        self.longest = 0.0
        """Longest of these times."""
        self._keeps = keeps
        self._found: TokenUsage | None = None
        """Tokens that were found in what came before the pieces that are kept."""
        self._older = b""
        """End of what came before these pieces: a usage may have begun in it."""
        self._pieces: list[bytes] = []
        self._size = 0
        """Bytes of these pieces."""

    def arrived(self, now: float) -> None:
        """Take note of a read that brought a part of the body."""
        if self.last:
            gap = now - self.last
            self.seconds += gap
            self.gaps += 1
            if gap > self.longest:
                self.longest = gap
        self.last = now

    def resumed(self, now: float) -> None:
        """Take note that the body is read again: the time for which the client was slow is none of the backend's."""
        if self.last:
            self.last = now

    def keep(self, data: bytes) -> None:
        """Keep a piece of the body until tokens are looked for in it, together with the pieces around it."""
        if not self._keeps:
            return
        pieces = self._pieces
        pieces.append(data)
        self._size += len(data)
        if self._size >= KEPT_BYTES:
            text = b"".join((self._older, *pieces))
            self._found = completed(usage_in(text), self._found)
            self._older = text[-_OVERLAP_BYTES:]
            self._pieces = []
            self._size = 0
        elif len(pieces) >= _MOST_PIECES:
            self._pieces = [b"".join(pieces)]

    @property
    def mean(self) -> float | None:
        """Mean time between two events; None where there were less than two."""
        return self.seconds / self.gaps if self.gaps else None

    def usage(self) -> TokenUsage | None:
        """Return the tokens that the response has named so far; None where it has named none."""
        if not self._keeps:
            return None
        return completed(usage_in(b"".join((self._older, *self._pieces))), self._found)
