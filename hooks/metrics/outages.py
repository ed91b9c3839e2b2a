"""Outages of sources: while a source does not respond, one call in a while tries it, and all others fail at once.

An outage belongs to one API and one namespace: slow queries of a namespace do not take the metrics of others away.
"""

from dataclasses import dataclass
from typing import Final

from hooks.clients.errors import Trouble
from hooks.observation.readings import Unread

IN_A_ROW: Final = 3
"""Calls in a row without a response after which a source counts as gone. A single one may be the fault of its query."""


@dataclass(slots=True)
class Outage:
    """The failures of one source, and the time of the next attempt."""

    pause: float
    """Seconds between two attempts."""
    _failures: int = 0
    _responded: float = float("-inf")
    _until: float = 0.0
    _unread: Unread | None = None

    def unread(self, now: float) -> Unread | None:
        """Return the failure that stands for a call; None when the source is to be called, as once in each pause."""
        if self._unread is None:
            return None
        if now < self._until:
            return self._unread
        self._until = now + self.pause
        return None

    def learn(self, trouble: Trouble, unread: Unread | None, started: float, now: float) -> None:
        """Take note of the end of a call.

        Args:
            trouble: what the call says about the source.
            unread: the failure of the call, if it failed.
            started: time at which the call began.
            now: the present.
        """
        if trouble is Trouble.NONE:
            self._failures, self._unread, self._responded = 0, None, now
            return
        if trouble is Trouble.SILENT and started <= self._responded:
            return  # it has responded to others meanwhile: there were too many queries, or this one was too costly
        self._failures += 1
        if trouble is Trouble.GONE or self._failures >= IN_A_ROW or self._unread is not None:
            self._unread, self._until = unread, now + self.pause
