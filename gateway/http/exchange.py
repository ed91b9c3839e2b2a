"""What the story of a request sees of its client: the parsed head, the body, and the way to answer.

`edge.py` implements `Exchange` over a client's connection; `upstream.py` implements `Answer` over a server's. Bodies
go from one to the other by callbacks (`BodySink`), so that the coroutine in `proxy.py` wakes for events, not for bytes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

from gateway.errors import GatewayError
from gateway.http.messages import Fields as Fields
from gateway.http.messages import RequestHead as RequestHead
from gateway.http.messages import ResponseHead as ResponseHead


class BodySink(Protocol):
    """Receives a body by callbacks, from the event loop's thread."""

    def write(self, data: bytes) -> None:
        """Take one piece. The source stops when `pause` was called on it."""
        ...

    def end(self) -> None:
        """The body is complete."""
        ...

    def fail(self, cause: Exception) -> None:
        """The body will never be complete."""
        ...


class BodySource(Protocol):
    """Produces a body into a sink, and can be held back by it."""

    def pause(self) -> None:
        """Stop producing soon; what is already in memory may still come."""
        ...

    def resume(self) -> None:
        """Go on producing."""
        ...


class Side(Protocol):
    """A connection as its protocol leaves it to a tunnel. It learns when it is lost."""

    transport: Any
    """An `asyncio.Transport`."""
    full: bool
    """Whether more waits to be written than should be waiting."""

    def connection_lost(self, exc: Exception | None, /) -> None:
        """The transport is gone."""
        ...


class Switched(NamedTuple):
    """A server's connection after its 101. It is not being read."""

    side: Side
    early: bytes
    """What came with the 101."""
    over: bool
    """Whether nothing more will come."""


class Exchange(BodySource, Protocol):
    """One request of one client, and the one answer to it.

    `pause` and `resume` act on the request body. The task that runs `proxy.handle` is cancelled when the client goes.
    """

    head: RequestHead
    peer: str
    """The client's address, without port."""
    tls: bool
    size: int
    """Bytes of the request body so far."""
    interrupted: GatewayError | None
    """Why the story's task was cancelled, where it was not the client that went: the client is still to be told."""
    intact: bool
    """Whether all of the request body so far can still be had: it was not pumped, or kept meanwhile."""

    @property
    def responded(self) -> bool:
        """Whether the answer's head has been sent: after that there is no other answer."""
        ...

    async def read_body(self, limit: int) -> bytes:
        """The whole request body. It can be pumped or read again afterwards.

        Raises:
            errors.BodyTooLarge: it is longer than `limit` bytes.
            errors.BodyTimeout: no byte of it came for the body deadline.
        """
        ...

    def pump_body(self, sink: BodySink, limit: int, keep: int = 0) -> None:
        """Deliver the request body into `sink`: first what was read, kept or buffered, then what arrives.

        A body that grows above `limit` ends with `sink.fail(errors.BodyTooLarge())`. What goes by is kept, to be pumped
        or read again, while it is no longer than `keep` bytes and the answer's head has not been sent.
        """
        ...

    def stop_body(self) -> None:
        """Forget the sink given to `pump_body`. What still arrives is held where all of it was kept, else dropped."""
        ...

    def respond(self, head: ResponseHead, *, close: bool = False) -> None:
        """Send the final answer's head; with `close` it is the connection's last one."""
        ...

    def reply(self, head: ResponseHead, body: bytes, *, close: bool = False) -> None:
        """Send a whole answer in one piece, instead of `respond`, `write` and `end`."""
        ...

    def write(self, data: bytes) -> None:
        """Send a piece of the answer's body."""
        ...

    def end(self) -> None:
        """The answer is complete."""
        ...

    async def tunnel(self, fields: Fields, server: Switched) -> str | None:
        """Answer an opening handshake with 101 and `fields`; pass bytes both ways until both sides have ended.

        Returns why the tunnel was cut or broke; None for an orderly end.
        """
        ...

    def fail(self, cause: Exception) -> None:
        """Break the answer off so that no client takes it for complete: abort the connection."""
        ...

    def cut(self, body: bytes) -> None:
        """Break an event stream off so that no client takes it for complete, with a last event that holds `body`."""
        ...

    def attach(self, source: BodySource | None) -> None:
        """The source of the answer's body, to be paused while the client does not read."""
        ...


def field(fields: Sequence[tuple[bytes, bytes]], name: bytes) -> bytes | None:
    """The first value of the field `name` (lower case), or None."""
    for key, value in fields:
        if key == name:
            return value
    return None
