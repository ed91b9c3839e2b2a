"""One request of a client and the response to it, over the client's connection.

The connection delivers the request's body, which goes to a sink or a reader; while there is none, a bounded part of it
waits. What is held of a body beyond that has its place in the memory budget (`downstream/budget.py`). The framing of
the response is decided here (RFC 9112 6), whatever the backend's was.
"""

from typing import TYPE_CHECKING, Final, Protocol

import structlog

from gateway import errors
from gateway.downstream.budget import FREE_BYTES, STEP_BYTES, MemoryBudget
from gateway.http import messages
from gateway.http.exchange import BodySink, BodySource, UpgradedConnection
from gateway.http.messages import Fields, RequestHead, ResponseHead

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

BUFFER_BYTES: Final = 65536
"""Bytes of a request's body that wait in memory while there is neither sink nor reader."""

GRADUAL_BYTES: Final = 65536
"""Bytes that a sink gets in one turn of the loop where it looks through them."""

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"

log = structlog.get_logger(__name__)


class Connection(Protocol):
    """Connection of a client, as an exchange needs it."""

    peer: str
    tls: bool
    full: bool
    """Whether more waits to be written than the high-water mark allows."""
    budget: MemoryBudget
    """Budget for what is held of requests."""
    owner: str
    """Owner in that budget of what is held of a request whose route is not known."""

    @property
    def leaving(self) -> bool:
        """Whether responses ask the client to close."""
        ...

    def date(self) -> bytes:
        """Return the time for a Date field."""
        ...

    def future(self) -> "asyncio.Future[None]":
        """Return a future of the connection's loop."""
        ...

    @property
    def send(self) -> "Callable[[bytes], None]":
        """Function that writes bytes to the client."""
        ...

    def soon(self, callback: "Callable[[], None]") -> None:
        """Call a function in the next turn of the loop."""
        ...

    def pause_reading(self) -> None:
        """Stop reading the request's body."""
        ...

    def resume_reading(self) -> None:
        """Read again."""
        ...

    def response_ended(self, exchange: "ClientExchange") -> None:
        """Go on to the next request, or close the connection: the response is complete."""
        ...

    async def join(self, upstream: UpgradedConnection) -> str | None:
        """Pass bytes in both directions until both sides have closed; return the cause where the tunnel broke."""
        ...

    def abort(self) -> None:
        """Drop the connection."""
        ...

    def reset(self) -> None:
        """Drop the connection so that the client cannot take it for the end of the response."""
        ...

    def cut(self) -> None:
        """Close the connection behind what was written, without the end of the response."""
        ...


