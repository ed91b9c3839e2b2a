"""Slots for streams at a backend: a limit that moves by the times of first events, with the queue of those that wait.

A stream also holds a slot of the limit for all requests, which is the ceiling of this one.
"""

from gateway.backends.concurrency import ConcurrencyLimit
from gateway.backends.stream_limit import Admission, StreamLimit


class StreamSlots:
    """Slots for streams at one backend. All times are seconds on one clock that never goes back."""

    __slots__ = ("limit", "queue")

    def __init__(self, target: float, ceiling: int) -> None:
        self.limit = StreamLimit(target, ceiling)
        self.queue = ConcurrencyLimit()
        self.queue.apply(ceiling)

    def apply(self, target: float, ceiling: int) -> None:
        """Obey another target and ceiling from now on."""
        self.limit.apply(target, ceiling)
        self.queue.apply(self.limit.limit)

    def open(self) -> None:
        """Let all that wait go on: there is no limit any more."""
        self.queue.apply(None)

    def is_full(self, now: float) -> bool:
        """Return whether a further stream has to wait or to go elsewhere."""
        is_full = self.limit.is_reached(now, self.queue.taken)
        self.follow()
        return is_full

    def follow(self) -> None:
        """Allow as many streams as the limit says by now."""
        if self.queue.limit != self.limit.limit:
            self.queue.apply(self.limit.limit)


class StreamSlot:
    """Slot that one request holds."""

    __slots__ = ("_admission", "slots")

    def __init__(self, slots: StreamSlots, *, from_queue: bool = False) -> None:
        """Take a slot; one that was waited for is taken already."""
        self.slots = slots
        self._admission: Admission | None = None
        if not from_queue:
            slots.queue.taken += 1

    def sent(self, now: float, *, alone: bool) -> None:
        """Take note that the request is sent to the backend, where it may be alone."""
        self._end(now)
        self._admission = self.slots.limit.admit(now, self.slots.queue.taken, alone=alone)
        self.slots.follow()

    def first_event(self, now: float) -> None:
        """Take note of the first event of the response."""
        if self._admission is not None:
            self.slots.limit.first_event(self._admission, now)
            self._admission = None
            self.slots.follow()

    def release(self, now: float) -> None:
        """Release the slot."""
        self._end(now)
        self.slots.queue.release()

    def _end(self, now: float) -> None:
        if self._admission is not None:
            self.slots.limit.end(self._admission, now)
            self._admission = None
            self.slots.follow()
