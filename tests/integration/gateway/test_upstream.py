"""Connections to correct servers: pool, reuse, framing, streaming, backpressure, timeouts and cancellation."""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvloop

from gateway import errors
from gateway.upstream.connection import Upstream
from gateway.upstream.origin import Origin, Timeouts, UpstreamLimits
from gateway.upstream.resolver import Resolver
from gateway.upstream.response import UpstreamResponse
from program.addresses import AddressRules
from tests.deadlines import SECONDS
from tests.integration.servers import (
    RecordingExchange,
    ScriptedServer,
    ServerSide,
    request_head,
    serving,
    until,
)

LONG = Timeouts(connect=SECONDS, first_byte=SECONDS, idle=SECONDS)
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


# The hook that replaces this fixture works for whole folders only.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")


@pytest.fixture(scope="module")
def event_loop_policy() -> asyncio.AbstractEventLoopPolicy:
    """Return the policy of the event loop that the gateway runs on."""
    policy: asyncio.AbstractEventLoopPolicy = uvloop.EventLoopPolicy()
    return policy


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    """Yield an upstream that sweeps its pool often."""
    resolver = Resolver(AddressRules())
    made = Upstream(resolver, sweep_seconds=0.02)
    yield made
    made.close()
    resolver.close()


async def ask(
    upstream: Upstream, server: ScriptedServer, exchange: RecordingExchange | None = None, **options: Any
) -> tuple[UpstreamResponse, RecordingExchange]:
    """Send one request, relay its response to the end, and return the response and the exchange."""
    exchange = exchange or RecordingExchange()
    response = await upstream.send(server.origin(), exchange.head, exchange, LONG, **options)
    await response.relay(exchange)
    return response, exchange


async def always_ok(side: ServerSide) -> None:
    """Respond to every request of a connection with 200."""
    while True:
        await side.request()
        await side.send(OK)


def _shut(descriptor: int) -> None:
    with socket.socket(fileno=os.dup(descriptor)) as twin:
        twin.shutdown(socket.SHUT_WR)


_LATE = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nlate"


@pytest.mark.parametrize(
    "misbehave",
    [
        lambda fd: os.write(fd, _LATE),
        lambda fd: os.write(fd, b"H"),
        lambda fd: os.write(fd, b"HTTP/1.1 100 Continue\r\n\r\n"),
        _shut,
    ],
    ids=["a response", "a byte", "an interim response", "an end"],
)
async def test_a_kept_connection_on_which_something_waits_is_not_used_again(
    upstream: Upstream, misbehave: Callable[[int], object]
) -> None:
    """What a backend sends after its response is given to no later request, also when the event loop has not read it
    yet, and neither is a connection that the backend has closed."""
    async with serving(always_ok) as server:
        await ask(upstream, server)
        assert upstream.stats.idle == 1
        misbehave(server.sides[0].writer.get_extra_info("socket").fileno())
        _, exchange = await ask(upstream, server)  # without a turn of the loop before it takes a connection
        assert (exchange.body, upstream.stats.connects, len(server.sides)) == (b"ok", 2, 2)


async def test_a_request_gets_its_response_and_its_connection_is_used_again(upstream: Upstream) -> None:
    """Two requests in a row go over one connection."""
    async with serving(always_ok) as server:
        for _ in range(2):
            response, exchange = await ask(upstream, server)
            assert (response.head.status, exchange.body, exchange.ended) == (200, b"ok", True)
        assert (len(server.sides), upstream.stats.connects, upstream.stats.idle) == (1, 1, 1)


async def test_hh_11_the_head_goes_out_as_given_with_framing_added(upstream: Upstream) -> None:
    """HH-11: a request has the given target, the given fields, one framing field, and nothing else."""
    async with serving(always_ok) as server:
        head = request_head(b"POST", b"/v1/x?a=%2f", ((b"host", b"m"), (b"x", b"1"), (b"x", b"2")), content_length=3)
        await ask(upstream, server, RecordingExchange(head, (b"a", b"bc")))
        assert server.sides[0].received == (
            b"POST /v1/x?a=%2f HTTP/1.1\r\nhost: m\r\nx: 1\r\nx: 2\r\ncontent-length: 3\r\n\r\nabc"
        )


