"""Writes gathered over one turn of the event loop.

uvloop writes to the kernel at once. Under load that costs more than everything else on the path: each small write wakes
its peer, which has just gone to sleep. Gathered until the end of the turn, the pieces of one message become one system
call, and the peers are woken once for all that is ready for them.
"""

import asyncio
from typing import Final, Protocol

GATHERED_BYTES: Final = 65536
"""Bytes that a connection gathers behind its first piece before they are written at once.

Within one turn a fast peer may be read from dozens of times, and only a write that has been made can show that the
other side does not take it.
"""


class Writer(Protocol):
    """Connection with bytes to write."""

    def flush(self) -> None:
        """Write what has been gathered."""
        ...


class WriteBatch:
    """Connections that have something to write in this turn of the loop. Any number of connections can share one."""

    __slots__ = ("_loop", "_writers")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._writers: list[Writer] = []

    def add(self, writer: Writer) -> None:
        """Flush `writer` at the end of this turn. A writer is added once per turn."""
        if not self._writers:
            self._loop.call_soon(self._flush)
        self._writers.append(writer)

    def _flush(self) -> None:
        writers, self._writers = self._writers, []
        for writer in writers:
            writer.flush()


class BatchedWriter:
    """Bytes that one connection writes in a turn of the loop."""

    __slots__ = ("_batch", "_more", "_pieces", "_transport")

    def __init__(self, batch: WriteBatch, transport: asyncio.WriteTransport) -> None:
        self._batch = batch
        self._transport = transport
        self._pieces: list[bytes] = []
        self._more = 0
        """Bytes that wait behind the first piece."""

    def write(self, data: bytes) -> None:
        """Write at the end of this turn, in order and in one piece with other writes; a large amount at once."""
        if not self._pieces:
            self._batch.add(self)
            self._pieces.append(data)
            self._more = 0
            return
        self._pieces.append(data)
        self._more += len(data)
        if self._more >= GATHERED_BYTES:
            self.flush()

    def flush(self) -> None:
        """Write now, as at the end of a turn or before the transport is closed."""
        pieces = self._pieces
        if not pieces:
            return
        data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        pieces.clear()
        if not self._transport.is_closing():
            self._transport.write(data)
