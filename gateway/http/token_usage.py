"""Tokens of a request as its response says them: the object `usage` of the APIs of OpenAI and Anthropic.

It is searched for by its name, and only that object is parsed: a quote within a string of JSON is escaped, so `"usage"`
in front of a colon is a key.
"""

from typing import Final, NamedTuple

import orjson

from gateway.http.exchange import RequestHead, ResponseHead, field

END_BYTES: Final = 2048
"""Bytes of the end of a response, and of its beginning, in which its usage may stand."""
USAGE_BYTES: Final = 1024
"""Bytes of the largest usage that is read."""
MOST_TOKENS: Final = 10**9
"""Largest number of tokens that a response is believed to have."""

_KEY: Final = b'"usage"'
_SPACE: Final = b" \t\r\n"
_CACHED: Final = ("cache_creation_input_tokens", "cache_read_input_tokens")
"""Tokens of a prompt that Anthropic counts apart."""


class TokenUsage(NamedTuple):
    """Tokens of one request."""

    prompt: int | None
    """Tokens of the prompt; None where the response does not say them."""
    completion: int | None
    """Tokens of the completion; None where the response does not say them, as that to a request for embeddings."""


def may_have_usage(request: RequestHead, response: ResponseHead) -> bool:
    """Return whether a response may say tokens that the request took: it is JSON without a content coding."""
    if request.method != b"POST" or response.status != 200:
        return False
    kind = field(response.fields, b"content-type")
    if kind is None or kind[:16].lower() != b"application/json":
        return False
    return not field(response.fields, b"content-encoding")


def usage_in(text: bytes) -> TokenUsage | None:
    """Return the last usage in a text: a response, its end, or a part of an event stream; None without one."""
    end = len(text)
    while (found := text.rfind(_KEY, 0, end)) >= 0:
        end = found
        start = found + len(_KEY)
        piece = text[start : start + USAGE_BYTES].lstrip(_SPACE)
        if piece.startswith(b":"):
            usage = _parsed(piece[1:].lstrip(_SPACE))
            if usage is not None:
                return usage
    return None


def usage_of_response(body: bytes) -> TokenUsage | None:
    """Return the usage of a whole response, by its end or else its beginning; None without one."""
    if len(body) <= 2 * END_BYTES:
        return usage_in(body)
    return usage_in(body[-END_BYTES:]) or usage_in(body[:END_BYTES])


def usage_of_stream(beginning: bytes, end: bytes) -> TokenUsage | None:
    """Return the usage of an event stream by its first event and its end; None where it says nothing.

    Anthropic's API has the tokens of the prompt in the first event and those of the completion near the end. Servers
    that imitate it may have 0 for the prompt at one of both places.
    """
    last = usage_in(end)
    if last is not None and last.prompt:
        return last
    first = usage_in(beginning)
    if first is None or (last is not None and last.prompt is not None and not first.prompt):
        return last
    return TokenUsage(first.prompt, first.completion if last is None else last.completion)


def _parsed(text: bytes) -> TokenUsage | None:
    """Return the usage that is the object at the beginning of a text; None where there is none with numbers."""
    if not text.startswith(b"{"):
        return None
    end = opened = 0
    while True:
        after = text.find(b"}", end) + 1
        if not after:
            return None
        opened += text.count(b"{", end, after) - 1
        end = after
        if not opened:
            break
    try:
        fields = orjson.loads(text[:end])
    except orjson.JSONDecodeError:
        return None
    prompt, completion = _number(fields, "prompt_tokens"), _number(fields, "completion_tokens")
    if prompt is None:
        prompt = _number(fields, "input_tokens")
        if prompt is not None:
            for name in _CACHED:
                prompt += _number(fields, name) or 0
    if completion is None:
        completion = _number(fields, "output_tokens")
    return None if prompt is None and completion is None else TokenUsage(prompt, completion)


def _number(fields: dict[str, object], name: str) -> int | None:
    """Return the number of tokens that a field has; None without one that can be believed."""
    value = fields.get(name)
    return value if type(value) is int and 0 <= value <= MOST_TOKENS else None
