"""The product on a control plane: CRDs, RBAC, the CompositeController, hooks and the real Metacontroller."""

import json
import os
import re
import sys
import urllib.request
from typing import Any, Final

import yaml

from tests.chart.helm import METACONTROLLER_CRDS
from tests.deadlines import SECONDS
from tests.e2e.binaries import find
from tests.e2e.controlplane import NODE_LABEL, ControlPlane, Process
from tests.processes import poll, status
from tools.ports import free_port
from tools.repository import ROOT

RESYNC_SECONDS: Final = 2
"""Resync period of the CompositeController under test, short enough to watch several periods at rest."""
SYSTEM: Final = "metacontroller"
"""Name of Metacontroller's namespace and ServiceAccount."""
_CONFIG: Final = """
namespaces: ""
defaultRemoteBackend: {host: "remote.example.com", scheme: https, pathPrefix: /$workspace/$model, workspace: acme}
proxyService: {namespace: beamlit-system, name: beamlit-gateway, port: 80}
"""


def missing() -> str:
    """Return what of the real Metacontroller is missing here, as a sentence; an empty text when nothing is."""
    names = []
    if find("metacontroller") is None:
        names.append("the metacontroller binary (METACONTROLLER)")
    if not os.environ.get(METACONTROLLER_CRDS):
        names.append(f"its CRD manifest ({METACONTROLLER_CRDS})")
    return f"not here: {', '.join(names)}" if names else ""


def install_crds(plane: ControlPlane) -> None:
    """Apply the project's CRDs as a user does, client-side, and wait until they are served."""
    plane.kubectl("apply", "-f", str(ROOT / "crds"))
    plane.kubectl("wait", "--for=condition=Established", "--timeout=100s", "-f", str(ROOT / "crds"))


class Models:
    """The ModelDeployments of a control plane, as the API server returns them."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane

    def parent(self, name: str, namespace: str = "default") -> dict[str, Any]:
        """Return a ModelDeployment as stored."""
        return self.plane.get("modeldeployments.deployment.beamlit.com", name, namespace)

    def conditions(self, name: str, namespace: str = "default") -> dict[str, tuple[str, str]]:
        """Return status and reason of its conditions by type."""
        listed = self.parent(name, namespace).get("status", {}).get("conditions", ())
        return {one["type"]: (one["status"], one["reason"]) for one in listed}

    def route(self, name: str, namespace: str = "default") -> dict[str, Any]:
        """Return its route document; an empty one when there is none."""
        stored = self.plane.get("configmap", f"{name}-route", namespace)
        document: dict[str, Any] = json.loads(stored["data"]["route.json"]) if stored else {}
        return document

    def remote_weight(self, name: str, namespace: str = "default") -> int | None:
        """Return the percentage of requests that go to the remote backend; None without a route."""
        document = self.route(name, namespace)
        return document.get("split", {}).get("percentage", 0) if document else None

    def until(self, name: str, namespace: str = "default", seconds: float = SECONDS, **expected: str) -> None:
        """Wait until conditions of the current generation have these statuses."""

        def holds() -> bool:
            parent = self.parent(name, namespace)
            object_status = parent.get("status", {})
            now = {one["type"]: one["status"] for one in object_status.get("conditions", ())}
            current = object_status.get("observedGeneration") == parent.get("metadata", {}).get("generation")
            return current and expected.items() <= now.items()

        try:
            poll(holds, f"{namespace}/{name} is {expected}", seconds=seconds)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; it is {self.conditions(name, namespace)}") from None

    def versions(self, name: str, namespace: str = "default") -> dict[str, str]:
        """Return the resourceVersions of the parent and of all its children."""
        parent = self.parent(name, namespace)
        uid = parent["metadata"]["uid"]
        versions = {f"ModelDeployment/{name}": parent["metadata"]["resourceVersion"]}
        for resource in ("deployments", "services", "configmaps"):
            for item in self.plane.get(resource, namespace=namespace)["items"]:
                if any(owner["uid"] == uid for owner in item["metadata"].get("ownerReferences", ())):
                    versions[f"{item['kind']}/{item['metadata']['name']}"] = item["metadata"]["resourceVersion"]
        return versions


class Product(Models):
    """The product on a control plane: hooks and Metacontroller."""

    def __init__(self, plane: ControlPlane, *, resync_seconds: int = RESYNC_SECONDS, gateways: str = "") -> None:
        """Start nothing yet.

        Args:
            plane: the control plane.
            resync_seconds: resync period of the CompositeControllers.
            gateways: address of the gateways' ports for administrators; empty where hooks ask none.
        """
        super().__init__(plane)
        self.resync_seconds = resync_seconds
        self.gateways = gateways
        self.port, self.operations = free_port(), free_port()
        self.hooks: Process
        self.metacontroller: Process

    def start(self) -> None:
        """Install and start hooks and Metacontroller."""
        plane = self.plane
        install_crds(plane)
        plane.kubectl("apply", "--server-side", "-f", os.environ[METACONTROLLER_CRDS])
        plane.kubectl("wait", "--for=condition=Established", "--timeout=100s", "-f", os.environ[METACONTROLLER_CRDS])
        plane.kubectl("create", "namespace", SYSTEM)
        plane.kubectl("create", "serviceaccount", SYSTEM, "-n", SYSTEM)
        plane.kubectl("apply", "-f", str(ROOT / "metacontroller/rbac.yaml"))
        config = plane.folder / "config.yaml"
        config.write_text(_CONFIG)
        self.hooks = plane.run(
            "hooks",
            *(sys.executable, "-m", "hooks", "--config", str(config), "--listen", f"127.0.0.1:{self.port}"),
            *("--operations", f"127.0.0.1:{self.operations}"),
            environment=os.environ | {"PYTHONPATH": str(ROOT), "BEAMLIT_PROXY_SERVICE__ADMIN_ADDRESS": self.gateways},
        )
        poll(lambda: status(f"http://127.0.0.1:{self.operations}/readyz") == 200, "hooks are ready")
        plane.apply(self.composite_controller(), self.composite_controller("policies"))
        program = find("metacontroller")
        assert program is not None
        self.metacontroller = plane.run(
            "metacontroller",
            str(program),
            *("--kubeconfig", str(plane.service_account(SYSTEM, SYSTEM)), "--discovery-interval=1s", "--workers=20"),
            *("--client-go-qps=100", "--client-go-burst=200", "--events-qps=10", "--events-burst=1000"),
            *("--metrics-address=0", "--health-probe-bind-address=0"),
        )

    def composite_controller(self, file: str = "compositecontroller") -> dict[str, Any]:
        """Return the project's CompositeController, with hooks on this machine and short resyncs."""
        text = (ROOT / f"metacontroller/{file}.yaml").read_text()
        text = re.sub(r"http://[^/]+/", f"http://127.0.0.1:{self.port}/", text)
        controller: dict[str, Any] = yaml.safe_load(text)
        controller["spec"]["resyncPeriodSeconds"] = self.resync_seconds
        return controller

    def syncs(self) -> float:
        """Return to how many syncs hooks have responded with 200."""
        return sync_responses(self.operations)


