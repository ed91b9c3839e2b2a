"""Bodies, deadlines and clients that close, over real sockets on both sides of the gateway."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager

import pytest

from gateway.api.v1alpha1 import Timeouts
from tests.deadlines import NEVER, SECONDS
from tests.integration.gateway.wire import Client, Running, document, echo, gateway, local, message, reply
from tests.integration.servers import ServerSide, serving, until

GET = b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-type: text/event-stream\r\n\r\n"


def timeouts(**seconds: float) -> dict[str, object]:
    """Return settings with these timeouts."""
    return {"gateway": {"timeouts": seconds}}


async def idle(running: Running) -> None:
    """Wait until no request and no connection to a server is in use."""
    await until(lambda: running.count("beamlit_gateway_in_flight_requests", namespace="default", model="demo") == 0)
    await until(lambda: running.upstream.stats.open == running.upstream.stats.idle)


# Bodies


async def test_bs_01_p5_each_event_passes_as_it_comes() -> None:
    """BS-01: each event of a stream reaches the client before the server sends the next."""
    go = asyncio.Semaphore(0)

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(CHUNKED)
        for number in range(50):
            await go.acquire()
            event = b"data: %d\n\n" % number
            await side.send(b"%x\r\n%b\r\n" % (len(event), event))
        await side.send(b"0\r\n\r\n")

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(GET)
        head = await client.response(head_only=True)
        assert head.value(b"content-type") == b"text/event-stream"
        rest = b""
        for number in range(50):
            go.release()
            rest = await client.some()
            assert b"data: %d\n\n" % number in rest
        while not rest.endswith(b"0\r\n\r\n"):
            rest += await client.some()


async def test_bs_02_a_slow_reader_holds_the_server_back() -> None:
    """BS-02: a client that does not read holds the server back, beyond bounded buffers."""
    sent = 0

    async def script(side: ServerSide) -> None:
        nonlocal sent
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (192 << 20))
        for _ in range(192 << 4):
            await side.send(b"a" * 65536)
            sent += 65536

    async with serving(script) as server, gateway(local_port=server.port) as running:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", running.port))
        await asyncio.get_running_loop().sock_sendall(raw, GET)
        last = -1
        async with asyncio.timeout(SECONDS):
            while sent != last or not sent:  # until the server stands still
                last = sent
                await asyncio.sleep(0.2)
        # Of 192 MB, what fits into the buffers of the kernel, which grow to 32 MB each while the machine is busy.
        assert sent < 80 << 20
        raw.close()
        await idle(running)


async def test_bs_03_a_slow_server_holds_the_client_back() -> None:
    """BS-03: a server that does not read an upload holds the client back."""
    release = asyncio.Event()
    total = 0
    size = 96 << 20  # more than fits into the buffers of the kernel, which grow to 32 MB each while it is busy

    async def script(side: ServerSide) -> None:
        nonlocal total
        head = await side.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: %d\r\n" % size in head
        await release.wait()
        while total < size:
            total += len(await side.reader.read(1 << 20))
        await side.send(reply())

    async with (
        serving(script) as server,
        gateway(local_port=server.port, settings={"gateway": {"limits": {"bodyBytes": size}}}) as running,
    ):
        client = await running.client()
        client.writer.write(message(b"Content-Length: %d" % size))
        written = 0
        stalled = False
        while written < size and not stalled:
            client.writer.write(b"a" * 65536)
            written += 65536
            try:
                await asyncio.wait_for(client.writer.drain(), 0.5)
            except TimeoutError:
                stalled = True
        assert stalled
        release.set()
        client.writer.write(b"a" * (size - written))
        response = await client.response(b"POST")
        assert (response.status, total) == (200, size)


async def test_bs_06_upload_of_unknown_length() -> None:
    """BS-06: chunks of an upload reach the server as a chunked body, while the client is still sending."""
    seen = asyncio.Event()

    async def script(side: ServerSide) -> None:
        head = await side.reader.readuntil(b"\r\n\r\n")
        assert b"transfer-encoding: chunked\r\n" in head
        assert await side.reader.readuntil(b"abc\r\n") == b"3\r\nabc\r\n"
        seen.set()
        assert await side.reader.readuntil(b"0\r\n\r\n") == b"2\r\nde\r\n0\r\n\r\n"
        await side.send(reply())

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(message(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n"))
        await asyncio.wait_for(seen.wait(), SECONDS)
        await client.send(b"2\r\nde\r\n0\r\n\r\n")
        assert (await client.response(b"POST")).status == 200


@pytest.mark.parametrize(
    ("field", "body", "framing"),
    [
        (b"Content-Length: 0", b"", b"content-length: 0\r\n"),
        (b"X: none", b"", b""),
        (b"Transfer-Encoding: chunked", b"0\r\n\r\n", b"transfer-encoding: chunked\r\n"),
    ],
)
async def test_bs_07_an_empty_body_keeps_its_meaning(field: bytes, body: bytes, framing: bytes) -> None:
    """BS-07: a request without a body, with a body of no bytes or with a chunked one of no bytes keeps that form."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        response = await running.ask(message(field, body=body), method=b"POST")
        assert response.status == 200
        received = server.sides[0].received
        assert framing in received
        assert (b"content-length" in received) is (b"content-length" in framing)
        assert (b"transfer-encoding" in received) is (b"transfer-encoding" in framing)


