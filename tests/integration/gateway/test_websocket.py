"""WebSockets through the gateway, with a real library on both sides and with wrong bytes (RFC 6455)."""

import asyncio
import os
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus
from websockets.frames import CloseCode
from websockets.typing import Subprotocol

from gateway.api.v1alpha1 import Use
from gateway.http.messages import websocket_accept
from tests.deadlines import NEVER, SECONDS
from tests.integration.gateway.wire import Running, document, gateway, local, remote, reply
from tests.integration.servers import ServerSide, serving, until
from tests.processes import self_signed

KEY: Final = b"dGhlIHNhbXBsZSBub25jZQ=="
ACCEPT: Final = b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
"""Sec-WebSocket-Accept for `KEY`, as RFC 6455 section 1.3 has it."""
UNHURRIED: Final[dict[str, Any]] = {"open_timeout": SECONDS, "ping_interval": None, "close_timeout": SECONDS}
"""Times that both ends of a WebSocket give each other: those of the library are short for a busy machine."""
CANARY: Final = b"GET /default/demo/canary HTTP/1.1\r\nHost: gateway\r\n\r\n"


def handshake(*fields: bytes, line: bytes = b"GET /default/demo/live HTTP/1.1", key: bytes = KEY) -> bytes:
    """Return the bytes of an opening handshake with these fields added."""
    lines = (
        line, b"Host: gateway", b"Connection: keep-alive, Upgrade", b"Upgrade: WebSocket", b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: " + key, *fields,
    )  # fmt: skip
    return b"\r\n".join(lines) + b"\r\n\r\n"


SWITCH: Final = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
    + ACCEPT
    + b"\r\n\r\n"
)


async def echo(connection: ServerConnection) -> None:
    """Send every message back as it is."""
    async for message in connection:
        await connection.send(message)


@asynccontextmanager
async def through(
    handler: Callable[[ServerConnection], Awaitable[None]] = echo,
    *,
    settings: dict[str, Any] | None = None,
    **values: Any,
) -> AsyncIterator[tuple[Running, str]]:
    """Yield a gateway in front of a WebSocket server, and the URL of the server through it."""
    async with serve(handler, "127.0.0.1", 0, max_size=None, **UNHURRIED | values) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with gateway(local_port=port, settings=settings) as running:
            yield running, f"ws://127.0.0.1:{running.port}/default/demo/live"


def opened(url: str, **values: Any) -> connect:
    """Return a client's connection that uses no proxy of the environment."""
    return connect(url, proxy=None, max_size=None, **UNHURRIED | values)


