"""Pods: which of their containers run for good, and what is requested for them."""

from datetime import UTC, datetime
from typing import Any

import pytest

from hooks.kube.pods import ContainerPort, Pod, total
from hooks.kube.quantities import Quantity, parse
from tests.builders import Json


def container(name: str, cpu: Any = None, **fields: Any) -> Json:
    """Return a container with this request for cpu; None requests nothing."""
    return {"name": name, "resources": {"requests": {} if cpu is None else {"cpu": cpu}}} | fields


def pod(*containers: Json, init: tuple[Json, ...] = (), requests: Json | None = None, **status: Any) -> Pod:
    """Return a pod read from an object as the API server returns it."""
    spec: Json = {"containers": list(containers), "initContainers": list(init), "overhead": {"cpu": "9"}}
    if requests is not None:
        spec["resources"] = {"requests": requests}
    return Pod.of({"metadata": {"name": "demo-0"}, "spec": spec, "status": status})


def test_a_pod_is_read_from_its_object() -> None:
    """Name, phase, readiness with its time, and deletion are read from a pod's object."""
    conditions = [
        {"type": "PodScheduled", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z"},
        {"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-01T12:00:00Z"},
    ]
    result = pod(container("server"), phase="Running", conditions=conditions)
    assert (result.name, result.phase, result.ready, result.terminating) == ("demo-0", "Running", True, False)
    assert result.ready_since == datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_an_object_without_anything_is_a_pod_that_does_not_serve() -> None:
    """A pod without any field is neither ready nor running."""
    result = Pod.of({})
    assert (result.name, result.phase, result.ready, result.ready_since, result.containers) == ("", "", False, None, ())


def test_a_deleted_pod_is_terminating() -> None:
    """A pod with a deletion timestamp is terminating, even while it runs and is ready."""
    assert Pod.of({"metadata": {"deletionTimestamp": "2026-03-01T12:00:00Z"}}).terminating


def test_where_a_pod_is() -> None:
    """A pod has its address, its network, and the TCP ports of its containers and sidecars, not of init containers."""
    ports = [{"name": "http", "containerPort": 8000}, {"containerPort": 53, "protocol": "UDP"}]
    metrics = [{"name": "metrics", "containerPort": 9, "protocol": "TCP"}]
    result = pod(
        container("server", ports=ports),
        init=(
            container("load", ports=[{"containerPort": 1}]),
            container("mesh", restartPolicy="Always", ports=metrics),
        ),
        podIP="10.0.0.7",
    )
    assert (result.address, result.on_host_network) == ("10.0.0.7", False)
    assert result.ports == (ContainerPort(8000, "http"), ContainerPort(9, "metrics"))
    assert Pod.of({"spec": {"hostNetwork": True}}).on_host_network


@pytest.mark.parametrize(
    ("phase", "ready", "deleted", "serves"),
    [
        ("Running", "True", {}, True),
        ("Running", "False", {}, False),
        ("Succeeded", "True", {}, False),
        ("Running", "True", {"deletionTimestamp": "2026-03-01T12:00:00Z"}, False),
    ],
)
def test_whether_a_pod_serves(phase: str, ready: str, deleted: Json, serves: bool) -> None:
    """A pod serves while it runs, is ready and is not being deleted."""
    status = {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]}
    assert Pod.of({"metadata": {"name": "a", **deleted}, "status": status}).serves is serves


def test_sidecars_count_and_other_init_containers_do_not() -> None:
    """An init container that is always restarted counts with its request; any other has ended and does not."""
    result = pod(
        container("server", "500m"),
        init=(container("load", "8"), container("mesh", "100m", restartPolicy="Always")),
    )
    assert [item.name for item in result.containers] == ["server", "mesh"]
    assert result.requested("cpu", None) == parse("600m")


def test_a_request_of_the_pod_takes_the_place_of_the_containers() -> None:
    """A request of the pod counts for its resource, without overhead; for others the containers' are added up."""
    result = pod(
        {"name": "server", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}},
        {"name": "proxy", "resources": {"requests": {"memory": "1Gi"}}},
        requests={"cpu": "4"},
    )
    assert result.requested("cpu", None) == parse("4")
    assert result.without_request("cpu", None) is None
    assert result.requested("memory", None) == parse("2Gi")


def test_a_request_of_the_pod_says_nothing_of_one_container() -> None:
    """For a single container its own request counts, not that of the pod."""
    result = pod(container("server", "1"), container("proxy"), requests={"cpu": "4"})
    assert result.requested("cpu", "server") == parse("1")
    assert result.without_request("cpu", "server") is None
    assert result.without_request("cpu", "proxy") == "proxy"


def test_the_first_container_without_a_request_is_named() -> None:
    """The first container without a request, in the order of the specification, is named."""
    result = pod(container("server", "1"), container("proxy"), container("logs"))
    assert result.without_request("cpu", None) == "proxy"
    assert result.without_request("memory", None) == "server"
    assert result.requested("cpu", None) == parse("1")


def test_zero_is_a_request() -> None:
    """A container that requests zero has a request."""
    result = pod(container("server", "1"), container("proxy", "0"))
    assert result.without_request("cpu", None) is None


@pytest.mark.parametrize("amount", ["much", "", None, True, ["1"], {"cpu": "1"}])
def test_what_is_no_quantity_is_not_requested(amount: Any) -> None:
    """An amount that cannot be read counts as absent, not as zero."""
    result = pod({"name": "server", "resources": {"requests": {"cpu": amount}}})
    assert result.without_request("cpu", None) == "server"


def test_a_sum_has_the_format_of_its_first_amount() -> None:
    """A sum has the format of its first amount, and is zero without any."""
    assert str(total([parse("1Gi"), parse("1Gi")])) == "2Gi"
    assert total([]) == Quantity(0)
