"""Event streams (HTML Living Standard 9.2): which responses are one, and where their first event is.

Head and comments of a stream say nothing about the response: servers send them at once and may work for minutes before
the first event.
"""

from typing import Final

from gateway.http.exchange import ResponseHead, field
from gateway.http.usage_filter import UsageFilter

EVENT_BYTES: Final = 16384
"""Bytes within which an event has to be complete to be looked at."""

_MARK: Final = b"\xef\xbb\xbf"
"""Byte order mark that may stand at the beginning of a stream."""
_ALONE: Final = frozenset({b"id", b"retry"})
"""Names of fields that make no event by themselves."""


def is_event_stream(head: ResponseHead) -> bool:
    """Return whether a response is an event stream without a known end."""
    return head.status == 200 and head.content_length is None and _has_events(head)


def can_go_on(head: ResponseHead) -> bool:
    """Return whether the body of a response can follow events and comments that the client has already got."""
    return head.status == 200 and _has_events(head) and is_readable(head)


def _has_events(head: ResponseHead) -> bool:
    kind = field(head.fields, b"content-type")
    return kind is not None and kind[:17].lower() == b"text/event-stream"


def is_readable(head: ResponseHead) -> bool:
    """Return whether the gateway can read the events of an event stream: they have no content coding."""
    return not field(head.fields, b"content-encoding")


class FirstEvent:
    """Search for the first event of an event stream, in the pieces of the stream as they arrive.

    Comments are no events, nor are blocks that have only the fields `id` and `retry`.
    """

    __slots__ = ("_after_cr", "_begun", "_counts", "_lines", "_readable", "_rest", "_size", "event", "found")

    def __init__(self, *, readable: bool = True) -> None:
        """Begin the search; where a stream is not `readable`, its first byte counts as its first event."""
        self.found = False
        """Whether the event is complete, or has become too large to be looked at."""
        self.event = b""
        """Lines of the event once it is found; empty where it cannot be looked at."""
        self._readable = readable
        self._begun = False
        """Whether what stands at the beginning was looked at."""
        self._lines: list[bytes] = []
        """Lines of the present block, without comments."""
        self._size = 0
        """Bytes of these lines."""
        self._counts = False
        """Whether the present block is an event."""
        self._rest = b""
        """Beginning of a line whose end has not arrived."""
        self._after_cr = False
        """Whether a line feed that comes next belongs to the end of the line before it."""

    def add(self, data: bytes) -> bool:
        """Take the next piece of the stream; return whether the first event is found."""
        if self.found or not data:
            return self.found
        if not self._readable:
            self.found = True
            return True
        if not self._begun:
            if data.startswith(b"data:") and not self._rest:
                end = data.find(b"\n\n")  # nearly all streams begin so
                if end >= 0 and data.find(b"\r", 0, end) < 0:
                    return self._find(data[:end])
            data = self._rest + data
            if _MARK.startswith(data):
                self._rest = data
                return False
            self._begun = True
            self._rest = b""
            data = data.removeprefix(_MARK)
        if self._after_cr:
            self._after_cr = False
            data = data.removeprefix(b"\n")
        cut = max(data.rfind(b"\n"), data.rfind(b"\r")) + 1
        if cut:
            for line in (self._rest + data[:cut]).splitlines():
                if self._ends_with(line):
                    return self._find(b"\n".join(self._lines))
            self._rest = data[cut:]
            self._after_cr = not self._rest and data.endswith(b"\r")
        else:
            self._rest += data
        if self._size + len(self._rest) >= EVENT_BYTES:
            return self._find(b"")
        return False

    def _ends_with(self, line: bytes) -> bool:
        """Take one line; return whether it is the end of an event."""
        if not line:
            if self._counts:
                return True
            self._lines = []
            self._size = 0
        elif not line.startswith(b":"):
            self._lines.append(line)
            self._size += len(line)
            if line.partition(b":")[0] not in _ALONE:
                self._counts = True
        return False

    def _find(self, event: bytes) -> bool:
        self.found = True
        self.event = event
        self._lines = []
        self._rest = b""
        return True

    @property
    def unfinished(self) -> bytes:
        """Stream that means the same as what has arrived, without its comments, as long as nothing is found."""
        end = b"\r" if self._after_cr else b"\n"
        lines = b"\n".join(self._lines) + end if self._lines else b""
        unfinished = lines + self._rest
        if self._begun and unfinished.startswith(_MARK[:1]):
            return b"\n" + unfinished  # at the beginning it would be a byte order mark
        return unfinished


class MarkFilter:
    """Filter of an event stream before which the client has got comments.

    It takes out the byte order mark, which is none behind them: a client would take it for a part of the first line.
    """

    __slots__ = ("_begun", "_held", "_next")

    def __init__(self, following: UsageFilter | None) -> None:
        """Look at the beginning of the stream; all of it goes through `following` then."""
        self._next = following
        self._held = b""
        """Beginning of the stream while it may be that of a mark."""
        self._begun = False
        """Whether the beginning was looked at."""

    def add(self, data: bytes) -> bytes:
        """Take the next piece of the stream; return what the client gets of the stream now."""
        if not self._begun:
            data = self._held + data
            if len(data) < len(_MARK) and _MARK.startswith(data):
                self._held = data
                return b""
            self._held = b""
            self._begun = True
            data = data.removeprefix(_MARK)
        return data if self._next is None else self._next.add(data)

    def finish(self) -> bytes:
        """Take the end of the stream; return what the client gets before it."""
        return self._held if self._next is None else self._held + self._next.finish()
