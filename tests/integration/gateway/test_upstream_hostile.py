"""Connections to broken or hostile servers, whose bytes never become the response to another request."""

import asyncio
import socket
import ssl
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvloop

from gateway import errors
from gateway.upstream.connection import Upstream
from gateway.upstream.origin import Timeouts
from gateway.upstream.resolver import Resolver
from gateway.upstream.response import UpstreamResponse
from program.addresses import AddressRules
from tests.deadlines import SECONDS
from tests.integration.servers import RecordingExchange, ServerSide, request_head, serving, until

# The hook that replaces this fixture works for whole folders only.
pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy. fixture")

LONG = Timeouts(connect=SECONDS, first_byte=SECONDS, idle=SECONDS)


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


async def response_of(
    upstream: Upstream, data: bytes, *, method: bytes = b"GET", reset: bool = False
) -> tuple[UpstreamResponse, RecordingExchange]:
    """Return the response to a request whose connection has exactly `data` and then ends, and assert an empty pool."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(data)
        if reset:
            await side.read()
            side.reset()

    async with serving(script) as server:
        exchange = RecordingExchange(request_head(method))
        try:
            response = await upstream.send(server.origin(), exchange.head, exchange, LONG)
            await response.relay(exchange)
        finally:
            await until(lambda: upstream.stats.open == 0)
            assert len(server.sides) == 1
        return response, exchange


BAD_HEADS = {
    "ur_01_cl_and_te": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "ur_01_te_and_cl": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\n0\r\n\r\n",
    "ur_01_two_lengths": b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 2\r\n\r\nok",
    "ur_01_length_list": b"HTTP/1.1 200 OK\r\ncontent-length: 2, 2\r\n\r\nok",
    "ur_01_signed_length": b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok",
    "ur_01_bare_lf": b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok",
    "ur_01_space_before_colon": b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok",
    "ur_01_fold": b"HTTP/1.1 200 OK\r\na: b\r\n c\r\ncontent-length: 2\r\n\r\nok",
    "ur_07_unasked_101": b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\nraw",
    "ur_07_101_without_upgrade": b"HTTP/1.1 101 Switching\r\n\r\n",
    "ur_10_te_gzip": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip\r\n\r\nxx",
    "ur_10_te_identity": b"HTTP/1.1 200 OK\r\ntransfer-encoding: identity\r\n\r\nxx",
    "ur_10_te_chunked_gzip": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked, gzip\r\n\r\nxx",
    "ur_10_te_gzip_chunked": b"HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "ur_10_te_twice": b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "ur_10_te_in_1_0": b"HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    "ur_12_large_head": b"HTTP/1.1 200 OK\r\n" + b"a: %b\r\n" % (b"b" * 1000) * 100 + b"\r\n",
    "ur_12_large_field": b"HTTP/1.1 200 OK\r\na: " + b"b" * 100_000 + b"\r\n\r\n",
    "ur_12_many_fields": b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" * 10_000 + b"\r\n",
    "ur_13_nul": b"HTTP/1.1 200 OK\r\na: b\0c\r\ncontent-length: 0\r\n\r\n",
    "ur_13_cr": b"HTTP/1.1 200 OK\r\na: b\rc\r\ncontent-length: 0\r\n\r\n",
    "ur_13_ctl": b"HTTP/1.1 200 OK\r\na: b\x01c\r\ncontent-length: 0\r\n\r\n",
    "status_999": b"HTTP/1.1 999 Odd\r\ncontent-length: 0\r\n\r\n",
    "status_099": b"HTTP/1.1 099 Odd\r\ncontent-length: 0\r\n\r\n",
    "version_0_9": b"HTTP/0.9 200 OK\r\ncontent-length: 0\r\n\r\n",
    "version_2_0": b"HTTP/2.0 200 OK\r\ncontent-length: 0\r\n\r\n",
    "interim_flood": b"HTTP/1.1 103 Hints\r\n\r\n" * 9 + b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
    "not_http": b"SSH-2.0-OpenSSH_9.6\r\n",
}


@pytest.mark.parametrize("data", BAD_HEADS.values(), ids=BAD_HEADS)
async def test_a_response_with_a_bad_head_is_refused(upstream: Upstream, data: bytes) -> None:
    """UR-01, 07, 10, 12, 13: a response with a bad head is refused, and its connection is dropped."""
    with pytest.raises(errors.BadResponse):
        await response_of(upstream, data)


CUT_BODIES = {
    "ur_09_length": (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", errors.UpstreamReset),
    "ur_09_in_size": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n1", errors.UpstreamReset),
    "ur_09_in_data": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nabc", errors.UpstreamReset),
    "ur_09_no_last": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", errors.UpstreamReset),
    "ur_09_in_last": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n", errors.UpstreamReset),
    "ur_01_size": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\nx\r\n", errors.BadResponse),
    "ur_01_end": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", errors.BadResponse),
    "ur_12_trailers": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        errors.UpstreamReset,
    ),
}


@pytest.mark.parametrize(("data", "error"), CUT_BODIES.values(), ids=CUT_BODIES)
async def test_a_broken_body_is_never_complete(
    upstream: Upstream, data: bytes, error: type[errors.UpstreamError]
) -> None:
    """UR-01, 09: of a body that breaks off, what arrived is passed on and never counts as complete."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(data)

    async with serving(script) as server:
        exchange = RecordingExchange()
        response = await upstream.send(server.origin(), exchange.head, exchange, LONG)
        with pytest.raises(error):
            await response.relay(exchange)
        assert (exchange.body[:3], exchange.ended) == (b"abc", False)
        assert upstream.stats.idle == 0


