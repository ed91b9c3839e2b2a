"""Meter of a response: the times between the reads of its body, and the parts of it that say how many tokens it has."""

from typing import Final

from gateway.http.token_usage import END_BYTES, TokenUsage, usage_of_stream

_MOST_PIECES: Final = 64
"""Pieces of a body that are kept apart before they are joined."""


class ResponseMeter:
    """Meter of one response whose body passes.

    The time between two events is that between two reads: events that arrive together count as one. All times are
    seconds on the clock of the event loop.
    """

    __slots__ = ("_keeps", "_older", "_pieces", "_size", "beginning", "gaps", "last", "longest", "seconds")

    def __init__(self, *, keeps: bool) -> None:
        """Measure nothing yet; the end of the body is looked at where it is kept."""
        self.beginning = b""
        """First event of a stream, or the beginning of another body; empty while it is not known."""
        self.last = 0.0
        """Time of the last read; 0 before the first one."""
        self.gaps = 0
        """Number of times between two reads so far."""
        self.seconds = 0.0
        """Sum of these times."""
        self.longest = 0.0
        """Longest of these times."""
        self._keeps = keeps
        self._older = b""
        """What came before the pieces that are kept, at least as much of it as is looked at."""
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
        """Keep a piece of the body for as long as it may be its end."""
        if not self._keeps:
            return
        pieces = self._pieces
        pieces.append(data)
        self._size += len(data)
        if self._size >= END_BYTES:
            self._older = b"".join(pieces)[-END_BYTES:]
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
        return usage_of_stream(self.beginning, b"".join((self._older, *self._pieces)))
