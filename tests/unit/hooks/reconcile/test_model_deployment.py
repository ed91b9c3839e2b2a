"""The controller as a whole: one test per situation in which a hook server may find itself."""

import copy
import json
from datetime import timedelta
from typing import Any

import orjson
import pytest

from hooks import reasons
from hooks.errors import DamagedAnnotation, ForbiddenChild
from hooks.observation.observation import InstallDefaults, Observation
from hooks.platform import registration
from hooks.platform.outcomes import Registered, Removed
from hooks.platform.registration import PlatformTask
from hooks.platform.state import PlatformKey
from hooks.protocol import FinalizeResponse, SyncRequest, SyncResponse
from hooks.reconcile import model_deployment as reconcile
from hooks.reconcile.last_gate import check_children
from tests import builders
from tests.builders import (
    DEFAULTS,
    NOW,
    Cluster,
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
    service,
    sync,
    weights,
    workload,
)

Json = builders.Json
ELSEWHERE = {"name": "x", "namespace": "team-b"}


def finalize(parent: Json, **rest: Any) -> FinalizeResponse:
    """The answer to finalize."""
    decision = reconcile.decide_finalize(builders.observation(parent, finalizing=True, **rest), now=NOW)
    return decision.response(decision.registration)


# The first sync, and requests that lack something.


def test_first_sync_without_any_status() -> None:
    """A parent that was never synced gets a whole answer."""
    answer = sync(model_deployment(), related=[workload()])
    assert [item["kind"] for item in answer.children] == ["ConfigMap", "Service"]
    assert conditions(answer)["Ready"] == ("False", reasons.NOT_SYNCED)


@pytest.mark.parametrize("status", [{}, None, [], {"observedGeneration": 1}, {"conditions": None, "offloading": None}])
def test_a_status_without_content_is_as_none(status: Any) -> None:
    """An empty, null or odd status means the same as no status."""
    bare = sync(model_deployment(), related=[workload()])
    assert body_of(sync(model_deployment() | {"status": status}, related=[workload()])) == body_of(bare)


def test_labels_and_annotations_may_be_null() -> None:
    """Null metadata of the parent changes nothing."""
    parent = model_deployment()
    parent["metadata"] |= {"labels": None, "annotations": None, "finalizers": None}
    assert body_of(sync(parent, related=[workload()])) == body_of(sync(model_deployment(), related=[workload()]))


def test_both_hook_versions_give_the_same_answer() -> None:
    """Keys by name and by namespace and name mean the same."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    bodies = {
        body_of(sync(cluster.parent, children=cluster.children, related=cluster.related, version=version))
        for version in ("v1", "v2")
    }
    assert len(bodies) == 1


def test_foreign_groups_are_ignored() -> None:
    """Kinds that nobody asked for change nothing."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "demo", "namespace": builders.NAMESPACE}}
    plain = sync(model_deployment(), related=[workload()])
    assert body_of(sync(model_deployment(), related=[workload(), secret], children=[secret])) == body_of(plain)


# References that lead nowhere.


def test_a_workload_that_does_not_exist_yet() -> None:
    """No local Service, a condition that says what is missing, and the remote serves."""
    answer = sync(model_deployment())
    assert [item["kind"] for item in answer.children] == ["ConfigMap"]
    assert conditions(answer)["RefsResolved"] == ("False", reasons.WORKLOAD_MISSING)
    assert (weights(answer), route(answer)["split"]["reason"]) == ({"remote": 100}, reasons.WORKLOAD_MISSING)


def test_a_workload_that_is_gone_leaves_the_service_in_place() -> None:
    """A gap in what is related never deletes a child that serves."""
    cluster = Cluster(model_deployment(), related=[workload()])
    before = cluster.settle()
    cluster.related = []
    answer = cluster.sync()
    assert child(answer, "Service") == child(before, "Service")
    assert weights(answer) == {"local": 0, "remote": 100}
    assert conditions(answer)["LocalReady"] == ("False", reasons.WORKLOAD_MISSING)
    cluster.related = [workload()]
    assert weights(cluster.sync()) == {"local": 100, "remote": 0}


def test_an_object_of_the_same_name_elsewhere_is_not_taken() -> None:
    """References are resolved in the parent's namespace only."""
    foreign = workload()
    foreign["metadata"]["namespace"] = "team-b"
    assert conditions(sync(model_deployment(), related=[foreign], version="v2"))["RefsResolved"][0] == "False"


# A specification that is not accepted.


