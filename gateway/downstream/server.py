"""HTTP/1.1 server for clients: connections with limits, deadlines, framing and backpressure (RFC 9112).

A connection parses one message at a time: bytes behind it wait unparsed until its response is complete, so responses
keep their order, and a malformed second message cannot disturb the response to the first one. After anything that
leaves the framing in doubt the connection is closed, and what still arrives on it is dropped unread.

One sweep a second looks at all deadlines; connections carry numbers, not timers. A connection is read wherever it can
be: while reading is paused the end of a connection goes unnoticed, so the sweep asks the kernel for it.
"""

import asyncio
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
from gateway.downstream import sockets
from gateway.downstream.budget import MemoryBudget
from gateway.downstream.exchange import ClientExchange
from gateway.downstream.parser import RequestParser
from gateway.downstream.tunnel import Tunnel
from gateway.http import messages
from gateway.http.cors import CorsRule
from gateway.http.exchange import Exchange, UpgradedConnection
from gateway.http.messages import RequestHead, ResponseHead
from gateway.net.reads import LARGE_BYTES, PacedReader, ReadTurns
from gateway.net.writes import BatchedWriter, WriteBatch
from gateway.telemetry import AccessLog, Metrics, RequestIds

BUFFER_BYTES: Final = 65536
"""Bytes that wait on a connection in each direction: pipelined ones, and the high-water mark of a response."""
LINGER_SECONDS: Final = 5.0
"""Seconds for which a connection is still read after its last response, so that the client gets to see it: closing with
unread bytes would reset the connection and destroy the response (RFC 9112 9.6)."""
AT_ONCE: Final = 100
"""Part of all connections, as a divisor, that is closed at once to make room: looking for them costs time."""
LOOK_SECONDS: Final = 0.1
"""Seconds for which no connections without a request are looked for again, where there were none."""
WAITING: Final = 10
"""Part of all connections, as a divisor, that may wait unread for room."""
ROOM_SECONDS: Final = 1.0
"""Seconds for which a connection waits for room."""
SWEEP_SECONDS: Final = 1.0
"""Seconds between two looks at the deadlines."""

log = structlog.get_logger(__name__)

Handler = Callable[[Exchange], Coroutine[Any, Any, None]]
"""Coroutine function that responds to one request."""


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
    body_rate: float = 0.0
    """Bytes per second of a request body, on average, once `body_seconds` have passed; 0 for any rate."""


