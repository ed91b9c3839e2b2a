"""Spans of requests as the data path notes them: times, ids and names, without the OpenTelemetry SDK.

A request notes what `RequestTrace` has room for. When it has ended, its trace goes to a queue that `export.py` empties
on a thread of its own, which makes real spans of it.
"""

from collections import deque
from random import getrandbits
from threading import Event
from typing import Final

from gateway.http import trace_context
from gateway.http.exchange import Exchange
from gateway.http.trace_context import RANDOM, SAMPLED
from gateway.journal import RequestRecord

_ALL: Final = 1 << 64
"""Number of values that the right half of a trace's id may have."""


class AttemptSpan:
    """Span of one attempt at a backend."""

    __slots__ = ("backend", "began", "cause", "ended", "host", "model", "pod", "port", "span_id", "status")

    def __init__(self, backend: str, pod: str | None, host: str, port: int, began: float) -> None:
        self.span_id = new_span_id()
        self.backend = backend
        """Id of the backend."""
        self.pod = pod
        """Name of the pod; None where the attempt goes to the backend's name."""
        self.host = host
        """Host name or address of the server, as the route has it."""
        self.port = port
        self.began = began
        """Time on the monotonic clock at which the attempt began."""
        self.ended = 0.0
        """Time at which it was known to have failed; 0 where it lasts as long as the request."""
        self.model: str | None = None
        """Name of the model that the backend gets; None where it is not known."""
        self.status = 0
        """Status of the backend's response; 0 without one."""
        self.cause: str | None = None
        """Why the attempt failed, in a word: the code of an error, `streamError`, or the status."""


class RequestTrace:
    """Trace of one request: where it belongs, and what its spans have to tell."""

    __slots__ = (
        "attempts", "ended", "flags", "model", "parent_id", "queue", "queue_began", "record", "span_id", "started",
        "tls", "trace_id",
    )  # fmt: skip

    def __init__(self, trace_id: bytes, parent_id: bytes, flags: int, *, started: float, tls: bool) -> None:
        self.trace_id = trace_id
        self.parent_id = parent_id
        """Id of the client's span; empty where the trace begins here."""
        self.span_id = new_span_id()
        """Id of the span of the request."""
        self.flags = flags
        self.started = started
        """Time on the monotonic clock at which the request began."""
        self.tls = tls
        """Whether the client's connection is encrypted."""
        self.queue_began = 0.0
        """Time at which the request began to wait in the queue of a backend; 0 where it did not."""
        self.queue: str | None = None
        """Id of that backend."""
        self.model: str | None = None
        """Name of the model that the client asks for; None where it was not looked for."""
        self.attempts: list[AttemptSpan] = []
        self.record: RequestRecord | None = None
        """Record of the request, once it has ended."""
        self.ended = 0.0

    @property
    def is_sampled(self) -> bool:
        """Whether the spans of the trace are kept."""
        return self.flags & SAMPLED != 0

    def begin_wait(self, backend: str, now: float) -> None:
        """Note that the request waits in the queue of a backend from now on."""
        self.queue, self.queue_began = backend, now

    def begin_attempt(self, backend: str, pod: str | None, host: str, port: int, now: float) -> None:
        """Begin the span of an attempt."""
        if self.is_sampled:
            self.attempts.append(AttemptSpan(backend, pod, host, port, now))

    def end_attempt(self, model: str | None, status: int, cause: str | None, now: float) -> None:
        """Note the outcome of the last attempt; one with a cause has failed, and has ended.

        Args:
            model: Name of the model that the backend got.
            status: Status of its response; 0 without one.
            cause: Why the attempt failed; None where its response is for the client.
            now: Present time on the monotonic clock.
        """
        if self.attempts:
            attempt = self.attempts[-1]
            attempt.model, attempt.status, attempt.cause = model, status, cause
            if cause is not None:
                attempt.ended = now

    def put_into(self, fields: dict[bytes, bytes], dropped: frozenset[bytes]) -> None:
        """Put the field by which the backend of the last attempt continues the trace into `fields`.

        Args:
            fields: Fields of the gateway's own for the backend.
            dropped: Names of fields that the route replaces or removes for the backend: these stay as it says.
        """
        if trace_context.PARENT not in dropped:
            span_id = self.attempts[-1].span_id if self.attempts else self.span_id
            fields[trace_context.PARENT] = trace_context.parent_field(self.trace_id, span_id, self.flags)


class Tracer:
    """Source of traces, and the queue for those that have ended."""

    def __init__(self, ratio: float = 1.0, *, parent_based: bool = True, size: int = 2048, wake_at: int = 256) -> None:
        """Keep no trace yet.

        Args:
            ratio: Part of the traces that is kept, chosen by their ids, so that all who ask so decide alike.
            parent_based: Whether that counts only for traces that begin here, and others are kept as their flag says.
            size: Number of traces that may wait; further ones are dropped.
            wake_at: Number of waiting traces at which `ready` is set.
        """
        self._bound = round(ratio * _ALL)
        self._parent_based = parent_based
        self._size = size
        self._wake_at = wake_at
        self._ended: deque[RequestTrace] = deque()
        self.dropped = 0
        """Number of traces that were dropped because too many waited."""
        self.ready = Event()
        """Event that is set when many traces wait, for the thread that takes them."""

    def begin(self, exchange: Exchange, started: float) -> RequestTrace | None:
        """Return the trace of a request; None where the request is passed on in its own trace, which is not kept.

        A state of no use is taken out of the request's fields.
        """
        fields = exchange.head.fields
        parent, has_state = trace_context.received(fields)
        if not has_state:
            exchange.head = exchange.head._replace(fields=trace_context.without_state(fields))
        if parent is None:
            trace_id = b"%032x" % (getrandbits(128) | 1)
            return RequestTrace(trace_id, b"", self._flags(trace_id, RANDOM), started=started, tls=exchange.tls)
        if not self._parent_based:
            flags = self._flags(parent.trace_id, parent.flags & RANDOM)
        elif parent.flags & SAMPLED:
            flags = parent.flags
        else:
            return None
        return RequestTrace(parent.trace_id, parent.span_id, flags, started=started, tls=exchange.tls)

    def _flags(self, trace_id: bytes, flags: int) -> int:
        return flags | SAMPLED if int(trace_id[16:], 16) < self._bound else flags

    def end(self, trace: RequestTrace, record: RequestRecord, now: float) -> None:
        """Queue the trace of a request that has ended, unless it is not kept or too many wait."""
        if not trace.is_sampled:
            return
        if len(self._ended) >= self._size:
            self.dropped += 1
            return
        trace.record, trace.ended = record, now
        self._ended.append(trace)
        if len(self._ended) == self._wake_at:
            self.ready.set()

    def take(self, most: int) -> list[RequestTrace]:
        """Return the traces that have waited longest, at most this many; called on another thread."""
        return [self._ended.popleft() for _ in range(min(most, len(self._ended)))]


def new_span_id() -> bytes:
    """Return a new id of a span: 16 hexadecimal digits."""
    return b"%016x" % (getrandbits(64) | 1)
