"""Forms of the gateway's own errors: that of OpenAI, and that of Anthropic on the paths of its API."""

from collections.abc import Iterator

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway import errors

KINDS = {
    "invalid_request_error", "authentication_error", "permission_error", "not_found_error", "request_too_large",
    "rate_limit_error", "api_error", "overloaded_error", "timeout_error",
}  # fmt: skip


def every(kind: type[errors.GatewayError]) -> Iterator[type[errors.GatewayError]]:
    """Yield an error class and all classes below it."""
    yield kind
    for below in kind.__subclasses__():
        yield from every(below)


ALL = tuple(every(errors.GatewayError))


@pytest.mark.parametrize(
    ("target", "anthropic"),
    [
        (b"/v1/messages", True),
        (b"/v1/messages?beta=true", True),
        (b"/v1/messages/", True),
        (b"/v1/messages/count_tokens", True),
        (b"/v1/messages/batches/msgbatch_1/cancel?x=/", True),
        (b"/default/demo/v1/messages", True),
        (b"/anthropic/v1/messages/batches", True),
        (b"http://gateway/v1/messages", True),
        (b"", False),
        (b"*", False),
        (b"/", False),
        (b"/v1/message", False),
        (b"/v1/messagesx", False),
        (b"/xv1/messages", False),
        (b"/v1/threads/1/messages", False),
        (b"/v1/chat/completions?x=/v1/messages", False),
    ],
)
def test_paths_of_anthropic(target: bytes, anthropic: bool) -> None:
    """A target is of Anthropic's API where its path has /v1/messages as whole segments, behind any prefix."""
    assert errors.is_anthropic(target) is anthropic


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_each_error_in_each_form(kind: type[errors.GatewayError]) -> None:
    """Every error has a message, its stable code and the request's id in both forms, and one of Anthropic's types."""
    error = kind()
    openai = orjson.loads(errors.body(error, "id", b"/v1/chat/completions"))
    assert openai == {
        "error": {"message": error.message, "type": error.kind, "code": error.code, "param": None, "request_id": "id"}
    }
    content = orjson.loads(errors.body(error, "id", b"/v1/messages"))
    assert list(content) == ["type", "error", "request_id"]
    assert (content["type"], content["request_id"]) == ("error", "id")
    kind_of_anthropic = content["error"].pop("type")
    assert content["error"] == {"message": error.message, "details": {"error_code": error.code}}
    assert kind_of_anthropic in KINDS
    assert (kind_of_anthropic in ("api_error", "overloaded_error")) is (error.status >= 500 and error.status != 504)


@pytest.mark.parametrize(
    ("kind", "type_"),
    [
        (errors.MalformedRequest, "invalid_request_error"),
        (errors.AmbiguousModel, "invalid_request_error"),
        (errors.HeadTooLarge, "invalid_request_error"),
        (errors.ModelNotFound, "not_found_error"),
        (errors.BodyTimeout, "timeout_error"),
        (errors.BodyTooLarge, "request_too_large"),
        (errors.GatewayError, "api_error"),
        (errors.CredentialsFailed, "api_error"),
        (errors.AtCapacity, "overloaded_error"),
        (errors.FirstByteTimeout, "timeout_error"),
        (errors.FirstTokenTimeout, "timeout_error"),
    ],
)
def test_anthropics_type_follows_the_status(kind: type[errors.GatewayError], type_: str) -> None:
    """The type of an error in Anthropic's form is the one that Anthropic has for its status."""
    assert orjson.loads(errors.body(kind(), "id", b"/v1/messages"))["error"]["type"] == type_


def test_fields_beside_an_error() -> None:
    """Fields say what an error allows, when to come again and, to Anthropic's clients, which request it was."""
    type_ = (b"content-type", b"application/json")
    assert errors.fields(errors.GatewayError(), "id") == [type_]
    assert errors.fields(errors.ReadOnly(), "id") == [type_, (b"allow", b"GET, HEAD")]
    assert errors.fields(errors.MethodNotAllowed(), "id")[1] == (b"allow", errors.MethodNotAllowed.allow)
    assert errors.fields(errors.WebSocketVersionRefused(), "id") == [type_, (b"sec-websocket-version", b"13")]
    assert errors.fields(errors.NoBackend(retry_after=7), "id", b"/v1/messages") == [
        type_, (b"retry-after", b"7"), (b"request-id", b"id"),
    ]  # fmt: skip


