"""A request of a client and its response, as `proxy.py` sees them, and how bodies flow.

`downstream/exchange.py` implements `Exchange` over the connection of a client. Bodies go between it and
`upstream/request.py` and `response.py` by callbacks, so that the coroutine in `proxy.py` wakes for events, not for
bytes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from gateway.errors import GatewayError
from gateway.http.messages import Fields as Fields
from gateway.http.messages import RequestHead as RequestHead
from gateway.http.messages import ResponseHead as ResponseHead
from gateway.net.reads import PacedReader


class BodySink(Protocol):
    """Receiver of a body by callbacks, on the event loop's thread."""

    gradual: bool
    """Whether it looks through what it gets, so that it must not get much in one turn of the loop."""

    def write(self, data: bytes) -> None:
        """Take one piece of the body."""
        ...

    def end(self) -> None:
        """Take the end of the body: it is complete."""
        ...

    def fail(self, cause: Exception) -> None:
        """Take note that the body will never be complete, because of `cause`."""
        ...


class BodySource(Protocol):
    """Producer of a body that its receiver can hold back."""

    def pause(self) -> None:
        """Stop producing; what is in memory already may still come."""
        ...

    def resume(self) -> None:
        """Produce again."""
        ...


class TunnelSide(Protocol):
    """Connection that its protocol has left to a tunnel. The tunnel passes the loss of the connection on to it."""

    transport: Any
    """Transport of the connection, an `asyncio.Transport`."""
    reads: PacedReader
    """Reading side of the connection."""
    owner: str
    """Route of its request, as `namespace/name`, or `/` and the address of its client."""
    full: bool
    """Whether more waits to be written than the high-water mark allows."""

    def connection_lost(self, exc: Exception | None, /) -> None:
        """Clean up after the connection is lost."""
        ...


class UpgradedConnection(NamedTuple):
    """Connection to a backend after its 101. Reading is paused."""

    side: TunnelSide
    early: bytes
    """Bytes that arrived behind the head of the 101."""
    at_eof: bool
    """Whether the backend has closed its side already."""


class Exchange(BodySource, Protocol):
    """One request of a client, and the one response to it.

    `pause` and `resume` act on the body of the request. The task that runs `Proxy.handle` is cancelled when the client
    goes.
    """

    head: RequestHead
    peer: str
    """IP address of the client's connection."""
    tls: bool
    """Whether the client's connection is encrypted."""
    size: int
    """Bytes of the request's body that have arrived."""
    interrupted: GatewayError | None
    """Error for the client where the task was cancelled although the client is still there, else None."""
    intact: bool
    """Whether all that has arrived of the request's body can be read or pumped again."""
    owner: str
    """Route of the request, to whose share of the memory budget it counts; empty while it is not known."""

    @property
    def responded(self) -> bool:
        """Whether the response's head has been sent. After that there can be no other response."""
        ...

    async def read_body(self, limit: int) -> bytes:
        """Return the whole request body in one piece. It can be pumped or read again afterwards.

        Raises:
            errors.GatewayError: As `read_next` does.
        """
        ...

    def whole_body(self) -> bytes | None:
        """Return the whole request body where it is in memory already, else None."""
        ...

    def replace_body(self, content: bytes) -> None:
        """Put other bytes in the place of the request's body, all of which is in memory."""
        ...

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
        ...

    def charge(self, size: int) -> None:
        """Reserve memory for what has been made of the body, such as the decoded one.

        Raises:
            errors.Overloaded: There is no room for it.
        """
        ...

    def break_body(self, cause: Exception) -> None:
        """Pass `cause` to the sink or the reader, now or when there is one: the body will never be complete."""
        ...

    def pump_body(self, sink: BodySink, limit: int, keep: int = 0) -> None:
        """Deliver the request body into `sink`: first the bytes in memory, then those that arrive.

        A body of more than `limit` bytes ends with `sink.fail(errors.BodyTooLarge())`. Delivered bytes stay in memory,
        to be pumped or read again, until they are more than `keep` or than there is room for, or the response's head is
        sent.
        """
        ...

    def stop_body(self) -> None:
        """Detach the sink of `pump_body`. What still arrives is held where the body is intact, else dropped."""
        ...

    def respond(self, head: ResponseHead, *, close: bool = False) -> None:
        """Send the head of the final response; with `close` it is the last one on its connection."""
        ...

    def begin(self, head: ResponseHead) -> None:
        """Send the head of the final response, and keep the request's body until `release_body`."""
        ...

    def release_body(self) -> None:
        """Free the memory of the request's body: it will not be sent again."""
        ...

    def reply(self, head: ResponseHead, body: bytes, *, close: bool = False) -> None:
        """Send a whole response in one piece, instead of `respond`, `write` and `end`."""
        ...

    def write(self, data: bytes) -> None:
        """Send a piece of the response's body."""
        ...

    def comment(self, data: bytes, *, after_line: bool = False) -> bool:
        """Send a comment of an event stream where it fits between two events; return whether it does.

        It fits behind any line where `after_line` is true.
        """
        ...

    def end(self) -> None:
        """Complete the response."""
        ...

    def end_with(self, body: bytes) -> None:
        """Complete an event stream with a last event that holds `body`."""
        ...

    async def tunnel(self, fields: Fields, upstream: UpgradedConnection) -> str | None:
        """Send 101 with `fields`, and pass bytes in both directions until both sides have closed.

        Returns the cause of a tunnel that broke or was cut, None for an orderly end.
        """
        ...

    def fail(self, cause: Exception) -> None:
        """Abort the connection, so that no client takes the response for complete."""
        ...

    def cut(self, body: bytes) -> None:
        """End an event stream with a last event that holds `body`, so that no client takes it for complete."""
        ...

    def attach(self, source: BodySource | None) -> None:
        """Set the source of the response's body, which is paused while the client does not read."""
        ...


def field(fields: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """Return the first value of the field `name` (in lower case), or None."""
    for key, value in fields:
        if key == name:
            return value
    return None