async def test_ur_08_a_body_ended_by_fin_is_complete(upstream: Upstream) -> None:
    """UR-08: a body without length and chunks is complete when the server closes the connection."""
    response, exchange = await response_of(upstream, b"HTTP/1.1 200 OK\r\n\r\nabc")
    assert (exchange.body, exchange.ended, response.head.content_length) == (b"abc", True, None)


async def test_ur_08_a_body_ended_by_rst_is_not(upstream: Upstream) -> None:
    """UR-08: a body without length and chunks is not complete when the server resets the connection."""
    with pytest.raises(errors.UpstreamReset):
        await response_of(upstream, b"HTTP/1.1 200 OK\r\n\r\nabc", reset=True)


@pytest.mark.parametrize(
    "framing", [b"content-length: 100", b"transfer-encoding: chunked", b"content-length: 0", b"x: y"]
)
async def test_ur_04_the_response_to_head_has_no_body(upstream: Upstream, framing: bytes) -> None:
    """UR-04: the response to HEAD ends with its head, and the next one on the connection is not taken for its body."""

    async def script(side: ServerSide) -> None:
        while data := await side.request():
            if data.startswith(b"HEAD"):
                await side.send(b"HTTP/1.1 200 OK\r\n%b\r\n\r\n" % framing)
            else:
                await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nget")

    async with serving(script) as server:
        for method, body in ((b"HEAD", b""), (b"GET", b"get"), (b"HEAD", b"")):
            exchange = RecordingExchange(request_head(method))
            response = await upstream.send(server.origin(), exchange.head, exchange, LONG)
            await response.relay(exchange)
            assert (exchange.body, exchange.ended) == (body, True)
        assert len(server.sides) == 1


