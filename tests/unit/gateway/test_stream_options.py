"""Requests for streams that are made to ask for the tokens they take."""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.exchange import RequestHead
from gateway.model_names.scanner import FoundName, Notation
from gateway.requested_model import RequestedModel
from gateway.stream_options import MOST_BYTES, ask_for_usage, may_ask

OPTIONS = {"include_usage": True}
MEMBER = b',"stream_options":{"include_usage":true}'


class Body:
    """Exchange with a request whose body is in memory."""

    def __init__(self, content: bytes, *fields: tuple[bytes, bytes]) -> None:
        self.content = content
        self.size = len(content)
        self.head = head(fields=fields, content_length=len(content))

    def whole_body(self) -> bytes:
        """Return the body."""
        return self.content

    def replace_body(self, content: bytes) -> None:
        """Put other bytes in the place of the body."""
        self.content = content


def head(
    method: bytes = b"POST", fields: tuple[tuple[bytes, bytes], ...] = (), content_length: int | None = 2
) -> RequestHead:
    """Return the head of a request."""
    return RequestHead(method, b"/", "model", b"model", fields, 1, content_length, content_length is None)


async def asked(content: bytes, model: RequestedModel | None = None, limit: int = MOST_BYTES) -> Any:
    """Return whether a body was changed, and the body."""
    body: Any = Body(content)
    changed = await ask_for_usage(body, model, limit)
    return changed, body.content


CHANGED = {
    "none": (b'{"model":"a","stream":true}', b'{"model":"a","stream":true' + MEMBER + b"}"),
    "white space": (b' {"stream" : true}\r\n', b' {"stream" : true' + MEMBER + b"}\r\n"),
    "null": (b'{"stream_options": null,"stream":true}', b'{"stream_options": {"include_usage":true},"stream":true}'),
    "empty": (b'{"stream_options":{},"stream":true}', b'{"stream_options":{"include_usage":true},"stream":true}'),
    "others": (
        '{"stream":true,"a":"ä","stream_options":{"a":"}ä","b":{}}}'.encode(),
        '{"stream":true,"a":"ä","stream_options":{"a":"}ä","b":{},"include_usage":true}}'.encode(),
    ),
    "false": (
        b'{"stream":true,"stream_options" : {"include_usage":false} ,"b":1}',
        b'{"stream":true,"stream_options" : {"include_usage":true} ,"b":1}',
    ),
    "an escape": (
        b'{"stream":true,"stream_\\u006fptions":{}}',
        b'{"stream":true,"stream_\\u006fptions":{"include_usage":true}}',
    ),
    "another below": (
        b'{"stream":true,"a":{"stream_options":{"include_usage":true}}}',
        b'{"stream":true,"a":{"stream_options":{"include_usage":true}}' + MEMBER + b"}",
    ),
}


@pytest.mark.parametrize("name", CHANGED)
async def test_bodies_that_are_changed(name: str) -> None:
    """A body that does not ask for usage is made to, and keeps all its other bytes."""
    content, expected = CHANGED[name]
    assert (await asked(content))[:2] == (True, expected)


@pytest.mark.parametrize(
    "content",
    [
        b'{"stream":true,"stream_options":{"include_usage":true}}',
        b'{"stream":false}',
        b'{"stream":"true"}',
        b'{"a":{"stream":true}}',
        b'{"stream":true,"stream_options":"all"}',
        b'{"stream":true,"stream_options":{},"stream_options":{}}',
        b'[{"stream":true}]',
        b'{"stream":true',
        b'\xef\xbb\xbf{"stream":true}',
        b"",
        b'{"stream":true,"stream_options":{"a":%b%b}}' % (b"[" * 300, b"]" * 300),
        b'{"stream":true,"stream_options":%b1%b}' % (b'{"a":' * 1010, b"}" * 1010),
        b'{"a":"%b","stream":true}' % (b"x" * MOST_BYTES),
    ],
    ids=lambda content: content[:48].decode("latin-1"),
)
async def test_bodies_that_are_not_changed(content: bytes) -> None:
    """A body stays as it is that asks already, asks for no stream, cannot be read, or is too large."""
    assert (await asked(content))[:2] == (False, content)


async def test_no_body_grows_above_the_limit_of_its_route() -> None:
    """A body that would be too large with the option stays as it is."""
    content = b'{"stream":true}'
    assert not (await asked(content, limit=len(content) + len(MEMBER) - 1))[0]
    assert (await asked(content, limit=len(content) + len(MEMBER)))[0]


@pytest.mark.parametrize(
    "content", [b'{"stream_options":{},"model":"a","stream":true}', b'{"model":"a","stream":true}']
)
async def test_the_name_of_the_model_is_found_at_its_new_place(content: bytes) -> None:
    """The place of the model's name moves with the body, so that it is still replaced for a backend."""
    start = content.index(b'"a"')
    place = FoundName("a", Notation.JSON, start, start + 3)
    model = RequestedModel("a", place)
    _, changed = await asked(content, model)
    assert model.in_body is not None
    assert changed[model.in_body.start : model.in_body.end] == b'"a"'


@given(
    st.dictionaries(st.text(), st.none() | st.text() | st.lists(st.integers(0, 9)), max_size=5),
    st.none() | st.dictionaries(st.text(), st.text(), max_size=3) | st.just(OPTIONS),
    st.booleans(),
)
async def test_any_body_means_the_same_but_for_the_option(
    members: dict[str, Any], options: dict[str, Any] | None, indented: bool
) -> None:
    """Whatever else is in a body, it means the same afterwards, with the option."""
    members = {**members, "stream": True} | ({} if options is None else {"stream_options": options})
    content = orjson.dumps(members, option=orjson.OPT_INDENT_2 if indented else 0)
    changed, after = await asked(content)
    assert changed is (options != OPTIONS)
    assert orjson.loads(after) == members | {"stream_options": {**(options or {}), **OPTIONS}}


async def test_fields_of_a_changed_request() -> None:
    """Digests of the old body are left out, and no stream with a content coding is asked for."""
    fields = ((b"accept-encoding", b"gzip"), (b"content-digest", b"x"), (b"accept", b"*/*"))
    for content, expected in (
        (b'{"stream":true}', ((b"accept", b"*/*"), (b"accept-encoding", b"identity"))),
        (b'{"stream":false}', fields),
    ):
        body: Any = Body(content, *fields)
        await ask_for_usage(body, None, MOST_BYTES)
        assert body.head.fields == expected


@pytest.mark.parametrize(
    ("request_head", "target", "may"),
    [
        (head(), b"/v1/chat/completions", True),
        (head(), b"/v1/completions?a=b", True),
        (head(content_length=None), b"/openai/deployments/a/chat/completions", True),
        (head(), b"/v1/messages", False),
        (head(), b"/v1/responses", False),
        (head(), b"/v1/embeddings?a=/completions", False),
        (head(b"GET", content_length=0), b"/v1/chat/completions", False),
        (head(content_length=MOST_BYTES + 1), b"/v1/completions", False),
        (head(fields=((b"content-encoding", b"gzip"),)), b"/v1/completions", False),
    ],
)
def test_requests_that_may_ask(request_head: RequestHead, target: bytes, may: bool) -> None:
    """Only POSTs of bodies that can be read to paths of completions are looked at."""
    assert may_ask(request_head, target) is may
