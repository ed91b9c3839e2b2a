"""Errors of the gateway for clients of Anthropic's Messages API, seen by the `anthropic` client."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import orjson
import pytest

from gateway.api.v1alpha1 import Limits, RouteDocument
from tests.integration.gateway.wire import Running, document, gateway, local, reply
from tests.integration.servers import ServerSide, serving
from tests.late_import import LateImport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    import anthropic

    Call = Callable[[anthropic.AsyncAnthropic], Awaitable[Any]]
else:
    anthropic = LateImport("anthropic")

MESSAGES: Any = [{"role": "user", "content": "hello"}]
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@asynccontextmanager
async def client(running: Running, prefix: str = "", **values: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Yield a client that never retries by itself."""
    url = f"http://127.0.0.1:{running.port}{prefix}"
    async with anthropic.AsyncAnthropic(base_url=url, api_key="none", max_retries=0, **values) as ask:
        yield ask


def create(model: str = "demo", text: str = "hello") -> Call:
    """Return a call for one message."""
    messages: Any = [{"role": "user", "content": text}]
    return lambda ask: ask.messages.create(model=model, max_tokens=10, messages=messages)


def count(model: str = "demo") -> Call:
    """Return a call for the number of tokens of a message."""
    return lambda ask: ask.messages.count_tokens(model=model, messages=MESSAGES)


def batch(name: str = "msgbatch_1") -> Call:
    """Return a call for a batch of messages."""
    return lambda ask: ask.messages.batches.retrieve(name)


async def error_of(
    ask: anthropic.AsyncAnthropic, call: Call, kind: type[anthropic.APIStatusError]
) -> tuple[str | None, str | None]:
    """Return the type and the code of the error for a call that raises exactly `kind`, and check all else about it."""
    with pytest.raises(anthropic.APIStatusError) as caught:
        await call(ask)
    assert type(caught.value) is kind
    body: Any = caught.value.body
    assert set(body) == {"type", "error", "request_id"}
    assert body["type"] == "error"
    assert set(body["error"]) == {"type", "message", "details"}
    assert body["request_id"] == caught.value.response.headers["x-request-id"] == caught.value.request_id
    assert body["error"]["message"] == caught.value.api_message
    return caught.value.type, caught.value.error_code


async def test_an_unknown_model_by_each_way_to_a_model() -> None:
    """A model, path or host that leads nowhere is the client's NotFoundError."""
    async with gateway(RouteDocument(name="demo", backends=(local(),), service_names=("web",))) as running:
        async with client(running) as ask:
            for call in (create("other"), count("other")):
                error = await error_of(ask, call, anthropic.NotFoundError)
                assert error == ("not_found_error", "model_not_found")
        async with client(running, "/default/other") as ask:
            for call in (create(), count(), batch()):
                error = await error_of(ask, call, anthropic.NotFoundError)
                assert error == ("not_found_error", "route_not_found")
        async with client(running, default_headers={"Host": "web"}) as ask:
            error = await error_of(ask, batch(), anthropic.NotFoundError)
            assert error == ("not_found_error", "ambiguous_host")


@pytest.mark.parametrize(("prefix", "host"), [("", "gateway"), ("/default/demo", "gateway"), ("", "demo.default")])
async def test_errors_of_a_route_by_model_path_and_host(prefix: str, host: str) -> None:
    """Errors of a route have Anthropic's form, however the route was found."""
    limited = document(local(), limits=Limits(body_bytes=1000))
    async with gateway(limited) as running, client(running, prefix, default_headers={"Host": host}) as ask:
        error = await error_of(ask, create(text="a" * 2000), anthropic.ContentTooLargeError)
        assert error == ("request_too_large", "body_too_large")
        for call in (create(), count()):
            error = await error_of(ask, call, anthropic.InternalServerError)
            assert error == ("api_error", "connect_failed")


async def test_a_batch_has_no_model() -> None:
    """A call by model that names none is the client's BadRequestError."""
    async with gateway() as running, client(running) as ask:
        error = await error_of(ask, batch(), anthropic.BadRequestError)
        assert error == ("invalid_request_error", "model_missing")


