"""Requests in flight while the routing table or the clock changes, or the event loop is blocked."""

import asyncio
import time

import orjson
import pytest

from gateway.api.v1alpha1 import Backend, Split, Timeouts, Tls
from gateway.routes import sources
from tests.deadlines import SECONDS
from tests.integration.gateway.wire import Client, Running, document, gateway, local, remote, reply
from tests.integration.servers import ServerSide, serving

LOOPBACK = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
GET = b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\r\n\r\n"
STREAMS = 200


class Streams:
    """Server whose responses are streams that go on until `end` is set."""

    def __init__(self) -> None:
        self.flow = asyncio.Event()
        """Set when all streams are open: until then each sends one event only, and does not slow the others down."""
        self.end = asyncio.Event()
        self.running = 0

    async def script(self, side: ServerSide) -> None:
        """Serve the requests of one connection."""
        while True:
            request = await side.request()
            if b"/stream" not in request:
                await side.send(reply(b"short"))
                continue
            self.running += 1
            await side.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
            number = 0
            while not self.end.is_set():
                event = b"data: %d\n\n" % number
                await side.send(b"%x\r\n%b\r\n" % (len(event), event))
                number += 1
                await self.flow.wait()
                await asyncio.sleep(0.02)
            await side.send(b"0\r\n\r\n")


async def opened(running: Running, streams: Streams, count: int) -> list[tuple[Client, bytes]]:
    """Return clients whose streams have begun, each with the id of its backend."""
    clients, heads = [], []
    for _ in range(count):
        client = await running.client()
        await client.send(GET.replace(b"/x", b"/stream"))
        head = await client.response(head_only=True)
        assert head.status == 200
        clients.append(client)
        heads.append(head)
    assert streams.running == count
    streams.flow.set()
    return [(client, head.value(b"x-beamlit-backend") or b"") for client, head in zip(clients, heads, strict=True)]


async def whole(client: Client) -> None:
    """Read the rest of a stream; check that every event comes in order, and the end."""
    rest = b""
    async with asyncio.timeout(SECONDS):
        while not rest.endswith(b"0\r\n\r\n"):
            rest += await client.some()
    events = [line[6:] for line in rest.split(b"\n") if line.startswith(b"data: ")]
    assert events == [b"%d" % number for number in range(len(events))]


async def test_rd_01_streams_of_a_removed_route_finish() -> None:
    """RD-01: 200 streams continue to their end after their route was removed; the next request gets a 404."""
    streams = Streams()
    async with serving(streams.script) as server, gateway(local_port=server.port) as running:
        clients = await opened(running, streams, STREAMS)
        running.load()
        response = await running.ask(GET)
        assert (response.status, response.code) == (404, "route_not_found")
        await asyncio.sleep(0.1)
        streams.end.set()
        await asyncio.gather(*(whole(client) for client, _ in clients))


async def test_rd_02_streams_of_a_removed_backend_finish() -> None:
    """RD-02: streams of a removed backend continue to their end; the next requests go to the other backend."""
    streams = Streams()
    both = document(local(50), remote(50), split=Split(percentage=50, reason="Override"))
    async with (
        serving(streams.script) as near,
        serving(streams.script) as far,
        gateway(both, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        clients = await opened(running, streams, 40)
        assert {backend for _, backend in clients} == {b"local", b"remote"}
        running.load(document(local()))
        for _ in range(10):
            assert (await running.ask(GET)).value(b"x-beamlit-backend") == b"local"
        streams.end.set()
        await asyncio.gather(*(whole(client) for client, _ in clients))


async def test_rd_03_weights_that_change_under_load() -> None:
    """RD-03: no request fails during 300 changes of the split; afterwards the split is exact."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(reply())

    def split(percentage: int) -> tuple[Backend, Backend]:
        return local(100 - percentage), remote(percentage)

    async with (
        serving(script) as near,
        serving(script) as far,
        gateway(local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        done = asyncio.Event()
        backends: list[bytes | None] = []

        async def send_requests() -> None:
            client = await running.client()
            while not done.is_set():
                await client.send(GET)
                response = await client.response()
                assert (response.status, response.complete) == (200, True)
                backends.append(response.value(b"x-beamlit-backend"))

        tasks = [asyncio.ensure_future(send_requests()) for _ in range(4)]
        for number in range(300):
            running.load(document(*split(100 if number % 2 else 0)))
            await asyncio.sleep(0.002)
        running.load(document(*split(30)))
        done.set()
        await asyncio.gather(*tasks)
        assert {b"local", b"remote"} == set(backends)
        client = await running.client()
        rest = []
        for _ in range(100):
            await client.send(GET)
            rest.append((await client.response()).value(b"x-beamlit-backend"))
        assert rest.count(b"remote") == 30


async def test_rd_13_a_blocked_event_loop_ends_no_healthy_stream() -> None:
    """RD-13: pauses of the event loop that are shorter than the idle timeout end no stream."""
    streams = Streams()
    route = document(local(), timeouts=Timeouts(idle=2))
    async with serving(streams.script) as server, gateway(route, local_port=server.port) as running:
        clients = await opened(running, streams, 20)
        for _ in range(4):
            time.sleep(0.7)
            await asyncio.sleep(0.1)
        streams.end.set()
        await asyncio.gather(*(whole(client) for client, _ in clients))
        assert running.count("beamlit_gateway_in_flight_requests", namespace="default", model="demo") == 0


@pytest.mark.parametrize("jump", [-86400.0, -3600.0, 3600.0, 86400.0])
async def test_to_12_a_wall_clock_that_jumps(jump: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """TO-12: a jump of the wall clock ends neither streams nor idle connections."""
    streams = Streams()
    async with serving(streams.script) as server, gateway(local_port=server.port) as running:
        clients = await opened(running, streams, 3)
        quiet = await running.client()
        await quiet.send(GET)
        assert (await quiet.response()).status == 200
        real = time.time
        monkeypatch.setattr(time, "time", lambda: real() + jump)
        await asyncio.sleep(0.3)  # three sweeps
        await quiet.send(GET)
        assert (await quiet.response()).status == 200
        streams.end.set()
        await asyncio.gather(*(whole(client) for client, _ in clients))
        assert all(line["seconds"] >= 0 for line in running.lines())


@pytest.mark.parametrize("own", [{"tls": {"caBundle": "x", "serverName": "impostor.test"}}, {"port": 8443}])
async def test_a_document_that_redirects_the_default_backend_is_reported_and_the_last_good_one_stays(
    own: dict[str, object],
) -> None:
    """A document with TLS or a port of its own for the default remote backend does not come into force: it is reported,
    and requests go where the last good one and the settings say."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(reply())

    def loaded(extra: dict[str, object]) -> sources.Snapshot:
        backend = {"id": "remote", "default": True, "weight": 100} | extra
        text = orjson.dumps({"name": "demo", "backends": [backend]}).decode()
        return sources.Snapshot([sources.ConfigMap("default", "demo-route", "", text, "demo.yaml")])

    settings = {"defaultRemoteBackend": {"host": "remote.test", "scheme": "http"}}
    async with serving(script) as server, gateway(remote_port=server.port, settings=settings) as running:
        for extra in ({}, own):
            running.store.loaded.clear()
            running.store.apply(loaded(extra))
            assert (await running.post(b"/default/demo/v1/chat/completions", b"{}")).status == 200
        state = running.store.documents["default/demo-route"]
        assert state.good is not None
        assert (state.good.backends[0].tls, state.good.backends[0].port) == (Tls(), None)
        assert state.error is not None
        assert "are in the gateway's settings" in state.error
        assert running.count("beamlit_gateway_document_errors") == 1