@pytest.mark.parametrize("chunked", [False, True])
async def test_bs_08_too_large_a_body(chunked: bool) -> None:
    """BS-08: a 413 reaches the client while it still sends too large a body, of which the server sees no end."""

    async def script(side: ServerSide) -> None:
        await side.gone()
        assert not side.received.endswith(b"0\r\n\r\n")

    route = document(local(), limits={"bodyBytes": 100000})
    async with serving(script) as server, gateway(route, local_port=server.port) as running:
        for _ in range(30):
            client = await running.client()
            field = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 20000000"
            client.writer.write(message(field))
            for _ in range(20):
                piece = b"a" * 65536
                client.writer.write(b"10000\r\n%b\r\n" % piece if chunked else piece)
            response = await client.response(b"POST")
            assert (response.status, response.code) == (413, "body_too_large")
            assert response.value(b"connection") == b"close"
            client.reset()
        await idle(running)


async def test_bs_09_coded_content_is_not_touched() -> None:
    """BS-09: a compressed response passes byte by byte."""
    body = bytes(range(256)) * 8

    async def script(side: ServerSide) -> None:
        request = await side.request()
        assert b"accept-encoding: gzip\r\n" in request
        await side.send(reply(body, b"200 OK", b"content-encoding: gzip"))

    async with serving(script) as server, gateway(local_port=server.port) as running:
        response = await running.ask(b"GET /default/demo/x HTTP/1.1\r\nHost: g\r\nAccept-Encoding: gzip\r\n\r\n")
        assert response.value(b"content-encoding") == b"gzip"
        assert response.body == body


@pytest.mark.parametrize("framing", ["chunked", "length"])
@pytest.mark.parametrize("reset", [False, True])
async def test_bs_11_p6_a_broken_response_is_not_a_complete_one(framing: str, reset: bool) -> None:
    """BS-11: a response that the server breaks off has no end of the body for the client."""

    async def script(side: ServerSide) -> None:
        await side.request()
        if framing == "chunked":
            await side.send(CHUNKED + b"5\r\nhello\r\n")
        else:
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello")
        if reset:
            side.reset()

    async with serving(script) as server, gateway(local_port=server.port) as running:
        response = await running.ask(GET)
        assert response.status in (200, 0)
        assert not response.complete
        await idle(running)


