"""What is known about one request by now, for its metrics and its line in the access log."""

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gateway.backends.concurrency import ConcurrencyLimit
    from gateway.plan import BackendPlan, RoutePlan


class FailedAttempt(NamedTuple):
    """An attempt that failed."""

    backend: str
    cause: str
    """The code of an error, a status, or `streamError`."""
    seconds: float
    """How long it took."""


class RequestContext:
    """Of one request, from its head to its end."""

    __slots__ = (
        "at", "backend", "broken", "code", "concurrency", "events", "failures", "first_byte", "not_retried", "plan",
        "queued", "request_id", "started", "status", "why",
    )  # fmt: skip

    def __init__(self, request_id: bytes) -> None:
        self.at = time.time()
        self.started = time.perf_counter()
        self.first_byte = 0.0
        self.request_id = request_id
        self.plan: RoutePlan | None = None
        self.backend: BackendPlan | None = None
        self.concurrency: ConcurrencyLimit | None = None
        """Of these it holds one."""
        self.queued = 0.0
        """Seconds that it waited for it."""
        self.why: str | None = None
        """Why it went elsewhere than the split says."""
        self.failures: list[FailedAttempt] | None = None
        """Attempts that failed, in their order."""
        self.not_retried: str | None = None
        """Why a failed attempt was the last one although there was another backend."""
        self.status = 499
        """Until there is an answer: the client was gone before (as nginx counts it)."""
        self.code: str | None = None
        """Code of the gateway's own error answer."""
        self.broken: str | None = None
        """Why an answer broke off."""
        self.events = False
        """Whether the answer is an event stream, into which an error can be written."""
