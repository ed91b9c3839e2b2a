"""Connections to backends: pool, TLS, deadlines, framing (RFC 9112), and bodies that flow by callbacks.

`Upstream.send` writes one request and returns its `UpstreamResponse` as soon as the head has arrived. A connection goes
back to the pool only after a complete response to a completely sent request. After anything else it is aborted, never
closed: uvloop keeps reading a TLS stream after `close()`.

One sweep looks at all deadlines; a connection carries a number, not a timer.
"""

import asyncio
import errno
import random
import ssl
from collections.abc import Callable, Sequence, Set
from math import inf
from select import POLLIN, POLLPRI, poll
from typing import TYPE_CHECKING, Final, cast

import httptools

from gateway import errors
from gateway.http.exchange import Exchange, RequestHead, field
from gateway.http.messages import Framing, check_response, check_upgrade
from gateway.net.reads import LARGE_BYTES, PacedReader, ReadTurns
from gateway.net.writes import BatchedWriter, WriteBatch
from gateway.upstream.origin import IDEMPOTENT, Origin, Stats, Timeouts, UpstreamLimits
from gateway.upstream.request import BodyChange, UpstreamRequest
from gateway.upstream.resolver import AddressResolver
from gateway.upstream.response import UpstreamResponse
from program import tls

if TYPE_CHECKING:
    from program.tls import ClientCertificate