async def test_ur_08_close_delimited_response_is_chunked_anew() -> None:
    """UR-08: a response that ends with the server's connection reaches the client in chunks, with an end."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\n\r\nhello")

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(GET)
        response = await client.response()
        assert (response.body, response.complete) == (b"hello", True)
        assert response.value(b"transfer-encoding") == b"chunked"
        await client.send(b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert (await client.response()).status == 200  # the client's connection goes on


@pytest.mark.parametrize(("status", "length"), [(b"204 No Content", False), (b"304 Not Modified", False)])
async def test_ur_05_responses_without_a_body(status: bytes, length: bool) -> None:
    """UR-05: a 204 or 304 reaches the client without body and length, whatever the server says."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 " + status + b"\r\ncontent-length: 5\r\netag: x\r\n\r\n")

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(GET)
        response = await client.response()
        assert response.complete
        assert response.value(b"content-length") is None
        assert response.value(b"transfer-encoding") is None
        await client.send(b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n")
        assert (await client.response()).status == 200


async def test_ur_04_head() -> None:
    """UR-04: a response to HEAD has the length of the response to GET, and no body."""

    async def script(side: ServerSide) -> None:
        while True:
            request = await side.request()
            body = b"" if request.startswith(b"HEAD") else b"a" * 100
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n" + body)

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        for method, size in ((b"HEAD", 0), (b"GET", 100)) * 2:
            await client.send(GET.replace(b"GET", method))
            response = await client.response(method)
            assert (response.value(b"content-length"), len(response.body)) == (b"100", size)


async def test_ur_15_early_response_while_the_body_comes() -> None:
    """UR-15: a response that does not wait for the body is passed on at once, and both connections end with it."""

    async def script(side: ServerSide) -> None:
        await side.reader.readuntil(b"\r\n\r\n")
        await side.send(reply(b"no", b"403 Forbidden"))
        await side.gone()

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(message(b"Content-Length: 1000000", body=b"a" * 1000))
        response = await client.response(b"POST")
        assert (response.status, response.body) == (403, b"no")
        assert response.value(b"connection") == b"close"
        assert await client.ended() == b""
        await until(lambda: running.upstream.stats.open == 0)


async def test_bs_12_ten_thousand_small_events() -> None:
    """BS-12: events that come faster than the client reads them pass whole and in order, joined into few chunks."""
    events = b"".join(b"data: %05d%b\n\n" % (number, b"." * 37) for number in range(10000))

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(CHUNKED)
        side.writer.writelines(b"32\r\n%b\r\n" % events[at : at + 50] for at in range(0, len(events), 50))
        await side.send(b"0\r\n\r\n")

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(GET)
        raw = b""
        async with asyncio.timeout(SECONDS):
            while not raw.endswith(b"0\r\n\r\n"):
                raw += await client.some()
        body = b""
        chunks = 0
        rest = raw.partition(b"\r\n\r\n")[2]
        while rest != b"0\r\n\r\n":
            size, _, rest = rest.partition(b"\r\n")
            body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]
            chunks += 1
        assert body == events
        assert chunks < 1000


# Expect: 100-continue (RFC 9110 10.1.1)


async def test_hh_13_continue_is_sent_once() -> None:
    """HH-13: a request with `Expect: 100-continue` gets one 100, and the field is not sent on."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(message(b"Content-Length: 3", b"Expect: 100-continue"))
        assert await client.some() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await client.send(b"abc")
        response = await client.response(b"POST")
        assert (response.status, response.interim) == (200, [])
        assert b"expect" not in server.sides[0].received.lower()


@pytest.mark.parametrize(
    ("target", "length", "status"),
    [(b"/nowhere/x", b"3", 404), (b"/default/demo/x", b"99999999", 413)],
)
async def test_hh_12_no_continue_before_a_refusal(target: bytes, length: bytes, status: int) -> None:
    """HH-12: a request that is refused by its head gets no 100 and reaches no server."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        head = b"POST %b HTTP/1.1\r\nHost: g\r\nContent-Length: %b\r\nExpect: 100-continue\r\n\r\n" % (target, length)
        client = await running.client()
        await client.send(head)
        response = await client.response(b"POST")
        assert (response.status, response.interim) == (status, [])
        assert response.value(b"connection") == b"close"
        assert server.sides == []


async def test_hh_14_another_expectation() -> None:
    """HH-14: a request with an unknown expectation gets a 417."""
    async with gateway() as running:
        assert (await running.ask(message(b"Expect: miracles"))).status == 417


# Deadlines


@pytest.mark.parametrize("sent", [b"", b"GET /x HTTP/1.1\r\nHost:"])
async def test_p11_a_head_has_a_deadline(sent: bytes) -> None:
    """P11: a connection ends at the deadline of the head, silently if the client sent nothing, otherwise with a 408."""
    async with gateway(settings=timeouts(headSeconds=0.3)) as running:
        client = await running.client()
        await client.send(sent)
        if sent:
            response = await client.response()
            assert (response.status, response.code) == (408, "request_timeout")
        assert await client.ended() == b""


