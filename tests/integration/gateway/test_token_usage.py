"""Times and tokens of requests, as the access log, `/decisions` and the metrics tell them."""

import asyncio
import gzip
from typing import Any, Final

import orjson
import pytest

from gateway.api.v1alpha1 import Backend, KeepAlive
from gateway.api.vocabulary import StreamUsage
from gateway.upstream.meter import KEPT_BYTES
from tests.integration.gateway.wire import Running, document, gateway, local, remote, reply
from tests.integration.servers import Script, ScriptedServer, ServerSide, serving, until

LOOPBACK: Final[dict[str, Any]] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
LABELS: Final = {"namespace": "default", "model": "demo", "backend": "local"}
TARGET: Final = b"/default/demo/v1/chat/completions"
STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
JSON: Final = b"content-type: application/json"
BODY: Final = b'{"model": "demo", "stream": true}'

CHAT: Final = (
    b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n',
    b'data: {"choices":[{"delta":{"content":"b"}}],"usage":null}\n\n',
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"completion_tokens":2}}\n\n',
    b"data: [DONE]\n\n",
)
MESSAGES: Final = (
    b'event: message_start\ndata: {"message":{"id":"msg_1","usage":{"input_tokens":25,"output_tokens":1}}}\n\n',
    b'event: ping\ndata: {"type": "ping"}\n\n',
    b"event: content_block_delta\ndata: %b\n\n" % (b"x" * 3 * KEPT_BYTES),
    b'event: message_delta\ndata: {"type":"message_delta","delta":{},"usage":{"output_tokens":15}}\n\n',
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
)
RESPONSES: Final = (
    b'event: response.created\ndata: {"response":{"id":"resp_1","usage":null}}\n\n',
    b'event: response.completed\ndata: {"response":{"output":[{"text":"%b"}],"usage":{"input_tokens":3,'
    b'"output_tokens":9},"metadata":{}},"sequence_number":7}\n\n' % (b"x" * 3 * KEPT_BYTES),
)
AFTER_PING: Final = (MESSAGES[1], MESSAGES[0], *MESSAGES[2:])
METADATA: Final = (
    RESPONSES[0],
    b'event: response.completed\ndata: {"response":{"usage":{"input_tokens":3,"output_tokens":9},'
    b'"metadata":{"a":"%b"}}}\n\n' % (b"x" * 5 * KEPT_BYTES),
)
EMBEDDINGS: Final = b'{"data":[{"embedding":[%b0.5]}],"usage":{"prompt_tokens":8,"total_tokens":8}}' % (
    b"0.25," * 60000
)


def chunk(data: bytes) -> bytes:
    """Return a chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def streamed(*events: bytes, fields: bytes = b"", pause: float = 0.02) -> Script:
    """Return a script that sends events one after another, with pauses in which the gateway reads each by itself."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(STREAM_HEAD[:-2] + fields + b"\r\n")
            for event in events:
                await asyncio.sleep(pause)
                await side.send(chunk(event))
                for _ in range(6):  # turns of the event loop, on which the gateway runs, too
                    await asyncio.sleep(0)
            await side.send(b"0\r\n\r\n")

    return script


async def line(running: Running) -> dict[str, Any]:
    """Return the line of the only request in the access log."""
    await until(lambda: bool(running.lines()))
    (found,) = running.lines()
    (decision,) = running.journal.decisions()
    assert found.items() >= {key: value for key, value in decision.items() if key != "attempts"}.items()
    return found


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize(
    ("events", "tokens"),
    [(CHAT, (7, 2)), (MESSAGES, (25, 15)), (AFTER_PING, (25, 15)), (RESPONSES, (3, 9)), (METADATA, (3, 9))],
    ids=["chat", "messages", "messages after a ping", "responses", "responses with metadata"],
)
async def test_times_and_tokens_of_a_stream(events: tuple[bytes, ...], tokens: tuple[int, int], replayed: bool) -> None:
    """A stream has the time to its first event, those between events, and the tokens that its server names at last."""
    backends = (local(), remote()) if replayed else (local(),)
    async with (
        serving(streamed(*events)) as near,
        gateway(document(*backends), local_port=near.port, settings=LOOPBACK) as running,
    ):
        response = await running.post(TARGET, BODY)
        assert response.body == b"".join(events)
        found = await line(running)
        assert (found["prompt_tokens"], found["completion_tokens"]) == tokens
        assert found["seconds"] >= found["first_event_seconds"] > 0
        assert found["longest_between_events_seconds"] >= found["between_events_seconds"] >= 0
        for direction, number in zip(("input", "output"), tokens, strict=True):
            assert running.count("beamlit_gateway_tokens_total", **LABELS, direction=direction) == number
        for name in ("first_token", "between_tokens", "overhead"):
            assert running.count(f"beamlit_gateway_{name}_seconds_count", **LABELS) == 1
        assert running.count("beamlit_gateway_request_attempts_sum", **LABELS) == 1
        assert running.count("beamlit_gateway_queue_seconds_count", **LABELS) == 0