@pytest.mark.parametrize(
    ("length", "chunked", "pieces", "tail"),
    [
        (None, False, (), b"\r\n\r\n"),
        (0, False, (), b"content-length: 0\r\n\r\n"),
        (None, True, (), b"transfer-encoding: chunked\r\n\r\n0\r\n\r\n"),
        (None, True, (b"abc", b"", b"d"), b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1\r\nd\r\n0\r\n\r\n"),
    ],
)
async def test_bs_07_the_forms_of_an_empty_body_keep_their_meaning(
    upstream: Upstream, length: int | None, chunked: bool, pieces: tuple[bytes, ...], tail: bytes
) -> None:
    """BS-07: a request without a body, with a body of no bytes or with a chunked body keeps that form."""
    async with serving(always_ok) as server:
        head = request_head(b"POST", content_length=length, chunked=chunked)
        await ask(upstream, server, RecordingExchange(head, pieces))
        received = server.sides[0].received
        assert received.endswith(tail)
        assert received.count(b"content-length") == (length is not None)


async def test_a_small_body_is_sent_with_the_head_in_one_write(upstream: Upstream) -> None:
    """A small body is sent in one write with the head."""
    first: list[bytes] = []

    async def script(side: ServerSide) -> None:
        first.append(await side.reader.read(65536))
        await side.send(OK)

    async with serving(script) as server:
        head = request_head(b"POST", content_length=4)
        await ask(upstream, server, RecordingExchange(head, (b"bo", b"dy")))
        assert first[0].endswith(b"\r\n\r\nbody")


async def test_bytes_can_be_the_body(upstream: Upstream) -> None:
    """A body given as bytes is framed by its own length."""
    async with serving(always_ok) as server:
        response = await upstream.send(server.origin(), request_head(b"POST", content_length=99), b"new", LONG)
        assert await response.read(100) == b"ok"
        assert server.sides[0].received.endswith(b"content-length: 3\r\n\r\nnew")


async def test_p5_a_stream_is_passed_on_as_it_arrives(upstream: Upstream) -> None:
    """P5: each event of a stream reaches the client before the server sends the next."""
    seen = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for _ in range(20):
            await side.send(b"7\r\ndata: x\r\n")
            async with asyncio.timeout(SECONDS):
                await seen.wait()
            seen.clear()
        await side.send(b"0\r\n\r\n")

    async with serving(script) as server:
        exchange = RecordingExchange()
        exchange.on_write = lambda data: seen.set()
        await ask(upstream, server, exchange)
        assert (exchange.body, exchange.writes) == (b"data: x" * 20, 20)


async def test_bs_02_the_server_is_held_back_while_the_client_does_not_read(upstream: Upstream) -> None:
    """BS-02: a paused response stops the server, and goes on to its end when it is resumed."""
    sent = 0
    total = 64 * 1024 * 1024

    async def script(side: ServerSide) -> None:
        nonlocal sent
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % total)
        block = bytes(1024 * 1024)
        while sent < total:
            await side.send(block)
            sent += len(block)

    async with serving(script) as server:
        exchange = RecordingExchange()
        received = 0

        def write(data: bytes) -> None:
            nonlocal received
            received += len(data)
            exchange.body = b""
            if received == len(data):
                assert exchange.source is not None
                exchange.source.pause()

        exchange.on_write = write
        response = await upstream.send(server.origin(), exchange.head, exchange, Timeouts(SECONDS, SECONDS, 1))
        relaying = asyncio.ensure_future(response.relay(exchange))
        await until(lambda: exchange.source is not None and received > 0)
        await asyncio.sleep(2)  # longer than the idle timeout, which must not count now
        assert not relaying.done()
        assert sent < 32 * 1024 * 1024
        response.resume()
        await relaying
        assert received == total


async def test_a_response_that_is_not_relayed_yet_is_held_back(upstream: Upstream) -> None:
    """Before `relay` no more than one buffer of a response is read from the server."""
    sent, size = 0, 128 << 20  # more than fits into the buffers of the kernel, which grow to 32 MB each

    async def script(side: ServerSide) -> None:
        nonlocal sent
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size)
        while sent < size:
            await side.send(bytes(1048576))
            sent += 1048576

    async with serving(script) as server:
        exchange = RecordingExchange()
        response = await upstream.send(server.origin(), exchange.head, exchange, LONG)
        await asyncio.sleep(0.2)
        assert sent < 80 << 20
        await response.relay(exchange)
        assert len(exchange.body) == size