def invalid(cluster: Cluster) -> SyncResponse:
    """Edit in a reference to another namespace."""
    return cluster.edit(serviceRef=ELSEWHERE)


@pytest.mark.parametrize("server_side", [False, True])
def test_a_mistake_changes_nothing_that_was_decided(server_side: bool) -> None:
    """Existing children come back exactly as they were, and the condition says what to change."""
    for parent in (model_deployment(gateway={"serviceName": "gw"}), served()):
        cluster = Cluster(parent, related=[workload()], server_side=server_side)
        cluster.settle()
        before = cluster.set_ready(1)
        answer = invalid(cluster)
        assert by_name(answer) == by_name(before)
        assert conditions(answer)["Accepted"] == ("False", reasons.CROSS_NAMESPACE_REFERENCE)
        assert conditions(answer)["Ready"] == ("False", reasons.NOT_ACCEPTED)
        assert condition(answer, "Ready")["message"] == condition(answer, "Accepted")["message"]
        assert body_of(cluster.sync()) == body_of(answer)


def by_name(answer: SyncResponse) -> dict[tuple[str, str], Json]:
    """The children by kind and name."""
    return {(item["kind"], item["metadata"]["name"]): item for item in answer.children}


@pytest.mark.parametrize("parent", [model_deployment(), served()])
def test_readiness_sets_the_weights_of_a_kept_route(parent: Json) -> None:
    """While a mistake stands, an outage still sends requests to the remote, and its end brings them back."""
    cluster = Cluster(parent, related=[workload()])
    cluster.settle()
    cluster.set_ready(1)
    assert weights(invalid(cluster)) == {"local": 100, "remote": 0}
    answer = cluster.set_ready(0)
    assert (weights(answer), route(answer)["split"]["reason"]) == (
        {"local": 0, "remote": 100},
        reasons.NO_READY_REPLICA,
    )
    assert answer.status["offloading"]["percentage"] == 100
    assert conditions(answer)["Offloading"] == ("True", reasons.NO_READY_REPLICA)
    assert body_of(cluster.sync()) != b""
    assert weights(cluster.sync()) == {"local": 0, "remote": 100}
    assert weights(cluster.set_ready(1)) == {"local": 100, "remote": 0}


def test_a_kept_route_keeps_its_override() -> None:
    """An override decided before a mistake holds on, yields to an outage, and ends when it must."""
    cluster = Cluster(model_deployment(offloadingConfig=override(30)), related=[workload()])
    cluster.settle()
    answer = invalid(cluster)
    assert (weights(answer), answer.resync_after_seconds) == ({"local": 70, "remote": 30}, 3600)
    assert weights(cluster.after(3600)) == {"local": 100, "remote": 0}


@pytest.mark.parametrize(
    ("percentage", "expected"), [(0, {"local": 100}), (30, {"local": 70, "remote": 30}), (100, {"remote": 100})]
)
def test_a_kept_route_keeps_what_was_forced(percentage: int, expected: dict[str, int]) -> None:
    """Mode Force holds whatever the replicas do, also while a mistake stands."""
    cluster = Cluster(model_deployment(offloadingConfig=override(percentage, "Force")), related=[workload()])
    cluster.settle()
    assert weights(invalid(cluster)) == expected
    assert weights(cluster.set_ready(0)) == expected


def test_a_kept_route_honors_the_delay() -> None:
    """notReadyForSeconds counts while a mistake stands."""
    cluster = Cluster(model_deployment(offloadingConfig=behavior(notReadyForSeconds=60)), related=[workload()])
    cluster.settle()
    invalid(cluster)
    answer = cluster.set_ready(0)
    assert (weights(answer), answer.resync_after_seconds) == ({"local": 100, "remote": 0}, 60)
    assert weights(cluster.after(60)) == {"local": 0, "remote": 100}


def test_another_workload_says_nothing_about_the_one_that_serves() -> None:
    """A mistake that also names another workload leaves the weights, for it is not known how the old one is."""
    cluster = Cluster(model_deployment(), related=[workload(), workload(name="other", ready=0)])
    cluster.settle()
    cluster.edit(serviceRef=ELSEWHERE, modelSourceRef={"kind": "Deployment", "name": "other"})
    cluster.related = [workload(name="other", ready=0)]
    answer = cluster.sync()
    assert weights(answer) == {"local": 100, "remote": 0}
    assert conditions(answer)["LocalReady"] == ("Unknown", reasons.NOT_EVALUATED)


