"""The real metrics-server: `kubectl top` shows the usage in a pod's annotations."""

from collections.abc import Iterator

import pytest

from tests.e2e.controlplane import ControlPlane
from tests.e2e.product import workload
from tests.processes import poll

pytestmark = pytest.mark.own_plane
SECONDS = 60
"""Seconds for two scrapes on a busy machine; on an idle one it takes 10 to 20."""


@pytest.fixture(scope="module")
def measured(plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane with metrics-server, and a workload whose annotations say how much it uses."""
    plane.start_metrics_server()
    deployment = workload("busy", replicas=2)
    usage = {"kwok.x-k8s.io/usage-cpu": "250m", "kwok.x-k8s.io/usage-memory": "512Mi"}
    deployment["spec"]["template"]["metadata"]["annotations"] = usage
    plane.apply(deployment)
    yield plane
    plane.kubectl("delete", "deployment", "busy")


def top(plane: ControlPlane) -> dict[str, tuple[int, int]]:
    """Return millicores and MiB of each pod that has been measured."""
    lines = plane.kubectl("top", "pods", "-l", "app=busy", "--no-headers", check=False).splitlines()
    rows = [line.split() for line in lines]
    return {name: (int(cpu.removesuffix("m")), int(memory.removesuffix("Mi"))) for name, cpu, memory in rows}


def about(value: int, expected: int) -> bool:
    """Return whether two values differ by two percent at most: CPU is a difference of counters over the time between
    two scrapes."""
    return abs(value - expected) <= expected * 0.02


def test_usage_is_what_the_annotations_say(measured: ControlPlane) -> None:
    """Both pods appear with the CPU and memory of their annotations, and a changed annotation counts for its pod
    alone."""

    def shown(*cpus: int) -> bool:
        usages = sorted(top(measured).values())
        return len(usages) == 2 and all(
            about(cpu, expected) and memory == 512 for (cpu, memory), expected in zip(usages, cpus, strict=True)
        )

    poll(lambda: shown(250, 250), "kubectl top shows 250m and 512Mi twice", seconds=SECONDS)
    name = next(iter(top(measured)))
    measured.kubectl("annotate", "pod", name, "--overwrite", "kwok.x-k8s.io/usage-cpu=1500m")
    poll(lambda: shown(250, 1500), "kubectl top shows 1500m for one of them", seconds=SECONDS)
    assert about(top(measured)[name][0], 1500)


def test_the_api_can_be_read_by_hooks_rules(measured: ControlPlane) -> None:
    """A ServiceAccount reads pods.metrics.k8s.io only with the rules `get` and `list` for it."""
    account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "metrics-reader"}}
    rbac = "rbac.authorization.k8s.io"
    rules = [{"apiGroups": ["metrics.k8s.io"], "resources": ["pods"], "verbs": ["get", "list"]}]
    role = {"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": "metrics-reader"}, "rules": rules}
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "metrics-reader"},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": "metrics-reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "metrics-reader", "namespace": "default"}],
    }
    path = "/apis/metrics.k8s.io/v1beta1/namespaces/default/pods?labelSelector=app%3Dbusy"
    measured.apply(account)
    reader = measured.service_account("default", "metrics-reader")
    assert measured.kubectl("get", "--raw", path, kubeconfig=reader, check=False) == ""
    measured.apply(role, binding)
    poll(lambda: "usage" in measured.kubectl("get", "--raw", path, kubeconfig=reader, check=False), "it may read")
    measured.kubectl("delete", "rolebinding/metrics-reader", "role/metrics-reader", "serviceaccount/metrics-reader")
