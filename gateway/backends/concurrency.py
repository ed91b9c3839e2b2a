"""Limit of requests in flight at one backend, and the queue of requests that wait for a slot.

A request holds a slot from the beginning of an attempt to the end of the response. Waiting requests form a queue: the
first one gets the slot that is released, so no later request overtakes it. Those of high priority form a queue of their
own, which comes first, but not for ever: see `HIGH_IN_A_ROW`. One timer for both queues ends waits that take too long,
and checks whether another backend can take the next request.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, Final, NamedTuple, TypeVar

from gateway import errors

CHECK_SECONDS: Final = 0.1
"""Seconds between two checks whether another backend takes the next waiting request."""
HIGH_IN_A_ROW: Final = 4
"""Slots in a row that requests of high priority get while others wait; the next one is for the first of the others."""
NORMAL_SHARE: Final = 5
"""Part of the places in the queue, one in so many, that requests of high priority do not take from others."""

_T = TypeVar("_T")


class _Waiter(NamedTuple):
    until: float
    """Time on the loop's clock at which the wait ends."""
    alternative: Callable[[], object] | None


class ConcurrencyLimit:
    """Limit of requests in flight at one backend, with its queue."""

    __slots__ = ("_high", "_queue", "_row", "_timer", "limit", "taken")

    def __init__(self) -> None:
        self.limit: float = inf
        """Slots of the backend; inf without a limit. No request waits while a slot is free."""
        self.taken = 0
        """Slots in use; above the limit for a while after the limit was lowered."""
        self._queue: OrderedDict[asyncio.Future[Any], _Waiter] = OrderedDict()
        """Waiting requests of normal priority, in the order in which they came."""
        self._high: OrderedDict[asyncio.Future[Any], _Waiter] = OrderedDict()
        """Waiting requests of high priority, in the order in which they came."""
        self._row = 0
        """Slots that requests of high priority got in a row while others waited."""
        self._timer: asyncio.Handle | None = None

    @property
    def waiting(self) -> int:
        """Number of waiting requests."""
        return len(self._queue) + len(self._high)

    @property
    def waiting_high(self) -> int:
        """Number of waiting requests of high priority."""
        return len(self._high)

    def apply(self, limit: int | None) -> None:
        """Allow `limit` requests in flight from now on; None allows any number."""
        self.limit = inf if limit is None else limit
        while (self._queue or self._high) and self.taken < self.limit:
            self.taken += 1
            self._pass_on()

    def release(self) -> None:
        """Release a slot: pass it on to the first waiting request, or free it."""
        if not (self._queue or self._high) or self.taken > self.limit:
            self.taken -= 1
        else:
            self._pass_on()

    async def wait(
        self, seconds: float, alternative: Callable[[], _T | None] | None = None, *, high: bool = False
    ) -> _T | None:
        """Wait for a slot and take it, then return None. The caller has seen that all slots are taken.

        Args:
            seconds: Longest time to wait.
            alternative: Called now and then for the next request of the queue. When it returns something, for
                instance another backend, the wait ends with it and without a slot. The task has to take a slot there
                before it waits for anything else: the request behind it is checked right after that.
            high: Whether the request has high priority.

        Raises:
            errors.QueueTimeout: No slot was free in time.
            errors.AtCapacity: The place in the queue went to a request of another priority.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[_T | None] = loop.create_future()
        queue = self._high if high else self._queue
        queue[future] = _Waiter(loop.time() + seconds, alternative)
        if self._timer is None:
            self._schedule(loop)
        elif high and len(queue) == 1:  # it is before the one that the timer is for
            self._timer.cancel()
            self._schedule(loop)
        try:
            return await future
        except asyncio.CancelledError:
            queue.pop(future, None)
            if future.done() and not future.cancelled() and future.exception() is None and future.result() is None:
                self.release()  # the slot came at the same moment
            raise

    def expire(self, now: float) -> None:
        """End the waits whose time is over at `now`."""
        for queue in (self._high, self._queue):
            while queue:
                future, waiter = next(iter(queue.items()))
                if waiter.until > now and not future.done():
                    break
                del queue[future]
                if not future.done():
                    future.set_exception(errors.QueueTimeout(retry_after=1))

    def evict(self, *, high: bool) -> bool:
        """End the wait of the last request of a priority; return whether one waits."""
        queue = self._high if high else self._queue
        while queue:
            future, _ = queue.popitem(last=True)
            if not future.done():
                future.set_exception(errors.AtCapacity(retry_after=1))
                return True
        return False

    def _schedule(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule the next check: when the first wait ends, or earlier when another backend may take the request."""
        at = min(next(iter(queue.values())).until for queue in (self._high, self._queue) if queue)
        if next(iter(self._next().values())).alternative is not None:
            at = min(at, loop.time() + CHECK_SECONDS)
        self._timer = loop.call_at(at, self.check, loop)

    def check(self, loop: asyncio.AbstractEventLoop) -> None:
        """End the waits whose time is over, and let the next request go to another backend where that is possible."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.expire(loop.time())
        if not (self._queue or self._high):
            return
        queue = self._next()
        future, first = next(iter(queue.items()))
        if first.alternative is not None and (other := first.alternative()) is not None:
            del queue[future]
            future.set_result(other)
            self._timer = loop.call_soon(self.check, loop)  # runs after the task of that request
        else:
            self._schedule(loop)

    def _pass_on(self) -> None:
        """Pass a taken slot on to the next request that still waits, or free it when there is none."""
        while self._queue or self._high:
            queue = self._next()
            future, _ = queue.popitem(last=False)
            if not future.done():
                self._row = self._row + 1 if queue is self._high and self._queue else 0
                future.set_result(None)
                return
        self.taken -= 1

    def _next(self) -> OrderedDict[asyncio.Future[Any], _Waiter]:
        """Return the queue whose first request gets the next slot; one of both is not empty."""
        if self._high and (self._row < HIGH_IN_A_ROW or not self._queue):
            return self._high
        return self._queue


def make_room(limits: Sequence[ConcurrencyLimit], places: int, *, high: bool) -> bool:
    """Make room for one more request in a full queue; return whether there is room now.

    A request of high priority takes the place of the last normal one while these have more than their share of the
    places, and a normal request that of the last high one while those have more than the rest.

    Args:
        limits: Limits at which the requests of the queue wait.
        places: Places of the queue.
        high: Whether the request that comes has high priority.
    """
    waiting_high = sum(one.waiting_high for one in limits)
    if high:
        others, kept = sum(one.waiting for one in limits) - waiting_high, places // NORMAL_SHARE
    else:
        others, kept = waiting_high, places - places // NORMAL_SHARE
    return others > kept and any(one.evict(high=not high) for one in limits)