async def test_p11_the_head_deadline_is_absolute() -> None:
    """P11: a head that arrives byte by byte does not extend its deadline, not even on a second request."""
    async with serving(echo) as server, gateway(local_port=server.port, settings=timeouts(headSeconds=1.5)) as running:
        client = await running.client()
        await client.send(GET)
        assert (await client.response()).status == 200
        responding = asyncio.create_task(client.response())
        for byte in b"GET /default/demo/x HTTP/1.1\r\nX: " + b"a" * 1000:
            await client.send(bytes((byte,)))
            if (await asyncio.wait({responding}, timeout=0.05))[0]:
                break
        else:
            pytest.fail("every byte has extended the deadline")
        assert (await responding).status == 408


async def test_p11_a_body_has_a_deadline() -> None:
    """P11: a request whose body stalls gets a 408, and the server's connection is dropped."""

    async def script(side: ServerSide) -> None:
        await side.gone()

    async with (
        serving(script) as server,
        gateway(local_port=server.port, settings=timeouts(bodySeconds=0.3)) as running,
    ):
        client = await running.client()
        await client.send(message(b"Content-Length: 10", body=b"abc"))
        response = await client.response(b"POST")
        assert (response.status, response.code) == (408, "body_timeout")
        await idle(running)


async def test_keep_alive_ends_quietly() -> None:
    """A client's connection that is unused for the keep-alive time is closed without a response."""
    async with (
        serving(echo) as server,
        gateway(local_port=server.port, settings=timeouts(keepAliveSeconds=0.3)) as running,
    ):
        client = await running.client()
        await client.send(GET)
        assert (await client.response()).status == 200
        assert await client.ended() == b""


async def test_u10_a_client_that_reads_nothing_is_cut() -> None:
    """A client that reads nothing for the stall time is dropped, and the server's connection with it."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % (64 << 20))
        for _ in range(64 << 4):
            await side.send(b"a" * 65536)

    async with (
        serving(script) as server,
        gateway(local_port=server.port, settings=timeouts(writeStallSeconds=0.4)) as running,
    ):
        raw = socket.socket()
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", running.port))
        await asyncio.get_running_loop().sock_sendall(raw, GET)
        await until(lambda: bool(server.sides))
        await until(lambda: running.server.connections == 0)
        await idle(running)
        raw.close()


async def test_to_02_no_first_byte() -> None:
    """TO-02: a request whose server sends nothing gets a 504, and the server's connection is dropped."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.gone()

    route = document(local(), timeouts=Timeouts(first_byte=0.3))
    async with serving(script) as server, gateway(route, local_port=server.port) as running:
        response = await running.ask(GET)
        assert (response.status, response.code) == (504, "first_byte_timeout")
        await until(lambda: running.upstream.stats.open == 0)
        labels = {"namespace": "default", "model": "demo", "backend": "local", "cause": "first_byte_timeout"}
        assert running.count("beamlit_gateway_upstream_errors_total", **labels) == 1


async def test_to_03_a_dripping_head() -> None:
    """TO-03: a response head that arrives byte by byte does not extend the deadline for the first byte."""

    async def script(side: ServerSide) -> None:
        await side.request()
        for byte in b"HTTP/1.1 200 OK\r\nx: " + b"a" * 100:
            await side.send(bytes((byte,)))
            await asyncio.sleep(0.05)

    route = document(local(), timeouts=Timeouts(first_byte=0.4))
    async with serving(script) as server, gateway(route, local_port=server.port) as running:
        assert (await running.ask(GET)).status == 504