class HttpServer:
    """Server of all client connections of this process; it is the protocol factory of `loop.create_server`."""

    def __init__(
        self,
        handle: Handler,
        limits: ServerLimits,
        metrics: Metrics,
        access_log: AccessLog,
        *,
        memory: MemoryBudget,
        cors: CorsRule | None = None,
        sweep_seconds: float = SWEEP_SECONDS,
    ) -> None:
        self.handle = handle
        self.limits = limits
        self.leaving = False
        """Whether responses ask the client to close: from the first signal to stop on."""
        self.loop = asyncio.get_running_loop()
        self.writes = WriteBatch(self.loop)
        self.read_turns = ReadTurns(self.loop)
        """Turns of clients that send much."""
        self.budget = memory
        """Budget for what is held of requests and responses."""
        self._cors = cors
        """Rule for websites that counts for messages that never become an exchange; None without one."""
        self._metrics = metrics
        self._sweep_seconds = sweep_seconds
        self._access_log = access_log
        self._connections: set[ClientConnection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._looked_at = 0.0
        self._refused: dict[str, bool] = {}
        """Addresses for which there was no room since then, and whether another one has more connections."""
        self.waiting: dict[ClientConnection, None] = {}
        """Connections that wait unread for room."""
        self._looker: asyncio.TimerHandle | None = None
        self._draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._date = (0, b"")
        self._new_id = RequestIds()

    def __call__(self) -> asyncio.Protocol:
        """Return the protocol for one new connection."""
        return cast("asyncio.Protocol", ClientConnection(self))

    @property
    def connections(self) -> int:
        """Number of open client connections."""
        return len(self._connections)

    def begin_drain(self) -> None:
        """Close idle connections now, and every other connection after its response."""
        self.leaving = self._draining = True
        for connection in tuple(self._connections):
            connection.drain()

    async def drained(self, seconds: float) -> bool:
        """Wait until all connections are closed, for `seconds` at most; return False where some are still open."""
        try:
            await asyncio.wait_for(self._empty.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def interrupt(self) -> None:
        """Stop every request, and tell each client that can still be told: the time to drain is over."""
        for connection in tuple(self._connections):
            connection.interrupt()

    def abort(self) -> None:
        """Drop every connection."""
        for timer in (self._sweeper, self._looker):
            if timer is not None:
                timer.cancel()
        self._sweeper = self._looker = None
        for connection in tuple(self._connections):
            connection.abort()

    def opened(self, connection: "ClientConnection") -> bool:
        """Count a connection in; return False where there are more than the limit, and none of them waits unused."""
        room = len(self._connections) < self.limits.connections or self._make_room(connection.peer)
        self._connections.add(connection)
        self._empty.clear()
        if self._sweeper is None:
            self._sweeper = self.loop.call_later(self._sweep_seconds, self._sweep)
        return room

    def may_wait(self, connection: "ClientConnection") -> bool:
        """Let a connection for which there is no room wait for some, and return whether it may.

        At a limit that another address has used up there is room again in a moment.
        """
        if not self._refused.get(connection.peer) or len(self.waiting) * WAITING >= self.limits.connections:
            return False
        self.waiting[connection] = None
        if self._looker is None:
            self._looker = self.loop.call_later(LOOK_SECONDS, self._look_again)
        return True

    def _look_again(self) -> None:
        """Admit those of the waiting connections for which there is room now."""
        self._looker = None
        self._looked_at = 0.0
        for connection in tuple(self.waiting):
            taken = len(self._connections) - len(self.waiting)
            if taken < self.limits.connections or self._make_room(connection.peer):
                self.waiting.pop(connection, None)
                connection.admit()
        if self.waiting:
            self._looker = self.loop.call_later(LOOK_SECONDS, self._look_again)

    def _make_room(self, peer: str) -> bool:
        """Close some connections without a request for one from `peer`, and return whether there were any.

        They are of the address that has most connections, and those that have waited longest; one on which something
        has arrived only where there is no other. An address takes none away from one that has fewer.
        """
        now = self.loop.time()
        if now >= self._looked_at + LOOK_SECONDS:
            self._looked_at = now
            self._refused.clear()
        if peer in self._refused:
            return False
        total: dict[str, int] = {}
        spare: dict[str, list[ClientConnection]] = {}
        for one in self._connections:
            total[one.peer] = total.get(one.peer, 0) + 1
            if one.spare:
                spare.setdefault(one.peer, []).append(one)
        most = max(spare, key=lambda other: total[other], default=peer)
        if most == peer or total[most] > total.get(peer, 0):
            longest = sorted(spare.get(most, ()), key=lambda one: one.waits_since)
            if self._close(longest, force=False) or (most != peer and self._close(longest, force=True)):
                return True
        self._refused[peer] = max(total.values(), default=0) > total.get(peer, 0) + 1
        return False

    def _close(self, connections: "list[ClientConnection]", *, force: bool) -> bool:
        """Close the first of these connections that can be closed, and return whether there were any."""
        closed = 0
        for one in connections:
            if one.give_way(force=force):
                closed += 1
                self.lost(one)
                if closed > self.limits.connections // AT_ONCE:
                    break
        return closed > 0

    def lost(self, connection: "ClientConnection") -> None:
        """Count a connection out."""
        self._connections.discard(connection)
        self.waiting.pop(connection, None)
        if not self._connections:
            self._empty.set()

    @property
    def draining(self) -> bool:
        """Whether a connection that becomes idle is closed."""
        return self._draining

    def date(self) -> bytes:
        """Return the time as an IMF-fixdate (RFC 9110 5.6.7); it is formatted once a second."""
        second = int(time.time())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]

    def refusal(self, error: errors.GatewayError, peer: str, target: bytes, origin: bytes | None) -> bytes:
        """Return the whole response to a message that never became an exchange; count and log it.

        Args:
            error: Error of the message.
            peer: Address of the client.
            target: What has arrived of the message's target.
            origin: Website that has sent the message; None where that is not known.
        """
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
        body = errors.body(error, request_id, target)
        fields = (*errors.fields(error, request_id, target), (b"x-request-id", request_id.encode()))
        if self._cors is not None:
            fields += self._cors.fields_for(origin)
        head = ResponseHead(error.status, HTTPStatus(error.status).phrase.encode(), fields, len(body))
        return messages.response_head(head, b"GET", 1, close=True, date=self.date()) + body

    def _sweep(self) -> None:
        self._sweeper = None
        now = self.loop.time()
        for connection in [one for one in self._connections if one.due(now)]:
            connection.check_deadlines(now)
        if self._connections:
            self._sweeper = self.loop.call_later(self._sweep_seconds, self._sweep)


class ClientConnection:
    """One client connection.

    It has the methods of an `asyncio.Protocol`: a compiled class cannot have that as its base.
    """

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.peer = ""
        """IP address of the client."""
        self.owner = "/"
        """Owner in the memory budget of what belongs to no route."""
        self.tls = False
        self.transport: asyncio.Transport
        self.reads: PacedReader
        """Reading side of the connection."""
        self.send: Callable[[bytes], None]
        """Function that writes bytes to the client."""
        self._output: BatchedWriter
        self.full = False
        """Whether more waits to be written than the high-water mark allows."""
        self._parser: RequestParser | None = None
        self._deadline = inf
        """Time of the loop's clock for the head, the body, the next request, or the end of lingering."""
        self.waits_since = 0.0
        """Time since which no request is under way on the connection, where none is."""
        self._write_deadline = inf
        self._unwritten = 0
        """Bytes that waited to be written when the write deadline was set."""
        self.budget = server.budget
        self._reserved = 0
        """Bytes of the memory budget for a response that waits."""
        self._reserver = ""
        """Owner for whom they are reserved."""
        self._body_began = 0.0
        """Time from which the rate of the request's body counts: the later, the longer reading was paused."""
        self._paused_at = 0.0
        self._reading = True
        self._exchange: ClientExchange | None = None
        self._tunnel: Tunnel | None = None
        self._closed = False
        """Whether no further request is taken: what arrives is dropped."""
        self._gone = False
        """Whether the transport is lost."""
        self._pipelined: list[bytes] = []
        """Bytes behind the present request, unparsed."""
        self._pipelined_bytes = 0

    # The life of the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection in, and wait for a request; with TLS the handshake is done."""
        self.transport = cast("asyncio.Transport", transport)
        address = transport.get_extra_info("peername")
        self.peer = _unmapped(address[0]) if address else ""
        self.owner = f"/{self.peer}"
        self.tls = transport.get_extra_info("ssl_object") is not None
        self.transport.set_write_buffer_limits(high=BUFFER_BYTES)
        self.reads = PacedReader(self.server.read_turns, self.transport)
        self._output = BatchedWriter(self.server.writes, self.transport)
        self.send = self._output.write
        if self.server.opened(self):
            self.admit()
        elif self.server.may_wait(self):
            self._deadline = self.server.loop.time() + ROOM_SECONDS
        else:
            self._refuse(errors.Overloaded())

    def admit(self) -> None:
        """Wait for a request: there is room for the connection."""
        self.waits_since = self.server.loop.time()
        self._deadline = self.waits_since + self.server.limits.head_seconds
        self._parser = RequestParser(self.server.limits.message)
        if not self._reading:
            self.resume_reading()
            arrived, self._pipelined, self._pipelined_bytes = b"".join(self._pipelined), [], 0
            self.data_received(arrived)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Count the connection out, and stop what is done for its client."""
        self._gone = self._closed = True
        self._drop_parser()
        self._pipelined = []
        self._give_back()
        self.server.lost(self)
        exchange, self._exchange = self._exchange, None
        if exchange is not None and exchange.task is not None and self._tunnel is None:
            exchange.task.cancel()  # that of a tunnel ends by itself

    def _drop_parser(self) -> None:
        if self._parser is not None:
            self._parser.close()
            self._parser = None

    def eof_received(self) -> None:
        """Close the connection; a client that still waits for a response is taken for gone."""
        if self._exchange is not None:
            self.abort()
        else:
            self._close()

    def abort(self) -> None:
        """Drop the connection at once, with all that waits to be written."""
        self._closed = True
        if not self._gone:
            self.transport.abort()

    def reset(self) -> None:
        """Drop the connection with RST: FIN is the end of a response without framing (RFC 9112 8)."""
        self._closed = True
        if not self._gone:
            sockets.reset(self.transport)

    def cut(self) -> None:
        """Close the connection behind what was written, without the end of the response."""
        self._exchange = None
        if self._gone or self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self._linger()
        else:
            self._close()

    def interrupt(self) -> None:
        """Stop the request on this connection, and tell the client where there is a way to."""
        if self._tunnel is not None:
            self._tunnel.leave()
        elif self._exchange is not None:
            self._exchange.interrupt(errors.Stopping())
        elif not self._closed:
            self._close()

    def drain(self) -> None:
        """Close the connection where no request is under way on it, and none has been sent."""
        # A request that the kernel holds must not get a reset as its response.
        idle = self._exchange is None and not self._closed and not self._head_bytes
        if idle and not sockets.has_unread_bytes(self.transport):
            self._close()

    @property
    def leaving(self) -> bool:
        """Whether responses ask the client to close."""
        return self.server.leaving

    def date(self) -> bytes:
        """Return the time for a Date field."""
        return self.server.date()

    def future(self) -> "asyncio.Future[None]":
        """Return a future of the connection's loop."""
        return self.server.loop.create_future()

    # Deadlines

    @property
    def spare(self) -> bool:
        """Whether no request is under way on the connection, and it does not wait for room itself."""
        return self._exchange is None and not self._gone and (self._closed or self._parser is not None)

    def give_way(self, *, force: bool) -> bool:
        """Close the connection for another one; return False where something waits on it, unread or unsent.

        Args:
            force: Whether to close it all the same.
        """
        self._output.flush()
        waits = self.transport.get_write_buffer_size() or sockets.has_unread_bytes(self.transport)
        if waits and not force:
            return False
        self._closed = True
        if waits:
            self.transport.abort()
        else:
            self.transport.close()
        return True

    def due(self, now: float) -> bool:
        """Return whether `check_deadlines` has to be called."""
        return self._deadline <= now or self._write_deadline <= now or not self._reading

    def check_deadlines(self, now: float) -> None:
        """Act on the deadline that has passed, and drop the connection where its client is gone."""
        if self._tunnel is not None:
            self._tunnel.check_deadlines(now)
            return
        if self._write_deadline <= now:
            waiting = self.transport.get_write_buffer_size()
            if waiting and waiting >= self._unwritten:
                self.abort()
                return
            self._watch_writing(now)
        if not self._reading and sockets.peer_has_closed(self.transport):
            self.abort()
            return
        if self._deadline > now:
            return
        self._deadline = inf
        if self._exchange is not None:
            self._exchange.break_body(errors.BodyTimeout())
        elif self._closed and self.transport.get_write_buffer_size():
            self._deadline = now + LINGER_SECONDS  # a slow reader of the last response has a deadline of its own
        elif not self._closed and self._parser is None:
            self.server.waiting.pop(self, None)
            self._refuse(errors.Overloaded())
        elif not self._closed and self._head_bytes:
            self._refuse(errors.RequestTimeout())
        else:
            self.abort()

    @property
    def _head_bytes(self) -> int:
        return self._parser.head_bytes if self._parser is not None else 0

    # Backpressure

    def soon(self, callback: Callable[[], None]) -> None:
        """Call a function in the next turn of the loop."""
        self.server.loop.call_soon(callback)

    def pause_writing(self) -> None:
        """Hold the response's body back: the client reads more slowly than it comes."""
        self.full = True
        self._watch_writing(self.server.loop.time())
        owner = self.owner if self._exchange is None else self._exchange.owner
        self._give_back()
        if not self.budget.take(owner, self._unwritten):
            self.abort()  # a client that reads slowly while there is no room left to wait for it
            return
        self._reserved, self._reserver = self._unwritten, owner
        if self._exchange is not None and self._exchange.source is not None:
            self._exchange.source.pause()

    def resume_writing(self) -> None:
        """Let the response's body continue: the client has caught up."""
        self.full = False
        self._write_deadline = inf
        self._give_back()
        if self._closed and self._exchange is None:
            self._watch_writing(self.server.loop.time())
        if self._exchange is not None and self._exchange.source is not None:
            self._exchange.source.resume()

    def _give_back(self) -> None:
        if self._reserved:
            self.budget.give_back(self._reserver, self._reserved)
            self._reserved = 0

    def _watch_writing(self, now: float) -> None:
        self._unwritten = self.transport.get_write_buffer_size()
        self._write_deadline = now + self.server.limits.write_stall_seconds if self._unwritten else inf

    def pause_reading(self) -> None:
        """Stop reading the request's body; its deadline stops, too."""
        if self._reading and not self._closed:
            self._reading = False
            self._deadline = inf
            self._paused_at = self.server.loop.time()
            self.reads.pause()

    def resume_reading(self) -> None:
        """Read again."""
        if not self._reading and not self._gone and not self.transport.is_closing():
            self._reading = True
            if self._exchange is not None and not self._exchange.complete:
                now = self.server.loop.time()
                self._body_began += now - self._paused_at
                self._deadline = self._body_deadline(now, self._exchange.size)
            self.reads.resume()

    def _body_deadline(self, now: float, size: int) -> float:
        """Return the time until which more of a body has to arrive, of which `size` bytes are here."""
        limits = self.server.limits
        if not limits.body_rate:
            return now + limits.body_seconds
        return min(now, self._body_began + size / limits.body_rate) + limits.body_seconds

    # Requests

    def data_received(self, data: bytes) -> None:
        """Parse bytes from the client."""
        if len(data) >= LARGE_BYTES:
            self.reads.rest(self.owner if self._exchange is None else self._exchange.owner)
        if self._closed:
            return  # dropped: reading on keeps the last response from being destroyed by a reset
        if self._parser is None:
            self._pipelined.append(data)  # it waits for room, and what else comes waits in the kernel
            deadline = self._deadline
            self.pause_reading()
            self._deadline = deadline
            return
        try:
            self._parse(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as exc:
            cause = exc.__context__
            self._break(cause if isinstance(cause, errors.GatewayError) else errors.MalformedRequest())
        except errors.GatewayError as exc:
            self._break(exc)

    def _parse(self, data: bytes) -> None:
        parser = cast("RequestParser", self._parser)
        while data:
            exchange = self._exchange
            if exchange is None:
                if not parser.head_bytes:
                    self._deadline = self.server.loop.time() + self.server.limits.head_seconds
                data = parser.feed_head(data)
                head = parser.head
                if head is not None:
                    self._begin(head, parser)
            elif exchange.complete:
                self._hold(exchange, data)
                return
            elif exchange.head.chunked:
                self._receive_body(parser, exchange, data)
                return
            else:
                left = cast("int", exchange.head.content_length) - exchange.size
                if len(data) <= left:
                    self._receive_body(parser, exchange, data)
                    return
                self._receive_body(parser, exchange, data[:left])
                data = data[left:]

    def _begin(self, head: RequestHead, parser: RequestParser) -> None:
        """Start the task that responds to a request."""
        exchange = self._exchange = ClientExchange(
            self,
            head,
            keep_alive=parser.keep_alive,
            expects=bool(head.http_minor) and any(name == b"expect" for name, _ in head.fields),
        )
        self._body_began = self.server.loop.time()
        self._deadline = self._body_began + self.server.limits.body_seconds if head.has_body else inf
        exchange.task = self.server.loop.create_task(self.server.handle(exchange))
        exchange.task.add_done_callback(exchange.task_done)
        if parser.complete and not exchange.complete:
            self._deadline = inf
            exchange.complete_body()

    def _receive_body(self, parser: RequestParser, exchange: ClientExchange, data: bytes) -> None:
        """Parse bytes of the body, and give them to the exchange, up to where an error lies in them."""
        self._deadline = self._body_deadline(self.server.loop.time(), exchange.size + len(data))
        try:
            parser.feed_body(data)
        finally:
            for piece in parser.take_body():
                exchange.receive(piece)
            if parser.complete:
                self._deadline = inf
                exchange.complete_body()

    def _hold(self, exchange: ClientExchange, data: bytes) -> None:
        """Hold bytes behind a request, up to a limit.

        A pipelined request waits for its turn (RFC 9112 9.3.2), and too many bytes end the connection. What a client
        sends before its WebSocket is open goes to the backend after the 101, and too many bytes wait in the kernel.
        """
        self._pipelined_bytes += len(data)
        if exchange.head.websocket:
            self._pipelined.append(data)
            if self._pipelined_bytes > BUFFER_BYTES:
                self.pause_reading()
        elif not exchange.keep_alive or self._pipelined_bytes > BUFFER_BYTES:
            exchange.keep_alive = False
            self._pipelined = []
        else:
            self._pipelined.append(data)

    async def join(self, upstream: UpgradedConnection) -> str | None:
        """Pass bytes in both directions until both sides have closed; return the cause where the tunnel broke."""
        self._output.flush()
        self._deadline = 0.0  # each sweep looks
        self._write_deadline = inf
        early, self._pipelined = b"".join(self._pipelined), []
        tunnel = self._tunnel = Tunnel(
            self.server.loop,
            self,
            upstream,
            idle_seconds=self.server.limits.tunnel_idle_seconds,
            stall_seconds=self.server.limits.write_stall_seconds,
        )
        tunnel.start(early)
        try:
            await tunnel.ended
        except BaseException:
            tunnel.cut("stopped")
            raise
        return tunnel.cause

    def _break(self, error: errors.GatewayError) -> None:
        """Take no further bytes, whose framing is lost. A request that is under way gets its response."""
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

    # Responses

    def response_ended(self, exchange: ClientExchange) -> None:
        """Go on to the next request after a complete response, or close the connection."""
        if self._exchange is not exchange:
            return
        self._exchange = None
        if self._gone or self.transport.is_closing():
            return
        self.waits_since = self.server.loop.time()
        if not exchange.keep_alive or self._closed:
            # Lingering also where nothing is known to be behind: a next request may be on its way.
            if not exchange.head.http_minor and not self.transport.can_write_eof():
                self._close()  # HTTP/1.0 may wait for the end, which TLS cannot send in any other way
            else:
                self._linger()
            return
        self.resume_reading()
        self._deadline = self.waits_since + self.server.limits.keep_alive_seconds
        if self._pipelined:
            pipelined, self._pipelined, self._pipelined_bytes = b"".join(self._pipelined), [], 0
            self.data_received(pipelined)
        elif self.server.draining:
            self._close()

    def _refuse(self, error: errors.GatewayError) -> None:
        """Respond to a message that never became an exchange, and take no further one."""
        parser = self._parser
        target, origin = (b"", None) if parser is None else (parser.target, parser.origin)
        self.send(self.server.refusal(error, self.peer, target, origin))
        self._linger()

    def _linger(self) -> None:
        """Close the sending side, and for a moment drop what still arrives."""
        self._closed = True
        self._drop_parser()
        self._pipelined = []
        if not self._reading:
            self._reading = True
            self.reads.resume()
        self._output.flush()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        now = self.server.loop.time()
        self._deadline = now + LINGER_SECONDS
        self._watch_writing(now)

    def _close(self) -> None:
        """Close the connection once everything is written."""
        self._closed = True
        self._output.flush()
        self._watch_writing(self.server.loop.time())
        self.transport.close()


def _unmapped(address: str) -> str:
    """Return an IPv4 address as such, which a socket of both families shows in an IPv6 one (RFC 4291 2.5.5.2)."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address
