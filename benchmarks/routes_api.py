"""The API server as far as routes are read from it: a list in pages, and a watch that is fed."""

import json
import queue
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

import yaml

from gateway.api.v1alpha1 import KEY, LABEL, LABEL_VALUE

PATH: Final = "/api/v1/configmaps"


class RoutesApi:
    """An API server that serves route ConfigMaps to one gateway."""

    def __init__(self, documents: Mapping[str, str]) -> None:
        """Create the server. `documents` are the texts by `namespace/name` of the ConfigMap."""
        self.version = 1
        self.items = {key: self._item(key, text) for key, text in documents.items()}
        self.events: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def change(self, documents: Mapping[str, str]) -> None:
        """Change the texts of these ConfigMaps. The watch sends them at once."""
        self.version += 1
        for key, text in documents.items():
            self.items[key] = item = self._item(key, text)
            self.events.put(json.dumps({"type": "MODIFIED", "object": item}).encode() + b"\n")

    def _item(self, key: str, text: str) -> dict[str, Any]:
        namespace, _, name = key.partition("/")
        metadata = {
            "name": name,
            "namespace": namespace,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "resourceVersion": str(self.version),
            "labels": {LABEL: LABEL_VALUE},
        }
        return {"metadata": metadata, "data": {KEY: text}}

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Serve until the end of the block, and yield a kubeconfig."""
        api = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                url = urlsplit(self.path)
                query = {name: values[0] for name, values in parse_qs(url.query).items()}
                if url.path != PATH:
                    self._say(404, b"{}")
                elif query.get("watch"):
                    self._watch()
                else:
                    start, limit = int(query.get("continue", "0")), int(query.get("limit", "500"))
                    items = list(api.items.values())
                    metadata = {"resourceVersion": str(api.version)}
                    if start + limit < len(items):
                        metadata["continue"] = str(start + limit)
                    page = {"metadata": metadata, "items": items[start : start + limit]}
                    self._say(200, json.dumps(page).encode())

            def _say(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _watch(self) -> None:
                self.send_response(200)
                self.send_header("transfer-encoding", "chunked")
                self.end_headers()
                while event := api.events.get():
                    self.wfile.write(b"%x\r\n%b\r\n" % (len(event), event))
                self.close_connection = True

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield _kubeconfig(server.server_port)
        finally:
            self.events.put(b"")
            server.shutdown()
            thread.join()
            server.server_close()


def _kubeconfig(port: int) -> str:
    return yaml.safe_dump(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "here", "cluster": {"server": f"http://127.0.0.1:{port}"}}],
            "users": [{"name": "me", "user": {}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}],
            "current-context": "here",
        }
    )
