"""The gateway on a real API server: live routes, Secrets by name, and an API server that goes away."""

import http.server
import json
import os
import signal
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.api.v1alpha1 import Backend, RouteDocument, Split
from program.kubernetes.connection import connect
from program.kubernetes.errors import ApiRefusal
from tests.e2e.controlplane import ControlPlane, Process
from tests.e2e.product import Product, install_crds, model_deployment, set_pods_ready, workload
from tests.processes import poll, status
from tools.ports import free_port
from tools.repository import ROOT

NAMESPACE = "routes"
ACCOUNT = "gateway"
RULES = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]},
    {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"]},
    {"apiGroups": ["deployment.beamlit.com"], "resources": ["modeldeployments"], "verbs": ["get"]},
]


class _Backend(http.server.BaseHTTPRequestHandler):
    """Handler of a backend that responds to everything with its own name."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Respond with the backend's name."""
        self.send_response(200)
        self.send_header("content-length", "5")
        self.end_headers()
        self.wfile.write(b"local")

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@pytest.fixture(scope="module")
def backend() -> Iterator[int]:
    """The port of a server that stands for all pods."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Backend)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


def rbac(namespace: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the Role and RoleBinding of the gateway in a namespace: it may only read, and Secrets only by name."""
    api = "rbac.authorization.k8s.io"
    metadata = {"name": ACCOUNT, "namespace": namespace}
    binding = {
        "apiVersion": f"{api}/v1",
        "kind": "RoleBinding",
        "metadata": metadata,
        "roleRef": {"apiGroup": api, "kind": "Role", "name": ACCOUNT},
        "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": NAMESPACE}],
    }
    return {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": RULES}, binding


class Gateway:
    """A gateway process that reads from the API server as a ServiceAccount."""

    def __init__(self, plane: ControlPlane, name: str, namespaces: str, backend: int, *services: str) -> None:
        self.port, self.admin = free_port(), free_port()
        config = plane.folder / f"{name}.yaml"
        config.write_text(f"namespaces: '{namespaces}'\ngateway: {{lameDuckSeconds: 0, endpoints: service}}\n")
        resolve = [f"--resolve={service}.svc.cluster.local:80=127.0.0.1:{backend}" for service in services]
        self.process: Process = plane.run(
            name,
            *(sys.executable, "-m", "gateway", "--config", str(config)),
            *("--kubeconfig", str(plane.service_account(NAMESPACE, ACCOUNT))),
            *("--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}", *resolve),
            environment=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        poll(lambda: self.ready() == 200, f"{name} is ready")

    def ask(self, path: str) -> tuple[int, str, str]:
        """Return status, backend and reason of the response to a request."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as response:
                return response.status, response.headers["x-beamlit-backend"], response.headers["x-beamlit-reason"]
        except urllib.error.HTTPError as exc:
            return exc.code, exc.headers["x-beamlit-backend"] or "", exc.headers["x-beamlit-reason"] or ""

    def ready(self) -> int:
        """Return the status of /readyz; 0 when there is no response."""
        return status(f"http://127.0.0.1:{self.admin}/readyz")

    def state(self) -> dict[str, Any]:
        """Return the content of /routes."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/routes", timeout=5) as response:
            content: dict[str, Any] = json.load(response)
            return content


def config_map(name: str, reason: str = "Local", namespace: str = NAMESPACE) -> dict[str, Any]:
    """Return the ConfigMap of a route as hooks writes it."""
    backends = (Backend(id="local", service=f"{name}-local", weight=100, port=80),)
    document = RouteDocument(name=name, backends=backends, split=Split(reason=reason))
    labels = {"gateway.beamlit.com/route": "v1alpha1"}
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": f"{name}-route", "namespace": namespace, "labels": labels},
        "data": {"route.json": document.canonical_json()},
    }


@pytest.fixture(scope="module")
def gateway(plane: ControlPlane, backend: int) -> Iterator[Gateway]:
    """A gateway for one namespace."""
    install_crds(plane)
    plane.kubectl("create", "namespace", NAMESPACE)
    plane.kubectl("create", "serviceaccount", ACCOUNT, "-n", NAMESPACE)
    plane.apply(*rbac(NAMESPACE), config_map("first"))
    gateway = Gateway(plane, "gateway", NAMESPACE, backend, f"first-local.{NAMESPACE}", f"second-local.{NAMESPACE}")
    yield gateway
    gateway.process.stop()


