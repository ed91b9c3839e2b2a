"""When a request may be tried again at another backend: causes, the budget, and what is read from an answer for it.

A request that failed before its answer's first byte may go to a backend that has not had it yet. Each decision here is
about values that the story of the request has at hand; when to wait, and for what, is decided there.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Final

import orjson

from gateway import errors
from gateway.api.vocabulary import FailureCause

STREAM_BYTES: Final = 16384
"""Of a stream, in which its first event has to be complete to be looked at."""

BUDGET_SECONDS: Final = 10
"""Length of the window that the budget is about."""


FAILOVER: Final = "Failover"
"""Why a request is elsewhere than the split says: an attempt at another backend failed before its first byte."""

OVERFLOW: Final = "Overflow"
"""The same: the backend whose turn it was is at its limit."""

FAILED: Final = frozenset({429, 502, 503, 504})
"""The statuses that speak against a backend. 408 is about the client, 500 about this one request."""


def cause_of(error: errors.UpstreamError) -> FailureCause | None:
    """The cause that `error` is an instance of; None where trying elsewhere would not be right.

    An answer that is no HTTP is not a reason: the backend has worked on the request.
    """
    if not error.sent:
        return FailureCause.CONNECT_FAILURE
    if isinstance(error, errors.FirstByteTimeout):
        return FailureCause.FIRST_BYTE_TIMEOUT
    if isinstance(error, errors.UpstreamReset | errors.IdleTimeout):
        return FailureCause.RESET
    return None


def statuses(causes: Iterable[FailureCause]) -> Mapping[int, FailureCause]:
    """Those of `causes` that are statuses, by status."""
    return {int(cause): cause for cause in causes if cause.value.isdigit()}


class RetryBudget:
    """How many retries a route may make: a share of its requests, and a few in any case (sliding window).

    Without it a backend that fails would double the load of the others at the worst moment. The window moves by
    seconds: what counts is the present second and the nine before it.
    """

    __slots__ = ("_floor", "_head", "_requests", "_requests_before", "_retries", "_retries_before", "_second", "_share")

    def __init__(self, percentage: int, per_second: int) -> None:
        """A budget of `percentage` of the requests in the window, but `per_second` on average in any case."""
        self._share = percentage
        self._floor = per_second * BUDGET_SECONDS * 100
        self._second = 0
        self._head = 0
        """Requests in the present second."""
        self._requests = [0] * BUDGET_SECONDS
        self._requests_before = 0
        """In the seconds of the window before the present one."""
        self._retries = [0] * BUDGET_SECONDS
        self._retries_before = 0

    def count(self, now: float) -> None:
        """Count one request at `now`, in seconds on a clock that does not go back."""
        if now >= self._second + 1:
            self._move(int(now))
        self._head += 1

    def take(self, now: float) -> bool:
        """Whether one more retry may be made at `now`; if so it is counted."""
        if now >= self._second + 1:
            self._move(int(now))
        place = self._second % BUDGET_SECONDS
        made = self._retries_before + self._retries[place]
        if made * 100 >= max(self._floor, (self._requests_before + self._head) * self._share):
            return False
        self._retries[place] += 1
        return True

    def _move(self, second: int) -> None:
        """Begin a second: what is ten seconds old leaves the window."""
        self._requests[self._second % BUDGET_SECONDS] = self._head
        for one in range(max(self._second, second - BUDGET_SECONDS) + 1, second + 1):
            self._requests[one % BUDGET_SECONDS] = self._retries[one % BUDGET_SECONDS] = 0
        self._second = second
        self._head = 0
        self._requests_before = sum(self._requests)
        self._retries_before = sum(self._retries)


def first_event(data: bytes) -> bytes | None:
    """The first event in the beginning of an event stream (HTML Living Standard 9.2), whole and with its lines.

    Empty when there is no need to wait for it: a comment comes first, or nothing came within `STREAM_BYTES`. None: it
    is not complete yet.
    """
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    lines: list[bytes] = []
    # Without a last line that has no end yet. A CR at the end may be half of CR LF, and ends its line all the same.
    complete = data[start : max(start, data.rfind(b"\n") + 1, data.rfind(b"\r") + 1)]
    for line in complete.splitlines():
        if line.startswith(b":"):
            return b""
        if line:
            lines.append(line)
        elif lines:
            return b"\n".join(lines)
    if data.startswith(b":", start + len(complete)):
        return b""
    return b"" if len(data) >= STREAM_BYTES else None


def is_error(event: bytes) -> bool:
    """Whether an event says that there will be no answer: `event: error`, or OpenAI's `data: {"error": …}`."""
    content: list[bytes] = []
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event" and value == b"error":
            return True
        if name == b"data":
            content.append(value)
    data = b"\n".join(content)
    if b'"error"' not in data:
        return False
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return isinstance(parsed, dict) and bool(parsed.get("error"))


def retry_after(value: bytes, now: float) -> float | None:
    """The seconds that a Retry-After field asks for (RFC 9110 10.2.3): a number, or a date; None where it is neither.

    `now` is in seconds since 1970. A date that has passed is 0.
    """
    if value.isdigit():
        return float(value[:10]) if len(value) > 10 else float(value)
    try:
        when = parsedate_to_datetime(value.decode("ascii"))
    except (ValueError, OverflowError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, when.timestamp() - now)
