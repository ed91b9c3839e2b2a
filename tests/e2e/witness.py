"""A remote backend and token endpoint that keeps the requests it received."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field


@dataclass
class Witness:
    """A server that responds to every request, issues tokens at /token, and keeps what it received."""

    name: str
    canary: str
    """Text that is in every token it issues."""
    heard: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def host(self) -> str:
        """Return host and port as a remote backend names them."""
        return f"127.0.0.1:{self.port}"

    @contextmanager
    def running(self) -> Iterator["Witness"]:
        """Serve for as long as the context lasts."""
        witness = self

        class Handler(http.server.BaseHTTPRequestHandler):
            """Handler of the requests of one connection."""

            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                """Keep the request, and respond."""
                length = int(self.headers.get("content-length", 0))
                witness.heard.append(f"{self.path}\n{self.headers}\n{self.rfile.read(length).decode()}")
                token = {"access_token": f"bought-{witness.canary}", "token_type": "Bearer", "expires_in": 600}
                body = json.dumps(token if self.path == "/token" else {"witness": witness.name}).encode()
                self.send_response(200)
                self.send_header("content-type", "application/json")
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
