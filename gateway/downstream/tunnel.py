"""WebSocket after its opening handshake: bytes in both directions, until both sides have closed (RFC 6455).

The tunnel takes two connections over from their protocols. What one side sends is written to the other at once. While
the other side takes nothing, the first is not read, so that no more waits here than one read and the high-water mark.
The end of one direction is passed on, and a connection that breaks breaks the other.
"""

import asyncio
import os
from typing import Final

from gateway.downstream import sockets
from gateway.downstream.websocket_frames import FrameScanner, close_frame
from gateway.http.exchange import TunnelSide, UpgradedConnection
from gateway.net.reads import LARGE_BYTES

HALF_OPEN_SECONDS: Final = 30.0
"""Seconds for which a tunnel that is closed in one direction may be silent in the other."""


class Tunnel:
    """Two connections joined. `ClientConnection` calls `check_deadlines` in each sweep."""

    __slots__ = (
        "_client",
        "_idle_seconds",
        "_moved_at",
        "_stall_seconds",
        "_upgraded",
        "_upstream",
        "cause",
        "ended",
        "leaving",
        "loop",
        "moved",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        client: TunnelSide,
        upstream: UpgradedConnection,
        *,
        idle_seconds: float,
        stall_seconds: float,
    ) -> None:
        """Take over both connections.

        Args:
            loop: Loop of both connections.
            client: Connection of the client; all that was written to it before has been flushed.
            upstream: Connection to the backend.
            idle_seconds: Time without a byte in either direction after which the tunnel is cut.
            stall_seconds: Time after which the tunnel is cut where the client takes no byte of what waits for it.
        """
        self.ended: asyncio.Future[None] = loop.create_future()
        """Future that is done when both connections are closed or closing."""
        self.cause: str | None = None
        """Cause of a tunnel that broke or was cut; None for an orderly end."""
        self.leaving = False
        """Whether both sides have got a close frame of the gateway."""
        self.moved = False
        """Whether a byte has passed since the last check of the deadlines."""
        self.loop = loop
        self._upgraded = upstream
        self._moved_at = loop.time()
        self._idle_seconds = idle_seconds
        self._stall_seconds = stall_seconds
        self._client = _End(self, client, "client_gone")
        self._upstream = _End(self, upstream.side, "upstream_reset")
        self._client.other, self._upstream.other = self._upstream, self._client
        client.transport.set_protocol(self._client)
        upstream.side.transport.set_protocol(self._upstream)

    def start(self, from_client: bytes) -> None:
        """Deliver the bytes that arrived before the tunnel, and read both sides."""
        if self._upgraded.early:
            self._upstream.data_received(self._upgraded.early)
        if from_client:
            self._client.data_received(from_client)
        self._client.resume_reading()
        if self._upgraded.at_eof:
            self._upstream.eof_received()
        else:
            self._upstream.resume_reading()

    def cut(self, cause: str) -> None:
        """Drop both connections."""
        if self.cause is None and not self.ended.done():
            self.cause = cause
        self._client.abort()
        self._upstream.abort()

    def leave(self) -> None:
        """Send both sides a close frame where the last frame has ended, and pass nothing on any more.

        The caller drops soon the connections that are left.
        """
        if self.ended.done():
            return
        self.cause = "stopping"
        self.leaving = True
        self._client.send_close(close_frame(), self._upstream.frames)
        self._upstream.send_close(close_frame(os.urandom(4)), self._client.frames)
        self.settle()

    def check_deadlines(self, now: float) -> None:
        """Cut the tunnel where a deadline has passed, or where a client that is not read has gone."""
        client, upstream = self._client, self._upstream
        if self.moved:
            self.moved = False
            self._moved_at = now
        idle = now - self._moved_at
        if (client.at_eof or upstream.at_eof or self.ended.done()) and idle >= min(
            HALF_OPEN_SECONDS, self._idle_seconds
        ):
            self.cut("half_open")
        elif idle >= self._idle_seconds:
            self.cut("idle_timeout")
        elif client.stalled(now, self._stall_seconds):
            self.cut("client_stalled")
        elif upstream.full and sockets.is_reset(client.transport):
            self.cut("client_gone")

    def settle(self) -> None:
        """Mark the tunnel as ended."""
        if not self.ended.done():
            self.ended.set_result(None)


