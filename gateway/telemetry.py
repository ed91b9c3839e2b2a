"""Metrics and the access log.

Label values come from the routing table, never from a client. The access log is one JSON line per request, written by a
thread of its own: when standard output blocks, lines are dropped and counted, requests are not held up.
"""

import contextlib
import os
import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, count
from typing import Final, TextIO

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from gateway.journal import RequestRecord, line

ACCESS_LOG_LINES: Final = 8192
"""Records that may wait for standard output."""
ACCESS_LOG_SECONDS: Final = 0.05
"""How long records gather before they are written."""
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


class Series:
    """The answers of one backend of a route.

    Counted on every request by the event loop's thread alone, so without the locks of the client library's own types.
    """

    __slots__ = ("duration", "duration_sum", "first_byte", "first_byte_sum", "statuses")

    def __init__(self) -> None:
        self.statuses: dict[int, int] = {}
        self.duration = [0] * (len(_SECONDS) + 1)
        self.duration_sum = 0.0
        self.first_byte = [0] * (len(_SECONDS) + 1)
        self.first_byte_sum = 0.0

    def observe(self, status: int, seconds: float, first_byte_seconds: float | None) -> None:
        """Count one answer.

        Args:
            status: its status.
            seconds: from the request's head to the end of the answer.
            first_byte_seconds: to the answer's head; None where there was no answer.
        """
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.duration[bisect_left(_SECONDS, seconds)] += 1
        self.duration_sum += seconds
        if first_byte_seconds is not None:
            self.first_byte[bisect_left(_SECONDS, first_byte_seconds)] += 1
            self.first_byte_sum += first_byte_seconds


