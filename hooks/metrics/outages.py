"""When a source that does not answer is left alone: one asks, the others are told at once what the last one learned.

An outage is that of one api in one namespace: one namespace's slow queries do not take the metrics of others away.
"""

from dataclasses import dataclass
from typing import Final

from hooks.readings import Unread

TIMEOUTS: Final = 3
"""In a row, by which a source counts as gone. A single one may be the fault of its query."""


@dataclass(slots=True)
class Outage:
    """What is known of a source's trouble."""

    pause: float
    """Seconds between two attempts."""
    _failures: int = 0
    _until: float = 0.0
    _unread: Unread | None = None

    def answer(self, now: float) -> Unread | None:
        """What to say instead of asking; None when it should be asked, which is for one caller in each pause."""
        if self._unread is None:
            return None
        if now < self._until:
            return self._unread
        self._until = now + self.pause
        return None

    def over(self) -> None:
        """The source has answered."""
        self._failures, self._unread = 0, None

    def again(self, unread: Unread, now: float, *, at_once: bool) -> None:
        """The source did not answer; `at_once` when it cannot even be reached."""
        self._failures += 1
        if at_once or self._failures >= TIMEOUTS or self._unread is not None:
            self._unread, self._until = unread, now + self.pause
