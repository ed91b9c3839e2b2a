"""A model's server as far as its metrics go: a page for Prometheus on a real socket, and ways to get it wrong."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any, Final

from hooks.settings import MetricInformer
from tests.restartable import QuietHandler, Restartable
from tools.repository import ROOT

LOOPBACK: Final = "127.0.0.0/8"


def exposition(engine: str) -> bytes:
    """Return the page of an engine under load: vllm, sglang or llamacpp."""
    return (ROOT / f"tests/expositions/{engine}.txt").read_bytes()


@dataclass
class Page:
    """A response at a path."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pause: float = 0.0
    """Seconds before the response, and between the pieces of its body."""
    pieces: int = 1
    """Pieces in which the body is written."""


class Engine(Restartable):
    """A server with pages by path, which may be changed while it runs."""

    def __init__(self) -> None:
        super().__init__(_Handler, engine=self)
        self.pages: dict[str, Page] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        """Paths of the requests, with their header fields in lower case."""

    @classmethod
    @contextmanager
    def running(cls, body: bytes | str = b"") -> Iterator["Engine"]:
        """Serve a page at /metrics for the block."""
        engine = cls()
        engine.serve(body)
        engine.start()
        try:
            yield engine
        finally:
            engine.stop()

    def serve(self, body: bytes | str, **page: Any) -> None:
        """Serve another page at /metrics."""
        self.pages["/metrics"] = Page(body.encode() if isinstance(body, str) else body, **page)


class _Handler(QuietHandler, BaseHTTPRequestHandler):
    engine: Engine
    down: threading.Event
    timeout = 20

    def do_GET(self) -> None:
        """Respond with the page at the path."""
        self.engine.asked.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
        page = self.engine.pages.get(self.path, Page(b"not found", 404))
        self.down.wait(page.pause)
        self.send_response(page.status)
        headers = {"content-type": "text/plain; version=0.0.4; charset=utf-8", "content-length": str(len(page.body))}
        for name, value in {**headers, **page.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        size = -(-len(page.body) // page.pieces) or 1
        for start in range(0, len(page.body), size):
            if start:
                self.down.wait(page.pause)
            self.wfile.write(page.body[start : start + size])


def informer(type_: str = "pods", **settings: Any) -> MetricInformer:
    """Return settings with which hooks read pods that are on loopback."""
    return MetricInformer.model_validate({"type": type_, "pods": {"allowedAddresses": [LOOPBACK]}, **settings})
