"""Related objects: the response to customize."""

from typing import Any

import pytest

from tests.builders import NAMESPACE, Json, customize, model_deployment, served

ELSEWHERE = {"name": "x", "namespace": "team-b"}


def rules(**spec: Any) -> dict[tuple[str, str], tuple[str, ...]]:
    """Return the names in the rules of customize, by API version and resource."""
    response = customize(model_deployment(**spec))
    assert all(rule.namespace == NAMESPACE and rule.names for rule in response.related_resources)
    return {(rule.api_version, rule.resource): rule.names for rule in response.related_resources}


@pytest.mark.parametrize(
    ("kind", "resource"),
    [
        ("Deployment", "deployments"),
        ("StatefulSet", "statefulsets"),
        ("DaemonSet", "daemonsets"),
        ("ReplicaSet", "replicasets"),
    ],
)
def test_the_workload_is_related(kind: str, resource: str) -> None:
    """The kind of a related workload is from a fixed table, and its API version is never the user's."""
    source = {"apiVersion": "evil.example.com/v1", "kind": kind, "name": "demo"}
    assert rules(modelSourceRef=source) == {("apps/v1", resource): ("demo",)}


def test_services_and_local_policies_are_related() -> None:
    """Services and local policies are related, each name once and in order; remote policies are not."""
    assert rules(
        modelSourceRef=None,
        serviceRef={"name": "b"},
        metricServiceRef={"name": "a"},
        policies=[{"name": "p", "refType": "localPolicy"}, {"name": "q"}, {"name": "r", "refType": "remotePolicy"}],
    ) == {("v1", "services"): ("a", "b"), ("authorization.beamlit.com/v1alpha1", "policies"): ("p",)}


@pytest.mark.parametrize(
    "spec",
    [
        {"modelSourceRef": {"kind": "Deployment"} | ELSEWHERE, "serviceRef": ELSEWHERE},
        {"modelSourceRef": {"kind": "Secret", "name": "x"}},
        {"modelSourceRef": {"kind": "Deployment"}, "serviceRef": {}},
        {"modelSourceRef": "x", "serviceRef": None, "policies": [None, "x"]},
    ],
)
def test_references_that_give_no_rule(spec: Json) -> None:
    """A reference to another namespace or kind, or without a name, gives no rule."""
    assert rules(**spec) == {}


def test_customize_depends_on_the_specification_alone() -> None:
    """Customize depends on the specification alone, for Metacontroller keeps its response for a generation."""
    parent = model_deployment(serviceRef={"name": "s"})
    plain = customize(parent)
    parent["status"] = {"workspace": "w"}
    parent["metadata"] |= {"labels": {"a": "b"}, "deletionTimestamp": "2026-03-01T12:00:00Z"}
    assert customize(parent) == plain


def test_no_references_no_rules() -> None:
    """A ModelDeployment with spec.server and no references has no related objects."""
    assert customize(served()).as_json() == {"relatedResources": []}
