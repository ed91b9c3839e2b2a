"""Connections to the FastAPI apps, with a limit for heads and deadlines for clients that send or read too slowly.

uvicorn has neither, so a head without an end would cost memory and time that the traffic of models needs.
"""

import asyncio
from typing import Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

HEAD_BYTES: Final = 16384
"""Bytes of the largest head of a request."""
HEAD_SECONDS: Final = 10.0
"""Seconds in which a connection sends its first head, and a head is complete that has begun."""
BODY_SECONDS: Final = 60.0
"""Seconds in which the body of a request is complete."""
STALL_SECONDS: Final = 30.0
"""Seconds in which a client takes no byte of a long response."""
PIPELINED: Final = 16
"""Requests that may wait behind the present one on a connection."""


class WebConnection(HttpToolsProtocol):
    """Connection of one client. What breaks a limit or a deadline ends it."""

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._head_bytes = 0
        """Bytes of the present head that have arrived."""
        self._in_body = False
        self._deadline: asyncio.TimerHandle | None = None
        """Timer of what the client sends; None while nothing is on its way."""
        self._stall: asyncio.TimerHandle | None = None
        """Timer of what the client reads; None while little waits to be written."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait for a head."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._expect(HEAD_SECONDS)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timers."""
        self._expect(None)
        self._watch(None)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse what has arrived, a head's worth at a time."""
        if self._deadline is None:
            self._expect(HEAD_SECONDS)
        while data and not self.transport.is_closing():
            size = HEAD_BYTES if self._in_body else HEAD_BYTES - self._head_bytes
            part, data = data[:size], data[size:]
            if not self._in_body:
                self._head_bytes += len(part)
            super().data_received(part)
            if self._head_bytes >= HEAD_BYTES or len(self.pipeline) > PIPELINED:
                self.transport.abort()

    def on_headers_complete(self) -> None:
        """Begin the request, and wait for the end of its body."""
        self._head_bytes = 0
        self._in_body = True
        self._expect(BODY_SECONDS)
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """Note the end of the request."""
        self._in_body = False
        self._expect(None)
        super().on_message_complete()

    def pause_writing(self) -> None:
        """Hold the response back, for as long as the client goes on to read."""
        super().pause_writing()
        self._watch(self.transport.get_write_buffer_size())

    def resume_writing(self) -> None:
        """Let the response continue."""
        self._watch(None)
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; drop one whose client has not even read its last response."""
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            super().timeout_keep_alive_handler()

    def _expect(self, seconds: float | None) -> None:
        """Drop the connection after so many seconds unless this is called again."""
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self.transport.abort)

    def _watch(self, waiting: int | None) -> None:
        """Drop the connection if no fewer bytes than now wait to be written in a while; stop to look at None."""
        if self._stall is not None:
            self._stall.cancel()
        self._stall = None if waiting is None else self.loop.call_later(STALL_SECONDS, self._look, waiting)

    def _look(self, before: int) -> None:
        waiting = self.transport.get_write_buffer_size()
        if waiting >= before:
            self.transport.abort()
        else:
            self._watch(waiting)
