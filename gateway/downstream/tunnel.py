"""A WebSocket after its opening handshake: bytes both ways, until both sides have ended (RFC 6455).

The tunnel takes two connections over from their protocols. What one side sends is written to the other at once; while
the other takes nothing, the first is not read, so that no more waits here than one read and the high-water mark. The
end of one direction is passed on, and a connection that breaks breaks the other.
"""

import asyncio
import os
import socket
import struct
from typing import Final

from gateway.downstream.websocket_frames import Frames, close_frame
from gateway.http.exchange import Side, Switched

HALF_OPEN_SECONDS: Final = 30.0
"""How long a tunnel with an end in one direction may be silent in the other."""
_CLOSED: Final = 7
"""State of a TCP connection that the peer has reset (Linux, tcp_states.h)."""


class Tunnel:
    """Two connections joined. Its deadlines are looked at by whoever looks at those of the client's connection."""

    __slots__ = (
        "_client",
        "_idle_seconds",
        "_moved_at",
        "_server",
        "_stall_seconds",
        "_switched",
        "cause",
        "ended",
        "leaving",
        "loop",
        "moved",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: Side,
        server: Switched,
        *,
        idle_seconds: float,
        stall_seconds: float,
    ) -> None:
        """Take over both connections.

        Args:
            loop: theirs.
            client: its connection, with all that was written to it on its way.
            server: its connection.
            idle_seconds: without a byte in either direction, until the tunnel is cut.
            stall_seconds: without the client taking a byte of what waits for it, until the tunnel is cut.
        """
        self.ended: asyncio.Future[None] = loop.create_future()
        """Done when both connections are gone or going."""
        self.cause: str | None = None
        """Why it was cut or broke; None for an orderly end."""
        self.leaving = False
        """Whether both sides have been told to go."""
        self.moved = False
        """Whether a byte came since the last look."""
        self.loop = loop
        self._switched = server
        self._moved_at = loop.time()
        self._idle_seconds = idle_seconds
        self._stall_seconds = stall_seconds
        self._client = _End(self, client, "client_gone")
        self._server = _End(self, server.side, "upstream_reset")
        self._client.other, self._server.other = self._server, self._client
        client.transport.set_protocol(self._client)
        server.side.transport.set_protocol(self._server)

    def start(self, from_client: bytes) -> None:
        """Deliver what came before, and go on reading."""
        if self._switched.early:
            self._server.data_received(self._switched.early)
        if from_client:
            self._client.data_received(from_client)
        self._client.go_on()
        if self._switched.over:
            self._server.eof_received()
        else:
            self._server.go_on()

    def cut(self, cause: str) -> None:
        """Drop both connections."""
        if self.cause is None and not self.ended.done():
            self.cause = cause
        self._client.drop()
        self._server.drop()

    def leave(self) -> None:
        """Tell both sides that we leave, where the last frame has ended; what they still send is not passed on.

        Whoever calls this drops what is left soon.
        """
        if self.ended.done():
            return
        self.cause = "stopping"
        self.leaving = True
        self._client.say(close_frame(), self._server.frames)
        self._server.say(close_frame(os.urandom(4)), self._client.frames)
        self.settle()

    def look(self, now: float) -> None:
        """See which deadline has passed, and whether a client that is not read is still there."""
        client, server = self._client, self._server
        if self.moved:
            self.moved = False
            self._moved_at = now
        idle = now - self._moved_at
        if (client.over or server.over or self.ended.done()) and idle >= min(HALF_OPEN_SECONDS, self._idle_seconds):
            self.cut("half_open")
        elif idle >= self._idle_seconds:
            self.cut("idle_timeout")
        elif client.stalled(now, self._stall_seconds):
            self.cut("client_stalled")
        elif server.full and client.is_reset():
            self.cut("client_gone")

    def settle(self) -> None:
        """Both directions have ended, or a connection is lost."""
        if not self.ended.done():
            self.ended.set_result(None)