async def test_to_04_idle_in_the_middle_of_a_stream() -> None:
    """TO-04: a stream without data for the idle time is broken off, without a second status line in it."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(CHUNKED + b"d\r\ndata: hello\n\n\r\n")
        await side.gone()

    route = document(local(), timeouts=Timeouts(idle=0.3))
    async with serving(script) as server, gateway(route, local_port=server.port) as running:
        response = await running.ask(GET)
        assert (response.status, response.complete) == (200, False)
        assert response.body.startswith(b'data: hello\n\ndata: {"error":')
        assert b"HTTP/1.1" not in response.body
        await until(lambda: bool(running.lines()))
        assert running.lines()[0]["broken"] == "idle_timeout"


# Clients that close


async def _leave(client: Client, how: str) -> None:
    if how == "reset":
        client.reset()
    elif how == "half":
        client.writer.write_eof()
    else:
        client.close()


@pytest.mark.parametrize("how", ["close", "reset", "half"])
@pytest.mark.parametrize("point", ["upload", "before first byte", "mid stream", "pipelined"])
async def test_to_06_to_08_bs_13_p4_the_servers_connection_ends_with_the_clients(point: str, how: str) -> None:
    """TO-06: when a client closes or resets its connection anywhere in a request, the server's connection ends."""
    reached = asyncio.Event()
    gone = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.reader.readuntil(b"\r\n\r\n")
        if point in ("mid stream", "pipelined"):
            await side.send(CHUNKED + b"5\r\nhello\r\n")
        reached.set()
        await side.gone()
        gone.set()

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        if point == "upload":
            await client.send(message(b"Content-Length: 1000", body=b"abc"))
        else:
            await client.send(GET)
        await asyncio.wait_for(reached.wait(), SECONDS)
        if point in ("mid stream", "pipelined"):
            assert (await client.response(head_only=True)).status == 200
        if point == "pipelined":
            await client.send(GET)
        await _leave(client, how)
        await asyncio.wait_for(gone.wait(), SECONDS)
        await idle(running)
        assert len(server.sides) == 1


async def test_u9_to_06_a_reset_is_noticed_while_nothing_is_read() -> None:
    """While it reads nothing, because the server holds an upload back, the gateway notices that the client is gone."""
    done = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.reader.readuntil(b"\r\n\r\n")
        side.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await done.wait()

    settings = timeouts(bodySeconds=NEVER, writeStallSeconds=NEVER)
    async with serving(script) as server, gateway(local_port=server.port, settings=settings) as running:
        client = await running.client()
        client.writer.write(message(b"Content-Length: 30000000", body=b"a" * 30000000))
        before = -1
        async with asyncio.timeout(SECONDS):
            while (size := client.writer.transport.get_write_buffer_size()) != before or not server.sides:
                before = size
                await asyncio.sleep(0.1)
        raw = client.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        client.reset()
        await until(lambda: running.server.connections == 0)
        await idle(running)
        done.set()


