"""A server of Prometheus's API that requires a name and a password, which can change while it runs."""

import base64
import http.server
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass
class GuardedPrometheus:
    """A server for which every expression is 7 to a client that sends the right name and password."""

    password: str
    username: str = "reader"
    admitted: int = 0
    turned_away: int = 0
    port: int = 0

    @contextmanager
    def running(self) -> Iterator["GuardedPrometheus"]:
        """Serve for as long as the context lasts."""
        guard = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Handler of the requests of one connection."""

            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                """Respond with the value, or with 401 to wrong credentials."""
                pair = base64.b64encode(f"{guard.username}:{guard.password}".encode()).decode()
                known = self.headers.get("authorization") == f"Basic {pair}"
                guard.admitted += known
                guard.turned_away += not known
                result = {"resultType": "scalar", "result": [time.time(), "7"]}
                body = json.dumps({"status": "success", "data": result} if known else {}).encode()
                self.send_response(200 if known else 401)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