async def test_ur_04_a_body_after_the_response_to_head_is_not_pooled(upstream: Upstream) -> None:
    """UR-04: a server that sends a body to HEAD loses its connection, and the body is part of no response."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nHTTP")
        await side.gone()

    async with serving(script) as server:
        exchange = RecordingExchange(request_head(b"HEAD"))
        response = await upstream.send(server.origin(), exchange.head, exchange, LONG)
        await response.relay(exchange)
        assert exchange.body == b""
        await until(lambda: upstream.stats.open == 0)


@pytest.mark.parametrize("status", [b"204", b"304"])
async def test_ur_05_responses_without_a_body_lose_their_length(upstream: Upstream, status: bytes) -> None:
    """UR-05: a 204 or 304 ends with its head, whatever its Content-Length says."""

    async def script(side: ServerSide) -> None:
        while await side.request():
            await side.send(b"HTTP/1.1 %b X\r\ncontent-length: 5\r\netag: e\r\n\r\n" % status)

    async with serving(script) as server:
        for _ in range(2):
            exchange = RecordingExchange()
            response = await upstream.send(server.origin(), exchange.head, exchange, LONG)
            await response.relay(exchange)
            assert (response.head.content_length, response.head.fields, exchange.ended) == (
                None,
                ((b"etag", b"e"),),
                True,
            )
        assert len(server.sides) == 1


async def test_ur_05_a_205_may_have_no_bytes(upstream: Upstream) -> None:
    """UR-05: a 205 with length 0 is complete at once."""
    response, exchange = await response_of(
        upstream, b"HTTP/1.1 205 Reset\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    assert (response.head.status, exchange.ended) == (205, True)


async def test_interim_responses_are_skipped(upstream: Upstream) -> None:
    """Interim responses before the final one are not passed on, and trailers are dropped."""
    response, exchange = await response_of(
        upstream,
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: x\r\n\r\n"
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        b"2\r\nok\r\n0\r\nauthorization: t\r\n\r\n",
    )
    assert (response.head.status, response.head.fields, exchange.body) == (200, ((b"connection", b"close"),), b"ok")


@pytest.mark.parametrize("junk", [b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil", b"junk", b"H"])
@pytest.mark.parametrize("late", [False, True])
async def test_cp_05_what_follows_a_response_is_never_the_next_response(
    upstream: Upstream, junk: bytes, late: bool
) -> None:
    """CP-05: bytes after a complete response, at once or while the connection is idle, close that connection."""

    async def script(side: ServerSide) -> None:
        await side.request()
        good = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
        if side.number == 0:
            await side.send(good if late else good + junk)
            if late:
                await until(lambda: upstream.stats.idle == 1)
                await side.send(junk)
        else:
            await side.send(good)
        await side.gone()

    async with serving(script) as server:
        for number in range(2):
            exchange = RecordingExchange()
            response = await upstream.send(server.origin(), exchange.head, exchange, LONG)
            await response.relay(exchange)
            assert exchange.body == b"ok"
            if number == 0:
                await until(lambda: upstream.stats.open == 0)
        assert len(server.sides) == 2


@pytest.mark.parametrize(
    "connection", [b"close", b"Close", b"keep-alive, close", b"X-A,close", b" close , x", b"x\r\nconnection: CLOSE"]
)
async def test_ur_16_connection_close_is_honored(upstream: Upstream, connection: bytes) -> None:
    """UR-16: `Connection: close` in any place and spelling keeps the connection out of the pool."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: %b\r\n\r\n" % connection)
        await side.gone()

    async with serving(script) as server:
        exchange = RecordingExchange()
        response = await upstream.send(server.origin(), exchange.head, exchange, LONG)
        await response.relay(exchange)
        assert upstream.stats.idle == 0


async def test_ur_13_text_beyond_ascii_passes_as_bytes(upstream: Upstream) -> None:
    """UR-13: bytes beyond ASCII in a field value pass unchanged."""
    response, _ = await response_of(
        upstream, b"HTTP/1.1 200 OK\r\na: \xff\xc3\xa4\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    assert response.head.fields[0] == (b"a", b"\xff\xc3\xa4")


async def test_ur_12_a_head_in_single_bytes_costs_little(upstream: Upstream) -> None:
    """UR-12: a field that grows in small pieces is refused at the limit, within bounded CPU time."""

    async def script(side: ServerSide) -> None:
        await side.request()
        raw: socket.socket = side.writer.get_extra_info("socket")
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await side.send(b"HTTP/1.1 200 OK\r\na: ")
        for _ in range(20000):
            await side.send(b"bbbb")

    async with serving(script) as server:
        before = time.process_time()
        with pytest.raises(errors.BadResponse):
            await upstream.send(server.origin(), request_head(), b"", LONG)
        assert time.process_time() - before < 5.0


async def test_ur_12_trailers_are_bounded(upstream: Upstream) -> None:
    """UR-12: a response whose trailers do not end is refused as a bad one."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
        for _ in range(200):
            await side.send(b"x: " + b"y" * 1000 + b"\r\n")
            await asyncio.sleep(0)
        await side.gone()

    async with serving(script) as server:
        exchange = RecordingExchange()
        response = await upstream.send(server.origin(), exchange.head, exchange, LONG)
        with pytest.raises(errors.BadResponse):
            await response.relay(exchange)


async def test_ur_14_a_flood_of_tiny_chunks_is_joined(upstream: Upstream) -> None:
    """UR-14: a hundred thousand chunks of one byte become a few writes."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 100_000 + b"0\r\n\r\n"
        )
        await side.gone()

    async with serving(script) as server:
        exchange = RecordingExchange()
        response = await upstream.send(server.origin(), exchange.head, exchange, LONG)
        await response.relay(exchange)
        assert (len(exchange.body), exchange.writes < 1000) == (100_000, True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with self-signed certificates: `good` for 127.0.0.1, `other` for another name, `expired`."""
    folder = tmp_path_factory.mktemp("tls")
    for name, san, days in (
        ("good", "DNS:localhost,IP:127.0.0.1", "2"),
        ("other", "DNS:other.example", "2"),
        ("expired", "DNS:localhost,IP:127.0.0.1", "-1"),
    ):
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        dates = ["-days", days] if days != "-1" else ["-not_before", "20200101000000Z", "-not_after", "20200102000000Z"]
        made = subprocess.run(
            [*command, "-subj", f"/CN={name}", "-addext", f"subjectAltName={san}", *dates,
             "-keyout", str(folder / f"{name}.key"), "-out", str(folder / f"{name}.pem")],
            capture_output=True,
            check=False,
        )  # fmt: skip
        assert made.returncode == 0 or name == "expired", made.stderr
    return folder


def server_context(folder: Path, name: str) -> ssl.SSLContext:
    """Return the TLS context of a server with one of the certificates."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.pem", folder / f"{name}.key")
    return context


