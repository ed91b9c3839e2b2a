"""Requests that ask for a stream: `"stream": true` in a JSON body, as the APIs of OpenAI and Anthropic have it."""

from typing import Final

import orjson

from gateway.http.exchange import RequestHead, field

_MEMBER: Final = b'"stream"'
_SPACE: Final = b" \t\r\n"
_MOST_SPACE: Final = 64
"""Bytes behind the name of the member that are looked at."""
_EVENT_PATHS: Final = (b"/completions", b"/responses", b"/messages", b"/images/generations")
"""Ends of paths whose responses are event streams where the request asks for a stream."""


def asks_for_stream(head: RequestHead, content: bytes | None) -> bool:
    """Return whether a request asks for a stream.

    The body is searched rather than parsed: within a string its quotes would be escaped, and a member of this name in
    an inner object is not known. A JSON body that is not whole yet counts as one that asks for a stream.

    Args:
        head: Head of the request.
        content: Body without its content coding; None where it is not in memory.
    """
    if head.method != b"POST" or not head.has_body:
        return False
    if content is None:
        kind = field(head.fields, b"content-type")
        return kind is not None and kind[:16].lower() == b"application/json"
    start = content.find(_MEMBER)
    while start >= 0:
        start += len(_MEMBER)
        rest = content[start : start + _MOST_SPACE].lstrip(_SPACE)
        if rest[:1] == b":" and rest[1:].lstrip(_SPACE)[:4] == b"true":
            return True
        start = content.find(_MEMBER, start)
    return False


def expects_events(head: RequestHead, content: bytes) -> bool:
    """Return whether a POST can have no response but an event stream, but for an error.

    Either its Accept field names nothing else, or it is a request of OpenAI's or Anthropic's API that asks for a
    stream. In doubt it cannot: a client that waits for JSON must not get events.

    Args:
        head: Head of the request.
        content: Whole body without its content coding.
    """
    if head.method != b"POST":
        return False
    accepted = [value for name, value in head.fields if name == b"accept"]
    if len(accepted) == 1 and accepted[0].partition(b";")[0].strip().lower() == b"text/event-stream":
        return b"," not in accepted[0]
    if not head.target.partition(b"?")[0].removesuffix(b"/").endswith(_EVENT_PATHS):
        return False
    if not asks_for_stream(head, content):
        return False
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        return False
    return isinstance(parsed, dict) and parsed.get("stream") is True
