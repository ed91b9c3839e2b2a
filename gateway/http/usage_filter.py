"""Filter of an event stream that takes the event out of it with which OpenAI's API names the tokens of a request.

The gateway has asked for that event and the client has not. All other bytes stay as they are, and each event goes on
once it is complete.
"""

import re
from typing import Final

import orjson

EVENT_BYTES: Final = 8192
"""Bytes of the largest event that may be the one with the tokens; a larger one is passed on as it comes."""

_KEY: Final = b'"usage"'
_NO_CHOICES: Final = re.compile(rb'"choices"[ \t]*:[ \t]*\[[ \t]*\]')
_BLOCK_END: Final = re.compile(rb"(?>\r\n|\r|\n){2}")
_LEAD: Final = re.compile(rb"(?:(?::[^\r\n]*)?(?>\r\n|\r|\n)|\xef\xbb\xbf)+")
"""Regular expression for blank lines, comments and a byte order mark in front of an event."""
_TAIL_BYTES: Final = 3
"""Bytes of an event that is passed on in pieces which may belong to the blank line behind it."""


class UsageFilter:
    """Filter of one event stream."""

    __slots__ = ("_after_cr", "_dropped", "_held", "_passes", "_tail")

    def __init__(self) -> None:
        self._held = b""
        """Beginning of an event whose end has not arrived."""
        self._passes = False
        """Whether the present event is passed on in pieces."""
        self._tail = b""
        """Last bytes that were passed on of that event."""
        self._after_cr = False
        """Whether a line feed that comes next belongs to the last event."""
        self._dropped = False
        """Whether the last event was taken out."""

    def add(self, data: bytes) -> bytes:
        """Take the next piece of the stream; return what the client gets of the stream now."""
        if self._passes:
            return self._pass(data)
        if not self._held and not self._after_cr and data.endswith(b"\n\n") and _NO_CHOICES.search(data) is None:
            return data
        pieces: list[bytes] = []
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                if not self._dropped:
                    pieces.append(b"\n")
                data = data[1:]
        text = self._held + data
        start = 0
        while True:
            lead = _LEAD.match(text, start)
            if lead is not None:
                pieces.append(lead.group())
                start = lead.end()
            end = _BLOCK_END.search(text, start)
            if end is None:
                break
            event = text[start : end.end()]
            start = end.end()
            self._dropped = is_usage(event)
            self._after_cr = start == len(text) and event.endswith(b"\r")
            if not self._dropped:
                pieces.append(event)
        rest = text[start:]
        if len(rest) > EVENT_BYTES:
            self._passes = True
            self._tail = rest[-_TAIL_BYTES:]
            pieces.append(rest)
            rest = b""
        self._held = rest
        return b"".join(pieces)

    def finish(self) -> bytes:
        """Take the end of the stream; return what the client gets before it."""
        held, self._held = self._held, b""
        return b"" if is_usage(held) else held

    def _pass(self, data: bytes) -> bytes:
        """Pass on the next piece of an event that is too large to be looked at, and what follows it."""
        text = self._tail + data
        end = _BLOCK_END.search(text)
        if end is None:
            self._tail = text[-_TAIL_BYTES:]
            return data
        cut = end.end() - len(self._tail)
        self._passes = self._dropped = False
        passed = data[:cut]
        self._after_cr = cut == len(data) and passed.endswith(b"\r")
        return passed + self.add(data[cut:])


def is_usage(event: bytes) -> bool:
    """Return whether an event has the tokens of the request and nothing of the response."""
    if len(event) > EVENT_BYTES or event.find(_KEY) < 0 or _NO_CHOICES.search(event) is None:
        return False
    lines = [line[5:] for line in event.splitlines() if line.startswith(b"data:")]
    try:
        content = orjson.loads(b"\n".join(lines))
    except orjson.JSONDecodeError:
        return False
    return isinstance(content, dict) and content.get("choices") == [] and isinstance(content.get("usage"), dict)
