"""Pods behind EndpointSlices on a real control plane: several model servers as processes, and the gateway in front."""

import http.server
import json
import os
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from tests.e2e.controlplane import ControlPlane, Process
from tests.e2e.product import Product, install_crds, model_deployment, workload
from tests.processes import poll, status
from tools.ports import free_port
from tools.repository import ROOT

ACCOUNT = "pods-gateway"
PODS = 3
RULES = [
    {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list", "watch"]},
    {"apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"], "verbs": ["list", "watch"]},
]
LABELS = {"app.kubernetes.io/managed-by": "beamlit-controller"}


class _Server(http.server.BaseHTTPRequestHandler):
    """Handler of a model server that responds with `ok` to everything, once on each connection."""

    def do_GET(self) -> None:
        """Respond."""
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def do_POST(self) -> None:
        """Respond to a request with a body."""
        self.rfile.read(int(self.headers["content-length"] or 0))
        self.do_GET()

    def log_message(self, *_: object) -> None:
        """Log nothing."""


@contextmanager
def server(port: int = 0) -> Iterator[tuple[int, http.server.ThreadingHTTPServer]]:
    """Yield the port of a model server and the server."""
    running = http.server.ThreadingHTTPServer(("127.0.0.1", port), _Server)
    thread = threading.Thread(target=running.serve_forever)
    thread.start()
    try:
        yield running.server_address[1], running
    finally:
        running.shutdown()
        thread.join()
        running.server_close()


def pods_of(plane: ControlPlane, name: str) -> dict[str, str]:
    """Return the addresses of the pods of a workload by their names; nothing until every pod has one."""
    listed = json.loads(plane.kubectl("get", "pods", "-l", f"app={name}", "-o", "json"))["items"]
    found = {one["metadata"]["name"]: one["status"].get("podIP", "") for one in listed}
    return found if len(found) == PODS and all(found.values()) else {}


def set_ready(plane: ControlPlane, pod: str, ready: bool) -> None:
    """Make a pod ready, or not, as a kubelet would."""
    conditions = [{"type": kind, "status": str(ready)} for kind in ("Ready", "ContainersReady")]
    patch = json.dumps({"status": {"conditions": conditions}})
    plane.kubectl("patch", "pod", pod, "--subresource=status", "--type=strategic", "-p", patch)


