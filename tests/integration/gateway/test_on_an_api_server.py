"""`python -m gateway` on a scripted API server: routes, Secrets, signals, and an API server that is away."""

import base64
import contextlib
import http.server
import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.api.v1alpha1 import Credentials, Headers, OAuth2, SecretKey
from tests.deadlines import NEVER, SECONDS
from tests.integration.apiserver import ApiServer, Collection, config_map, kubeconfig
from tests.integration.gateway.wire import document, remote
from tests.processes import poll, status
from tools.ports import free_port
from tools.repository import ROOT

CONFIG_MAPS = "/api/v1/namespaces/default/configmaps"
SECRETS = "/api/v1/namespaces/default/secrets/"
CANARY = "canary-"
"""Beginning of each secret value."""
LABEL = "gateway.beamlit.com/credential"


class _Remote(http.server.BaseHTTPRequestHandler):
    """Token endpoint at /token, failure with a canary at /fail, and a backend that responds `ok` elsewhere."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]
    """Path and credentials of each request to the backend."""

    def do_POST(self) -> None:
        """Send a token, a failure or `ok`."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        code, content = 200, b"ok"
        if self.path == "/token":
            content = json.dumps({"access_token": CANARY + "token", "token_type": "bearer", "expires_in": 60}).encode()
        elif self.path == "/fail":
            code, content = 500, f"{CANARY}response".encode()
        else:
            self.seen.append((self.path, f"{self.headers['authorization']} {self.headers['x-api-key']}"))
        self.send_response(code)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Write no log."""


@pytest.fixture
def platform() -> Iterator[http.server.ThreadingHTTPServer]:
    """Start a remote backend with its token endpoint."""
    handler = type("Platform", (_Remote,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """Return an API server without routes that is not started yet."""
    api = ApiServer()
    api.port = free_port()
    api.collections[CONFIG_MAPS] = Collection()
    yield api
    api.stop()


class Gateway:
    """Running gateway process."""

    def __init__(self, process: "subprocess.Popen[str]", folder: Path, port: int, admin: int) -> None:
        self.process, self.port, self.admin = process, port, admin
        self.output, self.errors = folder / "output", folder / "errors"

    def post(self, name: str) -> tuple[int, str]:
        """Post to a model; return status and body of the response."""
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/default/{name}/x", b"{}")
        try:
            with urllib.request.urlopen(request, timeout=SECONDS) as response:
                return response.status, response.read().decode()
        except urllib.error.HTTPError as exc:
            return exc.code, exc.read().decode()

    def ready(self) -> int:
        """Return the status of /readyz; 0 when there is no response."""
        return status(f"http://127.0.0.1:{self.admin}/readyz")

    def page(self, path: str) -> str:
        """Return a page of the admin port."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}{path}", timeout=SECONDS) as response:
            return str(response.read().decode())

    def state(self) -> dict[str, Any]:
        """Return the content of /routes."""
        content: dict[str, Any] = json.loads(self.page("/routes"))
        return content

    def age(self) -> float:
        """Return the metric of the table's age, in seconds."""
        (line,) = (one for one in self.page("/metrics").splitlines() if one.startswith("beamlit_gateway_table_age"))
        return float(line.split()[1])

    def events(self, event: str) -> list[dict[str, Any]]:
        """Return the log lines of an event so far."""
        lines = [json.loads(line) for line in self.errors.read_text().splitlines()]
        return [line for line in lines if line["event"] == event]

    def stop(self) -> None:
        """Send SIGTERM and wait for the end, which has to be an orderly one."""
        self.process.terminate()
        assert self.process.wait(SECONDS) == 0


