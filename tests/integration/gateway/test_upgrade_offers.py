"""Requests that offer an upgrade to something else than a WebSocket, sent as bytes: it is ignored (RFC 9110 7.8).

What a backend receives is compared byte by byte with what it receives of the same request without the offer, and the
bytes behind the request are the next request, however the body is framed and the bytes are cut.
"""

import asyncio
from typing import Final

import pytest

from tests.deadlines import SECONDS
from tests.integration.gateway.mutations import by_h11
from tests.integration.gateway.wire import Client, Running, gateway, message, refused
from tests.integration.servers import ScriptedServer, ServerSide, serving

SMUGGLED: Final = b"GET /default/demo/smuggled HTTP/1.1\r\nHost: gateway\r\n\r\n"
"""Body of the requests, which no server may take for a request."""
NEXT: Final = b"GET /default/demo/next HTTP/1.1\r\nHost: gateway\r\nX-Request-Id: next\r\n\r\n"

OFFERS: Final[dict[str, tuple[bytes, ...]]] = {
    "java": (
        b"Connection: Upgrade, HTTP2-Settings",
        b"HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA",
        b"Upgrade: h2c",
    ),
    "curl": (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA"),
    "letters": (b"CONNECTION: uPGRADE", b"UPGRADE: H2C"),
    "tls": (b"Connection: upgrade", b"Upgrade: TLS/1.0"),
    "unknown": (b"Connection: keep-alive,upgrade", b"Upgrade: foo/2, bar"),
    "list": (b"Connection: Upgrade", b"Upgrade: h2c, websocket"),
    "websocket first": (b"Connection: Upgrade", b"Upgrade: websocket, h2c"),
    "two fields": (b"Connection: Upgrade", b"Upgrade: websocket", b"Connection: HTTP2-Settings", b"Upgrade: h2c"),
    "empty": (b"Connection: Upgrade", b"Upgrade:"),
    "no protocol": (b"Connection: Upgrade",),
    "no option": (b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk"),
    "option twice": (b"Connection: , Upgrade , upgrade,", b"Upgrade: h2c"),
    "settings alone": (b"HTTP2-Settings: AAMAAABk",),
    "settings twice": (b"Connection: Upgrade", b"Upgrade: h2c", b"HTTP2-Settings: A", b"HTTP2-Settings: B"),
}


def request(*fields: bytes, line: bytes = b"POST /default/demo/x HTTP/1.1", body: bytes = b"") -> bytes:
    """Return the bytes of a request."""
    return message(b"X-Request-Id: first", *fields, b"X-Last: 1", line=line, body=body)


def chunked(body: bytes, trailers: bytes = b"") -> bytes:
    """Return a body in two chunks, with trailers behind it."""
    return b"%x\r\n%b\r\n%x;a=b\r\n%b\r\n0\r\n%b\r\n" % (20, body[:20], len(body) - 20, body[20:], trailers)


GET: Final = b"GET /default/demo/x HTTP/1.1"
LENGTH: Final = b"Content-Length: %d" % len(SMUGGLED)
CHUNKED: Final = b"Transfer-Encoding: chunked"
TRAILERS: Final = b"Upgrade: h2c\r\nConnection: Upgrade\r\n"

FRAMINGS: Final[dict[str, tuple[tuple[bytes, ...], bytes, list[bytes]]]] = {
    "none": ((), GET, []),
    "length": ((LENGTH,), b"POST /default/demo/x HTTP/1.1", [SMUGGLED]),
    "length of a GET": ((LENGTH,), GET, [SMUGGLED]),
    "length 0": ((b"Content-Length: 0",), b"POST /default/demo/x HTTP/1.1", []),
    "chunked": ((CHUNKED,), b"PUT /default/demo/x HTTP/1.1", [chunked(SMUGGLED)]),
    "chunked with trailers": ((CHUNKED,), b"POST /default/demo/x HTTP/1.1", [chunked(SMUGGLED, TRAILERS)]),
}
"""Fields, request line and body of each framing."""


async def received(client: Client, *sent: bytes) -> bytes:
    """Send a request and another one behind it; return the bytes of both as the backend received them."""
    await client.send(*sent)
    first, second = await client.response(), await client.response()
    assert (first.status, second.status) == (200, 200)
    return first.body + second.body


@pytest.mark.parametrize("offer", OFFERS.values(), ids=OFFERS)
@pytest.mark.parametrize(("fields", "line", "body"), FRAMINGS.values(), ids=FRAMINGS)
@pytest.mark.parametrize("where", ["first", "last"])
async def test_fr_19_an_offer_changes_no_byte(
    running: Running,
    server: ScriptedServer,
    offer: tuple[bytes, ...],
    fields: tuple[bytes, ...],
    line: bytes,
    body: list[bytes],
    where: str,
) -> None:
    """FR-19: a backend receives of a request with an offer exactly the bytes that it receives of one without, and the
    next request of the connection is the next request."""
    offering = (*offer, *fields) if where == "first" else (*fields, *offer)
    plain = await received(await running.client(), request(*fields, line=line), *body, NEXT)
    with_offer = await received(await running.client(), request(*offering, line=line), *body, NEXT)
    assert with_offer == plain
    assert plain.count(b"\r\nhost: ") == 2
    [side] = server.sides  # one kept connection: a surplus byte would stand before the next request
    assert side.received == plain + plain


@pytest.mark.parametrize("size", [1, 3, 50])
@pytest.mark.parametrize("framing", ["length", "chunked with trailers", "none"])
async def test_fr_19_any_segmentation(running: Running, server: ScriptedServer, framing: str, size: int) -> None:
    """FR-19: a request with an offer and the one behind it are the same however their bytes are cut."""
    fields, line, body = FRAMINGS[framing]
    plain = await received(await running.client(), request(*fields, line=line), *body, NEXT)
    whole = request(*OFFERS["java"], *fields, line=line) + b"".join(body)
    parts = [whole[at : at + size] for at in range(0, len(whole), size)]
    cut = await received(await running.client(), *parts, NEXT)
    assert by_h11(cut) == by_h11(plain)  # chunks may be cut anew
    [side] = server.sides
    assert side.received == plain + cut


@pytest.mark.parametrize("framing", FRAMINGS)
async def test_fr_19_everything_in_one_segment(running: Running, server: ScriptedServer, framing: str) -> None:
    """FR-19: a request with an offer and the one behind it, in one segment, are two requests, or the connection ends
    behind a chunked body; the body is never one."""
    fields, line, body = FRAMINGS[framing]
    client = await running.client()
    await client.send(request(*OFFERS["curl"], *fields, line=line) + b"".join(body) + NEXT)
    first = await client.response()
    assert first.status == 200
    if framing.startswith("chunked"):
        assert await client.ended() == b""
    else:
        assert (await client.response()).body.startswith(b"GET /next ")
    assert b"".join(side.received for side in server.sides).count(b"\r\nhost: ") == 1 + (
        not framing.startswith("chunked")
    )


async def test_many_requests_with_offers_on_one_connection(running: Running, server: ScriptedServer) -> None:
    """A connection goes on through any number of requests with offers and bodies of every framing."""
    client = await running.client()
    for offer in OFFERS.values():
        for fields, line, body in FRAMINGS.values():
            await client.send(request(*offer, *fields, line=line), *body)
            response = await client.response()
            assert (response.status, response.value(b"connection")) == (200, None)
    assert len(server.sides) == 1


BROKEN: Final[dict[str, tuple[bytes, ...]]] = {
    "both framings": (request(LENGTH, CHUNKED, *OFFERS["java"]), SMUGGLED),
    "two lengths": (request(b"Content-Length: 3", LENGTH, *OFFERS["java"]), SMUGGLED),
    "length as a list": (request(b"Content-Length: 3, 3", *OFFERS["java"], body=b"abc"),),
    "coding": (request(b"Transfer-Encoding: gzip, chunked", *OFFERS["java"]), SMUGGLED),
    "chunk size": (request(CHUNKED, *OFFERS["java"], body=b"0x3\r\nabc\r\n0\r\n\r\n"),),
    "chunk without end": (request(CHUNKED, *OFFERS["java"], body=b"3\r\nabcX0\r\n\r\n"),),
    "endless chunk line": (request(CHUNKED, *OFFERS["java"], body=b"3;" + b"a" * 600 + b"\r\nabc\r\n"),),
    "long trailers": (request(CHUNKED, *OFFERS["java"], body=b"0\r\nX: " + b"a" * 10000 + b"\r\n\r\n"),),
    "expectation": (request(b"Expect: magic", LENGTH, *OFFERS["java"]), SMUGGLED),
    "line feed": (request(*OFFERS["java"]).replace(b"h2c\r\n", b"h2c\n"),),
    "folded": (request(*OFFERS["java"]).replace(b"Upgrade: h2c", b"Upgrade:\r\n h2c"),),
    "CONNECT": (request(*OFFERS["java"], line=b"CONNECT gateway:80 HTTP/1.1"),),
    "CONNECT with a path": (request(*OFFERS["java"], LENGTH, line=b"CONNECT /default/demo/x HTTP/1.1"), SMUGGLED),
    "chunked in HTTP/1.0": (request(CHUNKED, *OFFERS["java"], line=b"POST /default/demo/x HTTP/1.0"), SMUGGLED),
}


@pytest.mark.parametrize("sent", BROKEN.values(), ids=BROKEN)
async def test_fr_19_an_offer_excuses_nothing(
    running: Running, server: ScriptedServer, sent: tuple[bytes, ...]
) -> None:
    """FR-19: a request whose framing is wrong is refused with an offer as without one, and nothing behind it is
    executed."""
    client = await running.client()
    await client.send(*sent, NEXT)
    assert (await refused(client, server, b"smuggled HTTP")).status in (400, 405, 417, 431)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
async def test_fr_22_close_ends_the_connection_with_an_offer(
    running: Running, server: ScriptedServer, version: bytes
) -> None:
    """FR-22: a request with an offer that is the last of its connection is served, and nothing behind it."""
    line = b"POST /default/demo/x HTTP/" + version
    options = b"Connection: Upgrade, HTTP2-Settings, close" if version == b"1.1" else b"Connection: Upgrade"
    client = await running.client()
    await client.send(request(options, b"Upgrade: h2c", LENGTH, line=line), SMUGGLED + NEXT)
    response = await client.response()
    assert response.status == 200
    assert response.body.endswith(b"\r\n\r\n" + SMUGGLED)
    assert await client.ended() == b""
    assert b"/next" not in b"".join(side.received for side in server.sides)


async def test_hh_13_an_expectation_with_an_offer(running: Running) -> None:
    """HH-13: a client that offers an upgrade and waits for 100 Continue gets it, and its body arrives."""
    client = await running.client()
    await client.send(request(*OFFERS["curl"], LENGTH, b"Expect: 100-continue"))
    async with asyncio.timeout(SECONDS):
        assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    await client.send(SMUGGLED, NEXT)
    first, second = await client.response(), await client.response()
    assert first.body.endswith(b"\r\n\r\n" + SMUGGLED)
    assert b"expect" not in first.body.lower()
    assert second.body.startswith(b"GET /next ")


async def test_bytes_of_another_protocol_behind_an_offer(running: Running, server: ScriptedServer) -> None:
    """A client that speaks HTTP/2 before its offer was accepted gets its response, then an error and the end."""
    client = await running.client()
    await client.send(request(*OFFERS["java"], line=GET) + b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\0" * 9)
    assert (await client.response()).status == 200
    assert (await client.response()).status in (400, 505)
    assert await client.ended() == b""
    assert len(server.sides) == 1


async def test_ur_07_a_backend_does_not_switch() -> None:
    """UR-07: a backend that switches protocols after a request whose offer was ignored is a bad one."""

    async def switch(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        await side.gone()

    async with serving(switch) as server, gateway(local_port=server.port) as running:
        response = await running.ask(request(*OFFERS["java"], line=GET))
        assert (response.status, response.code) == (502, "bad_response")


async def test_an_offer_at_the_limits(running: Running) -> None:
    """A request with an offer, a head and a URL of exactly the largest sizes is served."""
    line = b"POST /default/demo/" + b"a" * (8192 - 14) + b" HTTP/1.1"
    fields = (*OFFERS["java"], LENGTH)
    room = 32768 - len(request(*fields, b"X: ", line=line))
    response = await running.ask(request(*fields, b"X: " + b"a" * room, line=line), SMUGGLED)
    assert response.status == 200
    assert response.body.endswith(b"\r\n\r\n" + SMUGGLED)
