"""Tokens of a request, as responses of the APIs of OpenAI and Anthropic say them."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.exchange import RequestHead, ResponseHead
from gateway.http.token_usage import (
    MOST_LOOKS,
    MOST_TOKENS,
    TokenUsage,
    completed,
    may_have_usage,
    usage_in,
)

CHAT = b'{"id":"a","choices":[{"message":{"content":"hi"}}],"usage":{"prompt_tokens":7,"completion_tokens":3}}'

RESPONSES = {
    "chat": (CHAT, TokenUsage(7, 3)),
    "with details": (
        (
            b'{"usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10,'
            b' "prompt_tokens_details": {"cached_tokens": 4}, "completion_tokens_details": {"reasoning_tokens": 1}}}'
        ),
        TokenUsage(7, 3),
    ),
    "embeddings": (
        b'{"object":"list","data":[],"usage":{"prompt_tokens":8,"total_tokens":8}}',
        TokenUsage(8, None),
    ),
    "responses": (
        b'{"usage" :\n{"input_tokens":5,"input_tokens_details":{"cached_tokens":2},"output_tokens":9}}',
        TokenUsage(5, 9),
    ),
    "messages with a cache": (
        (
            b'{"usage":{"input_tokens":5,"cache_creation_input_tokens":10,"cache_read_input_tokens":100,'
            b'"cache_creation":{"ephemeral_5m_input_tokens":10},"output_tokens":2,"service_tier":"standard"}}'
        ),
        TokenUsage(115, 2),
    ),
    "within another object": (b'{"choices":[],"x_groq":{"id":"a","usage":{"prompt_tokens":1}}}', TokenUsage(1, None)),
    "the last of several": (
        (
            b'data: {"usage":{"prompt_tokens":1,"completion_tokens":1}}\n\n'
            b'data: {"usage":{"prompt_tokens":1,"completion_tokens":2}}\n\ndata: [DONE]\n\n'
        ),
        TokenUsage(1, 2),
    ),
    "null behind it": (b'{"usage":{"prompt_tokens":1}}\n{"usage":null}', TokenUsage(1, None)),
    "a value of that name": (b'{"usage":{"prompt_tokens":1},"kind":"usage"}', TokenUsage(1, None)),
    "none": (b'{"id":"a"}', None),
    "in a string": (b'{"content":"\\"usage\\":{\\"prompt_tokens\\":1}"}', None),
    "cut": (b'{"usage":{"prompt_tokens":1', None),
    "no object": (b'{"usage":[1]}', None),
    "no JSON": (b'{"usage":{prompt_tokens:1}}', None),
    "no numbers": (b'{"usage":{"prompt_tokens":"1","completion_tokens":true}}', None),
    "negative": (b'{"usage":{"prompt_tokens":-1,"completion_tokens":4}}', TokenUsage(None, 4)),
    "too many": (b'{"usage":{"prompt_tokens":%d,"completion_tokens":1.5}}' % (MOST_TOKENS + 1), None),
    "empty": (b"", None),
}


@pytest.mark.parametrize("name", RESPONSES)
def test_usage_of_responses(name: str) -> None:
    """Usage is read as each API writes it, and nothing else is taken for it."""
    body, usage = RESPONSES[name]
    assert usage_in(body) == usage


@given(st.text(), st.integers(0, MOST_TOKENS), st.integers(0, MOST_TOKENS))
def test_no_text_of_a_model_is_taken_for_its_usage(text: str, prompt: int, completion: int) -> None:
    """Whatever a model says, the usage is that of its server."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    said = orjson.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 1}}).decode() + text
    body = orjson.dumps({"usage": usage, "choices": [{"message": {"content": said}}]})
    assert usage_in(body) == TokenUsage(prompt, completion)


@pytest.mark.parametrize("place", [0, 10_000, 20_000])
def test_usage_stands_anywhere(place: int) -> None:
    """A usage is found wherever a long response has it."""
    usage = b'"usage":{"prompt_tokens":1}'
    assert usage_in(b"%b,%b,%b" % (b"x" * place, usage, b"x" * (20_000 - place))) == TokenUsage(1, None)


def test_usage_of_parts_of_a_stream() -> None:
    """A stream of Anthropic's API has the tokens of the prompt near its beginning; others have both near the end."""
    ping = b'event: ping\ndata: {"type": "ping"}\n\n'
    start = b'event: message_start\ndata: {"message":{"usage":{"input_tokens":25,"output_tokens":1}}}\n\n'
    delta = b'event: message_delta\ndata: {"usage":{"output_tokens":15}}\n\nevent: message_stop\ndata: {}\n\n'
    last = b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3}}\n\ndata: [DONE]\n\n'
    assert usage_in(start + delta) == usage_in(ping + start + ping + delta) == TokenUsage(25, 15)
    assert completed(usage_in(delta), usage_in(ping + start)) == TokenUsage(25, 15)
    assert usage_in(start + last) == completed(usage_in(last), usage_in(start)) == TokenUsage(2, 3)
    assert usage_in(start) == completed(usage_in(b"data: {}\n\n"), usage_in(start)) == TokenUsage(25, 1)
    assert usage_in(delta) == TokenUsage(None, 15)


def test_a_prompt_of_no_tokens_gives_way() -> None:
    """Servers that imitate Anthropic's API may have 0 for the prompt in one of both events; the other one counts."""
    start = b'event: message_start\ndata: {"message":{"usage":{"input_tokens":%d,"output_tokens":0}}}\n\n'
    delta = b'event: message_delta\ndata: {"usage":{"input_tokens":%d,"output_tokens":15}}\n\n'
    for first, last, prompt in ((25, 0, 25), (0, 25, 25), (0, 0, 0)):
        assert usage_in(start % first + delta % last) == TokenUsage(prompt, 15)
        assert completed(usage_in(delta % last), usage_in(start % first)) == TokenUsage(prompt, 15)
    assert usage_in(delta % 0) == completed(usage_in(delta % 0), TokenUsage(None, 1)) == TokenUsage(0, 15)


def test_the_search_has_a_bound() -> None:
    """Of a text with very many keys of that name only the last ones are looked at."""
    usage = b'"usage":{"prompt_tokens":1,"completion_tokens":1},'
    assert usage_in(usage + b'"usage":null,' * (MOST_LOOKS - 1)) == TokenUsage(1, 1)
    assert usage_in(usage + b'"usage":null,' * MOST_LOOKS) is None


@pytest.mark.parametrize(
    ("method", "status", "fields", "may"),
    [
        (b"POST", 200, ((b"content-type", b"application/json"),), True),
        (b"POST", 200, ((b"content-type", b"Application/JSON; charset=utf-8"),), True),
        (b"GET", 200, ((b"content-type", b"application/json"),), False),
        (b"POST", 400, ((b"content-type", b"application/json"),), False),
        (b"POST", 200, ((b"content-type", b"audio/mpeg"),), False),
        (b"POST", 200, (), False),
        (b"POST", 200, ((b"content-type", b"application/json"), (b"content-encoding", b"gzip")), False),
    ],
)
def test_responses_that_may_have_usage(
    method: bytes, status: int, fields: tuple[tuple[bytes, bytes], ...], may: bool
) -> None:
    """Only JSON that can be read, in response to a POST, is kept to be searched."""
    request = RequestHead(method, b"/", "model", b"model", (), 1, None, False)
    assert may_have_usage(request, ResponseHead(status, b"", fields, None)) is may
