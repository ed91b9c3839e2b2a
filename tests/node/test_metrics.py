"""Offloading by usage that is real: kubelet measures a busy pod, metrics-server serves it, and hooks read it."""

import json
from collections.abc import Iterator
from typing import Final

import pytest

from tests.node.cluster import Cluster
from tests.node.images import MODEL_SERVER, PORT
from tests.node.release import GATEWAY, Release
from tests.processes import poll

MODEL: Final = "busy"
_MINUTES: Final = 300
"""Seconds for kubelet, metrics-server and hooks to have seen a change, on a busy machine."""
_BURN: Final = """\
import os
if os.fork() == 0:
    os.setsid()
    for descriptor in range(3): os.close(descriptor)
    while not os.path.exists('/tmp/rest'):
        for _ in range(1000000): pass
"""
"""Script that leaves a process that computes until a file is there."""


@pytest.fixture
def busy(carried: Release) -> Iterator[Release]:
    """The release with a model that is offloaded by the CPU that its pods use."""
    container = {
        "name": "server",
        "image": MODEL_SERVER,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}, "timeoutSeconds": 5},
        "resources": {"requests": {"cpu": "100m"}, "limits": {"cpu": "300m"}},
    }
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 100}},
    }
    carried.cluster.bring("horizontalpodautoscaler.autoscaling", MODEL, "default")
    carried.cluster.apply(
        {
            "apiVersion": "deployment.beamlit.com/v1alpha1",
            "kind": "ModelDeployment",
            "metadata": {"name": MODEL, "namespace": "default"},
            "spec": {
                "model": "tiny-remote",
                "server": {"port": PORT, "template": {"spec": {"containers": [container]}}},
                "offloadingConfig": {
                    "metrics": [metric],
                    "behavior": {"percentage": 50, "triggerWindowSeconds": 5, "releaseWindowSeconds": 60},
                },
                "gateway": {"localModel": "tiny-local"},
            },
        },
    )
    yield carried
    carried.cluster.kubectl("delete", "hpa", MODEL, "--ignore-not-found")
    carried.cluster.kubectl("delete", "modeldeployment", MODEL)


def test_a_busy_pod_is_relieved_and_scaled(busy: Release) -> None:
    """While a model's pod uses more CPU than its target, requests are offloaded, and a HorizontalPodAutoscaler beside
    it adds a pod, which hooks leave alone; when the pod rests, the requests come back."""
    cluster = busy.cluster
    cluster.wait("condition=MetricsAvailable", f"modeldeployment/{MODEL}", seconds=_MINUTES)
    assert _share(cluster) == 0
    pod = _pods(cluster)[0]
    cluster.execute("default", pod, "python", "-c", _BURN)
    poll(lambda: _share(cluster) == 50, "requests are offloaded", seconds=_MINUTES)
    backends = {busy.client.ask(f"{GATEWAY}/default/{MODEL}", MODEL).backend for _ in range(20)}
    assert backends == {"local", "remote"}
    usage = cluster.kubectl("top", "pod", pod, "--no-headers").split()[1]
    assert int(usage.removesuffix("m")) > 100
    cluster.kubectl("autoscale", "deployment", MODEL, "--min=1", "--max=2", "--cpu=80%")
    poll(lambda: len(_pods(cluster)) == 2, "the autoscaler adds a pod", seconds=_MINUTES)
    cluster.kubectl("annotate", "modeldeployment", MODEL, "touched=yes")
    cluster.wait("jsonpath={.status.readyReplicas}=2", f"deployment/{MODEL}")
    assert cluster.get("deployment", MODEL)["spec"]["replicas"] == 2
    cluster.execute("default", pod, "python", "-c", "open('/tmp/rest', 'w')")
    poll(lambda: _share(cluster) == 0, "requests come back", seconds=_MINUTES)


def _pods(cluster: Cluster) -> list[str]:
    deployment = cluster.get("deployment", MODEL)
    labels = ",".join(f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items())
    return [pod["metadata"]["name"] for pod in cluster.pods("default", labels)]


def _share(cluster: Cluster) -> int:
    """Return the percentage of requests that go to the remote backend, from the route."""
    stored = cluster.get("configmap", f"{MODEL}-route")
    document = json.loads(stored["data"]["route.json"])
    return int(document.get("split", {}).get("percentage", 0))
