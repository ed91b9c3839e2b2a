"""The chart installed as users install it, in a cluster where its pods are real."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from tests.chart.helm import stand_in_crd, with_dependencies
from tests.node.cluster import Client, Cluster
from tests.node.images import CLIENT, MODEL_SERVER, PORT
from tools.repository import ROOT

NAME: Final = "beamlit-controller"
NAMESPACE: Final = "beamlit-system"
GATEWAY: Final = f"http://{NAME}-gateway.{NAMESPACE}"
EXAMPLE: Final = ROOT / "examples/manifests/demo-server.yaml"
MODEL: Final = "demo-server"
"""Name of the ModelDeployment in the example manifest."""
REMOTE: Final = "elsewhere"
"""Namespace of the remote backend."""
CLIENTS: Final = "clients"
MODELS: Final = "modeldeployments.deployment.beamlit.com"
"""Name of the resource, and of its CustomResourceDefinition."""
_OAUTH: Final = "config.defaultRemoteBackend.authConfig.oauthConfig"
_CREDENTIALS: Final = ("demo", "demo-secret")


class Release:
    """A release of the chart, with a remote backend for it and a client."""

    def __init__(self, cluster: Cluster, folder: Path, *, metacontroller: bool) -> None:
        """Prepare a release without installing anything.

        Args:
            cluster: where it goes.
            folder: where the chart is copied to, with its dependencies.
            metacontroller: whether Metacontroller comes along, as it does by default.
        """
        self.cluster, self.metacontroller = cluster, metacontroller
        self.chart = with_dependencies(folder)
        self._client: Client | None = None

    @property
    def client(self) -> Client:
        """Return the client, a pod in a namespace of its own."""
        assert self._client is not None
        return self._client

    def install(self) -> None:
        """Start the remote backend and the client, and run `helm install` by the command line of the README."""
        cluster = self.cluster
        for namespace in (REMOTE, CLIENTS):
            cluster.create_namespace(namespace)
        cluster.apply(*_remote())
        self._client = Client(cluster, "client", CLIENTS, CLIENT)
        if not self.metacontroller:
            cluster.apply(stand_in_crd())
        cluster.helm(
            *("install", NAME, str(self.chart), "--namespace", NAMESPACE, "--create-namespace"),
            *("--set", "config.defaultRemoteBackend.workspace=demo"),
            *("--set", f"{_OAUTH}.clientId={_CREDENTIALS[0]}", "--set", f"{_OAUTH}.clientSecret={_CREDENTIALS[1]}"),
            *self.here,
        )
        self.until_ready()

    @property
    def here(self) -> tuple[str, ...]:
        """Return flags for what is elsewhere for a user: the remote backend, and Metacontroller where it is missing."""
        host = f"remote.{REMOTE}.svc.cluster.local"
        flags = [
            *("--set", f"config.defaultRemoteBackend.host={host}", "--set", "config.defaultRemoteBackend.scheme=http"),
            *("--set", f"{_OAUTH}.tokenUrl=http://{host}/v0/oauth/token"),
        ]
        if not self.metacontroller:
            flags += ["--set", "metacontroller.enabled=false"]
        return tuple(flags)

    def upgrade(self, chart: Path, *words: str) -> None:
        """Run `helm upgrade` as the documentation has it, and return when the new pods are ready."""
        self.cluster.helm(
            "upgrade", NAME, str(chart), "--namespace", NAMESPACE, "--reset-then-reuse-values", "--wait", *words
        )

    def until_ready(self) -> None:
        """Wait until all workloads of the release have the pods that they should have."""
        for item in self.workloads():
            place = f"{item['kind'].lower()}/{item['metadata']['name']}"
            self.cluster.kubectl("rollout", "status", place, "-n", NAMESPACE, "--timeout=180s")

    def workloads(self) -> list[dict[str, Any]]:
        """Return the Deployments and StatefulSets of the release."""
        words = ("get", "deployments,statefulsets", "-n", NAMESPACE, "-o", "json")
        items: list[dict[str, Any]] = json.loads(self.cluster.kubectl(*words))["items"]
        return items

    def pods(self, component: str) -> list[str]:
        """Return the names of the pods of hooks or the gateway."""
        selector = f"app.kubernetes.io/name={NAME},app.kubernetes.io/component={component}"
        return [pod["metadata"]["name"] for pod in self.cluster.pods(NAMESPACE, selector)]

    def restarts(self) -> dict[str, int]:
        """Return how often the container of each pod of the release was started again, by the name of the pod."""
        listed = json.loads(self.cluster.kubectl("get", "pods", "-n", NAMESPACE, "-o", "json"))["items"]
        return {
            pod["metadata"]["name"]: sum(one["restartCount"] for one in pod["status"].get("containerStatuses", ()))
            for pod in listed
        }


def _remote() -> Iterator[dict[str, Any]]:
    """Yield a model server that wants a token, and its Service."""
    labels = {"app": "remote"}
    flags = ["--model", "tiny-remote", "--oauth-client-id", _CREDENTIALS[0], "--oauth-client-secret", _CREDENTIALS[1]]
    container = {
        "name": "server",
        "image": MODEL_SERVER,
        "args": flags,
        "readinessProbe": {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 1},
    }
    metadata = {"name": "remote", "namespace": REMOTE}
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": metadata,
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
        },
    }
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": PORT}]},
    }