async def test_a_response_that_is_never_taken_ends_by_its_idle_timeout(upstream: Upstream) -> None:
    """A response that is never relayed ends by its idle timeout, and its connection with it."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9999999\r\n\r\n" + bytes(9999999))

    async with serving(script) as server:
        response = await upstream.send(server.origin(), request_head(), b"", Timeouts(SECONDS, SECONDS, 0.1))
        await until(lambda: upstream.stats.open == 0)
        with pytest.raises(errors.IdleTimeout):
            await response.relay(RecordingExchange())


async def test_a_response_that_fills_the_buffer_with_its_first_read_ends_by_its_idle_timeout() -> None:
    """The idle timeout also counts where head and body come in one read, and the buffer is full at once."""
    resolver = Resolver(AddressRules())
    upstream = Upstream(resolver, limits=UpstreamLimits(buffer_bytes=1000), sweep_seconds=0.02)

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n" + bytes(5000))
        await side.gone()

    try:
        async with serving(script) as server:
            response = await upstream.send(server.origin(), request_head(), b"", Timeouts(SECONDS, 1e6, 0.1))
            await until(lambda: upstream.stats.open == 0)
            with pytest.raises(errors.IdleTimeout):
                await response.relay(RecordingExchange())
    finally:
        upstream.close()
        resolver.close()


async def test_bs_03_the_client_is_held_back_while_the_server_does_not_read(upstream: Upstream) -> None:
    """BS-03: a request body is paused when the server reads no more, and resumed when it reads again."""
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.reader.readuntil(b"\r\n\r\n")
        await go.wait()
        await side.reader.readexactly(64 * 1024 * 1024)
        await side.send(OK)

    async with serving(script) as server:
        head = request_head(b"POST", content_length=64 * 1024 * 1024)
        exchange = RecordingExchange(head, (), ends=False)
        sending = asyncio.ensure_future(upstream.send(server.origin(), head, exchange, LONG,
                                                      body_limit=1 << 30))  # fmt: skip
        await until(lambda: exchange.sink is not None)
        sink = exchange.sink
        assert sink is not None
        written = 0
        while written < 64 * 1024 * 1024:
            if exchange.paused:
                go.set()
                await until(lambda: not exchange.paused)
            sink.write(bytes(1024 * 1024))
            written += 1024 * 1024
            await asyncio.sleep(0)  # a client's bytes come turn by turn
        go.set()
        sink.end()
        response = await sending
        await response.relay(exchange)
        assert exchange.held > 0
        assert response.head.status == 200


async def test_ur_15_an_early_response_is_relayed_and_the_connection_not_used_again(upstream: Upstream) -> None:
    """UR-15: a response that comes before the end of the request body is relayed at once and ends the connection."""

    async def script(side: ServerSide) -> None:
        await side.reader.readuntil(b"\r\n\r\n")
        await side.send(b"HTTP/1.1 413 Too Large\r\ncontent-length: 3\r\n\r\nbig")
        await side.gone()

    async with serving(script) as server:
        exchange = RecordingExchange(request_head(b"POST", content_length=1000), (b"x",), ends=False)
        response, _ = await ask(upstream, server, exchange)
        assert (response.head.status, exchange.body, exchange.stopped) == (413, b"big", True)
        await until(lambda: upstream.stats.open == 0)
        assert upstream.stats.idle == 0


async def test_cp_01_a_connection_that_ends_while_idle_leaves_the_pool_at_once(upstream: Upstream) -> None:
    """CP-01: an idle connection that the server closes leaves the pool, and the next request opens another."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(OK)

    async with serving(script) as server:
        await ask(upstream, server)
        await until(lambda: upstream.stats.idle == 0)
        await ask(upstream, server, RecordingExchange(request_head(b"POST", content_length=0)))
        assert upstream.stats.connects == 2
        assert server.sides[0].received.count(b"HTTP/1.1") == 1


