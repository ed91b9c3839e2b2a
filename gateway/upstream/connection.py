"""Connections to servers: pool, TLS, timeouts, framing (RFC 9112) and bodies that flow by callbacks.

`Upstream.send` writes one request and returns its `Answer` as soon as the head is here. A connection goes back to the
pool only after a complete answer to a completely sent request; after anything else it is aborted, never closed:
uvloop keeps reading a TLS stream after `close()`.

One sweep looks at all deadlines; connections carry a number, not a timer.
"""

import asyncio
import errno
import random
import ssl
from collections.abc import Callable, Sequence, Set
from math import inf
from typing import TYPE_CHECKING, Final, cast

import httptools

from gateway import errors
from gateway.http.exchange import Exchange, RequestHead, ResponseHead, Switched, field
from gateway.http.messages import Framing, check_response, check_switch
from gateway.net.deadlines import Deadlines
from gateway.net.writes import Gathered, Writes
from gateway.upstream.origin import IDEMPOTENT, Origin, Stats, Timeouts, UpstreamLimits
from gateway.upstream.resolver import AddressResolver
from program import tls

if TYPE_CHECKING:
    from program.tls import ClientCertificate

NO_LIMIT: Final = 1 << 62
"""Bytes of a request body that has no limit."""
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})


class Upstream:
    """Sends requests to servers, over connections that it keeps."""

    def __init__(
        self,
        resolver: AddressResolver,
        *,
        limits: UpstreamLimits | None = None,
        strict_tls: bool = False,
        sweep_seconds: float = 1.0,
    ) -> None:
        self.limits = limits or UpstreamLimits()
        self.stats = Stats()
        self._resolver = resolver
        self._loop = asyncio.get_running_loop()
        self.writes = Writes(self._loop)
        self._strict_tls = strict_tls
        self._sweep_seconds = sweep_seconds
        self._connections: set[_Connection] = set()
        self._pool: dict[Origin, list[_Connection]] = {}
        self._contexts: dict[tuple[str | None, ClientCertificate | None], ssl.SSLContext] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(
        self,
        origin: Origin,
        head: RequestHead,
        body: Exchange | bytes,
        timeouts: Timeouts,
        *,
        body_limit: int = NO_LIMIT,
        keep: int = 0,
        resend: bool = False,
    ) -> "ServerResponse":
        """Send one request and return its answer when the answer's head has arrived.

        Target and fields of `head` go out as they are, framing is added from it. The body is pumped from the
        exchange (where `head` has one), which keeps up to `keep` bytes of it, or is `body` itself. When a reused
        connection dies before a byte of the answer, the request is sent once more on a fresh one, if all of its body
        can be had again and its method is idempotent, it has an Idempotency-Key, or `resend` says that the route allows
        it.

        Raises:
            errors.UpstreamError: no answer's head could be had.
            errors.RequestError: the client's body failed while it was being sent.
            errors.Overloaded: this process has no file descriptor or port left.
        """
        request = _Request(head, body, body_limit, keep)
        connection = self._take(origin)
        if connection is not None:
            response = ServerResponse(connection, head.method == b"HEAD", timeouts.idle)
            try:
                return await connection.ask(response, request, timeouts)
            except errors.UpstreamReset:
                if connection.received or not request.repeatable:
                    raise
                if not (resend or head.method in IDEMPOTENT or request.has_idempotency_key):
                    raise
            if request.whole is None:
                request = _Request(head, body, body_limit, keep)
        connection = await self._connect(origin, timeouts.connect)
        response = ServerResponse(connection, head.method == b"HEAD", timeouts.idle)
        return await connection.ask(response, request, timeouts)

    def close(self) -> None:
        """Abort every connection and stop the sweep."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in tuple(self._connections):
            connection.fail(errors.UpstreamReset())

    def forget(self, origins: Set[Origin]) -> None:
        """Drop the idle connections of these, with whatever certificate: nothing will be sent there again."""
        idle = [
            one for origin, known in self._pool.items() if origin._replace(certificate=None) in origins for one in known
        ]
        for connection in idle:
            connection.abort()

    def _take(self, origin: Origin) -> "_Connection | None":
        idle = self._pool.get(origin)
        now = self._loop.time()
        while idle:
            # At random, so that load spreads over the replicas behind a Service as they come and go.
            index = int(random.random() * len(idle))  # noqa: S311 - spreads load, keeps no secret
            connection = idle[index]
            if now < connection.deadline and connection.usable():
                self.discard(connection)
                return connection
            connection.abort()
        return None

    def keep(self, connection: "_Connection") -> bool:
        """Put a connection into the pool; false when it is full."""
        if self._closed or self.stats.idle >= self.limits.idle_total:
            return False
        idle = self._pool.setdefault(connection.origin, [])
        if len(idle) >= self.limits.idle_per_origin:
            return False
        connection.slot = len(idle)
        idle.append(connection)
        self.stats.idle += 1
        return True

    def discard(self, connection: "_Connection") -> None:
        """Take a connection out of the pool, if it is in it."""
        if connection.slot < 0:
            return
        idle = self._pool[connection.origin]
        last = idle.pop()
        if last is not connection:
            idle[connection.slot] = last
            last.slot = connection.slot
        if not idle:
            del self._pool[connection.origin]
        connection.slot = -1
        self.stats.idle -= 1

    def opened(self, connection: "_Connection") -> None:
        """A connection exists."""
        self._connections.add(connection)
        self.stats.connects += 1
        self.stats.open += 1
        if self._sweeper is None and not self._closed:
            self._sweeper = self._loop.call_later(self._sweep_seconds, self._sweep)

    def lost(self, connection: "_Connection") -> None:
        """A connection is no more."""
        self.discard(connection)
        if connection in self._connections:
            self._connections.remove(connection)
            self.stats.open -= 1

    def _sweep(self) -> None:
        now = self._loop.time()
        self._sweeper = None
        for connection in [one for one in self._connections if one.deadline <= now]:
            connection.expire()
        if self._connections and not self._closed:
            self._sweeper = self._loop.call_later(self._sweep_seconds, self._sweep)

    async def _connect(self, origin: Origin, seconds: float) -> "_Connection":
        try:
            async with asyncio.timeout(seconds) as limit:
                addresses = await self._resolver.resolve(origin.host, origin.port, trusted=origin.trusted)
                context = self._context(origin) if origin.scheme == "https" else None
                end = cast("float", limit.when())
                for left in range(len(addresses), 1, -1):
                    # An address that does not answer leaves the others their share of the time.
                    share = (end - self._loop.time()) / left
                    try:
                        async with asyncio.timeout(share):
                            return await self._open(origin, context, addresses[len(addresses) - left])
                    except OSError:
                        continue
                return await self._open(origin, context, addresses[-1])
        except TimeoutError as exc:
            raise errors.ConnectTimeout from exc
        except ssl.SSLError as exc:
            raise errors.TlsFailed from exc
        except OSError as exc:
            if exc.errno in _OUT_OF_RESOURCES:
                raise errors.Overloaded from exc
            raise errors.ConnectFailed from exc

    async def _open(self, origin: Origin, context: ssl.SSLContext | None, address: tuple[str, int]) -> "_Connection":
        # The address was checked by the resolver; it is a literal, so nothing is looked up a second time.
        connection = _Connection(self, origin, self._loop)
        await self._loop.create_connection(
            lambda: cast("asyncio.Protocol", connection),
            address[0],
            address[1],
            ssl=context,
            server_hostname=(origin.server_name or origin.host) if context is not None else None,
        )
        if context is not None:
            session = connection.transport.get_extra_info("ssl_object")
            if session.selected_alpn_protocol() not in (None, "http/1.1"):
                connection.abort()
                raise errors.TlsFailed  # it speaks something that we did not offer
        return connection

    def _context(self, origin: Origin) -> ssl.SSLContext:
        key = (origin.ca_bundle, origin.certificate)
        context = self._contexts.get(key)
        if context is None:
            if len(self._contexts) >= 256:
                self._contexts.clear()
            try:
                context = tls.client_context(strict=self._strict_tls, authorities=key[0], certificate=key[1])
            except tls.AuthoritiesUnusable as exc:
                raise errors.TlsFailed from exc
            except tls.CertificateUnusable as exc:
                raise errors.CredentialsFailed from exc
            self._contexts[key] = context
        return context


class _Request:
    """One request as it goes on the wire, and the sink for its body."""

    __slots__ = (
        "_chunked",
        "_connection",
        "_exchange",
        "_keep",
        "_limit",
        "_paused",
        "_pieces",
        "ended",
        "head",
        "whole",
    )

    def __init__(self, head: RequestHead, body: Exchange | bytes, limit: int, keep: int) -> None:
        self._chunked = False
        self._connection: _Connection | None = None
        self._exchange: Exchange | None = None
        self._limit = limit
        self._keep = keep
        self._paused = False
        self.head = head
        self.ended = True
        if isinstance(body, bytes):
            length = len(body) if body or head.has_body else None
            self.whole: bytes | None = serialize(head, length, chunked=False) + body
        else:
            self.whole = serialize(head, head.content_length, chunked=head.chunked)
            if head.has_body:
                self._exchange = body
                self._chunked = head.chunked
                self.ended = False
        self._pieces: list[bytes] | None = None

    @property
    def repeatable(self) -> bool:
        """Whether it can be sent once more: all of it is in memory, or what is here of its body is still to be had."""
        return self.whole is not None or (self._exchange is not None and self._exchange.intact)

    @property
    def has_idempotency_key(self) -> bool:
        """Whether the client says that the server notices a repetition."""
        return any(name == b"idempotency-key" for name, _ in self.head.fields)

    def start(self, connection: "_Connection") -> None:
        """Write the request, or its head and what is here of the body, in one piece; the rest follows."""
        self._connection = connection
        exchange, ended = self._exchange, self.ended
        whole = cast("bytes", self.whole)
        if exchange is None or ended:
            connection.send(whole)
            return
        self._pieces = [whole]
        self.whole = None
        exchange.pump_body(self, self._limit, self._keep)
        if not self._under_way:
            return  # the body failed at once
        first = b"".join(self._pieces)
        self._pieces = None
        if self.ended:
            self.whole = first  # so that it can be sent again
        connection.send(first)

    @property
    def _under_way(self) -> bool:
        return self._connection is not None

    def stop(self) -> None:
        """Let go of the exchange: nothing more is sent."""
        self._connection = None
        if self._exchange is not None and not self.ended:
            self._exchange.stop_body()
            self.resume()

    def write(self, data: bytes) -> None:
        """A piece of the body from the client."""
        if not data or self._connection is None:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        if self._pieces is not None:
            self._pieces.append(data)
        else:
            self._connection.send(data)

    def end(self) -> None:
        """The client's body is complete."""
        if self._connection is None or self.ended:
            return
        self.ended = True
        if self._chunked:
            if self._pieces is not None:
                self._pieces.append(b"0\r\n\r\n")
            else:
                self._connection.send(b"0\r\n\r\n")

    def fail(self, cause: Exception) -> None:
        """The client's body will never be complete, so this request cannot be."""
        if self._connection is not None:
            self._connection.fail(cause)

    def pause(self) -> None:
        """The server does not read."""
        if self._exchange is not None and not self.ended:
            self._paused = True
            self._exchange.pause()

    def resume(self) -> None:
        """The server reads again."""
        if self._exchange is not None and self._paused:
            self._paused = False
            self._exchange.resume()


