"""Tokens of a request as its response says them: the object `usage` of the APIs of OpenAI and Anthropic.

It is searched for by its name, and only that object is parsed: a quote within a string of JSON is escaped, so `"usage"`
in front of a colon is a key.
"""

from typing import Final, NamedTuple

import orjson

from gateway.http.exchange import RequestHead, ResponseHead, field

USAGE_BYTES: Final = 1024
"""Bytes of the largest usage that is read."""
MOST_LOOKS: Final = 100
"""Largest number of keys of that name that are looked at in one text."""
MOST_TOKENS: Final = 10**9
"""Largest number of tokens that a response is believed to have."""

_KEY: Final = b'"usage"'
_NUMBER: Final = b'_tokens"'
"""End of the names of all fields of a usage that have a number of tokens."""
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
    """Return the usage in a text, which is a response or a part of one; None without one.

    Of several the last one counts, and an earlier one for what that one leaves out: Anthropic's API has the tokens of
    the prompt in the first event and those of the completion near the end. Servers that imitate it may have 0 for the
    prompt at one of both places.
    """
    if text.rfind(_NUMBER) < 0:  # as nearly all of a long stream
        return None
    usage: TokenUsage | None = None
    end = len(text)
    for _ in range(MOST_LOOKS):
        end = text.rfind(_KEY, 0, end)
        if end < 0:
            break
        start = end + len(_KEY)
        piece = text[start : start + USAGE_BYTES].lstrip(_SPACE)
        if piece.startswith(b":"):
            usage = completed(usage, _parsed(piece[1:].lstrip(_SPACE)))
            if usage is not None and usage.prompt and usage.completion is not None:
                break
    return usage


def completed(usage: TokenUsage | None, earlier: TokenUsage | None) -> TokenUsage | None:
    """Return a usage with what it leaves out from one that the response has said earlier."""
    if usage is None or earlier is None:
        return earlier if usage is None else usage
    prompt = usage.prompt or earlier.prompt
    return TokenUsage(
        usage.prompt if prompt is None else prompt,
        earlier.completion if usage.completion is None else usage.completion,
    )


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
