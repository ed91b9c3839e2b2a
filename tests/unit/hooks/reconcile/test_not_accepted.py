"""Sync of a ModelDeployment whose specification is not accepted: the last applied children stay."""

import copy
from typing import Any

import pytest

from hooks import reasons
from hooks.errors import DamagedAnnotation
from hooks.observation.observation import InstallDefaults
from hooks.protocol import SyncResponse
from tests.builders import (
    Cluster,
    Json,
    behavior,
    body_of,
    child,
    condition,
    conditions,
    customize,
    model_deployment,
    observed,
    override,
    route,
    served,
    sync,
    weights,
    workload,
)

ELSEWHERE = {"name": "x", "namespace": "team-b"}


def invalid(cluster: Cluster) -> SyncResponse:
    """Edit the specification so that it refers to another namespace, and return the response."""
    return cluster.edit(serviceRef=ELSEWHERE)


@pytest.mark.parametrize("server_side", [False, True])
def test_children_stay_as_they_were_applied_last(server_side: bool) -> None:
    """Children stay exactly as they were applied last, and the condition says what to change."""
    for parent in (model_deployment(gateway={"serviceName": "gw"}), served()):
        cluster = Cluster(parent, related=[workload()], server_side=server_side)
        cluster.settle()
        before = cluster.set_ready(1)
        response = invalid(cluster)
        assert by_name(response) == by_name(before)
        assert conditions(response)["Accepted"] == ("False", reasons.CROSS_NAMESPACE_REFERENCE)
        assert conditions(response)["Ready"] == ("False", reasons.NOT_ACCEPTED)
        assert condition(response, "Ready")["message"] == condition(response, "Accepted")["message"]
        assert body_of(cluster.sync()) == body_of(response)


def by_name(response: SyncResponse) -> dict[tuple[str, str], Json]:
    """Return the children by kind and name."""
    return {(item["kind"], item["metadata"]["name"]): item for item in response.children}


@pytest.mark.parametrize("parent", [model_deployment(), served()])
def test_readiness_sets_the_weights_of_the_last_applied_route(parent: Json) -> None:
    """While the specification is not accepted, requests go to the remote backend while no replica is ready."""
    cluster = Cluster(parent, related=[workload()])
    cluster.settle()
    cluster.set_ready(1)
    assert weights(invalid(cluster)) == {"local": 100, "remote": 0}
    response = cluster.set_ready(0)
    assert (weights(response), route(response)["split"]["reason"]) == (
        {"local": 0, "remote": 100},
        reasons.NO_READY_REPLICA,
    )
    assert response.status["offloading"]["percentage"] == 100
    assert conditions(response)["Offloading"] == ("True", reasons.NO_READY_REPLICA)
    assert body_of(cluster.sync()) != b""
    assert weights(cluster.sync()) == {"local": 0, "remote": 100}
    assert weights(cluster.set_ready(1)) == {"local": 100, "remote": 0}


def test_the_last_applied_override_ends_at_its_time() -> None:
    """An override that was applied last stays in force, and ends at its time."""
    cluster = Cluster(model_deployment(offloadingConfig=override(30)), related=[workload()])
    cluster.settle()
    response = invalid(cluster)
    assert (weights(response), response.resync_after_seconds) == ({"local": 70, "remote": 30}, 3600)
    assert weights(cluster.after(3600)) == {"local": 100, "remote": 0}


@pytest.mark.parametrize(
    ("percentage", "expected"), [(0, {"local": 100}), (30, {"local": 70, "remote": 30}), (100, {"remote": 100})]
)
def test_the_last_applied_forced_override_holds(percentage: int, expected: dict[str, int]) -> None:
    """An override of mode Force that was applied last holds whether or not replicas are ready."""
    cluster = Cluster(model_deployment(offloadingConfig=override(percentage, "Force")), related=[workload()])
    cluster.settle()
    assert weights(invalid(cluster)) == expected
    assert weights(cluster.set_ready(0)) == expected


def test_the_last_applied_route_honors_the_delay() -> None:
    """notReadyForSeconds delays the change of the weights also while the specification is not accepted."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(notReadyForSeconds=60)), related=[workload()])
    cluster.settle()
    invalid(cluster)
    response = cluster.set_ready(0)
    assert (weights(response), response.resync_after_seconds) == ({"local": 100, "remote": 0}, 60)
    assert weights(cluster.after(60)) == {"local": 0, "remote": 100}


def test_another_workload_says_nothing_about_the_one_that_serves() -> None:
    """The weights stay when the specification names another workload, for nothing is known of the one that serves."""
    cluster = Cluster(model_deployment(), related=[workload(), workload(name="other", ready=0)])
    cluster.settle()
    cluster.edit(serviceRef=ELSEWHERE, modelSourceRef={"kind": "Deployment", "name": "other"})
    cluster.related = [workload(name="other", ready=0)]
    response = cluster.sync()
    assert weights(response) == {"local": 100, "remote": 0}
    assert conditions(response)["LocalReady"] == ("Unknown", reasons.NOT_EVALUATED)


def test_the_same_workload_gone_is_an_outage() -> None:
    """A workload that the specification still names and that does not exist has no ready replica."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    invalid(cluster)
    cluster.related = []
    assert weights(cluster.sync()) == {"local": 0, "remote": 100}