def test_the_same_workload_gone_is_an_outage() -> None:
    """A workload that is still named and does not exist has no ready replica, mistake or not."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    invalid(cluster)
    cluster.related = []
    assert weights(cluster.sync()) == {"local": 0, "remote": 100}


def test_our_own_deployment_gone_is_an_outage() -> None:
    """The same for the Deployment of spec.server."""
    cluster = Cluster(served())
    cluster.settle()
    cluster.set_ready(1)
    invalid(cluster)
    cluster.children = [item for item in cluster.children if item["kind"] != "Deployment"]
    assert weights(cluster.sync()) == {"local": 0, "remote": 100}


@pytest.mark.parametrize("document", ["{", '{"requires": ["more"]}', None])
def test_a_kept_route_that_cannot_be_read_stays(document: str | None) -> None:
    """A route written by another version is returned as it is."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    for index, item in enumerate(cluster.children):
        if item["kind"] == "ConfigMap":
            desired = copy.deepcopy(cluster.sync().children[0]) | {"data": {"route.json": document} if document else {}}
            cluster.children[index] = observed(desired)
    answer = invalid(cluster)
    assert child(answer, "ConfigMap").get("data", {}).get("route.json") == document
    assert answer.status["offloading"]["reason"] == reasons.NOT_ACCEPTED


def test_a_mistake_from_the_start_creates_nothing() -> None:
    """Without earlier decisions there is nothing to keep."""
    answer = sync(model_deployment(serviceRef=ELSEWHERE), related=[workload()])
    assert answer.children == ()
    assert conditions(answer)["Synced"] == ("Unknown", reasons.NOT_EVALUATED)
    assert answer.status["offloading"]["reason"] == reasons.NOT_ACCEPTED


@pytest.mark.parametrize("odd", [None, [], "x", 1, {"model": 1}, {"server": {"template": []}, "policies": "x"}])
def test_no_specification_is_an_error(odd: Any) -> None:
    """Whatever stands in spec, the answer is a 200 that says what is wrong."""
    answer = sync(model_deployment() | {"spec": odd})
    assert conditions(answer)["Accepted"] == ("False", reasons.INVALID_SPEC)
    assert customize(model_deployment() | {"spec": odd}).related_resources == ()


def test_a_mended_mistake_is_forgotten() -> None:
    """The same children as if it had never been made."""
    cluster = Cluster(model_deployment(), related=[workload()])
    before = cluster.settle()
    invalid(cluster)
    answer = cluster.edit(serviceRef=None)
    assert answer.children == before.children
    assert conditions(answer)["Accepted"] == ("True", reasons.ACCEPTED)


def test_a_damaged_annotation_changes_nothing() -> None:
    """What was decided last and cannot be read is an error, so nothing is deleted."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    cluster.children[0]["metadata"]["annotations"]["metacontroller.k8s.io/last-applied-configuration"] = "{"
    cluster.sync()
    cluster.children[0]["metadata"]["annotations"]["metacontroller.k8s.io/last-applied-configuration"] = "{"
    with pytest.raises(DamagedAnnotation) as damaged:
        invalid(cluster)
    assert damaged.value.status == 500


def test_a_namespace_that_is_not_managed() -> None:
    """Children stay exactly as decided last, whatever the replicas do; without any, none is made."""
    cluster = Cluster(model_deployment(), related=[workload()])
    before = cluster.settle()
    cluster.defaults = InstallDefaults(namespaces=frozenset({"other"}))
    answer = cluster.set_ready(0)
    assert answer.children == before.children
    assert conditions(answer)["Accepted"] == ("False", reasons.NAMESPACE_NOT_MANAGED)
    assert conditions(answer)["LocalReady"] == ("Unknown", reasons.NOT_EVALUATED)
    assert sync(model_deployment(), related=[workload()], defaults=cluster.defaults).children == ()


# Deletion.


def test_a_parent_that_goes_without_finalizer() -> None:
    """Sync answers in full; Metacontroller ignores the children."""
    cluster = Cluster(model_deployment(), related=[workload()])
    before = cluster.settle()
    cluster.parent["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    answer = cluster.sync()
    assert answer.children == before.children
    assert conditions(answer)["Ready"] == ("False", reasons.TERMINATING)


@pytest.mark.parametrize("deleting", [False, True])
def test_finalize(deleting: bool) -> None:
    """With an account children are let go, and the parent when they are gone; asked again, the same is answered."""
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
    """Nothing is left to be done elsewhere, and Kubernetes collects the children: the parent goes at once."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    done = finalize(cluster.parent, children=cluster.children)
    assert (done.children, done.finalized, done.resync_after_seconds) == ((), True, None)


