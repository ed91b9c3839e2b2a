"""Children as they were decided last."""

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
    """The child as it was decided last."""
    key = key_of(child)
    assert key is not None
    return last_applied(key, child)


@pytest.mark.parametrize("server_side", [False, True])
def test_what_is_kept_is_what_was_answered(server_side: bool) -> None:
    """Under both ways to apply, the observed child leads back to the desired one."""
    for parent in (served(gateway={"serviceName": "gw"}), model_deployment()):
        for child in sync(parent, related=[workload(), service()]).children:
            assert last(observed(child, server_side=server_side)) == child


def annotated(text: Any) -> builders.Json:
    """A child with this annotation."""
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
    """What cannot be read, or is about another object, is never taken for what was decided."""
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
def test_a_child_that_nobody_applied(managed: Any) -> None:
    """Without annotation and without fields applied by Metacontroller nothing is known."""
    child = observed(sync(served()).children[0], server_side=True)
    child["metadata"]["managedFields"] = managed
    with pytest.raises(DamagedAnnotation):
        last(child)


def test_server_side_sets_and_foreign_fields() -> None:
    """Lists of values are reduced to the owned values, and what others own or what is gone is left out."""
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


def test_replicas_of_an_autoscaler_are_not_kept() -> None:
    """What somebody else set on a child never becomes ours."""
    cluster = Cluster(served(server={"port": 8000, "template": builders.TEMPLATE}))
    cluster.settle()
    for child in cluster.children:
        if child["kind"] == "Deployment":
            child["spec"]["replicas"] = 7
            child["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = "now"
    answer = cluster.edit(serviceRef={"name": "x", "namespace": "other"})
    deployment = builders.child(answer, "Deployment")
    assert "replicas" not in deployment["spec"]
    assert b"restartedAt" not in orjson.dumps(deployment)