async def test_usage_that_is_cut_anywhere() -> None:
    """The tokens are found where the network cuts the end of a stream into bytes."""
    events = b"".join(CHAT)
    script = streamed(events[:-80], *(bytes((one,)) for one in events[-80:]), pause=0.001)
    async with serving(script) as near, gateway(local_port=near.port) as running:
        assert (await running.post(TARGET, BODY)).body == events
        assert (await line(running))["completion_tokens"] == 2


WHOLE = {
    "small": (reply(b'{"usage":{"prompt_tokens":4,"completion_tokens":5}}', b"200 OK", JSON), (4, 5)),
    "large": (reply(EMBEDDINGS, b"200 OK", JSON), (8, None)),
    "without": (reply(b'{"choices":[]}', b"200 OK", JSON), (None, None)),
    "compressed": (
        reply(gzip.compress(b'{"usage":{"prompt_tokens":4}}'), b"200 OK", JSON, b"content-encoding: gzip"),
        (None, None),
    ),
    "large and no JSON": (reply(EMBEDDINGS, b"200 OK", b"content-type: audio/mpeg"), (None, None)),
}


@pytest.mark.parametrize("name", WHOLE)
async def test_tokens_of_a_response_in_one_piece(name: str) -> None:
    """A JSON response has the tokens that its server names, whatever its size; a compressed one has none."""
    wire, tokens = WHOLE[name]

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(wire)

    async with serving(script) as near, gateway(local_port=near.port) as running:
        assert (await running.post(TARGET, BODY)).complete
        found = await line(running)
        assert (found.get("prompt_tokens"), found.get("completion_tokens")) == tokens
        assert not {"first_event_seconds", "between_events_seconds"} & found.keys()
        assert running.count("beamlit_gateway_first_token_seconds_count", **LABELS) == 0
        assert running.count("beamlit_gateway_overhead_seconds_count", **LABELS) == 1


async def test_a_compressed_stream_has_times_and_no_tokens() -> None:
    """Of a stream with a content coding the times are known, for they need no look at it."""
    pieces = tuple(gzip.compress(one) for one in CHAT)
    script = streamed(*pieces, fields=b"content-encoding: gzip\r\n")
    async with serving(script) as near, gateway(local_port=near.port) as running:
        assert (await running.post(TARGET, BODY)).body == b"".join(pieces)
        found = await line(running)
        assert found["longest_between_events_seconds"] >= found["between_events_seconds"] >= 0
        assert "completion_tokens" not in found