def contexts(folder: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """Return the TLS contexts of a server with a certificate for localhost and of a client that trusts it."""
    certificate, key = self_signed(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, ssl.create_default_context(cafile=str(certificate))


def reset(transport: asyncio.WriteTransport) -> None:
    """Close a connection with a TCP reset."""
    raw = transport.get_extra_info("socket")
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()


async def logged(running: Running) -> dict[str, Any]:
    """Wait for the access log's line of the only request, and return it."""
    await until(lambda: bool(running.lines()))
    [line] = running.lines()
    return line


# With a library on both sides


async def test_text_binary_fragments_and_pings() -> None:
    """Text, bytes, fragmented messages and pings pass unchanged, compressed or not."""
    for compression in ("deflate", None):
        async with through(compression=compression) as (running, url):
            async with opened(url, compression=compression) as client:
                for message in ("grüße", b"\x00\xff" * 500, "", b""):
                    await client.send(message)
                    assert await client.recv() == message
                await client.send(["one, ", "two, ", "three"])
                assert await client.recv() == "one, two, three"
                latency = await client.ping()
                assert await asyncio.wait_for(latency, SECONDS) >= 0
            await until(lambda: running.server.connections == 0)
            await until(lambda: running.upstream.stats.open == 0)
            line = await logged(running)
            assert (line["status"], line["backend"], line["broken"]) == (101, "local", None)


async def test_subprotocols_and_origin_pass() -> None:
    """The server sees the Origin and the query, and chooses the subprotocol."""
    seen: list[str | None] = []

    async def look(connection: ServerConnection) -> None:
        assert connection.request is not None
        seen.append(connection.request.headers.get("Origin"))
        seen.append(connection.request.path)
        await connection.send(connection.subprotocol or "")

    async with (
        through(look, subprotocols=[Subprotocol("realtime")]) as (_, url),
        opened(
            f"{url}?model=x", origin="https://app.example", subprotocols=[Subprotocol("a"), Subprotocol("realtime")]
        ) as client,
    ):
        assert client.subprotocol == "realtime"
        assert await client.recv() == "realtime"
        assert client.response is not None
        assert client.response.headers["x-beamlit-backend"] == "local"
    assert seen == ["https://app.example", "/live?model=x"]


@pytest.mark.parametrize("closes", ["client", "server"])
@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1011, "broken"), (4123, "own")])
async def test_close_codes_pass(closes: str, code: int, reason: str) -> None:
    """The code and reason of a close reach the other side, whether the client or the server closes."""
    seen: list[tuple[int | None, str | None]] = []
    done = asyncio.Event()

    async def handler(connection: ServerConnection) -> None:
        if closes == "server":
            await connection.close(code, reason)
        else:
            await connection.wait_closed()
        seen.append((connection.close_code, connection.close_reason))
        done.set()

    async with through(handler) as (running, url), opened(url) as client:
        if closes == "client":
            await client.close(code, reason)
        else:
            await client.wait_closed()
        await asyncio.wait_for(done.wait(), SECONDS)
        assert seen == [(code, reason)]
        assert (client.close_code, client.close_reason) == (code, reason)
        await until(lambda: running.server.connections == 0)
        await until(lambda: running.upstream.stats.open == 0)


async def test_large_frames_both_ways() -> None:
    """Frames of 1 MB arrive whole and in order while others go the other way."""
    async with through(compression=None) as (_, url), opened(url, compression=None) as client:
        messages = [os.urandom(1 << 20) for _ in range(8)]

        async def send() -> None:
            for message in messages:
                await client.send(message)

        sending = asyncio.create_task(send())
        for message in messages:
            assert await client.recv(decode=False) == message
        await sending


async def test_a_hundred_at_once() -> None:
    """A hundred WebSockets at once get their own messages and no others, and each counts as a request in flight."""
    async with through() as (running, url):

        async def talk(number: int) -> None:
            async with opened(url) as client:
                for turn in range(20):
                    await client.send(f"{number}-{turn}")
                    assert await client.recv() == f"{number}-{turn}"
                ready.append(number)
                await go.wait()

        ready: list[int] = []
        go = asyncio.Event()
        tasks = [asyncio.create_task(talk(number)) for number in range(100)]
        await until(lambda: len(ready) == 100 or any(task.done() for task in tasks), NEVER)
        for task in tasks:
            if task.done():
                await task  # raises what ended it
        assert running.count("beamlit_gateway_in_flight_requests", namespace="default", model="demo") == 100
        go.set()
        await asyncio.gather(*tasks)
        await until(lambda: running.upstream.stats.open == 0)
        assert running.count("beamlit_gateway_in_flight_requests", namespace="default", model="demo") == 0


async def test_p4_a_client_that_is_gone_takes_the_server_with_it() -> None:
    """P4: when a client's connection breaks in the middle of a stream, the server's connection ends too."""
    over = asyncio.Event()

    async def flood(connection: ServerConnection) -> None:
        try:
            while True:
                await connection.send(b"x" * 1000)
                await asyncio.sleep(0)  # sending alone would not let other tasks run
        except ConnectionClosed:
            over.set()

    async with through(flood) as (running, url):
        client = await opened(url)
        await client.recv()
        client.transport.abort()
        await asyncio.wait_for(over.wait(), SECONDS)
        await until(lambda: running.upstream.stats.open == 0)
        line = await logged(running)
        assert line["status"] == 101


