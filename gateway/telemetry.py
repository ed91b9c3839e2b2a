"""Metrics, logging and the access log.

Label values come from the routing table, never from a client. The access log is one JSON line per request, written by a
thread of its own: when standard output blocks, lines are dropped and counted, requests are not held up.
"""

import logging
import queue
import sys
import threading
from typing import Any, Final, TextIO

import orjson
import structlog
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

ACCESS_LOG_LINES: Final = 8192
"""Lines that may wait for standard output."""
_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)


def configure_logging(level: str, stream: TextIO | None = None) -> None:
    """Log events as JSON lines with a time, for this process."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(serializer=_json),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(stream or sys.stderr),
        cache_logger_on_first_use=True,
    )


def _json(value: Any, **_: Any) -> str:
    return orjson.dumps(value, default=repr).decode()


class Metrics:
    """The gateway's metrics, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        route = ("namespace", "model", "backend")
        self.requests = Counter(
            "beamlit_gateway_requests",
            "Requests answered, by route, backend ('none': the gateway itself) and status",
            (*route, "code"),
            registry=self.registry,
        )
        self.duration = Histogram(
            "beamlit_gateway_request_seconds",
            "Time from a request's head to the end of its answer",
            route,
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.first_byte = Histogram(
            "beamlit_gateway_first_byte_seconds",
            "Time from a request's head to the head of its answer",
            route,
            buckets=_SECONDS,
            registry=self.registry,
        )
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


class AccessLog:
    """Writes lines to a stream without ever blocking the caller."""

    def __init__(self, stream: TextIO | None, dropped: Counter) -> None:
        """Write to `stream`, or nowhere when it is None."""
        self._dropped = dropped
        self._lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._stream = stream
        self._thread: threading.Thread | None = None
        if stream is not None:
            self._thread = threading.Thread(target=self._write, name="access-log", daemon=True)
            self._thread.start()

    @property
    def enabled(self) -> bool:
        """Whether lines go anywhere."""
        return self._stream is not None

    def write(self, record: dict[str, object]) -> None:
        """Queue one record; drop it when too many wait."""
        if self._lines.qsize() >= ACCESS_LOG_LINES:
            self._dropped.inc()
            return
        self._lines.put(orjson.dumps(record, default=repr, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Write what waits, for a second at most."""
        if self._thread is not None:
            self._lines.put(None)
            self._thread.join(1)

    def _write(self) -> None:
        stream = self._stream
        if stream is None:
            return
        while (line := self._lines.get()) is not None:
            lines = [line]
            # One write for what has gathered: at load a system call per line would cost more than the line.
            while not self._lines.empty() and len(lines) < 256:
                following = self._lines.get()
                if following is None:
                    self._lines.put(None)
                    break
                lines.append(following)
            try:
                stream.write(b"".join(lines).decode())
                stream.flush()
            except (OSError, ValueError):
                self._dropped.inc(len(lines))
