"""Status of a ModelDeployment: it is whole, and changes only when something changed."""

import re
from datetime import timedelta

import pytest

from hooks import reasons
from hooks.api.model_deployment import ModelDeploymentStatus
from hooks.observation.observation import DefaultRemote, InstallDefaults
from tests import builders
from tests.builders import (
    NOW,
    Cluster,
    behavior,
    condition,
    conditions,
    model_deployment,
    override,
    service,
    sync,
    workload,
)
from tests.structural import crd_schema, problems, pruned

TYPES = [
    "Accepted",
    "RefsResolved",
    "LocalReady",
    "MetricsAvailable",
    "Offloading",
    "OffloadReady",
    "PolicySatisfied",
    "Registered",
    "Synced",
    "Ready",
]
METRIC = {"type": "Resource", "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}}}


def test_every_condition_is_always_there() -> None:
    """A status always has the ten conditions in the same order, accepted or not."""
    for parent in (model_deployment(), model_deployment(model=None)):
        assert list(conditions(sync(parent, related=[workload()]))) == TYPES


def test_a_healthy_model() -> None:
    """A healthy model has the expected conditions once its children are observed."""
    response = Cluster(model_deployment(), related=[workload()]).settle()
    assert conditions(response) == {
        "Accepted": ("True", reasons.ACCEPTED),
        "RefsResolved": ("True", reasons.REFERENCES_RESOLVED),
        "LocalReady": ("True", reasons.REPLICAS_READY),
        "MetricsAvailable": ("True", reasons.NO_METRICS),
        "Offloading": ("False", reasons.LOCAL),
        "OffloadReady": ("Unknown", reasons.NOT_EVALUATED),
        "PolicySatisfied": ("True", reasons.NO_POLICIES),
        "Registered": ("False", reasons.DISABLED),
        "Synced": ("True", reasons.IN_SYNC),
        "Ready": ("True", reasons.SERVING),
    }


@pytest.mark.parametrize(
    ("spec", "type_", "expected"),
    [
        (
            {"offloadingConfig": {"remoteBackend": builders.REMOTE, "metrics": [METRIC]}},
            "MetricsAvailable",
            ("Unknown", reasons.NOT_EVALUATED),
        ),
        ({"policies": [{"name": "eu"}]}, "PolicySatisfied", ("False", reasons.REMOTE_POLICY)),
        ({"policies": builders.obeys("eu")}, "RefsResolved", ("False", reasons.POLICY_MISSING)),
        ({"policies": builders.obeys("eu"), "enabled": False}, "RefsResolved", ("True", reasons.REFERENCES_RESOLVED)),
        ({"offloadingConfig": override(30)}, "Offloading", ("True", reasons.OVERRIDE)),
    ],
)
def test_single_conditions(spec: builders.Json, type_: str, expected: tuple[str, str]) -> None:
    """A single condition has the status and reason that its specification gives."""
    assert conditions(sync(model_deployment(**spec), related=[workload()]))[type_] == expected


def test_no_backend_serves() -> None:
    """A model with no ready replica and nothing offloaded is not ready."""
    cluster = Cluster(model_deployment(offloadingConfig=None), related=[workload(ready=0)])
    assert conditions(cluster.settle())["Ready"] == ("False", reasons.NO_BACKEND)


def test_the_remote_serves() -> None:
    """A model with no ready replica is ready while its requests go to the remote backend."""
    cluster = Cluster(model_deployment(), related=[workload(ready=0)])
    assert conditions(cluster.settle())["Ready"] == ("True", reasons.SERVING)


@pytest.mark.parametrize(("ready", "expected"), [(1, ("True", reasons.SERVING)), (0, ("False", reasons.NO_BACKEND))])
def test_with_nowhere_to_offload_the_replicas_decide(ready: int, expected: tuple[str, str]) -> None:
    """A model whose remote backend is not known is ready as long as local replicas serve it."""
    cluster = Cluster(
        model_deployment(offloadingConfig={}),
        related=[workload(ready=ready)],
        defaults=InstallDefaults(default_remote=DefaultRemote("run.example.com", "https", "/$workspace/$model", "")),
    )
    response = cluster.settle()
    assert conditions(response)["RefsResolved"] == ("False", reasons.WORKSPACE_UNKNOWN)
    assert conditions(response)["Ready"] == expected
    assert "defaultRemoteBackend.workspace" in condition(response, "Ready" if ready else "RefsResolved")["message"]


def test_another_missing_reference_is_not_outweighed() -> None:
    """A missing reference makes the model not ready even when the remote backend is missing too."""
    parent = model_deployment(offloadingConfig={}, serviceRef={"name": "none", "targetPort": 80})
    cluster = Cluster(parent, related=[workload()], defaults=InstallDefaults())
    response = cluster.settle()
    assert conditions(response)["Ready"] == ("False", reasons.REFERENCES_UNRESOLVED)


@pytest.mark.parametrize(
    ("enabled", "expected"),
    [(True, ("False", reasons.NO_REMOTE_BACKEND)), (False, ("True", reasons.REFERENCES_RESOLVED))],
)
def test_what_a_disabled_model_would_need_is_not_missed(enabled: bool, expected: tuple[str, str]) -> None:
    """A remote backend that a disabled model would need is not missed."""
    parent = model_deployment(enabled=enabled, offloadingConfig={})
    response = sync(parent, related=[workload()], defaults=InstallDefaults())
    assert conditions(response)["RefsResolved"] == expected


def test_every_missing_reference_is_in_the_message() -> None:
    """RefsResolved has one reason, and a sentence for each missing reference."""
    parent = model_deployment(offloadingConfig={}, serviceRef={"name": "a"}, gateway={"serviceName": "gw"})
    response = sync(parent, related=[workload()], defaults=InstallDefaults())
    message = condition(response, "RefsResolved")["message"]
    assert [word in message for word in ("Service a", "defaultRemoteBackend", "proxyService")] == [True] * 3
    assert message.count("Service a does not exist") == 1


def test_a_transition_has_its_time_and_keeps_it() -> None:
    """lastTransitionTime is the time of the last change of status in whole seconds; reasons do not change it."""
    cluster = Cluster(model_deployment(), related=[workload()], now=NOW + timedelta(milliseconds=900))
    cluster.settle()
    assert condition(cluster.after(60), "LocalReady")["lastTransitionTime"] == "2026-03-01T12:00:00Z"
    assert condition(cluster.set_ready(0), "LocalReady")["lastTransitionTime"] == "2026-03-01T12:01:00Z"
    cluster.now += timedelta(seconds=60)
    cluster.related = []
    changed = condition(cluster.sync(), "LocalReady")
    assert (changed["lastTransitionTime"], changed["reason"]) == ("2026-03-01T12:01:00Z", reasons.WORKLOAD_MISSING)


def test_offloading_state_has_the_time_of_its_last_change() -> None:
    """`offloading.since` changes when the percentage does, and at no other time."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    assert cluster.after(60).status["offloading"]["since"] == "2026-03-01T12:00:00Z"
    assert cluster.set_ready(0).status["offloading"] == {
        "percentage": 100,
        "reason": reasons.NO_READY_REPLICA,
        "message": "No local replica is ready.",
        "since": "2026-03-01T12:01:00Z",
    }
    cluster.now += timedelta(seconds=5)
    cluster.related = []
    gone = cluster.sync().status["offloading"]
    assert (gone["reason"], gone["since"]) == (reasons.WORKLOAD_MISSING, "2026-03-01T12:01:00Z")
    cluster.related = [workload()]
    assert cluster.sync().status["offloading"]["since"] == "2026-03-01T12:01:05Z"


@pytest.mark.parametrize("since", ["2027-01-01T00:00:00Z", "soon", 1, None])
def test_times_that_cannot_be_are_mended_once(since: object) -> None:
    """A time in the future or no time at all becomes the present, and then stays."""
    held = [{"type": type_, "status": "True", "lastTransitionTime": since} for type_ in TYPES]
    status = {"conditions": held, "offloading": {"percentage": 0, "reason": "Local", "since": since}}
    cluster = Cluster(model_deployment(status=status), related=[workload()])
    first = cluster.settle()
    assert condition(first, "Accepted")["lastTransitionTime"] == "2026-03-01T12:00:00Z"
    assert first.status["offloading"]["since"] == "2026-03-01T12:00:00Z"
    assert cluster.after(60).status == first.status


def test_fields_of_the_platform_are_carried_over() -> None:
    """A status repeats the fields that the platform chose, and drops unknown fields of the present status."""
    carried = {
        "workspace": "w",
        "createdAtOnBeamlit": "2026-01-01T00:00:00Z",
        "updatedAtOnBeamlit": "2026-01-02T00:00:00Z",
    }
    status = sync(model_deployment(status=carried | {"leftover": 1, "servingPort": 8000})).status
    assert {name: status.get(name) for name in (*carried, "leftover")} == carried | {"leftover": None}
    assert status["servingPort"] == 8000


def test_generation() -> None:
    """Status and conditions have the observed generation, where there is one."""
    response = sync(model_deployment(generation=7))
    assert (response.status["observedGeneration"], condition(response, "Ready")["observedGeneration"]) == (7, 7)
    assert "observedGeneration" not in sync(model_deployment(generation=0)).status


def test_the_schema_has_a_place_for_everything() -> None:
    """The CustomResourceDefinition neither prunes nor refuses anything in a status."""
    oauth = {"clientId": "i", "clientSecret": "s", "tokenUrl": "https://t"}
    remote = builders.backend(authConfig={"type": "oauth", "oauthConfig": oauth})
    cluster = Cluster(
        model_deployment(offloadingConfig=remote, metricServiceRef={"name": "demo-svc", "targetPort": 80}),
        related=[workload(), service()],
        taken=[("ConfigMap", "demo-route")],
    )
    cluster.sync()
    status = cluster.after(60).status
    assert {"InlineSecret", "ChildConflict"} <= {entry["type"] for entry in status["conditions"]}
    assert (
        ModelDeploymentStatus.model_validate(status).model_dump(mode="json", by_alias=True, exclude_unset=True)
        == status
    )
    schema = crd_schema("modeldeployments")["properties"]["status"]
    assert pruned(schema, status) == status
    assert problems(schema, status) == []


def test_messages_have_no_numbers_that_move() -> None:
    """No message of a condition has a number of replicas, seconds or percents."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(notReadyForSeconds=60)), related=[workload(ready=3)])
    for ready in (3, 2, 0):
        for entry in cluster.set_ready(ready).status["conditions"]:
            assert not re.search(r"\d", entry["message"]), entry
