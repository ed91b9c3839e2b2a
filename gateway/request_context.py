"""Context of one request: what is known about it so far, for its metrics and its line in the access log."""

import time
from typing import TYPE_CHECKING, NamedTuple

from gateway.backends.stream_slots import StreamSlot, StreamSlots

if TYPE_CHECKING:
    from gateway.access.caller import Caller
    from gateway.backends.concurrency import ConcurrencyLimit
    from gateway.backends.pods import Pod
    from gateway.http.cors import CorsRule
    from gateway.http.token_usage import TokenUsage
    from gateway.keep_alive import KeepAlive
    from gateway.plan import BackendPlan, RoutePlan
    from gateway.requested_model import RequestedModel
    from gateway.tracing.spans import RequestTrace
    from gateway.upstream.meter import ResponseMeter
    from gateway.upstream.response import UpstreamResponse


class FailedAttempt(NamedTuple):
    """Attempt at a backend that failed."""

    backend: str
    cause: str
    """Code of an error, status of the response, or `streamError`."""
    seconds: float
    """Seconds that the attempt took."""
    pod: str | None = None
    """Name of the pod that it was made at; None where it went to the backend's name."""


class RequestContext:
    """Context of one request, from its head to the end of its response."""

    __slots__ = (
        "at", "backend", "broken", "caller", "code", "concurrency", "cors", "diversion", "events", "failures",
        "first_byte", "first_event", "health", "high", "home", "identity", "keep_alive", "key", "limits",
        "makes_response", "meter", "model", "not_retried", "pinned", "plan", "pod", "queued", "refusal", "request_id",
        "sent", "sought", "started", "status", "stream", "streams", "trace", "usage",
    )  # fmt: skip

    def __init__(self, request_id: bytes, cors: "CorsRule | None" = None) -> None:
        self.at = time.time()
        """Time at which the request began, in seconds since 1970."""
        self.started = time.perf_counter()
        """The same moment on the monotonic clock."""
        self.first_byte = 0.0
        """Time of the response head on the monotonic clock; 0 until it is there."""
        self.first_event = 0.0
        """Time of the first event of an event stream on the monotonic clock; 0 until it is there."""
        self.sent = 0.0
        """Time at which the first attempt began on the monotonic clock; 0 until then."""
        self.meter: ResponseMeter | None = None
        """Meter of the response that is relayed; None where nothing is measured."""
        self.usage: TokenUsage | None = None
        """Tokens that the response has named, where it was not relayed in pieces."""
        self.request_id = request_id
        self.plan: RoutePlan | None = None
        self.backend: BackendPlan | None = None
        self.pod: Pod | None = None
        """Pod that the request is at, as one of its requests in flight."""
        self.concurrency: ConcurrencyLimit | None = None
        """Limit of the backend whose slot the request holds."""
        self.cors = cors
        """Rule for websites: that of the installation until the request is found to be for a model with its own."""
        self.queued = 0.0
        """Seconds that the request waited for the slot."""
        self.caller: str | None = None
        """Name of the caller; None where access is off or there is no route yet."""
        self.identity: Caller | None = None
        """Caller as the installation knows it; None where access is off."""
        self.limits: tuple[tuple[str, int], ...] = ()
        """Limits of requests in flight for which the request counts: those of its caller and of the caller's groups."""
        self.high = False
        """Whether the request has high priority in a queue."""
        self.model: RequestedModel | None = None
        """Model that the request asks for, where it was looked for and there is one."""
        self.sought = False
        """Whether the model was looked for."""
        self.diversion: str | None = None
        """Reason why the request went to another backend than the split says."""
        self.failures: list[FailedAttempt] | None = None
        """Attempts that failed, in their order."""
        self.refusal: tuple[UpstreamResponse, BackendPlan, str | None] | None = None
        """A 403 to the gateway's own credentials that is kept while other backends are tried, with its backend and the
        diversion at that time."""
        self.key: bytes | None = None
        """Key by which a pod is chosen: of the conversation that the request belongs to, and of its prompt where that
        matters; None where it is not known."""
        self.home: str | None = None
        """Name of the pod that has what the request refers to, where it is remembered."""
        self.makes_response = False
        """Whether later requests may refer to the response."""
        self.pinned = False
        """Whether only one backend has what the request refers to, so that no other is tried."""
        self.not_retried: str | None = None
        """What prevented a retry at another backend, in a word."""
        self.status = 499
        """Status of the response; until there is one it is 499, which nginx uses for clients that leave before."""
        self.code: str | None = None
        """Code of the gateway's own error response."""
        self.broken: str | None = None
        """Why the response ended before it was complete."""
        self.events = False
        """Whether the response is an event stream, into which an error event can be written."""
        self.keep_alive: KeepAlive | None = None
        """Keep-alive of the response; None where it needs none."""
        self.health = False
        """Whether the request asks for the gateway's own health, as load balancers do without end: it is not logged."""
        self.streams = False
        """Whether the request asks for a stream and has a route that limits these."""
        self.stream: StreamSlot | None = None
        """Slot for streams that the request holds."""
        self.trace: RequestTrace | None = None
        """Trace of the request; None where traces are off, and where its own is passed on and not kept."""

    def identify(self, caller: "Caller") -> None:
        """Note who sends the request."""
        self.identity = caller
        self.caller = caller.name

    def go_to(self, pod: "Pod | None") -> None:
        """Count the request at a pod, and at no other one any more."""
        if self.pod is not None:
            self.pod.in_flight -= 1
        if pod is not None:
            pod.in_flight += 1
        self.pod = pod

    def send_stream(self, slots: StreamSlots | None, now: float, *, alone: bool) -> None:
        """Hold a slot for streams at the backend that the request is sent to now, and none at any other.

        Args:
            slots: Slots of the backend; None where streams have no limit.
            now: Present time on the monotonic clock.
            alone: Whether there is no other request at the server.
        """
        if self.stream is not None and self.stream.slots is not slots:
            self.leave_streams()
        if slots is not None:
            if self.stream is None:
                self.stream = StreamSlot(slots)
            self.stream.sent(now, alone=alone)

    def leave_streams(self) -> None:
        """Release the slot for streams: the request has ended, or its response is none."""
        if self.stream is not None:
            self.stream.release(time.perf_counter())
            self.stream = None

    def first_event_arrived(self) -> None:
        """Take note that the first event of the stream that the client gets is here."""
        self.first_event = time.perf_counter()
        if self.keep_alive is not None:
            self.keep_alive.stop()
        if self.stream is not None:
            self.stream.first_event(self.first_event)
