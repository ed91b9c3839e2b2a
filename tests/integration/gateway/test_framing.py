"""Requests whose framing is wrong or doubtful (RFC 9112), sent as bytes to the gateway.

After a request that is refused the connection is closed, and a canary behind it, a second request for another path, is
never executed.
"""

import asyncio
from collections.abc import Iterator

import pytest

from tests.deadlines import SECONDS
from tests.integration.gateway.wire import Running, message, refused
from tests.integration.servers import ScriptedServer

CANARY = b"GET /default/demo/canary HTTP/1.1\r\nHost: gateway\r\n\r\n"


def cases() -> Iterator[tuple[str, bytes, tuple[int, ...]]]:
    """Yield name, bytes, and the right statuses of each request that must be refused."""
    chunk = b"Transfer-Encoding: chunked"
    length = b"Content-Length: 3"
    yield "fr_01 length before chunked", message(length, chunk, body=b"0\r\n\r\n"), (400,)
    yield "fr_01 chunked before length", message(chunk, length, body=b"0\r\n\r\n"), (400,)
    yield "fr_02 equal lengths", message(length, length, body=b"abc"), (400,)
    yield "fr_02 different lengths", message(length, b"Content-Length: 4", body=b"abcd"), (400,)
    yield "fr_02 list of lengths", message(b"Content-Length: 3, 3", body=b"abc"), (400,)
    for value in (b"+3", b"-3", b"0x3", b"3_0", b"", b"99999999999999999999", b"3 4", "٣".encode()):
        yield f"fr_03 length {value!r}", message(b"Content-Length: " + value, body=b"abc"), (400,)
    for value in (b"xchunked", b"identity", b"gzip", b"chunked;q=1", b'"chunked"', b"\x0bchunked"):
        yield f"fr_05 coding {value!r}", message(b"Transfer-Encoding: " + value, body=b"0\r\n\r\n"), (400, 501)
    yield "fr_07 twice in one", message(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), (400,)
    yield "fr_07 not last", message(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), (400,)
    yield "fr_07 twice", message(chunk, chunk, body=b"0\r\n\r\n"), (400,)
    yield "fr_09 space before colon", message(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"), (400,)
    yield "fr_09 space in name", message(b"Transfer Encoding: chunked", body=b"0\r\n\r\n"), (400,)
    yield "fr_09 leading space", message(b"X: 1", b" Transfer-Encoding: chunked", body=b"0\r\n\r\n"), (400,)
    yield "fr_09 dotless i", message("Transfer-Encodıng: chunked".encode(), body=b"0\r\n\r\n"), (400,)
    yield "fr_10 LF after the request line", b"GET /default/demo/x HTTP/1.1\nHost: gateway\r\n\r\n", (400,)
    yield "fr_10 LF after a field", b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\n\r\n", (400,)
    yield "fr_10 LF as blank line", b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\r\n\n", (400,)
    yield "fr_11 no version, LF", b"POST /default/demo/x\nHost: gateway\r\nContent-Length: 3\r\n\r\nabc", (400, 505)
    yield "fr_11 no version, CRLF", b"GET /default/demo/x\r\nHost: gateway\r\n\r\n", (400, 505)
    yield "fr_12 CR in a value", message(b"X: a\rb"), (400,)
    yield "fr_12 NUL in a value", message(b"X: a\0b"), (400,)
    yield "fr_12 control in a value", message(b"X: a\x01b"), (400,)
    yield "fr_12 CR in a name", message(b"X\r: a"), (400,)
    yield "fr_13 folded field", message(b"X: a\r\n b"), (400,)
    yield "fr_13 space before the first field", b"GET /default/demo/x HTTP/1.1\r\n Host: gateway\r\n\r\n", (400,)
    for size in (b" 3", b"3 ", b"0x3", b"-3", b"", b"11111111111111111"):
        yield f"fr_14 chunk size {size!r}", message(chunk, body=size + b"\r\nabc\r\n0\r\n\r\n"), (400,)
    yield "fr_14 chunk size with LF", message(chunk, body=b"3\nabc\r\n0\r\n\r\n"), (400,)
    yield "fr_14 chunk size with CR", message(chunk, body=b"3\rabc\r\n0\r\n\r\n"), (400,)
    yield "fr_15 extension with LF", message(chunk, body=b"3;a\nb\r\nabc\r\n0\r\n\r\n"), (400,)
    yield "fr_15 long extension", message(chunk, body=b"3;" + b"a" * 600 + b"\r\nabc\r\n"), (400,)
    yield "fr_16 no CRLF after the data", message(chunk, body=b"3\r\nabcX0\r\n\r\n"), (400,)
    yield "fr_18 long trailer", message(chunk, body=b"0\r\n" + b"X: " + b"a" * 10000 + b"\r\n\r\n"), (400, 431)
    yield "fr_18 many trailers", message(chunk, body=b"0\r\n" + b"X: a\r\n" * 10000 + b"\r\n"), (400, 431)
    yield "fr_20 CONNECT authority", b"CONNECT gateway:80 HTTP/1.1\r\nHost: gateway\r\n\r\n", (400, 405)
    yield "fr_20 CONNECT path", message(length, body=b"abc", line=b"CONNECT /default/demo/x HTTP/1.1"), (400, 405)
    yield "fr_26 no host", b"GET /default/demo/x HTTP/1.1\r\n\r\n", (400,)
    yield "fr_26 two hosts", b"GET /default/demo/x HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", (400,)
    for host in (b"", b"a,b", b"a b", b"a/b", b"a@b", b"[::1", b"a:99999"):
        yield f"fr_26 host {host!r}", b"GET /default/demo/x HTTP/1.1\r\nHost: " + host + b"\r\n\r\n", (400,)
    for version in (b"HTTP/0.9", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/1", b"http/1.1"):
        yield f"fr_27 {version!r}", b"GET /default/demo/x " + version + b"\r\nHost: gateway\r\n\r\n", (400, 505)
    yield "fr_27 HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", (400, 505)
    yield "fr_27 TLS hello", bytes.fromhex("1603010200010001fc0303") + b"a" * 64, (400,)
    yield "fr_28 lower case", message(line=b"post /default/demo/x HTTP/1.1"), (400, 501)
    yield "fr_28 unknown", message(line=b"BREW /default/demo/x HTTP/1.1"), (400, 501)
    yield "fr_28 not passed on", message(line=b"PROPFIND /default/demo/x HTTP/1.1"), (400, 501)
    yield "fr_28 8 KB method", message(line=b"A" * 8192 + b" /default/demo/x HTTP/1.1"), (400, 501)
    yield "fr_29 20,000 leading CRLF", b"\r\n" * 20000, (400, 431)
    yield "p13 fields", message(*(b"X-%d: a" % number for number in range(100))), (431,)
    yield "p13 head", message(b"X: " + b"a" * 32768), (431,)
    yield "p13 url", message(line=b"GET /default/demo/" + b"a" * 8192 + b" HTTP/1.1"), (414,)
    yield "p13 url in a large head", message(line=b"GET /default/demo/" + b"a" * 40000 + b" HTTP/1.1"), (414,)


@pytest.mark.parametrize("pieces", ["whole", "split"])
@pytest.mark.parametrize(("name", "sent", "statuses"), [pytest.param(*case, id=case[0]) for case in cases()])
async def test_refused(
    running: Running, server: ScriptedServer, name: str, sent: bytes, statuses: tuple[int, ...], pieces: str
) -> None:
    """A request that must be refused gets one error and the end of the connection, and neither it nor the canary behind
    it reaches a backend whole."""
    client = await running.client()
    step = len(sent) if pieces == "whole" else max(64, len(sent) // 40)
    await client.send(*(sent[at : at + step] for at in range(0, len(sent), step)), CANARY)
    assert (await refused(client, server, b"canary")).status in statuses, name


@pytest.mark.parametrize("upgrade", [b"websocket", b"WebSocket/13", b"websocket, websocket"])
@pytest.mark.parametrize("where", ["same segment", "next segment", "chunked", "none"])
async def test_fr_19_p20_upgrade_executes_nothing(
    running: Running, server: ScriptedServer, upgrade: bytes, where: str
) -> None:
    """FR-19: a WebSocket is refused, and a body that looks like a request is not taken for one."""
    fields = [b"Connection: Upgrade", b"Upgrade: " + upgrade]
    if where == "chunked":
        sent = [message(*fields, b"Transfer-Encoding: chunked"), CANARY]
    elif where == "none":
        sent = [message(*fields, line=b"GET /default/demo/x HTTP/1.1"), CANARY]
    else:
        head = message(*fields, b"Content-Length: %d" % len(CANARY))
        sent = [head + CANARY] if where == "same segment" else [head, CANARY]
    client = await running.client()
    await client.send(*sent)
    response = await client.response()
    assert (response.status, response.code) == (400, "upgrade_refused")
    assert await client.ended() == b""
    assert server.sides == []


@pytest.mark.parametrize("value", [b"0003", b"3 ", b"3\t"])
async def test_fr_04_length_is_written_anew(running: Running, server: ScriptedServer, value: bytes) -> None:
    """FR-04: a length with leading zeros or trailing space is sent on as the plain number."""
    response = await running.ask(message(b"Content-Length: " + value, body=b"abc"))
    assert response.status == 200
    assert b"content-length: 3\r\n" in server.sides[0].received


async def test_fr_09_underscore_is_dropped(running: Running, server: ScriptedServer) -> None:
    """FR-09: a field whose name has an underscore, which some servers read as a hyphen, is dropped."""
    response = await running.ask(message(b"Transfer_Encoding: chunked", b"Content-Length: 3", body=b"abc"))
    assert response.status == 200
    assert b"transfer_encoding" not in server.sides[0].received.lower()


async def test_fr_15_a_megabyte_of_extensions(running: Running, server: ScriptedServer) -> None:
    """FR-15: a chunk extension that is too long is refused, also when it comes in many segments."""
    client = await running.client()
    await client.send(message(b"Transfer-Encoding: chunked", body=b"3;"), *[b"a" * 4096] * 8)
    response = await client.response()
    assert (response.status, response.code) == (400, "malformed_request")
    assert await client.ended() == b""


async def test_fr_17_trailers_are_not_fields(running: Running, server: ScriptedServer) -> None:
    """FR-17: trailers of a request are read and not sent on."""
    trailers = b"Authorization: Bearer canary\r\nX-Forwarded-For: 1.2.3.4\r\nHost: canary\r\n"
    response = await running.ask(
        message(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n"), trailers[:20], trailers[20:] + b"\r\n"
    )
    assert response.status == 200
    assert b"canary" not in server.sides[0].received
    assert b"1.2.3.4" not in server.sides[0].received


@pytest.mark.parametrize("name", [b"Content-Length", b"Transfer-Encoding"])
async def test_fr_17_framing_in_trailers(running: Running, server: ScriptedServer, name: bytes) -> None:
    """FR-17: a trailer with the name of a framing field is refused, or dropped like any other."""
    client = await running.client()
    await client.send(message(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n" + name + b": 3\r\n\r\n"), CANARY)
    response = await client.response()
    assert response.status in (200, 400)
    if response.status == 400:
        assert await client.ended() == b""


@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"DELETE"])
async def test_fr_21_body_of_any_method(running: Running, server: ScriptedServer, method: bytes) -> None:
    """FR-21: a body belongs to its request, whatever the method, and the next request begins behind it."""
    body = CANARY
    client = await running.client()
    await client.send(
        message(b"Content-Length: %d" % len(body), body=body, line=method + b" /default/demo/x HTTP/1.1"),
        b"GET /default/demo/next HTTP/1.1\r\nHost: gateway\r\n\r\n",
    )
    first = await client.response(method)
    second = await client.response()
    assert (first.status, second.status) == (200, 200)
    assert second.body.startswith(b"GET /next ")
    received = b"".join(side.received for side in server.sides)
    assert received.count(b"HTTP/1.1\r\nhost:") == 2


async def test_fr_22_nothing_after_close(running: Running, server: ScriptedServer) -> None:
    """FR-22: a request behind `Connection: close` is not executed."""
    client = await running.client()
    await client.send(message(b"Connection: close", line=b"GET /default/demo/x HTTP/1.1") + CANARY, CANARY)
    assert (await client.response()).status == 200
    assert await client.ended() == b""
    assert len(server.sides) == 1
    assert b"canary" not in server.sides[0].received


@pytest.mark.parametrize("bodies", [False, True])
async def test_fr_23_pipelined_requests_keep_their_order(running: Running, bodies: bool) -> None:
    """FR-23: pipelined requests get their responses one by one, in order."""
    client = await running.client()
    paths = [b"/%d" % number for number in range(8)]
    sent = b""
    for path in paths:
        line = b"POST /default/demo%b HTTP/1.1" % path
        sent += message(b"Content-Length: 3", body=b"abc", line=line) if bodies else message(line=line)
    await client.send(sent)
    for path in paths:
        response = await client.response()
        assert response.body.startswith(b"POST " + path + b" ")
        assert response.body.endswith(b"abc") is bodies


async def test_fr_23_pipelined_behind_chunks(running: Running, server: ScriptedServer) -> None:
    """FR-23: after a request with a chunked body and another in the same segment, the first gets its response and the
    connection ends."""
    client = await running.client()
    await client.send(message(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n") + CANARY)
    assert (await client.response()).status == 200
    assert await client.ended() == b""
    assert b"canary" not in server.sides[0].received


async def test_u8_garbage_behind_a_request_does_not_touch_its_response(running: Running) -> None:
    """Bytes behind a request that are no request are refused after its response, which stays whole."""
    client = await running.client()
    await client.send(message(line=b"GET /default/demo/x HTTP/1.1") + b"\0\0garbage\r\n\r\n")
    first = await client.response()
    assert (first.status, first.complete) == (200, True)
    second = await client.response()
    assert (second.status, second.code) == (400, "malformed_request")
    assert await client.ended() == b""


async def test_fr_23_too_much_behind_a_request(running: Running) -> None:
    """With more pipelined bytes than the bound the first request gets its response and the connection ends."""
    client = await running.client()
    big = message(b"Content-Length: 1000000", body=b"a" * 200000)
    await client.send(message(line=b"GET /default/demo/x HTTP/1.1") + big)
    assert (await client.response()).status == 200
    assert (await client.response()).status == 0


async def test_fr_29_one_empty_line_is_ignored(running: Running) -> None:
    """FR-29: an empty line before a request is ignored (RFC 9112 2.2)."""
    response = await running.ask(b"\r\n" + CANARY)
    assert response.status == 200


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_any_segmentation_is_the_same_request(running: Running, size: int) -> None:
    """Two requests on one connection are the same two requests however their bytes are cut into segments."""
    sent = message(b"Content-Length: 5", body=b"\r\n\r\nx") + message(
        b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"
    )
    client = await running.client()
    await client.send(*(sent[at : at + size] for at in range(0, len(sent), size)))
    first, second = await client.response(), await client.response()
    assert first.body.endswith(b"\r\n\r\n\r\n\r\nx")
    body = second.body.partition(b"\r\n\r\n")[2].split(b"\r\n")
    assert b"".join(body[1::2]) == b"abc"  # chunks may be cut anew


async def test_p13_limits_at_their_edge(running: Running) -> None:
    """Requests at the limit, with 100 fields or a URL of 8,192 bytes, are accepted."""
    fields = [b"X-%d: a" % number for number in range(99)]
    assert (await running.ask(message(*fields))).status == 200
    url = b"/default/demo/" + b"a" * (8192 - 14)
    assert (await running.ask(message(line=b"GET " + url + b" HTTP/1.1"))).status == 200


async def test_p13_head_at_its_edge(running: Running) -> None:
    """A head of exactly 32,768 bytes is accepted and one byte more is refused, in one segment or many."""
    for extra, status in ((0, 200), (1, 431)):
        for step in (32769, 4000):
            head = message(b"X: a")
            sent = message(b"X: a" + b"a" * (32768 - len(head) + extra))
            assert len(sent) == 32768 + extra
            response = await running.ask(*(sent[at : at + step] for at in range(0, len(sent), step)))
            assert response.status == status


async def test_bs_10_http_1_0(running: Running) -> None:
    """BS-10: the response to a request of HTTP/1.0 has no chunks, and its connection ends."""
    client = await running.client()
    await client.send(b"GET /default/demo/x HTTP/1.0\r\nHost: gateway\r\nConnection: keep-alive\r\n\r\n")
    response = await client.response()
    assert response.status == 200
    assert response.value(b"transfer-encoding") is None
    assert await client.ended() == b""


async def test_refusals_are_counted_and_logged(running: Running) -> None:
    """A refused request is counted by its code and logged with the code and the client's address."""
    response = await running.ask(message(b"Content-Length: x"))
    assert response.status == 400
    assert running.count("beamlit_gateway_refused_requests_total", code="malformed_request") == 1
    async with asyncio.timeout(SECONDS):
        while not running.lines():
            await asyncio.sleep(0.01)
    line = running.lines()[0]
    assert (line["event"], line["code"], line["peer"]) == ("refused", "malformed_request", "127.0.0.1")
    assert response.value(b"x-request-id") == line["request_id"].encode()