NO_LIMIT: Final = 1 << 62
"""Bytes of a request body that has no limit."""
_OUT_OF_RESOURCES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""Errors of connecting that say something about this machine and nothing about the backend."""
_READABLE: Final = poll()
"""Poll object with no socket in it, between two looks at one."""


class Upstream:
    """Client for all backends, with a pool of idle connections."""

    def __init__(
        self,
        resolver: AddressResolver,
        *,
        limits: UpstreamLimits | None = None,
        strict_tls: bool = False,
        sweep_seconds: float = 1.0,
        certificate_seen: Callable[[str, bytes], None] | None = None,
    ) -> None:
        """Connect to nothing yet.

        Args:
            resolver: Resolver of the names of backends, which checks their addresses.
            limits: Limits on responses and on the pool; None for the usual ones.
            strict_tls: Whether certificates must follow RFC 5280 to the letter.
            sweep_seconds: Seconds between two looks for connections that have had their time.
            certificate_seen: Function that is called with host and port and the certificate, in DER, of each server to
                which a connection over TLS is opened.
        """
        self._certificate_seen = certificate_seen
        self.limits = limits or UpstreamLimits()
        self.stats = Stats()
        self._resolver = resolver
        self._loop = asyncio.get_running_loop()
        self.writes = WriteBatch(self._loop)
        self.read_turns = ReadTurns(self._loop)
        """Turns of backends that send much."""
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
        owner: str = "",
        body_limit: int = NO_LIMIT,
        keep: int = 0,
        resend: bool = False,
        change: Callable[[], BodyChange] | None = None,
        fresh: bool = False,
    ) -> UpstreamResponse:
        """Send one request and return its response when the response's head has arrived.

        A reused connection may die before the first byte of the response. Then the request is sent once more on a new
        connection, if all of its body can be sent again, and if its method is idempotent, it has an Idempotency-Key, or
        `resend` is set.

        Args:
            origin: Server to send to.
            head: Head of the request; target and fields are sent as they are, the framing field is added.
            body: The body itself, or the client's exchange that delivers it where `head` has one.
            timeouts: Times for connecting, for the response's head and first event, and between two reads of its body.
            owner: Route of the request, as `namespace/name`, whose share of the look-ups of names it takes.
            body_limit: Bytes that a body from an exchange may have.
            keep: Bytes of it that the exchange keeps, so that it can be sent again.
            resend: Whether the route allows sending a request twice that is not idempotent.
            change: Function that returns a change of a body from an exchange.
            fresh: Whether the request goes over a new connection, whatever there is in the pool.

        Raises:
            errors.UpstreamError: No head of a response arrived.
            errors.RequestError: The client's body failed while it was being sent.
            errors.Overloaded: This process has no file descriptor or port left.
        """
        request = UpstreamRequest(head, body, body_limit, keep, None if change is None else change())
        connection = None if fresh else self._take(origin)
        if connection is not None:
            connection.owner = owner
            response = UpstreamResponse(connection, head.method == b"HEAD", timeouts)
            try:
                return await connection.round_trip(response, request, timeouts)
            except errors.UpstreamReset:
                if connection.received or not request.repeatable:
                    raise
                if not (resend or head.method in IDEMPOTENT or request.has_idempotency_key):
                    raise
            if request.whole is None:
                request = UpstreamRequest(head, body, body_limit, keep, None if change is None else change())
        connection = await self._connect(origin, timeouts.connect, owner)
        connection.owner = owner
        response = UpstreamResponse(connection, head.method == b"HEAD", timeouts)
        return await connection.round_trip(response, request, timeouts)

    async def probe(self, origin: Origin, seconds: float, *, owner: str = "") -> None:
        """Connect to `origin` anew, TLS handshake included, send nothing, and drop the connection.

        Args:
            origin: Server to connect to.
            seconds: Seconds that it may take.
            owner: Route whose share of the look-ups of names it takes, as `namespace/name`.

        Raises:
            errors.UpstreamError: The server cannot be connected to; the cause is what went wrong.
            errors.Overloaded: This process has no file descriptor or port left.
        """
        connection = await self._connect(origin, seconds, owner)
        connection.abort()

    def close(self) -> None:
        """Abort every connection and stop the sweep."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
            self._sweeper = None
        for connection in tuple(self._connections):
            connection.fail(errors.UpstreamReset())

    def forget(self, origins: Set[Origin]) -> None:
        """Drop the idle connections to `origins`, with any client certificate: no route leads there any more."""
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
            if now < connection.deadline and connection.usable() and connection.silent():
                self.discard(connection)
                return connection
            connection.abort()
        return None

    def keep(self, connection: "_Connection") -> bool:
        """Put a connection into the pool; return False where the pool is full."""
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
        """Take a connection out of the pool where it is in it."""
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
        """Count a new connection, and start the sweep where it does not run."""
        self._connections.add(connection)
        self.stats.connects += 1
        self.stats.open += 1
        if self._sweeper is None and not self._closed:
            self._sweeper = self._loop.call_later(self._sweep_seconds, self._sweep)

    def lost(self, connection: "_Connection") -> None:
        """Count a connection out that is lost."""
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

    async def _connect(self, origin: Origin, seconds: float, owner: str) -> "_Connection":
        if origin.destination == "configured":
            owner = ""  # the name is the administrator's, so all routes share its addresses
        found = False
        try:
            async with asyncio.timeout(seconds) as limit:
                addresses = await self._resolver.resolve(
                    origin.host, origin.port, destination=origin.destination, owner=owner
                )
                for other in origin.others:
                    further = await self._resolver.resolve(
                        other, origin.port, destination=origin.destination, owner=owner
                    )
                    addresses = [*addresses, *further]
                found = True
                context = self._context(origin) if origin.scheme == "https" else None
                end = cast("float", limit.when())
                for left in range(len(addresses), 1, -1):
                    # An address that does not respond leaves the others their share of the time.
                    share = (end - self._loop.time()) / left
                    try:
                        async with asyncio.timeout(share):
                            return await self._open(origin, context, addresses[len(addresses) - left])
                    except OSError:
                        continue
                return await self._open(origin, context, addresses[-1])
        except TimeoutError as exc:
            if found:
                self._resolver.doubt(origin.host, owner=owner)
            raise errors.ConnectTimeout(is_unresolved=not found) from exc
        except ssl.SSLError as exc:
            self._resolver.doubt(origin.host, owner=owner)
            raise errors.TlsFailed from exc
        except OSError as exc:
            if exc.errno in _OUT_OF_RESOURCES:
                raise errors.Overloaded from exc
            self._resolver.doubt(origin.host, owner=owner)
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
                raise errors.TlsFailed  # a protocol that was not offered
            if self._certificate_seen is not None:
                name = f"{origin.server_name or origin.host}:{origin.port}"
                self._certificate_seen(name, session.getpeercert(True) or b"")
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


