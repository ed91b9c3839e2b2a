"""How many requests a backend has at a time, and who waits until one of them ends.

A permit is held from an attempt's beginning to the end of its answer. Those that wait stand in a line: the first gets
the permit that is given back, so that nobody who comes later overtakes it. One timer for all of them looks at whose
time is up, and whether somebody else takes the first one by now.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Any, Final, NamedTuple, TypeVar

from gateway import errors

LOOK_SECONDS: Final = 0.1
"""How often those who wait are asked whether somebody else takes them."""

_T = TypeVar("_T")


class _Wait(NamedTuple):
    until: float
    """On the loop's clock."""
    elsewhere: Callable[[], object] | None


class ConcurrencyLimit:
    """Of one backend."""

    __slots__ = ("_line", "_timer", "limit", "taken")

    def __init__(self) -> None:
        self.limit: float = inf
        """How many there are. Nobody waits while there are more than are taken."""
        self.taken = 0
        """Slots in use; above the limit for a while when that was lowered."""
        self._line: OrderedDict[asyncio.Future[Any], _Wait] = OrderedDict()
        """Those that wait."""
        self._timer: asyncio.Handle | None = None

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._line)

    def apply(self, limit: int | None) -> None:
        """Allow `limit` requests at a time from now on; None allows any number."""
        self.limit = inf if limit is None else limit
        while self._line and self.taken < self.limit:
            self.taken += 1
            self._hand_on()

    def release(self) -> None:
        """One that was taken is no longer needed."""
        if not self._line or self.taken > self.limit:
            self.taken -= 1
        else:
            self._hand_on()

    async def wait(self, seconds: float, elsewhere: Callable[[], _T | None] | None = None) -> _T | None:
        """Wait for a permit and take it: None. The caller has seen that all are taken.

        Args:
            seconds: for how long at most.
            elsewhere: says now and then who else takes the first in line; what it says ends the wait instead of a
                permit. Whoever it named has to count the request before its task waits again: the next one in line is
                asked after that.

        Raises:
            errors.QueueTimeout: none was free in time.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T | None] = loop.create_future()
        self._line[future] = _Wait(loop.time() + seconds, elsewhere)
        if self._timer is None:
            self._plan(loop)
        try:
            return await future
        except asyncio.CancelledError:
            self._line.pop(future, None)
            if future.done() and not future.cancelled() and future.exception() is None and future.result() is None:
                self.release()  # it came at the same moment
            raise

    def expire(self, now: float) -> None:
        """End the waits whose time is up."""
        while self._line:
            future, wait = next(iter(self._line.items()))
            if wait.until > now and not future.done():
                return
            del self._line[future]
            if not future.done():
                future.set_exception(errors.QueueTimeout(retry_after=1))

    def _plan(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the line when its first one's time is up, and before where somebody else may take it."""
        first = next(iter(self._line.values()))
        now = loop.time()
        at = first.until if first.elsewhere is None else min(first.until, now + LOOK_SECONDS)
        self._timer = loop.call_at(at, self.look, loop)

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the waits whose time is up, and let the first one go elsewhere where it can."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.expire(loop.time())
        if not self._line:
            return
        future, first = next(iter(self._line.items()))
        if first.elsewhere is not None and (other := first.elsewhere()) is not None:
            del self._line[future]
            future.set_result(other)
            self._timer = loop.call_soon(self.look, loop)  # after its task, which runs before
        else:
            self._plan(loop)

    def _hand_on(self) -> None:
        """Give a permit that is taken already to the first who waits, or back where nobody does any more."""
        while self._line:
            future, _ = self._line.popitem(last=False)
            if not future.done():
                future.set_result(None)
                return
        self.taken -= 1
