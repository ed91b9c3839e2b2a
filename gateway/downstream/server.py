"""Client connections: heads, limits, deadlines, framing and backpressure (RFC 9112); each request is an `Exchange`.

A connection parses one message at a time: bytes behind it wait unparsed until its answer is complete, so answers keep
their order and a malformed second message cannot disturb the first one's answer. After anything that leaves the framing
in doubt the connection is closed, and what still arrives on it is dropped unread.

One sweep a second looks at all deadlines; connections carry numbers, not timers. Reading goes on wherever it can: while
it is paused the end of a connection goes unnoticed, so the sweep asks the kernel for it.
"""

import asyncio
import fcntl
import socket
import struct
import termios
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from math import inf
from typing import Any, Final, cast

import httptools
import structlog

from gateway import errors
from gateway.downstream.exchange import ClientExchange
from gateway.downstream.tunnel import Tunnel
from gateway.http import messages
from gateway.http.exchange import Exchange, Switched
from gateway.http.messages import ResponseHead
from gateway.net.writes import Gathered, Writes
from gateway.telemetry import AccessLog, Metrics, RequestIds

BUFFER_BYTES: Final = 65536
"""Of pipelined bytes, and the high-water mark of an answer."""
LINGER_SECONDS: Final = 5.0
"""How long a connection is still read after its last answer, so that the client gets to see that answer: closing with
unread bytes would reset the connection and destroy it (RFC 9112 9.6)."""
SWEEP_SECONDS: Final = 1.0

_PEER_GONE: Final = frozenset({7, 8, 11})
"""TCP states (Linux, tcp_states.h) in which the peer has closed: CLOSE, CLOSE_WAIT, CLOSING."""

log = structlog.get_logger(__name__)

Handle = Callable[[Exchange], Coroutine[Any, Any, None]]


@dataclass(frozen=True, slots=True)
class ServerLimits:
    """Limits on clients. The settings `gateway.limits` and `gateway.timeouts` have the defaults."""

    message: messages.Limits
    """Limits on one request."""
    connections: int
    """Client connections that may be open at the same time."""
    head_seconds: float
    """Seconds for a whole request head, from the start of the connection or from the head's first byte."""
    body_seconds: float
    """Seconds between two reads of a request body."""
    keep_alive_seconds: float
    """Seconds between a response and the next request head on the same connection."""
    write_stall_seconds: float
    """Seconds in which a client takes no byte of the response that waits for it."""
    tunnel_idle_seconds: float
    """Seconds in which no byte passes through a WebSocket in either direction."""