class _Routes(Collector):
    """Exposes the series of all routes."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, str], Series] = {}

    def collect(self) -> Iterable[Metric]:
        """The families, as of now."""
        labels = ("namespace", "model", "backend")
        requests = CounterMetricFamily(
            "beamlit_gateway_requests",
            "Requests answered, by route, backend ('none': the gateway itself) and status",
            labels=(*labels, "code"),
        )
        duration = HistogramMetricFamily(
            "beamlit_gateway_request_seconds", "Time from a request's head to the end of its answer", labels=labels
        )
        first_byte = HistogramMetricFamily(
            "beamlit_gateway_first_byte_seconds", "Time from a request's head to the head of its answer", labels=labels
        )
        for key, series in self.known.items():
            for status, number in series.statuses.items():
                requests.add_metric((*key, str(status)), number)
            duration.add_metric(key, _cumulated(series.duration), series.duration_sum)
            first_byte.add_metric(key, _cumulated(series.first_byte), series.first_byte_sum)
        return requests, duration, first_byte


def _cumulated(counts: Sequence[int]) -> list[tuple[str, float]]:
    """Buckets as Prometheus has them: each with all that are below."""
    bounds = (*map(floatToGoString, _SECONDS), "+Inf")
    return list(zip(bounds, map(float, accumulate(counts)), strict=True))


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        route = ("namespace", "model", "backend")
        self._routes = _Routes()
        self.registry.register(self._routes)
        self.in_flight = Gauge(
            "beamlit_gateway_in_flight_requests",
            "Requests being answered now",
            ("namespace", "model"),
            registry=self.registry,
        )
        self.upstream_errors = Counter(
            "beamlit_gateway_upstream_errors",
            "Attempts at a backend that failed, by cause",
            (*route, "cause"),
            registry=self.registry,
        )
        self.breaker_state = Gauge(
            "beamlit_gateway_breaker_state",
            "Breaker of a backend: 0 closed, 1 half-open, 2 open",
            route,
            registry=self.registry,
        )
        self.cool_down = Gauge(
            "beamlit_gateway_cool_down_seconds",
            "What is left of the pause that a backend has asked for",
            route,
            registry=self.registry,
        )
        self.healthy = Gauge(
            "beamlit_gateway_backend_healthy",
            "Whether a backend passes its health checks; 1 without any",
            route,
            registry=self.registry,
        )
        self.backend_in_flight = Gauge(
            "beamlit_gateway_backend_in_flight_requests",
            "Requests that a backend has now, until the end of their answers",
            route,
            registry=self.registry,
        )
        self.queued = Gauge(
            "beamlit_gateway_queued_requests",
            "Requests that wait for their turn at a backend",
            route,
            registry=self.registry,
        )
        self.diverted = Counter(
            "beamlit_gateway_diverted_requests",
            "Requests that went elsewhere than the split says, by why",
            ("namespace", "model", "reason"),
            registry=self.registry,
        )
        self.retries_refused = Counter(
            "beamlit_gateway_retries_refused",
            "Attempts that failed and were not repeated elsewhere although they might have been, by why",
            ("namespace", "model", "why"),
            registry=self.registry,
        )
        self.refused = Counter(
            "beamlit_gateway_refused_requests",
            "Requests refused before a route was chosen, by code",
            ("code",),
            registry=self.registry,
        )
        self.client_connections = Gauge(
            "beamlit_gateway_client_connections", "Open client connections", registry=self.registry
        )
        self.upstream_connections = Gauge(
            "beamlit_gateway_upstream_connections", "Connections to backends", ("state",), registry=self.registry
        )
        self.upstream_connects = Gauge(
            "beamlit_gateway_upstream_connects_total", "Connections opened to backends so far", registry=self.registry
        )
        self.token_requests = Counter(
            "beamlit_gateway_token_requests",
            "Requests for an OAuth2 token, by result",
            ("result",),
            registry=self.registry,
        )
        self.routes = Gauge("beamlit_gateway_routes", "Routes in force", registry=self.registry)
        self.table_age = Gauge(
            "beamlit_gateway_table_age_seconds",
            "Time since the source was last known to be up to date",
            registry=self.registry,
        )
        self.document_errors = Gauge(
            "beamlit_gateway_document_errors",
            "Route documents that are not in force as written",
            registry=self.registry,
        )
        self.unknown_fields = Gauge(
            "beamlit_gateway_document_unknown_fields",
            "Fields in route documents that this version does not know",
            registry=self.registry,
        )
        self.access_log_dropped = Counter(
            "beamlit_gateway_access_log_dropped_lines",
            "Access log lines dropped because standard output blocked",
            registry=self.registry,
        )

    def token_request(self, result: str) -> None:
        """Count one request for an OAuth2 token: `ok`, or in a word why there is no token."""
        self.token_requests.labels(result).inc()

    def series(self, namespace: str, model: str, backend: str) -> "Series":
        """Where the answers of one backend of a route are counted ('none': the gateway itself)."""
        return self._routes.known.setdefault((namespace, model, backend), Series())

    def forget(self, namespace: str, model: str) -> None:
        """Remove what was counted for a route: it is gone, and must not gather beside its successors for ever."""
        known = self._routes.known
        for key in [key for key in known if key[:2] == (namespace, model)]:
            del known[key]
        with contextlib.suppress(KeyError):
            self.in_flight.remove(namespace, model)
        labels = {"namespace": namespace, "model": model}
        for family in (self.upstream_errors, self.retries_refused, self.diverted, *self._of_backends):
            family.remove_by_labels(labels)

    def forget_backend(self, namespace: str, model: str, backend: str) -> None:
        """Remove the state of a backend that a route no longer has; what it did stays counted."""
        for family in self._of_backends:
            family.remove_by_labels({"namespace": namespace, "model": model, "backend": backend})

    @property
    def _of_backends(self) -> tuple[Gauge, ...]:
        return self.breaker_state, self.cool_down, self.healthy, self.backend_in_flight, self.queued


class RequestIds:
    """Ids of requests that brought none: one prefix per process, then a count."""

    def __init__(self) -> None:
        self._prefix = os.urandom(6).hex().encode()
        self._count = count()

    def __call__(self) -> bytes:
        """The next one."""
        return b"%b-%x" % (self._prefix, next(self._count))


class AccessLog:
    """Writes one JSON line per record to a stream, without ever holding its caller up.

    A thread of its own takes what has gathered, makes the lines and writes them together: for the event loop a record
    is one append. While the stream blocks, records gather up to `ACCESS_LOG_LINES`; more are dropped and counted.
    """

    def __init__(self, stream: TextIO | None, dropped: Counter) -> None:
        """Write to `stream`, or nowhere when it is None."""
        self._dropped = dropped
        self._records: deque[Mapping[str, object] | RequestRecord] = deque()
        self._stream = stream
        self._something = threading.Event()
        self._closed = threading.Event()
        self._told = False
        """Whether the thread knows that there is something; saves a system call per record."""
        self._writer: threading.Thread | None = None
        if stream is not None:
            self._writer = threading.Thread(target=self._run, args=(stream,), name="access-log", daemon=True)
            self._writer.start()

    @property
    def enabled(self) -> bool:
        """Whether lines go anywhere."""
        return self._stream is not None

    def write(self, record: Mapping[str, object] | RequestRecord) -> None:
        """Take one record; drop it when too many wait."""
        if len(self._records) >= ACCESS_LOG_LINES:
            self._dropped.inc()
            return
        self._records.append(record)
        if not self._told:
            self._told = True
            self._something.set()

    def close(self) -> None:
        """Write what waits, for a second at most."""
        if self._writer is not None:
            self._closed.set()
            self._something.set()
            self._writer.join(1)

    def _run(self, stream: TextIO) -> None:
        while not self._closed.is_set():
            self._something.wait()
            self._closed.wait(ACCESS_LOG_SECONDS)
            # In this order: a record that comes meanwhile sets both again.
            self._something.clear()
            self._told = False
            self._write_all(stream)
        self._write_all(stream)

    def _write_all(self, stream: TextIO) -> None:
        taken = [self._records.popleft() for _ in range(len(self._records))]
        if not taken:
            return
        lines = bytearray()  # lines in a list would have megabytes of memory each time, and new ones
        for one in taken:
            told = line(one) if isinstance(one, RequestRecord) else one
            lines += orjson.dumps(told, default=repr, option=orjson.OPT_APPEND_NEWLINE)
        try:
            stream.write(lines.decode())
            stream.flush()
        except (OSError, ValueError):
            self._dropped.inc(len(taken))
