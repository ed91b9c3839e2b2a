"""An HTTP server in a thread that can be stopped in the middle of responses and started again on the same port."""

import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tools.ports import free_port


class Restartable:
    """An HTTP server whose handlers find in their attribute `down` whether the server is being stopped."""

    def __init__(
        self, handler: type[BaseHTTPRequestHandler], context: ssl.SSLContext | None = None, **attributes: Any
    ) -> None:
        """Make a server that does not listen yet; `attributes` are set on the handler class."""
        self.port = free_port()
        self._handler, self._attributes = handler, attributes
        self._context = context
        self._down = threading.Event()
        self._server: ThreadingHTTPServer | None = None
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Listen, always on the same port."""
        self._down = threading.Event()
        handler = type("Scripted", (self._handler,), {**self._attributes, "down": self._down})
        self._server = _Server(("127.0.0.1", self.port), handler)
        if self._context is not None:
            self._server.socket = self._context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def stop(self) -> None:
        """Stop listening and have every running handler end."""
        self._down.set()
        if self._server is not None and self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._server.server_close()
            self._server = None


class _Server(ThreadingHTTPServer):
    """A server that lets many connections wait to be accepted."""

    daemon_threads = True
    request_queue_size = 128


class QuietHandler(BaseHTTPRequestHandler):
    """Handler for a server whose clients may close their connection at any moment, and which writes no log."""

    def handle(self) -> None:
        """Handle a connection; a client that closes it early is no error."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Write no log."""