@contextlib.contextmanager
def started(folder: Path, api: ApiServer, remote_port: int = 1) -> Iterator[Gateway]:
    """Run a gateway that asks `api`, ready or not; `remote.test` leads to `remote_port`."""
    port, admin = free_port(), free_port()
    config = folder / "config.yaml"
    config.write_text(
        "gateway: {lameDuckSeconds: 0, drainSeconds: 0.2, logLevel: debug, allowedAddresses: [127.0.0.0/8]}"
    )
    output, errors = folder / "output", folder / "errors"
    with output.open("w") as out, errors.open("w") as err:
        process = subprocess.Popen(
            [sys.executable, "-m", "gateway", "--config", str(config),
             "--kubeconfig", str(kubeconfig(folder, api.port, CANARY + "account")),
             "--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}",
             "--resolve", f"remote.test:80=127.0.0.1:{remote_port}"],
            cwd=ROOT, env=os.environ | {"PYTHONUNBUFFERED": "1"}, stdout=out, stderr=err, text=True,
        )  # fmt: skip
    try:
        poll(lambda: status(f"http://127.0.0.1:{admin}/healthz") == 200, "it runs")
        yield Gateway(process, folder, port, admin)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


def route(name: str, **values: Any) -> dict[str, Any]:
    """Return a route to the remote backend."""
    return config_map(f"{name}-route", text=document(remote(100, **values), name=name).canonical_json())


def secret(data: dict[str, str], *, labeled: bool = True) -> dict[str, Any]:
    """Return a Secret as stored."""
    labels = {LABEL: "true"} if labeled else {}
    encoded = {key: base64.b64encode(value.encode()).decode() for key, value in data.items()}
    return {"metadata": {"labels": labels}, "data": encoded}


def test_secrets_go_where_they_say_and_are_seen_nowhere(
    tmp_path: Path, api: ApiServer, platform: http.server.ThreadingHTTPServer
) -> None:
    """P18: the process reads a Secret by name, uses it as its label and hosts allow, and shows nothing of it."""
    port = platform.server_address[1]
    oauth = {
        "clientId": CANARY + "id",
        "clientSecret": CANARY + "secret",
        "tokenUrl": f"http://127.0.0.1:{port}/token",
        "hosts": "remote.test",
    }
    key = {"k": CANARY + "key", "hosts": "remote.test"}
    stored: dict[str, dict[str, Any] | None] = {
        "good": secret(oauth),
        "unlabeled": secret(oauth, labeled=False),
        "elsewhere": secret(oauth | {"hosts": "other.test"}),
        "failing": secret(oauth | {"tokenUrl": f"http://127.0.0.1:{port}/fail"}),
        "forbidden": secret(oauth),
        "missing": None,
        "key": secret(key),
        "key-unlabeled": secret(key, labeled=False),
        "key-elsewhere": secret(key | {"hosts": "other.test"}),
        "key-broken": secret(key | {"k": f"{CANARY}\r\nx: y"}),
        "key-missing": None,
    }
    api.objects = {SECRETS + name: one for name, one in stored.items() if one is not None}
    api.refused[SECRETS + "forbidden"] = 403
    by_key = {name: Headers(set_from={"x-api-key": SecretKey(name=name, key="k")}) for name in stored}
    api.collections[CONFIG_MAPS].items = [
        route(name, headers=by_key[name])
        if name.startswith("key")
        else route(name, credentials=Credentials(oauth2=OAuth2(name=name)))
        for name in stored
    ]
    api.start()
    with started(tmp_path, api, port) as gateway:
        poll(lambda: gateway.ready() == 200, "it is ready")
        responses = {name: gateway.post(name) for name in stored}
        assert responses.pop("good") == responses.pop("key") == (200, "ok")
        assert {code for code, _ in responses.values()} == {502}
        assert platform.RequestHandlerClass.seen == [  # type: ignore[attr-defined]
            ("/x", f"Bearer {CANARY}token None"),
            ("/x", f"None {CANARY}key"),
        ]
        logged = {one["name"]: str(one) for name in ("token_unavailable", "credential_unusable")
                  for one in gateway.events(name)}  # fmt: skip
        assert logged.keys() == responses.keys()
        for name, words in {
            "unlabeled": f"does not carry the label {LABEL}",
            "key-unlabeled": f"does not carry the label {LABEL}",
            "elsewhere": "not for the host remote.test",
            "key-elsewhere": "not for the host remote.test",
            "failing": "token_status_500",
            "forbidden": "403 Forbidden",
            "missing": "does not exist",
            "key-missing": "does not exist",
            "key-broken": "no field value",
        }.items():
            assert words in logged[name], name
        pages = [gateway.page(path) for path in ("/routes", "/", "/metrics", "/readyz", "/healthz")]
        gateway.stop()
        seen = "".join([str(responses), *pages, gateway.output.read_text(), gateway.errors.read_text()])
    assert len(seen) > 5000
    assert CANARY not in seen


