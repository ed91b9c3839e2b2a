"""Availability of a backend: circuit breaker, cool-down and health."""

from collections import deque
from math import inf

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule

from gateway.api.v1alpha1 import Breaker
from gateway.backends.breaker import BreakerState, CircuitBreaker, UnavailableReason

RULES = Breaker(consecutive_failures=3, error_percentage=50, minimum=10, window=10, open=5)


def opened(now: float = 100.0) -> CircuitBreaker:
    """Return a breaker that has just opened."""
    breaker = CircuitBreaker(RULES)
    for _ in range(3):
        breaker.failed(now)
    return breaker


def test_failures_in_a_row_open_the_breaker() -> None:
    """Three failures in a row open the breaker; a success in between starts the count anew."""
    breaker = CircuitBreaker(RULES)
    for _ in range(20):
        breaker.failed(0.0)
        breaker.failed(0.0)
        breaker.succeeded(0.0, 0.0)
        breaker.succeeded(0.0, 0.0)
        breaker.succeeded(0.0, 0.0)
    assert breaker.usable
    assert breaker.unavailable_reason(0.0) is None
    for left in (2, 1, 0):
        breaker.failed(0.0)
        assert breaker.usable == bool(left)
    assert breaker.unavailable_reason(4.9) is UnavailableReason.BREAKER_OPEN
    assert breaker.state(4.9) is BreakerState.OPEN


def test_a_share_of_failures_opens_the_breaker() -> None:
    """Five failures of ten requests open the breaker, of nine they do not; outcomes outside the window do not count."""
    breaker = CircuitBreaker(RULES)
    for _ in range(4):
        breaker.failed(0.0)
        breaker.succeeded(0.0, 0.0)
    breaker.failed(0.0)
    assert breaker.usable
    breaker.succeeded(0.0, 10.0)  # the others have left the window
    breaker.failed(10.0)
    assert breaker.usable
    for _ in range(4):
        breaker.succeeded(0.0, 11.0)
        breaker.failed(11.0)
    assert not breaker.usable


def test_one_request_decides() -> None:
    """After the open time one request gets through; all others are rejected until its outcome is known."""
    breaker = opened(100.0)
    assert not breaker.begin(104.9)
    assert breaker.unavailable_reason(105.0) is None
    assert breaker.state(105.0) is BreakerState.HALF_OPEN
    assert breaker.begin(105.0)
    assert breaker.state(105.1) is BreakerState.HALF_OPEN
    assert breaker.unavailable_reason(105.1) is UnavailableReason.BREAKER_OPEN
    assert not breaker.begin(105.1)
    breaker.succeeded(105.0, 106.0)
    assert breaker.usable
    assert breaker.state(106.0) is BreakerState.CLOSED


def test_a_failed_probe_opens_the_breaker_again() -> None:
    """A failed probe opens the breaker for the whole time again; failures of older requests do not."""
    breaker = opened(100.0)
    assert breaker.begin(105.0)
    breaker.failed(105.5)
    assert breaker.state(105.5) is BreakerState.HALF_OPEN
    breaker.failed(106.0, probe=True)
    assert breaker.unavailable_reason(110.9) is UnavailableReason.BREAKER_OPEN
    assert breaker.unavailable_reason(111.0) is None


def test_a_probe_without_an_outcome_is_replaced() -> None:
    """A probe whose client has gone is replaced at once, one that takes too long after the open time."""
    breaker = opened(100.0)
    assert breaker.begin(105.0)
    breaker.abandoned()
    assert breaker.begin(105.1)
    assert not breaker.begin(110.0)
    assert breaker.begin(110.2)


def test_an_old_success_does_not_close_the_breaker() -> None:
    """A success of a request from before the breaker opened does not close it; one of a later request does."""
    breaker = opened(100.0)
    breaker.succeeded(99.0, 101.0)
    assert breaker.state(101.0) is BreakerState.OPEN
    breaker.succeeded(100.5, 101.0)
    assert breaker.state(101.0) is BreakerState.CLOSED
    breaker.failed(101.0)
    breaker.failed(101.0)
    assert breaker.usable  # earlier failures are not counted


def test_a_cool_down_ends_by_itself() -> None:
    """Of two cool-downs the longer one counts; a shorter one does not shorten it."""
    breaker = CircuitBreaker(RULES)
    breaker.cool_down(10.0)
    breaker.cool_down(5.0)
    assert breaker.unavailable_reason(9.9) is UnavailableReason.COOL_DOWN
    assert not breaker.usable
    assert breaker.unavailable_reason(10.0) is None
    assert breaker.usable