@pytest.mark.parametrize("reset", [False, True])
async def test_rt_03_a_dead_reused_connection_is_replaced_once_for_idempotent_requests(
    upstream: Upstream, reset: bool
) -> None:
    """RT-03: an idempotent request whose reused connection ends before any byte of the response is sent again."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(OK)
        if side.number == 0:
            await side.request()
            if reset:
                side.reset()
        else:
            await side.gone()

    async with serving(script) as server:
        await ask(upstream, server)
        _, exchange = await ask(upstream, server)
        assert exchange.body == b"ok"
        assert [side.received.count(b"HTTP/1.1") for side in server.sides] == [2, 1]


@pytest.mark.parametrize("resend", [False, True])
async def test_p8_a_post_is_sent_again_only_where_the_route_allows_it(upstream: Upstream, resend: bool) -> None:
    """P8: a POST whose bytes were written is sent again only if the route allows it."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(OK)
        if side.number == 0:
            await side.request()
        else:
            await side.gone()

    async with serving(script) as server:
        await ask(upstream, server)
        exchange = RecordingExchange(request_head(b"POST", content_length=2), (b"hi",))
        if resend:
            await ask(upstream, server, exchange, resend=True)
            assert server.sides[1].received.endswith(b"\r\n\r\nhi")
        else:
            with pytest.raises(errors.UpstreamReset):
                await ask(upstream, server, exchange)
            assert len(server.sides) == 1


async def test_rt_03_a_body_that_was_not_whole_is_not_sent_again(upstream: Upstream) -> None:
    """A request whose body is not whole yet is not sent again, even if the route allows it."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(OK)
        await side.reader.readuntil(b"\r\n\r\n")

    async with serving(script) as server:
        await ask(upstream, server)
        exchange = RecordingExchange(request_head(b"PUT", content_length=9), (b"part",), ends=False)
        with pytest.raises(errors.UpstreamReset):
            await ask(upstream, server, exchange, resend=True)
        assert exchange.stopped
        assert len(server.sides) == 1


async def test_a_fresh_connection_that_dies_is_not_replaced(upstream: Upstream) -> None:
    """A request on a fresh connection that ends before the response is not sent again."""

    async def script(side: ServerSide) -> None:
        await side.request()

    async with serving(script) as server:
        with pytest.raises(errors.UpstreamReset):
            await ask(upstream, server, resend=True)
        assert len(server.sides) == 1


@pytest.mark.parametrize("hint", [b"timeout=1", b"max=3, Timeout=1"])
async def test_cp_03_a_keep_alive_hint_shortens_the_life_in_the_pool(upstream: Upstream, hint: bytes) -> None:
    """CP-03: a connection whose server announces to close it after one second is not kept in the pool."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(b"HTTP/1.1 200 OK\r\nkeep-alive: %b\r\ncontent-length: 0\r\n\r\n" % hint)

    async with serving(script) as server:
        await ask(upstream, server)
        assert upstream.stats.idle == 0


@pytest.mark.parametrize(
    "limits",
    [UpstreamLimits(idle_seconds=0.05), UpstreamLimits(life_seconds=0.05), UpstreamLimits(idle_per_origin=0)],
)
async def test_cp_10_connections_leave_the_pool_by_age_idleness_and_number(limits: UpstreamLimits) -> None:
    """CP-10: each bound of the pool, on idle time, age or number, closes connections by itself."""
    resolver = Resolver(AddressRules())
    upstream = Upstream(resolver, limits=limits, sweep_seconds=0.02)
    async with serving(always_ok) as server:
        await ask(upstream, server)
        await until(lambda: upstream.stats.open == 0)
    upstream.close()
    resolver.close()


async def test_cp_04_to_06_a_cancelled_request_aborts_its_connection(upstream: Upstream) -> None:
    """CP-04, TO-06: a request that is cancelled before or after the response head ends its connection to the server."""
    gone = 0

    async def script(side: ServerSide) -> None:
        nonlocal gone
        await side.request()
        if side.number == 1:
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
        await side.gone()
        gone += 1

    async with serving(script) as server:
        for number in range(2):
            task = asyncio.ensure_future(ask(upstream, server))
            await until(lambda: len(server.sides) > number and server.sides[number].received != b"")  # noqa: B023
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            await until(lambda: gone == number + 1)  # noqa: B023
        assert upstream.stats.open == 0