def _plain(address: str) -> str:
    """An IPv4 address as such, which a socket of both families shows in an IPv6 one (RFC 4291 2.5.5.2)."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


class HttpServer:
    """All client connections of this process."""

    def __init__(
        self,
        handle: Handle,
        limits: ServerLimits,
        metrics: Metrics,
        access_log: AccessLog,
        *,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self.handle = handle
        self.limits = limits
        self.leaving = False
        """Whether answers ask the client to close: from the first signal to stop on."""
        self.loop = asyncio.get_running_loop()
        self.writes = Writes(self.loop)
        self._metrics = metrics
        self._sweep_seconds = sweep_seconds
        self._access_log = access_log
        self._connections: set[ClientConnection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._date = (0, b"")
        self._new_id = RequestIds()

    def __call__(self) -> asyncio.Protocol:
        """A protocol for one new connection."""
        return cast("asyncio.Protocol", ClientConnection(self))

    @property
    def connections(self) -> int:
        """Open client connections."""
        return len(self._connections)

    def begin_drain(self) -> None:
        """Close what is idle now, and every other connection after its answer."""
        self.leaving = self._draining = True
        for connection in tuple(self._connections):
            connection.drain()

    async def drained(self, seconds: float) -> bool:
        """Wait until no connection is left, for `seconds` at most; false when some still are."""
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def interrupt(self) -> None:
        """End what runs, and tell every client that can be told: the drain time is over."""
        for connection in tuple(self._connections):
            connection.interrupt()

    def abort(self) -> None:
        """Drop every connection."""
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in tuple(self._connections):
            connection.abort()

    def opened(self, connection: "ClientConnection") -> bool:
        """Count a connection in; false when there is no room for it."""
        room = len(self._connections) < self.limits.connections
        self._connections.add(connection)
        self._empty.clear()
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(self._sweep_seconds, self._sweep)
        return room

    def lost(self, connection: "ClientConnection") -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        if not self._connections:
            self._empty.set()

    @property
    def draining(self) -> bool:
        """Whether a connection that becomes idle is closed."""
        return self._draining

    def date(self) -> bytes:
        """The time as an IMF-fixdate (RFC 9110 5.6.7), made once a second."""
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]

    def refusal(self, error: errors.GatewayError, peer: str) -> bytes:
        """The whole answer to a message that never became an exchange; counted and logged."""
        request_id = self._new_id().decode()
        self._metrics.refused.labels(error.code).inc()
        if self._access_log.enabled:
            self._access_log.write(
                {
                    "event": "refused",
                    "time": time.time(),
                    "request_id": request_id,
                    "peer": peer,
                    "status": error.status,
                    "code": error.code,
                }
            )
        body = errors.body(error, request_id)
        fields = [(b"content-type", b"application/json"), (b"x-request-id", request_id.encode())]
        if error.status == 405:
            fields.append((b"allow", messages.ALLOW))
        head = ResponseHead(error.status, HTTPStatus(error.status).phrase.encode(), tuple(fields), len(body))
        return messages.response_head(head, b"GET", 1, close=True, date=self.date()) + body

    def _sweep(self) -> None:
        self._sweeper = None
        now = self.loop.time()
        for connection in [one for one in self._connections if one.due(now)]:
            connection.look(now)
        if self._connections:
            self._sweeper = self.loop.call_later(self._sweep_seconds, self._sweep)


class ClientConnection:
    """One client connection (an `asyncio.Protocol` by its methods: compiled classes have no such base)."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.peer = ""
        self.tls = False
        self.transport: asyncio.Transport
        self.send: Callable[[bytes], None]
        """Write to the client."""
        self._output: Gathered
        self.full = False
        """Whether more waits to be written than the client should have waiting."""
        self._limits = server.limits.message
        self._parser: httptools.HttpRequestParser | None = None
        self._deadline = inf
        """On the loop's clock: for the head, the body, the next request, or the end of lingering."""
        self._write_deadline = inf
        self._unwritten = 0
        self._reading = True
        self._exchange: ClientExchange | None = None
        self._tunnel: Tunnel | None = None
        self._closed = False
        """Whether no further request is taken: what arrives is dropped."""
        self._gone = False
        self._behind: list[bytes] = []
        """What came after the present request, unparsed."""
        self._behind_bytes = 0
        # The head being parsed
        self._head_bytes = 0
        self._tail = b""
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        # The chunked body being parsed
        self._fed = 0
        self._chunks = 0
        self._in_chunk_line = False

    # The life of the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, and with TLS the handshake is done."""
        self.transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = _plain(address[0]) if address else ""
        self.tls = transport.get_extra_info("ssl_object") is not None
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        self._output = Gathered(self.server.writes, self.transport)
        self.send = self._output.write
        self._deadline = self.server.loop.time() + self.server.limits.head_seconds
        if not self.server.opened(self):
            self._refuse(errors.Overloaded())
            return
        self._parser = httptools.HttpRequestParser(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """The client is gone: whatever is done for it stops."""
        self._gone = self._closed = True
        self._parser = None  # breaks the reference cycle
        self._behind = []
        self.server.lost(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.task is not None and self._tunnel is None:
            exchange.task.cancel()  # that of a tunnel ends by itself

    def eof_received(self) -> None:
        """The client sends no more. A client that still waits for an answer is taken for gone as well."""
        if self._exchange is not None:
            self.abort()
        else:
            self._close()

    def abort(self) -> None:
        """Drop the connection at once, with whatever was still to be written."""
        self._closed = True
        if not self._gone:
            self.transport.abort()

    def reset(self) -> None:
        """Drop the connection with RST: FIN is what ends an answer without framing (RFC 9112 8)."""
        raw = self.transport.get_extra_info("socket")
        if raw is not None and not self._gone:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.abort()

    def cut(self) -> None:
        """Close behind what was written, without an end of the answer."""
        self._exchange = None
        if self._gone or self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self._linger()
        else:
            self._close()

    def interrupt(self) -> None:
        """End what runs here, and tell the client why where there is a way to."""
        if self._tunnel is not None:
            self._tunnel.leave()
        elif self._exchange is not None:
            self._exchange.interrupt(errors.Stopping())
        elif not self._closed:
            self._close()

    def drain(self) -> None:
        """Close the connection when nothing is under way on it."""
        if self._exchange is None and not self._closed and not self._head_bytes and not self._has_unread():
            self._close()

    def _has_unread(self) -> bool:
        """Whether the kernel holds bytes that have not been read: a request that must not be answered by a reset."""
        raw = self.transport.get_extra_info("socket")
        if raw is None:
            return False
        try:
            return fcntl.ioctl(raw.fileno(), termios.FIONREAD, bytes(4)) != bytes(4)
        except OSError:
            return False

    @property
    def leaving(self) -> bool:
        """Whether answers ask the client to close."""
        return self.server.leaving

    def date(self) -> bytes:
        """The time for a Date field."""
        return self.server.date()

    def future(self) -> "asyncio.Future[None]":
        """A future of the loop that the connection is on."""
        return self.server.loop.create_future()

    # Deadlines

    def due(self, now: float) -> bool:
        """Whether the sweep has to look closer."""
        return self._deadline <= now or self._write_deadline <= now or not self._reading

    def look(self, now: float) -> None:
        """See which deadline has passed, and whether the client is still there."""
        if self._tunnel is not None:
            self._tunnel.look(now)
            return
        if self._write_deadline <= now:
            waiting = self.transport.get_write_buffer_size()
            if waiting and waiting >= self._unwritten:
                self.abort()
                return
            self._watch_writing(now)
        if not self._reading and self._peer_is_gone():
            self.abort()
            return
        if self._deadline > now:
            return
        self._deadline = inf
        if self._exchange is not None:
            self._exchange.break_body(errors.BodyTimeout())
        elif self._closed and self.transport.get_write_buffer_size():
            self._deadline = now + LINGER_SECONDS  # a slow reader of the last answer; it has a deadline of its own
        elif not self._closed and self._head_bytes:
            self._refuse(errors.RequestTimeout())
        else:
            self.abort()

    def _peer_is_gone(self) -> bool:
        # The first byte of tcp_info is the connection's state (Linux, tcp(7)); elsewhere nothing is known.
        raw = self.transport.get_extra_info("socket")
        option = getattr(socket, "TCP_INFO", None)
        if raw is None or option is None:
            return False
        try:
            return raw.getsockopt(socket.IPPROTO_TCP, option, 1)[0] in _PEER_GONE
        except OSError:
            return True

    # Backpressure

    def pause_writing(self) -> None:
        """The client reads more slowly than the answer comes."""
        self.full = True
        self._watch_writing(self.server.loop.time())
        if self._exchange is not None and self._exchange.source is not None:
            self._exchange.source.pause()

    def resume_writing(self) -> None:
        """The client has caught up."""
        self.full = False
        self._write_deadline = inf
        if self._closed and self._exchange is None:
            self._watch_writing(self.server.loop.time())
        if self._exchange is not None and self._exchange.source is not None:
            self._exchange.source.resume()

    def _watch_writing(self, now: float) -> None:
        self._unwritten = self.transport.get_write_buffer_size()
        self._write_deadline = now + self.server.limits.write_stall_seconds if self._unwritten else inf

    def hold_reading(self) -> None:
        """Read no more of the body for now; its deadline does not run meanwhile."""
        if self._reading and not self._closed:
            self._reading = False
            self._deadline = inf
            self.transport.pause_reading()

    def go_on_reading(self) -> None:
        """Read again."""
        if not self._reading and not self._gone and not self.transport.is_closing():
            self._reading = True
            if self._exchange is not None and not self._exchange.complete:
                self._deadline = self.server.loop.time() + self.server.limits.body_seconds
            self.transport.resume_reading()

    # Parsing

    def data_received(self, data: bytes) -> None:
        """Bytes from the client."""
        if self._closed:
            return  # dropped: reading on keeps the last answer from being destroyed by a reset
        try:
            self._take(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            cause = exc.__context__
            self._break(cause if isinstance(cause, errors.GatewayError) else errors.MalformedRequest())
        except errors.GatewayError as exc:
            self._break(exc)

    def _take(self, data: bytes) -> None:
        parser = cast("httptools.HttpRequestParser", self._parser)
        while data:
            exchange = self._exchange
            if exchange is None:
                data = self._take_head(parser, data)
            elif exchange.complete:
                if exchange.head.websocket:
                    self._keep_early(data)
                else:
                    self._keep(data)
                return
            elif exchange.head.chunked:
                self._take_chunks(parser, exchange, data)
                return
            else:
                self._deadline = self.server.loop.time() + self.server.limits.body_seconds
                left = cast("int", exchange.head.content_length) - exchange.size
                if len(data) <= left:
                    parser.feed_data(data)
                    return
                parser.feed_data(data[:left])
                data = data[left:]

    def _take_head(self, parser: httptools.HttpRequestParser, data: bytes) -> bytes:
        """Parse up to the head's end, and return what is behind it."""
        if not self._head_bytes:
            self._deadline = self.server.loop.time() + self.server.limits.head_seconds
        # Where the head ends is found before it is parsed: what follows may not be the parser's business yet.
        tail = self._tail
        window = tail + data if tail else data
        found = window.find(b"\r\n\r\n")
        end = len(data) if found < 0 else found + 4 - len(tail)
        room = self._limits.head_bytes - self._head_bytes
        if end > room:
            parser.feed_data(data[:room])
            raise errors.HeadTooLarge
        self._head_bytes += end
        try:
            parser.feed_data(data if end == len(data) else data[:end])
        except httptools.HttpParserUpgrade:
            if self._exchange is None or not self._exchange.head.websocket:
                raise
        if self._exchange is None:
            self._tail = window[-3:] if found < 0 else b""
        else:
            self._tail = b""
            self._head_bytes = 0
        return data[end:]

    def _take_chunks(self, parser: httptools.HttpRequestParser, exchange: ClientExchange, data: bytes) -> None:
        self._deadline = self.server.loop.time() + self.server.limits.body_seconds
        self._fed += len(data)
        parser.feed_data(data)
        if not exchange.complete:
            self._check_overhead(exchange)

    def _check_overhead(self, exchange: ClientExchange) -> None:
        allowed = self._limits.chunk_line_bytes * (self._chunks + 1)
        if self._in_chunk_line:
            allowed += self._limits.overhead_bytes  # it may be the last one, with trailers behind it
        if self._fed - exchange.size > allowed:
            raise errors.HeadTooLarge if self._in_chunk_line else errors.MalformedRequest

    def _keep(self, data: bytes) -> None:
        """Hold a pipelined request until its turn comes (RFC 9112 9.3.2); too much of it ends the connection."""
        exchange = cast("ClientExchange", self._exchange)
        self._behind_bytes += len(data)
        if not exchange.keep_alive or self._behind_bytes > BUFFER_BYTES:
            exchange.keep_alive = False
            self._behind = []
        else:
            self._behind.append(data)

    def _keep_early(self, data: bytes) -> None:
        """Hold what a client sends before its WebSocket is open; a backend sees it after a 101, or never."""
        self._behind_bytes += len(data)
        self._behind.append(data)
        if self._behind_bytes > BUFFER_BYTES:
            self.hold_reading()

    async def join(self, server: Switched) -> str | None:
        """Pass bytes both ways until both sides have ended; return why the tunnel was cut or broke."""
        self._output.flush()
        self._deadline = 0.0  # each sweep looks
        self._write_deadline = inf
        behind, self._behind = b"".join(self._behind), []
        tunnel = self._tunnel = Tunnel(
            self.server.loop,
            self,
            server,
            idle_seconds=self.server.limits.tunnel_idle_seconds,
            stall_seconds=self.server.limits.write_stall_seconds,
        )
        tunnel.start(behind)
        try:
            await tunnel.ended
        except BaseException:
            tunnel.cut("stopped")
            raise
        return tunnel.cause

    def _break(self, error: errors.GatewayError) -> None:
        """The framing is lost. What is under way gets its answer; nothing more is read."""
        exchange = self._exchange
        if exchange is None:
            self._refuse(error)
            return
        exchange.keep_alive = False
        if exchange.complete:
            return  # the fault is behind the request
        self._closed = True
        self._deadline = inf
        if exchange.responded:
            exchange.fail(error)
        else:
            exchange.break_body(error)

    def on_message_begin(self) -> None:
        """The first byte of a request."""
        if self._exchange is not None:
            raise errors.MalformedRequest  # behind a chunked body, in the same read
        self._url = b""
        self._fields = []

    def on_url(self, url: bytes) -> None:
        """A piece of the request's target."""
        self._url += url
        if len(self._url) > self._limits.url_bytes:
            raise errors.TargetTooLong

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field line; after the head a trailer, which is dropped (RFC 9110 6.5.1)."""
        if self._exchange is not None:
            return
        if len(self._fields) >= self._limits.fields:
            raise errors.HeadTooLarge
        self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """A head is complete: check it, and begin its story."""
        parser = cast("httptools.HttpRequestParser", self._parser)
        head = messages.check_request(parser.get_method(), self._url, parser.get_http_version(), self._fields)
        exchange = ClientExchange(
            self,
            head,
            keep_alive=bool(head.http_minor) and not head.websocket and parser.should_keep_alive(),
            expects=bool(head.http_minor) and any(name == b"expect" for name, _ in head.fields),
        )
        self._exchange = exchange
        self._fed = self._chunks = 0
        self._deadline = self.server.loop.time() + self.server.limits.body_seconds if head.has_body else inf
        exchange.task = self.server.loop.create_task(self.server.handle(exchange))
        exchange.task.add_done_callback(exchange.told)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._in_chunk_line = False
        if self._exchange is not None:
            self._exchange.receive(data)

    def on_chunk_header(self) -> None:
        """The size of a chunk is known; the last one has none."""
        self._chunks += 1
        self._in_chunk_line = True

    def on_chunk_complete(self) -> None:
        """A chunk ends."""
        self._in_chunk_line = False

    def on_message_complete(self) -> None:
        """The whole request is here."""
        self._deadline = inf
        exchange = self._exchange
        if exchange is not None and not exchange.complete:
            if exchange.head.chunked:
                self._check_overhead(exchange)  # now, before it passes for a good request
            exchange.complete_body()

    # Answers

    def response_ended(self, exchange: ClientExchange) -> None:
        """The answer of `exchange` is complete: on to the next request, or to the end."""
        if self._exchange is not exchange:
            return
        self._exchange = None
        if self._gone or self.transport.is_closing():
            return
        if not exchange.keep_alive or self._closed:
            # Lingering also where nothing is known to be behind: a next request may be on its way.
            if not exchange.head.http_minor and not self.transport.can_write_eof():
                self._close()  # HTTP/1.0 may wait for the end, and with TLS there is no other way to say it
            else:
                self._linger()
            return
        self.go_on_reading()
        self._deadline = self.server.loop.time() + self.server.limits.keep_alive_seconds
        if self._behind:
            behind, self._behind, self._behind_bytes = b"".join(self._behind), [], 0
            self.data_received(behind)
        elif self.server.draining:
            self._close()

    def _refuse(self, error: errors.GatewayError) -> None:
        """Answer what never became an exchange, and take nothing more."""
        self.send(self.server.refusal(error, self.peer))
        self._linger()

    def _linger(self) -> None:
        """Say that this was all, and read on for a moment without looking."""
        self._closed = True
        self._parser = None
        self._behind = []
        if not self._reading:
            self._reading = True
            self.transport.resume_reading()
        self._output.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        now = self.server.loop.time()
        self._deadline = now + LINGER_SECONDS
        self._watch_writing(now)

    def _close(self) -> None:
        """Close once everything is written."""
        self._closed = True
        self._output.flush()
        self._watch_writing(self.server.loop.time())
        self.transport.close()
