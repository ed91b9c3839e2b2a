"""Large reads of connections, which tenants take in turns.

uvloop reads from a connection for as long as the kernel fills its buffer of 256 KB, up to 32 times in one turn of the
event loop. A few clients or backends that send as fast as they can would so keep the loop busy for tens of
milliseconds, in which no other request moves, and would have nearly all of its time: twenty uploads of one tenant would
get twenty times as much of it as the only upload of another. So a connection rests after a large read, and of all that
rest for one tenant one is read again in each turn of the loop. A tenant is a namespace, or the address of a client
whose route is not known.
"""

import asyncio
from collections import deque
from typing import Final

LARGE_BYTES: Final = 131072
"""Bytes of a read after which a connection rests: more may wait in the kernel."""


class ReadTurns:
    """Turns of the connections that rest. Connections that share one of these are fair to each other."""

    __slots__ = ("_loop", "_resting")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._resting: dict[str, deque[PacedReader]] = {}
        """Connections that rest, in their order, by their tenant."""

    def add(self, owner: str, reader: "PacedReader") -> None:
        """Let a connection rest behind the others of its tenant.

        Args:
            owner: Route of its request, as `namespace/name`, or `/` and the address of its client.
            reader: The connection.
        """
        if not self._resting:
            self._loop.call_soon(self._take)
        tenant = owner.partition("/")[0] or owner
        queue = self._resting.get(tenant)
        if queue is None:
            queue = self._resting[tenant] = deque()
        queue.append(reader)

    def _take(self) -> None:
        """Read again from one connection of each tenant."""
        for tenant, queue in tuple(self._resting.items()):
            while queue and not queue.popleft().go_on():
                pass
            if not queue:
                del self._resting[tenant]
        if self._resting:
            self._loop.call_soon(self._take)


class PacedReader:
    """Reading side of one connection. All that pauses and resumes reading goes through it."""

    __slots__ = ("_rests", "_transport", "_turns", "_wanted")

    def __init__(self, turns: ReadTurns, transport: asyncio.ReadTransport) -> None:
        self._turns = turns
        self._transport = transport
        self._wanted = True
        """Whether the connection is to be read."""
        self._rests = False
        """Whether the connection is not read until its turn."""

    def pause(self) -> None:
        """Stop reading until `resume`."""
        self._wanted = False
        self._transport.pause_reading()

    def resume(self) -> None:
        """Read again; where the connection rests, once it has its turn."""
        self._wanted = True
        if not self._rests:
            self._transport.resume_reading()

    def rest(self, owner: str) -> None:
        """Read nothing more until the connection has its turn among those of the tenant of `owner`."""
        if self._wanted and not self._rests:
            self._rests = True
            self._transport.pause_reading()
            self._turns.add(owner, self)

    def go_on(self) -> bool:
        """End the rest; return whether the connection is read again."""
        self._rests = False
        if not self._wanted or self._transport.is_closing():
            return False
        self._transport.resume_reading()
        return True
