"""Which requests ask for a stream."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.http.exchange import RequestHead
from gateway.http.stream_request import asks_for_stream, expects_events

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


@pytest.mark.parametrize(
    ("target", "accept", "body", "expects"),
    [
        (b"/v1/chat/completions", b"", b'{"stream": true}', True),
        (b"/default/demo/v1/completions?x=1", b"", b'{"stream": true}', True),
        (b"/v1/responses/", b"*/*", b'{"stream": true}', True),
        (b"/v1/messages", b"application/json", b'{"stream": true}', True),
        (b"/v1/images/generations", b"", b'{"stream": true}', True),
        (b"/v1/messages/count_tokens", b"", b'{"stream": true}', False),
        (b"/api/chat", b"", b'{"stream": true}', False),
        (b"/v1/chat/completions", b"", b'{"stream": false}', False),
        (b"/v1/chat/completions", b"", b'{"stream": 1}', False),
        (b"/v1/chat/completions", b"", b'{"stream": true', False),
        (b"/v1/chat/completions", b"", b'[{"stream": true}]', False),
        (b"/v1/chat/completions", b"", b'{"tools": [{"stream": true}]}', False),
        (b"/v1/chat/completions", b"", b'{"stream": true, "stream": false}', False),
        (b"/anything", b"text/event-stream", b"{}", True),
        (b"/anything", b"Text/Event-Stream; q=1", b"{}", True),
        (b"/anything", b"text/event-stream, application/json", b"{}", False),
        (b"/anything", b"text/event-stream;q=0.5,application/json", b"{}", False),
        (b"/anything", b"application/json", b"{}", False),
    ],
)
def test_who_expects_events(target: bytes, accept: bytes, body: bytes, expects: bool) -> None:
    """Only a client that can get nothing but events expects them, by its path and body or by what it accepts."""
    fields = (*JSON, (b"accept", accept)) if accept else JSON
    for method in (b"POST", b"GET"):
        asked = RequestHead(method, target, "x", b"x", fields, 1, len(body), False)
        assert expects_events(asked, body) is (expects and method == b"POST")


def test_several_accept_fields_name_several_types() -> None:
    """A request whose Accept fields name several types may get something else than events."""
    fields = ((b"accept", b"text/event-stream"), (b"accept", b"application/json"))
    assert not expects_events(head(fields=fields), b"{}")