def sync_responses(operations: int, code: int = 200) -> float:
    """Return to how many syncs the hooks with this operations port have responded with a status code."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operations}/metrics", timeout=5) as response:
        text = response.read().decode()
    match = re.search(rf'beamlit_hooks_requests_total{{code="{code}",hook="sync"}} ([0-9.e+]+)', text)
    return float(match[1]) if match else 0.0


def set_pods_ready(plane: ControlPlane, selector: str, ready: bool, namespace: str = "default") -> None:
    """Make all pods of a label selector ready, or not, as a kubelet would."""
    conditions = [{"type": kind, "status": str(ready)} for kind in ("Ready", "ContainersReady")]
    patch = json.dumps({"status": {"conditions": conditions}})
    for pod in json.loads(plane.kubectl("get", "pods", "-n", namespace, "-l", selector, "-o", "json"))["items"]:
        words = ("patch", "pod", pod["metadata"]["name"], "-n", namespace, "--subresource=status", "--type=strategic")
        plane.kubectl(*words, "-p", patch)


def workload(name: str, replicas: int = 1) -> dict[str, Any]:
    """Return a Deployment as a user writes one."""
    labels = {"app": name}
    container = {"name": "server", "image": "example.com/model:1", "ports": [{"name": "http", "containerPort": 8000}]}
    # The pods go to the node that fakes them, on any cluster.
    place = {
        "nodeSelector": {NODE_LABEL: "fake"},
        "tolerations": [{"key": NODE_LABEL, "operator": "Exists", "effect": "NoSchedule"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container], **place}},
        },
    }


def model_deployment(name: str, **spec: Any) -> dict[str, Any]:
    """Return a ModelDeployment that adopts the Deployment of its own name, unless the specification says `server`."""
    source = {"apiVersion": "apps/v1", "kind": "Deployment", "name": name, "namespace": "default"}
    adopted: dict[str, Any] = {} if "server" in spec else {"modelSourceRef": source}
    return {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": name},
        "spec": {"model": name, "offloadingConfig": {}, **adopted, **spec},
    }
