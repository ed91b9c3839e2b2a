"""Collector of traces on loopback: it takes OTLP over HTTP and parses the protobuf in it."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

_KINDS = {Span.SPAN_KIND_SERVER: "server", Span.SPAN_KIND_INTERNAL: "internal", Span.SPAN_KIND_CLIENT: "client"}


class Received:
    """Span as the collector got it."""

    def __init__(self, span: Span, resource: dict[str, Any]) -> None:
        self.name = span.name
        self.kind = _KINDS[span.kind]
        self.trace_id = span.trace_id.hex()
        self.span_id = span.span_id.hex()
        self.parent_id = span.parent_span_id.hex()
        self.began = span.start_time_unix_nano
        self.ended = span.end_time_unix_nano
        self.failed = span.status.code == Status.STATUS_CODE_ERROR
        self.attributes = {one.key: _value(one.value) for one in span.attributes}
        self.resource = resource


class Collector:
    """Collector that keeps all spans and all bytes that it got."""

    def __init__(self, port: int = 0) -> None:
        self.spans: list[Received] = []
        self.content: list[bytes] = []
        """Bodies of the requests, without their content coding."""
        self.fields: list[dict[str, str]] = []
        """Header fields of the requests, with names in lower case."""
        self.status = 200
        """Status of all responses."""
        collector = self

        class Handler(BaseHTTPRequestHandler):
            """Handler of one connection."""

            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Take one batch."""
                body = self.rfile.read(int(self.headers["content-length"]))
                collector.take(self.path, {name.lower(): value for name, value in self.headers.items()}, body)
                self.send_response(collector.status)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                """Log nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()

    def take(self, path: str, fields: dict[str, str], body: bytes) -> None:
        """Keep what one request has."""
        assert path == "/v1/traces"
        assert fields["content-type"] == "application/x-protobuf"
        if fields.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        request = ExportTraceServiceRequest.FromString(body)
        self.fields.append(fields)
        self.content.append(body)
        if self.status != 200:
            return
        for group in request.resource_spans:
            resource = {one.key: _value(one.value) for one in group.resource.attributes}
            for scope in group.scope_spans:
                self.spans += [Received(span, resource) for span in scope.spans]

    def close(self) -> None:
        """Stop to listen."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


@contextmanager
def collecting(port: int = 0) -> Iterator[Collector]:
    """Yield a collector on a free port, or on this one."""
    collector = Collector(port)
    try:
        yield collector
    finally:
        collector.close()


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, str(kind))