async def test_a_server_that_is_gone_takes_the_client_with_it() -> None:
    """When a server breaks its connection the client sees an abnormal end, and nothing is tried again."""
    calls: list[ServerConnection] = []

    async def die(connection: ServerConnection) -> None:
        calls.append(connection)
        await connection.recv()
        reset(connection.transport)

    async with through(die) as (running, url):
        async with opened(url) as client:
            await client.send("die")
            with pytest.raises(ConnectionClosedError):
                await asyncio.wait_for(client.recv(), SECONDS)
            assert client.close_code == CloseCode.ABNORMAL_CLOSURE
        line = await logged(running)
        assert line["broken"] == "upstream_reset"
        assert len(calls) == 1


async def test_over_tls(tmp_path: Path) -> None:
    """A WebSocket over TLS passes messages, and its close reaches the server and comes back."""
    server_context, client_context = contexts(tmp_path)
    async with serve(echo, "127.0.0.1", 0, **UNHURRIED) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with gateway(local_port=port, context=server_context) as running:
            url = f"wss://localhost:{running.port}/default/demo/live"
            async with opened(url, ssl=client_context, host="127.0.0.1") as client:
                await client.send(b"x" * 300_000)
                assert await client.recv() == b"x" * 300_000
            assert client.close_code == 1000
            await until(lambda: running.server.connections == 0)
            await until(lambda: running.upstream.stats.open == 0)


# Backpressure and deadlines


@pytest.mark.parametrize("slow", ["client", "server"])
async def test_a_slow_reader_holds_the_sender_back(slow: str) -> None:
    """A slow reader on either side holds the sender back, so that few bytes wait in the gateway, and loses nothing."""
    total = 96 << 20  # more than fits into the buffers of the kernel, which grow to 32 MB each
    sent = 0
    payload = os.urandom(1 << 16)

    async def flood(send: Callable[[bytes], Awaitable[None]]) -> None:
        nonlocal sent
        while sent < total:
            await send(payload)
            sent += len(payload)

    async def server(side: ServerSide) -> None:
        await side.request()
        await side.send(SWITCH)
        if slow == "client":
            await flood(side.send)
            await side.gone()
        else:
            await go.wait()
            read.append(len(await side.reader.readexactly(total)))

    go, read = asyncio.Event(), list[int]()
    async with serving(server) as scripted, gateway(local_port=scripted.port) as running:
        client = await running.client()
        await client.send(handshake())
        await client.switched()

        async def up(data: bytes) -> None:
            client.writer.write(data)
            await client.writer.drain()

        flooding = asyncio.create_task(flood(up)) if slow == "server" else None
        before = -1
        while before != sent or not sent:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.3)
        assert 0 < sent < total
        [connection] = running.server._connections
        [to_server] = running.upstream._connections
        waiting = max(connection.transport.get_write_buffer_size(), to_server.transport.get_write_buffer_size())
        assert waiting <= 65536 + 262144  # the mark, and one read
        go.set()
        if slow == "client":
            async with asyncio.timeout(SECONDS):
                await client.reader.readexactly(total)
        else:
            assert flooding is not None
            await asyncio.wait_for(flooding, SECONDS)
            await until(lambda: read == [total])


async def test_a_client_that_takes_nothing_is_cut() -> None:
    """A client that does not read is cut after the time for a write stall, and the server's connection with it."""

    async def server(side: ServerSide) -> None:
        await side.request()
        await side.send(SWITCH)
        for _ in range(1000):
            await side.send(b"x" * 65536)

    settings = {"gateway": {"timeouts": {"writeStallSeconds": 0.3}}}
    async with serving(server) as scripted, gateway(local_port=scripted.port, settings=settings) as running:
        client = await running.client()
        await client.send(handshake())
        await client.switched()
        await until(lambda: running.server.connections == 0)
        line = await logged(running)
        assert line["broken"] == "client_stalled"
        await until(lambda: running.upstream.stats.open == 0)


