"""An API server behind the API server with scripted responses: how much, how old, how late, and whether at all."""

import contextlib
import http.server
import json
import ssl
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from urllib.parse import urlsplit

from tests.e2e.aggregation import EXTERNAL
from tests.e2e.controlplane import ControlPlane

GROUP: Final = "external.metrics.k8s.io"
_VERSION: Final = f"{GROUP}/{EXTERNAL[0]}"


class Scripted:
    """A server of external.metrics.k8s.io: each metric is one series, the same in every namespace, without a window."""

    def __init__(self, plane: ControlPlane) -> None:
        self.values: dict[str, str] = {}
        """Quantities by the metric's name; for other names there is no series."""
        self.age = timedelta(0)
        """Age of every value."""
        self.delay = timedelta(0)
        """Delay of every response about a metric; responses by which the API server discovers the group come at
        once."""
        self.refused = 0
        """Status of every response about a metric, unless 0."""
        self.asked = 0
        """Number of requests for a metric so far."""
        self._plane = plane
        self._stopping = threading.Event()
        scripted = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Handler of the requests of one connection."""

            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                """Respond to the API server."""
                with contextlib.suppress(OSError):  # the API server closes connections that take too long
                    status, content = scripted.respond(urlsplit(self.path).path)
                    body = json.dumps(content).encode()
                    self.send_response(status)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(plane.certificate, plane.certificate.with_suffix(".key"))
        # Each connection's own thread makes its handshake.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    @contextlib.contextmanager
    def running(self) -> Iterator["Scripted"]:
        """Serve for as long as the context lasts; when it begins, the API server passes requests on."""
        self._thread.start()
        try:
            self.serve()
            yield self
        finally:
            self._stopping.set()
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()

    def serve(self) -> None:
        """Have the API server pass requests on, also again after another server had the group."""
        self._plane.serve(GROUP, EXTERNAL, "scripted", self._server.server_address[1])

    def respond(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return status and content of the response for a path."""
        match path.strip("/").split("/"):
            case ["apis", _, _]:
                resource = {"name": "*", "singularName": "", "namespaced": True, "kind": "ExternalMetricValueList"}
                listed = {"groupVersion": _VERSION, "resources": [resource | {"verbs": ["get"]}]}
                return 200, {"kind": "APIResourceList", "apiVersion": "v1", **listed}
            case ["apis", _, _, "namespaces", _, metric]:
                self.asked += 1
                self._stopping.wait(self.delay.total_seconds())
                return (self.refused, _status(self.refused)) if self.refused else (200, self._values(metric))
        return 404, _status(404)

    def _values(self, metric: str) -> dict[str, Any]:
        time = (datetime.now(UTC) - self.age).isoformat(timespec="seconds").replace("+00:00", "Z")
        item = {"metricName": metric, "metricLabels": {}, "timestamp": time, "window": 0}
        items = [item | {"value": self.values[metric]}] if metric in self.values else []
        return {"kind": "ExternalMetricValueList", "apiVersion": _VERSION, "metadata": {}, "items": items}


def _status(code: int) -> dict[str, Any]:
    return {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "as told to"}
