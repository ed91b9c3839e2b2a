"""Deadlines of many waits that all last equally long, with one timer for all of them.

A timer per wait costs more than the wait that it bounds: most waits end before their time, and the timer is made and
thrown away. Here the waits stand in the order of their deadlines, and one timer looks at the first.
"""

import asyncio
from collections import deque


class Deadlines:
    """Deadlines of futures, each `seconds` after its start; a future that meets its deadline gets the result None."""

    __slots__ = ("_loop", "_timer", "_waits", "seconds")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        self.seconds = seconds
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._waits: deque[tuple[float, asyncio.Future[None]]] = deque()

    def limit(self, future: "asyncio.Future[None]") -> None:
        """Give `future` a deadline `seconds` from now."""
        end = self._loop.time() + self.seconds
        self._waits.append((end, future))
        if self._timer is None:
            self._timer = self._loop.call_at(end, self._look)

    def close(self) -> None:
        """Stop the timer, and forget all deadlines."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._waits.clear()

    def _look(self) -> None:
        self._timer = None
        now = self._loop.time()
        waits = self._waits
        while waits and (waits[0][1].done() or waits[0][0] <= now):
            _, future = waits.popleft()
            if not future.done():
                future.set_result(None)
        if waits:
            self._timer = self._loop.call_at(waits[0][0], self._look)