class ClientExchange:
    """One request on a connection, as an `Exchange`."""

    __slots__ = (
        "_chunked", "_connection", "_continue", "_discard", "_failure", "_keep", "_left", "_limit", "_next", "_pieces",
        "_pushing", "_reserved", "_reserver", "_sink", "_tail", "_waiter", "bodiless", "complete", "finished", "head",
        "held", "intact", "interrupted", "keep_alive", "owner", "paused", "peer", "responded", "size", "slowed",
        "source", "task", "tls",
    )  # fmt: skip

    def __init__(self, connection: Connection, head: RequestHead, *, keep_alive: bool, expects: bool) -> None:
        self.head = head
        self.peer = connection.peer
        self.tls = connection.tls
        self.responded = False
        self.finished = False
        """Whether the response is complete or has been broken off."""
        self.complete = not head.has_body
        """Whether the whole request has arrived."""
        self.size = 0
        """Bytes of the request's body that have arrived."""
        self.interrupted: errors.GatewayError | None = None
        """Error for the client where the task was cancelled by `interrupt`."""
        self.intact = True
        """Whether all that has arrived of the request's body can be read or pumped again."""
        self.keep_alive = keep_alive
        """Whether the connection takes another request after the response."""
        self.paused = False
        """Whether the sink holds the request's body back."""
        self.held = False
        """Whether reading is paused because there is neither sink nor reader."""
        self.slowed = False
        """Whether reading is paused until the sink has looked through what is in memory."""
        self.source: BodySource | None = None
        """Source of the response's body."""
        self.task: asyncio.Task[None] | None = None
        """Task that responds to the request."""
        self.bodiless = False
        """Whether the response has no body, whatever its head says."""
        self.owner = connection.owner
        """Route of the request, to whose share of the memory budget it counts; while it is not known, the address of
        its client."""
        self._connection = connection
        self._continue = expects
        """Whether the client waits for 100 Continue before it sends the body."""
        self._pieces: list[bytes] = []
        """What is held of the request's body."""
        self._next = 0
        """Index of the piece that the sink gets next."""
        self._pushing = False
        """Whether pieces are being given to the sink."""
        self._reserved = 0
        """Bytes that are reserved in the memory budget."""
        self._reserver = ""
        """Owner for whom they are reserved."""
        self._sink: BodySink | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._limit = 0
        self._keep = 0
        """Bytes of the request's body that stay in memory after they were pumped."""
        self._discard = False
        """Whether what still arrives of the request's body is dropped."""
        self._failure: Exception | None = None
        """Cause of a request body that will never be complete."""
        self._chunked = False
        self._left: int | None = None
        """Bytes of the response's body that have not been sent; None where their number is unknown."""
        self._tail = b""
        """The last four bytes of a response of unknown length: they tell whether an event of a stream is complete."""

    # The request's body

    async def read_body(self, limit: int) -> bytes:
        """Return the whole request body in one piece. It can be pumped or read again afterwards.

        Raises:
            errors.GatewayError: As `read_next` does.
        """
        index = 0
        while not self.complete and await self.read_next(index, limit) is not None:
            index += 1
        if self._failure is not None:
            raise self._failure
        if self.size > limit:
            raise errors.BodyTooLarge
        return self._joined()

    def whole_body(self) -> bytes | None:
        """Return the whole request body where it is in memory already, else None."""
        if not self.complete or not self.intact or self._failure is not None:
            return None
        return self._joined()

    def replace_body(self, content: bytes) -> None:
        """Put other bytes in the place of the request's body, all of which is in memory."""
        self._pieces = [content]
        self.size = len(content)
        if self.head.content_length is not None:
            self.head = self.head._replace(content_length=len(content))

    def _joined(self) -> bytes:
        """Return what is in memory of the request body, and keep it as one piece."""
        if len(self._pieces) > 1:
            self._pieces = [b"".join(self._pieces)]
        return self._pieces[0] if self._pieces else b""

    async def read_next(self, index: int, limit: int) -> bytes | None:
        """Return a piece of the request body, once it has arrived; None behind the last one.

        All pieces stay in memory, so that they can be pumped or read again afterwards. Between two calls no more is
        read than a connection buffers.

        Args:
            index: Number of the piece, which follows those that were read before.
            limit: Bytes that the whole body may have.

        Raises:
            errors.BodyTooLarge: The body has more bytes, or more than can ever be held.
            errors.BodyTimeout: The body did not arrive before its deadline.
            errors.MalformedRequest: The framing of the body is broken.
            errors.Overloaded: There is no memory left for the body.
        """
        length = self.head.content_length
        while True:
            if self._failure is not None:
                raise self._failure
            if self.size > limit or (length is not None and length > limit):
                raise errors.BodyTooLarge
            if index < len(self._pieces):
                return self._pieces[index]
            if self.complete:
                return None
            if self.size >= FREE_BYTES and self.size >= self._reserved:
                await self._reserve()
                continue
            self._waiter = self._connection.future()
            self._begin_body()
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def _reserve(self) -> None:
        """Reserve memory for the rest of the body, or for more of it where its size is not known."""
        length = self.head.content_length
        size = STEP_BYTES if length is None else length - self._reserved
        if self._reserved:
            self.charge(size)
            return
        owner = self.owner
        await self._connection.budget.reserve(owner, size)
        self._reserved, self._reserver = size, owner

    def charge(self, size: int) -> None:
        """Reserve memory for what has been made of the body, such as the decoded one.

        Raises:
            errors.Overloaded: There is no room for it.
        """
        if not self._grow(size):
            raise errors.Overloaded(retry_after=1)

    def _grow(self, size: int) -> bool:
        """Reserve more memory, and return whether there was room."""
        owner = self._reserver if self._reserved else self.owner
        if not self._connection.budget.take(owner, size):
            return False
        self._reserved += size
        self._reserver = owner
        return True

    def _give_back(self) -> None:
        if self._reserved:
            self._connection.budget.give_back(self._reserver, self._reserved)
            self._reserved = 0

    def pump_body(self, sink: BodySink, limit: int, keep: int = 0) -> None:
        """Deliver the request body into `sink`: first the bytes in memory, then those that arrive.

        The body stays intact while it has no more than `keep` bytes and there is room for them, and where it was
        complete before.
        """
        length = self.head.content_length
        if self._failure is None and ((length or 0) > limit or self.size > limit):
            self._failure = errors.BodyTooLarge()
        if self._failure is not None:
            sink.fail(self._failure)
            return
        if self.complete and len(self._pieces) < 2:
            for piece in self._pieces:
                sink.write(piece)
            sink.end()
            return
        self._limit = limit
        self._keep = keep
        self._sink = sink
        self._next = 0
        if not self.complete:
            size = length or self.size
            missing = size - self._reserved if size > FREE_BYTES else 0
            if size > keep or (missing > 0 and not self._grow(missing)):
                self.intact = False
        self._push()
        if self._sink is not None:
            self._begin_body()

    def _push(self) -> None:
        """Give what is in memory to the sink, as far as it takes it, and the end behind it."""
        if self._pushing or self.slowed:
            return
        self._pushing = True
        while self._sink is not None and self._next < len(self._pieces) and not self.paused:
            piece = self._pieces[self._next]
            if len(piece) > GRADUAL_BYTES and self._sink.gradual:
                self._pieces[self._next : self._next + 1] = _slices(piece)
                piece = self._pieces[self._next]
            if not self.intact:
                self._pieces[self._next] = b""
            self._next += 1
            self._sink.write(piece)
            if self._next < len(self._pieces) and self._is_gradual():
                self._slow()
                break
        self._pushing = False
        sink = self._sink
        if sink is None or self._next < len(self._pieces):
            return
        if not self.intact:
            self._pieces = []
            self._next = 0
            if self.responded:
                self._give_back()
        if self.complete:
            self._sink = None
            self._discard = not self.intact  # it was pumped, and cannot be pumped again
            sink.end()

    def _is_gradual(self) -> bool:
        """Return whether there is a sink still, and it looks through what it gets."""
        return self._sink is not None and self._sink.gradual

    def _slow(self) -> None:
        """Leave the rest of what is in memory to the next turn of the loop, and read nothing until then."""
        self.slowed = True
        if not self.complete:
            self._connection.pause_reading()
        self._connection.soon(self._go_on)

    def _go_on(self) -> None:
        self.slowed = False
        self._push()
        # Once this exchange is finished, reading is the business of the next request.
        if not (self.finished or self.slowed or self.paused or self.held):
            self._connection.resume_reading()

    def stop_body(self) -> None:
        """Detach the sink. What still arrives is held where the body is intact, else dropped."""
        if self._sink is not None:
            self._sink = None
            if not self.intact:
                self._discard = True
                self._pieces = []

    def release_body(self) -> None:
        """Free the memory of the request's body that no sink still waits for."""
        self.intact = False
        if self._sink is None:
            self._pieces = []
            self._next = 0
            self._give_back()
        elif self._next:
            del self._pieces[: self._next]
            self._next = 0

    def pause(self) -> None:
        """Stop reading the request's body."""
        if self.paused or (self.complete and self._next >= len(self._pieces)):
            return
        self.paused = True
        if not self.complete:
            self._connection.pause_reading()

    def resume(self) -> None:
        """Read the request's body again."""
        if self.paused:
            self.paused = False
            self._push()
            if not (self.paused or self.held or self.slowed):
                self._connection.resume_reading()

    def _begin_body(self) -> None:
        if self._continue:
            self._continue = False
            if not self.size and not self.responded:
                self._connection.send(_CONTINUE)
        if self.held:
            self.held = False
            if not (self.paused or self.slowed):
                self._connection.resume_reading()

    def receive(self, data: bytes) -> None:
        """Take a piece of the request's body from the connection."""
        self.size += len(data)
        if self._discard:
            return
        if self._sink is not None:
            if self.size > self._limit:
                self.break_body(errors.BodyTooLarge())
                return
            if self.intact and (self.size > self._keep or not self._has_room()):
                self.release_body()
            if self.intact or self._next < len(self._pieces) or self._sink.gradual:
                self._pieces.append(data)
                self._push()
            else:
                self._sink.write(data)
            return
        self._pieces.append(data)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
        elif self.size >= BUFFER_BYTES and not self.held:
            self.held = True
            self._connection.pause_reading()

    def _has_room(self) -> bool:
        """Return whether what has arrived of the body may be held, and reserve more memory for it if need be."""
        return self.size <= FREE_BYTES or self.size <= self._reserved or self._grow(STEP_BYTES)

    def complete_body(self) -> None:
        """Take the end of the request's body."""
        self.complete = True
        if self.held:
            self.held = False
            self._connection.resume_reading()
        if self._sink is not None:
            self._push()
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def break_body(self, cause: Exception) -> None:
        """Pass `cause` to the sink or the reader, now or when there is one: the body will never be complete."""
        if self._failure is not None:
            return
        self._failure = cause
        self._discard = True
        self._pieces = []
        self._next = 0
        sink, self._sink = self._sink, None
        if sink is not None:
            sink.fail(cause)
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(cause)

    # The response

    def respond(self, head: ResponseHead, *, close: bool = False) -> None:
        """Send the head of the final response. Where the request is not complete yet, the connection closes after it.

        Raises:
            errors.BadResponse: The head is malformed; nothing has been sent.
        """
        self._connection.send(self._wire(head, close))
        self.release_body()  # it is not needed any more, and the response may take long

    def begin(self, head: ResponseHead) -> None:
        """Send the head of the final response, and keep the request's body until `release_body`.

        Raises:
            errors.BadResponse: The head is malformed; nothing has been sent.
        """
        self._connection.send(self._wire(head, close=False))

    def reply(self, head: ResponseHead, body: bytes, *, close: bool = False) -> None:
        """Send a whole response, with one write instead of three.

        Raises:
            errors.BadResponse: The head is malformed; nothing has been sent.
        """
        if head.content_length is None and self.head.method != b"HEAD":
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
        """Send a piece of the response's body."""
        if not data or self.bodiless or self.finished:
            return
        if self._left is not None:
            self._left -= len(data)
        else:
            self._tail = data[-4:] if len(data) > 3 else (self._tail + data)[-4:]
            if self._chunked:
                data = b"%x\r\n%b\r\n" % (len(data), data)
        self._connection.send(data)

    def comment(self, data: bytes, *, after_line: bool = False) -> bool:
        """Send a comment of an event stream where it fits between two events; return whether it does.

        It does not in the middle of an event, nor while the client does not read. Where nothing but comments has been
        sent, it fits behind any line (`after_line`).
        """
        if self.finished or self.bodiless or self._left is not None or self._connection.full:
            return False
        if not (errors.is_whole(self._tail) or (after_line and self._tail.endswith((b"\n", b"\r")))):
            return False
        self.write(data)
        return True

    def end(self) -> None:
        """Complete the response; break it off where its body has not the length that its head announced."""
        if self.finished:
            return
        if self._left:
            self.fail(errors.BadResponse())
            return
        if self._chunked:
            self._connection.send(b"0\r\n\r\n")
        self.finished = True
        self._connection.response_ended(self)

    def end_with(self, body: bytes) -> None:
        """Complete an event stream with a last event that holds `body`."""
        if not self.finished:
            self.write(errors.last_event(self._tail, body, named=errors.is_anthropic(self.head.target)))
            self.end()

    async def tunnel(self, fields: Fields, upstream: UpgradedConnection) -> str | None:
        """Send 101, and pass bytes in both directions until both sides have closed; return the cause where it broke.

        Raises:
            errors.BadResponse: The head is malformed; nothing has been sent.
        """
        wire = messages.upgrade_head(fields, self._connection.date())
        self.responded = True
        self._connection.send(wire)
        try:
            return await self._connection.join(upstream)
        finally:
            self.finished = True

    def fail(self, cause: Exception) -> None:
        """Abort the connection, so that the client cannot take the response for complete."""
        del cause  # nothing is sent that could be taken for an end
        self.finished = True
        if self.responded and not self._chunked and self._left is None and not self.bodiless:
            self._connection.reset()  # FIN is the end of such a response
        else:
            self._connection.abort()

    def cut(self, body: bytes) -> None:
        """End an event stream with a last event; without chunks, whose end is missing then, abort the connection."""
        if self.finished:
            return
        if not self._chunked:
            self.fail(errors.UpstreamReset())
            return
        self.write(errors.last_event(self._tail, body, named=errors.is_anthropic(self.head.target)))
        self.finished = True
        self._connection.cut()

    def attach(self, source: BodySource | None) -> None:
        """Set the source of the response's body, which is paused while the client does not read."""
        self.source = source
        if source is not None and self._connection.full:
            source.pause()

    def interrupt(self, cause: errors.GatewayError) -> None:
        """Cancel the task, and have it tell the client `cause`."""
        if self.task is not None and self.interrupted is None:
            self.interrupted = cause
            self.task.cancel()

    def task_done(self, task: "asyncio.Task[None]") -> None:
        """Abort the connection where the task has ended without a complete response."""
        self.task = None
        self._give_back()
        if not task.cancelled() and (cause := task.exception()) is not None:
            log.error("request_failed", exc_info=cause)
        if not self.finished:
            self.fail(errors.GatewayError())


def _slices(piece: bytes) -> list[bytes]:
    """Return a piece in parts of which a sink takes one in a turn of the loop where it looks through them."""
    return [piece[start : start + GRADUAL_BYTES] for start in range(0, len(piece), GRADUAL_BYTES)]
