"""Responses of backends, from the head on: the body is relayed to a client, read whole, or looked at first."""

import asyncio
from typing import TYPE_CHECKING, Protocol, cast

from gateway import errors
from gateway.http.event_stream import EVENT_BYTES, FirstEvent, MarkFilter, is_readable
from gateway.http.exchange import Exchange, ResponseHead, TunnelSide, UpgradedConnection
from gateway.upstream.meter import ResponseMeter
from gateway.upstream.origin import Timeouts

if TYPE_CHECKING:
    from gateway.http.usage_filter import UsageFilter


class ResponseConnection(TunnelSide, Protocol):
    """Connection to a backend, as a response needs it."""

    loop: asyncio.AbstractEventLoop
    buffer_bytes: int
    """Bytes of a body that wait in memory before the connection is no longer read."""
    deadline: float
    """Time of the loop's clock at which the response is given up, unless more of it arrives."""

    def abort(self) -> None:
        """Drop the connection, and the response on it where that is not complete."""
        ...

    def hold(self) -> None:
        """Stop reading; the idle deadline keeps running."""
        ...

    def pause_reading(self) -> None:
        """Stop reading while the client is slow; the idle deadline stops, too."""
        ...

    def resume_reading(self) -> None:
        """Read again."""
        ...

    def detach(self) -> bool:
        """Leave the connection to a tunnel; return whether the backend has already ended it."""
        ...


class EventObserver(Protocol):
    """Observer of an event stream that a client gets."""

    def first_event_arrived(self) -> None:
        """Take note that the first event of the stream is here."""
        ...