async def test_a_client_that_goes_is_no_error_of_the_backend() -> None:
    """A client that closes before its response is logged as 499, and no upstream error is counted."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.gone()

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(GET)
        await until(lambda: bool(server.sides and server.sides[0].received))
        client.close()
        await until(lambda: bool(running.lines()))
        line = running.lines()[0]
        assert (line["status"], line["broken"]) == (499, "client_gone")
        text = running.metrics.registry.collect()
        errors = [one for metric in text if metric.name == "beamlit_gateway_upstream_errors" for one in metric.samples]
        assert errors == []


async def test_connections_are_bounded() -> None:
    """While all connections have a request under way, one too many gets a 503 and is closed, and the others go on."""
    settings = {"gateway": {"limits": {"connections": 2}}}
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await go.wait()
        await side.send(reply())

    async with serving(script) as server, gateway(local_port=server.port, settings=settings) as running:
        clients = [await running.client() for _ in range(2)]
        for client in clients:
            await client.send(GET)
        await until(lambda: len(server.sides) == 2)
        third = await running.client()
        response = await third.response()
        assert (response.status, response.code) == (503, "overloaded")
        assert await third.ended() == b""
        go.set()
        assert [(await client.response()).status for client in clients] == [200, 200]


@pytest.mark.parametrize("sent", [b"", GET[:9], GET], ids=["nothing", "a part of a head", "a whole request"])
async def test_connections_without_a_request_make_room(sent: bytes) -> None:
    """At the limit the connection closes that has waited longest for a request, and a new one takes its place."""
    settings = {"gateway": {"limits": {"connections": 4}}}
    async with serving(echo) as server, gateway(local_port=server.port, settings=settings) as running:
        clients = []
        for _ in range(3):
            clients.append(client := await running.client())
            await client.send(sent)
            if sent == GET:
                assert (await client.response()).status == 200
            await until(lambda: running.server.connections == len(clients))
            opened = running.server.loop.time()
            await until(lambda: running.server.loop.time() > opened + 0.002)  # noqa: B023
        assert (await running.ask(GET)).status == 200  # the gateway has read what was sent before
        await until(lambda: running.server.connections == 4)
        assert (await running.ask(GET)).status == 200
        assert await clients[0].ended() == b""
        assert running.server.connections == 4
        for client in clients[1:]:
            await client.send(GET.removeprefix(sent) or GET)
            assert (await client.response()).status == 200


@asynccontextmanager
async def crowd(running: Running, sent: bytes) -> AsyncIterator[None]:
    """Open twenty connections from another address, send the same on each, and drop them at the end."""
    many = [await asyncio.open_connection("127.0.0.1", running.port, local_addr=("127.0.0.2", 0)) for _ in range(20)]
    try:
        for _, writer in many:
            writer.write(sent)
        yield
    finally:
        for _, writer in many:
            writer.transport.abort()


async def test_the_address_with_most_idle_connections_makes_room() -> None:
    """At the limit idle connections of the address that has most of them close, and none of another address."""
    settings = {"gateway": {"limits": {"connections": 4}}}
    async with serving(echo) as server, gateway(local_port=server.port, settings=settings) as running:
        first = await running.client()
        await first.send(GET)
        assert (await first.response()).status == 200
        async with crowd(running, b""):
            await until(lambda: running.server.connections == 4)
            await first.send(GET)
            assert (await first.response()).status == 200


async def test_a_burst_of_requests_from_one_address_leaves_others_their_connections() -> None:
    """At the limit an address with few connections gets one, also where requests have arrived on all others."""
    settings = {"gateway": {"limits": {"connections": 8}, "timeouts": {"keepAliveSeconds": NEVER}}}
    async with serving(echo) as server, gateway(local_port=server.port, settings=settings) as running:

        async def status() -> bytes:
            one = socket.create_connection(("127.0.0.1", running.port))
            one.sendall(GET)
            with one, one.makefile("rb") as reading:
                return await asyncio.to_thread(reading.readline)

        with ExitStack() as open_sockets:
            many = [
                open_sockets.enter_context(
                    socket.create_connection(("127.0.0.1", running.port), source_address=("127.0.0.2", 0))
                )
                for _ in range(8)
            ]
            await until(lambda: running.server.connections == 8)
            for raw in many:
                raw.sendall(GET)
            # Requests that were read before it came are under way for a moment, and make no room: it waits so long.
            assert await status() == b"HTTP/1.1 200 OK\r\n"


async def test_a_connection_waits_for_room_that_another_address_has_used_up() -> None:
    """Where all connections have a request under way, one of an address with few waits for the end of one."""
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await go.wait()
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    settings = {"gateway": {"limits": {"connections": 20}}}
    async with (
        serving(script) as server,
        gateway(local_port=server.port, settings=settings) as running,
        crowd(running, GET),
    ):
        await until(lambda: len(server.sides) == 20)
        few = [await running.client() for _ in range(3)]
        for client in few:
            await client.send(GET)
        assert (await few[2].response()).status == 503  # a tenth of the limit may wait
        go.set()
        assert [(await client.response()).status for client in few[:2]] == [200, 200]


async def test_a_connection_does_not_wait_for_room_for_ever() -> None:
    """A connection that waits for room is refused with a 503 when none has come."""
    settings = {"gateway": {"limits": {"connections": 20}}}
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await go.wait()

    async with (
        serving(script) as server,
        gateway(local_port=server.port, settings=settings) as running,
        crowd(running, GET),
    ):
        await until(lambda: len(server.sides) == 20)
        response = await running.ask(GET)
        assert (response.status, response.code) == (503, "overloaded")


async def test_drain_closes_what_is_idle_and_lets_the_rest_finish() -> None:
    """During drain an idle connection is closed at once, and one with a running stream after the stream has ended."""
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        while True:
            request = await side.request()
            if b"/stream" in request:
                await side.send(CHUNKED + b"5\r\nhello\r\n")
                await go.wait()
                await side.send(b"0\r\n\r\n")
            else:
                await side.send(reply())

    async with serving(script) as server, gateway(local_port=server.port) as running:
        quiet, busy = await running.client(), await running.client()
        await quiet.send(GET)
        assert (await quiet.response()).status == 200
        await busy.send(GET.replace(b"/x", b"/stream"))
        streaming = asyncio.create_task(busy.response())
        await until(lambda: len(server.sides) == 2 or b"/stream" in server.sides[0].received)
        running.server.begin_drain()
        assert await quiet.ended() == b""
        assert not await running.server.drained(0.05)
        go.set()
        assert (await streaming).complete
        assert await busy.ended() == b""
        busy.close()
        assert await running.server.drained(2)
