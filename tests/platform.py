"""A Beamlit platform for tests: the documented API over HTTP with a store of its own, and failures that tests script.

It stores the documented fields and no others, so a policy has no labels. Times of creation and change are its own.
"""

import base64
import copy
import json
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Final
from urllib.parse import SplitResult, parse_qs, unquote, unquote_plus, urlsplit

from tests.builders import Json
from tests.restartable import QuietHandler, Restartable

CLIENT_ID: Final = "client-of-the-test"
SECRET: Final = "canary-of-the-secret"
TOKEN: Final = base64.b64encode(f"{CLIENT_ID}:{SECRET}".encode()).decode()
"""Value of BEAMLIT_TOKEN."""
WORKSPACE: Final = "acme"
_METADATA: Final = {"models": {"name", "environment", "labels"}, "policies": {"name", "displayName"}}
_SPEC: Final = {
    "models": {"enabled", "runtime", "policies", "serverlessConfig", "podTemplate"},
    "policies": {"type", "locations", "flavors"},
}


@dataclass(frozen=True, slots=True)
class Trouble:
    """A failure of one request."""

    status: int = 0
    """Status of the response; 0 leaves the response as it would be."""
    body: bytes | Json = b""
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds before the request is handled."""
    late: float = 0.0
    """Seconds between the handling of the request and its response."""
    lost: bool = False
    """Whether the request is handled, and then the connection closed without a response."""
    cut: bool = False
    """Whether the connection is closed before the request is handled."""

    @property
    def encoded(self) -> bytes:
        """Return the body of the response as bytes."""
        return self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()


Script = Callable[[str, str], Trouble | None]
"""Function from method and path of a request to its failure; None for no failure."""


@dataclass(frozen=True, slots=True)
class Call:
    """A request as it was received. `Platform.calls` has no request for a token."""

    method: str
    target: str
    content: Json | None = None


class Platform(Restartable):
    """A platform that may be stopped and started again on the same port."""

    def __init__(self, context: ssl.SSLContext | None = None) -> None:
        super().__init__(_Handler, context, platform=self)
        self._scheme = "http" if context is None else "https"
        self.store: dict[tuple[str, str, str], Json] = {}
        """Objects by kind (models or policies), name and environment."""
        self.calls: list[Call] = []
        self.bought: list[str] = []
        """Tokens that were issued."""
        self.refused_tokens: set[str] = set()
        self.life: int | str | None = 3600
        """Value of expires_in in the response with a token."""
        self.secret = SECRET
        self.decodes = True
        """Whether id and secret of a token request are form-decoded."""
        self.clients: list[str] = []
        """Credentials of the token requests, as they came in HTTP Basic."""
        self.script: Script = lambda _method, _path: None
        self.now = datetime(2026, 2, 1, tzinfo=UTC)
        self.lock = threading.Lock()
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        """Return the base URL of the API."""
        return f"{self._scheme}://127.0.0.1:{self.port}/v0"

    def troubles(self, *troubles: Trouble, on: str = "") -> None:
        """Let the next requests fail, each with one of these; with `on`, only requests of that method count."""
        left = list(troubles)

        def script(method: str, path: str) -> Trouble | None:
            fits = on in ("", method) and not path.endswith("/oauth/token")
            return left.pop(0) if left and fits else None

        self.script = script

    def always(self, trouble: Trouble) -> None:
        """Let every request from now on fail."""
        self.script = lambda _method, _path: trouble

    def model(self, name: str = "llama", environment: str = "production") -> Json | None:
        """Return a stored model; None when there is none."""
        return self.store.get(("models", name, environment))

    def policy(self, name: str = "eu") -> Json | None:
        """Return a stored policy; None when there is none."""
        return self.store.get(("policies", name, ""))

    def put(self, kind: str, body: Json) -> None:
        """Store an object as if it had been made by hand."""
        metadata = body["metadata"]
        key = (kind, metadata["name"], metadata.get("environment", ""))
        self.store[key] = self.stored(kind, body, None)

    def stored(self, kind: str, body: Json, before: Json | None) -> Json:
        """Return the object that is stored for a body."""
        self.now += timedelta(seconds=1)
        moment = self.now.isoformat(timespec="milliseconds").replace("+00:00", "Z")
        given = {key: value for key, value in body["metadata"].items() if key in _METADATA[kind]}
        created = moment if before is None else before["metadata"]["createdAt"]
        metadata = {**given, "workspace": WORKSPACE, "createdAt": created, "updatedAt": moment}
        return {"metadata": metadata, "spec": {key: body["spec"][key] for key in _SPEC[kind] if key in body["spec"]}}

    def writes(self) -> list[tuple[str, str]]:
        """Return method and path of every request that could change something."""
        return [(call.method, urlsplit(call.target).path) for call in self.calls if call.method != "GET"]


class _Handler(QuietHandler, BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    platform: Platform
    down: threading.Event
    timeout = 20

    def do_GET(self) -> None:
        """Respond to a request, or fail as it is scripted."""
        platform = self.platform
        parts = urlsplit(self.path)
        length = int(self.headers.get("content-length", 0))
        content = self.rfile.read(length)
        with platform.lock:
            platform.at_once += 1
            platform.most_at_once = max(platform.most_at_once, platform.at_once)
            trouble = platform.script(self.command, parts.path) or Trouble()
        response = None if self.down.wait(trouble.delay) or trouble.cut else self._respond(parts, content, trouble)
        with platform.lock:
            platform.at_once -= 1  # before the client gets its response and continues
        if response is None:
            self.close_connection = True
        else:
            self._say(*response, trouble.headers)

    do_POST = do_PUT = do_DELETE = do_GET  # noqa: N815 - the names that the library looks for

    def _respond(self, parts: SplitResult, content: bytes, trouble: Trouble) -> tuple[int, bytes] | None:
        """Return status and body; None when there is no response."""
        if trouble.status:
            return trouble.status, trouble.encoded
        with self.platform.lock:
            status, body = self._done(parts.path, parse_qs(parts.query), content)
        if self.down.wait(trouble.late) or trouble.lost:
            return None
        return status, json.dumps(body).encode()

    def _done(self, path: str, query: dict[str, list[str]], content: bytes) -> tuple[int, Json]:
        platform = self.platform
        if path == "/v0/oauth/token":
            return self._token(content)
        body = json.loads(content) if content else None
        platform.calls.append(Call(self.command, self.path, copy.deepcopy(body)))
        token = self.headers.get("authorization", "").removeprefix("Bearer ")
        if token not in platform.bought or token in platform.refused_tokens:
            return 401, {"error": "unauthorized"}
        kind, *rest = path.removeprefix("/v0/").split("/")
        if kind not in _METADATA or len(rest) > 1:
            return 404, {"error": "no such path"}
        if body is not None and (problem := _problem(kind, body)):
            return 400, {"error": problem}
        name = unquote(rest[0]) if rest else body["metadata"]["name"] if body else ""
        environment = query.get("environment", [""])[0]
        if body is not None:
            environment = body["metadata"].get("environment", "")
        key = (kind, name, environment if kind == "models" else "")
        return self._stored(key, body)

    def _stored(self, key: tuple[str, str, str], body: Json | None) -> tuple[int, Json]:
        store, found = self.platform.store, self.platform.store.get(key)
        match self.command:
            case "POST" if found is not None:
                return 409, {"error": "already exists"}
            case "PUT" | "GET" | "DELETE" if found is None:
                return 404, {"error": "not found"}
            case "POST" | "PUT":
                assert body is not None
                store[key] = self.platform.stored(key[0], body, found)
            case "DELETE":
                return 200, store.pop(key)
        return 200, store[key]

    def _token(self, content: bytes) -> tuple[int, Json]:
        platform = self.platform
        scheme, _, client = self.headers.get("authorization", "").partition(" ")
        platform.clients.append(client)
        form = parse_qs(content.decode())
        client = base64.b64decode(client).decode()
        if platform.decodes:
            client = unquote_plus(client)
        if (scheme, client) != ("Basic", f"{CLIENT_ID}:{platform.secret}"):
            return 401, {"error": "invalid_client"}
        if form != {"grant_type": ["client_credentials"]}:
            return 400, {"error": "unsupported_grant_type"}
        token = f"canary-of-a-token-{len(platform.bought)}"
        platform.bought.append(token)
        life = {} if platform.life is None else {"expires_in": platform.life}
        return 200, {"access_token": token, "token_type": "Bearer", **life}

    def _say(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(body)), "content-type": "application/json", **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _problem(kind: str, body: Json) -> str:
    """Return what the documentation does not allow in a body; empty when it allows it."""
    metadata, spec = body.get("metadata"), body.get("spec")
    if not isinstance(metadata, dict) or not isinstance(spec, dict) or set(body) != {"metadata", "spec"}:
        return "metadata and spec are required"
    unknown = (set(metadata) - _METADATA[kind]) | (set(spec) - _SPEC[kind])
    if unknown:
        return f"unknown fields: {sorted(unknown)}"
    if not metadata.get("name") or (kind == "models" and not metadata.get("environment")):
        return "a name is required"
    return ""
