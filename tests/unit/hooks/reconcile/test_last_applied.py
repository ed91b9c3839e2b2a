"""Children as they were applied last."""

import json
from typing import Any

import orjson
import pytest

from hooks import names
from hooks.errors import DamagedAnnotation
from hooks.kube.objects import key_of
from hooks.reconcile.last_applied import last_applied
from tests import builders
from tests.builders import Cluster, model_deployment, observed, served, service, sync, workload


def last(child: builders.Json) -> builders.Json:
    """Return the child as it was applied last."""
    key = key_of(child)
    assert key is not None
    return last_applied(key, child)


@pytest.mark.parametrize("server_side", [False, True])
def test_an_observed_child_leads_back_to_the_desired_one(server_side: bool) -> None:
    """Under both ways to apply, an observed child leads back to the desired one."""
    for parent in (served(gateway={"serviceName": "gw"}), model_deployment()):
        for child in sync(parent, related=[workload(), service()]).children:
            assert last(observed(child, server_side=server_side)) == child


def annotated(text: Any) -> builders.Json:
    """Return an observed child with this last-applied annotation."""
    child = observed(sync(served()).children[0])
    child["metadata"]["annotations"][names.LAST_APPLIED] = text
    return child


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "{}",
        1,
        json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other", "namespace": "team-a"}}),
        json.dumps({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo-route", "namespace": "team-a"}}),
    ],
)
def test_a_damaged_annotation_is_an_error(text: Any) -> None:
    """An annotation that cannot be read, or is about another object, is an error."""
    with pytest.raises(DamagedAnnotation):
        last(annotated(text))


@pytest.mark.parametrize(
    "managed",
    [
        [],
        [{"manager": "metacontroller", "operation": "Update", "fieldsV1": {"f:data": {}}}],
        [{"manager": "kubectl", "operation": "Apply", "fieldsV1": {"f:data": {}}}],
        None,
    ],
)
def test_a_child_that_metacontroller_did_not_apply(managed: Any) -> None:
    """A child without annotation and without fields that Metacontroller applied is an error."""
    child = observed(sync(served()).children[0], server_side=True)
    child["metadata"]["managedFields"] = managed
    with pytest.raises(DamagedAnnotation):
        last(child)


def test_server_side_sets_and_foreign_fields() -> None:
    """Under server-side apply, fields and list items that others own or that are gone are left out."""
    fields: builders.Json = {
        "f:metadata": {
            "f:labels": {f"f:{names.CONTROLLER_UID_LABEL}": {}, "f:a": {}},
            "f:finalizers": {'v:"mine"': {}},
        },
        "f:spec": {"f:gone": {}, "f:text": {"f:odd": {}}, "f:items": {'k:{"name":"one"}': {}, 'k:{"name":"x"}': {}}},
        ".": {},
    }
    child = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {
            "name": "c",
            "namespace": "n",
            "labels": {"a": "1", "b": "2", names.CONTROLLER_UID_LABEL: "u"},
            "finalizers": ["mine", "theirs"],
            "managedFields": [{"operation": "Apply", "fieldsV1": fields}],
        },
        "spec": {"text": "t", "items": [{"name": "one", "size": 1}, {"name": "two"}, "three"], "other": 1},
    }
    assert last(child) == {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "c", "namespace": "n", "labels": {"a": "1"}, "finalizers": ["mine"]},
        "spec": {"text": "t", "items": [{"name": "one"}]},
    }


def test_replicas_of_an_autoscaler_are_not_applied() -> None:
    """Fields that others set on a child are not among those applied last."""
    cluster = Cluster(served(server={"port": 8000, "template": builders.TEMPLATE}))
    cluster.settle()
    for child in cluster.children:
        if child["kind"] == "Deployment":
            child["spec"]["replicas"] = 7
            child["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    response = cluster.edit(serviceRef={"name": "x", "namespace": "other"})
    deployment = builders.child(response, "Deployment")
    assert "replicas" not in deployment["spec"]
    assert b"restartedAt" not in orjson.dumps(deployment)
