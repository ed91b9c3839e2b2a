"""A work queue with client-go's semantics: one worker per key at a time, delays, and backoff per key.

A key that is added while it is worked on comes again afterwards. Of two delayed entries the earlier wins.
"""

import asyncio
from collections import Counter, deque
from typing import Final, Generic, TypeVar

K = TypeVar("K")

BASE_DELAY: Final = 0.005
"""Seconds before the first retry. They double each time (client-go ItemExponentialFailureRateLimiter)."""
MAX_DELAY: Final = 1000.0
"""Longest wait between two tries, in seconds."""


class WorkQueue(Generic[K]):
    """A queue of keys that wait for work, used on one event loop."""

    def __init__(self) -> None:
        """Create an empty queue."""
        self._ready: deque[K] = deque()
        self._dirty: set[K] = set()
        self._processing: set[K] = set()
        self._delayed: dict[K, asyncio.TimerHandle] = {}
        self._failures: Counter[K] = Counter()
        self._wake = asyncio.Event()

    @property
    def idle(self) -> bool:
        """Return whether nothing waits and nothing is worked on. Delayed keys do not count."""
        return not self._dirty and not self._processing

    @property
    def failing(self) -> tuple[K, ...]:
        """Return the keys whose last try failed."""
        return tuple(self._failures)

    def add(self, key: K) -> None:
        """Queue a key."""
        if key in self._dirty:
            return
        self._dirty.add(key)
        if key not in self._processing:
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Queue a key after a delay in seconds. An earlier delayed entry stays."""
        if seconds <= 0:
            self.add(key)
            return
        loop = asyncio.get_running_loop()
        due = loop.time() + seconds
        if (waiting := self._delayed.get(key)) is not None:
            if waiting.when() <= due:
                return
            waiting.cancel()
        self._delayed[key] = loop.call_at(due, self._expire, key)

    def add_rate_limited(self, key: K) -> float:
        """Queue a failed key again, each time later. Return the delay in seconds."""
        delay = min(BASE_DELAY * 2.0 ** min(self._failures[key], 60), MAX_DELAY)
        self._failures[key] += 1
        self.add_after(key, delay)
        return delay

    def forget(self, key: K) -> None:
        """Reset the delay of a key that succeeded."""
        self._failures.pop(key, None)

    async def get(self) -> K:
        """Wait for the next key and return it. Call `done` afterwards."""
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = self._ready.popleft()
        self._dirty.discard(key)
        self._processing.add(key)
        return key

    def done(self, key: K) -> None:
        """Mark a key as no longer worked on."""
        self._processing.discard(key)
        if key in self._dirty:
            self._ready.append(key)
            self._wake.set()

    def close(self) -> None:
        """Drop all delayed entries."""
        for handle in self._delayed.values():
            handle.cancel()
        self._delayed.clear()

    def _expire(self, key: K) -> None:
        self._delayed.pop(key, None)
        self.add(key)
