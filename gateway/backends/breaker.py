"""Whether a backend may be asked: its breaker, the pause it has asked for, and what health checks say.

All times are seconds on a clock that does not go back. Who excludes whom, and that somebody is always left, is decided
where backends are chosen; here is only what speaks against one of them.
"""

from enum import IntEnum, StrEnum
from math import inf
from typing import Final

from gateway.api.v1alpha1 import Breaker

_BUCKETS: Final = 10
"""Parts of the window: what leaves it, leaves it by parts."""


class Objection(StrEnum):
    """What speaks against asking a backend; as one word for logs and x-beamlit-reason."""

    COOL_DOWN = "CoolDown"
    """It has asked for a pause (Retry-After). It is respected whoever is left."""
    BREAKER_OPEN = "BreakerOpen"
    """It failed too often."""
    UNHEALTHY = "Unhealthy"
    """It failed its health checks."""


class BreakerState(IntEnum):
    """Of a breaker."""

    CLOSED = 0
    HALF_OPEN = 1
    """The time is up, and a single request shows how the backend is."""
    OPEN = 2


class CircuitBreaker:
    """What is known of one backend.

    Closed, it counts failures: in a row, and as a share of the requests in a window. Open, it objects to every request
    until `open` seconds have passed; then to every one but the first, whose outcome closes it or opens it again.
    One that has no outcome after as many seconds is no longer waited for, and another one decides.
    """

    __slots__ = (
        "_consecutive",
        "_failures",
        "_next",
        "_opened",
        "_probing",
        "_requests",
        "_rules",
        "_scale",
        "_successes",
        "_unhealthy",
        "_until",
        "cool_until",
        "usable",
    )

    def __init__(self, rules: Breaker) -> None:
        self.usable = True
        """Whether nothing speaks against it: there is no need to ask."""
        self.cool_until = -inf
        """When the pause that it has asked for ends."""
        self._rules = rules
        self._unhealthy = False
        self._probing = False
        self._until = -inf
        """When an open breaker lets a request through."""
        self._opened = inf
        """When it opened; inf while it is closed."""
        self._reset()

    def _reset(self) -> None:
        self._consecutive = 0
        self._scale = _BUCKETS / self._rules.window
        """Parts of the window per second."""
        self._next = 0
        """Number of the part after the present one, counted from the clock's zero."""
        self._successes = 0
        """In the present part; they are not among its requests yet."""
        self._requests = [0] * _BUCKETS
        self._failures = [0] * _BUCKETS

    def apply(self, rules: Breaker) -> None:
        """Go by other rules from now on. What was counted stays, unless the window is another one."""
        other = rules.window != self._rules.window
        self._rules = rules
        if other:
            self._reset()

    def state(self, now: float) -> BreakerState:
        """Of the breaker."""
        if self._opened == inf:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._probing or now >= self._until else BreakerState.OPEN

    @property
    def healthy(self) -> bool:
        """What health checks say; true without any."""
        return not self._unhealthy

    def objection(self, now: float) -> Objection | None:
        """What speaks against one more request."""
        if now < self.cool_until:
            return Objection.COOL_DOWN
        if self._opened != inf and now < self._until:
            return Objection.BREAKER_OPEN
        if self._unhealthy:
            return Objection.UNHEALTHY
        self._look(now)
        return None

    def begin(self, now: float) -> bool:
        """A request that may not be `usable` is sent. Whether it is the one that decides on an open breaker.

        After it there has to be one of `succeeded`, `failed` and `abandoned`.
        """
        if self._opened == inf or now < self._until:
            return False
        self._probing = True
        self._until = now + self._rules.open
        return True

    def abandoned(self) -> None:
        """The deciding request ended without a verdict: the client has gone."""
        self._probing = False
        self._until = -inf

    def succeeded(self, began: float, now: float) -> None:
        """A request that began at `began` was answered."""
        self._consecutive = 0
        if now * self._scale >= self._next:
            self._move(now)
        self._successes += 1
        if began >= self._opened:
            # The deciding one, or one that was sent because there was nobody else.
            self._opened, self._until = inf, -inf
            self._probing = False
            self._reset()
            self._look(now)

    def failed(self, now: float, *, probe: bool = False) -> None:
        """A request failed; `probe`: the deciding one."""
        rules = self._rules
        self._consecutive += 1
        if now * self._scale >= self._next:
            self._move(now)
        place = (self._next - 1) % _BUCKETS
        self._requests[place] += 1
        self._failures[place] += 1
        if probe:
            self._probing = False
            self._open(now)
        elif self._opened == inf and (self._consecutive >= rules.consecutive_failures or self._fails_too_often(rules)):
            self._open(now)

    def cool_down(self, until: float) -> None:
        """The backend asks for a pause; of two the longer one counts."""
        self.cool_until = max(self.cool_until, until)
        self.usable = False

    def report(self, *, healthy: bool, now: float) -> None:
        """What health checks say by now."""
        self._unhealthy = not healthy
        self._look(now)

    def _open(self, now: float) -> None:
        self._opened = now
        self._until = now + self._rules.open
        self.usable = False

    def _look(self, now: float) -> None:
        self.usable = self._opened == inf and now >= self.cool_until and not self._unhealthy

    def _fails_too_often(self, rules: Breaker) -> bool:
        requests = sum(self._requests) + self._successes
        return requests >= rules.minimum and sum(self._failures) * 100 >= rules.error_percentage * requests

    def _move(self, now: float) -> None:
        """Begin a part of the window: what is as old as the window leaves it."""
        part = int(now * self._scale)
        self._requests[(self._next - 1) % _BUCKETS] += self._successes
        self._successes = 0
        for one in range(max(self._next, part - _BUCKETS + 1), part + 1):
            self._requests[one % _BUCKETS] = self._failures[one % _BUCKETS] = 0
        self._next = part + 1
