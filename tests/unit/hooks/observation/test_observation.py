"""Observations: facts are read leniently, and a value of the wrong type counts as absent."""

import time
from datetime import UTC, datetime
from typing import Any

import pytest

from hooks.api.common import MOST_CONDITIONS, InvalidObject
from hooks.kube.pods import ContainerPort
from hooks.observation import observation
from hooks.observation.observation import InstallDefaults, Parent, Service, ServicePort, Workload
from tests import builders


def test_parent_without_anything() -> None:
    """A parent whose status, generation or uid is missing or of another type is read without them."""
    odds: list[Any] = [None, [], "x", 1]
    for odd in odds:
        parent = Parent.of({"metadata": {"namespace": "n", "name": "m", "uid": odd and 1}, "spec": odd, "status": odd})
        assert (parent.uid, parent.generation, parent.deleting, parent.spec, parent.held) == ("", 0, False, {}, {})


def test_conditions_of_the_previous_status() -> None:
    """The conditions of the previous status are read; a time that cannot be read counts as absent."""
    status = {
        "conditions": [
            {
                "type": "A",
                "status": "True",
                "reason": "R",
                "message": "m",
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            },
            {"type": "B", "lastTransitionTime": "yesterday"},
            {"type": "C", "lastTransitionTime": "2026-01-01T00:00:00"},
            "no condition",
        ]
    }
    held = Parent.of(builders.model_deployment(status=status)).held
    assert held["A"] == observation.Held("True", "R", "m", datetime(2026, 1, 1, tzinfo=UTC))
    assert (held["B"].since, held["C"].since, len(held)) == (None, None, 3)


def test_a_status_with_more_conditions_than_the_api_allows() -> None:
    """Of a status that no API server stored, as many conditions are read as it may have: reading ends soon."""
    many: list[Any] = [{"type": f"T{number}"} for number in range(MOST_CONDITIONS)] + [{}] * 300_000
    began = time.thread_time()
    held = Parent.of(builders.model_deployment(status={"conditions": many})).held
    assert time.thread_time() - began < 0.2
    assert list(held) == [f"T{number}" for number in range(MOST_CONDITIONS)]


def test_workload_reads_what_is_needed() -> None:
    """Labels, TCP ports and counts are read from a workload of any kind."""
    ports: list[builders.Json] = [
        {"containerPort": 8000, "name": "http"},
        {"containerPort": 53, "protocol": "UDP"},
        {"name": "none"},
    ]
    result = Workload.of(
        builders.workload("StatefulSet", generation=3, observed=2, replicas=0, ports=ports, deleting=True)
    )
    assert (result.kind, result.name, result.deleting, result.replicas) == ("StatefulSet", "demo", True, 0)
    assert (result.generation, result.observed_generation) == (3, 2)
    assert (str(result.selector), result.ports) == ("app=demo", (ContainerPort(8000, "http"),))


def test_an_empty_workload_is_read_too() -> None:
    """A workload with nothing but kind and name is read, and its other facts count as absent."""
    result = Workload.of({"kind": "Deployment", "metadata": {"name": "x"}})
    assert (result.generation, result.observed_generation, result.replicas, result.ports) == (0, None, None, ())


@pytest.mark.parametrize(
    ("port", "read"),
    [
        ({"port": 80, "targetPort": 8000}, ServicePort(80, 8000)),
        ({"port": 80, "targetPort": "http"}, ServicePort(80, "http")),
        ({"port": 80}, ServicePort(80, 80)),
        ({"port": 80, "protocol": "TCP"}, ServicePort(80, 80)),
    ],
)
def test_port_behind_a_service(port: builders.Json, read: ServicePort) -> None:
    """The port behind a Service is a number, a name, or by default the Service's own port."""
    assert Service.of(builders.service(ports=[port])).ports == (read,)


def test_ports_that_speak_no_http_are_left_out() -> None:
    """UDP ports and ports without a number are not read."""
    assert Service.of(builders.service(ports=[{"port": 53, "protocol": "UDP"}, {"name": "x"}])).ports == ()


@pytest.mark.parametrize(
    ("spec", "addresses"),
    [
        ({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1", "fd00::1"]}, ("10.0.0.1", "fd00::1")),
        ({"clusterIP": "10.0.0.1"}, ("10.0.0.1",)),
        ({"clusterIP": "None", "clusterIPs": ["None"]}, ()),
        ({"clusterIP": ""}, ()),
        ({"clusterIPs": ["web.other", "fe80::1%eth0", 7, "10.0.0.1"]}, ("10.0.0.1",)),
        ({}, ()),
    ],
)
def test_cluster_addresses(spec: builders.Json, addresses: tuple[str, ...]) -> None:
    """The addresses of a Service are its cluster IPs; a headless Service has none."""
    assert Service.of({"metadata": {"name": "x"}, "spec": spec}).cluster_ips == addresses


def test_objects_are_found_by_namespace_and_name_exactly() -> None:
    """An object of another namespace or kind is never taken for the one that a reference names."""
    foreign = builders.workload()
    foreign["metadata"]["namespace"] = "team-b"
    other = builders.workload("StatefulSet")
    seen = builders.observation(builders.model_deployment(), related=[foreign, other, builders.service()], version="v2")
    assert seen.workload("Deployment", "demo") is None
    assert seen.workload("Service", "demo-svc") is None
    assert seen.service("demo") is None
    assert seen.service("demo-svc") is not None
    assert seen.own_deployment("demo") is None


def test_a_specification_that_cannot_be_read_says_which_field() -> None:
    """The message about a specification that cannot be read begins with the path of the field."""
    with pytest.raises(InvalidObject, match=r"^spec\.model is required: the name of the model"):
        builders.observation(builders.model_deployment(model=None)).read_spec()


def test_managed_namespaces() -> None:
    """Hooks manage the namespaces that are listed, and all when the list is None."""
    assert InstallDefaults(namespaces=None).manages("any")
    assert InstallDefaults(namespaces=frozenset({"a"})).manages("a")
    assert not InstallDefaults(namespaces=frozenset({"a"})).manages("b")
