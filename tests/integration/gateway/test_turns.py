"""Fast clients and backends: none of them takes a turn of the gateway's loop for itself."""

import asyncio
import contextlib
import inspect
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from gateway.downstream.server import ClientConnection
from gateway.upstream import connection as upstream
from tests.integration.gateway.wire import gateway, reply
from tests.integration.servers import ServerSide, serving

pytestmark = pytest.mark.skipif(
    not inspect.isfunction(ClientConnection.data_received), reason="a compiled class cannot be observed"
)

SIZE = 32 << 20
READ = 256 << 10
"""Bytes of the largest read of the loop."""


class Turns:
    """Bytes that a connection has been read in each turn of the loop."""

    def __init__(self) -> None:
        self._turn = 0
        self._sizes: dict[tuple[int, int], int] = {}

    @property
    def largest(self) -> int:
        """Bytes of one connection in one turn, at most."""
        return max(self._sizes.values())

    @property
    def total(self) -> int:
        """Bytes in all turns."""
        return sum(self._sizes.values())

    async def count(self) -> None:
        """Count turns for ever."""
        while True:
            self._turn += 1
            await asyncio.sleep(0)

    def watch(self, monkeypatch: pytest.MonkeyPatch, protocol: Any) -> None:
        """Note what connections of this protocol get."""
        receive = protocol.data_received

        def noted(connection: Any, data: bytes) -> None:
            key = (id(connection), self._turn)
            self._sizes[key] = self._sizes.get(key, 0) + len(data)
            receive(connection, data)

        monkeypatch.setattr(protocol, "data_received", noted)


@contextlib.contextmanager
def beside(function: Any, *arguments: Any) -> Iterator[None]:
    """Run a function in a thread of its own, and wait for its end."""
    thread = threading.Thread(target=function, args=arguments)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def drained(raw: socket.socket) -> int:
    """Read a connection to its end; return the number of bytes."""
    total = 0
    while data := raw.recv(1 << 20):
        total += len(data)
    return total


async def sink(side: ServerSide) -> None:
    """Read a request and respond to it."""
    head = (await side.reader.readuntil(b"\r\n\r\n")).lower()
    left = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    while left:
        left -= len(await side.reader.read(1 << 20))
    await side.send(reply())


async def test_a_client_that_sends_fast_leaves_each_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a client that sends as fast as it can one read is taken in a turn of the loop."""
    turns = Turns()
    turns.watch(monkeypatch, ClientConnection)

    def send(port: int, responses: list[bytes]) -> None:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"POST /default/demo/v1/files HTTP/1.1\r\nHost: g\r\nContent-Length: %d\r\n\r\n" % SIZE)
            raw.sendall(bytes(SIZE))
            responses.append(raw.recv(1 << 16))

    counting = asyncio.create_task(turns.count())
    responses: list[bytes] = []
    try:
        async with serving(sink) as server, gateway(local_port=server.port) as running:
            await asyncio.to_thread(send, running.port, responses)
    finally:
        counting.cancel()
    assert responses[0].startswith(b"HTTP/1.1 200 ")
    assert turns.total > SIZE
    assert turns.largest <= READ


async def test_a_backend_that_sends_fast_leaves_each_turn_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a backend that sends as fast as it can one read is taken in a turn of the loop."""
    turns = Turns()
    turns.watch(monkeypatch, upstream._Connection)

    def serve(listener: socket.socket) -> None:
        raw, _ = listener.accept()
        with raw:
            raw.recv(1 << 16)
            raw.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
            raw.sendall(bytes(SIZE))

    def ask(port: int) -> int:
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(b"GET /default/demo/v1/files HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
            return drained(raw)

    counting = asyncio.create_task(turns.count())
    try:
        with socket.create_server(("127.0.0.1", 0)) as listener, beside(serve, listener):
            async with gateway(local_port=listener.getsockname()[1]) as running:
                assert await asyncio.to_thread(ask, running.port) > SIZE
    finally:
        counting.cancel()
    assert turns.total > SIZE
    assert turns.largest <= READ
