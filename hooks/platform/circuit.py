"""When something that does not answer is left alone: after failures in a row nobody asks for a while, then one does."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

IN_A_ROW: Final = 3
"""Failures by which the circuit opens."""
FIRST_PAUSE: Final = 5.0
"""Seconds for which it is open at first."""
LONGEST_PAUSE: Final = 60.0
"""Seconds at most; every probe that fails doubles them."""


class CircuitState(Enum):
    """What becomes of the next call."""

    CLOSED = "closed"
    OPEN = "open"
    PROBING = "half_open"
    """One call is being made, and what comes of it decides."""


@dataclass(slots=True)
class Circuit:
    """The state, by a clock of seconds that only rise."""

    changed: Callable[[CircuitState], None] = lambda _: None
    """Told of every new state."""
    state: CircuitState = field(default=CircuitState.CLOSED, init=False)
    _failures: int = field(default=0, init=False)
    _pause: float = field(default=FIRST_PAUSE, init=False)
    _until: float = field(default=0.0, init=False)
    _asked_to_wait_until: float = field(default=0.0, init=False)

    def wait(self, now: float) -> float:
        """Seconds until a call may be made; 0 when one may be made now, and then it must be, and be told of."""
        asked = self._asked_to_wait_until - now
        if self.state is CircuitState.CLOSED:
            return max(0.0, asked)
        if self.state is CircuitState.PROBING:
            return FIRST_PAUSE
        wait = max(self._until - now, asked)
        if wait > 0:
            return wait
        self._change(CircuitState.PROBING)
        return 0.0

    def answered(self) -> None:
        """A call had an answer."""
        self._failures, self._pause = 0, FIRST_PAUSE
        self._change(CircuitState.CLOSED)

    def failed(self, now: float) -> None:
        """A call had none."""
        self._failures += 1
        if self.state is CircuitState.PROBING:
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        elif self._failures < IN_A_ROW:
            return
        self._until = now + self._pause
        self._change(CircuitState.OPEN)

    def given_up(self, now: float) -> None:
        """A call ended without anything to be learned of it."""
        if self.state is CircuitState.PROBING:
            self._until = now
            self._change(CircuitState.OPEN)

    def asked_to_wait(self, seconds: float, now: float) -> None:
        """The other side said so."""
        self._asked_to_wait_until = max(self._asked_to_wait_until, now + seconds)

    def _change(self, state: CircuitState) -> None:
        if state is not self.state:
            self.state = state
            self.changed(state)