LASTING = {errors.AmbiguousModel, errors.NotImplementedMethod, errors.VersionNotSupported, errors.LoopDetected}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: kind.__name__)
def test_clients_are_told_where_trying_again_is_in_vain(kind: type[errors.GatewayError]) -> None:
    """An error of the request whose status clients try again says so, and no other, since those may pass."""
    assert ((b"x-should-retry", b"false") in errors.fields(kind(), "id")) is (kind in LASTING)
    again = kind.status in (408, 409, 429) or kind.status >= 500
    assert not kind.lasting or again


@pytest.mark.parametrize(
    ("tail", "plain", "named"),
    [
        (b"", b"data: {}\n\n", b"event: error\ndata: {}\n\n"),
        (b"1\n\n", b"data: {}\n\n", b"event: error\ndata: {}\n\n"),
        (b"\r\n\r\n", b"data: {}\n\n", b"event: error\ndata: {}\n\n"),
        (b"a: 1", b"\nevent: error\ndata: {}\n\n", b"\nevent: error\ndata: {}\n\n"),
        (b": 1\n", b"event: error\ndata: {}\n\n", b"event: error\ndata: {}\n\n"),
        (b"1\r\n", b"event: error\ndata: {}\n\n", b"event: error\ndata: {}\n\n"),
    ],
)
def test_the_last_event_of_a_broken_stream(tail: bytes, plain: bytes, named: bytes) -> None:
    """An event that was cut becomes part of the error event, which has a name then, and else where it is asked for."""
    assert errors.last_event(tail, b"{}") == plain
    assert errors.last_event(tail, b"{}", named=True) == named


@pytest.mark.parametrize(
    ("status", "content", "message", "code", "kind"),
    [
        (429, b'{"error": {"message": "slow", "code": "limit"}}', "status 429: slow", "limit", "rate_limit_error"),
        (503, b'{"message": "full", "code": 503}', "status 503: full", "503", "server_error"),
        (422, b'{"detail": "no model"}', "status 422: no model", "422", "invalid_request_error"),
        (422, b'{"detail": [{"loc": ["body"]}]}', "status 422.", "422", "invalid_request_error"),
        (404, b'{"error": "not here"}', "status 404: not here", "404", "invalid_request_error"),
        (500, b'{"error": {"message": "cut off', "status 500.", "500", "server_error"),
        (500, b"[1]", "status 500.", "500", "server_error"),
        (503, b"no healthy\r\nupstream\n", "status 503: no healthy upstream", "503", "server_error"),
        (502, b"<html>Bad Gateway</html>", "status 502.", "502", "server_error"),
        (502, b"\x1f\x8b\x08\0", "status 502.", "502", "server_error"),
        (302, b"", "status 302, but with no events that can be read.", "bad_response", "server_error"),
        (200, b'{"error": "x"}', "status 200, but with no events that can be read.", "bad_response", "server_error"),
    ],
)
def test_an_error_that_comes_too_late_for_its_status(
    status: int, content: bytes, message: str, code: str, kind: str
) -> None:
    """The error for a late response has its status and message, and the code where the backend has one."""
    error = orjson.loads(errors.late_body(status, content, "id", b"/v1/chat/completions"))["error"]
    assert error == {
        "message": f"The model's backend responded with {message}",
        "type": kind,
        "code": code,
        "param": None,
        "request_id": "id",
    }
    anthropic = orjson.loads(errors.late_body(status, content, "id", b"/v1/messages"))
    assert anthropic["error"]["message"] == error["message"]
    assert anthropic["error"]["type"] in KINDS
    assert anthropic["error"]["details"] == {"error_code": code}


@given(
    st.integers(100, 599),
    st.binary(max_size=60)
    | st.builds(
        lambda word, text: orjson.dumps({"error": {word: text}}),
        st.sampled_from(["message", "detail", "code"]),
        st.text() | st.none() | st.integers(0, 9) | st.text("x\n", min_size=1500, max_size=1600),
    ),
    st.sampled_from([b"/v1/messages", b"/v1/responses"]),
)
@settings(max_examples=60)
def test_whatever_a_late_response_says_the_error_is_one_short_line(status: int, content: bytes, target: bytes) -> None:
    """Any late response becomes one line of JSON of bounded size, which an event can hold."""
    body = errors.late_body(status, content, "id", target)
    assert len(body) < 16000
    assert b"\n" not in body
    assert b"\r" not in body
    assert len(orjson.loads(body)["error"]["message"]) < 1100
