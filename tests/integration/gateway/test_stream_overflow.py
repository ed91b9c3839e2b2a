"""Overflow by time to first token: the limit of streams moves by first events, and single streams go elsewhere."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.admin import routes_page
from gateway.api.v1alpha1 import Backend, Queue, RouteDocument, Use
from tests.deadlines import SECONDS
from tests.integration.gateway.test_directory_source import config_map, write
from tests.integration.gateway.test_process import Process, started
from tests.integration.gateway.wire import Client, Response, Running, document, gateway, local, remote, reply
from tests.integration.servers import ServerSide, serving, until

LOOPBACK: Final[dict[str, Any]] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
LABELS: Final = {"namespace": "default", "model": "demo", "backend": "local"}
STREAM: Final = b'{"model": "demo", "messages": [], "stream": true}'
WHOLE: Final = b'{"model": "demo", "messages": [], "stream": false}'
HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n"
NEVER: Final = 600.0
"""Seconds within which every event comes, also on a busy machine."""


def route(target: float | None, in_flight: int = 8, **values: Any) -> RouteDocument:
    """Return a document with a local backend for which first events have a target, and a remote one for overflow."""
    near = local(in_flight=in_flight, first_token_target=target)
    return document(near, remote(use=(Use.OVERFLOW,)), **values)


class Engine:
    """Server that sends the head of a stream at once, its first event when `begin` is set, and its end with `go`.

    A request for no stream gets its response with `go`, too.
    """

    def __init__(self) -> None:
        self.begin = asyncio.Event()
        self.go = asyncio.Event()
        self.total = 0

    async def __call__(self, side: ServerSide) -> None:
        """Serve one request."""
        asks = b'"stream": true' in await side.request()
        self.total += 1
        if not asks:
            await self.go.wait()
            await side.send(reply(b"whole", b"200 OK", b"connection: close"))
            return
        await side.send(HEAD + b": wait\n\n")
        await self.begin.wait()
        await side.send(b"data: 1\n\n")
        await self.go.wait()
        await side.send(b"data: [DONE]\n\n")


async def far(side: ServerSide) -> None:
    """Serve a stream at once."""
    await side.request()
    await side.send(HEAD + b"data: 1\n\ndata: [DONE]\n\n")


def post(body: bytes) -> bytes:
    """Return a request to the model."""
    return (
        b"POST /default/demo/v1/chat/completions HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


@asynccontextmanager
async def sent(running: Running | Process, body: bytes = STREAM) -> AsyncIterator[asyncio.Task[Response]]:
    """Yield the response of a request in flight; reset its client at the end."""
    client: Client = await running.client()
    await client.send(post(body))
    task = asyncio.create_task(client.response(b"POST"))
    try:
        yield task
    finally:
        task.cancel()
        client.reset()


def streams_of(running: Running) -> dict[str, Any] | None:
    """Return what /routes says of the limit of streams at the local backend."""
    page = orjson.loads(b"".join(routes_page(running.store)))
    found: dict[str, Any] | None = page["routes"][0]["backends"][0].get("streams")
    return found


def went(response: Response) -> tuple[bytes | None, bytes | None]:
    """Return which backend a response comes from, and why."""
    return response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")


def in_flight(running: Running) -> float:
    """Return the streams in flight at the local backend."""
    return running.count("beamlit_gateway_streams_in_flight", **LABELS)


def limit(running: Running) -> float:
    """Return the limit of streams at the local backend."""
    return running.count("beamlit_gateway_stream_limit", **LABELS)


async def test_late_events_send_streams_away_and_events_in_time_bring_them_back() -> None:
    """Silent streams cut the limit, others then go to the remote; requests without a stream do not; it grows again."""
    near = Engine()
    async with (
        serving(near) as a,
        serving(far) as b,
        gateway(route(0.05), local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
    ):
        async with AsyncExitStack() as six:
            for _ in range(6):
                await six.enter_async_context(sent(running))
            await until(lambda: near.total == 6)
            async with sent(running), sent(running):
                await until(lambda: near.total == 8)
                async with asyncio.timeout(SECONDS):
                    while limit(running) == 8:
                        assert went(await running.ask(post(STREAM), method=b"POST")) == (b"remote", b"Overflow")
                        await asyncio.sleep(0.02)
            state = streams_of(running)
            assert state is not None
            assert (state["limit"], state["ceiling"], state["cuts"], state["firstTokenSeconds"]) == (6, 8, 1, 0.05)
            assert (state["last"]["from"], state["last"]["to"], state["last"]["reason"]) == (8, 6, "late")
            await until(lambda: in_flight(running) == 6)
            assert went(await running.ask(post(STREAM), method=b"POST")) == (b"remote", b"Overflow")
            assert near.total == 8
            async with sent(running, WHOLE):
                await until(lambda: near.total == 9)
        await until(lambda: in_flight(running) == 0)
        moves = "beamlit_gateway_stream_limit_moves_total"
        assert running.count(moves, **LABELS, reason="late") == 1

        running.load(route(NEVER))
        near.begin.set()
        async with AsyncExitStack() as used:
            for _ in range(5):
                await used.enter_async_context(sent(running))
            await until(lambda: in_flight(running) == 5)
            async with asyncio.timeout(SECONDS):
                while limit(running) == 6:
                    client = await running.client()
                    await client.send(post(STREAM))
                    await client.reader.readuntil(b"data: 1")
                    client.reset()
                    await until(lambda: in_flight(running) == 5)
        assert running.count(moves, **LABELS, reason="inTime") == 1
        state = streams_of(running)
        assert state is not None
        assert (state["limit"], state["last"]["reason"]) == (7, "inTime")
        await until(lambda: in_flight(running) == 0)

        near.go.set()
        running.load(route(None))
        assert (await running.ask(post(STREAM), method=b"POST")).complete
        assert streams_of(running) is None
        assert running.metrics.registry.get_sample_value("beamlit_gateway_stream_limit", LABELS) is None


async def test_streams_wait_in_the_queue() -> None:
    """A stream beyond the limit waits where no remote takes it, a request without a stream passes it by."""
    near = Engine()
    async with (
        serving(near) as a,
        gateway(
            document(local(in_flight=4, first_token_target=NEVER), queue=Queue(size=1, wait=SECONDS)), local_port=a.port
        ) as running,
    ):
        async with sent(running) as first:
            await until(lambda: near.total == 1)
            runtime = running.store.find_runtime("default/demo")
            assert runtime is not None
            slots = runtime.backends["local"].streams
            assert slots is not None
            slots.limit.limit = 1
            slots.follow()
            async with sent(running) as second:
                await until(lambda: slots.queue.waiting == 1)
                assert running.count("beamlit_gateway_queued_requests", **LABELS) == 1
                response = await running.ask(post(STREAM), method=b"POST")
                assert (response.status, response.code) == (503, "at_capacity")
                async with sent(running, WHOLE):
                    await until(lambda: near.total == 2)
                near.begin.set()
                near.go.set()
                assert (await first).complete
                assert (await second).complete
        await until(lambda: slots.queue.taken == 0)
        assert near.total == 3


async def test_a_response_that_is_no_stream_holds_no_slot_for_streams() -> None:
    """A request that asks for a stream and gets something else counts for all requests only, from the head on."""

    async def whole(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nab")
        await side.reader.read(1)

    async with (
        serving(whole) as a,
        gateway(document(local(in_flight=4, first_token_target=NEVER)), local_port=a.port) as running,
        sent(running),
    ):
        await until(lambda: running.count("beamlit_gateway_backend_in_flight_requests", **LABELS) == 1)
        await until(lambda: running.count("beamlit_gateway_streams_in_flight", **LABELS) == 0)
        assert running.count("beamlit_gateway_backend_in_flight_requests", **LABELS) == 1


async def test_a_gateway_as_a_process(tmp_path: Path) -> None:
    """A gateway as users run it sends streams away when first events are late, and takes more when they are in time."""
    near = Engine()
    async with (
        serving(near) as a,
        serving(far) as b,
        started(tmp_path, a.port, "gateway: {allowedAddresses: [127.0.0.0/8]}") as running,
    ):

        async def apply(target: float) -> None:
            away = Backend(id="remote", host="127.0.0.1", port=b.port, use=(Use.OVERFLOW,))
            data = document(local(in_flight=8, first_token_target=target), away).canonical_json()
            write(running.routes / "demo.yaml", config_map() | {"data": {"route.json": data}})
            async with asyncio.timeout(SECONDS):
                while (await streams()).get("firstTokenSeconds") != target:
                    client = await running.client()
                    await client.send(post(b"{}"))  # the first request makes the plan of the route
                    await client.response(b"POST")

        async def streams() -> dict[str, Any]:
            state = (await running.admin.get("/routes")).json()
            found: dict[str, Any] = state["routes"][0]["backends"][0].get("streams", {})
            return found

        near.go.set()
        await apply(0.05)
        near.go.clear()
        async with AsyncExitStack() as eight:
            for _ in range(8):
                await eight.enter_async_context(sent(running))
            async with asyncio.timeout(SECONDS):
                while (await streams())["inFlight"] < 8:
                    await asyncio.sleep(0.02)
                while (await streams())["limit"] == 8:
                    client = await running.client()
                    await client.send(post(STREAM))
                    assert went(await client.response(b"POST")) == (b"remote", b"Overflow")
        assert (await streams())["last"]["reason"] == "late"
        near.begin.set()
        near.go.set()
        await apply(NEVER)
        near.go.clear()
        async with AsyncExitStack() as used:
            for _ in range(5):
                await used.enter_async_context(sent(running))
            async with asyncio.timeout(SECONDS):
                while (await streams())["limit"] == 6:
                    client = await running.client()
                    await client.send(post(STREAM))
                    await client.reader.readuntil(b"data: 1")
                    client.reset()
        assert (await streams())["last"]["reason"] == "inTime"
