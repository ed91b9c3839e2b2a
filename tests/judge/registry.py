"""A registry of charts (OCI distribution) that programs reach as ghcr.io, through a proxy on this machine."""

import contextlib
import hashlib
import http.server
import json
import os
import re
import ssl
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qs, urlsplit

from tests.authorities import Authority

HOST: Final = "ghcr.io"
_PATH: Final = re.compile(r"/v2/(?P<name>[\w./-]+?)/(?P<kind>manifests|blobs|tags)/(?P<reference>.*)")


class Registry:
    """Blobs by digest and manifests by repository and tag, all in memory."""

    def __init__(self, folder: Path) -> None:
        authority = Authority("registry")
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(*authority.issue(HOST).write(folder, "registry"))
        self._trusted = folder / "registry-ca.crt"
        self._trusted.write_text(authority.pem)
        self.blobs: dict[str, bytes] = {}
        self.manifests: dict[tuple[str, str], tuple[str, bytes]] = {}
        """Media type and content of manifests by repository and tag or digest."""
        self._port = 0

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Serve while the context is open."""
        handler = type("Handler", (_Handler,), {"registry": self, "context": self._context})
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
            server.daemon_threads = True
            self._port = server.server_port
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            try:
                yield
            finally:
                server.shutdown()
                thread.join()

    def environment(self, folder: Path) -> Mapping[str, str]:
        """Return environment variables with which helm reaches this registry as ghcr.io, with its files in a folder."""
        return os.environ | {
            "HTTPS_PROXY": f"http://127.0.0.1:{self._port}",
            "https_proxy": f"http://127.0.0.1:{self._port}",
            "NO_PROXY": "",
            "no_proxy": "",
            "SSL_CERT_FILE": str(self._trusted),
            "HOME": str(folder),
            "XDG_CACHE_HOME": str(folder / "cache"),
            "XDG_CONFIG_HOME": str(folder / "config"),
            "XDG_DATA_HOME": str(folder / "data"),
        }


class _Handler(http.server.BaseHTTPRequestHandler):
    """Handler of one connection: a tunnel to ghcr.io, whose other end is here as well."""

    protocol_version = "HTTP/1.1"
    registry: Registry
    context: ssl.SSLContext

    def do_CONNECT(self) -> None:
        """Respond to the proxy's client, and serve TLS on the same connection from then on."""
        if self.path != f"{HOST}:443":
            self._respond(403, b"")
            return
        self.send_response_only(200)
        self.end_headers()
        self.wfile.flush()
        outside = self.rfile, self.wfile
        with (
            contextlib.suppress(OSError),
            self.context.wrap_socket(self.connection, server_side=True) as tunnel,
            tunnel.makefile("rb") as self.rfile,
            tunnel.makefile("wb", 0) as self.wfile,  # type: ignore[assignment]
        ):
            self.close_connection = False
            while not self.close_connection:
                self.handle_one_request()
        self.rfile, self.wfile = outside
        self.close_connection = True

    def do_GET(self) -> None:
        """Send a manifest, a blob or a list of tags."""
        self._send(body=True)

    def do_HEAD(self) -> None:
        """Send the head of what GET sends."""
        self._send(body=False)

    def do_POST(self) -> None:
        """Begin an upload."""
        self._read()
        self._respond(202, b"", {"Location": f"{urlsplit(self.path).path}1"})

    def do_PUT(self) -> None:
        """Keep a blob or a manifest."""
        content = self._read()
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        url = urlsplit(self.path)
        found = _PATH.fullmatch(url.path)
        assert found is not None, self.path
        if found["kind"] == "manifests":
            for reference in (found["reference"], digest):
                kept = (self.headers["Content-Type"], content)
                self.registry.manifests[found["name"], reference] = kept
        else:
            assert parse_qs(url.query)["digest"] == [digest]
            self.registry.blobs[digest] = content
        location = f"/v2/{found['name']}/{found['kind']}/{digest}"
        self._respond(201, b"", {"Location": location, "Docker-Content-Digest": digest})

    def _send(self, *, body: bool) -> None:
        path = urlsplit(self.path).path
        found = _PATH.fullmatch(path)
        media, content = "application/octet-stream", None
        if path == "/v2/":
            content = b"{}"
        elif found is not None and found["kind"] == "manifests":
            media, content = self.registry.manifests.get((found["name"], found["reference"]), (media, None))
        elif found is not None and found["kind"] == "blobs":
            content = self.registry.blobs.get(found["reference"])
        elif found is not None:
            tags = [tag for name, tag in self.registry.manifests if name == found["name"] and ":" not in tag]
            media, content = "application/json", json.dumps({"name": found["name"], "tags": tags}).encode()
        if content is None:
            self._respond(404, b'{"errors": [{"code": "NAME_UNKNOWN"}]}', body=body)
            return
        digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
        self._respond(200, content, {"Content-Type": media, "Docker-Content-Digest": digest}, body=body)

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _respond(
        self, status: int, content: bytes, fields: Mapping[str, str] | None = None, *, body: bool = True
    ) -> None:
        self.send_response(status)
        for name, value in (fields or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Log nothing."""
