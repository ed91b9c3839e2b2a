"""What happened to requests: one record per request, told alike by the access log and by `/decisions`.

A record is a plain tuple, made on every request; it becomes words only when somebody reads it. There is nothing secret
in it: no field of the request but its method, no query, and of its path only the beginning.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, Final

PATH_CHARACTERS: Final = 256
"""Of a client's path and host."""

RequestRecord = tuple[
    float,  # when it began, in seconds since 1970
    bytes,  # its id
    str,  # the client's address
    bytes,  # method
    bytes,  # target
    str,  # host
    str | None,  # key of the route; None before it had one
    str | None,  # id of the backend that answered or was asked last
    int | None,  # that backend's weight
    str | None,  # reason: why there
    int,  # status of the answer
    str | None,  # code of the gateway's own error
    str | None,  # why the answer broke off
    float,  # seconds it took
    float | None,  # seconds to the head of the answer
    Sequence[tuple[str, str, float]] | None,  # attempts that failed: backend, cause, seconds
    str | None,  # why it could not be tried elsewhere
    float,  # seconds in a queue
]


class Journal:
    """The last records."""

    __slots__ = ("_records", "append")

    def __init__(self, size: int) -> None:
        self._records: deque[RequestRecord] = deque(maxlen=size)
        self.append = self._records.append
        """Take one record; the oldest goes."""

    def decisions(self, *, route: str | None = None, limit: int = 100) -> list[dict[str, Any]]:
        """The last records, the newest first, of all routes or one."""
        return [decision(one) for one in islice(self._of(route), limit)]

    def _of(self, route: str | None) -> Iterator[RequestRecord]:
        # A copy: a record may come while one is read.
        return (one for one in reversed(tuple(self._records)) if route is None or one[6] == route)


def line(record: RequestRecord) -> dict[str, Any]:
    """The record as the access log has it."""
    at, request_id, peer, method, target, host, route, backend, weight, reason, status, code, broken = record[:13]
    seconds, first_byte, failures, not_retryable, queued = record[13:]
    told: dict[str, Any] = {
        "event": "request",
        "time": at,
        "request_id": request_id.decode(),
        "peer": peer,
        "method": method[:32].decode("latin-1"),
        "path": target.partition(b"?")[0][:PATH_CHARACTERS].decode("latin-1"),
        "host": host[:PATH_CHARACTERS],
        "route": route,
        "backend": backend,
        "weight": weight,
        "reason": reason,
        "status": status,
        "code": code,
        "broken": broken,
        "seconds": _micro(seconds),
        "first_byte_seconds": _micro(first_byte) if first_byte is not None else None,
    }
    if queued:
        told["queued_seconds"] = _micro(queued)
    if failures:
        told["attempts"] = _attempts(record)
    if not_retryable is not None:
        told["retryable"] = False
        told["not_retryable"] = not_retryable
    return told


def decision(record: RequestRecord) -> dict[str, Any]:
    """The record as `/decisions` has it: all attempts, and nothing of who asked."""
    told = line(record)
    del told["event"], told["peer"], told["host"]
    told["attempts"] = _attempts(record)
    return told


def _attempts(record: RequestRecord) -> list[dict[str, Any]]:
    """All attempts in their order; the one that gave the client its answer has no cause."""
    backend, code, seconds, first_byte, failures, queued = (
        record[7], record[11], record[13], record[14], record[15] or [], record[17],
    )  # fmt: skip
    told: list[dict[str, Any]] = [
        {"backend": name, "cause": cause, "seconds": _micro(took)} for name, cause, took in failures
    ]
    if backend is not None and code is None and (not failures or failures[-1][0] != backend):
        before = queued + sum(took for _, _, took in failures)
        took = (seconds if first_byte is None else first_byte) - before
        told.append({"backend": backend, "cause": None, "seconds": _micro(max(0.0, took))})
    return told


def _micro(seconds: float) -> float:
    """To the microsecond; `round` takes the long way, over decimal digits."""
    return int(seconds * 1e6 + 0.5) / 1e6
