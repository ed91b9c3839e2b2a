"""A model server with the histogram that vLLM has: how long its requests wait for their first token."""

import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Histogram, generate_latest


@dataclass
class MeasuredServer:
    """A server that responds to every request after some time, and measures that."""

    seconds: float
    """Seconds that the first token takes; the others take none."""
    port: int = 0
    _registry: CollectorRegistry = field(default_factory=CollectorRegistry)

    @contextmanager
    def running(self) -> Iterator["MeasuredServer"]:
        """Serve for as long as the context lasts."""
        server, registry = self, self._registry
        words = "Time to the first token in seconds."
        taken = Histogram("vllm:time_to_first_token_seconds", words, ["model_name"], registry=registry)

        class Handler(http.server.BaseHTTPRequestHandler):
            """Handler of the requests of one connection."""

            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Respond to a chat request."""
                began = time.monotonic()
                content = json.loads(self.rfile.read(int(self.headers["content-length"])))
                time.sleep(server.seconds)
                taken.labels(content["model"]).observe(time.monotonic() - began)
                self._respond(json.dumps({"object": "chat.completion", "choices": []}).encode(), "application/json")

            def do_GET(self) -> None:
                """Respond to Prometheus."""
                self._respond(generate_latest(registry), CONTENT_TYPE_LATEST)

            def _respond(self, body: bytes, kind: str) -> None:
                self.send_response(200)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        listening = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        listening.daemon_threads = True
        self.port = listening.server_address[1]
        thread = threading.Thread(target=listening.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            listening.shutdown()
            thread.join()
            listening.server_close()
