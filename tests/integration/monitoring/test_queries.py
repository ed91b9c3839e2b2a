"""Queries of the dashboard, the alerts and the tutorial about KEDA, at a real Prometheus that scrapes both programs.

The programs are processes with traffic of each kind, and each query returns data.
"""

import json
import math
import re
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from gateway.api.v1alpha1 import (
    CREDENTIAL_LABEL,
    KEY,
    LABEL,
    LABEL_VALUE,
    Backend,
    Breaker,
    Credentials,
    OAuth2,
    Retry,
    RouteDocument,
    Tls,
    Use,
)
from tests.alert_rules import rules
from tests.builders import AUTHORITY, REMOTE, model_deployment, request_body, workload
from tests.deadlines import SECONDS
from tests.e2e.keda import manifests
from tests.integration.gateway.test_directory_source import write
from tests.metric_responses import external_metric
from tests.processes import poll, status
from tests.prometheus import Prometheus
from tests.restartable import QuietHandler, Restartable
from tools.dashboard import ROWS
from tools.ports import free_port
from tools.repository import ROOT

pytestmark = [pytest.mark.long, pytest.mark.xdist_group("monitoring")]

API_KEY: Final = "key-of-team-a-0123456789"
ALWAYS: Final = {
    "certificateEndsSoon": {"days": 1_000_000},
    "nothingServes": {"percentage": 1},
    "requestsFail": {"percentage": 1},
    "spendHigh": {"amount": 1},
    "tableStale": {"seconds": -1},
    "issuerKeysStale": {"seconds": -1},
    "hooksFail": {"percentage": 1},
}
"""Thresholds that a short test reaches."""
USAGE: Final = {"prompt_tokens": 5, "completion_tokens": 3}
RESENT_BYTES: Final = 64
"""Bytes of the largest body that is sent again."""


