"""Streams that break off, which end with an error where one can be sent and never look like a whole response."""

import asyncio
import socket
from contextlib import ExitStack
from typing import Any

import orjson
import pytest

from gateway.api.v1alpha1 import Timeouts
from tests.deadlines import SECONDS
from tests.integration.gateway.wire import Client, document, gateway, local
from tests.integration.servers import ServerSide, serving, until

HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
GET = b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def events(stream: bytes) -> list[tuple[str, str]]:
    """Return type and data of each event that a client dispatches (HTML Living Standard 9.2.6)."""
    found: list[tuple[str, str]] = []
    kind, data = "message", list[str]()
    for line in stream.decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")[:-1]:
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if not line:
            if data:
                found.append((kind, "\n".join(data)))
            kind, data = "message", []
        elif name == "event":
            kind = value
        elif name == "data":
            data.append(value)
    return found


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("end", [b"\n\n", b"\r\n\r\n", b"\r\r"])
async def test_bs_11_a_stream_of_events_ends_with_an_error_event(end: bytes, reset: bool) -> None:
    """BS-11: a stream that breaks off after whole events ends with an error in OpenAI's format, and without the end of
    its body."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(HEAD + b"\r\n" + chunk(b'data: {"n":1}' + end))
        await side.reader.read(1)
        side.reset() if reset else side.writer.close()

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(GET)
        head = await client.response(head_only=True)
        server.sides[0].reader.feed_data(b"x")
        body, complete = _unchunked(await client.ended())
        assert not complete
        first, (kind, last) = events(body)
        assert first == ("message", '{"n":1}')
        assert kind == "message"
        error = orjson.loads(last)["error"]
        assert (error["code"], error["type"]) == ("upstream_reset", "server_error")
        assert error["request_id"].encode() == head.value(b"x-request-id")
        assert b"[DONE]" not in body
        await until(lambda: len(running.lines()) == 1)
        assert running.lines()[0]["broken"] == "upstream_reset"


def _unchunked(data: bytes) -> tuple[bytes, bool]:
    """Return a body without its chunks, and whether it has an end."""
    result = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        if int(size, 16) == 0:
            return result, True
        result += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return result, False


@pytest.mark.parametrize(
    "cut",
    [
        b"d",
        b"data",
        b'data: {"n":',
        b'data: {"n":2}',
        b'data: {"n":2}\n',
        b'data: {"n":2}\r\n',
        b"data: [DONE]",
        b"id: 1\nda",
    ],
)
@pytest.mark.parametrize("pieces", [False, True])
async def test_bs_11_an_event_that_was_cut_is_no_message(cut: bytes, pieces: bool) -> None:
    """BS-11: an event that the server has not finished never becomes a message of its own."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(HEAD + b"\r\n" + chunk(b"data: 1\n\n"))
        for piece in [bytes([byte]) for byte in cut] if pieces else [cut]:
            await side.send(chunk(piece))
        side.writer.close()

    async with serving(script) as server, gateway(local_port=server.port) as running:
        response = await running.ask(GET)
        assert not response.complete
        first, (kind, data) = events(response.body)
        assert first == ("message", "1")
        assert kind == "error"
        assert data.splitlines()[-1].startswith('{"error":')


async def test_to_04_a_stream_that_falls_silent_says_so() -> None:
    """TO-04: a stream without data for the idle time ends with an error event that names the idle timeout."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(HEAD + b"\r\n" + chunk(b"data: 1\n\n"))
        await side.gone()

    route = document(local(), timeouts=Timeouts(idle=0.3))
    async with serving(script) as server, gateway(route, local_port=server.port) as running:
        response = await running.ask(GET)
        assert not response.complete
        assert orjson.loads(events(response.body)[-1][1])["error"]["code"] == "idle_timeout"


@pytest.mark.parametrize(
    ("request_line", "fields"),
    [
        (b"GET /default/demo/x HTTP/1.1", b"content-encoding: gzip\r\n"),
        (b"GET /default/demo/x HTTP/1.0", b""),
    ],
)
async def test_bs_11_nothing_is_written_where_it_could_be_taken_for_the_body(
    request_line: bytes, fields: bytes
) -> None:
    """BS-11: a compressed stream, and one that ends with its connection, are cut without an error event."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(HEAD + fields + b"\r\n" + chunk(b"data: 1\n\n"))
        await side.reader.read(1)
        side.writer.close()

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        await client.send(request_line + b"\r\nHost: gateway\r\n\r\n")
        assert b"data: 1" in await client.some()
        server.sides[0].reader.feed_data(b"x")
        rest, was_reset = await _to_the_end(client)
        assert (rest, was_reset) == (b"", not fields)
        await until(lambda: running.server.connections == 0)


async def _to_the_end(client: Client) -> tuple[bytes, bool]:
    """Return the remaining bytes, and whether the connection ends with a TCP reset."""
    rest = b""
    async with asyncio.timeout(SECONDS):
        try:
            while data := await client.reader.read(65536):
                rest += data
        except ConnectionResetError:
            return rest, True
    return rest, False


async def test_a_reader_that_stalls_costs_little_and_is_cut() -> None:
    """A client that reads nothing of an endless stream costs a bounded buffer and is cut after the stall time."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(HEAD + b"\r\n")
        while True:
            await side.send(chunk(b"data: %b\n\n" % (b"x" * 1000)) * 64)

    settings: dict[str, Any] = {"gateway": {"timeouts": {"writeStallSeconds": 0.6}}}
    async with serving(script) as server, gateway(local_port=server.port, settings=settings) as running:
        with ExitStack() as stack:
            for _ in range(20):
                raw = stack.enter_context(socket.socket())
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                raw.setblocking(False)
                await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", running.port))
                await asyncio.get_running_loop().sock_sendall(raw, GET)
            most = 0
            async with asyncio.timeout(SECONDS):
                while len(running.lines()) < 20:
                    for connection in running.server._connections:
                        most = max(most, connection.transport.get_write_buffer_size())
                    await asyncio.sleep(0.01)
            # The high-water mark, and what two reads from the server may add to it.
            assert 65536 <= most < 65536 + 2 * 262144
            assert {one["broken"] for one in running.lines()} == {"client_gone"}
            await until(lambda: running.upstream.stats.open == 0)
