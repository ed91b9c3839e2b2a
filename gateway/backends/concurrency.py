"""Limit of requests in flight at one backend, and the queue of requests that wait for a slot.

A request holds a slot from the beginning of an attempt to the end of the response. Waiting requests form a queue: the
first one gets the slot that is released, so no later request overtakes it. One timer for the whole queue ends waits
that take too long, and checks whether another backend can take the first request.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from math import inf
from typing import Any, Final, NamedTuple, TypeVar

from gateway import errors

CHECK_SECONDS: Final = 0.1
"""Seconds between two checks whether another backend takes the first waiting request."""

_T = TypeVar("_T")


class _Waiter(NamedTuple):
    until: float
    """Time on the loop's clock at which the wait ends."""
    alternative: Callable[[], object] | None


class ConcurrencyLimit:
    """Limit of requests in flight at one backend, with its queue."""

    __slots__ = ("_queue", "_timer", "limit", "taken")

    def __init__(self) -> None:
        self.limit: float = inf
        """Slots of the backend; inf without a limit. No request waits while a slot is free."""
        self.taken = 0
        """Slots in use; above the limit for a while after the limit was lowered."""
        self._queue: OrderedDict[asyncio.Future[Any], _Waiter] = OrderedDict()
        """Waiting requests, in the order in which they came."""
        self._timer: asyncio.Handle | None = None

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        return len(self._queue)

    def apply(self, limit: int | None) -> None:
        """Allow `limit` requests in flight from now on; None allows any number."""
        self.limit = inf if limit is None else limit
        while self._queue and self.taken < self.limit:
            self.taken += 1
            self._pass_on()

    def release(self) -> None:
        """Release a slot: pass it on to the first waiting request, or free it."""
        if not self._queue or self.taken > self.limit:
            self.taken -= 1
        else:
            self._pass_on()

    async def wait(self, seconds: float, alternative: Callable[[], _T | None] | None = None) -> _T | None:
        """Wait for a slot and take it, then return None. The caller has seen that all slots are taken.

        Args:
            seconds: Longest time to wait.
            alternative: Called now and then for the first request in the queue. When it returns something, for
                instance another backend, the wait ends with it and without a slot. The task has to take a slot there
                before it waits for anything else: the next request in the queue is checked right after that.

        Raises:
            errors.QueueTimeout: No slot was free in time.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T | None] = loop.create_future()
        self._queue[future] = _Waiter(loop.time() + seconds, alternative)
        if self._timer is None:
            self._schedule(loop)
        try:
            return await future
        except asyncio.CancelledError:
            self._queue.pop(future, None)
            if future.done() and not future.cancelled() and future.exception() is None and future.result() is None:
                self.release()  # the slot came at the same moment
            raise

    def expire(self, now: float) -> None:
        """End the waits whose time is over at `now`."""
        while self._queue:
            future, waiter = next(iter(self._queue.items()))
            if waiter.until > now and not future.done():
                return
            del self._queue[future]
            if not future.done():
                future.set_exception(errors.QueueTimeout(retry_after=1))

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule the next check: when the first wait ends, or earlier when another backend may take the request."""
        first = next(iter(self._queue.values()))
        now = loop.time()
        at = first.until if first.alternative is None else min(first.until, now + CHECK_SECONDS)
        self._timer = loop.call_at(at, self.check, loop)

    def check(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the waits whose time is over, and let the first request go to another backend where that is possible."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.expire(loop.time())
        if not self._queue:
            return
        future, first = next(iter(self._queue.items()))
        if first.alternative is not None and (other := first.alternative()) is not None:
            del self._queue[future]
            future.set_result(other)
            self._timer = loop.call_soon(self.check, loop)  # runs after the task of that request
        else:
            self._schedule(loop)

    def _pass_on(self) -> None:
        """Pass a taken slot on to the first request that still waits, or free it when there is none."""
        while self._queue:
            future, _ = self._queue.popitem(last=False)
            if not future.done():
                future.set_result(None)
                return
        self.taken -= 1