async def test_a_silent_tunnel_is_cut_at_its_idle_timeout() -> None:
    """A tunnel without a frame in either direction for its idle time is cut; pings keep it open."""
    settings = {"gateway": {"timeouts": {"tunnelIdleSeconds": 2}}}
    async with through(settings=settings) as (running, url):
        async with opened(url, ping_interval=0.3) as client:
            await asyncio.sleep(4)
            await client.send("still here")
            assert await client.recv() == "still here"
        async with opened(url, ping_interval=None) as client:
            with pytest.raises(ConnectionClosedError):
                await asyncio.wait_for(client.recv(), SECONDS)
        await until(lambda: len(running.lines()) == 2)
        assert [line["broken"] for line in running.lines()] == [None, "idle_timeout"]


# Bytes that pass


@pytest.mark.parametrize("length", [(), (b"Content-Length: 0",)], ids=["no length", "length 0"])
async def test_the_handshake_is_forwarded_with_fields_of_our_own(length: tuple[bytes, ...]) -> None:
    """A handshake is forwarded with hop-by-hop fields of the gateway's own and without a length, which Java's client
    sends as 0, and bytes behind either head pass through the tunnel."""

    async def server(side: ServerSide) -> None:
        head = await side.request()
        lines = head.lower().split(b"\r\n")
        assert lines[0] == b"get /live http/1.1"
        assert lines.count(b"connection: upgrade") == 1
        assert lines.count(b"upgrade: websocket") == 1
        assert b"sec-websocket-key: " + KEY.lower() in lines
        assert b"origin: https://app.example" in lines
        assert b"authorization: bearer mine" in lines
        assert not any(line.startswith((b"x-hop:", b"content-length:", b"transfer-encoding:")) for line in lines)
        await side.send(SWITCH + b"early")
        assert await side.reader.readexactly(10) == b"impatientX"
        await side.send(b"late")

    async with serving(server) as scripted, gateway(local_port=scripted.port) as running:
        client = await running.client()
        sent = handshake(
            b"Connection: x-hop", b"X-Hop: 1", b"Origin: https://app.example", b"Authorization: Bearer mine", *length
        )
        await client.send(sent + b"impatient", b"X")
        response = await client.switched()
        assert response.status == 101
        assert response.values(b"connection") == [b"Upgrade"]
        assert response.values(b"upgrade") == [b"websocket"]
        assert response.value(b"sec-websocket-accept") == ACCEPT
        assert response.value(b"x-beamlit-reason") is not None
        assert response.values(b"content-length") == response.values(b"transfer-encoding") == []
        assert await client.ended() == b"earlylate"


async def test_a_remote_gets_no_credentials_of_the_caller() -> None:
    """A handshake to a remote backend has no credentials of the caller."""

    async def server(side: ServerSide) -> None:
        head = (await side.request()).lower()
        assert b"mine" not in head
        assert b"host: remote.test\r\n" in head
        await side.send(SWITCH)

    documents = document(local(0), remote(100))
    async with serving(server) as scripted, gateway(documents, remote_port=scripted.port) as running:
        client = await running.client()
        await client.send(handshake(b"Authorization: Bearer mine", b"Cookie: mine=1"))
        await client.switched()
        assert await client.ended() == b""


def switch(subprotocol: bytes) -> bytes:
    """Return the head of a response that switches to a subprotocol; to none where it is empty."""
    return (
        SWITCH.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: %b\r\n\r\n" % subprotocol) if subprotocol else SWITCH
    )