def test_finalize_when_registered() -> None:
    """Once the children are gone, what is on the platform is to be removed."""
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
    """A parent that was never synced may go as well."""
    done = finalize(model_deployment())
    assert (done.finalized, [entry["type"] for entry in done.status["conditions"]]) == (True, ["Ready"])


# The platform.


def tasks(cluster: Cluster) -> tuple[float | None, PlatformTask | None]:
    """When hooks want to be asked again, and what is to be done on the platform, by the present sync."""
    seen = builders.observation(cluster.parent, children=cluster.children, related=cluster.related)
    decision = reconcile.decide_sync(seen, now=cluster.now, account="us")
    return decision.response(decision.registration).resync_after_seconds, decision.registration.task


def test_a_model_is_registered_once_its_children_are_there() -> None:
    """Before that it is looked again within a second, and without an account never."""
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
    """What the platform responded is in the only status that is built: condition, fields, state and resync."""
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


def test_a_child_that_stays_away_holds_nothing_up() -> None:
    """After as long as a child may take, the model is registered without it."""
    cluster = Cluster(model_deployment(), related=[workload()], taken=[("Service", "demo-local")])
    cluster.settle()
    for seconds, registers in ((9, False), (1, True)):
        cluster.now += timedelta(seconds=seconds)
        assert (tasks(cluster)[1] is not None) is registers


def test_what_goes_without_finalizer_is_not_registered() -> None:
    """Nor is anything removed: nobody would wait for it."""
    cluster = Cluster(model_deployment(), related=[workload()])
    cluster.settle()
    cluster.parent["metadata"]["deletionTimestamp"] = "2026-03-01T12:00:00Z"
    assert tasks(cluster)[1] is None


# Children that are not as asked for.


def test_what_others_add_to_children_is_not_ours() -> None:
    """Fields, labels and replicas of others change no answer."""
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


def test_a_new_parent_of_the_same_name_remembers_nothing() -> None:
    """Only the parent's own status is memory."""
    cluster = Cluster(model_deployment(), related=[workload(ready=0)])
    cluster.settle()
    reborn = model_deployment()
    reborn["metadata"]["uid"] = "another"
    answer = sync(reborn, related=[workload()], now=NOW.replace(hour=13))
    assert condition(answer, "LocalReady")["lastTransitionTime"] == "2026-03-01T13:00:00Z"


def test_answers_are_json_for_go() -> None:
    """No NaN, no null and no empty list is in an answer; every label and annotation is a text."""
    answer = sync(served(gateway={"serviceName": "gw"}))
    text = json.dumps(answer.as_json(), allow_nan=False)
    assert "null" not in text
    assert "[]" not in text
    for item in answer.children:
        for field in ("labels", "annotations"):
            assert all(isinstance(value, str) for value in item["metadata"].get(field, {}).values())


def test_a_long_name() -> None:
    """Children of a ModelDeployment with the longest possible name have legal names."""
    answer = sync(served() | {"metadata": served()["metadata"] | {"name": "a" * 63 + "." + "b" * 189}})
    assert conditions(answer)["Accepted"] == ("True", reasons.ACCEPTED)
    assert all(len(item["metadata"]["name"]) <= 63 for item in answer.children)


# customize.


def rules(**spec: Any) -> dict[tuple[str, str], tuple[str, ...]]:
    """Names by API version and resource."""
    answer = customize(model_deployment(**spec))
    assert all(rule.namespace == builders.NAMESPACE and rule.names for rule in answer.related_resources)
    return {(rule.api_version, rule.resource): rule.names for rule in answer.related_resources}


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
    """Its kind is from a fixed table, its API version ours and never the user's."""
    source = {"apiVersion": "evil.example.com/v1", "kind": kind, "name": "demo"}
    assert rules(modelSourceRef=source) == {("apps/v1", resource): ("demo",)}


def test_services_and_local_policies_are_related() -> None:
    """Each name once, in order; policies on the platform are not objects here."""
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
def test_what_may_not_be_asked_for_is_left_out(spec: Json) -> None:
    """Another namespace, another kind or no name gives no rule: an empty one would select everything."""
    assert rules(**spec) == {}