class Gateway:
    """A gateway process, for which the addresses of pods lead to processes of this machine."""

    def __init__(self, plane: ControlPlane, name: str, addresses: dict[str, int]) -> None:
        """Start a gateway.

        Args:
            plane: the control plane.
            name: name of the process.
            addresses: ports on this machine by addresses of pods.
        """
        self.port, self.admin = free_port(), free_port()
        config = plane.folder / f"{name}.yaml"
        config.write_text("namespaces: default\ngateway: {lameDuckSeconds: 0}\n")
        resolve = [f"--resolve={address}:8000=127.0.0.1:{port}" for address, port in addresses.items()]
        self.process: Process = plane.run(
            name,
            *(sys.executable, "-m", "gateway", "--config", str(config)),
            *("--kubeconfig", str(plane.service_account("default", ACCOUNT))),
            *("--listen", f"127.0.0.1:{self.port}", "--admin", f"127.0.0.1:{self.admin}", *resolve),
            environment=os.environ | {"PYTHONPATH": str(ROOT)},
        )
        poll(lambda: status(f"http://127.0.0.1:{self.admin}/readyz") == 200, f"{name} is ready")

    def ask(self, model: str) -> int:
        """Return the status of the response to a request for a model."""
        return status(f"http://127.0.0.1:{self.port}/default/{model}/x")

    def pods(self, model: str) -> set[str]:
        """Return the pods of a model that get requests."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.admin}/routes", timeout=5) as response:
            routes = json.load(response)["routes"]
        backends: list[dict[str, Any]] = next((one["backends"] for one in routes if one["name"] == model), [])
        return {pod["name"] for one in backends for pod in one.get("pods", ())}

    def tried(self, model: str, requests: int) -> list[set[str | None]]:
        """Send requests; return for each of them the pods that were tried, None for the name of the Service."""
        assert [self.ask(model) for _ in range(requests)] == [200] * requests
        url = f"http://127.0.0.1:{self.admin}/decisions?route=default/{model}&limit={requests}"
        with urllib.request.urlopen(url, timeout=5) as response:
            decisions = json.load(response)["decisions"]
        return [{one.get("pod") for one in decision["attempts"]} for decision in decisions]


def rbac() -> tuple[dict[str, Any], ...]:
    """Return the account of the gateway and its rights."""
    api, metadata = "rbac.authorization.k8s.io", {"name": ACCOUNT, "namespace": "default"}
    return (
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata},
        {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": metadata, "rules": RULES},
        {
            "apiVersion": f"{api}/v1",
            "kind": "RoleBinding",
            "metadata": metadata,
            "roleRef": {"apiGroup": api, "kind": "Role", "name": ACCOUNT},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": "default"}],
        },
    )


def service(name: str) -> dict[str, Any]:
    """Return the Service of a model as hooks write it, with a port by name."""
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": f"{name}-local", "namespace": "default", "labels": LABELS},
        "spec": {"selector": {"app": name}, "ports": [{"name": "http", "port": 80, "targetPort": "http"}]},
    }


def route(name: str) -> dict[str, Any]:
    """Return the ConfigMap of a route with a local backend alone."""
    backend = {"id": "local", "service": f"{name}-local", "port": 80, "weight": 100}
    metadata = {"name": f"{name}-route", "namespace": "default", "labels": {"gateway.beamlit.com/route": "v1alpha1"}}
    data = {"route.json": json.dumps({"name": name, "backends": [backend]})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def holds(plane: ControlPlane, name: str, running: ExitStack) -> None:
    """Hold a model with three pods to what the gateway promises: shares, readiness, and a pod that dies."""
    poll(lambda: pods_of(plane, name), f"the pods of {name} have addresses")
    pods = pods_of(plane, name)
    servers = {pod: running.enter_context(server()) for pod in pods}
    gateway = Gateway(plane, f"gateway-{name}", {address: servers[pod][0] for pod, address in pods.items()})
    running.callback(gateway.process.stop)
    # What is known of a route is kept from its first request on.
    poll(lambda: gateway.ask(name) == 200 and gateway.pods(name) == set(pods), "the gateway knows the pods")
    assert {pod for tried in gateway.tried(name, 60) for pod in tried} == set(pods)

    unready, dead, _ = pods
    set_ready(plane, unready, False)
    poll(lambda: gateway.pods(name) == set(pods) - {unready}, "the gateway knows that one is not ready")
    assert unready not in {pod for tried in gateway.tried(name, 20) for pod in tried}
    set_ready(plane, unready, True)
    poll(lambda: gateway.pods(name) == set(pods), "it is ready again")

    servers[dead][1].shutdown()
    servers[dead][1].server_close()
    served = gateway.tried(name, 40)
    assert sum(dead in tried for tried in served) < 20
    assert all(tried - {dead} for tried in served)


def test_pods_of_a_service_that_a_user_labels(plane: ControlPlane) -> None:
    """The slices that Kubernetes makes for a labeled Service name its pods with their port, and readiness and death of
    one are no error."""
    install_crds(plane)
    plane.apply(*rbac(), workload("slices", PODS), service("slices"), route("slices"))
    with ExitStack() as running:
        holds(plane, "slices", running)
        plane.kubectl("scale", "deployment", "slices", "--replicas=0")
        # kwok's pods end at once; without pods the name of the Service is used, which leads nowhere here.
        poll(lambda: not json.loads(plane.kubectl("get", "pods", "-l", "app=slices", "-o", "json"))["items"], "no pods")


@pytest.mark.usefixtures("plane")
def test_pods_of_a_model(product: Product) -> None:
    """The Service that hooks make through Metacontroller has the labels by which the gateway finds its slices."""
    plane = product.plane
    plane.apply(*rbac(), workload("real", PODS), model_deployment("real"))
    product.until("real", Ready="True", LocalReady="True", Synced="True")
    with ExitStack() as running:
        holds(plane, "real", running)
    plane.kubectl("delete", "md", "real")