@pytest.mark.parametrize(
    ("offered", "reaches", "selected", "returned"),
    [
        (b"realtime, openai-insecure-api-key.sk-mine, b.realtime", b"realtime, b.realtime", b"realtime", b"realtime"),
        (b"base64url.bearer.authorization.k8s.io.mine, v5.k8s.io", b"v5.k8s.io", b"v5.k8s.io", b"v5.k8s.io"),
        (b"chat, mine-0123456789abcdef", b"chat", b"", None),
        (b"token, mine", None, b"", b"token"),
        (b"Authorization, Bearer, mine", None, b"", b"Authorization"),
        (b"openai-insecure-api-key.sk-mine", None, b"", b"openai-insecure-api-key.sk-mine"),
    ],
)  # fmt: skip
async def test_a_remote_gets_the_subprotocols_without_credentials(
    offered: bytes, reaches: bytes | None, selected: bytes, returned: bytes | None
) -> None:
    """A remote backend selects one of the subprotocols that are no credentials; where there is none, the gateway does.

    Browsers end a connection that offers subprotocols and gets none.
    """

    async def server(side: ServerSide) -> None:
        head = await side.request()
        assert b"mine" not in head
        lines = [line for line in head.split(b"\r\n") if line.startswith(b"sec-websocket-protocol")]
        assert lines == ([] if reaches is None else [b"sec-websocket-protocol: " + reaches])
        await side.send(switch(selected))

    documents = document(local(0), remote(100))
    async with serving(server) as scripted, gateway(documents, remote_port=scripted.port) as running:
        client = await running.client()
        await client.send(handshake(b"Sec-WebSocket-Protocol: " + offered))
        response = await client.switched()
        assert response.value(b"sec-websocket-protocol") == returned


async def test_all_subprotocols_reach_a_backend_that_may_see_the_callers_authorization() -> None:
    """Subprotocols that are credentials go to local backends, and to remote ones that get Authorization."""
    offered = b"realtime, openai-insecure-api-key.sk-mine"

    async def server(side: ServerSide) -> None:
        assert b"\r\nsec-websocket-protocol: %b\r\n" % offered in await side.request()
        await side.send(switch(b"realtime"))

    allowed = remote(100, forward_headers=("authorization",))
    async with serving(server) as scripted:
        for documents in (document(local(100)), document(local(0), allowed)):
            async with gateway(documents, local_port=scripted.port, remote_port=scripted.port) as running:
                client = await running.client()
                await client.send(handshake(b"Sec-WebSocket-Protocol: " + offered))
                assert (await client.switched()).value(b"sec-websocket-protocol") == b"realtime"


async def test_another_response_is_an_ordinary_one() -> None:
    """A response other than 101 is relayed with its body; then the connection is closed and nothing more is read."""

    async def server(side: ServerSide) -> None:
        await side.request()
        await side.send(reply(b"no", b"403 Forbidden", b"x-why: policy"))
        await side.gone()

    async with serving(server) as scripted, gateway(local_port=scripted.port) as running:
        client = await running.client()
        await client.send(handshake(), CANARY)
        response = await client.response()
        assert (response.status, response.body, response.value(b"x-why")) == (403, b"no", b"policy")
        assert response.value(b"connection") == b"close"
        assert await client.ended() == b""
        assert len(scripted.sides) == 1
        assert b"canary" not in scripted.sides[0].received


async def test_a_library_sees_the_refusal() -> None:
    """A client library gets the status with which a server refuses its handshake."""

    async def server(side: ServerSide) -> None:
        await side.request()
        await side.send(reply(b"", b"401 Unauthorized"))

    async with serving(server) as scripted, gateway(local_port=scripted.port) as running:
        with pytest.raises(InvalidStatus) as caught:
            await opened(f"ws://127.0.0.1:{running.port}/default/demo/live")
        assert caught.value.response.status_code == 401


async def test_before_101_a_handshake_goes_elsewhere_and_after_it_never() -> None:
    """A handshake that fails at one backend is tried at another, and a tunnel that breaks is not."""

    async def full(side: ServerSide) -> None:
        await side.request()
        await side.send(reply(b"", b"503 Service Unavailable"))

    async def dies(side: ServerSide) -> None:
        await side.request()
        await side.send(SWITCH)
        await side.reader.readexactly(1)
        side.reset()

    documents = document(local(100), remote(0, use=(Use.FAILOVER,)))
    async with (
        serving(full) as first,
        serving(dies) as second,
        gateway(documents, local_port=first.port, remote_port=second.port) as running,
    ):
        client = await running.client()
        await client.send(handshake())
        response = await client.switched()
        assert response.value(b"x-beamlit-backend") == b"remote"
        await client.send(b"x")
        assert await client.ended() == b""
        line = await logged(running)
        assert (line["status"], line["broken"]) == (101, "upstream_reset")
        assert (len(first.sides), len(second.sides)) == (1, 1)


