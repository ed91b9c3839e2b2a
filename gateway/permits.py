"""How many requests a backend has at a time, and who waits until one of them ends.

A permit is held from an attempt's beginning to the end of its answer. Those that wait stand in a line: the first gets
the permit that is given back, so that nobody who comes later overtakes it, and one timer looks at whose time is up.
"""

import asyncio
from collections import OrderedDict
from math import inf

from gateway import errors


class Permits:
    """Of one backend."""

    __slots__ = ("_line", "_timer", "limit", "taken")

    def __init__(self) -> None:
        self.limit: float = inf
        """How many there are. Nobody waits while there are more than are taken."""
        self.taken = 0
        """Permits in use; above the limit for a while when that was lowered."""
        self._line: OrderedDict[asyncio.Future[None], float] = OrderedDict()
        """Those that wait, and until when on the loop's clock."""
        self._timer: asyncio.TimerHandle | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    def apply(self, limit: int | None) -> None:
        """There are `limit` permits from now on; None: as many as anybody wants."""
        self.limit = inf if limit is None else limit
        while self._line and self.taken < self.limit:
            self.taken += 1
            self._hand_on()

    def give_back(self) -> None:
        """One that was taken is no longer needed."""
        if not self._line or self.taken > self.limit:
            self.taken -= 1
        else:
            self._hand_on()

    async def wait(self, seconds: float) -> None:
        """Wait for a permit and take it. The caller has seen that all are taken.

        Raises:
            errors.QueueTimeout: none was free for `seconds`.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        end = loop.time() + seconds
        self._line[future] = end
        if self._timer is None:
            self._timer = loop.call_at(end, self._look, loop)
        try:
            await future
        except asyncio.CancelledError:
            self._line.pop(future, None)
            if future.done() and not future.cancelled() and future.exception() is None:
                self.give_back()  # it came at the same moment
            raise

    def expire(self, now: float) -> None:
        """End the waits whose time is up."""
        while self._line:
            future, end = next(iter(self._line.items()))
            if end > now and not future.done():
                return
            del self._line[future]
            if not future.done():
                future.set_exception(errors.QueueTimeout(retry_after=1))

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        self.expire(loop.time())
        if self._line:
            self._timer = loop.call_at(next(iter(self._line.values())), self._look, loop)

    def _hand_on(self) -> None:
        """Give a permit that is taken already to the first who waits, or back where nobody does any more."""
        while self._line:
            future, _ = self._line.popitem(last=False)
            if not future.done():
                future.set_result(None)
                return
        self.taken -= 1