def serialize(head: RequestHead, content_length: int | None, *, chunked: bool) -> bytes:
    """The head as bytes, with its framing field (RFC 9112 3, 6).

    Raises:
        ValueError: a line break is hidden in it.
    """
    lines = [b"%b %b HTTP/1.1" % (head.method, head.target), *map(b": ".join, head.fields)]
    if chunked:
        lines.append(b"transfer-encoding: chunked")
    elif content_length is not None:
        lines.append(b"content-length: %d" % content_length)
    elif head.websocket:
        lines += (b"connection: Upgrade", b"upgrade: websocket")
    lines += (b"", b"")
    wire = b"\r\n".join(lines)
    # One pass of memchr: the last line of defense against a value that became two fields.
    if wire.count(b"\n") != len(lines) - 1 or wire.count(b"\r") != len(lines) - 1:
        raise ValueError("a line break in a request's head")
    return wire


class ServerResponse:
    """A server's answer, from its head on (`exchange.Answer`)."""

    __slots__ = ("_bytes", "_complete", "_connection", "_done", "_enough", "_error", "_exchange", "_held", "_pieces",
                 "_room", "bodiless", "head", "idle")  # fmt: skip

    def __init__(self, connection: "_Connection", bodiless: bool, idle: float) -> None:
        self.bodiless = bodiless
        """Whether the request was HEAD: its answer has no body, whatever its framing fields say."""
        self.idle = idle
        """Seconds between two reads."""
        self.head: ResponseHead
        self._connection: _Connection | None = connection
        self._exchange: Exchange | None = None
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._room = connection.buffer_bytes
        self._held = False
        self._complete = False
        self._error: Exception | None = None
        self._done: asyncio.Future[None] | None = None
        self._enough: Callable[[bytes], bool] | None = None

    async def beginning(self, enough: Callable[[bytes], bool], deadlines: Deadlines) -> bytes:
        """The beginning of the body, which stays to be relayed: as soon as it is `enough`, complete, or time is up.

        Raises:
            errors.UpstreamError: the body broke off.
        """
        if self._error is None and not self._complete and not enough(b"".join(self._pieces)):
            connection = cast("_Connection", self._connection)
            self._enough = enough
            self._done = connection.loop.create_future()
            deadlines.limit(self._done)
            try:
                await self._done
            finally:
                self._enough = self._done = None
        if self._error is not None:
            raise self._error
        return b"".join(self._pieces)

    async def relay(self, exchange: Exchange) -> None:
        """Send the body on to `exchange` as it arrives, end it, and return.

        Raises:
            errors.UpstreamError: the body broke off; the exchange has not been ended.
        """
        if self._complete or self._error is not None:
            if self._pieces:
                exchange.write(self._taken())
            if self._error is not None:
                raise self._error
            exchange.end()
            return
        connection = cast("_Connection", self._connection)
        self._exchange = exchange
        self._done = connection.loop.create_future()
        try:
            exchange.attach(self)
            if self._held:
                self._held = False
                self.resume()
            if self._pieces:
                exchange.write(self._taken())  # which may pause us
            await self._done
        finally:
            exchange.attach(None)
            self._exchange = None
            self.abort()

    def switched(self) -> Switched:
        """The connection after a 101, to be had once: it is the caller's from now on.

        Raises:
            errors.UpstreamError: it broke meanwhile.
        """
        if self._connection is None:
            raise self._error or errors.UpstreamReset()
        connection, self._connection = self._connection, None
        return Switched(connection, self._taken(), connection.leave())

    def whole(self) -> bytes | None:
        """The body if all of it is here; else None. It can be had once."""
        return self._taken() if self._complete and self._error is None else None

    async def read(self, limit: int) -> bytes:
        """The whole body; at most `limit` bytes of it, then the connection is dropped.

        Raises:
            errors.UpstreamError: the body broke off.
        """
        self._room = limit
        if self._error is None and not self._complete and self._bytes < limit:
            connection = cast("_Connection", self._connection)
            self._done = connection.loop.create_future()
            if self._held:
                self._held = False
                self.resume()
            try:
                await self._done
            finally:
                self.abort()
        elif not self._complete:
            self.abort()
        if self._error is not None and self._bytes < limit:
            raise self._error
        return self._taken()[:limit]

    def abort(self) -> None:
        """Drop the answer and its connection. Harmless when the answer is complete."""
        if self._connection is not None:
            self._connection.abort()

    def pause(self) -> None:
        """Read no more of the answer for now."""
        if self._connection is not None:
            self._connection.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._connection is not None:
            self._connection.resume_reading()

    def deliver(self, data: bytes) -> None:
        """A piece of the body from the server."""
        if self._exchange is not None:
            self._exchange.write(data)
            return
        self._pieces.append(data)
        self._bytes += len(data)
        if self._enough is not None:
            if self._enough(b"".join(self._pieces)):
                self._settle()
        elif self._bytes >= self._room:
            if self._done is not None:
                self._settle()  # `read` has what it may have
            elif not self._held:
                self._held = True
                # Not the client's doing: an answer that nobody ever takes ends by its idle timeout.
                cast("_Connection", self._connection).hold()

    def complete(self) -> None:
        """The body is complete; the connection is no longer ours."""
        self._complete = True
        self._connection = None
        if self._exchange is not None:
            self._exchange.end()
        if self._done is not None:
            self._settle()

    def break_off(self, cause: Exception) -> None:
        """The body will never be complete."""
        self._connection = None
        self._error = cause
        if self._done is not None and not self._done.done():
            self._done.set_exception(cause)

    def _settle(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _taken(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        self._bytes = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)


class _Connection:
    """One connection to a server (an `asyncio.Protocol`, as `edge.ClientConnection` is).

    It has an answer while a request is on it, else it is in the pool or gone.
    """

    full = False
    """Nothing waits on a connection that is left to a tunnel."""

    def __init__(self, upstream: Upstream, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.loop = loop
        self.transport: asyncio.Transport
        self.send: Callable[[bytes], None]
        """Write to the server."""
        self.buffer_bytes = upstream.limits.buffer_bytes
        self.slot = -1
        """Place in the pool's list; -1 when it is not there."""
        self.deadline = inf
        """On the loop's clock: when `expire` is due."""
        self.received = False
        """Whether a byte of the answer has arrived."""
        self._upstream = upstream
        self._limits = upstream.limits
        self._idle_seconds = upstream.limits.idle_seconds
        self._retire_at = inf
        self._response: ServerResponse | None = None
        self._request: _Request | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._body: list[bytes] = []
        self._head_bytes = 0
        self._overhead = 0
        self._interim = 0
        self._final = False
        self._ended = False
        self._reusable = False
        self._until_eof = False
        self._paused = False
        self._gone = False
        self._switched = False
        """Whether a 101 has come: no HTTP is spoken any more."""
        self._over = False
        """Whether the server has ended after its 101."""

    # The life of the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, and for https the handshake is done."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=self.buffer_bytes)
        self.send = Gathered(self._upstream.writes, self.transport).write
        self._retire_at = self.loop.time() + self._limits.life_seconds
        self._upstream.opened(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """The transport is gone; whoever still waits learns it."""
        self._fail(errors.UpstreamReset())
        self._upstream.lost(self)
        self._gone = True
        self._parser = None  # breaks the reference cycle

    def usable(self) -> bool:
        """Whether a request can be written: the transport may be closing with `connection_lost` still queued."""
        return not (self._gone or self.transport.is_closing())

    def abort(self) -> None:
        """Drop the connection and what is on it."""
        self.fail(errors.UpstreamReset())

    def fail(self, cause: Exception) -> None:
        """Drop the connection; whoever waits for the answer gets `cause`."""
        self._upstream.discard(self)
        self.deadline = inf
        self._fail(cause)
        if not self._gone:
            self.transport.abort()

    def expire(self) -> None:
        """The deadline has passed."""
        if self._response is None:
            self.abort()
        elif self._final:
            self.fail(errors.IdleTimeout())
        else:
            self.fail(errors.FirstByteTimeout())

    def _fail(self, cause: Exception) -> None:
        response, self._response = self._response, None
        request, self._request = self._request, None
        if request is not None:
            request.stop()
        if response is None:
            return
        response.break_off(cause)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(cause)

    # One request

    async def ask(self, response: ServerResponse, request: _Request, timeouts: Timeouts) -> ServerResponse:
        """Send the request and return the answer when its head is here."""
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._response = response
        self._request = request
        self._waiter = self.loop.create_future()
        self.received = self._final = self._ended = self._reusable = self._until_eof = False
        self._head_bytes = self._overhead = self._interim = 0
        self._idle_seconds = self._limits.idle_seconds
        self.deadline = self.loop.time() + timeouts.first_byte
        try:
            request.start(self)
            await self._waiter
        except BaseException:
            self.abort()
            raise
        return response

    def pause_writing(self) -> None:
        """The server reads more slowly than the client sends."""
        if self._request is not None:
            self._request.pause()

    def resume_writing(self) -> None:
        """The server has caught up."""
        if self._request is not None:
            self._request.resume()

    # One answer

    def pause_reading(self) -> None:
        """Hold the server back while the client is slow; its idle timeout does not run meanwhile."""
        if self._response is not None:
            self.deadline = inf
            self.hold()

    def hold(self) -> None:
        """Read no more for now."""
        if not self._paused and self.usable():
            self._paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Let the server go on."""
        if self._paused and self.usable():
            self._paused = False
            if self._response is not None:
                self.deadline = self.loop.time() + self._response.idle
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        """Bytes from the server."""
        response = self._response
        if response is None or self._parser is None:
            self.abort()  # nothing was asked: what comes now could be taken for the next answer
            return
        self.received = True
        if self._switched:
            response.deliver(data)
            return
        try:
            if self._final:
                self._feed_body(data)
            else:
                self._feed_head(data)
        except httptools.HttpParserUpgrade as exc:
            self._switch(response, data[exc.args[0] :])
            return
        except httptools.HttpParserError:
            if not self._ended:
                self._hand_on(response)
                self.fail(errors.BadResponse())
                return
            self._reusable = False  # the answer is complete, what follows it is not one
        if self._ended and response.bodiless and not data.endswith(b"\r\n\r\n"):
            self._reusable = False
        if self._body:
            self._hand_on(response)
        if self._ended:
            self._finish()
        elif self._final and not self._paused and self._response is not None:
            self.deadline = self.loop.time() + response.idle

    def eof_received(self) -> None:
        """The server sends no more. Only an answer that has no other end is complete by it (RFC 9112 8)."""
        if self._response is not None and self._until_eof:
            self._finish()
        elif self._switched:
            self._over = True
        else:
            self.abort()

    def leave(self) -> bool:
        """Leave the connection to a tunnel; return whether the server has already ended."""
        self._response = self._request = None
        self.deadline = inf
        return self._over

    def _switch(self, response: ServerResponse, early: bytes) -> None:
        """A 101 has come. Nothing more is read until somebody takes the connection over."""
        self._switched = True
        self._parser = None
        self.hold()
        if early:
            response.deliver(early)
        self._wake()

    def _feed_head(self, data: bytes) -> None:
        parser = cast("httptools.HttpResponseParser", self._parser)
        room = self._limits.head_bytes - self._head_bytes
        self._head_bytes += len(data)
        if len(data) <= room:
            parser.feed_data(data)
            return
        parser.feed_data(data[:room])
        if not self._final:
            raise httptools.HttpParserError("head too large")
        parser.feed_data(data[room:])

    def _feed_body(self, data: bytes) -> None:
        cast("httptools.HttpResponseParser", self._parser).feed_data(data)
        if self._body:
            self._overhead = 0
            return
        self._overhead += len(data)
        if self._overhead > self._limits.overhead_bytes:
            raise httptools.HttpParserError("too much that is not body")

    def _hand_on(self, response: ServerResponse) -> None:
        body, self._body = self._body, []
        if body:
            # One write for what came in one read: a flood of tiny chunks costs the client's side nothing.
            response.deliver(body[0] if len(body) == 1 else b"".join(body))

    def _finish(self) -> None:
        response, self._response = self._response, None
        request, self._request = self._request, None
        if response is None or request is None:
            return  # delivering the last bytes ended in an abort
        sent = request.ended
        request.stop()
        self.deadline = inf
        if response.bodiless:
            self._parser = None  # it still waits for a body
        keep = self._reusable and sent and not self._until_eof and self.usable()
        if keep and self._paused:
            self._paused = False
            self.transport.resume_reading()  # an idle connection must notice its end
        if keep:
            now = self.loop.time()
            self.deadline = min(now + self._idle_seconds, self._retire_at)
            keep = now < self.deadline and self._upstream.keep(self)
        if not keep:
            self.abort()
        response.complete()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """The first byte of a head: an interim one, the final one, or one that nobody asked for."""
        if self._final:
            self._reusable = False
            raise httptools.HttpParserError("more than one answer")
        self._fields = []
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        """The reason phrase, possibly in pieces."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field line; after the head, a trailer, which is dropped (RFC 9110 6.5.1)."""
        if self._final:
            return
        if len(self._fields) >= self._limits.fields:
            raise httptools.HttpParserError("too many fields")
        self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """A head is complete."""
        parser = cast("httptools.HttpResponseParser", self._parser)
        response = cast("ServerResponse", self._response)
        status = parser.get_status_code()
        if 100 <= status < 200:
            if status == 101:
                head = cast("_Request", self._request).head
                key = field(head.fields, b"sec-websocket-key") if head.websocket else None
                response.head = check_switch(self._reason, parser.get_http_version(), self._fields, key)
                return
            self._interim += 1
            if self._interim > self._limits.interim:
                raise httptools.HttpParserError("too many interim answers")
            return
        response.head, framing = check_response(
            status, self._reason, parser.get_http_version(), self._fields, b"HEAD" if response.bodiless else b"GET"
        )
        self._until_eof = framing is Framing.CLOSE
        self._final = True
        self._head_bytes = 0
        # The parser forgets this after the callback. Of an answer to HEAD without framing fields it would say no.
        version = parser.get_http_version()
        self._reusable = _persists(version, self._fields) if response.bodiless else parser.should_keep_alive()
        self._idle_seconds = min(self._idle_seconds, self._hint())
        if response.bodiless:
            self._ended = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        if self._ended:
            self._reusable = False  # a body after the answer to HEAD
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """The end of an interim or of the final answer."""
        if self._final:
            self._ended = True

    def _hint(self) -> float:
        for name, value in self._fields:
            if name == b"keep-alive":
                for part in value.lower().split(b","):
                    key, _, seconds = part.strip().partition(b"=")
                    if key == b"timeout" and seconds.isdigit() and len(seconds) < 9:
                        return int(seconds) - 1.0  # its clock and ours are not the same
        return inf


def _persists(version: str, fields: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether the connection stays open after this answer (RFC 9112 9.3), its body aside."""
    options = [value.lower() for name, value in fields if name == b"connection"]
    return version == "1.1" and not any(part.strip() == b"close" for value in options for part in value.split(b","))