# Ends of tunnels


async def test_half_closes_pass_in_both_directions() -> None:
    """A client that has ended its side still gets what the server sends."""

    async def server(side: ServerSide) -> None:
        await side.request()
        await side.send(SWITCH)
        assert await side.reader.read(-1) == b"last words"  # to the client's end
        await side.send(b"x" * 300_000)

    async with serving(server) as scripted, gateway(local_port=scripted.port) as running:
        client = await running.client()
        await client.send(handshake())
        await client.switched()
        await client.send(b"last words")
        client.writer.write_eof()
        assert await client.ended() == b"x" * 300_000
        await until(lambda: running.server.connections == 0 and running.upstream.stats.open == 0)
        assert (await logged(running))["broken"] is None


async def test_a_servers_half_close_leaves_the_other_direction() -> None:
    """A server that has ended its side still gets what the client sends."""

    async def server(side: ServerSide) -> None:
        await side.request()
        await side.send(SWITCH + b"bye")
        side.writer.write_eof()
        assert await side.reader.read(-1) == b"goodbye"

    async with serving(server) as scripted, gateway(local_port=scripted.port) as running:
        client = await running.client()
        await client.send(handshake())
        await client.switched()
        assert await client.ended() == b"bye"
        await client.send(b"goodbye")
        client.writer.write_eof()
        await until(lambda: running.server.connections == 0 and running.upstream.stats.open == 0)


@pytest.mark.parametrize("who", ["client", "server"])
async def test_a_reset_passes(who: str) -> None:
    """A reset of one side resets the other."""
    seen: list[type[BaseException] | None] = []
    go = asyncio.Event()

    async def server(side: ServerSide) -> None:
        await side.request()
        await side.send(SWITCH)
        await go.wait()
        if who == "server":
            side.reset()
            return
        try:
            await side.reader.read(1)
            seen.append(None)
        except ConnectionError as exc:
            seen.append(type(exc))

    async with serving(server) as scripted, gateway(local_port=scripted.port) as running:
        client = await running.client()
        await client.send(handshake())
        await client.switched()
        go.set()
        if who == "server":
            with pytest.raises(ConnectionResetError):
                await client.reader.read(1)
        else:
            reset(client.writer.transport)
            await until(lambda: bool(seen))
            assert seen == [ConnectionResetError]
        await until(lambda: running.upstream.stats.open == 0)
        line = await logged(running)
        assert line["broken"] == ("client_gone" if who == "client" else "upstream_reset")


# Requests that are refused


REFUSED: Final = {
    "two-upgrades": [handshake(b"Upgrade: websocket")],
    "websocket-with-version": [handshake().replace(b"WebSocket\r\n", b"websocket/13\r\n")],
    "no-connection": [handshake().replace(b"keep-alive, Upgrade", b"keep-alive")],
    "http-1.0": [handshake(line=b"GET /default/demo/live HTTP/1.0")],
    "post": [handshake(line=b"POST /default/demo/live HTTP/1.1")],
    "head": [handshake(line=b"HEAD /default/demo/live HTTP/1.1")],
    "options": [handshake(line=b"OPTIONS /default/demo/live HTTP/1.1")],
    "length-same-segment": [handshake(b"Content-Length: %d" % len(CANARY)) + CANARY],
    "length-next-segment": [handshake(b"Content-Length: %d" % len(CANARY)), CANARY],
    "length-0-of-a-post": [handshake(b"Content-Length: 0", line=b"POST /default/demo/live HTTP/1.1"), CANARY],
    "chunked": [handshake(b"Transfer-Encoding: chunked"), b"%x\r\n%b\r\n0\r\n\r\n" % (len(CANARY), CANARY)],
    "expect": [handshake(b"Expect: 100-continue"), CANARY],
    "http2-settings": [handshake(b"HTTP2-Settings: AAMAAABk"), CANARY],
    "version-8": [handshake().replace(b"Version: 13", b"Version: 8")],
    "two-versions": [handshake(b"Sec-WebSocket-Version: 13")],
    "no-version": [handshake().replace(b"Sec-WebSocket-Version: 13\r\n", b"")],
    "no-key": [handshake().replace(b"Sec-WebSocket-Key: " + KEY + b"\r\n", b"")],
    "two-keys": [handshake(b"Sec-WebSocket-Key: " + KEY)],
    "listed-key": [handshake(b"Connection: Sec-WebSocket-Key")],
    "listed-version": [handshake().replace(b"keep-alive, Upgrade", b"sec-websocket-version , Upgrade")],
    "listed-extensions": [handshake(b"Connection: Upgrade,SEC-WEBSOCKET-EXTENSIONS")],
    "short-key": [handshake(key=b"c2hvcnQ=")],
    "key-that-is-none": [handshake(key=b"dGhlIHNhbXBsZSBub25jZR==")],
}


