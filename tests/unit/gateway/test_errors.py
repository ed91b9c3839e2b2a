"""Forms of the gateway's own errors: that of OpenAI, and that of Anthropic on the paths of its API."""

from collections.abc import Iterator

import orjson
import pytest

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
