"""One request of a client and the answer to it: `Exchange` as `edge.py` gives it to the story in `proxy.py`.

The body arrives by callbacks from the connection's parser and goes to whoever takes it; until somebody does, a bounded
part of it waits. The answer's framing is decided here (RFC 9112 6), whatever the server's was.
"""

from typing import TYPE_CHECKING, Final, Protocol

import structlog

from gateway import errors
from gateway.http import messages
from gateway.http.exchange import BodySink, BodySource, Switched
from gateway.http.messages import Fields, RequestHead, ResponseHead

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

BUFFER_BYTES: Final = 65536
"""Of a request's body while nobody takes it."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

log = structlog.get_logger(__name__)


class Connection(Protocol):
    """What an exchange needs of its connection."""

    peer: str
    tls: bool
    full: bool
    """Whether more waits to be written than the client should have waiting."""

    @property
    def leaving(self) -> bool:
        """Whether answers ask the client to close."""
        ...

    def date(self) -> bytes:
        """The time for a Date field."""
        ...

    def future(self) -> "asyncio.Future[None]":
        """A future of the connection's loop."""
        ...

    @property
    def send(self) -> "Callable[[bytes], None]":
        """Writes to the client."""
        ...

    def hold_reading(self) -> None:
        """Read no more of the body for now."""
        ...

    def go_on_reading(self) -> None:
        """Read again."""
        ...

    def response_ended(self, exchange: "ClientExchange") -> None:
        """The answer is complete."""
        ...

    async def join(self, server: Switched) -> str | None:
        """Pass bytes both ways until both sides have ended; return why the tunnel was cut or broke."""
        ...

    def abort(self) -> None:
        """Drop the connection."""
        ...

    def reset(self) -> None:
        """Drop the connection so that the client cannot take it for an end."""
        ...

    def cut(self) -> None:
        """Close the connection behind what was written: there will be no end of the answer."""
        ...


