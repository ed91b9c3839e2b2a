"""Metrics of hooks, for Prometheus."""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from program.certificate_ends import CertificateEnds

_SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_BYTES: Final = (1e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7)


class Metrics:
    """Metrics of one process, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.certificates = CertificateEnds("hooks")
        self.registry.register(self.certificates)
        self.requests = Counter(
            "beamlit_hooks_requests",
            "Responses to Metacontroller, by hook and status",
            ("hook", "code"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "beamlit_hooks_request_seconds",
            "Time from a whole request to its response",
            ("hook",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.bytes = Histogram(
            "beamlit_hooks_request_bytes",
            "Size of a whole request: the parent, its children and its related objects",
            ("hook",),
            buckets=_BYTES,
            registry=self.registry,
        )
        self.in_flight = Gauge("beamlit_hooks_in_flight_requests", "Requests in flight", registry=self.registry)
        self.metric_reads = Counter(
            "beamlit_hooks_metric_reads",
            "Reads of metrics and pods by syncs, by api and where the result came from: cache, flight, outage, source",
            ("api", "by"),
            registry=self.registry,
        )
        self.source_requests = Counter(
            "beamlit_hooks_source_requests",
            "HTTP requests to sources of metrics, to the API server and to gateways, by api and status; without a"
            " response: error or cancelled",
            ("api", "code"),
            registry=self.registry,
        )
        self.source_seconds = Histogram(
            "beamlit_hooks_source_seconds",
            "Time from a request to a source of metrics or to the API server to the end of its response",
            ("api",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.source_warnings = Counter(
            "beamlit_hooks_source_warnings", "Responses of a Prometheus server with a warning", registry=self.registry
        )
        self.platform_requests = Counter(
            "beamlit_hooks_platform_requests",
            "Requests to the platform, by operation and result: ok, absent, unauthorized, conflict, rejected,"
            " throttled, unreachable, cancelled, and unasked where none was made",
            ("operation", "result"),
            registry=self.registry,
        )
        self.platform_seconds = Histogram(
            "beamlit_hooks_platform_seconds",
            "Time from a request to the platform to the end of its response",
            ("operation",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.platform_circuit = Gauge(
            "beamlit_hooks_platform_circuit",
            "1 for the state of the circuit breaker: closed (requests are made), open (none is), half_open (one is)",
            ("state",),
            registry=self.registry,
        )
