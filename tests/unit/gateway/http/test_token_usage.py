"""Tokens of a request, as responses of the APIs of OpenAI and Anthropic say them."""

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.exchange import RequestHead, ResponseHead
from gateway.http.token_usage import (
    END_BYTES,
    MOST_TOKENS,
    TokenUsage,
    may_have_usage,
    usage_in,
    usage_of_response,
    usage_of_stream,
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
    assert usage_of_response(body) == usage


@given(st.text(), st.integers(0, MOST_TOKENS), st.integers(0, MOST_TOKENS))
def test_no_text_of_a_model_is_taken_for_its_usage(text: str, prompt: int, completion: int) -> None:
    """Whatever a model says, the usage is that of its server."""
    usage = {"prompt_tokens": prompt, "completion_tokens": completion}
    said = orjson.dumps({"usage": {"prompt_tokens": 1, "completion_tokens": 1}}).decode() + text
    body = orjson.dumps({"usage": usage, "choices": [{"message": {"content": said}}]})
    assert usage_in(body) == TokenUsage(prompt, completion)


def test_a_long_response_is_searched_at_its_end_and_its_beginning() -> None:
    """Of a long response the end counts, then the beginning, where some servers have the usage; the middle does not."""
    long = b'"' + b"x" * 3 * END_BYTES + b'"'
    usage = b'"usage":{"prompt_tokens":1}'
    assert usage_of_response(b'{"content":%b,%b}' % (long, usage)) == TokenUsage(1, None)
    assert usage_of_response(b'{%b,"content":%b}' % (usage, long)) == TokenUsage(1, None)
    assert usage_of_response(b'{"content":%b,%b,"more":%b}' % (long, usage, long)) is None


def test_usage_of_streams() -> None:
    """A stream of Anthropic's API has the tokens of the prompt in its first event; others have both near the end."""
    start = b'event: message_start\ndata: {"message":{"usage":{"input_tokens":25,"output_tokens":1}}}'
    delta = b'event: message_delta\ndata: {"usage":{"output_tokens":15}}\n\nevent: message_stop\ndata: {}\n\n'
    last = b'data: {"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":3}}\n\ndata: [DONE]\n\n'
    assert usage_of_stream(start, delta) == TokenUsage(25, 15)
    assert usage_of_stream(b"", last) == usage_of_stream(start, last) == TokenUsage(2, 3)
    assert usage_of_stream(start, b"data: {}\n\n") == TokenUsage(25, 1)
    assert usage_of_stream(b"", delta) == TokenUsage(None, 15)
    assert usage_of_stream(b"", b"") is None


def test_a_prompt_of_no_tokens_gives_way() -> None:
    """Servers that imitate Anthropic's API may have 0 for the prompt in one of both events; the other one counts."""
    start = b'event: message_start\ndata: {"message":{"usage":{"input_tokens":%d,"output_tokens":0}}}'
    delta = b'event: message_delta\ndata: {"usage":{"input_tokens":%d,"output_tokens":15}}\n\n'
    for first, last, prompt in ((25, 0, 25), (0, 25, 25), (0, 0, 0)):
        assert usage_of_stream(start % first, delta % last) == TokenUsage(prompt, 15)
    assert usage_of_stream(b"", delta % 0) == TokenUsage(0, 15)


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
