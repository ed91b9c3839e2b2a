"""Requests for streams that are made to ask for the tokens they take: `stream_options` of OpenAI's API.

A server names them in one more event, where `include_usage` is true. Only these requests are changed, and of their
bodies only this member.
"""

import json
from typing import Final

import orjson

from gateway.http.exchange import Exchange, RequestHead, field
from gateway.http.field_names import OF_CONTENT
from gateway.http.stream_request import asks_for_stream
from gateway.model_names.json_scanner import BLANK, JsonScanner
from gateway.requested_model import RequestedModel

MOST_BYTES: Final = 1 << 20
"""Bytes of the largest body that is changed."""
_PATH: Final = b"/completions"
"""Ending of the paths of chat completions and completions."""
_KEY: Final = b"stream_options"
_MEMBER: Final = b'"stream_options":{"include_usage":true}'
_COLON: Final = b":"


def may_ask(head: RequestHead, target: bytes) -> bool:
    """Return whether a request may be one for a stream of completions, by its head."""
    if head.method != b"POST" or not head.has_body or not target.partition(b"?")[0].endswith(_PATH):
        return False
    return (head.content_length or 0) <= MOST_BYTES and not field(head.fields, b"content-encoding")


async def ask_for_usage(exchange: Exchange, model: RequestedModel | None, limit: int) -> bool:
    """Make a request ask for the tokens of its stream; return whether it did not.

    Args:
        exchange: Exchange with the request, whose body is read.
        model: Model that the request asks for; its place in the body moves with the body.
        limit: Bytes that the body may have.

    Raises:
        errors.GatewayError: The body cannot be read.
    """
    index = 0
    while exchange.whole_body() is None:
        if exchange.size > MOST_BYTES or await exchange.read_next(index, limit) is None:
            break
        index += 1
    content = exchange.whole_body()
    if content is None or len(content) > MOST_BYTES or not asks_for_stream(exchange.head, content):
        return False
    change = _change(content)
    if change is None:
        return False
    start, end, member = change
    growth = len(member) - (end - start)
    if len(content) + growth > limit:
        return False
    exchange.replace_body(content[:start] + member + content[end:])
    head = exchange.head
    fields = tuple(one for one in head.fields if one[0] not in OF_CONTENT and one[0] != b"accept-encoding")
    exchange.head = head._replace(fields=(*fields, (b"accept-encoding", b"identity")))  # its events have to be read
    if model is not None and model.in_body is not None and model.in_body.start >= end:
        place = model.in_body
        model.in_body = place._replace(start=place.start + growth, end=place.end + growth)
    return True


def _change(content: bytes) -> tuple[int, int, bytes] | None:
    """Return what takes the place of which bytes of a body so that it asks for usage.

    None where it asks already, is no object that asks for a stream, or has options that are none or cannot be written.
    """
    try:
        body = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(body, dict) or body.get("stream") is not True:
        return None
    if _KEY.decode() not in body:
        end = len(content.rstrip(BLANK)) - 1
        return end, end, b"," + _MEMBER
    options = body[_KEY.decode()]
    if options is not None and (not isinstance(options, dict) or options.get("include_usage") is True):
        return None
    scanner = JsonScanner(frozenset({_KEY}))
    scanner.feed(content)
    if len(scanner.places) != 1:
        return None  # written twice
    behind = content[scanner.places[0][1] :]
    value = behind.lstrip(BLANK).removeprefix(_COLON).lstrip(BLANK)
    start = len(content) - len(value)
    try:
        member = orjson.dumps({**(options or {}), "include_usage": True})
        _, length = json.JSONDecoder().raw_decode(value.decode("utf-8", "surrogateescape"))
    except (TypeError, RecursionError):
        return None  # orjson writes less deeply nested options than it reads
    size = len(value.decode("utf-8", "surrogateescape")[:length].encode("utf-8", "surrogateescape"))
    return start, start + size, member