class _Everything(QuietHandler):
    """Handler of the model's servers and of a token endpoint."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:  # noqa: N802 - a name of the base class
        """Respond with the status in the path, or with 200; with an event stream, or with what is a token as well."""
        self.rfile.read(int(self.headers.get("content-length", 0)))
        if "/stream" in self.path:
            self._stream()
            return
        found = re.search(r"/status/(\d+)", self.path)
        token = {"access_token": "t", "token_type": "Bearer", "expires_in": 3600}
        body = json.dumps(token | {"usage": USAGE}).encode()
        self.send_response(int(found[1]) if found else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        events: tuple[dict[str, object], ...] = ({"choices": []}, {"choices": []}, {"choices": [], "usage": USAGE})
        for event in events:
            self.wfile.write(f"data: {json.dumps(event)}\n\n".encode())
            time.sleep(0.1)  # so that even a busy gateway reads them one by one
        self.wfile.write(b"data: [DONE]\n\n")


def routes(port: int) -> Iterator[RouteDocument]:
    """Yield routes: one that is split, two to a server that is away, and one whose remote backend refuses."""
    every = (Use.WEIGHTED, Use.FAILOVER, Use.OVERFLOW)
    local = Backend(id="local", service="demo-local", port=80, weight=50, in_flight=8, first_token_target=5)
    remote = Backend(
        id="remote", host="127.0.0.1", port=port, weight=50, path_prefix="/status/200", use=every, price=1e6
    )
    closed = Breaker(consecutive_failures=1000, minimum=1000)
    yield RouteDocument(name="demo", backends=(local, remote), retry=Retry(body_bytes=RESENT_BYTES), breaker=closed)
    for name, tls in (("away", Tls()), ("quiet", Tls(ca_bundle=AUTHORITY))):
        away = Backend(id="local", service="away-local", port=80, weight=100, tls=tls)
        yield RouteDocument(name=name, backends=(away,))
    refusing = Backend(
        id="remote",
        host="127.0.0.1",
        port=port,
        weight=100,
        path_prefix="/status/401",
        credentials=Credentials(oauth2=OAuth2(kind="Secret", name="oauth")),
    )
    zero = Backend(id="local", service="demo-local", port=80, weight=0, use=(Use.WEIGHTED,))
    yield RouteDocument(name="refused", backends=(zero, refusing))


def objects(port: int) -> Iterator[dict[str, Any]]:
    """Yield the ConfigMaps of the routes, one of them broken, and the Secret of the remote backend."""
    texts = {one.name: one.canonical_json() for one in routes(port)} | {"broken": "{"}
    for name, text in texts.items():
        metadata = {"name": f"{name}-route", "namespace": "default", "labels": {LABEL: LABEL_VALUE}}
        yield {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {KEY: text}}
    yield {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "oauth", "namespace": "default", "labels": {CREDENTIAL_LABEL: ""}},
        "stringData": {
            "clientId": "id",
            "clientSecret": "secret",
            "tokenUrl": f"http://127.0.0.1:{port}/token",
            "hosts": "127.0.0.1",
        },
    }


def post(url: str, body: bytes = b"{}", *, key: str | None = API_KEY) -> int:
    """Return the status of the response to a POST, when it is complete."""
    fields = {"content-type": "application/json"} | ({} if key is None else {"authorization": f"Bearer {key}"})
    try:
        with urllib.request.urlopen(urllib.request.Request(url, body, fields), timeout=SECONDS) as response:
            response.read()
            return int(response.status)
    except urllib.error.HTTPError as exc:
        return exc.code


@dataclass
class World:
    """The programs, the server behind the gateway, and the Prometheus that scrapes both programs."""

    prometheus: Prometheus
    gateway: "subprocess.Popen[bytes]"
    gateway_port: int
    hooks_port: int

    def traffic(self, value: int) -> None:
        """Send requests of each kind once or a few times; hooks read a metric that has this value."""
        gateway = f"http://127.0.0.1:{self.gateway_port}"
        for _ in range(4):  # every other one begins at the local backend
            assert post(f"{gateway}/default/demo/v1/x") == 200
        for _ in range(4):
            assert post(f"{gateway}/default/demo/status/503") == 200, "the remote backend takes it"
        for _ in range(2):
            assert post(f"{gateway}/default/demo/stream") == 200
        sent = {post(f"{gateway}/default/demo/status/503", b" " * 2 * RESENT_BYTES) for _ in range(4)}
        assert sent == {200, 503}, "a large body is sent once only"
        assert post(f"{gateway}/default/away/v1/x") == 502
        assert post(f"{gateway}/default/refused/v1/x") == 502
        assert post(f"{gateway}/default/demo/v1/x", key=None) == 401
        metric = external_metric(f"vector({value})")
        parent = model_deployment(offloadingConfig={"remoteBackend": REMOTE, "metrics": [metric]})
        body = json.dumps(request_body(parent, related=[workload()])).encode()
        assert post(f"http://127.0.0.1:{self.hooks_port}/modeldeployments/sync", body) == 200
        assert post(f"http://127.0.0.1:{self.hooks_port}/modeldeployments/sync", b"[]") == 400

    def values(self, expression: str) -> list[float]:
        """Return the numbers of a query's result."""
        content = self.prometheus.query(expression)
        assert content["status"] == "success", (expression, content)
        return [value for one in content["data"]["result"] if not math.isnan(value := float(one["value"][1]))]