@pytest.mark.parametrize("sent", REFUSED.values(), ids=REFUSED)
async def test_fr_19_p20_other_upgrades_are_refused(sent: list[bytes]) -> None:
    """FR-19, P20: every other handshake for a WebSocket is refused, and its connection closed before a backend gets a
    byte."""
    async with serving(accept_all) as scripted, gateway(local_port=scripted.port) as running:
        client = await running.client()
        await client.send(*sent, CANARY)
        response = await client.response()
        assert (response.status, response.code) in ((400, "upgrade_refused"), (417, "expectation_failed")), response
        assert response.value(b"connection") == b"close"
        assert await client.ended() == b""
        assert scripted.sides == []
        assert running.count("beamlit_gateway_refused_requests_total", code=response.code) == 1


@pytest.mark.parametrize("version", [b"8", b"14", b"13, 8", b""])
async def test_another_version_is_told_the_right_one(version: bytes) -> None:
    """A handshake for another version of WebSocket gets a 400 that names version 13 (RFC 6455 4.4)."""
    async with gateway() as running:
        response = await running.ask(handshake().replace(b"Version: 13", b"Version: " + version))
        assert (response.status, response.code) == (400, "upgrade_refused")
        assert response.value(b"sec-websocket-version") == b"13"
        wrong_key = await running.ask(handshake(key=b"c2hvcnQ="))
        assert wrong_key.value(b"sec-websocket-version") is None


IGNORED: Final = {
    "h2c": handshake().replace(b"WebSocket\r\n", b"h2c\r\n"),
    "h2c-and-websocket": handshake().replace(b"WebSocket\r\n", b"h2c, websocket\r\n"),
    "websocket-and-h2c": handshake().replace(b"WebSocket\r\n", b"websocket, h2c\r\n"),
    "two-upgrades": handshake(b"Upgrade: h2c"),
    "tls": handshake().replace(b"WebSocket\r\n", b"TLS/1.0\r\n"),
    "no-upgrade": handshake().replace(b"Upgrade: WebSocket\r\n", b""),
}


@pytest.mark.parametrize("sent", IGNORED.values(), ids=IGNORED)
async def test_p20_other_offers_with_the_fields_of_a_handshake_are_ignored(sent: bytes) -> None:
    """P20: a request that offers something else than WebSocket alone is a plain GET, and a backend that switches
    protocols nevertheless gets no tunnel."""
    async with serving(accept_all) as scripted, gateway(local_port=scripted.port) as running:
        response = await running.ask(sent)
        assert (response.status, response.code) == (502, "bad_response")
        received = scripted.sides[0].received.lower()
        assert received.startswith(b"get /live http/1.1\r\n")
        assert b"\r\nupgrade:" not in received
        assert b"\r\nconnection:" not in received


