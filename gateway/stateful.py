"""Requests that refer to an earlier response, which only the server that made it has.

OpenAI's Responses API keeps responses at the server: a later request continues one by `previous_response_id`, or reads,
cancels or deletes it under `/v1/responses/{id}`. A request whose kind cannot be seen counts as such a request, so that
none reaches a backend that it must not reach.
"""

import re
from collections.abc import Collection
from enum import Enum
from typing import Final
from urllib.parse import unquote_to_bytes

import orjson

from gateway.body_text import scanned, text_of
from gateway.http.exchange import Exchange
from gateway.model_names.json_scanner import MOST_PLACES, PIECE_BYTES
from gateway.model_names.path import VERSION, words_of

_KEY: Final = "previous_response_id"
_KEYS: Final = frozenset({_KEY.encode()})
_VALUE: Final = re.compile(rb'[ \t\r\n]*:[ \t\r\n]*(?:(null)(?=[ \t\r\n,}])|"([^"\\]{1,256})")?')
_ID: Final = re.compile(rb"/responses/+([^/?;]+)", re.IGNORECASE)
UNKNOWN: Final = b""
"""Id of a response that a request refers to and that cannot be read."""
_OPERATIONS: Final = frozenset({b"input_tokens", b"compact"})
"""Words that follow `responses` in a path and are no ids: what they mean is in the body."""


class Place(Enum):
    """Place of a path in the Responses API."""

    COLLECTION = "collection"
    """`/v1/responses`, and operations whose body has all that they are about."""
    RESPONSE = "response"
    """`/v1/responses/{id}` and below."""


def may_be(target: bytes) -> bool:
    """Return whether a target may have a path of the Responses API, by a look that costs next to nothing."""
    return target.find(b"%") >= 0 or target.lower().find(b"responses") >= 0  # `in` takes longer on bytes


def place(target: bytes, prefixes: Collection[bytes] = (b"",)) -> Place | None:
    """Return the place of a target in the Responses API; None where it has none.

    A segment is compared as servers do it: decoded, and without regard to case and parameters.

    Args:
        target: Request target.
        prefixes: Paths that backends have in front of the target, with which it may have a place.
    """
    segments = words_of(target.partition(b"?")[0])
    if b"responses" not in segments:
        return None
    for prefix in prefixes:
        before = words_of(prefix)
        words = [*before, *segments]
        for index in range(max(1, len(before)), len(words)):
            if words[index] != b"responses":
                continue
            if words[index - 1] != b"openai" and not VERSION.fullmatch(words[index - 1]):
                continue
            below = words[index + 1 :]
            return Place.COLLECTION if not below or below[0] in _OPERATIONS else Place.RESPONSE
    return None


def id_in_path(target: bytes) -> bytes:
    """Return the id of the response that a path names; `UNKNOWN` where it cannot be read."""
    found = _ID.search(target)
    return UNKNOWN if found is None else unquote_to_bytes(found.group(1))


async def reference(exchange: Exchange, decoded: bytes | None, limit: int) -> bytes | None:
    """Return the id of the earlier response that a request to create one refers to; None where it refers to none.

    It is `UNKNOWN` where the request may refer to one.

    Args:
        exchange: Exchange with the request.
        decoded: The body without its content coding, where it was decoded already.
        limit: Bytes that the body may have.

    Raises:
        errors.GatewayError: The body cannot be read.
    """
    text = await text_of(exchange, decoded, limit)
    if text is None:
        return UNKNOWN
    if not _may_have_key(text):
        return None
    if len(text) <= PIECE_BYTES:
        try:
            parsed = orjson.loads(text)
        except orjson.JSONDecodeError:
            pass
        else:
            return _reference_of(parsed) if isinstance(parsed, dict) else None
    scanner = await scanned(text, _KEYS)
    scanner.finish()
    if scanner.problem is not None or len(scanner.places) == MOST_PLACES:
        return UNKNOWN
    found: bytes | None = None
    for _, position in scanner.places:
        value = _VALUE.match(text, position)
        if value is None or value.group(1) is None:
            found = UNKNOWN if value is None else value.group(2) or UNKNOWN
    return found


def _reference_of(body: dict[str, object]) -> bytes | None:
    found: bytes | None = None
    for key, value in body.items():
        if value is not None and key.casefold() == _KEY:
            found = value.encode("utf-8", "surrogatepass") if isinstance(value, str) else UNKNOWN
    return found


def _may_have_key(text: bytes) -> bool:
    """Return whether the key may be in a text: in any case, with an escape or a long s, or in a wide encoding."""
    return _KEY.encode() in text.lower() or b"\\u" in text or b"\xc5\xbf" in text or b"\0" in text[:4]