def test_a_first_start_without_an_api_server(tmp_path: Path, api: ApiServer) -> None:
    """Without an API server the gateway is not ready and says why, once; it becomes ready by itself later."""
    api.collections[CONFIG_MAPS].items = [route("demo")]
    with started(tmp_path, api) as gateway:
        poll(lambda: gateway.state()["sourceErrors"], "the admin port says why")
        began = time.monotonic()
        poll(lambda: time.monotonic() - began > 1.5, "several tries are over")
        assert gateway.ready() == 503
        (line,) = gateway.events("routes_cannot_be_read")
        assert line["place"] == "namespace default"
        assert line["error"].endswith("Connection refused")
        state = gateway.state()
        assert (state["loaded"], state["ageSeconds"], state["routes"]) == (False, None, [])
        assert gateway.post("demo")[0] == 404
        api.start()
        poll(lambda: gateway.ready() == 200, "it is ready")
        assert gateway.state()["routes"][0]["name"] == "demo"
        poll(lambda: gateway.events("routes_are_followed_again"), "the log says so")
        assert len(gateway.events("routes_are_followed_again")) == 1


def test_the_api_server_is_away(tmp_path: Path, api: ApiServer, platform: http.server.ThreadingHTTPServer) -> None:
    """While the API server is away, routes and readiness stay and the age grows; later changes are caught up."""
    script = api.collections[CONFIG_MAPS]
    script.items = [route("demo")]
    api.start()
    with started(tmp_path, api, platform.server_address[1]) as gateway:
        poll(lambda: gateway.ready() == 200, "it is ready")
        script.push("ADDED", route("second"))
        poll(lambda: gateway.post("second")[0] == 200, "an event counts")
        api.stop()
        poll(lambda: gateway.state()["sourceErrors"], "it says so")
        first = gateway.age()
        poll(lambda: gateway.age() > first + 1, "the age grows")
        assert gateway.ready() == 200
        assert gateway.post("demo") == gateway.post("second") == (200, "ok")
        assert gateway.state()["ageSeconds"] > first
        assert "Connection refused" in gateway.page("/")
        script.items = [route("third")]
        api.start()
        poll(lambda: gateway.post("third")[0] == 200, "it has caught up")
        assert gateway.post("demo")[0] == 404
        poll(lambda: not gateway.state()["sourceErrors"] and gateway.age() < 1, "all is well")


@pytest.mark.parametrize("trouble", ["none", "away", "silent"])
def test_it_stops_whatever_the_api_server_does(tmp_path: Path, api: ApiServer, trouble: str) -> None:
    """SIGTERM ends the process at once while a watch is open, the API server is away, or a read hangs."""
    credentials = Credentials(oauth2=OAuth2(name="oauth"))
    api.collections[CONFIG_MAPS].items = [route("demo", credentials=credentials)]
    if trouble != "away":
        api.start()
    with started(tmp_path, api) as gateway:
        if trouble == "away":
            poll(lambda: gateway.state()["sourceErrors"], "it has tried")
        else:
            poll(lambda: gateway.ready() == 200, "it is ready")
        client = None
        if trouble == "silent":
            api.delay = NEVER

            def ask() -> None:
                with contextlib.suppress(OSError):  # it is cut off
                    gateway.post("demo")

            client = threading.Thread(target=ask)
            client.start()
            poll(lambda: 'in_flight_requests{model="demo",namespace="default"} 1.0' in gateway.page("/metrics"))
        gateway.stop()
        if client is not None:
            client.join()
