"""API server that follows a script: lists in pages, watches event by event, single objects, and failures."""

import json
import queue
import ssl
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, unquote, urlsplit

import yaml

from tests.restartable import QuietHandler, Restartable

BREAK: Final = "break"
"""Entry of a watch's events that cuts the stream in the middle of an event."""
END: Final = "end"
"""Entry of a watch's events that ends the watch in order."""


def config_map(name: str, version: int = 1, text: str = "a", namespace: str = "default") -> dict[str, Any]:
    """Return a ConfigMap as an API server lists it."""
    metadata = {"name": name, "namespace": namespace, "resourceVersion": str(version)}
    return {"metadata": metadata, "data": {"route.json": text}}


def kubeconfig(
    folder: Path, port: int, token: str, *, user: dict[str, Any] | None = None, server: str = "", **cluster: Any
) -> Path:
    """Write a kubeconfig with a token, or with another `user`, named after the token; return its path."""
    path = folder / f"{token}.kubeconfig"
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": server or f"http://127.0.0.1:{port}", **cluster}}],
        "users": [{"name": "x", "user": {"token": token} if user is None else user}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    path.write_text(yaml.safe_dump(content))
    return path


@dataclass
class Collection:
    """ConfigMaps of one namespace, or of all, which tests change."""

    items: list[dict[str, Any]] = field(default_factory=list)
    version: int = 1
    page: int = 1000
    """Largest number of objects in a page, whatever the limit."""
    list_status: int = 200
    watch_status: int = 200
    list_statuses: list[int] = field(default_factory=list)
    """Statuses of the next responses to lists and their pages, before `list_status` counts."""
    watch_statuses: list[int] = field(default_factory=list)
    body: bytes | None = None
    """Body of lists, instead of the items."""
    delay: float = 0.0
    """Seconds before the response to a list."""
    endless: bool = False
    """Whether watches go on after the time that was asked for."""
    events: "queue.Queue[dict[str, Any] | bytes | str]" = field(default_factory=queue.Queue)
    lists: int = 0
    queries: list[dict[str, str]] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    """Versions that were watched from."""

    def push(self, kind: str, item: dict[str, Any]) -> None:
        """Send an event in the watch."""
        self.events.put({"type": kind, "object": item})


@dataclass
class Scripted:
    """Response at a path, whatever the query."""

    body: bytes | dict[str, Any] = field(default_factory=dict)
    status: int = 200
    delay: float = 0.0
    """Seconds before the response."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def encoded(self) -> bytes:
        """Body of the response as bytes."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


UNSERVED: Final = Scripted(b"404 page not found\n", 404)
"""Response of an API server for a group that nothing serves."""


class ApiServer(Restartable):
    """API server with collections and objects by path, which may stop and start again."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(_Handler, context, api=self)
        self.collections: dict[str, Collection] = {}
        self.objects: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, int] = {}
        """Statuses of objects that are refused, by path."""
        self.scripted: dict[str, Scripted] = {}
        """Responses by path, which come before collections and objects."""
        self.asked: list[str] = []
        """Paths with their queries of requests whose response was in `scripted`."""
        self.statuses: list[int] = []
        """Statuses of the next responses about objects, before `refused` counts."""
        self.delay = 0.0
        """Seconds before the response about an object."""
        self.tokens: list[str] = []
        """Values of the header field Authorization of the requests."""


class _Handler(QuietHandler, BaseHTTPRequestHandler):
    """Handler that follows the script."""

    api: ApiServer
    down: threading.Event
    timeout = 20

    def do_GET(self) -> None:
        """Respond to a list, a watch or a get."""
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.api.tokens.append(self.headers.get("authorization", ""))
        if (scripted := self.api.scripted.get(parts.path)) is not None:
            self.api.asked.append(unquote(self.path))
            self.down.wait(scripted.delay)
            self._send_scripted(scripted)
            return
        collection = self.api.collections.get(parts.path)
        if collection is None:
            self.down.wait(self.api.delay)
            item = self.api.objects.get(parts.path)
            status = self.api.refused.get(parts.path, 404 if item is None else 200)
            status = self.api.statuses.pop(0) if self.api.statuses else status
            self._respond(status, json.dumps(item).encode())
            return
        collection.queries.append(query)
        if "watch" in query:
            collection.watched.append(query["resourceVersion"])
            status = collection.watch_statuses.pop(0) if collection.watch_statuses else collection.watch_status
            if status == 200:
                seconds = float("inf") if collection.endless else float(query["timeoutSeconds"])
                self._watch(collection, time.monotonic() + seconds)
            else:
                self._respond(status)
            return
        start = int(query.get("continue", "0"))
        collection.lists += start == 0
        self.down.wait(collection.delay)
        status = collection.list_statuses.pop(0) if collection.list_statuses else collection.list_status
        end = start + min(collection.page, int(query["limit"]))
        more = str(end) if end < len(collection.items) else ""
        metadata = {"resourceVersion": str(collection.version), "continue": more}
        body = json.dumps({"metadata": metadata, "items": collection.items[start:end]}).encode()
        self._respond(status, body if collection.body is None else collection.body)

    def _send_scripted(self, scripted: Scripted) -> None:
        body = scripted.encoded
        self.send_response(scripted.status)
        for name, value in {"content-length": str(len(body)), **scripted.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _respond(self, status: int, body: bytes = b"") -> None:
        if status != 200:
            body = json.dumps({"kind": "Status", "code": status, "message": f"scripted {status}"}).encode()
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _watch(self, collection: Collection, until: float) -> None:
        self.send_response(200)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        self.wfile.flush()
        while time.monotonic() < until:
            try:
                event = collection.events.get(timeout=0.02)
            except queue.Empty:
                if self.down.is_set():
                    return
                continue
            if event == BREAK:
                self.wfile.write(b'7\r\n{"type"')
                return
            if event == END:
                break
            data = event if isinstance(event, bytes) else json.dumps(event).encode()
            data += b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")
