"""The controller of a ModelDeployment as a whole: a test for each situation that a sync or finalize may meet."""

import json
from datetime import timedelta
from typing import Any

import orjson
import pytest

from hooks import reasons
from hooks.observation.observation import Observation
from hooks.platform import registration
from hooks.platform.outcomes import Registered, Removed
from hooks.platform.registration import PlatformTask
from hooks.platform.state import PlatformKey
from hooks.protocol import FinalizeResponse, SyncRequest
from hooks.reconcile import model_deployment as reconcile
from tests import builders
from tests.builders import (
    DEFAULTS,
    NOW,
    Cluster,
    body_of,
    child,
    condition,
    conditions,
    model_deployment,
    observed,
    route,
    served,
    service,
    sync,
    weights,
    workload,
)

Json = builders.Json


def finalize(parent: Json, **rest: Any) -> FinalizeResponse:
    """Return the response to a finalize."""
    decision = reconcile.decide_finalize(builders.observation(parent, finalizing=True, **rest), now=NOW)
    return decision.response(decision.registration)


# The first sync, and requests with something missing.


def test_first_sync_without_any_status() -> None:
    """A parent that was never synced gets a whole response."""
    response = sync(model_deployment(), related=[workload()])
    assert [item["kind"] for item in response.children] == ["ConfigMap", "Service"]
    assert conditions(response)["Ready"] == ("False", reasons.NOT_SYNCED)


@pytest.mark.parametrize("status", [{}, None, [], {"observedGeneration": 1}, {"conditions": None, "offloading": None}])
def test_a_status_without_content_counts_as_none(status: Any) -> None:
    """An empty, null or malformed status counts as no status."""
    bare = sync(model_deployment(), related=[workload()])
    assert body_of(sync(model_deployment() | {"status": status}, related=[workload()])) == body_of(bare)


def test_labels_and_annotations_may_be_null() -> None:
    """Null labels, annotations and finalizers of the parent count as absent."""
    parent = model_deployment()
    parent["metadata"] |= {"labels": None, "annotations": None, "finalizers": None}
    assert body_of(sync(parent, related=[workload()])) == body_of(sync(model_deployment(), related=[workload()]))


def test_both_hook_versions_give_the_same_response() -> None:
    """Both hook versions, whose keys differ, give the same response."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    bodies = {
        body_of(sync(cluster.parent, children=cluster.children, related=cluster.related, version=version))
        for version in ("v1", "v2")
    }
    assert len(bodies) == 1


def test_foreign_groups_are_ignored() -> None:
    """Observed objects of other kinds change nothing."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo", "namespace": builders.NAMESPACE}}
    plain = sync(model_deployment(), related=[workload()])
    assert body_of(sync(model_deployment(), related=[workload(), secret], children=[secret])) == body_of(plain)


# References that lead nowhere.


def test_a_workload_that_does_not_exist_yet() -> None:
    """Without its workload a model has no local Service and is served by the remote backend."""
    response = sync(model_deployment())
    assert [item["kind"] for item in response.children] == ["ConfigMap"]
    assert conditions(response)["RefsResolved"] == ("False", reasons.WORKLOAD_MISSING)
    assert (weights(response), route(response)["split"]["reason"]) == ({"remote": 100}, reasons.WORKLOAD_MISSING)


def test_a_workload_that_is_gone_leaves_the_service_in_place() -> None:
    """The local Service stays when the workload disappears from the related objects."""
    cluster = Cluster(model_deployment(), related=[workload()])
    before = cluster.settle()
    cluster.related = []
    response = cluster.sync()
    assert child(response, "Service") == child(before, "Service")
    assert weights(response) == {"local": 0, "remote": 100}
    assert conditions(response)["LocalReady"] == ("False", reasons.WORKLOAD_MISSING)
    cluster.related = [workload()]
    assert weights(cluster.sync()) == {"local": 100, "remote": 0}


