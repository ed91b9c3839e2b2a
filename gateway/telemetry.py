"""Metrics, the access log and request ids.

Label values come from the routing table, never from a client. The access log has one JSON line per request and is
written by a thread of its own: when standard output blocks, lines are dropped and counted, and no request is delayed.
"""

import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from itertools import count
from typing import Final, TextIO
from uuid import uuid4

import orjson
from prometheus_client import CollectorRegistry, Counter, Gauge, Metric
from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector

from gateway.journal import RequestRecord, line
from gateway.request_series import WAITS, Histogram, RequestSeries, families
from gateway.route_metrics import RouteMetrics
from program.certificate_ends import CertificateEnds
from program.metric_parts import in_parts

ACCESS_LOG_LINES: Final = 8192
"""Records that may wait for standard output before further ones are dropped."""
ACCESS_LOG_SECONDS: Final = 0.05
"""Seconds in which records gather before they are written together."""
MOST_CALLERS: Final = 4096
"""Largest number of callers whose requests are counted apart; those of further ones count for `other`."""
_LABELS: Final = ("namespace", "model", "backend")


class Series:
    """Counts of the responses of one backend of a route.

    Only the thread of the event loop counts, so this needs no locks, unlike the types of the client library.
    """

    __slots__ = ("duration", "first_byte", "keep_alives", "requests", "statuses")

    def __init__(self) -> None:
        self.requests = RequestSeries()
        """Times, tokens and attempts of the requests."""
        self.statuses: dict[int, int] = {}
        self.duration = Histogram(WAITS)
        """Seconds from a request's head to the end of the response."""
        self.first_byte = Histogram(WAITS)
        """Seconds from a request's head to the head of the response."""
        self.keep_alives = 0
        """Comments that clients got while the backend was silent."""

    def observe(self, status: int, seconds: float, first_byte_seconds: float | None) -> None:
        """Count one response.

        Args:
            status: Status of the response.
            seconds: Seconds from the request's head to the end of the response.
            first_byte_seconds: Seconds from the request's head to the head of the response; None without a response.
        """
        self.statuses[status] = self.statuses.get(status, 0) + 1
        self.duration.observe(seconds)
        if first_byte_seconds is not None:
            self.first_byte.observe(first_byte_seconds)


class _Routes(Collector):
    """Collector that exposes the series of all routes."""

    def __init__(self) -> None:
        self.known: dict[tuple[str, str, str], Series] = {}

    def collect(self) -> Iterable[Metric]:
        """Yield the metric families with the counts of this moment, each in parts: there may be thousands of routes."""
        parts = list(in_parts(self.known.items()))
        for part in parts:
            requests = CounterMetricFamily(
                "beamlit_gateway_requests",
                "Requests that ended, by route, backend ('none' is the gateway itself) and status",
                labels=(*_LABELS, "code"),
            )
            for key, series in part:
                for status, number in tuple(series.statuses.items()):
                    requests.add_metric((*key, str(status)), number)
            yield requests
        for part in parts:
            duration = HistogramMetricFamily(
                "beamlit_gateway_request_seconds",
                "Seconds from a request's head to the end of its response",
                labels=_LABELS,
            )
            for key, series in part:
                series.duration.add_to(duration, key, zeros=True)
            yield duration
        for part in parts:
            first_byte = HistogramMetricFamily(
                "beamlit_gateway_first_byte_seconds",
                "Seconds from a request's head to the head of its response",
                labels=_LABELS,
            )
            for key, series in part:
                series.first_byte.add_to(first_byte, key, zeros=True)
            yield first_byte
        for part in parts:
            keep_alives = CounterMetricFamily(
                "beamlit_gateway_keep_alives",
                "Comments that clients of event streams got while nothing else came for them",
                labels=_LABELS,
            )
            for key, series in part:
                if series.keep_alives:
                    keep_alives.add_metric(key, series.keep_alives)
            yield keep_alives
        yield from families([[(key, series.requests) for key, series in part] for part in parts])


