"""Export of traces over OTLP/HTTP, by the SDK of OpenTelemetry, on a thread of its own.

The SDK is an extra (`pip install 'beamlit-controller[otlp]'`), so nothing else of the gateway imports this module
before traces are on. While the collector takes no spans, traces wait, further ones are dropped, and the log says it.
"""

import logging
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from typing import Any, Final

import requests
import structlog
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags

from gateway.tracing.attributes import Kind, Span, spans
from gateway.tracing.spans import RequestTrace, Tracer

SERVICE: Final = "beamlit-gateway"
"""Name of the service in the resource of all spans, unless the environment names another."""
BATCH: Final = 128
"""Largest number of requests whose spans are sent together."""
SWITCH_SECONDS: Final = 0.0005
"""Seconds for which this thread may compute before the thread of the requests gets its turn. Python's own are ten times
as many, and each request would wait for as long."""
STOP_SECONDS: Final = 2.0
"""Seconds that the last traces may take at the end."""
_KINDS: Final[Mapping[Kind, SpanKind]] = {
    "server": SpanKind.SERVER,
    "internal": SpanKind.INTERNAL,
    "client": SpanKind.CLIENT,
}

log = structlog.get_logger(__name__)


class _Session(requests.Session):
    """Session of the exporter that remembers why its last request failed, in words of our own."""

    failure = "it does not respond"

    def request(self, *args: Any, **options: Any) -> requests.Response:
        """Send a request.

        Raises:
            requests.RequestException: There is no response.
        """
        try:
            response = super().request(*args, **options)
        except requests.exceptions.SSLError:
            self.failure = "its certificate cannot be verified"
            raise
        except requests.Timeout:
            self.failure = "it did not respond in time"
            raise
        except requests.RequestException:
            self.failure = "it cannot be reached"
            raise
        self.failure = f"it responded with status {response.status_code}"
        return response


class _Resource(Resource):
    """Resource that is hashed once; the SDK asks for its hash with each span, and makes JSON of it for that."""

    def __init__(self, found: Resource) -> None:
        super().__init__(found.attributes, found.schema_url)
        self._hash = super().__hash__()

    def __hash__(self) -> int:
        return self._hash


class Exporter:
    """Thread that takes traces from a tracer and sends their spans to a collector."""

    def __init__(self, tracer: Tracer, endpoint: str | None, *, delay_seconds: float) -> None:
        """Start to send traces.

        Args:
            tracer: Tracer whose traces are sent.
            endpoint: URL for spans; None for the one in the environment, which has the other options, too.
            delay_seconds: Seconds for which traces gather.
        """
        # What its retries log, a line for each, says nothing more than our one line.
        logging.getLogger("opentelemetry.exporter.otlp").setLevel(logging.CRITICAL)
        sys.setswitchinterval(SWITCH_SECONDS)
        self._tracer = tracer
        self._delay = delay_seconds
        self._session = _Session()
        self._exporter = OTLPSpanExporter(endpoint=endpoint, session=self._session)
        self._resource = _resource()
        self._scope = InstrumentationScope(SERVICE, version("beamlit-controller"))
        self._failing = False
        self._lost = 0
        """Traces that were sent in vain so far."""
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traces", daemon=True)
        self._thread.start()

    @property
    def dropped(self) -> int:
        """Number of requests whose spans did not reach the collector: there was no room for them, or it took none."""
        return self._tracer.dropped + self._lost

    def close(self) -> None:
        """Send the traces that wait, within a short time, and stop the thread."""
        self._closed.set()
        self._tracer.ready.set()
        self._thread.join(STOP_SECONDS)
        self._exporter.shutdown()  # type: ignore[no-untyped-call]

    def _run(self) -> None:
        while not self._closed.is_set():
            self._tracer.ready.wait(self._delay)
            self._tracer.ready.clear()
            while traces := self._tracer.take(BATCH):
                self._send(traces)
                if self._failing and self._closed.is_set():
                    return

    def _send(self, traces: Sequence[RequestTrace]) -> None:
        """Send the spans of some requests; log when the collector takes them no more, and when it does again."""
        try:
            batch = [self._readable(trace, span) for trace in traces for span in spans(trace)]
            taken = self._exporter.export(batch) is SpanExportResult.SUCCESS
        except Exception:
            # A thread that ends would leave all later traces to be dropped.
            log.exception("traces_failed")
            self._lost += len(traces)
            return
        if taken:
            if self._failing:
                log.info("traces_taken_again", dropped=self.dropped)
            self._failing = False
            return
        self._lost += len(traces)
        if not self._failing:
            self._failing = True
            log.warning("traces_not_taken", message=f"The collector of traces takes no spans: {self._session.failure}.")

    def _readable(self, trace: RequestTrace, span: Span) -> ReadableSpan:
        """Return a span as the exporter takes it."""
        trace_id, flags = int(trace.trace_id, 16), TraceFlags(trace.flags)
        parent = None
        if span.parent_id is not None:
            parent = SpanContext(trace_id, int(span.parent_id, 16), is_remote=span.is_remote, trace_flags=flags)
        return ReadableSpan(
            name=span.name,
            context=SpanContext(trace_id, int(span.span_id, 16), is_remote=False, trace_flags=flags),
            parent=parent,
            resource=self._resource,
            attributes=span.attributes,
            kind=_KINDS[span.kind],
            instrumentation_scope=self._scope,
            status=Status(StatusCode.ERROR) if span.failed else Status(),
            start_time=span.began,
            end_time=span.ended,
        )


def _resource() -> Resource:
    """Return the resource of the spans: that of the environment, with a name where that has none."""
    found = Resource.create()
    named = str(found.attributes.get("service.name", "unknown_service"))
    own = {"service.version": version("beamlit-controller")}
    if named.startswith("unknown_service"):
        own["service.name"] = SERVICE
    return _Resource(found.merge(Resource(own)))