def start(stack: ExitStack, folder: Path, module: str, *words: str) -> "subprocess.Popen[bytes]":
    """Start a program of this project, which ends with the stack."""
    log = stack.enter_context((folder / f"{module}.log").open("wb"))
    process = subprocess.Popen([sys.executable, "-m", module, *words], cwd=ROOT, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Yield both programs after two rounds of traffic, with a Prometheus that has scraped each."""
    folder = tmp_path_factory.mktemp("monitoring")
    ports = {name: free_port() for name in ("traffic", "admin", "hooks", "operations")}
    address = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
    behind = Restartable(_Everything)
    behind.start()
    with ExitStack() as stack:
        stack.callback(behind.stop)
        write(folder / "routes/all.yaml", *objects(behind.port))
        (folder / "keys").mkdir()
        (folder / "keys/team-a").write_text(API_KEY)
        prometheus_folder = folder / "prometheus"
        prometheus_folder.mkdir()
        job = {
            "job_name": "beamlit",
            "honor_labels": True,  # as the monitors of the chart have it
            "static_configs": [
                {"targets": [address["admin"]], "labels": {"namespace": "beamlit-system", "pod": "gateway-0"}},
                {"targets": [address["operations"]], "labels": {"namespace": "beamlit-system", "pod": "hooks-0"}},
            ],
        }
        settings = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [job]}
        prometheus = Prometheus(prometheus_folder, (), settings=settings)
        stack.callback(prometheus.stop)
        config = {
            "namespaces": "",
            "gateway": {
                "allowedAddresses": ["127.0.0.0/8"],
                "access": {
                    "keysDirectory": str(folder / "keys"),
                    "jwt": {"issuer": f"http://127.0.0.1:{behind.port}/status/404", "audiences": ["beamlit"]},
                },
                "endpoints": "service",
            },
            "metricInformer": {
                "type": "prometheus",
                "prometheus": {"address": prometheus.address},
            },
        }
        (folder / "config.yaml").write_text(yaml.safe_dump(config))
        common = ("--config", str(folder / "config.yaml"))
        gateway = start(
            *(stack, folder, "gateway", *common, "--routes", str(folder / "routes")),
            *("--listen", address["traffic"], "--admin", address["admin"]),
            f"--resolve=demo-local.default.svc.cluster.local:80=127.0.0.1:{behind.port}",
            f"--resolve=away-local.default.svc.cluster.local:80=127.0.0.1:{free_port()}",
        )
        start(
            *(stack, folder, "hooks", "serve", *common),
            *("--listen", address["hooks"], "--operations", address["operations"]),
        )
        for name in ("admin", "operations"):
            poll(lambda name=name: status(f"http://{address[name]}/readyz") == 200, f"{name} is ready")  # type: ignore[misc]
        world = World(prometheus, gateway, ports["traffic"], ports["hooks"])
        # Rates are of what comes after the first scrape of a series. These are the last of the traffic to change.
        last = ("beamlit_gateway_refused_requests_total", 'beamlit_hooks_requests_total{code="400"}')
        world.traffic(2)
        poll(lambda: all(world.values(one) for one in last), "the first round is scraped")
        world.traffic(3)
        poll(lambda: all(world.values(f"increase({one}[5m]) > 0") for one in last), "the second is")
        yield world


PANELS: Final = [(panel, query) for row in ROWS for panel in row.panels for query in panel.queries]


@pytest.mark.parametrize(
    "expression",
    [query.expression for _, query in PANELS],
    ids=[f"{panel.title}: {query.legend}" for panel, query in PANELS],
)
def test_every_panel_has_data(world: World, expression: str) -> None:
    """Each query of the dashboard returns data, with all models chosen."""
    asked = re.sub(r'=~"\$(namespace|model)"', '=~".*"', expression).replace("$__rate_interval", "5m")
    assert "$" not in asked
    poll(lambda: world.values(asked), f"{asked} has data", seconds=20)


RULES: Final = {one["alert"]: one for one in rules(ALWAYS)}


@pytest.mark.parametrize("alert", sorted(RULES.keys() - {"BeamlitGatewayMissing"}))
def test_every_alert_finds_what_it_is_about(world: World, alert: str) -> None:
    """Each expression, with a threshold that a test reaches, finds the model or the program that is in trouble."""
    poll(lambda: world.values(RULES[alert]["expr"]), f"{alert} has data", seconds=20)
    expected = {
        "BeamlitNothingServes": {"away", "refused"},
        "BeamlitOffloadedLong": {"demo", "refused"},
        "BeamlitCredentialsRefused": {"refused"},
        "BeamlitRemoteFails": {"refused"},
    }
    if alert in expected:
        found = {one["metric"]["model"] for one in world.prometheus.query(RULES[alert]["expr"])["data"]["result"]}
        assert expected[alert] <= found
        assert alert == "BeamlitNothingServes" or found == expected[alert]


def test_labels_are_those_of_the_model(world: World) -> None:
    """The label `namespace` of a metric about a model is the model's, and that of another one is the pod's."""
    assert world.values('beamlit_gateway_arrived_requests_total{namespace="default", model="demo"}') > [0.0]
    assert world.values('beamlit_gateway_routes{namespace="beamlit-system", pod="gateway-0"}') == [4.0]


def test_the_query_of_the_tutorial(world: World) -> None:
    """The query of the ScaledObject in the tutorial returns one number, which is above KEDA's activation threshold for
    a model that is asked and fails, and not for one that nobody asks."""
    (trigger,) = manifests()["ScaledObject"]["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    assert query.count('"chat"') == 1
    (asked,), (unasked,) = (world.values(query.replace('"chat"', f'"{name}"')) for name in ("away", "quiet"))
    assert unasked == float(trigger["metadata"]["activationThreshold"]) == 0 < asked


def test_without_a_gateway(world: World) -> None:
    """BeamlitGatewayMissing finds that the last gateway has ended. This test is the last one, as it ends it."""
    expression = RULES["BeamlitGatewayMissing"]["expr"]
    assert world.values(expression) == []
    world.gateway.terminate()
    world.gateway.wait(SECONDS)
    poll(lambda: world.values(expression) == [1.0], "there is no gateway")
