"""EndpointSlices: which pods of a Service get requests, and what of a slice counts at all."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.backends import endpoints
from gateway.backends.endpoints import Endpoint, EndpointSlice, EndpointTable, PodState, read, serving


def endpoint(name: str = "pod-0", address: str = "10.0.0.1", **changes: Any) -> dict[str, Any]:
    """Return an endpoint of a slice as Kubernetes writes it, with `changes`."""
    target = {"kind": "Pod", "namespace": "default", "name": name, "uid": f"uid-of-{name}"}
    conditions = {"ready": True, "serving": True, "terminating": False}
    return {"addresses": [address], "conditions": conditions, "targetRef": target, "nodeName": "node"} | changes


def slice_of(*members: Any, name: str = "demo-local-x", **changes: Any) -> dict[str, Any]:
    """Return an EndpointSlice of the Service demo-local as Kubernetes writes it, with `changes`."""
    labels = {
        "kubernetes.io/service-name": "demo-local",
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
        "app.kubernetes.io/managed-by": "beamlit-controller",
    }
    return {
        "kind": "EndpointSlice",
        "metadata": {"namespace": "default", "name": name, "labels": labels},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8000, "protocol": "TCP"}],
        "endpoints": list(members),
    } | changes


def addresses_in(*slices: dict[str, Any]) -> list[str]:
    """Return the addresses of the pods that get requests, each with its port."""
    parsed = [one for one in map(read, slices) if one is not None]
    return [f"{'/'.join(one.addresses)}:{one.port}" for one in serving(parsed)]


@pytest.mark.parametrize(
    ("conditions", "state"),
    [
        ({"ready": True, "serving": True, "terminating": False}, PodState.READY),
        ({"ready": False, "serving": False, "terminating": False}, PodState.UNREADY),
        ({"ready": False, "serving": True, "terminating": True}, PodState.LEAVING),
        ({"ready": False, "serving": False, "terminating": True}, PodState.UNREADY),
        ({"ready": True, "serving": True, "terminating": True}, PodState.READY),
        ({"ready": False}, PodState.UNREADY),
        ({"ready": None, "serving": None}, PodState.READY),
        ({}, PodState.READY),
        (None, PodState.READY),
    ],
)
def test_conditions_mean_what_kubernetes_defines(conditions: object, state: PodState) -> None:
    """A pod is ready unless its endpoint says no, and one that terminates still serves while its endpoint says so."""
    parsed = read(slice_of(endpoint(conditions=conditions)))

    assert parsed is not None
    assert [one.state for one in parsed.endpoints] == [state]


def test_leaving_pods_count_while_none_is_ready() -> None:
    """Pods that terminate and still serve get requests only while no pod is ready."""
    leaving = endpoint("old", "10.0.0.1", conditions={"ready": False, "serving": True, "terminating": True})
    unready = endpoint("new", "10.0.0.2", conditions={"ready": False, "serving": False, "terminating": False})

    assert addresses_in(slice_of(leaving, unready)) == ["10.0.0.1:8000"]
    assert addresses_in(slice_of(leaving, endpoint("new", "10.0.0.2"))) == ["10.0.0.2:8000"]
    assert addresses_in(slice_of(unready)) == []


def test_each_slice_has_its_own_port() -> None:
    """Pods whose named port has different numbers are in slices of their own, and each gets requests at its own."""
    other = slice_of(endpoint("b", "10.0.0.2"), name="y", ports=[{"name": "http", "port": 9000}])

    assert addresses_in(slice_of(endpoint("a")), other) == ["10.0.0.1:8000", "10.0.0.2:9000"]


def test_a_pod_of_two_families_is_one_pod() -> None:
    """A pod with an address of each family counts once, the address of IPv4 first."""
    six = slice_of(endpoint("a", "fd00::0:1"), name="six", addressType="IPv6")

    assert addresses_in(six, slice_of(endpoint("a"))) == ["10.0.0.1/fd00::1:8000"]
    assert addresses_in(six) == ["fd00::1:8000"]


def test_a_pod_in_two_slices_is_ready_in_the_better_one() -> None:
    """A pod that moves from one slice to another is in both for a moment, and counts once."""
    unready = endpoint("a", conditions={"ready": False})

    assert addresses_in(slice_of(endpoint("a")), slice_of(unready, name="y")) == ["10.0.0.1:8000"]


def test_a_service_of_several_ports_has_no_pods() -> None:
    """Of several ports a slice does not say which one requests are for, so the name of the Service is used."""
    several = [{"name": "http", "port": 8000}, {"name": "metrics", "port": 9000}]
    udp = [{"name": "http", "port": 8000}, {"name": "dns", "port": 53, "protocol": "UDP"}]

    assert addresses_in(slice_of(endpoint(), ports=several)) == []
    assert addresses_in(slice_of(endpoint(), ports=udp)) == ["10.0.0.1:8000"]
    assert addresses_in(slice_of(endpoint(), ports=[{"name": "", "port": None}])) == []


@pytest.mark.parametrize(
    "changed",
    [
        {"targetRef": {"kind": "Pod", "namespace": "other", "name": "pod-0"}},
        {"targetRef": {"kind": "Pod", "name": "pod-0"}},
        {"targetRef": {"kind": "Node", "namespace": "default", "name": "pod-0"}},
        {"targetRef": {"kind": "Pod", "namespace": "default", "name": "../pod"}},
        {"targetRef": None},
        {"addresses": []},
        {"addresses": ["example.com"]},
        {"addresses": ["fd00::1"]},
        {"addresses": ["10.0.0.1.5"]},
        {"addresses": [7]},
        {"addresses": "10.0.0.1"},
    ],
)
def test_what_is_no_pod_of_the_namespace_is_left_out(changed: dict[str, Any]) -> None:
    """An endpoint is left out that is no pod of the slice's own namespace, or has no address of the slice's family."""
    assert addresses_in(slice_of(endpoint(**changed), endpoint("b", "10.0.0.2"))) == ["10.0.0.2:8000"]


@pytest.mark.parametrize(
    "label", ["kubernetes.io/service-name", "endpointslice.kubernetes.io/managed-by", "app.kubernetes.io/managed-by"]
)
def test_only_slices_of_the_models_services_count(label: str) -> None:
    """A slice counts that Kubernetes made for a Service of the controller; one that others made does not."""
    without, other = slice_of(endpoint()), slice_of(endpoint())
    del without["metadata"]["labels"][label]
    other["metadata"]["labels"][label] = "Somebody Else"

    assert read(without) is None
    assert read(other) is None


def table_of(*slices: EndpointSlice) -> EndpointTable:
    """Return a table with slices."""
    table = EndpointTable()
    for one in slices:
        table.put(one)
    return table


def parsed(name: str, *pods: str, namespace: str = "default", service: str = "demo-local") -> EndpointSlice:
    """Return a slice with ready pods."""
    members = tuple(Endpoint(pod, "", ("10.0.0.1",), 8000, PodState.READY) for pod in pods)
    return EndpointSlice(namespace, name, service, 1, members)


def test_a_service_has_the_pods_of_its_own_namespace_only() -> None:
    """A Service of the same name in another namespace has other pods."""
    table = table_of(parsed("x", "a"), parsed("x", "b", namespace="other"))

    followed = [table.follow(namespace, "demo-local", "h", 80) for namespace in ("default", "other", "third")]

    assert [[pod.name for pod in one.pods] for one in followed if one is not None] == [["a"], ["b"], []]


def test_changes_are_seen_by_those_who_follow() -> None:
    """What is followed changes with each slice, and is empty once the last one is gone."""
    table = EndpointTable()
    followed = table.follow("default", "demo-local", "h", 80)
    assert followed is not None

    seen = [followed.pods]
    for one in (parsed("x", "a"), parsed("y", "b"), parsed("x", "c", service="another")):
        assert table.put(one)
        seen.append(followed.pods)
    assert table.keep_only({"default": {"x"}})
    seen.append(followed.pods)

    assert [[pod.name for pod in pods] for pods in seen] == [[], ["a"], ["a", "b"], ["b"], []]
    assert not table.remove("default", "y")


def test_a_name_that_the_administrator_has_set_has_no_pods() -> None:
    """A Service whose address is set by `gateway.resolve` leads there, whatever its slices say."""
    table = EndpointTable({("Demo-Local.default.svc.cluster.local", 80)})

    table.put(parsed("x", "a"))
    assert table.follow("default", "demo-local", "demo-local.default.svc.cluster.local", 80) is None
    assert table.pods("default", "demo-local", "demo-local.default.svc.cluster.local", 80) is None
    assert [pod.name for pod in table.pods("default", "demo-local", "h", 80) or ()] == ["a"]
    assert table.pods("default", "another", "h", 80) == ()
    assert table.follow("default", "demo-local", "demo-local.default.svc.cluster.local", 81) is not None


def test_a_pod_at_an_address_that_is_refused_does_not_count() -> None:
    """A pod counts at an address that is permitted, or for which the administrator has set where it leads."""
    table = EndpointTable({("10.0.0.9", 8000)}, lambda address: address == "10.0.0.1")
    for number, address in enumerate(("10.0.0.1", "10.0.0.2", "10.0.0.9", "169.254.169.254")):
        one = read(slice_of(endpoint(f"pod-{number}", address), name=f"slice-{number}"))
        assert one is not None
        table.put(one)
    followed = table.follow("default", "demo-local", "h", 80)

    assert followed is not None
    assert [pod.name for pod in followed.pods] == ["pod-0", "pod-2"]


def test_a_namespace_has_bounds_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """A namespace with more slices or pods than are kept loses what is beyond, and takes no room from another one."""
    monkeypatch.setattr(endpoints, "NAMESPACE_SLICES", 2)
    monkeypatch.setattr(endpoints, "NAMESPACE_PODS", 3)
    table = table_of(parsed("x", "a"), parsed("y", "b"), parsed("z", "c"), parsed("x", "a", "d", "e", "f"))
    table.put(parsed("z", "c", namespace="other"))

    followed = [table.follow(namespace, "demo-local", "h", 80) for namespace in ("default", "other")]

    assert [[pod.name for pod in one.pods] for one in followed if one is not None] == [["b"], ["c"]]
    assert table.left_out == {"default": 2}


def test_a_service_has_the_first_pods_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more pods than are used the first ones by name are, so that every gateway uses the same."""
    monkeypatch.setattr(endpoints, "SERVICE_PODS", 2)

    assert [one.name for one in serving([parsed("x", "c", "a"), parsed("y", "b")])] == ["a", "b"]


