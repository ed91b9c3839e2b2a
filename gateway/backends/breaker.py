"""Availability of one backend: its circuit breaker, its cool-down and its health checks.

All times are seconds on a monotonic clock. This module only knows why one backend should get no requests. Whether it
gets one nevertheless, because no other backend is left, is decided in `plan.py`.
"""

from enum import IntEnum, StrEnum
from math import inf
from typing import Final

from gateway.api.v1alpha1 import Breaker

_BUCKETS: Final = 10
"""Parts of the window; counts leave the window one part at a time."""


class UnavailableReason(StrEnum):
    """Why a backend should get no requests, as one word for logs and x-beamlit-reason."""

    COOL_DOWN = "CoolDown"
    """The backend has asked for a pause by Retry-After, which is respected even when no other backend is left."""
    BREAKER_OPEN = "BreakerOpen"
    """The backend failed too often."""
    UNHEALTHY = "Unhealthy"
    """The backend failed its health checks."""


class BreakerState(IntEnum):
    """State of a circuit breaker."""

    CLOSED = 0
    HALF_OPEN = 1
    """The time of the open state is over, and the outcome of a single request decides what comes next."""
    OPEN = 2


class CircuitBreaker:
    """Circuit breaker of one backend, with the backend's cool-down and health.

    While it is closed it counts failures: in a row, and as a share of the requests in a window. While it is open it
    rejects all requests until `open` seconds have passed. Then it lets one request through, the probe, whose outcome
    closes it or opens it again. When a probe has no outcome after `open` seconds, another request becomes the probe.
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
        """Whether the backend is known to be available, so that `unavailable_reason` need not be called."""
        self.cool_until = -inf
        """Time at which the cool-down ends."""
        self._rules = rules
        self._unhealthy = False
        self._probing = False
        self._until = -inf
        """Time at which an open breaker lets a request through."""
        self._opened = inf
        """Time at which the breaker opened; inf while it is closed."""
        self._reset()

    def _reset(self) -> None:
        self._consecutive = 0
        self._scale = _BUCKETS / self._rules.window
        """Parts of the window per second."""
        self._next = 0
        """Number of the part after the current one, counted from the clock's zero."""
        self._successes = 0
        """Successes in the current part, which are not in `_requests` yet."""
        self._requests = [0] * _BUCKETS
        self._failures = [0] * _BUCKETS

    def apply(self, rules: Breaker) -> None:
        """Use other rules from now on. Counts are kept unless the length of the window changes."""
        other = rules.window != self._rules.window
        self._rules = rules
        if other:
            self._reset()

    def state(self, now: float) -> BreakerState:
        """Return the state of the breaker at `now`."""
        if self._opened == inf:
            return BreakerState.CLOSED
        return BreakerState.HALF_OPEN if self._probing or now >= self._until else BreakerState.OPEN

    @property
    def healthy(self) -> bool:
        """Whether the backend passes its health checks; true when it has none."""
        return not self._unhealthy

    def unavailable_reason(self, now: float, *, cools_down: bool = True) -> UnavailableReason | None:
        """Return why the backend should get no request at `now`; None when it is available.

        Without `cools_down` a cool-down does not count.
        """
        if cools_down and now < self.cool_until:
            return UnavailableReason.COOL_DOWN
        if self._opened != inf and now < self._until:
            return UnavailableReason.BREAKER_OPEN
        if self._unhealthy:
            return UnavailableReason.UNHEALTHY
        self._update_usable(now)
        return None

    def begin(self, now: float) -> bool:
        """Note that a request is sent although the backend is not `usable`; return whether it is the probe.

        After a probe, one of `succeeded`, `failed` and `abandoned` has to be called.
        """
        if self._opened == inf or now < self._until:
            return False
        self._probing = True
        self._until = now + self._rules.open
        return True

    def abandoned(self) -> None:
        """Note that the probe ended without an outcome, because its client has gone."""
        self._probing = False
        self._until = -inf

    def succeeded(self, began: float, now: float) -> None:
        """Note a successful response to a request that was sent at `began`."""
        self._consecutive = 0
        if now * self._scale >= self._next:
            self._advance(now)
        self._successes += 1
        if began >= self._opened:
            # It was the probe, or a request that was sent because there was no other backend.
            self._opened, self._until = inf, -inf
            self._probing = False
            self._reset()
            self._update_usable(now)

    def failed(self, now: float, *, probe: bool = False) -> None:
        """Note that a request failed; `probe` tells whether it was the probe."""
        rules = self._rules
        self._consecutive += 1
        if now * self._scale >= self._next:
            self._advance(now)
        index = (self._next - 1) % _BUCKETS
        self._requests[index] += 1
        self._failures[index] += 1
        if probe:
            self._probing = False
            self._open(now)
        elif self._opened == inf and (self._consecutive >= rules.consecutive_failures or self._fails_too_often(rules)):
            self._open(now)

    def cool_down(self, until: float) -> None:
        """Start a cool-down that ends at `until`; of two cool-downs the longer one counts."""
        self.cool_until = max(self.cool_until, until)
        self.usable = False

    @property
    def is_new(self) -> bool:
        """Whether no request has had an outcome yet."""
        return self._next == 0

    def try_again(self) -> None:
        """Let the next request through an open breaker as a probe: what its failures rest on has changed."""
        self.abandoned()

    def report(self, *, healthy: bool, now: float) -> None:
        """Note whether the backend passes its health checks."""
        self._unhealthy = not healthy
        self._update_usable(now)

    def _open(self, now: float) -> None:
        self._opened = now
        self._until = now + self._rules.open
        self.usable = False

    def _update_usable(self, now: float) -> None:
        self.usable = self._opened == inf and now >= self.cool_until and not self._unhealthy

    def _fails_too_often(self, rules: Breaker) -> bool:
        requests = sum(self._requests) + self._successes
        return requests >= rules.minimum and sum(self._failures) * 100 >= rules.error_percentage * requests

    def _advance(self, now: float) -> None:
        """Begin the part of the window that `now` is in; counts as old as the window are dropped."""
        part = int(now * self._scale)
        self._requests[(self._next - 1) % _BUCKETS] += self._successes
        self._successes = 0
        for one in range(max(self._next, part - _BUCKETS + 1), part + 1):
            self._requests[one % _BUCKETS] = self._failures[one % _BUCKETS] = 0
        self._next = part + 1
