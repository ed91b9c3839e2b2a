"""An API server that tests script: lists in pages, watches fed event by event, single objects, and trouble."""

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

from tests.restartable import Restartable

BREAK: Final = "break"
"""In a watch: cut the stream in the middle of an event."""
END: Final = "end"
"""In a watch: end it in order."""


def config_map(name: str, version: int = 1, text: str = "a", namespace: str = "default") -> dict[str, Any]:
    """A ConfigMap as an API server lists it."""
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
    """The ConfigMaps of one namespace, or of all; tests change them."""

    items: list[dict[str, Any]] = field(default_factory=list)
    version: int = 1
    page: int = 1000
    """Objects in a page at most, whatever the limit."""
    list_status: int = 200
    watch_status: int = 200
    list_statuses: list[int] = field(default_factory=list)
    """Of the next answers to lists and their pages, before `list_status` counts."""
    watch_statuses: list[int] = field(default_factory=list)
    body: bytes | None = None
    """Of lists, instead of the items."""
    delay: float = 0.0
    """Seconds before a list is answered."""
    endless: bool = False
    """Watches go on after the time that was asked for."""
    events: "queue.Queue[dict[str, Any] | bytes | str]" = field(default_factory=queue.Queue)
    lists: int = 0
    queries: list[dict[str, str]] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    """The versions that were watched from."""

    def push(self, kind: str, item: dict[str, Any]) -> None:
        """Say an event to the watch."""
        self.events.put({"type": kind, "object": item})


@dataclass
class Scripted:
    """What is said at a path, whatever the query."""

    body: bytes | dict[str, Any] = field(default_factory=dict)
    status: int = 200
    delay: float = 0.0
    """Seconds before the answer."""
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def encoded(self) -> bytes:
        """The body on the wire."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


NOBODY: Final = Scripted(b"404 page not found\n", 404)
"""What an API server says of a group that nobody serves."""


class ApiServer(Restartable):
    """Serves collections and objects by their paths; may go away and come back."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(_Handler, context, api=self)
        self.collections: dict[str, Collection] = {}
        self.objects: dict[str, dict[str, Any]] = {}
        self.refused: dict[str, int] = {}
        """Status by path of objects that are not given out."""
        self.scripted: dict[str, Scripted] = {}
        """Answers by path; they come before everything else."""
        self.asked: list[str] = []
        """Paths with their queries, of requests that were answered from `scripted`."""
        self.statuses: list[int] = []
        """Of the next answers about objects, before `refused` counts."""
        self.delay = 0.0
        """Seconds before an object is answered."""
        self.tokens: list[str] = []
        """What the requests were authorized with."""


class _Handler(BaseHTTPRequestHandler):
    """Plays the script."""

    api: ApiServer
    down: threading.Event
    timeout = 20

    def do_GET(self) -> None:
        """List, watch or get."""
        parts = urlsplit(self.path)
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        self.api.tokens.append(self.headers.get("authorization", ""))
        if (scripted := self.api.scripted.get(parts.path)) is not None:
            self.api.asked.append(unquote(self.path))
            self.down.wait(scripted.delay)
            self._say(scripted)
            return
        collection = self.api.collections.get(parts.path)
        if collection is None:
            self.down.wait(self.api.delay)
            found = self.api.objects.get(parts.path)
            status = self.api.refused.get(parts.path, 404 if found is None else 200)
            status = self.api.statuses.pop(0) if self.api.statuses else status
            self._answer(status, json.dumps(found).encode())
            return
        collection.queries.append(query)
        if "watch" in query:
            collection.watched.append(query["resourceVersion"])
            status = collection.watch_statuses.pop(0) if collection.watch_statuses else collection.watch_status
            if status == 200:
                seconds = float("inf") if collection.endless else float(query["timeoutSeconds"])
                self._watch(collection, time.monotonic() + seconds)
            else:
                self._answer(status)
            return
        start = int(query.get("continue", "0"))
        collection.lists += start == 0
        self.down.wait(collection.delay)
        status = collection.list_statuses.pop(0) if collection.list_statuses else collection.list_status
        end = start + min(collection.page, int(query["limit"]))
        more = str(end) if end < len(collection.items) else ""
        metadata = {"resourceVersion": str(collection.version), "continue": more}
        body = json.dumps({"metadata": metadata, "items": collection.items[start:end]}).encode()
        self._answer(status, body if collection.body is None else collection.body)

    def _say(self, scripted: Scripted) -> None:
        body = scripted.encoded
        self.send_response(scripted.status)
        for name, value in {"content-length": str(len(body)), **scripted.headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _answer(self, status: int, body: bytes = b"") -> None:
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

    def handle(self) -> None:
        """A client that goes away in the middle is no error here."""
        try:
            super().handle()
        except OSError:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Nothing."""