_JUNK = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["Pod", "default", "10.0.0.1", "a", "IPv4", "TCP"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["targetRef", "addresses", "conditions", "kind", "namespace", "name", "port", "protocol"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=8,
)


@settings(max_examples=60)
@given(st.dictionaries(st.sampled_from(["addressType", "ports", "endpoints"]), _JUNK), st.lists(_JUNK, max_size=3))
def test_any_slice_is_read(changes: dict[str, Any], members: list[Any]) -> None:
    """Whatever stands in a slice, reading it fails at nothing, and its pods are of its own namespace and family."""
    one = read(slice_of(endpoint(), *members, **changes))

    assert one is not None
    assert one.namespace == "default"
    assert all(pod.addresses == ("10.0.0.1",) and 0 < pod.port < 65536 for pod in one.endpoints)


_CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["put", "remove"]),
        st.sampled_from(["x", "y", "z"]),
        st.sampled_from(["one", "two"]),
        st.sets(st.sampled_from("abcd"), max_size=3),
    ),
    max_size=12,
)


@settings(max_examples=60)
@given(_CHANGES)
def test_a_table_is_what_its_last_slices_say(changes: list[tuple[str, str, str, set[str]]]) -> None:
    """After any changes a Service has the pods of the slices that are there, as if the table were new."""
    table, kept = EndpointTable(), dict[str, EndpointSlice]()
    followed = {service: table.follow("default", service, "h", 80) for service in ("one", "two")}
    for action, name, service, pods in changes:
        if action == "put":
            kept[name] = parsed(name, *sorted(pods), service=service)
            table.put(kept[name])
        else:
            kept.pop(name, None)
            table.remove("default", name)

    for service, pods_now in followed.items():
        assert pods_now is not None
        assert pods_now.pods == serving([one for one in kept.values() if one.service == service])