def test_every_change_counts_within_a_second(plane: ControlPlane, gateway: Gateway) -> None:
    """A route that is created, changed or deleted is so in the gateway within a second after the API server stored
    it."""
    assert gateway.ask(f"/{NAMESPACE}/first/x") == (200, "local", "Local")

    def takes(code: int, reason: str) -> float:
        began = time.monotonic()
        poll(lambda: gateway.ask(f"/{NAMESPACE}/second/x")[::2] == (code, reason), f"{code} {reason}")
        return time.monotonic() - began

    plane.apply(config_map("second"))
    assert takes(200, "Local") < 1
    plane.apply(config_map("second", "Override"))
    assert takes(200, "Override") < 1
    plane.kubectl("delete", "configmap", "second-route", "-n", NAMESPACE)
    assert takes(404, "") < 1
    state = gateway.state()
    assert state["routes"][0]["origin"] == f"{NAMESPACE}/first-route"
    assert state["sourceErrors"] == {}


def test_an_unlabeled_config_map_is_none_of_its_business(plane: ControlPlane, gateway: Gateway) -> None:
    """A ConfigMap that loses the label is no route any more."""
    plane.apply(config_map("second"))
    poll(lambda: gateway.ask(f"/{NAMESPACE}/second/x")[0] == 200, "it is there")
    plane.kubectl("label", "configmap", "second-route", "-n", NAMESPACE, "gateway.beamlit.com/route-")
    poll(lambda: gateway.ask(f"/{NAMESPACE}/second/x")[0] == 404, "it is gone")
    plane.kubectl("delete", "configmap", "second-route", "-n", NAMESPACE)


def test_what_it_may_not_read_is_named(plane: ControlPlane, gateway: Gateway, backend: int) -> None:
    """A namespace without a Role is one error in /routes, and the other namespace is served."""
    assert gateway.ready() == 200
    plane.kubectl("create", "namespace", "closed")
    both = Gateway(plane, "gateway-both", f"{NAMESPACE},closed", backend, f"first-local.{NAMESPACE}")
    try:
        assert both.ask(f"/{NAMESPACE}/first/x")[0] == 200
        assert "403" in both.state()["sourceErrors"]["namespace closed"]
        plane.apply(*rbac("closed"), config_map("late", namespace="closed"))
        poll(lambda: not both.state()["sourceErrors"], "it may read now")
    finally:
        both.process.stop()