class _Callers(Collector):
    """Collector of the requests of each caller. Only the thread of the event loop counts."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def collect(self) -> Iterable[Metric]:
        """Return the counter with the numbers of this moment."""
        requests = CounterMetricFamily(
            "beamlit_gateway_caller_requests",
            "Requests that ended, by the name of the caller; none while access is off",
            labels=("caller",),
        )
        for name, number in tuple(self.known.items()):
            requests.add_metric((name,), number)
        return (requests,)


class _Count(Collector):
    """Collector of a number that another part of the gateway counts."""

    def __init__(self, name: str, meaning: str) -> None:
        self._name = name
        self._meaning = meaning
        self.count: Callable[[], int] = int

    def collect(self) -> Iterable[Metric]:
        """Return the counter with the number of this moment."""
        return (CounterMetricFamily(self._name, self._meaning, value=self.count()),)


class _Moves(Collector):
    """Collector of how often the limits of streams were cut and raised."""

    def __init__(self) -> None:
        self.counts: dict[tuple[str, str, str], Callable[[], tuple[int, int]]] = {}
        """Functions that return the cuts and raises so far, by namespace, model and backend."""

    def collect(self) -> Iterable[Metric]:
        """Return the counters with the numbers of this moment."""
        moves = CounterMetricFamily(
            "beamlit_gateway_stream_limit_moves",
            "Times that the limit of streams at a backend has moved: down because first events were late, up because"
            " they came in time and all of the limit was used",
            labels=(*_LABELS, "reason"),
        )
        for key, moves_of in list(self.counts.items()):
            cuts, raises = moves_of()
            moves.add_metric((*key, "late"), cuts)
            moves.add_metric((*key, "inTime"), raises)
        return (moves,)


class Metrics:
    """Metrics of the gateway, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        route = ("namespace", "model", "backend")
        self._routes = _Routes()
        self.registry.register(self._routes)
        self.routes_in_force = RouteMetrics()
        self.registry.register(self.routes_in_force)
        self.certificates = CertificateEnds("gateway")
        self.registry.register(self.certificates)
        self._callers = _Callers()
        self.registry.register(self._callers)
        self.in_flight = Gauge(
            "beamlit_gateway_in_flight_requests",
            "Requests in flight now",
            ("namespace", "model"),
            registry=self.registry,
        )
        self.upstream_errors = Counter(
            "beamlit_gateway_upstream_errors",
            "Failed attempts at a backend, by cause",
            (*route, "cause"),
            registry=self.registry,
        )
        self.breaker_state = Gauge(
            "beamlit_gateway_breaker_state",
            "Circuit breaker of a backend: 0 closed, 1 half-open, 2 open",
            route,
            registry=self.registry,
        )
        self.cool_down = Gauge(
            "beamlit_gateway_cool_down_seconds",
            "Seconds until the cool-down of a backend ends",
            route,
            registry=self.registry,
        )
        self.healthy = Gauge(
            "beamlit_gateway_backend_healthy",
            "Whether a backend passes its health checks; 1 when it has none",
            route,
            registry=self.registry,
        )
        self.backend_in_flight = Gauge(
            "beamlit_gateway_backend_in_flight_requests",
            "Requests in flight at a backend now, until the end of their responses",
            route,
            registry=self.registry,
        )
        self.queued = Gauge(
            "beamlit_gateway_queued_requests",
            "Requests that wait in the queue of a backend",
            route,
            registry=self.registry,
        )
        self.stream_limit = Gauge(
            "beamlit_gateway_stream_limit",
            "Streams that may be in flight at a backend now so that their first events come in time",
            route,
            registry=self.registry,
        )
        self.streams_in_flight = Gauge(
            "beamlit_gateway_streams_in_flight",
            "Streams in flight at a backend now, where there is a limit for them",
            route,
            registry=self.registry,
        )
        self._moves = _Moves()
        self.registry.register(self._moves)
        self.diverted = Counter(
            "beamlit_gateway_diverted_requests",
            "Requests that went to another backend than the split says, by reason",
            ("namespace", "model", "reason"),
            registry=self.registry,
        )
        self.retries_refused = Counter(
            "beamlit_gateway_retries_refused",
            "Failed attempts that were not retried although their cause allows it, by what prevented it",
            ("namespace", "model", "why"),
            registry=self.registry,
        )
        self.refused = Counter(
            "beamlit_gateway_refused_requests",
            "Requests refused before a route was found, by error code",
            ("code",),
            registry=self.registry,
        )
        self.unrouted = Counter(
            "beamlit_gateway_unrouted_requests",
            "Requests that ended without a route and without an error, by status: served by the gateway itself, such as"
            " GET /v1/models, or 499 when the client left first",
            ("code",),
            registry=self.registry,
        )
        self.client_connections = Gauge(
            "beamlit_gateway_client_connections", "Open client connections", registry=self.registry
        )
        self.upstream_connections = Gauge(
            "beamlit_gateway_upstream_connections", "Connections to backends", ("state",), registry=self.registry
        )
        self.upstream_connects = _Count("beamlit_gateway_upstream_connects", "Connections opened to backends so far")
        self.registry.register(self.upstream_connects)
        self.memory = Gauge(
            "beamlit_gateway_memory_budget_bytes",
            "Memory for bodies that are held and responses that wait: used, and the limit",
            ("state",),
            registry=self.registry,
        )
        self.memory_waiting = Gauge(
            "beamlit_gateway_memory_budget_waiting", "Requests that wait for memory, unread", registry=self.registry
        )
        self.memory_refused = _Count(
            "beamlit_gateway_memory_budget_refused", "Reservations of memory that there was no room for"
        )
        self.registry.register(self.memory_refused)
        self.traces_dropped = _Count(
            "beamlit_gateway_traces_dropped",
            "Traced requests whose spans did not reach the collector of traces, because it took none",
        )
        self.registry.register(self.traces_dropped)
        self.token_requests = Counter(
            "beamlit_gateway_token_requests",
            "Token requests by result: ok, refused by the endpoint, or failed",
            ("result",),
            registry=self.registry,
        )
        self.routes = Gauge("beamlit_gateway_routes", "Routes in force", registry=self.registry)
        self.table_age = Gauge(
            "beamlit_gateway_table_age_seconds",
            "Seconds since the source of the routes was last known to be up to date",
            registry=self.registry,
        )
        self.issuer_keys_age = Gauge(
            "beamlit_gateway_issuer_keys_age_seconds",
            "Seconds since the keys of the issuer of tokens were loaded last, or since the start where they have never"
            " been; none without an issuer",
            ("issuer",),
            registry=self.registry,
        )
        self.document_errors = Gauge(
            "beamlit_gateway_document_errors",
            "Route documents whose latest version is not in force, and sources that cannot be read",
            registry=self.registry,
        )
        self.source_ends = Counter(
            "beamlit_gateway_route_source_ends",
            "Times that the source of the routes ended by an error and had to begin again",
            registry=self.registry,
        )
        self.unknown_fields = Gauge(
            "beamlit_gateway_document_unknown_fields",
            "Fields in route documents that this version does not know",
            registry=self.registry,
        )
        self.access_log_dropped = Counter(
            "beamlit_gateway_access_log_dropped_lines",
            "Access log lines that were dropped because standard output blocked",
            registry=self.registry,
        )

    def token_request(self, result: str) -> None:
        """Count one request for an OAuth2 token by its result, which is a word of `credentials.cache.TokenResult`."""
        self.token_requests.labels(result).inc()

    def caller_request(self, name: str) -> None:
        """Count one request of a caller."""
        known = self._callers.known
        if name not in known and len(known) >= MOST_CALLERS:
            name = "other"
        known[name] = known.get(name, 0) + 1

    def series(self, namespace: str, model: str, backend: str) -> "Series":
        """Return the counts of one backend of a route; the backend 'none' is the gateway itself."""
        return self._routes.known.setdefault((namespace, model, backend), Series())

    def forget(self, namespace: str, model: str) -> None:
        """Remove the metrics of a route that is gone, so that they do not accumulate for ever."""
        known = self._routes.known
        for key in [key for key in known if key[:2] == (namespace, model)]:
            del known[key]
        moves = self._moves.counts
        for key in [key for key in moves if key[:2] == (namespace, model)]:
            del moves[key]
        with contextlib.suppress(KeyError):
            self.in_flight.remove(namespace, model)
        labels = {"namespace": namespace, "model": model}
        for family in (self.upstream_errors, self.retries_refused, self.diverted, *self._of_backends):
            family.remove_by_labels(labels)

    def forget_backend(self, namespace: str, model: str, backend: str) -> None:
        """Remove the gauges of a backend that its route no longer has; its counters stay."""
        self.forget_streams(namespace, model, backend)
        for family in self._of_backends:
            family.remove_by_labels({"namespace": namespace, "model": model, "backend": backend})

    @property
    def stream_limit_moves(self) -> dict[tuple[str, str, str], Callable[[], tuple[int, int]]]:
        """Functions that return how often limits of streams were cut and raised, by namespace, model and backend."""
        return self._moves.counts

    def forget_streams(self, namespace: str, model: str, backend: str) -> None:
        """Remove the metrics about the limit of streams of a backend that has none."""
        if self._moves.counts.pop((namespace, model, backend), None) is None:
            return  # looking through the gauges takes long where there are thousands of routes
        for family in (self.stream_limit, self.streams_in_flight):
            family.remove_by_labels({"namespace": namespace, "model": model, "backend": backend})

    @property
    def _of_backends(self) -> tuple[Gauge, ...]:
        return (
            self.breaker_state, self.cool_down, self.healthy, self.backend_in_flight, self.queued, self.stream_limit,
            self.streams_in_flight,
        )  # fmt: skip


