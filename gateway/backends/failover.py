"""Rules of failover: causes of failures, the retry budget, and what a response says about them.

A request that failed before anything of its response has gone to the client may go to a backend that has not had it
yet. The functions decide on values alone; `attempts.py` sends the requests and waits for them.
"""

from collections.abc import Iterable, Mapping
from typing import Final

import orjson

from gateway import errors
from gateway.api.vocabulary import FailureCause

ATTEMPTS: Final = 3
"""Number of attempts of one request, over pods and backends."""

BUDGET_SECONDS: Final = 10
"""Seconds of the window over which the retry budget is counted."""

FAILOVER: Final = "Failover"
"""Reason of a request that went to another backend because an attempt failed before the client got a response."""

OVERFLOW: Final = "Overflow"
"""Reason of a request that went to another backend because the chosen one was at its limit."""

STATEFUL: Final = "Stateful"
"""Reason of a request that went to the backend that has the earlier response which it refers to."""

FAILURE_STATUSES: Final = frozenset({429, 502, 503, 504, 529})
"""Statuses that count as failures of a backend. 408 is the client's failure, 500 concerns the one request only."""

PAUSE_STATUSES: Final = frozenset({429, 503, 529})
"""Statuses with which a backend can ask for a pause by Retry-After."""

_ERROR_STATUSES: Final[Mapping[str, int]] = {
    "invalid_request_error": 400,
    "BadRequestError": 400,
    "bad_request_error": 400,
    "exceed_context_size_error": 400,
    "validation": 422,
    "authentication_error": 401,
    "permission_error": 403,
    "not_found_error": 404,
    "NotFoundError": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "rate_limit_exceeded": 429,
    "overloaded": 429,
    "overloaded_error": 529,
}
"""Statuses that servers mean by the type of an error, where they send no number with it."""


def cause_of(error: errors.UpstreamError) -> str | None:
    """Return the failure cause of `error`; None for an error after which no other backend should be tried.

    A response that is not valid HTTP is such an error: the backend has worked on the request.
    """
    if not error.sent:
        return FailureCause.CONNECT_FAILURE
    if isinstance(error, errors.FirstByteTimeout):
        return FailureCause.FIRST_BYTE_TIMEOUT
    if isinstance(error, errors.FirstTokenTimeout):
        return FailureCause.FIRST_TOKEN_TIMEOUT
    if isinstance(error, errors.UpstreamReset | errors.IdleTimeout):
        return FailureCause.RESET
    return None


def statuses(causes: Iterable[str]) -> Mapping[int, str]:
    """Return those of `causes` that are statuses, by status."""
    return {int(cause): cause for cause in causes if cause.isdigit()}


def failure_statuses(causes: Iterable[str]) -> frozenset[int]:
    """Return the statuses that count as failures of a backend where `causes` are causes of failover.

    A status from 500 on that is a cause is one of them. A status below is not: it says something about the request.
    """
    return FAILURE_STATUSES.union(status for status in statuses(causes) if status >= 500)


def stream_cause(status: int | None, causes: Mapping[int, str]) -> str | None:
    """Return the failure cause of a stream whose first event is an error; None for a stream that goes to the client.

    Args:
        status: Status of the error as `error_status` returns it. With one from 400 to 499 the caller is at fault, but
            429 says that the backend has no room.
        causes: Causes of failover that are statuses, by status.
    """
    if status is None:
        return None
    if 400 <= status < 500 and status != 429:
        return causes.get(status)
    return FailureCause.STREAM_ERROR


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


def error_status(event: bytes) -> int | None:
    """Return the status of the error that an event reports, 0 where it has none; None for an event that is no error.

    An error is `event: error`, or OpenAI's `data: {"error": …}`. Servers send its status as a number, as digits or as
    the type of the error, in the error or beside it.
    """
    content: list[bytes] = []
    named = False
    for line in event.split(b"\n"):
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event" and value == b"error":
            named = True
        if name == b"data":
            content.append(value)
    data = b"\n".join(content)
    if not named and b'"error"' not in data:
        return None
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict):
        return 0 if named else None
    error = parsed.get("error")
    if not named and not error:
        return None
    return (_status_in(error) if isinstance(error, dict) else 0) or _status_in(parsed)


def _status_in(error: Mapping[str, object]) -> int:
    """Return the status that the fields of an error mean; 0 where they mean none."""
    for name in ("code", "status", "status_code", "http_status"):
        status = _status(error.get(name))
        if status:
            return status
    for name in ("type", "error_type", "code"):
        word = error.get(name)
        if isinstance(word, str) and word in _ERROR_STATUSES:
            return _ERROR_STATUSES[word]
    return 0


def _status(value: object) -> int:
    """Return a number, or a string of three digits, that is a status from 400 to 599; 0 for anything else."""
    if isinstance(value, str) and len(value) == 3 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return value if isinstance(value, int) and 400 <= value <= 599 else 0
