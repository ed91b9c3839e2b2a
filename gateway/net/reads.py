"""Reads of one connection, of which a large one is the last in its turn of the event loop.

uvloop reads from a connection for as long as the kernel fills its buffer of 256 KB, up to 32 times in one turn. A few
clients or backends that send as fast as they can would so keep the loop busy for tens of milliseconds, in which no
other request moves. A connection that has had a large read is read again in the next turn, when all others had theirs.
"""

import asyncio
from typing import Final

LARGE_BYTES: Final = 131072
"""Bytes of a read after which a connection rests until the next turn: more may wait in the kernel."""


class PacedReader:
    """Reading side of one connection. All that pauses and resumes reading goes through it."""

    __slots__ = ("_loop", "_rests", "_transport", "_wanted")

    def __init__(self, loop: asyncio.AbstractEventLoop, transport: asyncio.ReadTransport) -> None:
        self._loop = loop
        self._transport = transport
        self._wanted = True
        """Whether the connection is to be read."""
        self._rests = False
        """Whether the connection is not read until the next turn of the loop."""

    def pause(self) -> None:
        """Stop reading until `resume`."""
        self._wanted = False
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read again; in the next turn where the connection rests."""
        self._wanted = True
        if not self._rests:
            self._transport.resume_reading()

    def rest(self) -> None:
        """Read nothing more in this turn of the loop."""
        if self._wanted and not self._rests:
            self._rests = True
            self._transport.pause_reading()
            self._loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        self._rests = False
        if self._wanted and not self._transport.is_closing():
            self._transport.resume_reading()