class _End(asyncio.Protocol):
    """One connection in a tunnel."""

    __slots__ = (
        "_gone",
        "_side",
        "_tunnel",
        "_unwritten",
        "_watched_since",
        "frames",
        "full",
        "other",
        "over",
        "transport",
        "why",
    )

    def __init__(self, tunnel: Tunnel, side: Side, why: str) -> None:
        self.transport: asyncio.Transport = side.transport
        self.why = why
        """What it is called when this connection breaks."""
        self.other: _End
        self.over = False
        """Whether the peer sends no more."""
        self.frames = Frames()
        """What the peer has sent."""
        self.full = side.full
        """Whether more waits to be written than should be waiting."""
        self._tunnel = tunnel
        self._side = side
        self._gone = False
        self._unwritten = 0
        self._watched_since = tunnel.loop.time()

    def data_received(self, data: bytes) -> None:
        """Pass on what came."""
        self.frames.feed(data)
        tunnel = self._tunnel
        if tunnel.leaving:
            if self.frames.closed:
                self._close()  # it has answered
            return
        tunnel.moved = True
        transport = self.other.transport
        if not transport.is_closing():
            transport.write(data)

    def eof_received(self) -> bool:
        """The peer sends no more: pass that on, and let the other direction go on."""
        self.over = True
        other = self.other
        if self._tunnel.leaving:
            self._close()
            return False
        if other.over:
            self._close()
            other._close()
            self._tunnel.settle()
        elif other.transport.can_write_eof() and not other.transport.is_closing():
            other.transport.write_eof()
        else:
            other._close()  # TLS has no half-open connections here
        return self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, and so goes the other."""
        self._gone = True
        tunnel, other = self._tunnel, self.other
        if not (self.over or other.over) and tunnel.cause is None and not tunnel.ended.done():
            tunnel.cause = self.why
        tunnel.settle()
        if tunnel.leaving:
            pass
        elif exc is not None:
            other.reset()
        else:
            other._close()
        self._side.connection_lost(exc)

    def say(self, frame: bytes, before: Frames) -> None:
        """Write a frame of our own behind what came from the other, or drop the connection where that is no place."""
        if before.closed or self.over:
            self._close()
        elif before.between and not self.transport.is_closing():
            self.transport.write(frame)
            self.transport.resume_reading()
        else:
            self.drop()

    def pause_writing(self) -> None:
        """The peer reads more slowly than the other sends: the other is not read."""
        self.full = True
        self._unwritten = self.transport.get_write_buffer_size()
        self._watched_since = self._tunnel.loop.time()
        if not self.other.transport.is_closing():
            self.other.transport.pause_reading()

    def resume_writing(self) -> None:
        """The peer has caught up."""
        self.full = False
        self.other.go_on()

    def go_on(self) -> None:
        """Read, unless what would come has nowhere to go."""
        if not (self.other.full or self._gone or self.transport.is_closing()):
            self.transport.resume_reading()

    def stalled(self, now: float, seconds: float) -> bool:
        """Whether the peer has taken no byte for so long."""
        if not self.full:
            return False
        waiting = self.transport.get_write_buffer_size()
        if waiting != self._unwritten:
            self._unwritten = waiting
            self._watched_since = now
        return now - self._watched_since >= seconds

    def is_reset(self) -> bool:
        """Whether the kernel knows that the peer is gone; nobody else notices while the connection is not read."""
        raw = self.transport.get_extra_info("socket")
        option = getattr(socket, "TCP_INFO", None)
        if raw is None or option is None:
            return False
        try:
            return bool(raw.getsockopt(socket.IPPROTO_TCP, option, 1)[0] == _CLOSED)
        except OSError:
            return True

    def drop(self) -> None:
        """Drop the connection, with whatever was still to be written."""
        if not self._gone:
            self.transport.abort()

    def reset(self) -> None:
        """Drop the connection so that the peer sees a reset, as this side did of the other."""
        if self._gone or self.transport.is_closing():
            return
        raw = self.transport.get_extra_info("socket")
        if raw is not None:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def _close(self) -> None:
        """Close once everything is written."""
        if not self._gone and not self.transport.is_closing():
            waiting = self.transport.get_write_buffer_size() or not self.transport.can_write_eof()
            self.transport.close()
            if waiting:  # for a peer that may take nothing any more
                self._tunnel.loop.call_later(HALF_OPEN_SECONDS, self.drop)
