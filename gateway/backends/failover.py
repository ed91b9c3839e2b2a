"""Rules of failover: causes of failures, the retry budget, and what a response says about them.

A request that failed before the first byte of its response may go to a backend that has not had it yet. The functions
decide on values alone; `attempts.py` sends the requests and waits for them.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import orjson

from gateway import errors
from gateway.api.vocabulary import FailureCause

STREAM_BYTES: Final = 16384
"""Bytes of an event stream within which its first event has to be complete to be examined."""

BUDGET_SECONDS: Final = 10
"""Seconds of the window over which the retry budget is counted."""

FAILOVER: Final = "Failover"
"""Reason of a request that went to another backend because an attempt failed before its first byte."""

OVERFLOW: Final = "Overflow"
"""Reason of a request that went to another backend because the chosen one was at its limit."""

FAILURE_STATUSES: Final = frozenset({429, 502, 503, 504})
"""Statuses that count as failures of a backend. 408 is the client's failure, 500 concerns the one request only."""


def cause_of(error: errors.UpstreamError) -> FailureCause | None:
    """Return the failure cause of `error`; None for an error after which no other backend should be tried.

    A response that is not valid HTTP is such an error: the backend has worked on the request.
    """
    if not error.sent:
        return FailureCause.CONNECT_FAILURE
    if isinstance(error, errors.FirstByteTimeout):
        return FailureCause.FIRST_BYTE_TIMEOUT
    if isinstance(error, errors.UpstreamReset | errors.IdleTimeout):
        return FailureCause.RESET
    return None


def statuses(causes: Iterable[FailureCause]) -> Mapping[int, FailureCause]:
    """Return those of `causes` that are statuses, by status."""
    return {int(cause): cause for cause in causes if cause.value.isdigit()}


class RetryBudget:
    """Retry budget of a route: a share of its requests in a sliding window, and a few retries in any case.

    Without a budget, a backend that fails would double the load of the others at the worst moment. The window moves by
    whole seconds: it contains the current second and the nine before it.
    """

    __slots__ = ("_floor", "_head", "_requests", "_requests_before", "_retries", "_retries_before", "_second", "_share")

    def __init__(self, percentage: int, per_second: int) -> None:
        """Allow `percentage` of the requests in the window, but at least `per_second` retries on average."""
        self._share = percentage
        self._floor = per_second * BUDGET_SECONDS * 100
        self._second = 0
        self._head = 0
        """Requests in the current second."""
        self._requests = [0] * BUDGET_SECONDS
        self._requests_before = 0
        """Requests in the seconds of the window before the current one."""
        self._retries = [0] * BUDGET_SECONDS
        self._retries_before = 0

    def count(self, now: float) -> None:
        """Count one request at `now`, in seconds on a monotonic clock."""
        if now >= self._second + 1:
            self._advance(int(now))
        self._head += 1

    def take(self, now: float) -> bool:
        """Count one retry at `now` and return True; return False when the budget does not allow it."""
        if now >= self._second + 1:
            self._advance(int(now))
        index = self._second % BUDGET_SECONDS
        made = self._retries_before + self._retries[index]
        if made * 100 >= max(self._floor, (self._requests_before + self._head) * self._share):
            return False
        self._retries[index] += 1
        return True

    def _advance(self, second: int) -> None:
        """Begin a second; counts that are ten seconds old leave the window."""
        self._requests[self._second % BUDGET_SECONDS] = self._head
        for one in range(max(self._second, second - BUDGET_SECONDS) + 1, second + 1):
            self._requests[one % BUDGET_SECONDS] = self._retries[one % BUDGET_SECONDS] = 0
        self._second = second
        self._head = 0
        self._requests_before = sum(self._requests)
        self._retries_before = sum(self._retries)


def first_event(data: bytes) -> bytes | None:
    """Return the first event, with its lines, of an event stream (HTML Living Standard 9.2) that begins with `data`.

    Return an empty value when there is no need to wait for it: a comment comes first, or the event is not complete
    within `STREAM_BYTES`. Return None when it is not complete yet.
    """
    start = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    lines: list[bytes] = []
    # Leave out a last line that has no end yet. A CR at the end may be half of CR LF, but ends the line in any case.
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
    """Return whether an event reports an error: `event: error`, or OpenAI's `data: {"error": …}`."""
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
