"""Limit of streams in flight at one backend, which moves so that their first events come in time.

What counts is which part of the first events is late. A verdict is passed on those of one window: at least a second
long, and at least twenty first events. Where more than a tenth is late and the limit was used, it becomes four fifths;
otherwise it grows by one where it was used. Only requests that were sent after the last cut are evidence for the next
one, so a limit is not cut twice for one queue, and a request that was alone at the backend is never evidence: no other
request made it wait.

A limit that was not used says nothing about the backend, and late events may come from long prompts. So then it takes
more than half of the first events, and the limit comes down to four fifths of what was in flight. In this way a limit
that was set far above what the backend can do finds its place when the first queue forms.

Where the limit was cut once, it will be late again. So after each cut it stays just below that number for twice as many
windows as before, eight at most, until it holds there: otherwise each visit would make streams late for nothing.
"""

from collections import OrderedDict
from typing import Final, NamedTuple

LEAST_EVENTS: Final = 20
"""Number of first events in a window at least."""
LEAST_SECONDS: Final = 1.0
"""Seconds of a window at least."""


MOST_PATIENCE: Final = 8
"""Number of windows for which the limit stays at most one below where it was cut."""


class Move(NamedTuple):
    """A change of a limit, and what it rests on."""

    at: float
    """Time of the change, on the clock of the caller."""
    before: int
    after: int
    late: int
    """Number of late first events in the window."""
    events: int
    """Number of all first events in the window."""


class Admission:
    """A stream that was sent to the backend."""

    __slots__ = ("alone", "at", "cuts")

    def __init__(self, at: float, cuts: int, *, alone: bool) -> None:
        self.at = at
        """Time at which it was sent."""
        self.cuts = cuts
        """Number of cuts of the limit before that."""
        self.alone = alone
        """Whether there was no other request at the backend."""


class StreamLimit:
    """Limit of streams in flight at one backend. All times are seconds on one clock that never goes back."""

    __slots__ = ("_calm", "_due", "_events", "_failed", "_late", "_most", "_patience", "_since", "_waiting",
                 "ceiling", "cuts", "last", "limit", "raises", "target")  # fmt: skip

    def __init__(self, target: float, ceiling: int) -> None:
        """Begin with as many streams as there may ever be.

        Args:
            target: Seconds within which the first event of a stream has to come.
            ceiling: Streams in flight that there may be at most.
        """
        self.target = target
        self.ceiling = ceiling
        self.limit = ceiling
        """Streams in flight that there may be now, at least 1."""
        self.cuts = 0
        """Number of times that the limit was cut."""
        self.raises = 0
        """Number of times that the limit was raised."""
        self.last: Move | None = None
        """Last change of the limit; None while it is as it began."""
        self._waiting: OrderedDict[Admission, bool] = OrderedDict()
        """Streams without a first event that are not late yet, in the order in which they were sent."""
        self._due = 0.0
        """Time before which none of them is late."""
        self._since = 0.0
        """Beginning of the window."""
        self._events = 0
        """Number of first events in the window; a stream that is late counts before its event comes."""
        self._late = 0
        """Number of these that speak against the limit."""
        self._most = 0
        """Largest number of streams in flight in the window."""
        self._failed = 0
        """Number of streams in flight at which the limit was cut last."""
        self._patience = 1
        """Number of windows for which the limit stays one below that before it is raised to it again."""
        self._calm = 0
        """Number of these windows that have passed."""

    def apply(self, target: float, ceiling: int) -> None:
        """Obey another target and ceiling from now on. A limit that was at its ceiling stays there."""
        self.target = target
        self.limit = ceiling if self.limit == self.ceiling else min(self.limit, ceiling)
        self.ceiling = ceiling
        self._due = 0.0

    def is_reached(self, now: float, in_flight: int) -> bool:
        """Return whether there may be no further stream beside those in flight."""
        if now > self._due:
            self.look(now)
        return in_flight >= self.limit

    def admit(self, now: float, in_flight: int, *, alone: bool) -> Admission:
        """Take note of a stream that is sent to the backend; return what stands for it.

        Args:
            now: Present time.
            in_flight: Streams in flight, this one included.
            alone: Whether there is no other request at the backend.
        """
        if now > self._due:
            self.look(now)
        if in_flight > self._most:
            self._most = in_flight
        admission = Admission(now, self.cuts, alone=alone)
        self._waiting[admission] = True
        return admission

    def first_event(self, admission: Admission, now: float) -> None:
        """Take note of the first event of a stream."""
        if now > self._due:
            self.look(now)
        if self._waiting.pop(admission, False):
            self._count(admission, now, late=False)

    def end(self, admission: Admission, now: float) -> None:
        """Take note of the end of a stream. One that ends without an event says something only where it was late."""
        if now > self._due:
            self.look(now)
        self._waiting.pop(admission, False)

    def look(self, now: float) -> None:
        """Count the streams that have become late."""
        waiting = self._waiting
        while waiting:
            first = next(iter(waiting))
            due = first.at + self.target
            if now <= due:
                self._due = due
                return
            del waiting[first]
            self._count(first, now, late=True)
        self._due = now + self.target

    def _count(self, admission: Admission, now: float, *, late: bool) -> None:
        """Count a first event, and pass a verdict where there is enough evidence."""
        if admission.cuts != self.cuts:
            return
        self._events += 1
        if late and not admission.alone:
            self._late += 1
        if now - self._since < LEAST_SECONDS:
            return
        late_events, events = self._late, self._events
        used = self._most >= self.limit
        # What is more than a tenth of twenty stays it, whatever the rest of the window is like.
        enough = max(events, LEAST_EVENTS)
        if late_events * (10 if used else 2) > enough:
            self._cut(now, min(self._most, self.limit))
        elif events >= LEAST_EVENTS:
            if used and late_events * 10 <= events:
                self._passed(now)
            self._begin(now)

    def _passed(self, now: float) -> None:
        """Raise the limit after a window in which it was used and first events came in time."""
        limit = self.limit
        if limit >= self._failed:
            self._patience = 1
        elif limit == self._failed - 1:
            self._calm += 1
            if self._calm < self._patience:
                return
        self._calm = 0
        if limit < self.ceiling:
            self.last = Move(now, limit, limit + 1, self._late, self._events)
            self.limit = limit + 1
            self.raises += 1

    def _cut(self, now: float, used: int) -> None:
        """Cut the limit to four fifths of what was used of it."""
        after = max(1, used * 4 // 5)
        if after < self.limit:
            self.last = Move(now, self.limit, after, self._late, self._events)
            self.limit = after
            self.cuts += 1
            self._failed = used
            self._patience = min(self._patience * 2, MOST_PATIENCE)
            self._calm = 0
        self._begin(now)

    def _begin(self, now: float) -> None:
        """Begin a window."""
        self._since = now
        self._events = self._late = self._most = 0