@pytest.mark.parametrize(
    "line", [b"CONNECT example.com:443 HTTP/1.1", b"CONNECT /default/demo/x HTTP/1.1"], ids=["authority", "path"]
)
@pytest.mark.parametrize("body", [b"", b"Content-Length: %d" % len(CANARY)], ids=["bare", "body"])
async def test_fr_20_connect_is_refused(line: bytes, body: bytes) -> None:
    """FR-20: CONNECT is refused in any form, with or without the fields of a WebSocket, and its connection closed."""
    for sent in (handshake(*filter(None, [body]), line=line), line + b"\r\nHost: gateway\r\n" + body + b"\r\n\r\n"):
        async with serving(accept_all) as scripted, gateway(local_port=scripted.port) as running:
            client = await running.client()
            await client.send(sent.replace(b"\r\n\r\n\r\n", b"\r\n\r\n"), CANARY)
            response = await client.response(b"POST")
            assert response.status in (400, 405)
            assert response.value(b"connection") == b"close"
            assert await client.ended() == b""
            assert scripted.sides == []


async def accept_all(side: ServerSide) -> None:
    """Respond to one request with a 101, whatever it is."""
    await side.request()
    await side.send(SWITCH)
    await side.gone()


BAD_SWITCHES: Final = {
    "no-accept": SWITCH.replace(b"Sec-WebSocket-Accept: " + ACCEPT + b"\r\n", b""),
    "wrong-accept": SWITCH.replace(ACCEPT, websocket_accept(b"another key")),
    "two-accepts": SWITCH.replace(b"\r\n\r\n", b"\r\nSec-WebSocket-Accept: " + ACCEPT + b"\r\n\r\n"),
    "other-protocol": SWITCH.replace(b"websocket", b"h2c"),
    "two-protocols": SWITCH.replace(b"websocket", b"websocket, h2c"),
    "no-upgrade": SWITCH.replace(b"Upgrade: websocket\r\n", b""),
    "no-connection": SWITCH.replace(b"Connection: Upgrade\r\n", b""),
    "http-1.0": SWITCH.replace(b"HTTP/1.1", b"HTTP/1.0"),
    "length": SWITCH.replace(b"\r\n\r\n", b"\r\nContent-Length: 3\r\n\r\nabc"),
    "chunked": SWITCH.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
}


@pytest.mark.parametrize("switch", BAD_SWITCHES.values(), ids=BAD_SWITCHES)
async def test_ur_07_a_101_that_was_not_agreed_on(switch: bytes) -> None:
    """UR-07, P20: for a 101 that does not fit its handshake the client gets a 502, and the backend's connection is
    dropped."""

    async def server(side: ServerSide) -> None:
        await side.request()
        await side.send(switch + b"smuggled")
        await side.gone()

    async with serving(server) as scripted, gateway(local_port=scripted.port) as running:
        client = await running.client()
        await client.send(handshake())
        response = await client.response()
        assert (response.status, response.code) == (502, "bad_response")
        assert await client.ended() == b""
        await until(lambda: running.upstream.stats.open == 0)


async def test_ur_07_an_unasked_101() -> None:
    """UR-07: for a 101 to a request that is no handshake the client gets a 502."""
    async with serving(accept_all) as scripted, gateway(local_port=scripted.port) as running:
        response = await running.ask(
            b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\r\nSec-WebSocket-Key: %b\r\n\r\n" % KEY
        )
        assert (response.status, response.code) == (502, "bad_response")
        await until(lambda: running.upstream.stats.open == 0)


async def test_too_much_before_the_101_is_not_read() -> None:
    """A client that sends megabytes before its WebSocket is open is held back, and all of them arrive afterwards."""
    go = asyncio.Event()
    total = 8 << 20

    async def server(side: ServerSide) -> None:
        await side.request()
        await go.wait()
        await side.send(SWITCH)
        assert await side.reader.readexactly(total) == b"x" * total
        await side.send(b"all")

    async with serving(server) as scripted, gateway(local_port=scripted.port) as running:
        client = await running.client()
        await client.send(handshake())
        client.writer.write(b"x" * total)
        [connection] = running.server._connections
        await until(lambda: connection._pipelined_bytes > 65536)
        await asyncio.sleep(0.2)
        assert connection._pipelined_bytes <= 65536 + 262144
        go.set()
        await client.switched()
        assert await client.some() == b"all"