class RequestIds:
    """Source of ids for requests that come without one: a prefix of the process, then a number.

    They have the form of a UUID (RFC 9562 5.4), which the server of llama-cpp-python asks for.
    """

    def __init__(self) -> None:
        self._prefix = str(uuid4())[:24].encode()
        self._count = count()

    def __call__(self) -> bytes:
        """Return the next id."""
        return b"%b%012x" % (self._prefix, next(self._count))


class AccessLog:
    """Access log: one JSON line per record, written to a stream without ever blocking the caller.

    A thread of its own takes the records that have gathered, makes the lines and writes them together; for the event
    loop a record is one append. While the stream blocks, up to `ACCESS_LOG_LINES` records gather; further ones are
    dropped and counted.
    """

    def __init__(self, stream: TextIO | None, dropped: Counter) -> None:
        """Start to write to `stream`; write nothing when it is None."""
        self._dropped = dropped
        self._records: deque[Mapping[str, object] | RequestRecord] = deque()
        self._stream = stream
        self._ready = threading.Event()
        self._closed = threading.Event()
        self._woken = False
        """Whether the thread was woken since it took records last; this saves a system call per record."""
        self._writer: threading.Thread | None = None
        if stream is not None:
            self._writer = threading.Thread(target=self._run, args=(stream,), name="access-log", daemon=True)
            self._writer.start()

    @property
    def enabled(self) -> bool:
        """Whether records are written."""
        return self._stream is not None

    def write(self, record: Mapping[str, object] | RequestRecord) -> None:
        """Add one record; drop it when too many wait already."""
        if len(self._records) >= ACCESS_LOG_LINES:
            self._dropped.inc()
            return
        self._records.append(record)
        if not self._woken:
            self._woken = True
            self._ready.set()

    def close(self) -> None:
        """Write the records that wait, for a second at most, and stop the thread."""
        if self._writer is not None:
            self._closed.set()
            self._ready.set()
            self._writer.join(1)

    def _run(self, stream: TextIO) -> None:
        while not self._closed.is_set():
            self._ready.wait()
            self._closed.wait(ACCESS_LOG_SECONDS)
            # The order matters: a record that comes meanwhile sets both again.
            self._ready.clear()
            self._woken = False
            self._write_all(stream)
        self._write_all(stream)

    def _write_all(self, stream: TextIO) -> None:
        taken = [self._records.popleft() for _ in range(len(self._records))]
        if not taken:
            return
        lines = bytearray()  # a list of lines would allocate megabytes anew each time
        for one in taken:
            fields = line(one) if isinstance(one, RequestRecord) else one
            lines += orjson.dumps(fields, default=repr, option=orjson.OPT_APPEND_NEWLINE)
        try:
            stream.write(lines.decode())
            stream.flush()
        except (OSError, ValueError):
            self._dropped.inc(len(taken))
