"""Records of requests: one per request, shown alike by the access log and by `/decisions`.

A record is made on every request and holds the values as they are; it becomes JSON only when it is read. It contains
nothing secret: no header fields but Host and x-request-id, no query, and only the beginning of the path.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

PATH_CHARACTERS: Final = 256
"""Characters of a client's path and host that a record shows."""


class RequestRecord:
    """What happened to one request."""

    __slots__ = (
        "at", "backend", "between_events", "broken", "caller", "code", "completion_tokens", "failures", "first_byte",
        "first_event", "host", "longest_between_events", "method", "not_retryable", "peer", "pod", "prompt_tokens",
        "queued", "reason", "request_id", "route", "seconds", "status", "target", "weight",
    )  # fmt: skip

    def __init__(
        self,
        *,
        at: float,
        request_id: bytes,
        peer: str,
        method: bytes,
        target: bytes,
        host: str,
        route: str | None,
        backend: str | None,
        pod: str | None = None,
        weight: int | None,
        reason: str | None,
        status: int,
        code: str | None,
        broken: str | None,
        seconds: float,
        first_byte: float | None,
        failures: Sequence[tuple[str, str, float, str | None]] | None,
        not_retryable: str | None,
        queued: float,
        caller: str | None = None,
        first_event: float | None = None,
        between_events: float | None = None,
        longest_between_events: float | None = None,
        prompt_tokens: int | None = None,
        completion_tokens: int | None = None,
    ) -> None:
        self.at = at
        """Time at which the request began, in seconds since 1970."""
        self.request_id = request_id
        self.peer = peer
        """Address of the client."""
        self.method = method
        self.target = target
        self.host = host
        self.route = route
        """Key of the route, `namespace/name`; None when no route matched."""
        self.backend = backend
        """Id of the backend that responded or was tried last; None when none was tried."""
        self.pod = pod
        """Name of the pod that responded or was tried last; None where the request went to the backend's name."""
        self.weight = weight
        """Weight of that backend in percent."""
        self.reason = reason
        """Why the request went to that backend, as x-beamlit-reason says it."""
        self.status = status
        """Status of the response."""
        self.code = code
        """Code of the gateway's own error response."""
        self.broken = broken
        """Why the response ended before it was complete; None when it is complete."""
        self.seconds = seconds
        """Seconds from the request's head to the end of the response."""
        self.first_byte = first_byte
        """Seconds from the request's head to the head of the response; None when there was no response."""
        self.failures = failures
        """Attempts that failed, in their order, each as backend, cause, seconds and pod, if one was chosen."""
        self.not_retryable = not_retryable
        """Why the request could not be tried at another backend."""
        self.queued = queued
        """Seconds that the request waited in the queue of a backend."""
        self.caller = caller
        """Name of the caller; None where access is off."""
        self.first_event = first_event
        """Seconds from the request's head to the first event of its event stream; None without one."""
        self.between_events = between_events
        """Mean seconds between two events of its event stream; None with less than two."""
        self.longest_between_events = longest_between_events
        """Longest time between two of them, in seconds."""
        self.prompt_tokens = prompt_tokens
        """Tokens of the prompt; None where the response does not say them."""
        self.completion_tokens = completion_tokens
        """Tokens of the completion; None where the response does not say them."""


class Journal:
    """The last records, in memory; the oldest is dropped when a new one comes."""

    __slots__ = ("_records", "append")

    def __init__(self, size: int) -> None:
        self._records: deque[RequestRecord] = deque(maxlen=size)
        self.append = self._records.append
        """Add one record."""

    def __len__(self) -> int:
        return len(self._records)

    @property
    def is_full(self) -> bool:
        """Whether the next record takes the place of the oldest one."""
        return len(self._records) == self._records.maxlen

    def records(self) -> Iterator[RequestRecord]:
        """Yield all records, the newest first."""
        return self._newest_first(None)

    def decisions(self, *, route: str | None = None, limit: int = 100) -> Iterator[dict[str, Any]]:
        """Yield the last records as JSON, the newest first: of all routes, or of the route `namespace/name`."""
        for record in islice(self._newest_first(route), limit):
            yield decision(record)

    def _newest_first(self, route: str | None) -> Iterator[RequestRecord]:
        # Iterate over a copy: requests add records while one is read.
        return (one for one in reversed(tuple(self._records)) if route is None or one.route == route)