def test_the_deployment_of_spec_server_gone_is_an_outage() -> None:
    """The Deployment of spec.server has no ready replica when it does not exist."""
    cluster = Cluster(served())
    cluster.settle()
    cluster.set_ready(1)
    invalid(cluster)
    cluster.children = [item for item in cluster.children if item["kind"] != "Deployment"]
    assert weights(cluster.sync()) == {"local": 0, "remote": 100}


@pytest.mark.parametrize("document", ["{", '{"requires": ["more"]}', None])
def test_a_last_applied_route_that_cannot_be_read_stays(document: str | None) -> None:
    """A route document that cannot be read, because another version wrote it, stays as it is."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    for index, item in enumerate(cluster.children):
        if item["kind"] == "ConfigMap":
            desired = copy.deepcopy(cluster.sync().children[0]) | {"data": {"route.json": document} if document else {}}
            cluster.children[index] = observed(desired)
    response = invalid(cluster)
    assert child(response, "ConfigMap").get("data", {}).get("route.json") == document
    assert response.status["offloading"]["reason"] == reasons.NOT_ACCEPTED


def test_a_specification_that_was_never_accepted_creates_nothing() -> None:
    """A specification that was never accepted has no children."""
    response = sync(model_deployment(serviceRef=ELSEWHERE), related=[workload()])
    assert response.children == ()
    assert conditions(response)["Synced"] == ("Unknown", reasons.NOT_EVALUATED)
    assert response.status["offloading"]["reason"] == reasons.NOT_ACCEPTED


@pytest.mark.parametrize("odd", [None, [], "x", 1, {"model": 1}, {"server": {"template": []}, "policies": "x"}])
def test_no_specification_is_an_error(odd: Any) -> None:
    """Whatever spec holds, the response is a whole one whose condition says what is wrong."""
    response = sync(model_deployment() | {"spec": odd})
    assert conditions(response)["Accepted"] == ("False", reasons.INVALID_SPEC)
    assert customize(model_deployment() | {"spec": odd}).related_resources == ()


def test_a_corrected_mistake_leaves_no_trace() -> None:
    """Once the specification is accepted again, the children are as if the mistake had never been made."""
    cluster = Cluster(model_deployment(), related=[workload()])
    before = cluster.settle()
    invalid(cluster)
    response = cluster.edit(serviceRef=None)
    assert response.children == before.children
    assert conditions(response)["Accepted"] == ("True", reasons.ACCEPTED)


def test_a_damaged_annotation_changes_nothing() -> None:
    """A last-applied annotation that cannot be read is an error, so that no child is deleted."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    cluster.children[0]["metadata"]["annotations"]["metacontroller.k8s.io/last-applied-configuration"] = "{"
    cluster.sync()
    cluster.children[0]["metadata"]["annotations"]["metacontroller.k8s.io/last-applied-configuration"] = "{"
    with pytest.raises(DamagedAnnotation) as damaged:
        invalid(cluster)
    assert damaged.value.status == 500


def test_a_namespace_that_is_not_managed() -> None:
    """In a namespace that is not managed, children stay as they were applied last, and none is created."""
    cluster = Cluster(model_deployment(), related=[workload()])
    before = cluster.settle()
    cluster.defaults = InstallDefaults(namespaces=frozenset({"other"}))
    response = cluster.set_ready(0)
    assert response.children == before.children
    assert conditions(response)["Accepted"] == ("False", reasons.NAMESPACE_NOT_MANAGED)
    assert conditions(response)["LocalReady"] == ("Unknown", reasons.NOT_EVALUATED)
    assert sync(model_deployment(), related=[workload()], defaults=cluster.defaults).children == ()


def test_the_service_to_the_gateway_keeps_its_last_applied_name() -> None:
    """The Service to the gateway keeps its last applied name although the specification has another one."""
    cluster = Cluster(model_deployment(gateway={"serviceName": "old"}), related=[workload()])
    cluster.settle()
    response = cluster.edit(gateway={"serviceName": "new"}, serviceRef=ELSEWHERE)
    assert {item["metadata"]["name"] for item in response.children} == {"demo-route", "demo-local", "old"}