def test_an_unhealthy_backend_is_unavailable_until_it_is_healthy() -> None:
    """An unhealthy backend is unavailable, also when its breaker would let a request through."""
    breaker = CircuitBreaker(RULES)
    breaker.report(healthy=False, now=0.0)
    assert (breaker.usable, breaker.healthy) == (False, False)
    assert breaker.unavailable_reason(0.0) is UnavailableReason.UNHEALTHY
    breaker.report(healthy=True, now=1.0)
    assert breaker.usable
    breaker = opened(100.0)
    breaker.report(healthy=False, now=101.0)
    assert breaker.unavailable_reason(101.0) is UnavailableReason.BREAKER_OPEN
    assert breaker.unavailable_reason(106.0) is UnavailableReason.UNHEALTHY
    breaker.report(healthy=True, now=107.0)
    assert not breaker.usable
    assert breaker.unavailable_reason(107.0) is None


def test_other_rules_count_from_then_on() -> None:
    """New rules use the failures counted before, unless the length of the window changes."""
    breaker = CircuitBreaker(RULES)
    breaker.failed(0.0)
    breaker.apply(RULES.model_copy(update={"consecutive_failures": 2}))
    breaker.failed(0.0)
    assert not breaker.usable
    breaker = CircuitBreaker(RULES)
    breaker.failed(0.0)
    breaker.apply(RULES.model_copy(update={"consecutive_failures": 2, "window": 20.0}))
    breaker.failed(0.0)
    assert breaker.usable


@given(
    st.integers(1, 100),
    st.integers(1, 30),
    st.floats(0.1, 100),
    st.lists(st.tuples(st.floats(0, 3), st.booleans()), max_size=200),
    st.floats(0, 1e6),
)
def test_the_share_is_that_of_a_list(
    percentage: int, minimum: int, window: float, steps: list[tuple[float, bool]], start: float
) -> None:
    """The parts of the window open the breaker at the same moment as a list of all outcomes would."""
    breaker = CircuitBreaker(
        Breaker(consecutive_failures=1000, error_percentage=percentage, minimum=minimum, window=window, open=1)
    )
    outcomes: deque[tuple[int, bool]] = deque()
    now = start
    for pause, good in steps:
        now += pause * window / 10
        part = int(now * (10 / window))
        outcomes.append((part, good))
        recent = [one for when, one in outcomes if when > part - 10]
        if good:
            breaker.succeeded(now, now)
        else:
            breaker.failed(now)
        failures = recent.count(False)
        if not good and len(recent) >= minimum and failures * 100 >= percentage * len(recent):
            assert not breaker.usable
            return
        assert breaker.usable


class Life(RuleBasedStateMachine):
    """State machine: requests begin and end in any order, among cool-downs and health checks."""

    running = Bundle("running")

    def __init__(self) -> None:
        super().__init__()
        self.breaker = CircuitBreaker(RULES)
        self.now = 0.0
        self.probe_began = -inf
        """Time at which the last probe began; -inf when it has ended."""

    @rule(seconds=st.floats(0, 12))
    def wait(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds

    @rule(target=running, anyway=st.booleans())
    def begin(self, anyway: bool) -> tuple[float, bool] | None:
        """Begin a request; when the backend is unavailable, only if there is no other backend (`anyway`)."""
        if self.breaker.unavailable_reason(self.now) is not None and not anyway:
            return None
        probe = not self.breaker.usable and self.breaker.begin(self.now)
        if probe:
            assert self.now >= self.probe_began + RULES.open
            self.probe_began = self.now
        return self.now, probe

    @rule(one=consumes(running), outcome=st.sampled_from(["good", "bad", "gone"]))
    def end(self, one: tuple[float, bool] | None, outcome: str) -> None:
        """End a request with an outcome."""
        if one is None:
            return
        began, probe = one
        if probe and began == self.probe_began:
            self.probe_began = -inf
        if outcome == "good":
            self.breaker.succeeded(began, self.now)
        elif outcome == "bad":
            self.breaker.failed(self.now, probe=probe)
        elif probe:
            self.probe_began = -inf
            self.breaker.abandoned()

    @rule(seconds=st.floats(0.1, 20))
    def pause(self, seconds: float) -> None:
        """Let the backend ask for a cool-down."""
        self.breaker.cool_down(self.now + seconds)

    @rule(healthy=st.booleans())
    def check(self, healthy: bool) -> None:
        """Report the outcome of a health check."""
        self.breaker.report(healthy=healthy, now=self.now)

    @precondition(lambda self: self.breaker.state(self.now) is BreakerState.OPEN)
    @rule()
    def outlast(self) -> None:
        """Check that an open breaker becomes half-open after its time."""
        self.now += RULES.open
        assert self.breaker.state(self.now) is BreakerState.HALF_OPEN

    @invariant()
    def usable_means_available(self) -> None:
        """Check that `usable` is true only where there is no reason against a request."""
        if self.breaker.usable:
            assert self.breaker.unavailable_reason(self.now) is None
            assert self.breaker.state(self.now) is BreakerState.CLOSED


TestLife = Life.TestCase