async def test_secrets_one_by_one(plane: ControlPlane, gateway: Gateway) -> None:
    """The gateway may read a Secret by its name, but not a list of Secrets or those of another namespace."""
    assert gateway.ready() == 200
    metadata = {"name": "named", "namespace": NAMESPACE}
    plane.apply({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": {"clientId": "id"}})
    client = await connect(Path(plane.folder, f"{NAMESPACE}-{ACCOUNT}.kubeconfig"))
    assert client is not None
    secrets = f"/api/v1/namespaces/{NAMESPACE}/secrets"
    async with client:
        assert await client.get(f"{secrets}/named", read_seconds=10) is not None
        for path, code in (
            (f"{secrets}/none", 404),
            (secrets, 403),
            ("/api/v1/namespaces/kube-system/secrets/x", 403),
            ("/api/v1/nodes", 403),
        ):
            with pytest.raises(ApiRefusal) as caught:
                await client.get(path, read_seconds=10)
            assert caught.value.status == code


def test_apply_and_curl(product: Product, backend: int, gateway: Gateway) -> None:
    """A model that kubectl applies is served through Metacontroller, hooks, ConfigMap and gateway, and readiness
    decides which backend responds."""
    assert gateway.ready() == 200
    plane = product.plane
    plane.apply(*rbac("default"))
    whole = Gateway(plane, "gateway-whole", "default", backend, "whole-local.default")

    def reason() -> str:
        routes = {route["name"]: route["reason"] for route in whole.state()["routes"]}
        return str(routes.get("whole"))

    try:
        remote = {"host": "203.0.113.1", "pathPrefix": "/x"}
        plane.apply(workload("whole"), model_deployment("whole", offloadingConfig={"remoteBackend": remote}))
        product.until("whole", Ready="True", LocalReady="True", Synced="True")
        poll(lambda: whole.ask("/default/whole/x") == (200, "local", "Local"), "it responds")
        set_pods_ready(plane, "app=whole", False)
        poll(lambda: product.remote_weight("whole") == 100, "the route has moved")
        began = time.monotonic()
        poll(lambda: reason() == "NoReadyReplica", "the gateway has it")
        assert time.monotonic() - began < 1
        set_pods_ready(plane, "app=whole", True)
        poll(lambda: whole.ask("/default/whole/x") == (200, "local", "Local"), "it is back")
        plane.kubectl("delete", "md", "whole")
        # The garbage collector discovers new kinds every half minute.
        poll(lambda: not plane.get("configmaps", "whole-route"), "the route is gone")
        poll(lambda: whole.ask("/default/whole/x")[0] == 404, "the gateway knows")
    finally:
        whole.process.stop()


def test_two_thousand_routes(plane: ControlPlane, gateway: Gateway, backend: int) -> None:
    """Two thousand routes are listed in four pages and then watched, and a change of one is in force within a
    second."""
    assert gateway.ready() == 200
    namespace = "many"
    plane.kubectl("create", "namespace", namespace)
    plane.apply(*rbac(namespace))
    items = [config_map(f"route-{number}", namespace=namespace) for number in range(2000)]
    for start in range(0, len(items), 500):
        content = {"apiVersion": "v1", "kind": "List", "items": items[start : start + 500]}
        plane.kubectl("create", "-f", "-", stdin=json.dumps(content))
    many = Gateway(plane, "gateway-many", namespace, backend, f"route-7-local.{namespace}")
    try:
        state = many.state()
        assert (len(state["routes"]), state["sourceErrors"]) == (2000, {})
        plane.apply(config_map("route-7", "Override", namespace))
        began = time.monotonic()
        poll(lambda: many.ask(f"/{namespace}/route-7/x") == (200, "local", "Override"), "the change is in force")
        assert time.monotonic() - began < 1
        asked = [one["verb"] for one in plane.audit() if one["namespace"] == namespace and ACCOUNT in one["user"]]
        assert asked[:4] == ["list"] * 4
        assert set(asked[4:]) <= {"watch"}  # a watch is logged when it ends
    finally:
        many.process.stop()
        plane.kubectl("delete", "namespace", namespace, "--wait=false")


def test_a_first_start_without_an_api_server(plane: ControlPlane, tmp_path: Path) -> None:
    """A gateway that starts without an API server is not ready, and logs one line about it."""
    kubeconfig = tmp_path / "nowhere.kubeconfig"
    kubeconfig.write_text(plane.kubeconfig.read_text().replace(plane.url, f"https://127.0.0.1:{free_port()}"))
    port, admin = free_port(), free_port()
    command = [sys.executable, "-m", "gateway", "--kubeconfig", str(kubeconfig), "--listen", f"127.0.0.1:{port}"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = Process("lonely", tmp_path, [*command, "--admin", f"127.0.0.1:{admin}"], environment)
    try:
        poll(lambda: status(f"http://127.0.0.1:{admin}/readyz") == 503, "it says that it is not ready")
        poll(lambda: "routes_cannot_be_read" in process.log.read_text(), "it says why")
        time.sleep(1.5)  # time for several tries
        assert process.log.read_text().count("routes_cannot_be_read") == 1
    finally:
        process.stop(signal.SIGINT)


@pytest.mark.own_plane
def test_the_api_server_may_go_away(plane: ControlPlane, gateway: Gateway) -> None:
    """While the API server is killed and restarted no request fails, readiness stays, the age of the routes grows, and
    changes are caught up."""
    failures: list[object] = []
    stop = threading.Event()

    def load() -> None:
        while not stop.is_set():
            response = gateway.ask(f"/{NAMESPACE}/first/x")
            if response[:2] != (200, "local"):
                failures.append(response)

    clients = [threading.Thread(target=load) for _ in range(4)]
    for client in clients:
        client.start()
    try:
        server = plane.processes["kube-apiserver"]
        server.stop(signal.SIGKILL)
        poll(lambda: gateway.state()["sourceErrors"], "the gateway says so")
        assert gateway.ready() == 200
        poll(lambda: gateway.state()["ageSeconds"] > 1, "the age grows")
        server.start()
        poll(plane.ready, "the API server is back")
        plane.apply(config_map("first", "Override"))
        poll(lambda: gateway.ask(f"/{NAMESPACE}/first/x")[2] == "Override", "it has caught up")
        poll(lambda: not gateway.state()["sourceErrors"], "all is well")
    finally:
        stop.set()
        for client in clients:
            client.join()
    assert failures == []