async def test_a_message_that_is_no_request() -> None:
    """A request that is refused before it is one has Anthropic's form where its path had arrived."""
    async with gateway() as running:
        for target in (b"/v1/messages", b"/default/demo/v1/messages/count_tokens?beta=true"):
            response = await running.ask(b"POST %b HTTP/1.1\r\nHost: gateway\r\nContent-Length: x\r\n\r\n" % target)
            content = orjson.loads(response.body)
            assert (response.status, content["type"], content["error"]["type"]) == (
                400, "error", "invalid_request_error",
            )  # fmt: skip
            assert content["error"]["details"]["error_code"] == "malformed_request"
            assert response.value(b"request-id") == content["request_id"].encode()


async def test_errors_of_a_backend_stay_its_own() -> None:
    """An error of a backend on Anthropic's paths is relayed byte by byte."""
    body = b'{"type":"error","error":{"type":"overloaded_error","message":"so it is"}}'

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(reply(body, b"529 Overloaded", b"content-type: application/json", b"request-id: theirs"))

    async with serving(script) as server, gateway(local_port=server.port) as running, client(running) as ask:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await create()(ask)
        assert (caught.value.status_code, caught.value.request_id) == (529, "theirs")
        assert caught.value.body == orjson.loads(body)


def event(kind: str, **values: Any) -> bytes:
    """Return an event of a stream of messages."""
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), orjson.dumps({"type": kind, **values}))


BEGINNING = event(
    "message_start",
    message={
        "id": "msg_1", "type": "message", "role": "assistant", "model": "demo", "content": [], "stop_reason": None,
        "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 1},
    },
)  # fmt: skip
DELTA = event("content_block_start", index=0, content_block={"type": "text", "text": ""}) + event(
    "content_block_delta", index=0, delta={"type": "text_delta", "text": "Hel"}
)


@pytest.mark.parametrize("end", [b"", b"event: content_block_delta\n", b'event: content_block_delta\ndata: {"type":'])
@pytest.mark.parametrize("prefix", ["", "/default/demo"])
async def test_a_stream_that_dies_is_an_error_of_the_client(prefix: str, end: bytes) -> None:
    """A stream of messages whose backend dies raises an error in the client, and its last event is named `error`."""
    data = BEGINNING + DELTA + end

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM + b"%x\r\n%b\r\n" % (len(data), data))
        await side.read()
        side.reset()

    async with serving(script) as server, gateway(local_port=server.port) as running:
        pieces: list[str] = []

        async def stream(ask: anthropic.AsyncAnthropic) -> None:
            async with ask.messages.stream(model="demo", max_tokens=10, messages=MESSAGES) as stream:
                async for piece in stream.text_stream:
                    pieces.append(piece)  # noqa: PERF401 - what came before the error counts

        async with client(running, prefix) as ask:
            with pytest.raises(anthropic.APIStatusError) as caught:
                await stream(ask)
        assert pieces == ["Hel"]
        assert "upstream_reset" in str(caught.value)
        if not end.endswith(b":"):
            body: Any = caught.value.body
            assert body["type"] == "error"
            assert (caught.value.type, caught.value.error_code) == ("api_error", "upstream_reset")


async def test_a_stream_that_dies_byte_by_byte() -> None:
    """The last event of a stream on Anthropic's paths is `event: error` with Anthropic's form, whole by itself."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM + b"%x\r\n%b\r\n" % (len(BEGINNING), BEGINNING))
        await side.read()
        side.reset()

    async with serving(script) as server, gateway(local_port=server.port) as running:
        response = await running.post(
            b"/v1/messages?beta=true", b'{"model":"demo","stream":true}', b"X-Request-Id: one"
        )
        assert not response.complete
        head, last = response.body.split(b"event: error\ndata: ")
        assert head == BEGINNING
        assert last.endswith(b"\n\n")
        assert orjson.loads(last) == {
            "type": "error",
            "error": {
                "type": "api_error",
                "message": "The model's backend broke the connection.",
                "details": {"error_code": "upstream_reset"},
            },
            "request_id": "one",
        }


async def test_a_stream_of_another_api_is_as_before() -> None:
    """The last event of a stream on other paths has no name and OpenAI's form."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM + b"9\r\ndata: 1\n\n\r\n")
        await side.read()
        side.reset()

    async with serving(script) as server, gateway(local_port=server.port) as running:
        for path in (b"/v1/chat/completions", b"/v1/messagesx", b"/v1/threads/1/messages"):
            response = await running.post(path, b'{"model":"demo"}')
            assert response.body.startswith(b'data: 1\n\ndata: {"error":{"message":')
            await asyncio.sleep(0)
