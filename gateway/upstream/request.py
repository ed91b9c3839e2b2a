"""Requests to backends: the serialized head, and the body that flows from the client behind it."""

from collections.abc import Callable
from typing import Final, Protocol, cast

from gateway import errors
from gateway.http.exchange import Exchange, RequestHead

FIRST_BYTES: Final = 65536
"""Bytes of a body that are written in one piece with the head."""


class RequestConnection(Protocol):
    """Connection to a backend, as a request needs it."""

    @property
    def send(self) -> Callable[[bytes], None]:
        """Function that writes bytes to the backend."""
        ...

    def fail(self, cause: Exception) -> None:
        """Abort the connection and raise `cause` to the caller that waits for the response."""
        ...


class BodyChange(Protocol):
    """Change of a body on its way to a backend, piece by piece. Each attempt has one of its own."""

    @property
    def looks(self) -> bool:
        """Whether it looks through the body, which takes time."""
        ...

    def apply(self, data: bytes) -> bytes:
        """Return what is sent for the next piece of the body.

        Raises:
            errors.GatewayError: The request must not be completed.
        """
        ...

    def finish(self) -> None:
        """Take the end of the body.

        Raises:
            errors.GatewayError: The request must not be completed.
        """
        ...


class UpstreamRequest:
    """One request to a backend. It is the sink for the body of the client's request (`http.exchange.BodySink`)."""

    __slots__ = (
        "_change",
        "_chunked",
        "_connection",
        "_exchange",
        "_gathered",
        "_keep",
        "_limit",
        "_paused",
        "_pieces",
        "ended",
        "gradual",
        "head",
        "whole",
    )

    def __init__(
        self, head: RequestHead, body: Exchange | bytes, limit: int, keep: int, change: BodyChange | None = None
    ) -> None:
        """Serialize a request.

        Args:
            head: Head with the target and the fields for the backend.
            body: The body itself, or the client's exchange that delivers it.
            limit: Bytes that a body from an exchange may have.
            keep: Bytes of it that the exchange keeps, so that the body can be sent again.
            change: Change of a body from an exchange.
        """
        self._change = change
        self.gradual = change is not None and change.looks
        """Whether the rest of the body is looked through on its way."""
        self._chunked = False
        self._connection: RequestConnection | None = None
        self._exchange: Exchange | None = None
        self._limit = limit
        self._keep = keep
        self._paused = False
        self.head = head
        self.ended = True
        """Whether the whole request has been handed to the connection."""
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
        """The beginning of the request, while it is put together."""
        self._gathered = 0
        """Bytes of the body in it."""

    @property
    def repeatable(self) -> bool:
        """Whether the request can be sent again: all of it is in memory, or the exchange still has the body's start."""
        return self.whole is not None or (self._exchange is not None and self._exchange.intact)

    @property
    def has_idempotency_key(self) -> bool:
        """Whether the client says that the backend recognizes a repeated request."""
        return any(name == b"idempotency-key" for name, _ in self.head.fields)

    def start(self, connection: RequestConnection) -> None:
        """Write the head and what has arrived of the body in one piece; the rest follows as it arrives."""
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
        if self._gathered > FIRST_BYTES:
            return  # it was too much for one piece, and is on its way
        first = b"".join(self._pieces)
        self._pieces = None
        if self.ended and self._change is None:
            self.whole = first  # so that it can be sent again
        connection.send(first)

    @property
    def _under_way(self) -> bool:
        return self._connection is not None

    def stop(self) -> None:
        """Detach from the connection and the exchange: nothing more is sent."""
        self._connection = None
        if self._exchange is not None and not self.ended:
            self._exchange.stop_body()
            self.resume()

    def write(self, data: bytes) -> None:
        """Send one piece of the client's body."""
        if self._change is not None and data:
            try:
                data = self._change.apply(data)
            except errors.GatewayError as exc:
                self._refuse(exc)
                return
        if not data or self._connection is None:
            return
        if self._chunked:
            data = b"%x\r\n%b\r\n" % (len(data), data)
        self._send(data)

    def end(self) -> None:
        """Send the end of the client's body."""
        if self._connection is None or self.ended:
            return
        if self._change is not None:
            try:
                self._change.finish()
            except errors.GatewayError as exc:
                self._refuse(exc)
                return
        self.ended = True
        if self._chunked:
            self._send(b"0\r\n\r\n")

    def _send(self, data: bytes) -> None:
        """Send what has been framed: behind the head, or in one piece with it where it is small."""
        connection = cast("RequestConnection", self._connection)
        if self._pieces is None:
            connection.send(data)
            return
        self._pieces.append(data)
        self._gathered += len(data)
        if self._gathered > FIRST_BYTES:
            pieces, self._pieces = self._pieces, None
            for piece in pieces:
                connection.send(piece)

    def _refuse(self, cause: errors.GatewayError) -> None:
        """Leave the request incomplete, and the connection closed: nothing can take it for a whole one."""
        exchange = self._exchange
        self.fail(cause)
        if exchange is not None:
            exchange.break_body(cause)

    def fail(self, cause: Exception) -> None:
        """Abort the connection: the client's body will never be complete, so the request cannot be."""
        if self._connection is not None:
            self._connection.fail(cause)

    def pause(self) -> None:
        """Hold the client's body back while the backend does not read."""
        if self._exchange is not None and not self.ended:
            self._paused = True
            self._exchange.pause()

    def resume(self) -> None:
        """Let the client's body continue."""
        if self._exchange is not None and self._paused:
            self._paused = False
            self._exchange.resume()


def serialize(head: RequestHead, content_length: int | None, *, chunked: bool) -> bytes:
    """Return the head as bytes, with the field that frames its body (RFC 9112 3, 6).

    Raises:
        ValueError: A target or a field has a line break in it.
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
    # Two passes of memchr: the last line of defense against a value that became two fields.
    if wire.count(b"\n") != len(lines) - 1 or wire.count(b"\r") != len(lines) - 1:
        raise ValueError("a line break in the head of a request")
    return wire
