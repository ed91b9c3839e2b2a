"""When a source that does not answer is left alone: one asks, the others are told at once what the last one learned.

An outage is that of one api in one namespace: one namespace's slow queries do not take the metrics of others away.
"""

from dataclasses import dataclass
from typing import Final

from hooks.clients.errors import Trouble
from hooks.observation.readings import Unread

IN_A_ROW: Final = 3
"""Silences by which a source counts as gone. A single one may be the fault of its question."""


@dataclass(slots=True)
class Outage:
    """What is known of a source's trouble."""

    pause: float
    """Seconds between two attempts."""
    _failures: int = 0
    _answered: float = float("-inf")
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

    def learn(self, trouble: Trouble, unread: Unread | None, started: float, now: float) -> None:
        """An attempt has ended, with this trouble and what is to be said of it."""
        if trouble is Trouble.NONE:
            self._failures, self._unread, self._answered = 0, None, now
            return
        if trouble is Trouble.SILENT and started <= self._answered:
            return  # it answers others meanwhile: there were too many questions, or this one was too much
        self._failures += 1
        if trouble is Trouble.GONE or self._failures >= IN_A_ROW or self._unread is not None:
            self._unread, self._until = unread, now + self.pause