async def test_se_14_a_verified_server_is_talked_to(upstream: Upstream, certificates: Path) -> None:
    """SE-14: a server with the right authority and name gets requests over TLS, and its connection is pooled."""

    async def script(side: ServerSide) -> None:
        while await side.request():
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    async with serving(script, server_context(certificates, "good")) as server:
        origin = server.origin("https", (certificates / "good.pem").read_text())
        for _ in range(2):
            response = await upstream.send(origin, request_head(), b"", LONG)
            assert await response.read(10) == b"ok"
        assert len(server.sides) == 1


@pytest.mark.parametrize(("certificate", "bundle"), [("good", None), ("good", "other"), ("other", "other")])
async def test_p17_a_server_that_cannot_be_verified_gets_no_byte(
    upstream: Upstream, certificates: Path, certificate: str, bundle: str | None
) -> None:
    """P17: a server with an unknown issuer, the wrong authority or the wrong name gets no byte of the request."""

    async def script(side: ServerSide) -> None:
        await side.gone()

    async with serving(script, server_context(certificates, certificate)) as server:
        pem = None if bundle is None else (certificates / f"{bundle}.pem").read_text()
        with pytest.raises(errors.TlsFailed):
            await upstream.send(server.origin("https", pem), request_head(), b"", LONG)
        assert all(side.received == b"" for side in server.sides)


@pytest.mark.parametrize("bundle", ["", "not a certificate", "kein Schlüssel"])
async def test_a_ca_bundle_without_a_certificate_is_refused(upstream: Upstream, bundle: str) -> None:
    """With a bundle without a certificate, which verifies no server, none is connected to."""

    async def script(side: ServerSide) -> None:
        await side.gone()

    async with serving(script) as server:
        with pytest.raises(errors.TlsFailed):
            await upstream.send(server.origin("https", bundle), request_head(), b"", LONG)
        assert server.sides == []


async def test_se_16_the_environment_names_no_certificates(
    upstream: Upstream, certificates: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SE-16: SSL_CERT_FILE and SSL_CERT_DIR do not make the gateway trust an authority."""
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "good.pem"))
    monkeypatch.setenv("SSL_CERT_DIR", str(certificates))

    async def script(side: ServerSide) -> None:
        await side.gone()

    async with serving(script, server_context(certificates, "good")) as server:
        with pytest.raises(errors.TlsFailed):
            await upstream.send(server.origin("https"), request_head(), b"", LONG)


async def test_to_10_a_cancelled_tls_flood_stops(upstream: Upstream, certificates: Path) -> None:
    """TO-10: after a cancel the gateway reads no more of a flood over TLS than what is in flight."""
    sent = 0

    async def script(side: ServerSide) -> None:
        nonlocal sent
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            await side.send(bytes(65536))
            sent += 65536
            await asyncio.sleep(0)  # writing to a connection that is gone never waits

    async with serving(script, server_context(certificates, "good")) as server:
        exchange = RecordingExchange()
        exchange.on_write = lambda data: setattr(exchange, "body", b"")
        origin = server.origin("https", (certificates / "good.pem").read_text())
        response = await upstream.send(origin, exchange.head, exchange, LONG)
        relaying = asyncio.ensure_future(response.relay(exchange))
        await until(lambda: sent > 1_000_000 and exchange.source is not None)
        relaying.cancel()
        with pytest.raises(asyncio.CancelledError):
            await relaying
        at_cancel = sent
        await until(lambda: upstream.stats.open == 0)
        await asyncio.sleep(0.2)
        assert sent - at_cancel < 16 * 1024 * 1024