class _End(asyncio.Protocol):
    """Protocol of one of the two connections."""

    __slots__ = (
        "_gone",
        "_reads",
        "_side",
        "_tunnel",
        "_unwritten",
        "_watched_since",
        "at_eof",
        "frames",
        "full",
        "loss_cause",
        "other",
        "transport",
    )

    def __init__(self, tunnel: Tunnel, side: TunnelSide, loss_cause: str) -> None:
        self.transport: asyncio.Transport = side.transport
        self.loss_cause = loss_cause
        """Cause of the tunnel's end where this connection breaks."""
        self.other: _End
        self.at_eof = False
        """Whether the peer has closed its side."""
        self.frames = FrameScanner()
        """Frames that the peer has sent."""
        self.full = side.full
        """Whether more waits to be written than the high-water mark allows."""
        self._tunnel = tunnel
        self._side = side
        self._reads = side.reads
        self._gone = False
        self._unwritten = 0
        """Bytes that waited to be written at `_watched_since`."""
        self._watched_since = tunnel.loop.time()

    def data_received(self, data: bytes) -> None:
        """Pass bytes on to the other side."""
        if len(data) >= LARGE_BYTES:
            self._reads.rest(self._side.owner)
        self.frames.feed(data)
        tunnel = self._tunnel
        if tunnel.leaving:
            if self.frames.closed:
                self._close()  # the peer has confirmed our close frame
            return
        tunnel.moved = True
        transport = self.other.transport
        if not transport.is_closing():
            transport.write(data)

    def eof_received(self) -> bool:
        """Pass the end of this direction on, and keep the other one open where the connection can."""
        self.at_eof = True
        other = self.other
        if self._tunnel.leaving:
            self._close()
            return False
        if other.at_eof:
            self._close()
            other._close()
            self._tunnel.settle()
        elif other.transport.can_write_eof() and not other.transport.is_closing():
            other.transport.write_eof()
        else:
            other._close()  # TLS has no half-open connections here
        return self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Close the other connection, too, or reset it where this one has been reset."""
        self._gone = True
        tunnel, other = self._tunnel, self.other
        if not (self.at_eof or other.at_eof) and tunnel.cause is None and not tunnel.ended.done():
            tunnel.cause = self.loss_cause
        tunnel.settle()
        if tunnel.leaving:
            pass
        elif exc is not None:
            other.reset()
        else:
            other._close()
        self._side.connection_lost(exc)

    def send_close(self, frame: bytes, before: FrameScanner) -> None:
        """Write a close frame behind the frames `before`; drop the connection where one of those is incomplete."""
        if before.closed or self.at_eof:
            self._close()
        elif before.between and not self.transport.is_closing():
            self.transport.write(frame)
            self._reads.resume()
        else:
            self.abort()

    def pause_writing(self) -> None:
        """Stop reading the other side, which sends faster than this one reads."""
        self.full = True
        self._unwritten = self.transport.get_write_buffer_size()
        self._watched_since = self._tunnel.loop.time()
        if not self.other.transport.is_closing():
            self.other._reads.pause()

    def resume_writing(self) -> None:
        """Read the other side again: this one has caught up."""
        self.full = False
        self.other.resume_reading()

    def resume_reading(self) -> None:
        """Read this side, unless the other one is full."""
        if not (self.other.full or self._gone or self.transport.is_closing()):
            self._reads.resume()

    def stalled(self, now: float, seconds: float) -> bool:
        """Return whether the peer has taken no byte for `seconds` although some wait for it."""
        if not self.full:
            return False
        waiting = self.transport.get_write_buffer_size()
        if waiting != self._unwritten:
            self._unwritten = waiting
            self._watched_since = now
        return now - self._watched_since >= seconds

    def abort(self) -> None:
        """Drop the connection, with all that waits to be written."""
        if not self._gone:
            self.transport.abort()

    def reset(self) -> None:
        """Drop the connection so that the peer sees a reset, as the other side has sent one."""
        if not self._gone and not self.transport.is_closing():
            sockets.reset(self.transport)

    def _close(self) -> None:
        """Close the connection once everything is written."""
        if not self._gone and not self.transport.is_closing():
            waiting = self.transport.get_write_buffer_size() or not self.transport.can_write_eof()
            self.transport.close()
            if waiting:  # for a peer that may take nothing any more
                self._tunnel.loop.call_later(HALF_OPEN_SECONDS, self.abort)
