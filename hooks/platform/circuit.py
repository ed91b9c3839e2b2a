"""Circuit breaker: after several failures in a row no call is made for a while, and then one call probes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final

IN_A_ROW: Final = 3
"""Failures in a row that open the circuit."""
FIRST_PAUSE: Final = 5.0
"""Seconds for which the circuit stays open at first."""
LONGEST_PAUSE: Final = 60.0
"""Most seconds for which the circuit stays open. Each failed probe doubles them until they are this many."""


class CircuitState(Enum):
    """State of the circuit, which decides whether the next call is made."""

    CLOSED = "closed"
    """Calls are made."""
    OPEN = "open"
    """No call is made until the pause is over."""
    PROBING = "half_open"
    """One call is under way, and its outcome closes or opens the circuit. No other call is made."""


@dataclass(slots=True)
class Circuit:
    """The circuit of one server. Times are seconds of a monotonic clock."""

    changed: Callable[[CircuitState], None] = lambda _: None
    """Function that is called with every new state."""
    state: CircuitState = field(default=CircuitState.CLOSED, init=False)
    _failures: int = field(default=0, init=False)
    _pause: float = field(default=FIRST_PAUSE, init=False)
    _until: float = field(default=0.0, init=False)
    _asked_to_wait_until: float = field(default=0.0, init=False)

    def wait(self, now: float) -> float:
        """Return the seconds until a call may be made.

        After 0 the caller must make the call and report its outcome by `responded`, `failed` or `given_up`.
        """
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

    def responded(self) -> None:
        """Close the circuit: a call got a response."""
        self._failures, self._pause = 0, FIRST_PAUSE
        self._change(CircuitState.CLOSED)

    def failed(self, now: float) -> None:
        """Count a call that got no response, and open the circuit when it was a probe or one too many."""
        self._failures += 1
        if self.state is CircuitState.PROBING:
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)
        elif self._failures < IN_A_ROW:
            return
        self._until = now + self._pause
        self._change(CircuitState.OPEN)

    def given_up(self, now: float) -> None:
        """End a call of which nothing was learned. After a probe the next call probes at once."""
        if self.state is CircuitState.PROBING:
            self._until = now
            self._change(CircuitState.OPEN)

    def asked_to_wait(self, seconds: float, now: float) -> None:
        """Make no call for this many seconds, because the server asked for it."""
        self._asked_to_wait_until = max(self._asked_to_wait_until, now + seconds)

    def _change(self, state: CircuitState) -> None:
        if state is not self.state:
            self.state = state
            self.changed(state)