async def test_attempts_are_counted_for_the_backend_that_responded() -> None:
    """A request that was tried at two backends has two attempts, in the metrics of the second one."""

    async def fails(side: ServerSide) -> None:
        await side.request()
        await side.send(reply(b"", b"503 Service Unavailable"))

    async with (
        serving(fails) as near,
        serving(streamed(*CHAT)) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        assert (await running.post(TARGET, BODY)).status == 200
        await line(running)
        labels = LABELS | {"backend": "remote"}
        assert running.count("beamlit_gateway_request_attempts_sum", **labels) == 2
        assert running.count("beamlit_gateway_request_attempts_bucket", **labels, le="1.0") == 0
        assert running.count("beamlit_gateway_tokens_total", **labels, direction="output") == 2


# Tokens of every stream

ALWAYS: Final[dict[str, Any]] = {"gateway": {**LOOPBACK["gateway"], "usage": "always"}}
ASKED: Final = b'{"model": "demo", "stream": true, "stream_options": {"include_usage": true}}'
WITHOUT: Final = CHAT[0] + CHAT[1] + CHAT[3]


def sent(server: ScriptedServer) -> bytes:
    """Return the body of the only request that a server received."""
    (side,) = server.sides
    head, _, body = side.received.partition(b"\r\n\r\n")
    assert b"content-length: %d\r\n" % len(body) in head.lower() + b"\r\n"
    return body


@pytest.mark.parametrize("replayed", [False, True])
@pytest.mark.parametrize(
    ("target", "body", "changed", "shown"),
    [
        (TARGET, BODY, b'{"model": "demo", "stream": true,"stream_options":{"include_usage":true}}', WITHOUT),
        (TARGET, ASKED, ASKED, b"".join(CHAT)),
        (TARGET, b'{"model": "demo"}', b'{"model": "demo"}', b"".join(CHAT)),
        (b"/default/demo/v1/messages", BODY, BODY, b"".join(CHAT)),
        (
            b"/v1/completions",
            BODY,
            b'{"model": "demo", "stream": true,"stream_options":{"include_usage":true}}',
            WITHOUT,
        ),
    ],
    ids=["not asked", "asked", "no stream", "another API", "by model"],
)
async def test_usage_is_asked_for_and_shown_as_asked(
    target: bytes, body: bytes, changed: bytes, shown: bytes, replayed: bool
) -> None:
    """A server is asked for the tokens of each stream, and a client that has not asked gets all but these."""
    backends = (local(), remote()) if replayed else (local(),)
    async with (
        serving(streamed(*CHAT, pause=0.001)) as near,
        gateway(document(*backends), local_port=near.port, settings=ALWAYS) as running,
    ):
        assert (await running.post(target, body)).body == shown
        assert sent(near) == changed
        assert (await line(running))["completion_tokens"] == 2


async def test_an_event_with_usage_that_is_cut_anywhere() -> None:
    """The event is taken out of a stream that comes byte by byte."""
    stream = b"".join(CHAT)
    script = streamed(*(bytes((one,)) for one in stream), pause=0)
    async with serving(script) as near, gateway(local_port=near.port, settings=ALWAYS) as running:
        assert (await running.post(TARGET, BODY)).body == WITHOUT
        assert (await line(running))["prompt_tokens"] == 7


@pytest.mark.parametrize("replayed", [False, True])
async def test_a_stream_that_comes_at_once(replayed: bool) -> None:
    """The event is taken out of a stream that is complete when its head is looked at."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD + chunk(b"".join(CHAT)) + b"0\r\n\r\n")

    backends = (local(), remote()) if replayed else (local(),)
    async with (
        serving(script) as near,
        gateway(document(*backends), local_port=near.port, settings=ALWAYS) as running,
    ):
        assert (await running.post(TARGET, BODY)).body == WITHOUT
        assert (await line(running))["completion_tokens"] == 2


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("cut", [0, 70])
async def test_a_stream_of_known_length(cut: int, late: bool) -> None:
    """The event is taken out of a stream with Content-Length, whose new length is right, also under a keep-alive."""
    whole = b"".join(CHAT)
    released = asyncio.Event()
    keep_alive = KeepAlive(after=0.05, before_head=True) if late else KeepAlive()

    async def script(side: ServerSide) -> None:
        await side.request()
        if late:
            await released.wait()
        wire = reply(whole, b"200 OK", b"content-type: text/event-stream")
        if cut:
            await side.send(wire[:-cut])
            await side.read()
        await side.send(wire[len(wire) - cut :] if cut else wire)

    async with (
        serving(script) as near,
        gateway(document(local(), keep_alive=keep_alive), local_port=near.port, settings=ALWAYS) as running,
    ):
        request = asyncio.create_task(running.post(TARGET, BODY))
        if late:
            await until(lambda: running.count("beamlit_gateway_keep_alives_total", **LABELS) > 0)
        released.set()
        response = await request
        assert response.complete
        assert response.body.endswith(WITHOUT)
        assert response.body == WITHOUT or late
        found = await line(running)
        assert (found["prompt_tokens"], found["completion_tokens"]) == (7, 2)


async def test_a_stream_that_breaks_off_in_an_event() -> None:
    """What has arrived of an event reaches the client before the error event."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD + chunk(CHAT[0] + b'data: {"choices":[],"usa'))
        side.writer.close()

    async with serving(script) as near, gateway(local_port=near.port, settings=ALWAYS) as running:
        response = await running.post(TARGET, BODY)
        assert response.body.startswith(CHAT[0] + b'data: {"choices":[],"usa')
        assert b"upstream_reset" in response.body
        assert (await line(running))["broken"] == "upstream_reset"


@pytest.mark.parametrize(
    "body", [BODY, b'{"stream_options": {"a": 1}, "stream": true, "pad": "%b", "model": "demo"}' % (b"x" * 100_000)]
)
async def test_a_changed_body_is_sent_to_each_backend_with_its_name_for_the_model(body: bytes) -> None:
    """After a failure the changed body goes to the next backend, with that backend's name for the model."""

    async def fails(side: ServerSide) -> None:
        await side.request()
        await side.send(reply(b"", b"503 Service Unavailable"))

    async with (
        serving(fails) as near,
        serving(streamed(*CHAT, pause=0.001)) as far,
        gateway(
            document(local(), remote(model="a/longer-name")),
            local_port=near.port,
            remote_port=far.port,
            settings=ALWAYS,
        ) as running,
    ):
        assert (await running.post(b"/v1/chat/completions", body)).body == WITHOUT
        near_body, far_body = orjson.loads(sent(near)), orjson.loads(sent(far))
        assert near_body["stream_options"]["include_usage"] is True
        assert far_body == near_body | {"model": "a/longer-name"}


async def test_a_body_that_arrives_slowly_in_chunks() -> None:
    """A body whose length is not known is changed once it is there."""
    async with (
        serving(streamed(*CHAT, pause=0.001)) as near,
        gateway(local_port=near.port, settings=ALWAYS) as running,
    ):
        client = await running.client()
        fields = b"Host: gateway\r\nTransfer-Encoding: chunked\r\nContent-Type: application/json"
        await client.send(b"POST %b HTTP/1.1\r\n%b\r\n\r\n" % (TARGET, fields))
        for start in range(0, len(BODY), 7):
            await client.send(chunk(BODY[start : start + 7]))
            await asyncio.sleep(0.001)
        await client.send(b"0\r\n\r\n")
        assert (await client.response(b"POST")).body == WITHOUT
        assert b"include_usage" in near.sides[0].received


async def test_usage_is_taken_out_of_a_stream_whose_client_has_waited() -> None:
    """A client that got comments before any head sees the rest of the stream without the event, too."""
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await go.wait()
        await side.send(STREAM_HEAD + chunk(b"".join(CHAT)) + b"0\r\n\r\n")

    route = document(local(), remote(), keep_alive=KeepAlive(after=0.05, before_head=True))
    async with serving(script) as near, gateway(route, local_port=near.port, settings=ALWAYS) as running:
        response = asyncio.create_task(running.post(TARGET, BODY))
        await until(lambda: running.count("beamlit_gateway_keep_alives_total", **LABELS) > 0)
        go.set()
        body = (await response).body
        assert body.startswith(b":")
        assert body.endswith(WITHOUT)
        found = await line(running)
        assert (found["prompt_tokens"], found["completion_tokens"]) == (7, 2)
        assert b"include_usage" in near.sides[0].received


# Costs


@pytest.mark.parametrize(("price", "prompt_price", "cost"), [(10, None, 90e-6), (10, 1, 27e-6), (None, 1, 7e-6)])
@pytest.mark.parametrize("default", [False, True])
async def test_costs_by_the_prices_of_a_remote_backend(
    price: float | None, prompt_price: float | None, cost: float, default: bool
) -> None:
    """Costs are estimated by the prices of the route, and those of the default remote backend by the settings."""
    settings: dict[str, Any] = LOOPBACK
    backend = remote(100, price=price, prompt_price=prompt_price)
    if default:
        backend = Backend(id="remote", default=True, weight=100)
        there = {
            "host": "remote.test",
            "scheme": "http",
            "authConfig": None,
            "price": price or 0,
            "promptPrice": prompt_price or 0,
        }
        settings = {**LOOPBACK, "defaultRemoteBackend": there}
    async with (
        serving(streamed(*CHAT, pause=0.001)) as far,
        gateway(document(backend), remote_port=far.port, settings=settings) as running,
    ):
        assert (await running.post(TARGET, BODY)).status == 200
        await line(running)
        labels = LABELS | {"backend": "remote"}
        assert running.count("beamlit_gateway_estimated_cost_total", **labels) == pytest.approx(cost)


@pytest.mark.parametrize(
    ("usage", "settings", "shown"),
    [(StreamUsage.ALWAYS, LOOPBACK, WITHOUT), (StreamUsage.AS_ASKED, ALWAYS, b"".join(CHAT))],
)
async def test_a_model_has_a_setting_of_its_own(usage: StreamUsage, settings: dict[str, Any], shown: bytes) -> None:
    """The route document says whether usage is asked for, whatever the gateway's setting is."""
    async with (
        serving(streamed(*CHAT, pause=0.001)) as near,
        gateway(document(local(), usage=usage), local_port=near.port, settings=settings) as running,
    ):
        assert (await running.post(TARGET, BODY)).body == shown
