"""The test-adapter: custom.metrics.k8s.io has the values that tests set, and its external metrics are fixed. And the
API server that takes its place where external metrics shall change, or fail."""

import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.e2e.aggregation import CUSTOM, Adapter
from tests.e2e.controlplane import CommandFailed, ControlPlane
from tests.e2e.product import workload
from tests.e2e.scripted import Scripted
from tests.processes import poll

pytestmark = pytest.mark.own_plane


@pytest.fixture(scope="module")
def adapter(plane: ControlPlane) -> Iterator[Adapter]:
    """The test-adapter, and a workload with two pods."""
    adapter = plane.start_test_adapter()
    plane.apply(workload("told", replicas=2))
    plane.kubectl("rollout", "status", "deployment", "told", "--timeout=100s")
    yield adapter
    plane.kubectl("delete", "deployment", "told")


def asked(plane: ControlPlane, path: str, **query: str) -> list[dict[str, Any]]:
    """Return the items of a response below /apis."""
    words = "&".join(f"{name}={value}" for name, value in query.items())
    items: list[dict[str, Any]] = json.loads(plane.kubectl("get", "--raw", f"/apis/{path}?{words}"))["items"]
    return items


def custom(plane: ControlPlane, path: str, version: str = CUSTOM[-1], **query: str) -> list[tuple[str, str]]:
    """Return name of the object and value of each sample."""
    items = asked(plane, f"custom.metrics.k8s.io/{version}/namespaces/default/{path}", **query)
    return sorted((item["describedObject"]["name"], item["value"]) for item in items)


@pytest.mark.parametrize("version", CUSTOM)
def test_pods_have_what_was_set(plane: ControlPlane, adapter: Adapter, version: str) -> None:
    """Each selected pod that has a value appears with its present value, which the next one replaces."""
    names = sorted(
        item["metadata"]["name"] for item in plane.get("pods")["items"] if "told" in item["metadata"]["name"]
    )
    adapter.set("pods", names[0], f"queue-{version}", "300m")
    selected = {"labelSelector": "app%3Dtold"}
    assert custom(plane, f"pods/*/queue-{version}", version, **selected) == [(names[0], "300m")]
    for name, value in zip(names, ("2", "1500m"), strict=True):
        adapter.set("pods", name, f"queue-{version}", value)
    samples = custom(plane, f"pods/*/queue-{version}", version, **selected)
    assert samples == [(names[0], "2"), (names[1], "1500m")]


def test_objects_and_selectors_of_metrics(plane: ControlPlane, adapter: Adapter) -> None:
    """A Deployment and a Service have metrics as well, and a metric selector that does not match their labels finds
    nothing."""
    adapter.set("deployments.apps", "told", "depth", "7", labels={"queue": "a"})
    adapter.set("services", "kubernetes", "depth", "8")
    assert custom(plane, "services/kubernetes/depth") == [("kubernetes", "8")]
    assert custom(plane, "deployments.apps/told/depth", metricLabelSelector="queue%3Da") == [("told", "7")]
    words = ("get", "--raw", "/apis/custom.metrics.k8s.io/v1beta2/namespaces/default/deployments.apps/told/depth")
    assert plane.kubectl(*words[:2], f"{words[2]}?metricLabelSelector=queue%3Db", check=False) == ""


@pytest.mark.parametrize(
    ("metric", "selector", "values"),
    [
        ("my-external-metric", "", ["42", "43"]),
        ("my-external-metric", "foo%3Dbar", ["42"]),
        ("other-external-metric", "", ["44"]),
        ("no-such", "", []),
    ],
)
def test_external_metrics_are_fixed(
    plane: ControlPlane, adapter: Adapter, metric: str, selector: str, values: list[str]
) -> None:
    """External metrics are the same in every namespace, and are selected by their labels."""
    assert adapter is plane.adapter
    for namespace in ("default", "kube-system"):
        path = f"external.metrics.k8s.io/v1beta1/namespaces/{namespace}/{metric}"
        assert [item["value"] for item in asked(plane, path, labelSelector=selector)] == values


def test_rbac_holds(plane: ControlPlane, adapter: Adapter) -> None:
    """A ServiceAccount may read a metric only once a Role allows it."""
    assert adapter is plane.adapter
    rbac, name = "rbac.authorization.k8s.io", "adapter-reader"
    rules = [{"apiGroups": ["external.metrics.k8s.io"], "resources": ["*"], "verbs": ["get", "list"]}]
    binding = {
        "apiVersion": f"{rbac}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": rbac, "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": "default"}],
    }
    path = "/apis/external.metrics.k8s.io/v1beta1/namespaces/default/other-external-metric"
    plane.apply({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}})
    reader = plane.service_account("default", name)
    assert plane.kubectl("get", "--raw", path, kubeconfig=reader, check=False) == ""
    plane.apply({"apiVersion": f"{rbac}/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules}, binding)
    poll(lambda: "44" in plane.kubectl("get", "--raw", path, kubeconfig=reader, check=False), "it may read")
    plane.kubectl("delete", f"rolebinding/{name}", f"role/{name}", f"serviceaccount/{name}")


def test_a_script_takes_its_place(plane: ControlPlane, adapter: Adapter) -> None:
    """Values, their age, their delay and a refusal are as scripted, and afterwards the test-adapter serves the group
    again."""
    path = "external.metrics.k8s.io/v1beta1/namespaces/default/load"
    with Scripted(plane).running() as scripted:
        assert asked(plane, path) == []
        scripted.values["load"] = "17"
        scripted.age = timedelta(minutes=10)
        scripted.delay = timedelta(seconds=1)
        began = time.monotonic()
        (item,) = asked(plane, path)
        assert 1 <= time.monotonic() - began < 10
        assert item["value"] == "17"
        age = datetime.now(UTC) - datetime.fromisoformat(item["timestamp"])
        assert timedelta(minutes=10) <= age < timedelta(minutes=11)
        scripted.refused = 500
        with pytest.raises(CommandFailed, match="as told to"):
            asked(plane, path)
        assert scripted.asked == 3
    assert plane.start_test_adapter() is adapter
    poll(lambda: asked(plane, path.replace("load", "other-external-metric")), "the test-adapter responds again")