def line(record: RequestRecord) -> dict[str, Any]:
    """Return the record as a line of the access log."""
    fields: dict[str, Any] = {
        "event": "request",
        "time": record.at,
        "request_id": record.request_id.decode(),
        "peer": record.peer,
        "method": record.method[:32].decode("latin-1"),
        "path": record.target.partition(b"?")[0][:PATH_CHARACTERS].decode("latin-1"),
        "host": record.host[:PATH_CHARACTERS],
        "route": record.route,
        "backend": record.backend,
        "weight": record.weight,
        "reason": record.reason,
        "status": record.status,
        "code": record.code,
        "broken": record.broken,
        "seconds": _whole_microseconds(record.seconds),
        "first_byte_seconds": _whole_microseconds(record.first_byte) if record.first_byte is not None else None,
    }
    if record.first_event is not None:
        fields["first_event_seconds"] = _whole_microseconds(record.first_event)
    if record.between_events is not None:
        fields["between_events_seconds"] = _whole_microseconds(record.between_events)
    if record.longest_between_events is not None:
        fields["longest_between_events_seconds"] = _whole_microseconds(record.longest_between_events)
    if record.prompt_tokens is not None:
        fields["prompt_tokens"] = record.prompt_tokens
    if record.completion_tokens is not None:
        fields["completion_tokens"] = record.completion_tokens
    if record.caller is not None:
        fields["caller"] = record.caller
    if record.pod is not None:
        fields["pod"] = record.pod
    if record.queued:
        fields["queued_seconds"] = _whole_microseconds(record.queued)
    if record.failures:
        fields["attempts"] = _attempts(record)
    if record.not_retryable is not None:
        fields["retryable"] = False
        fields["not_retryable"] = record.not_retryable
    return fields


def decision(record: RequestRecord) -> dict[str, Any]:
    """Return the record as an entry of `/decisions`: with all attempts, and without what identifies the client."""
    fields = line(record)
    del fields["event"], fields["peer"], fields["host"]
    fields["attempts"] = _attempts(record)
    return fields


def number_of_attempts(record: RequestRecord) -> int:
    """Return how many attempts a request had at backends and their pods."""
    return len(record.failures or ()) + _has_response(record)


def _has_response(record: RequestRecord) -> bool:
    """Return whether the last attempt is none of those that failed."""
    if record.backend is None or record.code is not None:
        return False
    # Each backend gets one attempt, or one at each of its pods.
    last = record.backend, record.pod
    return not record.failures or all((one[0], one[3]) != last for one in record.failures)


def _attempts(record: RequestRecord) -> list[dict[str, Any]]:
    """Return all attempts in their order; the attempt whose response the client got has no cause, unless it failed."""
    failures = record.failures or ()
    attempts = [_attempt(name, cause, seconds, pod) for name, cause, seconds, pod in failures]
    backend, last = record.backend, record.pod
    if backend is not None and _has_response(record):
        until = record.seconds if record.first_byte is None else record.first_byte
        seconds = until - record.queued - sum(one[2] for one in failures)
        attempts.append(_attempt(backend, None, max(0.0, seconds), last))
    return attempts


def _attempt(backend: str, cause: str | None, seconds: float, pod: str | None) -> dict[str, Any]:
    attempt = {"backend": backend, "cause": cause, "seconds": _whole_microseconds(seconds)}
    return attempt if pod is None else {**attempt, "pod": pod}


def _whole_microseconds(seconds: float) -> float:
    """Return seconds rounded to the microsecond; `round` takes the long way, over decimal digits."""
    return int(seconds * 1e6 + 0.5) / 1e6