class ClientExchange:
    """One request on a connection (`exchange.Exchange`)."""

    __slots__ = (
        "_chunked", "_connection", "_continue", "_discard", "_failure", "_keep", "_left", "_limit", "_pieces", "_sink",
        "_tail", "_waiter", "bodiless", "complete", "finished", "head", "held", "intact", "interrupted", "keep_alive",
        "paused", "peer", "responded", "size", "source", "task", "tls",
    )  # fmt: skip

    def __init__(self, connection: Connection, head: RequestHead, *, keep_alive: bool, expects: bool) -> None:
        self.head = head
        self.peer = connection.peer
        self.tls = connection.tls
        self.responded = False
        self.finished = False
        """Whether the answer is complete or has been broken off."""
        self.complete = not head.has_body
        """Whether the whole request is here."""
        self.size = 0
        """Bytes of the body so far."""
        self.interrupted: errors.GatewayError | None = None
        """Why the story was told to come to its end."""
        self.intact = True
        """Whether all of them can still be had."""
        self.keep_alive = keep_alive
        self.paused = False
        """Whether the body's taker holds it back."""
        self.held = False
        """Whether the body waits because nobody takes it yet."""
        self.source: BodySource | None = None
        self.task: asyncio.Task[None] | None = None
        self.bodiless = False
        """Whether the answer has no body, whatever its head says."""
        self._connection = connection
        self._continue = expects
        self._pieces: list[bytes] = []
        self._sink: BodySink | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._limit = 0
        self._keep = 0
        """Bytes of the body that are kept while it goes by."""
        self._discard = False
        self._failure: Exception | None = None
        self._chunked = False
        self._left: int | None = None
        """Bytes of the answer's body that are still to come; None where that is not known."""
        self._tail = b""
        """The last four bytes of an answer in chunks: where an event stream stands."""

    # The request's body

    async def read_body(self, limit: int) -> bytes:
        """The whole request body. It can be pumped or read again afterwards.

        Raises:
            errors.BodyTooLarge: it is longer than `limit` bytes.
            errors.BodyTimeout: no byte of it came for the body deadline.
            errors.MalformedRequest: its framing is broken.
        """
        if (self.head.content_length or 0) > limit or self.size > limit:
            raise errors.BodyTooLarge
        if not self.complete and self._failure is None:
            self._limit = limit
            self._waiter = self._connection.future()
            self._wanted()
            try:
                await self._waiter
            finally:
                self._waiter = None
        if self._failure is not None:
            raise self._failure
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""

    def pump_body(self, sink: BodySink, limit: int, keep: int = 0) -> None:
        """Deliver the request body into `sink`: first what is here, then what arrives. Keep it, up to `keep` bytes."""
        if self._failure is None and ((self.head.content_length or 0) > limit or self.size > limit):
            self._failure = errors.BodyTooLarge()
        if self._failure is not None:
            sink.fail(self._failure)
            return
        if self.complete:
            for piece in self._pieces:
                sink.write(piece)
            sink.end()
            return
        self._limit = limit
        self._keep = keep
        self._sink = sink
        pieces = self._pieces
        if (self.head.content_length or self.size) > keep:
            self._let_go()
        for piece in pieces:
            sink.write(piece)  # which may pause us
        self._wanted()

    def stop_body(self) -> None:
        """Forget the sink. What still arrives is held where all of it was kept, else dropped."""
        if self._sink is not None:
            self._sink = None
            self._discard = not self.intact

    def _let_go(self) -> None:
        """Keep no more of the body."""
        self.intact = False
        self._pieces = []

    def pause(self) -> None:
        """Hold the request's body back."""
        if not self.paused and not self.complete:
            self.paused = True
            self._connection.hold_reading()

    def resume(self) -> None:
        """Let the request's body go on."""
        if self.paused:
            self.paused = False
            if not self.held:
                self._connection.go_on_reading()

    def _wanted(self) -> None:
        if self._continue:
            self._continue = False
            if not self.size and not self.responded:
                self._connection.send(_CONTINUE)
        if self.held:
            self.held = False
            if not self.paused:
                self._connection.go_on_reading()

    def receive(self, data: bytes) -> None:
        """A piece of the body has arrived."""
        self.size += len(data)
        if self._discard:
            return
        if self._sink is not None:
            if self.size > self._limit:
                self.break_body(errors.BodyTooLarge())
                return
            if self.intact:
                self._pieces.append(data)
                if self.size > self._keep:
                    self._let_go()
            self._sink.write(data)
            return
        self._pieces.append(data)
        if self._waiter is not None:
            if self.size > self._limit:
                self.break_body(errors.BodyTooLarge())
        elif self.size >= BUFFER_BYTES and not self.held:
            self.held = True
            self._connection.hold_reading()

    def complete_body(self) -> None:
        """The whole body is here."""
        self.complete = True
        if self.held:
            self.held = False
            self._connection.go_on_reading()
        sink, self._sink = self._sink, None
        if sink is not None:
            self._discard = not self.intact  # it went by, and cannot be had again
            sink.end()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def break_body(self, cause: Exception) -> None:
        """The body will never be complete. Whoever takes it learns why, now or when it asks."""
        if self._failure is not None:
            return
        self._failure = cause
        self._discard = True
        self._pieces = []
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.fail(cause)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(cause)

    # The answer

    def respond(self, head: ResponseHead, *, close: bool = False) -> None:
        """Send the final answer's head. The connection closes after an answer that does not wait for the whole request.

        Raises:
            errors.BadResponse: a part would break the head apart; nothing has been sent.
        """
        self._connection.send(self._wire(head, close))
        self._let_go()  # nobody asks for it any more, and the answer may take long

    def reply(self, head: ResponseHead, body: bytes, *, close: bool = False) -> None:
        """Send a whole answer: one write instead of three.

        Raises:
            errors.BadResponse: a part would break the head apart; nothing has been sent.
        """
        if head.content_length is None:
            head = head._replace(content_length=len(body))
        wire = self._wire(head, close)
        self.finished = True
        self._connection.send(wire if self.bodiless else wire + body)
        self._connection.response_ended(self)

    def _wire(self, head: ResponseHead, close: bool) -> bytes:
        request = self.head
        connection = self._connection
        if close or not self.complete or connection.leaving or not request.http_minor:
            self.keep_alive = False
        self.bodiless = request.method == b"HEAD" or head.status in (204, 304)
        if not self.bodiless:
            self._left = head.content_length
            self._chunked = head.content_length is None and request.http_minor == 1
        wire = messages.response_head(
            head, request.method, request.http_minor, close=not self.keep_alive, date=connection.date()
        )
        self.responded = True
        return wire

    def write(self, data: bytes) -> None:
        """Send a piece of the answer's body."""
        if not data or self.bodiless or self.finished:
            return
        if self._left is not None:
            self._left -= len(data)
        elif self._chunked:
            self._tail = data[-4:] if len(data) > 3 else (self._tail + data)[-4:]
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.send(data)

    def end(self) -> None:
        """The answer is complete. One that is shorter or longer than its head said is broken off."""
        if self.finished:
            return
        if self._left:
            self.fail(errors.BadResponse())
            return
        if self._chunked:
            self._connection.send(b"0\r\n\r\n")
        self.finished = True
        self._connection.response_ended(self)

    async def tunnel(self, fields: Fields, server: Switched) -> str | None:
        """Answer with 101 and pass bytes both ways until both sides have ended; return why the tunnel broke.

        Raises:
            errors.BadResponse: a part would break the head apart; nothing has been sent.
        """
        wire = messages.switch_head(fields, self._connection.date())
        self.responded = True
        self._connection.send(wire)
        try:
            return await self._connection.join(server)
        finally:
            self.finished = True

    def fail(self, cause: Exception) -> None:
        """Break the answer off: abort the connection."""
        del cause  # the client is told nothing that could pass for an end
        self.finished = True
        if self.responded and not self._chunked and self._left is None and not self.bodiless:
            self._connection.reset()  # the end of the connection is that of the answer
        else:
            self._connection.abort()

    def cut(self, body: bytes) -> None:
        """Break an event stream off with a last event; without chunks its end would pass for a good one."""
        if self.finished:
            return
        if not self._chunked:
            self.fail(errors.UpstreamReset())
            return
        self.write(errors.last_event(self._tail, body))
        self.finished = True
        self._connection.cut()

    def attach(self, source: BodySource | None) -> None:
        """The source of the answer's body, to be paused while the client does not read."""
        self.source = source
        if source is not None and self._connection.full:
            source.pause()

    def interrupt(self, cause: errors.GatewayError) -> None:
        """Have the story come to its end now, and tell the client why."""
        if self.task is not None and self.interrupted is None:
            self.interrupted = cause
            self.task.cancel()

    def told(self, task: "asyncio.Task[None]") -> None:
        """The story has ended. One that left its client without an answer breaks the connection."""
        self.task = None
        if not task.cancelled() and (cause := task.exception()) is not None:
            log.error("request_failed", exc_info=cause)
        if not self.finished:
            self.fail(errors.GatewayError())
