"""Which requests ask for a stream."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.exchange import RequestHead
from gateway.http.stream_request import asks_for_stream

JSON = ((b"content-type", b"application/json"),)


def head(method: bytes = b"POST", fields: tuple[tuple[bytes, bytes], ...] = JSON, length: int = 10) -> RequestHead:
    """Return the head of a request."""
    return RequestHead(method, b"/v1/chat/completions", "x", b"x", fields, 1, length, False)


@pytest.mark.parametrize(
    ("body", "asks"),
    [
        (b'{"stream": true}', True),
        (b'{"stream":true,"model":"a"}', True),
        (b'{"messages": [], "stream" \n:\t true}', True),
        (b'{"stream": false}', False),
        (b'{"stream": null}', False),
        (b'{"stream_options": {"include_usage": true}}', False),
        (b'{"type": "stream", "stream": true}', True),
        (b'{"type": "stream"}', False),
        (b'{"content": "\\"stream\\": true"}', False),
        (b"", False),
    ],
)
def test_the_member(body: bytes, asks: bool) -> None:
    """The member `stream` with the value true asks for a stream, and nothing in a string does."""
    assert asks_for_stream(head(), body) is asks


def test_heads() -> None:
    """Only a POST with a body can ask; a JSON body that is not here yet counts as one that does."""
    assert asks_for_stream(head(), None)
    assert not asks_for_stream(head(fields=((b"content-type", b"multipart/form-data"),)), None)
    assert not asks_for_stream(head(fields=()), None)
    assert not asks_for_stream(head(b"GET"), b'{"stream": true}')
    assert not asks_for_stream(head(length=0), b"")


@given(
    st.dictionaries(st.text(max_size=9), st.text(max_size=20) | st.booleans(), max_size=4), st.none() | st.booleans()
)
@settings(max_examples=50, deadline=None)
def test_any_object(members: dict[str, object], stream: bool | None) -> None:
    """Of any object it is the member of that name that decides, however the object is written."""
    members.pop("stream", None)
    body = json.dumps(members if stream is None else members | {"stream": stream}, ensure_ascii=False)
    assert asks_for_stream(head(), body.encode("utf-8", "surrogatepass")) is bool(stream)
