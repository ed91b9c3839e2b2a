"""Scripted server on a real socket, and an exchange that records, for tests of connections to servers."""

import asyncio
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from gateway import errors
from gateway.http.exchange import BodySink, BodySource, Fields, RequestHead, ResponseHead, UpgradedConnection
from gateway.upstream.origin import Origin
from tests.deadlines import SECONDS

Script = Callable[["ServerSide"], Awaitable[None]]


class ServerSide:
    """Accepted connection of a scripted server, with the bytes it received."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        self.reader = reader
        self.writer = writer
        self.number = number
        """Number of the connection, counted from 0."""
        self.received = b""

    async def request(self) -> bytes:
        """Read one whole request, body included, and return its bytes."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        body = b""
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length: "):
                body = await self.reader.readexactly(int(line[16:]))
            elif line == b"transfer-encoding: chunked":
                while not body.endswith(b"0\r\n\r\n"):
                    size = await self.reader.readuntil(b"\r\n")
                    body += size + await self.reader.readexactly(int(size, 16) + 2)
        self.received += head + body
        return head + body

    async def send(self, data: bytes) -> None:
        """Write bytes and wait until the transport has taken them."""
        self.writer.write(data)
        await self.writer.drain()

    async def read(self) -> None:
        """Wait some turns of the loop, in which a peer on it reads what was sent: after a reset it could not."""
        for _ in range(20):
            await asyncio.sleep(0.001)

    def reset(self) -> None:
        """Close the connection with a TCP reset."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def gone(self) -> None:
        """Wait until the client has closed the connection."""
        try:
            while data := await self.reader.read(65536):
                self.received += data
        except ConnectionError:
            pass


class ScriptedServer:
    """Server that runs a script for each connection and keeps a list of them."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.sides: list[ServerSide] = []
        self.port = 0
        self.failures: list[BaseException] = []

    async def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Run the script on one connection."""
        side = ServerSide(reader, writer, len(self.sides))
        self.sides.append(side)
        try:
            await self._script(side)
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        except AssertionError as exc:
            self.failures.append(exc)
        finally:
            writer.transport.abort() if writer.is_closing() else writer.close()

    def origin(self, scheme: str = "http", ca_bundle: str | None = None, server_name: str | None = None) -> Origin:
        """Return the origin of this server."""
        return Origin("127.0.0.1", self.port, scheme, server_name, ca_bundle, destination="configured")


@asynccontextmanager
async def serving(script: Script, context: ssl.SSLContext | None = None) -> AsyncIterator[ScriptedServer]:
    """Yield a server on a free port of the loopback interface."""
    scripted = ScriptedServer(script)
    tasks: set[asyncio.Task[None]] = set()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await scripted.accept(reader, writer)
        finally:
            tasks.discard(task)

    server = await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context)
    scripted.port = server.sockets[0].getsockname()[1]
    try:
        yield scripted
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        if tasks:
            await asyncio.wait(tuple(tasks), timeout=2)
        for side in scripted.sides:
            side.writer.transport.abort()
    assert scripted.failures == []


def request_head(
    method: bytes = b"GET",
    target: bytes = b"/",
    fields: Fields = ((b"host", b"model"),),
    *,
    content_length: int | None = None,
    chunked: bool = False,
) -> RequestHead:
    """Return the head of a request, by default a plain GET."""
    return RequestHead(method, target, "model", b"model", fields, 1, content_length, chunked)


class RecordingExchange:
    """Exchange that delivers a given request body and records the response."""

    peer = "192.0.2.1"
    tls = False
    owner = ""

    def __init__(self, head: RequestHead | None = None, body: tuple[bytes, ...] = (), *, ends: bool = True) -> None:
        self.head = head or request_head()
        self._pieces = body
        self._ends = ends
        self.sink: BodySink | None = None
        self.stopped = False
        self.interrupted: errors.GatewayError | None = None
        self.intact = True
        self.size = 0
        self.held = 0
        """Number of times that the request body was paused."""
        self.paused = False
        self.body = b""
        self.writes = 0
        self.ended = False
        self.failed: Exception | None = None
        self.source: BodySource | None = None
        self.on_write: Callable[[bytes], None] = lambda data: None

    @property
    def responded(self) -> bool:
        """Whether the response has begun; always true."""
        return True

    async def read_body(self, limit: int) -> bytes:
        """Return the whole request body."""
        return b"".join(self._pieces)[:limit]

    def whole_body(self) -> bytes | None:
        """Return the whole request body, or None where it has no end."""
        return b"".join(self._pieces) if self._ends else None

    def replace_body(self, content: bytes) -> None:
        """Put other bytes in the place of the request body."""
        self._pieces = (content,)

    async def read_next(self, index: int, limit: int) -> bytes | None:
        """Return a piece of the request body."""
        return self._pieces[index] if index < len(self._pieces) else None

    def charge(self, size: int) -> None:
        """Not used here."""

    def break_body(self, cause: Exception) -> None:
        """Record that the request's body is refused."""
        self.failed = cause

    def pump_body(self, sink: BodySink, limit: int, keep: int = 0) -> None:
        """Deliver all pieces of the body at once, and its end unless `ends` is false."""
        self.sink = sink
        self.size = 0
        for piece in self._pieces:
            self.size += len(piece)
            self.intact = self.size <= keep
            if self.size > limit:
                sink.fail(errors.BodyTooLarge())
                return
            sink.write(piece)
        if self._ends:
            sink.end()

    def stop_body(self) -> None:
        """Note that the body is no longer delivered."""
        self.stopped = True
        self.sink = None

    def respond(self, head: ResponseHead, *, close: bool = False) -> None:
        """Not used here."""

    def begin(self, head: ResponseHead) -> None:
        """Not used here."""

    def release_body(self) -> None:
        """Not used here."""

    def reply(self, head: ResponseHead, body: bytes, *, close: bool = False) -> None:
        """Not used here."""

    def write(self, data: bytes) -> None:
        """Record a piece of the response body."""
        assert not self.ended
        self.body += data
        self.writes += 1
        self.on_write(data)

    def comment(self, data: bytes, *, after_line: bool = False) -> bool:
        """Send no comment."""
        return False

    def end(self) -> None:
        """Record the end of the response."""
        assert not self.ended
        self.ended = True

    def end_with(self, body: bytes) -> None:
        """Not used here."""

    async def tunnel(self, fields: Fields, upstream: UpgradedConnection) -> str | None:
        """Not used here."""

    def fail(self, cause: Exception) -> None:
        """Record the error that ended the response."""
        self.failed = cause

    def cut(self, body: bytes) -> None:
        """Not used here."""

    def attach(self, source: BodySource | None) -> None:
        """Record the source of the response body."""
        self.source = source

    def pause(self) -> None:
        """Record that the request body is paused."""
        self.paused = True
        self.held += 1

    def resume(self) -> None:
        """Record that the request body goes on."""
        self.paused = False


async def until(condition: Callable[[], bool], seconds: float = SECONDS) -> None:
    """Poll until `condition` holds.

    Raises:
        TimeoutError: It does not hold within `seconds`.
    """
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