class _Connection:
    """One connection to a backend. While a request is on it, it has a response; else it is in the pool, or lost.

    It has the methods of an `asyncio.Protocol`: a compiled class cannot have that as its base.
    """

    full = False
    """Whether too much waits to be written: never on a connection that is left to a tunnel."""

    def __init__(self, upstream: Upstream, origin: Origin, loop: asyncio.AbstractEventLoop) -> None:
        self.origin = origin
        self.owner = ""
        """Route of the request that is on it, or was on it last."""
        self.loop = loop
        self.transport: asyncio.Transport
        self.reads: PacedReader
        """Reading side of the connection."""
        self.send: Callable[[bytes], None]
        """Function that writes bytes to the backend."""
        self.buffer_bytes = upstream.limits.buffer_bytes
        self.slot = -1
        """Index in the pool's list for the origin; -1 while it is not in the pool."""
        self.deadline = inf
        """Time of the loop's clock at which `expire` is due."""
        self.received = False
        """Whether a byte of the response has arrived."""
        self._upstream = upstream
        self._limits = upstream.limits
        self._idle_seconds = upstream.limits.idle_seconds
        """Seconds in the pool after which the connection is dropped, at most what its backend has promised."""
        self._retire_at = inf
        self._descriptor = -1
        """File descriptor of the socket."""
        self._response: UpstreamResponse | None = None
        self._request: UpstreamRequest | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._fields: list[tuple[bytes, bytes]] = []
        self._reason = b""
        self._body: list[bytes] = []
        self._head_bytes = 0
        self._overhead = 0
        """Bytes of chunk headers and trailers since the last byte of the body."""
        self._interim = 0
        """Number of 1xx responses before the final one."""
        self._final = False
        """Whether the head of the final response is complete."""
        self._ended = False
        """Whether the final response is complete."""
        self._reusable = False
        self._until_eof = False
        """Whether the end of the connection is the end of the response."""
        self._paused = False
        self._gone = False
        self._upgraded = False
        """Whether a 101 has arrived: the connection speaks HTTP no more."""
        self._at_eof = False
        """Whether the backend has closed its side after its 101."""

    # The life of the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Count the connection in; for https the handshake is done."""
        self.transport = cast("asyncio.Transport", transport)
        self.transport.set_write_buffer_limits(high=self.buffer_bytes)
        self.reads = PacedReader(self._upstream.read_turns, self.transport)
        self._descriptor = transport.get_extra_info("socket").fileno()
        self.send = BatchedWriter(self._upstream.writes, self.transport).write
        self._retire_at = self.loop.time() + self._limits.life_seconds
        self._upstream.opened(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        """Count the connection out, and raise to the caller that still waits for a response."""
        self._fail(errors.UpstreamReset())
        self._upstream.lost(self)
        self._gone = True
        self._parser = None  # breaks the reference cycle

    def usable(self) -> bool:
        """Return whether a request can be written: a transport may be closing before `connection_lost` is called."""
        return not (self._gone or self.transport.is_closing())

    def silent(self) -> bool:
        """Return whether the backend has sent nothing on this idle connection, and has not closed it either.

        Bytes that wait to be read are no response to a request that has not been sent, and nothing may be sent any more
        to a backend that has closed its side: the event loop comes to both only after the request.
        """
        descriptor = self._descriptor
        try:
            _READABLE.register(descriptor, POLLIN | POLLPRI)
            try:
                return not _READABLE.poll(0)
            finally:
                _READABLE.unregister(descriptor)
        except (OSError, ValueError):
            return False  # the socket is closed

    def abort(self) -> None:
        """Drop the connection, and the request on it."""
        self.fail(errors.UpstreamReset())

    def fail(self, cause: Exception) -> None:
        """Drop the connection, and raise `cause` to the caller that waits for the response."""
        self._upstream.discard(self)
        self.deadline = inf
        self._fail(cause)
        if not self._gone:
            self.transport.abort()

    def expire(self) -> None:
        """Drop the connection because its deadline has passed."""
        if self._response is None:
            self.abort()
        elif self._final:
            self.fail(errors.FirstTokenTimeout() if self._response.awaits_event else errors.IdleTimeout())
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

    async def round_trip(
        self, response: UpstreamResponse, request: UpstreamRequest, timeouts: Timeouts
    ) -> UpstreamResponse:
        """Send the request, and return the response when its head has arrived."""
        if self._parser is None:
            self._parser = httptools.HttpResponseParser(self)
        self._response = response
        self._request = request
        self._waiter = self.loop.create_future()
        self.received = self._final = self._ended = self._reusable = self._until_eof = False
        self._head_bytes = self._overhead = self._interim = 0
        self._idle_seconds = self._limits.idle_seconds
        response.sent_at = self.loop.time()
        self.deadline = response.sent_at + timeouts.first_byte
        try:
            request.start(self)
            await self._waiter
        except BaseException:
            self.abort()
            raise
        return response

    def pause_writing(self) -> None:
        """Hold the client's body back: the backend reads more slowly than the client sends."""
        if self._request is not None:
            self._request.pause()

    def resume_writing(self) -> None:
        """Let the client's body continue: the backend has caught up."""
        if self._request is not None:
            self._request.resume()

    # One response

    def pause_reading(self) -> None:
        """Stop reading while the client is slow; the idle deadline stops, too."""
        if self._response is not None:
            self.hold()
            self.deadline = inf

    def hold(self) -> None:
        """Stop reading; the idle deadline keeps running."""
        if not self._paused and self.usable():
            self._paused = True
            if self._final and self._response is not None:
                # The head may have come in this very read: what runs until then is the deadline of the first byte.
                self.deadline = self.loop.time() + self._response.idle
            self.reads.pause()

    def resume_reading(self) -> None:
        """Read again."""
        if self._paused and self.usable():
            self._paused = False
            if self._response is not None:
                now = self.loop.time()
                self.deadline = now + self._response.idle
                if self._response.meter is not None:
                    self._response.meter.resumed(now)
            self.reads.resume()

    def data_received(self, data: bytes) -> None:
        """Parse bytes from the backend, and deliver what they hold of the body."""
        if len(data) >= LARGE_BYTES:
            self.reads.rest(self.owner)
        response = self._response
        if response is None or self._parser is None:
            self.abort()  # no request is under way: this could be taken for the next response
            return
        self.received = True
        if self._upgraded:
            response.deliver(data)
            return
        try:
            if self._final:
                self._feed_body(data)
            else:
                self._feed_head(data)
        except httptools.HttpParserUpgrade as exc:
            self._upgrade(response, data[exc.args[0] :])
            return
        except httptools.HttpParserError:
            if not self._ended:
                self._deliver(response)
                self.fail(errors.BadResponse())
                return
            self._reusable = False  # the response is complete, and what follows it is none
        if self._ended and response.bodiless and not data.endswith(b"\r\n\r\n"):
            self._reusable = False
        if self._body:
            self._deliver(response)
        meter = response.meter
        if self._ended:
            if meter is not None and not response.awaits_event:
                meter.arrived(self.loop.time())
            self._finish()
        elif self._final and not self._paused and self._response is not None:
            now = self.loop.time()
            self.deadline = response.end or now + response.idle
            if meter is not None and not response.awaits_event:
                meter.arrived(now)

    def eof_received(self) -> None:
        """Complete a response that ends with its connection (RFC 9112 8); drop the connection otherwise."""
        if self._response is not None and self._until_eof:
            self._finish()
        elif self._upgraded:
            self._at_eof = True
        else:
            self.abort()

    def detach(self) -> bool:
        """Leave the connection to a tunnel; return whether the backend has already closed its side."""
        self._response = self._request = None
        self.deadline = inf
        return self._at_eof

    def _upgrade(self, response: UpstreamResponse, early: bytes) -> None:
        """Hand on a 101 with the bytes behind it; nothing more is read until a tunnel takes the connection over."""
        self._upgraded = True
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
            raise httptools.HttpParserError("too many bytes that are not body")

    def _deliver(self, response: UpstreamResponse) -> None:
        body, self._body = self._body, []
        if body:
            # One write for what came in one read: a flood of tiny chunks costs the client's connection nothing.
            response.deliver(body[0] if len(body) == 1 else b"".join(body))

    def _finish(self) -> None:
        response, self._response = self._response, None
        request, self._request = self._request, None
        if response is None or request is None:
            return  # the connection was aborted while the last bytes were delivered
        sent = request.ended
        request.stop()
        self.deadline = inf
        if response.bodiless:
            self._parser = None  # it waits for a body still
        keep = self._reusable and sent and not self._until_eof and self.usable()
        if keep and self._paused:
            self._paused = False
            self.reads.resume()  # the end of an idle connection must be noticed
        if keep:
            now = self.loop.time()
            self.deadline = min(now + self._idle_seconds, self._retire_at)
            keep = now < self.deadline and self._upstream.keep(self)
        if not keep:
            self.abort()
        response.complete()

    # Callbacks of the parser

    def on_message_begin(self) -> None:
        """Start collecting a head: of an interim response, of the final one, or of one without a request."""
        if self._final:
            self._reusable = False
            raise httptools.HttpParserError("more than one response")
        self._fields = []
        self._reason = b""

    def on_status(self, reason: bytes) -> None:
        """Collect a piece of the reason phrase."""
        self._reason += reason

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field line; drop a trailer, which is a field line after the head (RFC 9110 6.5.1)."""
        if self._final:
            return
        if len(self._fields) >= self._limits.fields:
            raise httptools.HttpParserError("too many fields")
        self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """Check a complete head, and return the final one to the caller that waits for it."""
        parser = cast("httptools.HttpResponseParser", self._parser)
        response = cast("UpstreamResponse", self._response)
        status = parser.get_status_code()
        if 100 <= status < 200:
            if status == 101:
                head = cast("UpstreamRequest", self._request).head
                key = field(head.fields, b"sec-websocket-key") if head.websocket else None
                response.head = check_upgrade(self._reason, parser.get_http_version(), self._fields, key)
                return
            self._interim += 1
            if self._interim > self._limits.interim:
                raise httptools.HttpParserError("too many interim responses")
            return
        response.head, framing = check_response(
            status, self._reason, parser.get_http_version(), self._fields, b"HEAD" if response.bodiless else b"GET"
        )
        self._until_eof = framing is Framing.CLOSE
        self._final = True
        self._head_bytes = 0
        # The parser forgets this after the callback. Of a response to HEAD without framing fields it would say no.
        version = parser.get_http_version()
        self._reusable = _persists(version, self._fields) if response.bodiless else parser.should_keep_alive()
        self._idle_seconds = min(self._idle_seconds, self._keep_alive_hint())
        if response.bodiless:
            self._ended = True
        self._wake()

    def _wake(self) -> None:
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def on_body(self, data: bytes) -> None:
        """Collect a piece of the body."""
        if self._ended:
            self._reusable = False  # a body after the response to HEAD
        else:
            self._body.append(data)

    def on_message_complete(self) -> None:
        """Note the end of the final response; an interim one ends here, too."""
        if self._final:
            self._ended = True

    def _keep_alive_hint(self) -> float:
        for name, value in self._fields:
            if name == b"keep-alive":
                for part in value.lower().split(b","):
                    key, _, seconds = part.strip().partition(b"=")
                    if key == b"timeout" and seconds.isdigit() and len(seconds) < 9:
                        return int(seconds) - 1.0  # the backend has begun to count earlier
        return inf


def _persists(version: str, fields: Sequence[tuple[bytes, bytes]]) -> bool:
    """Return whether the connection stays open after a response with these fields (RFC 9112 9.3), its body aside."""
    options = [value.lower() for name, value in fields if name == b"connection"]
    return version == "1.1" and not any(part.strip() == b"close" for value in options for part in value.split(b","))
