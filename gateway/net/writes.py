"""Writes gathered over one turn of the event loop.

uvloop writes to the kernel at once. Under load that costs more than everything else on the path: each small write wakes
its peer, which has just gone to sleep. Gathered until the turn's end, the pieces of one message become one system call,
and the peers are woken once for all that is ready for them.
"""

import asyncio
from typing import Final, Protocol

GATHERED_BYTES: Final = 65536
"""What a connection gathers behind its first piece: within one turn a fast peer may be read from dozens of times, and
only a write that has been made can say that the other side does not take it."""


class Writer(Protocol):
    """A connection with something to write."""

    def flush(self) -> None:
        """Write what was gathered."""
        ...


class Writes:
    """The writers of this turn. One for all connections of a loop, or one for each kind."""

    __slots__ = ("_loop", "_writers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writers: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Have `writer` flushed at the end of this turn. To be called once per turn and writer."""
        if not self._writers:
            self._loop.call_soon(self._flush)
        self._writers.append(writer)

    def _flush(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.flush()


class Gathered:
    """What one connection writes in a turn."""

    __slots__ = ("_more", "_pieces", "_transport", "_writes")

    def __init__(self, writes: Writes, transport: asyncio.WriteTransport) -> None:
        self._writes = writes
        self._transport = transport
        self._pieces: list[bytes] = []
        self._more = 0
        """Bytes that wait behind the first piece."""

    def write(self, data: bytes) -> None:
        """Write at the end of this turn, in order, in one piece with what else comes; much of it at once."""
        if not self._pieces:
            self._writes.add(self)
            self._pieces.append(data)
            self._more = 0
            return
        self._pieces.append(data)
        self._more += len(data)
        if self._more >= GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write now: before the transport is asked to close, and at the turn's end."""
        pieces = self._pieces
        if not pieces:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if not self._transport.is_closing():
            self._transport.write(data)