async def test_to_02_no_response_in_time(upstream: Upstream) -> None:
    """TO-02: a server that reads the request and sends nothing causes a first-byte timeout."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.gone()

    async with serving(script) as server:
        with pytest.raises(errors.FirstByteTimeout):
            await upstream.send(server.origin(), request_head(), b"", Timeouts(SECONDS, 0.1, SECONDS))
        await until(lambda: upstream.stats.open == 0)


async def test_to_03_the_head_has_an_absolute_deadline(upstream: Upstream) -> None:
    """TO-03: a head that arrives byte by byte does not extend its deadline."""

    async def script(side: ServerSide) -> None:
        await side.request()
        for byte in OK:
            await side.send(bytes([byte]))
            await asyncio.sleep(0.05)

    async with serving(script) as server:
        with pytest.raises(errors.FirstByteTimeout):
            await upstream.send(server.origin(), request_head(), b"", Timeouts(SECONDS, 0.2, SECONDS))


async def test_to_04_a_stalled_body_is_an_idle_timeout(upstream: Upstream) -> None:
    """TO-04: a body that stalls ends with an idle timeout and does not count as complete."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc")
        await side.gone()

    async with serving(script) as server:
        exchange = RecordingExchange()
        response = await upstream.send(server.origin(), exchange.head, exchange, Timeouts(SECONDS, SECONDS, 0.1))
        with pytest.raises(errors.IdleTimeout):
            await response.relay(exchange)
        assert (exchange.body, exchange.ended) == (b"abc", False)


async def test_to_01_connecting_has_a_deadline(upstream: Upstream) -> None:
    """TO-01: a TLS hello without a response causes a connect timeout."""

    async def script(side: ServerSide) -> None:
        await side.gone()

    async with serving(script) as server:
        with pytest.raises(errors.ConnectTimeout):
            await upstream.send(server.origin("https"), request_head(), b"", Timeouts(0.1, SECONDS, SECONDS))


async def test_a_refused_connection(upstream: Upstream) -> None:
    """A request to a port where nothing listens fails as one that could not connect."""
    async with serving(always_ok) as server:
        origin = server.origin()
    with pytest.raises(errors.ConnectFailed):
        await upstream.send(origin, request_head(), b"", LONG)


async def test_se_15_k_25_an_address_that_is_not_allowed_is_not_connected_to(upstream: Upstream) -> None:
    """SE-15: an address of the gateway's own host is refused in any spelling to a backend that a tenant names."""
    async with serving(always_ok) as server:
        for host in ("127.0.0.1", "localhost", "127.1", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]"):
            with pytest.raises(errors.AddressRefused):
                await upstream.send(Origin(host, server.port), request_head(), b"", LONG)
        assert server.sides == []


async def test_body_failures_reach_the_caller(upstream: Upstream) -> None:
    """A body above its limit ends the request and the connection with an error about the body."""

    async def script(side: ServerSide) -> None:
        await side.gone()

    async with serving(script) as server:
        head = request_head(b"POST", chunked=True)
        with pytest.raises(errors.BodyTooLarge):
            await upstream.send(server.origin(), head, RecordingExchange(head, (b"x" * 9,)), LONG, body_limit=8)
        await until(lambda: upstream.stats.open == 0)


async def test_reading_a_response_is_bounded(upstream: Upstream) -> None:
    """`read` returns no more than its limit and drops the rest with the connection."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n" + b"x" * 1000000)
        await side.gone()

    async with serving(script) as server:
        response = await upstream.send(server.origin(), request_head(), b"", LONG)
        assert await response.read(200000) == b"x" * 200000
        await until(lambda: upstream.stats.open == 0)


async def test_a_hidden_line_break_is_never_sent(upstream: Upstream) -> None:
    """A field value with a line break raises ValueError and reaches no server."""
    async with serving(always_ok) as server:
        with pytest.raises(ValueError, match="line break"):
            await upstream.send(server.origin(), request_head(fields=((b"a", b"b\r\nc: d"),)), b"", LONG)
        assert server.sides == []


async def test_closing_ends_what_runs(upstream: Upstream) -> None:
    """`close` aborts idle and busy connections."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.gone()

    async with serving(script) as server:
        task = asyncio.ensure_future(ask(upstream, server))
        await until(lambda: bool(server.sides and server.sides[0].received))
        upstream.close()
        with pytest.raises(errors.UpstreamReset):
            await task
        await until(lambda: upstream.stats.open == 0)