class UpstreamResponse:
    """One response of a backend, from its head on (a `http.exchange.BodySource`)."""

    __slots__ = ("_bytes", "_complete", "_connection", "_done", "_error", "_event", "_exchange", "_first_token",
                 "_held", "_later_idle", "_observer", "_pieces", "_room", "_waits", "bodiless", "end", "filter", "head",
                 "heard_at", "idle", "meter", "readable", "sent_at")  # fmt: skip

    def __init__(self, connection: ResponseConnection, bodiless: bool, timeouts: Timeouts) -> None:
        self.bodiless = bodiless
        """Whether the request was HEAD: the response has no body, whatever its framing fields say."""
        self.idle = timeouts.idle
        """Seconds that may pass between two reads of the body."""
        self.end = 0.0
        """Time of the loop's clock at which the wait for the first event ends, whatever arrives; 0 without one."""
        self.sent_at = 0.0
        """Time of the loop's clock at which the request was sent."""
        self.heard_at = 0.0
        """Time of the loop's clock at which something of an event stream arrived last, up to its first event."""
        self.head: ResponseHead
        self.readable = False
        """Whether this is an event stream whose events the gateway can read."""
        self.meter: ResponseMeter | None = None
        """Meter of the body, of an event stream and where `measure` was called."""
        self.filter: UsageFilter | MarkFilter | None = None
        """Filter of what the client gets of the body; None where it gets all of it."""
        self._first_token = timeouts.first_token
        self._later_idle = timeouts.idle
        self._event: FirstEvent | None = None
        """Search for the first event, while there was none."""
        self._observer: EventObserver | None = None
        self._waits = False
        """Whether `first_event` waits."""
        self._connection: ResponseConnection | None = connection
        self._exchange: Exchange | None = None
        self._pieces: list[bytes] = []
        self._bytes = 0
        self._room = connection.buffer_bytes
        self._held = False
        self._complete = False
        self._error: Exception | None = None
        self._done: asyncio.Future[None] | None = None

    def expect_event(self, observer: EventObserver | None) -> None:
        """Take the response for an event stream, which may be silent for longer before its first event than later.

        It may be silent for `Timeouts.first_token`, counted from the request at first and from each comment after it.
        `observer` is told about the first event.
        """
        self.readable = is_readable(self.head)
        self._observer = observer
        self._event = FirstEvent(readable=self.readable)
        self.meter = ResponseMeter(keeps=self.readable)
        for piece in self._pieces:
            self.meter.keep(piece)
            self._look(piece)
        if self.awaits_event and self._connection is not None:
            self.idle = self._first_token
            self._connection.deadline = self.sent_at + self._first_token

    def measure(self) -> ResponseMeter:
        """Look for the tokens in a body whose events are not looked at, of which the beginning has arrived at most."""
        self.meter = meter = ResponseMeter(keeps=True)
        for piece in self._pieces:
            meter.keep(piece)
        return meter

    async def first_event(self) -> bytes:
        """Wait for the first event of an event stream, which `expect_event` has begun to look for; return its lines.

        What arrived until then stays to be relayed, but for comments where they are many. The lines are empty where the
        event cannot be looked at, or the stream ended without one.

        Raises:
            errors.UpstreamError: The body broke off, or the event did not arrive in time.
        """
        event = cast("FirstEvent", self._event)
        if self.awaits_event and self._error is None and not self._complete:
            connection = cast("ResponseConnection", self._connection)
            self._waits = True
            self._done = connection.loop.create_future()
            self._drop_comments(event)
            if self._held:
                self._held = False
                self.resume()
            self.end = connection.deadline = self.sent_at + self._first_token
            try:
                await self._done
            finally:
                self._waits = False
                self._done = None
        if self._error is not None:
            raise self._error
        return event.event

    @property
    def awaits_event(self) -> bool:
        """Whether this is an event stream that has had no event yet."""
        return self._event is not None and not self._event.found

    @property
    def has_only_comments(self) -> bool:
        """Whether whole lines with comments are all that has arrived of an event stream."""
        return self._event is not None and not self._event.found and not self._event.unfinished

    def follow_comments(self) -> None:
        """Take note that the client gets comments before anything of this event stream."""
        self.filter = MarkFilter(cast("UsageFilter | None", self.filter))

    def _drop_comments(self, event: FirstEvent) -> None:
        """Forget what has arrived, but for what may become the first event, where there is much of it."""
        if self._bytes >= EVENT_BYTES:
            self._pieces = [event.unfinished]
            self._bytes = len(self._pieces[0])

    def _look(self, data: bytes) -> None:
        """Look for the first event in the next piece of an event stream."""
        event = cast("FirstEvent", self._event)
        if event.found or not event.add(data):
            return
        self.idle = self._later_idle
        self.end = 0.0
        observer, self._observer = self._observer, None
        if observer is not None:
            observer.first_event_arrived()

    async def relay(self, exchange: Exchange) -> None:
        """Send the body to `exchange` as it arrives, end the exchange, and return.

        The head must have been sent before.

        Raises:
            errors.UpstreamError: The body broke off; the exchange has not been ended.
        """
        if self._complete or self._error is not None:
            data = self._taken(last=True)
            if data:
                exchange.write(data)
            if self._error is not None:
                raise self._error
            exchange.end()
            return
        connection = cast("ResponseConnection", self._connection)
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

    def upgraded(self) -> UpgradedConnection:
        """Return the connection after a 101. It belongs to the caller, who can take it once.

        Raises:
            errors.UpstreamError: The connection broke after the 101.
        """
        if self._connection is None:
            raise self._error or errors.UpstreamReset()
        connection, self._connection = self._connection, None
        return UpgradedConnection(connection, self._take_pieces(), connection.detach())

    def whole(self) -> bytes | None:
        """Return the body where all of it has arrived, else None. A second call returns no bytes."""
        return self._taken(last=True) if self._complete and self._error is None else None

    async def read(self, limit: int) -> bytes:
        """Return the whole body, but no more than `limit` bytes of it: a connection with a longer one is dropped.

        Raises:
            errors.UpstreamError: The body broke off.
        """
        self._room = limit
        if self._error is None and not self._complete and self._bytes < limit:
            connection = cast("ResponseConnection", self._connection)
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
        return self._take_pieces()[:limit]

    def abort(self) -> None:
        """Drop the response and its connection; without effect on a complete response."""
        if self._connection is not None:
            self._connection.abort()

    def pause(self) -> None:
        """Stop reading the body from the backend."""
        if self._connection is not None:
            self._connection.pause_reading()

    def resume(self) -> None:
        """Read the body again."""
        if self._connection is not None:
            self._connection.resume_reading()

    def deliver(self, data: bytes) -> None:
        """Take a piece of the body from the connection."""
        event = self._event
        if event is not None and not event.found:
            self._look(data)
            if self._connection is not None:
                self.heard_at = self._connection.loop.time()
        meter = self.meter
        if meter is not None:
            meter.keep(data)
        if self._exchange is not None:
            if self.filter is not None:
                data = self.filter.add(data)
            self._exchange.write(data)
            return
        self._pieces.append(data)
        self._bytes += len(data)
        if self._waits and event is not None:
            if event.found:
                self._wake()
            else:
                self._drop_comments(event)
        elif self._bytes >= self._room:
            if self._done is not None:
                self._wake()  # `read` has as much as it may return
            elif not self._held:
                self._held = True
                # Not the client's doing: a response that is never taken ends by its idle deadline.
                cast("ResponseConnection", self._connection).hold()

    def complete(self) -> None:
        """Take the end of the body; the connection is not this response's any more."""
        self._complete = True
        self._connection = None
        if self._exchange is not None:
            if self.filter is not None:
                self._exchange.write(self.filter.finish())
            self._exchange.end()
        if self._done is not None:
            self._wake()

    def break_off(self, cause: Exception) -> None:
        """Raise `cause` to the caller that waits for the body, or to the next one: it will never be complete."""
        self._connection = None
        self._error = cause
        if self._exchange is not None and self.filter is not None:
            self._exchange.write(self.filter.finish())
        if self._done is not None and not self._done.done():
            self._done.set_exception(cause)

    def _wake(self) -> None:
        if self._done is not None and not self._done.done():
            self._done.set_result(None)

    def _taken(self, *, last: bool = False) -> bytes:
        """Return what the client gets of what has arrived, which may be the last of it."""
        data = self._take_pieces()
        if self.filter is None:
            return data
        return self.filter.add(data) + self.filter.finish() if last else self.filter.add(data)

    def _take_pieces(self) -> bytes:
        pieces, self._pieces = self._pieces, []
        self._bytes = 0
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)