def test_customize_rests_on_the_specification_only() -> None:
    """Metacontroller keeps the answer per generation: status, labels, deletion and configuration change nothing."""
    parent = model_deployment(serviceRef={"name": "s"})
    plain = customize(parent)
    parent["status"] = {"workspace": "w"}
    parent["metadata"] |= {"labels": {"a": "b"}, "deletionTimestamp": "2026-03-01T12:00:00Z"}
    assert customize(parent) == plain


def test_no_references_no_rules() -> None:
    """A server of one's own needs nothing related."""
    assert customize(served()).as_json() == {"relatedResources": []}


# The last gate.


def gate(*children: Json, parent: Json | None = None) -> None:
    """Pass children through the last gate."""
    check_children(children, builders.observation(parent or model_deployment(gateway={"serviceName": "gw"})))


def made(kind: str = "Service", name: str = "demo-local", **rest: Any) -> Json:
    """A child that is only a name."""
    versions = {"Deployment": "apps/v1", "Service": "v1", "ConfigMap": "v1"}
    metadata = {"name": name, "namespace": builders.NAMESPACE}
    return {"apiVersion": versions.get(kind, "v1"), "kind": kind, "metadata": metadata} | rest


@pytest.mark.parametrize(
    "bad",
    [
        made("Secret", "demo"),
        made("ClusterRole", "demo"),
        made(apiVersion="v2"),
        made(metadata={"name": "demo-local", "namespace": "kube-system"}),
        made(metadata={"name": "demo-local"}),
        made(metadata={"namespace": builders.NAMESPACE}),
        made(name="kubernetes"),
        made("ConfigMap", "kube-root-ca.crt"),
        made("Deployment", "other"),
    ],
)
def test_the_gate_refuses_what_reaches_beyond_the_parent(bad: Json) -> None:
    """No other kind, no other namespace, no name that is not derived."""
    with pytest.raises(ForbiddenChild) as forbidden:
        gate(bad)
    assert forbidden.value.status == 500


def test_the_gate_refuses_one_name_twice() -> None:
    """Of two children of one name Metacontroller would silently drop one."""
    with pytest.raises(ForbiddenChild, match="twice"):
        gate(made(), made())


def test_the_gate_lets_derived_names_pass() -> None:
    """What is ours passes."""
    gate(made("Deployment", "demo"), made(), made(name="gw"), made("ConfigMap", "demo-route"))


def test_a_service_that_was_renamed_is_kept_under_its_old_name() -> None:
    """While a mistake stands, the Service to the gateway stays although the specification names another."""
    cluster = Cluster(model_deployment(gateway={"serviceName": "old"}), related=[workload()])
    cluster.settle()
    answer = cluster.edit(gateway={"serviceName": "new"}, serviceRef=ELSEWHERE)
    assert {item["metadata"]["name"] for item in answer.children} == {"demo-route", "demo-local", "old"}


# Resync.


def test_nothing_to_look_for_is_not_looked_for() -> None:
    """Without metrics and without a known moment a parent comes back with an event, or in Metacontroller's period."""
    assert Cluster(model_deployment(), related=[workload()]).settle().resync_after_seconds is None
    assert sync(model_deployment(modelSourceRef=ELSEWHERE)).resync_after_seconds is None


def test_parents_come_at_different_moments() -> None:
    """With metrics a parent comes back after some thirty seconds, near a target fifteen, always the same for itself."""
    config = {"remoteBackend": builders.REMOTE, "metrics": [builders.external(value=100)]}
    for value, least, most in (("74", 27, 33), ("75", 13.5, 16.5)):
        seconds = []
        for uid in map(str, range(50)):
            parent = model_deployment(offloadingConfig=config)
            parent["metadata"]["uid"] = uid
            settled = Cluster(parent, related=[workload()])
            settled.settle()
            seconds.append(settled.measure(value, after=60).resync_after_seconds)
            assert settled.sync().resync_after_seconds == seconds[-1]
        assert all(second is not None and least <= second <= most for second in seconds)
        assert len(set(seconds)) > 40


def test_the_request_is_never_changed() -> None:
    """A sync leaves what it was given as it was."""
    parent = served(gateway={"serviceName": "gw"})
    children = [observed(item) for item in sync(parent).children]
    body = builders.request_body(parent, children=children, related=[workload(), service()])
    before = orjson.dumps(body)
    request = Observation.of(SyncRequest.from_json(body), DEFAULTS)
    reconcile.sync(request, now=NOW)
    assert orjson.dumps(body) == before