def test_an_object_of_the_same_name_elsewhere_is_not_taken() -> None:
    """A reference is resolved in the namespace of the parent alone."""
    foreign = workload()
    foreign["metadata"]["namespace"] = "team-b"
    assert conditions(sync(model_deployment(), related=[foreign], version="v2"))["RefsResolved"][0] == "False"


# Deletion.


def test_a_parent_that_is_deleted_without_finalizer() -> None:
    """A sync of a parent that is being deleted has the same children as before, which Metacontroller ignores."""
    cluster = Cluster(model_deployment(), related=[workload()])
    before = cluster.settle()
    cluster.parent["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    response = cluster.sync()
    assert response.children == before.children
    assert conditions(response)["Ready"] == ("False", reasons.TERMINATING)


@pytest.mark.parametrize("deleting", [False, True])
def test_finalize(deleting: bool) -> None:
    """With an account the parent may go when its children are gone; finalize gives the same response each time."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    if deleting:
        cluster.parent["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    observed = builders.observation(cluster.parent, finalizing=True, children=cluster.children)
    decision = reconcile.decide_finalize(observed, now=NOW, account="us")
    waiting = decision.response(decision.registration)
    assert (waiting.children, waiting.finalized, waiting.resync_after_seconds) == ((), False, 30)
    assert decision.registration.task is None
    assert {entry["type"]: entry["status"] for entry in waiting.status["conditions"]}["Ready"] == "False"
    done = finalize(cluster.parent)
    assert (done.children, done.finalized, done.resync_after_seconds) == ((), True, None)
    assert finalize(cluster.parent).as_json() == done.as_json()


def test_finalize_without_account() -> None:
    """Without an account the parent may go at once, for Kubernetes collects its children."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    done = finalize(cluster.parent, children=cluster.children)
    assert (done.children, done.finalized, done.resync_after_seconds) == ((), True, None)


def test_finalize_when_registered() -> None:
    """Once the children are gone, the registered model is removed, and then the parent may go."""
    state = {"name": "llama", "environment": "production", "hash": "0"}
    parent = model_deployment(status={"platform": state})
    decision = reconcile.decide_finalize(builders.observation(parent, finalizing=True), now=NOW, account="us")
    task = decision.registration.task
    assert task is not None
    assert task.removal == PlatformKey("models", "llama", "production")
    before, after = (
        decision.response(decision.registration),
        decision.response(registration.after(task, Removed(), now=NOW)),
    )
    assert (before.finalized, before.status["platform"]) == (False, state)
    assert (after.finalized, "platform" in after.status) == (True, False)


def test_finalize_without_status() -> None:
    """A parent that was never synced may go at once."""
    done = finalize(model_deployment())
    assert (done.finalized, [entry["type"] for entry in done.status["conditions"]]) == (True, ["Ready"])


# The platform.


def tasks(cluster: Cluster) -> tuple[float | None, PlatformTask | None]:
    """Return the seconds until the next sync, and the task on the platform, that a sync decides now."""
    seen = builders.observation(cluster.parent, children=cluster.children, related=cluster.related)
    decision = reconcile.decide_sync(seen, now=cluster.now, account="us")
    return decision.response(decision.registration).resync_after_seconds, decision.registration.task


def test_a_model_is_registered_once_its_children_are_there() -> None:
    """A model is registered once its children are observed; without an account there is no task."""
    cluster = Cluster(model_deployment(), related=[workload()])
    assert tasks(cluster) == (1, None)
    cluster.settle()
    _, task = tasks(cluster)
    assert task is not None
    assert task.desired is not None
    assert task.desired.key == PlatformKey("models", "llama", "production")
    cluster.set_ready(0)
    cluster.sync()
    seen = builders.observation(cluster.parent, children=cluster.children, related=cluster.related)
    assert reconcile.decide_sync(seen, now=NOW).registration.task is None


def test_status_has_the_registration_after_its_task() -> None:
    """The status has the condition, the fields and the state of the registration as it is after its task."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    seen = builders.observation(cluster.parent, children=cluster.children, related=cluster.related)
    decision = reconcile.decide_sync(seen, now=cluster.now, account="us")
    task = decision.registration.task
    assert task is not None
    settled = registration.after(task, Registered({"workspace": "acme"}), now=cluster.now)
    before, after = decision.response(decision.registration), decision.response(settled)
    assert list(conditions(after)) == list(conditions(before))
    assert conditions(after) | {"Registered": ("", "")} == conditions(before) | {"Registered": ("", "")}
    assert conditions(after)["Registered"] == ("True", reasons.UP_TO_DATE)
    assert (before.resync_after_seconds, after.resync_after_seconds) == (None, registration.SOON)
    assert after.status["workspace"] == "acme"
    assert after.status["platform"]["name"] == "llama"
    assert (before.children, "platform" in before.status) == (after.children, False)


def test_a_missing_child_does_not_prevent_the_registration() -> None:
    """A model is registered although a child is missing for longer than its deadline."""
    cluster = Cluster(model_deployment(), related=[workload()], taken=[("Service", "demo-local")])
    cluster.settle()
    for seconds, registers in ((9, False), (1, True)):
        cluster.now += timedelta(seconds=seconds)
        assert (tasks(cluster)[1] is not None) is registers


def test_a_parent_that_is_deleted_without_finalizer_is_not_registered() -> None:
    """A parent that is being deleted without a finalizer has no task, for nothing would wait for it."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    cluster.parent["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert tasks(cluster)[1] is None


# Children that differ from the desired ones.


def test_fields_that_others_set_on_children() -> None:
    """Fields, labels and replicas that others set on children change no response."""
    cluster = Cluster(served(server={"port": 8000, "template": builders.TEMPLATE}))
    cluster.settle()
    before = cluster.set_ready(1)
    for item in cluster.children:
        item["metadata"]["labels"]["theirs"] = "x"
        item["metadata"]["annotations"]["theirs"] = "x"
        if item["kind"] == "Deployment":
            item["spec"]["replicas"] = 5
            item["spec"]["template"]["spec"]["serviceAccountName"] = "theirs"
    assert cluster.sync().children == before.children


def test_a_parent_that_is_created_again() -> None:
    """A parent that is created again under the same name has no state but that in its own status."""
    cluster = Cluster(model_deployment(), related=[workload(ready=0)])
    cluster.settle()
    reborn = model_deployment()
    reborn["metadata"]["uid"] = "another"
    response = sync(reborn, related=[workload()], now=NOW.replace(hour=13))
    assert condition(response, "LocalReady")["lastTransitionTime"] == "2026-03-01T13:00:00Z"


def test_responses_are_json_for_go() -> None:
    """A response has no NaN, null or empty list, and each label and annotation in it is a string."""
    response = sync(served(gateway={"serviceName": "gw"}))
    text = json.dumps(response.as_json(), allow_nan=False)
    assert "null" not in text
    assert "[]" not in text
    for item in response.children:
        for field in ("labels", "annotations"):
            assert all(isinstance(value, str) for value in item["metadata"].get(field, {}).values())


def test_a_long_name() -> None:
    """The children of a ModelDeployment with the longest possible name have legal names."""
    response = sync(served() | {"metadata": served()["metadata"] | {"name": "a" * 63 + "." + "b" * 189}})
    assert conditions(response)["Accepted"] == ("True", reasons.ACCEPTED)
    assert all(len(item["metadata"]["name"]) <= 63 for item in response.children)


def test_the_request_is_never_changed() -> None:
    """A sync does not change the objects in its request."""
    parent = served(gateway={"serviceName": "gw"})
    children = [observed(item) for item in sync(parent).children]
    body = builders.request_body(parent, children=children, related=[workload(), service()])
    before = orjson.dumps(body)
    request = Observation.of(SyncRequest.from_json(body), DEFAULTS)
    reconcile.sync(request, now=NOW)
    assert orjson.dumps(body) == before
