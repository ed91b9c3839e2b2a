"""What Metacontroller can be held to, scenario by scenario; each runs on the real one and on the stand-in.

A scenario is its world's only user: it installs a CompositeController, says what the hook answers, writes objects as a
user does, and keeps points of rest. What cannot be compared is in NOT_COMPARED, with the reason.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from metacontroller.objects import Kind
from tests.differential import snapshots, widgets
from tests.differential.snapshots import Json
from tests.differential.widgets import RICH, config_map, deployment, pods, service
from tests.differential.world import ELSEWHERE, Refused, World, composite_controller, rule, webhook
from tests.hook_server import Answer, Request

NOT_COMPARED: Final = (
    ("`children: [null]` and `relatedResources: [null]`", "the real one exits on them, and again after each restart"),
    ("the order of children of one kind", "the real one walks a map of Go, whose order is random"),
    ("the number of hook requests", "events that come close together are one sync or several; only effective writes, "
     "and what the last request shows, are the same every time"),
    ("resourceVersions, uids, times, cluster IPs, managedFields", "chance"),
    ("the texts of errors", "the stand-in's sentences name what to do; the real ones go into Events"),
    ("the status of Deployments, StatefulSets and DaemonSets", "their controllers write it, here a kubelet of sorts"),
    ("backoff beyond some seconds, the 20 minutes of the customize cache, the 30 of the informers' resync", "time"),
    ("fields of built-in kinds that Kubernetes does not know", "dropped by the API server; the stand-in has no schema "
     "of built-in kinds"),
    ("children of a kind with two served versions", "the stand-in has the stored version of a CRD alone"),
    ("cluster-scoped parents, children and related objects", "the stand-in has namespaced kinds only"),
    ("namespaceSelector under v2", "the stand-in has no Namespace objects and thus none with labels"),
    ("RollingInPlace, RollingRecreate, ETag, server-side apply, authorization and TLS of webhooks",
     "the stand-in refuses or lacks them, and hooks does not use them"),
    ("answers that never come to rest", "each run is as long as one lets it; the stand-in's loop detector has a test"),
    ("which fields a Secret child had before an update", "the audit log must not hold Secrets, so their updates "
     "are not counted; creating and deleting are"),
)  # fmt: skip
"""What, and why."""

Run = Callable[[World], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Scenario:
    """One scenario; its name is its namespace as well."""

    name: str
    run: Run
    parent: Kind


SCENARIOS: Final[dict[str, Scenario]] = {}


def scenario(run: Run) -> Run:
    """Register a scenario under its function's name."""
    name = run.__name__.replace("_", "-")  # type: ignore[attr-defined]
    SCENARIOS[name] = Scenario(name, run, widgets.kind_of(name))
    return run


GOOD: Final = {"word": "good"}


# The request


@scenario
async def first_sync(world: World) -> None:
    """Five keys, a group for each kind of child, no status; the whole request is compared."""
    world.answers()
    await world.start()
    await world.rest("synced")
    world.note("first request", snapshots.request_without_chance(world.asked("/sync")[0]))
    world.note("keys", sorted(world.asked("/sync")[0]))


@scenario
async def request_headers(world: World) -> None:
    """A POST of JSON."""
    world.answers()
    await world.start()
    await world.rest("synced")
    first = world.hook.requests[0]
    headers = {name: first.headers.get(name) for name in ("content-type", "user-agent", "accept-encoding", "accept")}
    world.note("first request", [first.method, first.target, headers])


@scenario
async def request_is_compact_json(world: World) -> None:
    """The body is compact, its keys are sorted, and < > & are escaped."""
    world.answers()
    await world.start(metadata={"annotations": {"mark": "<a&b> \u2028 é 😀"}})
    await world.rest("synced")
    body = world.hook.requests[0].body
    start = body.index(b'"mark"')
    world.note("escapes", body[start : body.index(b"}", start)].decode())
    world.note("compact and sorted", body.startswith(b'{"children":{"ConfigMap.v1":{},"Deployment.apps/v1":{},'))


@scenario
async def version_2_keys(world: World) -> None:
    """Under v2 children are keyed namespace/name."""
    world.answers(config_map(), service(), deployment(), status=GOOD)
    await world.start(webhooks={"sync": webhook(world.hook.url, "sync", version="v2")})
    await world.rest("made")


@scenario
async def second_sync_writes_nothing(world: World) -> None:
    """Defaults, quantities and emptyDir come to rest."""
    resources = {"limits": {"cpu": "1000m", "memory": "1024Mi"}}
    template = pods(container={"resources": resources}, volumes=[{"name": "scratch", "emptyDir": {}}])
    world.answers(deployment(template=template), service(), config_map(), status=GOOD)
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


# Children: their coming and going


@scenario
async def unwanted_child_goes_first(world: World) -> None:
    """A child that is no longer wanted is deleted before the new one is made."""
    world.answers(config_map())
    await world.start()
    await world.rest("made")
    world.answers(config_map("a-new-one"), service())
    await world.nudge()
    await world.rest("replaced")


@scenario
async def deleted_child_comes_back(world: World) -> None:
    """What a user deletes is there again."""
    world.answers(config_map(), service())
    await world.start()
    await world.rest("made")
    await world.delete("ConfigMap", "one-child")
    await world.rest("back")
    await world.delete("Service", "one-service")
    await world.rest("both")


@scenario
async def foreign_object_of_a_childs_name(world: World) -> None:
    """AlreadyExists is swallowed: the child never appears; it does once the name is free."""
    world.answers(config_map(), service(), status=GOOD)
    await world.install(composite_controller(world.parent, world.hook.url))
    await world.create(config_map(data={"mine": "yes"}))
    await world.create(world.parent_object(spec={}))
    await world.rest("taken")
    await world.delete("ConfigMap", "one-child")
    await world.nudge()
    await world.rest("free")


@scenario
async def stripped_label_releases(world: World) -> None:
    """A child without controller-uid loses its owner, its name stays taken, and no update reaches it."""
    world.answers(config_map())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"metadata": {"labels": {"controller-uid": None}}})
    await world.rest("released")
    world.answers(config_map(data={"key": "other"}))
    await world.nudge()
    await world.rest("still released")


@scenario
async def stripped_owner_is_adopted_again(world: World) -> None:
    """A child that keeps its label and loses its owner is an orphan that matches."""
    world.answers(config_map())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"metadata": {"ownerReferences": None}})
    await world.rest("adopted")


@scenario
async def matching_orphan_is_adopted_and_deleted(world: World) -> None:
    """An orphan with the label that the hook does not want goes."""
    world.answers()
    await world.start()
    await world.rest("without children")
    uid = (await world.get(world.parent.name, "one"))["metadata"]["uid"]
    await world.create(config_map("orphan", metadata={"labels": {"controller-uid": uid}}))
    await world.rest("gone")


@scenario
async def matching_orphan_is_adopted_and_kept(world: World) -> None:
    """An orphan with the label that the hook wants becomes a child, with what it had besides."""
    world.answers()
    await world.start()
    await world.rest("without children")
    uid = (await world.get(world.parent.name, "one"))["metadata"]["uid"]
    world.answers(config_map("orphan"))
    await world.create(config_map("orphan", metadata={"labels": {"controller-uid": uid}}, data={"mine": "yes"}))
    await world.rest("adopted")


@scenario
async def child_of_another_controller(world: World) -> None:
    """An object with the label and another controller is nobody's orphan."""
    world.answers()
    await world.start()
    await world.rest("without children")
    uid = (await world.get(world.parent.name, "one"))["metadata"]["uid"]
    owner = await world.create(config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    metadata = {"labels": {"controller-uid": uid}, "ownerReferences": [reference | {"controller": True}]}
    await world.create(config_map("owned", metadata=metadata))
    await world.nudge()
    await world.rest("left alone")


@scenario
async def twins_last_wins(world: World) -> None:
    """Of two children alike the last counts."""
    world.answers(config_map(data={"n": "1"}), config_map(data={"n": "2"}))
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def unlisted_kind_is_made_once(world: World) -> None:
    """A child of a kind that is no child resource is made, and never seen, updated or deleted again."""
    world.answers(service(), config_map())
    await world.start(childResources=[rule("v1", "configmaps")])
    await world.rest("made")
    world.answers(service(ports=[{"name": "http", "port": 81}]), config_map())
    await world.nudge()
    await world.rest("not updated")
    world.answers()
    await world.nudge()
    await world.rest("not deleted")


@scenario
async def unknown_api_version(world: World) -> None:
    """A child of a version that is not there fails alone: the others are made, the status is written."""
    world.answers(config_map(apiVersion="v2"), config_map("second"), service(), status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_without_api_version(world: World) -> None:
    """It fails alone as well."""
    child = config_map()
    del child["apiVersion"]
    world.answers(child, service(), status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_without_name(world: World) -> None:
    """The API server refuses it; the others are made."""
    child = config_map()
    child["metadata"] = {}
    world.answers(child, config_map("second"), status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_without_metadata(world: World) -> None:
    """No metadata at all, and metadata that is null."""
    child = config_map()
    del child["metadata"]
    world.answers(child, config_map("second"), config_map("third") | {"metadata": None}, status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_in_another_namespace(world: World) -> None:
    """It is made there, its owner does not count, and the garbage collector takes it."""
    world.answers(config_map(metadata={"namespace": world.namespace + ELSEWHERE}), service(), status=GOOD)
    await world.start()
    await world.rest("made")
    await world.until(lambda: _absent(world, f"ConfigMap/{world.namespace}{ELSEWHERE}/one-child"), "it is collected")
    world.answers(service(), status=GOOD)
    await world.nudge()
    await world.rest("collected")


async def _absent(world: World, key: str) -> bool:
    return key not in await world.objects()


@scenario
async def child_with_owners_of_its_own(world: World) -> None:
    """Owner references of the hook stay, ours is added."""
    world.answers()
    await world.start()
    await world.rest("without children")
    other = await world.create(config_map("other"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": other["metadata"]["uid"]}
    world.answers(config_map(metadata={"ownerReferences": [reference]}))
    await world.nudge()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


# Children: labels


@scenario
async def label_that_is_no_string(world: World) -> None:
    """Nothing is applied and no status written."""
    world.answers(config_map(metadata={"labels": {"n": 1}}), service(), status=GOOD)
    await world.start()
    await world.rest("nothing")


@scenario
async def labels_that_are_no_map(world: World) -> None:
    """Labels that are a list, and null labels."""
    world.answers(config_map(metadata={"labels": ["n"]}), service(), status=GOOD)
    await world.start()
    await world.rest("nothing")
    world.answers(config_map(metadata={"labels": None}), service(), status=GOOD)
    await world.nudge()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def foreign_controller_uid(world: World) -> None:
    """A child whose controller-uid is another one fails the whole sync."""
    world.answers(config_map(metadata={"labels": {"controller-uid": "x"}}), service(), status=GOOD)
    await world.start()
    await world.rest("nothing")


@scenario
async def selector_of_the_parent(world: World) -> None:
    """Without generateSelector the parent's selector counts; an orphan that matches is adopted."""
    labels = {"labels": {"app": "one"}}
    world.answers(config_map(metadata=labels), status=GOOD)
    await world.install(composite_controller(world.parent, world.hook.url, generateSelector=False))
    await world.create(config_map("orphan", metadata=labels))
    await world.create(world.parent_object(spec={"selector": {"matchLabels": {"app": "one"}}}))
    await world.rest("made")
    world.answers(config_map(), status=GOOD)
    await world.nudge()
    await world.rest("mismatch")


@scenario
async def parent_without_selector(world: World) -> None:
    """Without generateSelector and selector the hook is not called."""
    world.answers(config_map(), status=GOOD)
    await world.start(generateSelector=False)
    await world.rest("nothing", requests=0)
    world.note("asked", len(world.asked("/sync")))


# Children: the merge


@scenario
async def map_updated_in_place(world: World) -> None:
    """Keys of a map are added, changed and removed one by one."""
    world.answers(config_map(data={"a": "1", "b": "2", "c": "3"}))
    await world.start()
    await world.rest("made")
    world.answers(config_map(data={"a": "1", "b": "two", "d": "4"}))
    await world.nudge()
    await world.rest("updated")


@scenario
async def list_with_merge_key(world: World) -> None:
    """Lists of objects with a name or port are merged item by item; what others added to them stays."""
    first = {"name": "http", "port": 80}
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    world.answers(service(ports=[first]), deployment(template=pods(container={"env": env})))
    await world.start()
    await world.rest("made")
    sidecar = {"name": "sidecar", "image": "example.com/sidecar:1"}
    template = (await world.get("Deployment", "one-server"))["spec"]["template"]["spec"]
    change = {"spec": {"template": {"spec": {"containers": [*template["containers"], sidecar]}}}}
    await world.patch("Deployment", "one-server", change)
    await world.rest("a sidecar")
    env = [{"name": "C", "value": "3"}, {"name": "B", "value": "two"}]
    second = {"name": "more", "port": 81, "targetPort": "http"}
    world.answers(service(ports=[second, first]), deployment(template=pods(container={"env": env})))
    await world.nudge()
    await world.rest("updated")


@scenario
async def list_without_merge_key(world: World) -> None:
    """Other lists are replaced whole."""
    tolerations = [{"key": "a", "operator": "Exists"}, {"operator": "Exists", "effect": "NoSchedule"}]
    world.answers(deployment(template=pods(container={"args": ["1", "2"]}, tolerations=tolerations)))
    await world.start()
    await world.rest("made")
    spec = {"tolerations": [{"key": "mine", "operator": "Exists"}]}
    await world.patch("Deployment", "one-server", {"spec": {"template": {"spec": spec}}})
    await world.rest("repaired")
    world.answers(deployment(template=pods(container={"args": ["2"]}, tolerations=tolerations[1:])))
    await world.nudge()
    await world.rest("updated")


@scenario
async def field_removed(world: World) -> None:
    """A field that is no longer wanted goes, and the API server's default comes back."""
    world.answers(deployment(replicas=0, minReadySeconds=5), service(sessionAffinity="ClientIP"))
    await world.start()
    await world.rest("made")
    world.answers(deployment(replicas=...), service())
    await world.nudge()
    await world.rest("defaults")


@scenario
async def metadata_removed(world: World) -> None:
    """Labels and annotations that are no longer wanted go, others' stay."""
    metadata = {"labels": {"a": "1", "b": "2"}, "annotations": {"a": "1", "b": "2"}}
    world.answers(config_map(metadata=metadata))
    await world.start()
    await world.rest("made")
    mine = {"labels": {"mine": "yes"}, "annotations": {"mine": "yes"}}
    await world.patch("ConfigMap", "one-child", {"metadata": mine})
    await world.rest("a user's")
    world.answers(config_map(metadata={"labels": {"a": "1"}}))
    await world.nudge()
    await world.rest("removed")


@scenario
async def nulls_and_empty_values(world: World) -> None:
    """What the API server does not store is no change, sync after sync."""
    template = pods(container={"env": [], "args": None}, tolerations=[], nodeSelector={}, volumes=None)
    world.answers(
        config_map(metadata={"annotations": {}, "creationTimestamp": None}, binaryData=None),
        deployment(template=template),
        service(externalIPs=[], sessionAffinity=None),
        status=GOOD,
    )
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def numbers_of_another_form(world: World) -> None:
    """Floats that are whole, quantities that are not canonical."""
    resources = {"limits": {"cpu": 1, "memory": "1.5Gi"}, "requests": {"cpu": "250.0m", "memory": 1048576}}
    template = pods(container={"resources": resources}, terminationGracePeriodSeconds=30.0)
    world.answers(deployment(template=template, replicas=0.0), service(ports=[{"port": 80.0}]))
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def last_applied_text(world: World) -> None:
    """The annotation is what Go writes: sorted, compact, escaped."""
    world.answers(config_map(data={"b": "<a&b> \u2028 é 😀 \" \\ / \t \x7f", "a": ""}, immutable=False))
    await world.start()
    await world.rest("made")


@scenario
async def users_additions_survive(world: World) -> None:
    """A label, an annotation and fields of a user stay; nothing is written for them."""
    world.answers(config_map(), service())
    await world.start()
    await world.rest("made")
    mine = {"labels": {"mine": "yes"}, "annotations": {"mine": "yes"}}
    await world.patch("ConfigMap", "one-child", {"metadata": mine, "data": {"mine": "yes"}})
    await world.patch("Service", "one-service", {"metadata": mine, "spec": {"publishNotReadyAddresses": True}})
    await world.rest("added")
    world.answers(config_map(data={"key": "other"}), service(sessionAffinity="ClientIP"))
    await world.nudge()
    await world.rest("updated")


@scenario
async def edited_field_is_repaired(world: World) -> None:
    """What a user changes of ours goes back."""
    world.answers(config_map(), service(), deployment())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"data": {"key": "wrong", "mine": "yes"}})
    await world.rest("ConfigMap")
    await world.patch("Service", "one-service", {"spec": {"selector": {"app": "wrong"}}})
    await world.rest("Service")
    await world.patch("Deployment", "one-server", {"spec": {"template": {"metadata": {"labels": {"x": "y"}}}}})
    await world.rest("Deployment")


@scenario
async def removed_annotation_is_written_again(world: World) -> None:
    """Without its annotation nothing counts as applied before; it comes back, what was removed meanwhile stays."""
    world.answers(config_map(data={"a": "1", "b": "2"}))
    await world.start()
    await world.rest("made")
    world.answers(config_map(data={"a": "1"}))
    await world.patch("ConfigMap", "one-child", {"metadata": {"annotations": None}})
    await world.rest("again")


@scenario
async def damaged_annotation(world: World) -> None:
    """An annotation that is no JSON, and one that is no object."""
    world.answers(config_map(), service(), status=GOOD)
    await world.start()
    await world.rest("made")
    for point, text in (("no JSON", "{"), ("no object", "[1]"), ("null", "null"), ("empty", "")):
        annotations = {"metacontroller.k8s.io/last-applied-configuration": text}
        await world.patch("ConfigMap", "one-child", {"metadata": {"annotations": annotations}, "data": {"key": point}})
        await world.rest(point)


@scenario
async def map_becomes_something_else(world: World) -> None:
    """A field that turns from a map into a text, and from a list into a map."""
    world.answers(config_map(), service())
    await world.start()
    await world.rest("made")
    world.answers(config_map(data="text"), service(ports={"http": 80}), status=GOOD)
    await world.nudge()
    await world.rest("changed")


@scenario
async def scalar_becomes_a_map(world: World) -> None:
    """The API server refuses what does not fit its types."""
    world.answers(config_map())
    await world.start()
    await world.rest("made")
    world.answers(config_map(data={"key": {"a": "b"}}), service(), status=GOOD)
    await world.nudge()
    await world.rest("refused")


@scenario
async def status_of_a_child_is_not_ours(world: World) -> None:
    """A status in a desired child changes nothing."""
    ingress = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    world.answers(service() | {"status": ingress})
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def system_metadata_of_a_child(world: World) -> None:
    """uid, generation and times in a desired child are the API server's business."""
    metadata = {"uid": "x", "generation": 7, "creationTimestamp": "2020-01-01T00:00:00Z", "selfLink": "/x"}
    world.answers(config_map(metadata=metadata))
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def resource_version_of_a_child(world: World) -> None:
    """A desired child with a resourceVersion cannot be made; once it is there, the version does not matter."""
    world.answers(config_map(metadata={"resourceVersion": "1"}), service(), status=GOOD)
    await world.start()
    await world.rest("not made")
    world.answers(config_map(), service(), status=GOOD)
    await world.nudge()
    await world.rest("made")
    world.answers(config_map(metadata={"resourceVersion": "1"}, data={"key": "other"}), service(), status=GOOD)
    await world.nudge()
    await world.rest("updated")


@scenario
async def observed_child_echoed(world: World) -> None:
    """A hook that sends back what it is shown makes everything its own; it comes to rest after one round."""

    def script(request: Request) -> Answer:
        seen = [dict(item) for item in request.content["children"]["ConfigMap.v1"].values()]
        return Answer({"status": {}, "children": seen or [config_map()]})

    world.hook.script = script
    await world.start()
    await world.until(lambda: len(world.hook.requests) >= 3, "some rounds")
    world.answers(config_map())
    await world.nudge()
    await world.until(lambda: _equals(world, {"key": "value"}), "it is as wanted")
    world.note("data", (await world.get("ConfigMap", "one-child"))["data"])


async def _equals(world: World, data: Json) -> bool:
    return bool((await world.get("ConfigMap", "one-child"))["data"] == data)


# Children: what the API server makes of them


@scenario
async def defaults_of_workloads(world: World) -> None:
    """Every default of a pod template, in each kind of workload, comes to rest."""
    parts: Json = {"selector": {"matchLabels": {"app": "one"}}, "template": RICH}
    plain: Json = {"selector": {"matchLabels": {"app": "two"}}, "template": pods(labels={"app": "two"})}
    world.answers(
        deployment(template=RICH),
        deployment("recreated", template=RICH, strategy={"type": "Recreate"}),
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "one-set"},
         "spec": {"replicas": 0, "serviceName": "one", **parts}},
        {"apiVersion": "apps/v1", "kind": "DaemonSet", "metadata": {"name": "one-daemon"},
         "spec": {**plain, "template": pods(labels={"app": "two"}, nodeSelector={"no": "such"})}},
    )  # fmt: skip
    kinds = ("deployments", "statefulsets", "daemonsets")
    await world.start(childResources=[rule("apps/v1", kind) for kind in kinds])
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def defaults_of_services(world: World) -> None:
    """Every type of Service, and from one to another."""
    world.answers(
        service("plain"),
        service("headless", clusterIP="None"),
        service("outside", type="ExternalName", externalName="example.com", ports=[]),
        service("two", ports=[{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81}]),
        service("turns"),
    )
    await world.start()
    await world.rest("made")
    world.answers(
        service("plain", ports=[{"name": "http", "port": 8080}]),
        service("headless", clusterIP="None", publishNotReadyAddresses=True),
        service("outside", type="ExternalName", externalName="example.org", ports=[]),
        service("two", ports=[{"name": "b", "port": 81}]),
        service("turns", type="ExternalName", externalName="example.com"),
    )
    await world.nudge()
    await world.rest("updated")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def secret_as_child(world: World) -> None:
    """stringData is written once; data and type are kept."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "one-secret"}, "stringData": {"a": "b"}}
    world.answers(secret)
    await world.start(childResources=[rule("v1", "secrets")])
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def immutable_selector(world: World) -> None:
    """A Deployment whose selector changes is refused; the others are applied, the status is written."""
    world.answers(deployment(), status={"word": "before"})
    await world.start()
    await world.rest("made")
    labels = {"app": "one", "more": "yes"}
    changed = deployment(selector={"matchLabels": labels}, template=pods(labels=labels))
    world.answers(changed, config_map(), status={"word": "after"})
    await world.nudge()
    await world.rest("refused")


@scenario
async def headless_flip(world: World) -> None:
    """A Service cannot become headless."""
    world.answers(service())
    await world.start()
    await world.rest("made")
    world.answers(service(clusterIP="None"), config_map(), status={"word": "after"})
    await world.nudge()
    await world.rest("refused")


@scenario
async def immutable_config_map(world: World) -> None:
    """An immutable ConfigMap keeps its data; its labels change."""
    world.answers(config_map(immutable=True))
    await world.start()
    await world.rest("made")
    world.answers(config_map(immutable=True, data={"key": "other"}), status=GOOD)
    await world.nudge()
    await world.rest("refused")
    world.answers(config_map(immutable=True, metadata={"labels": {"a": "b"}}), status=GOOD)
    await world.nudge()
    await world.rest("labeled")


@scenario
async def annotations_too_large(world: World) -> None:
    """A ConfigMap whose copy in the annotation exceeds 256 KiB is neither made nor updated."""
    world.answers(config_map(data={"big": "x" * 262144}), config_map("second"), status=GOOD)
    await world.start()
    await world.rest("not made")
    world.answers(config_map(), status=GOOD)
    await world.nudge()
    await world.rest("made")
    world.answers(config_map(data={"big": "x" * 262144}), status=GOOD)
    await world.nudge()
    await world.rest("not updated")


@scenario
async def invalid_children(world: World) -> None:
    """What the API server refuses is missing, the rest is there."""
    world.answers(
        config_map("UPPER"),
        config_map("one.two.three"),
        config_map("labeled", metadata={"labels": {"a": "b c"}}),
        config_map("number", data={"n": 1}),
        config_map("key", data={"a/b": "x"}),
        service("1st"),
        service("dotted.name"),
        service("no-port", ports=[]),
        service("large", ports=[{"port": 70000}]),
        service("nameless", ports=[{"port": 80}, {"port": 81}]),
        deployment("no-image", template={"metadata": {"labels": {"app": "one"}}, "spec": {"containers": [{"name": "a"}]}}),
        deployment("mismatch", template=pods(labels={"app": "other"})),
        deployment("odd-name", template=pods(container={"name": "Not_A_Name"})),
        deployment("negative", replicas=-1),
        deployment("twice", template=pods(container={"ports": [{"containerPort": 80, "name": "UPPER"}]})),
        status=GOOD,
    )  # fmt: skip
    await world.start()
    await world.rest("what is left")


# Update methods


def _method(method: str | None) -> Run:
    async def run(world: World) -> None:
        world.answers(config_map(data={"v": "1"}))
        await world.start(childResources=[rule("v1", "configmaps", method)])
        await world.rest("made")
        world.answers(config_map(data={"v": "2"}))
        await world.nudge()
        await world.rest("changed")
        await world.patch("ConfigMap", "one-child", {"data": {"v": "mine"}})
        await world.rest("edited")
        await world.patch("ConfigMap", "one-child", {"metadata": {"labels": {"mine": "yes"}}})
        await world.rest("labeled")

    return run


for _name in ("OnDelete", "Recreate", None):
    _run = _method(_name)
    _run.__name__ = f"method_{(_name or 'left out').lower().replace(' ', '_')}"  # type: ignore[attr-defined]
    scenario(_run)


@scenario
async def child_that_is_going(world: World) -> None:
    """A child with a deletionTimestamp is left alone until it is gone, then made again."""
    world.answers(config_map())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"metadata": {"finalizers": ["example.com/wait"]}})
    await world.rest("held")
    await world.delete("ConfigMap", "one-child")
    await world.rest("going")
    world.answers(config_map(data={"key": "other"}))
    await world.nudge()
    await world.rest("still going")
    await world.patch("ConfigMap", "one-child", {"metadata": {"finalizers": None}})
    await world.rest("made again")


@scenario
async def unwanted_child_that_is_going(world: World) -> None:
    """An unwanted child with a finalizer is deleted once."""
    world.answers(config_map())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"metadata": {"finalizers": ["example.com/wait"]}})
    await world.rest("held")
    world.answers()
    await world.nudge()
    await world.rest("going")
    await world.nudge()
    await world.rest("still going")


# Answers

BAD: Final = {
    "status 500": Answer(status=500),
    "status 201": Answer({"status": {}, "children": []}, status=201),
    "status 202": Answer({"status": {}, "children": []}, status=202),
    "status 404": Answer({"status": {}, "children": []}, status=404),
    "status 204": Answer(status=204, body=b""),
    "empty": Answer(body=b""),
    "no JSON": Answer(body=b"oops"),
    "NaN": Answer(body=b'{"status": {"ratio": NaN}, "children": []}'),
    "Infinity": Answer(body=b'{"resyncAfterSeconds": Infinity}'),
    "single quotes": Answer(body=b"{'children': []}"),
    "trailing data": Answer(body=b'{"children": []} x'),
    "two documents": Answer(body=b'{"children": []}{}'),
    "trailing comma": Answer(body=b'{"children": [],}'),
    "control character": Answer(body=b'{"status": {"word": "\x01"}}'),
    "a list": Answer(body=b"[]"),
    "a text": Answer(body=b'"x"'),
    "a number": Answer(body=b"1"),
    "true": Answer(body=b"true"),
    "children: object": Answer(body={"children": {}}),
    "children: text": Answer(body={"children": "x"}),
    "child: text": Answer(body={"children": ["x"]}),
    "child: list": Answer(body={"children": [[]]}),
    "child: number": Answer(body={"children": [1]}),
    "child without kind": Answer(body={"children": [{"metadata": {"name": "x"}}]}),
    "child of empty kind": Answer(body={"children": [{"apiVersion": "v1", "kind": "", "metadata": {"name": "x"}}]}),
    "child of numeric kind": Answer(body={"children": [{"apiVersion": "v1", "kind": 1, "metadata": {"name": "x"}}]}),
    "status: list": Answer(body={"status": []}),
    "status: text": Answer(body={"status": "x"}),
    "status: true": Answer(body={"status": True}),
    "resyncAfterSeconds: text": Answer(body={"resyncAfterSeconds": "5"}),
    "resyncAfterSeconds: true": Answer(body={"resyncAfterSeconds": True}),
    "resyncAfterSeconds: huge": Answer(body=b'{"resyncAfterSeconds": 1e999}'),
    "finalized: text": Answer(body={"finalized": "true"}),
    "finalized: number": Answer(body={"finalized": 1}),
    "unknown key": Answer(body={"error": "x"}),
    "wrong case": Answer(body={"Status": {}, "children": []}),
    "duplicate key": Answer(body=b'{"children": [], "children": []}'),
    "duplicate in status": Answer(body=b'{"status": {"word": "a", "word": "b"}, "children": []}'),
    "duplicate below status": Answer(body=b'{"status": {"conditions": [{"type": "a", "type": "b"}]}}'),
    "byte order mark": Answer(body=b'\xef\xbb\xbf{"children": []}'),
    "number too large": Answer(body=b'{"status": {"ratio": 1e999}}'),
}
"""Answers that change nothing in strict mode, by name."""


def _bad_answers(names: Iterable[str]) -> Run:
    async def run(world: World) -> None:
        """Anything but a usable 200 leaves children and status as they are."""
        world.answers(config_map(), status=GOOD)
        await world.start()
        await world.rest("good")
        for name in names:
            world.hook.script = lambda _, answer=BAD[name]: answer  # type: ignore[misc]
            await world.nudge()
            await world.rest(name)
        world.answers(config_map(), service(), status=GOOD)
        await world.nudge()
        await world.rest("good again")

    return run


_SLICES: Final = 5
for _index in range(_SLICES):
    _run = _bad_answers(tuple(BAD)[_index::_SLICES])
    _run.__name__ = f"bad_answers_{'abcde'[_index]}"  # type: ignore[attr-defined]
    scenario(_run)


@scenario
async def empty_answers_delete_every_child(world: World) -> None:
    """`{}`, `null` and `children: null` mean: no children."""
    for name, body in (("object", b"{}"), ("null", b"null"), ("null children", b'{"children": null}')):
        world.answers(config_map(), status=GOOD)
        if name == "object":
            await world.start()
        else:
            await world.nudge()
        await world.rest(f"before {name}")
        world.hook.script = lambda _, body=body: Answer(body=body)  # type: ignore[misc]
        await world.nudge()
        await world.rest(name)


@scenario
async def odd_answers_that_count(world: World) -> None:
    """Answers that are accepted in strict mode: unknown keys in children, duplicates in them, and white space."""
    world.answers(config_map(), status=GOOD)
    await world.start()
    await world.rest("good")
    child = b'{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one-child"}, "data": {"a": "1", "a": "2"}}'
    bodies = {
        "white space": b' \n{"children": [' + child + b"]}\n\t ",
        "unknown field in a child": b'{"children": [' + child[:-1] + b', "unknown": {"x": 1}}]}',
        "null status": b'{"status": null, "children": [' + child + b'], "resyncAfterSeconds": null, "finalized": null}',
        "negative resync": b'{"children": [' + child + b'], "resyncAfterSeconds": -1, "finalized": false}',
        "invalid UTF-8": b'{"status": {"word": "\xff"}, "children": [' + child + b"]}",
        "half a surrogate": b'{"status": {"word": "\\ud800"}, "children": [' + child + b"]}",
    }
    for name, body in bodies.items():
        world.hook.script = lambda _, body=body: Answer(body=body)  # type: ignore[misc]
        await world.nudge()
        await world.rest(name)


@scenario
async def loose_mode(world: World) -> None:
    """Without strict mode an unknown key is ignored, and `{"error": …}` deletes every child."""
    world.answers(config_map(), status=GOOD, unknown=1)
    await world.start(webhooks={"sync": webhook(world.hook.url, "sync", responseUnMarshallMode="loose")})
    await world.rest("unknown key")
    world.hook.script = lambda _: Answer(body=b'{"status": {"word": "a", "word": "b"}, "children": [], "Status": {}}')
    await world.nudge()
    await world.rest("duplicates")
    world.answers(config_map())
    await world.nudge()
    await world.rest("a child")
    world.hook.script = lambda _: Answer(body={"error": "x"})
    await world.nudge()
    await world.rest("error")


@scenario
async def too_many_requests(world: World) -> None:
    """429 with an integer waits that long, without an error."""
    times: list[float] = []

    def script(_: Request) -> Answer:
        times.append(asyncio.get_running_loop().time())
        if len(times) == 1:
            return Answer(status=429, headers={"Retry-After": "2"})
        return Answer({"status": GOOD, "children": [config_map()]})

    world.hook.script = script
    await world.start()
    await world.rest("after it", requests=2)
    world.note("waited", 1.9 <= times[1] - times[0] <= 4)


@scenario
async def redirects(world: World) -> None:
    """302 is followed as a GET without body, 307 repeats what came."""

    def script(request: Request) -> Answer:
        if request.target == "/sync":
            return Answer(status=307, headers={"Location": "/again"})
        if request.target == "/again":
            return Answer(status=302, headers={"Location": "/there"})
        if request.target == "/there":
            return Answer(status=308, headers={"Location": "/here"})
        return Answer({"status": GOOD, "children": [config_map()]})

    world.hook.script = script
    await world.start()
    await world.rest("after it", requests=4)
    world.note("requests", [[each.method, each.target, bool(each.body)] for each in world.hook.requests[:4]])


@scenario
async def endless_redirect(world: World) -> None:
    """A hook that redirects for ever is a failure like any other."""
    world.hook.script = lambda _: Answer(status=307, headers={"Location": "/sync"})
    await world.start()
    await world.rest("nothing", requests=10)


@scenario
async def slow_hook(world: World) -> None:
    """An answer after the timeout counts as none."""
    world.answers(config_map(), status=GOOD)
    await world.start(webhooks={"sync": webhook(world.hook.url, "sync", timeout="1s")})
    await world.rest("made")
    world.hook.script = lambda _: Answer({"status": {}, "children": []}, delay=1.5)
    await world.nudge()
    await asyncio.sleep(1.3)
    world.answers(config_map(data={"key": "other"}), status=GOOD)
    await world.rest("the next one", requests=2)


@scenario
async def resync_after_seconds(world: World) -> None:
    """It brings one more call, and none once it is left out."""
    world.answers(config_map(), resyncAfterSeconds=1.5)
    await world.start()
    await world.until(lambda: len(world.hook.requests) >= 1, "the first request")
    await asyncio.sleep(0.7)
    first = len(world.hook.requests)
    await world.until(lambda: len(world.hook.requests) > first + 1, "two more")
    world.answers(config_map(), resyncAfterSeconds=0)
    await asyncio.sleep(1.7)
    last = len(world.hook.requests)
    await asyncio.sleep(1.7)
    world.note("calls after it was left out", len(world.hook.requests) - last)
    await world.keep("quiet")


@scenario
async def resync_survives_a_failure(world: World) -> None:
    """resyncAfterSeconds counts although a child is refused."""
    world.answers(config_map("UPPER"), status=GOOD, resyncAfterSeconds=2)
    await world.start()
    await world.rest("refused")


@scenario
async def resync_period(world: World) -> None:
    """resyncPeriodSeconds has every parent synced again and again, without a write."""
    world.answers(config_map(), status=GOOD)
    await world.start(resyncPeriodSeconds=1)
    await world.until(lambda: len(world.hook.requests) >= 5, "some periods")
    await world.keep("at rest")


# The status


@scenario
async def status_is_replaced_whole(world: World) -> None:
    """What another hand wrote goes; observedGeneration is Metacontroller's, whatever the hook says."""
    world.answers(status={"word": "one", "conditions": [{"type": "A", "status": "True"}]})
    await world.start()
    await world.rest("one")
    world.answers(status={"word": "two", "observedGeneration": 99})
    await world.nudge()
    await world.rest("two")
    await world.patch(world.parent.name, "one", {"spec": {"size": 5}})
    await world.rest("generation")
    world.answers()
    await world.nudge()
    await world.rest("empty")


@scenario
async def status_is_pruned(world: World) -> None:
    """Fields that the schema does not know are dropped, sync after sync, without a change."""
    world.answers(status={"word": "x", "unknown": 1, "conditions": [{"type": "A", "more": 1}]})
    await world.start()
    await world.rest("pruned")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def status_is_refused(world: World) -> None:
    """A status of the wrong type is not written; the children are applied."""
    world.answers(config_map(), status=GOOD)
    await world.start()
    await world.rest("good")
    for name, status in (("number", {"word": 5}), ("null", {"word": None}), ("null list", {"conditions": None})):
        world.answers(config_map(data={"key": name}), status=status)
        await world.nudge()
        await world.rest(name)


@scenario
async def status_with_numbers(world: World) -> None:
    """1.0 for an integer, an integer for a number, and one beyond 2^53."""
    world.answers(status={"ratio": 1.0})
    await world.start()
    await world.rest("float")
    await world.nudge()
    await world.rest("synced again")
    world.answers(status={"ratio": 2})
    await world.nudge()
    await world.rest("integer")
    world.answers(status={"ratio": 0.1})
    await world.nudge()
    await world.rest("fraction")
    world.answers(status={"ratio": 9007199254740993})
    await world.nudge()
    await world.rest("large")


@scenario
async def status_edited_is_ignored(world: World) -> None:
    """With ignoreStatusChanges a status of another hand stays until something else brings a sync."""
    world.answers(status=GOOD)
    await world.start()
    await world.rest("good")
    await world.patch(world.parent.name, "one", {"status": {"word": "mine"}}, status=True)
    await world.rest("not noticed", requests=0)
    await world.nudge()
    await world.rest("repaired")


@scenario
async def status_edited_is_noticed(world: World) -> None:
    """Without ignoreStatusChanges it brings a sync."""
    world.answers(status=GOOD)
    await world.start(parentResource={"apiVersion": world.parent.api_version, "resource": world.parent.plural})
    await world.rest("good")
    await world.patch(world.parent.name, "one", {"status": {"word": "mine"}}, status=True)
    await world.rest("repaired")


@scenario
async def what_brings_a_sync(world: World) -> None:
    """With ignoreStatusChanges: labels, annotations and generation do, finalizers do not."""
    world.answers(status=GOOD)
    await world.start()
    await world.rest("good")
    changes: dict[str, Json] = {
        "finalizers": {"metadata": {"finalizers": ["example.com/wait"]}},
        "no finalizers": {"metadata": {"finalizers": None}},
        "labels": {"metadata": {"labels": {"a": "b"}}},
        "annotations": {"metadata": {"annotations": {"a": "b"}}},
        "spec": {"spec": {"size": 4}},
        "spec as it is": {"spec": {"size": 4}},
    }
    for name, change in changes.items():
        before = len(world.hook.requests)
        await world.patch(world.parent.name, "one", change)
        await world.rest(name, requests=0)
        world.note(name, len(world.hook.requests) > before)


# customize


def _customize(world: World, *rules: Json, children: Iterable[Json] = ()) -> None:
    """Answer customize with these rules, and sync with these children."""

    def script(request: Request) -> Answer:
        if request.target == "/customize":
            return Answer({"relatedResources": list(rules)})
        return Answer({"status": GOOD, "children": list(children)})

    world.hook.script = script


@scenario
async def customize_request(world: World) -> None:
    """Two keys; the whole request is compared."""
    _customize(world)
    await world.start(hooks=["sync", "customize"])
    await world.rest("synced", requests=2)
    world.note("first request", snapshots.request_without_chance(world.asked("/customize")[0]))


@scenario
async def customize_names(world: World) -> None:
    """A related object's coming, changing and going each bring a sync; the rules are asked for once per generation."""
    _customize(world, {"apiVersion": "v1", "resource": "secrets", "names": ["wanted"]})
    await world.start(hooks=["sync", "customize"])
    await world.rest("none", requests=2)
    secret = {"apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"}}
    await world.create({**secret, "metadata": {"name": "other"}})
    await world.rest("another", requests=0)
    before = len(world.asked("/sync"))
    await world.create({**secret, "metadata": {"name": "wanted"}})
    await world.rest("there")
    world.note("syncs for the other", before)
    await world.patch("Secret", "wanted", {"metadata": {"labels": {"a": "b"}}})
    await world.rest("labeled")
    related = world.asked("/sync")[-1]["related"]["Secret.v1"]["wanted"]
    world.note("data", related["data"])
    world.note("labels", related["metadata"]["labels"])
    world.note("asked", len(world.asked("/customize")))
    await world.nudge()
    await world.rest("annotated")
    world.note("asked after an annotation", len(world.asked("/customize")))
    await world.patch(world.parent.name, "one", {"spec": {"size": 4}})
    await world.rest("generation")
    world.note("asked after a generation", len(world.asked("/customize")))
    await world.delete("Secret", "wanted")
    await world.rest("gone")


@scenario
async def customize_label_selector(world: World) -> None:
    """Objects that come to match and cease to match."""
    expression = {"key": "tier", "operator": "In", "values": ["a", "b"]}
    _customize(world, {"apiVersion": "v1", "resource": "secrets", "labelSelector": {"matchExpressions": [expression]}})
    await world.start(hooks=["sync", "customize"])
    await world.rest("none", requests=2)
    secret = {"apiVersion": "v1", "kind": "Secret"}
    await world.create({**secret, "metadata": {"name": "a", "labels": {"tier": "a"}}})
    await world.rest("a")
    await world.create({**secret, "metadata": {"name": "c", "labels": {"tier": "c"}}})
    await world.rest("not c", requests=0)
    await world.patch("Secret", "c", {"metadata": {"labels": {"tier": "b"}}})
    await world.rest("c as well")
    await world.patch("Secret", "a", {"metadata": {"labels": None}})
    await world.rest("a no more")


@scenario
async def customize_of_a_child_kind(world: World) -> None:
    """Own children can be related as well."""
    _customize(world, {"apiVersion": "v1", "resource": "services"}, children=[service()])
    await world.start(hooks=["sync", "customize"])
    await world.rest("made", requests=2)
    await world.create(service("foreign"))
    await world.rest("both")


@scenario
async def customize_empty_rules(world: World) -> None:
    """A rule without names and selector means all of the namespace; no rules mean none."""
    rules: tuple[Json, ...] = (
        {"apiVersion": "v1", "resource": "secrets"},
        {"apiVersion": "apps/v1", "resource": "deployments", "names": []},
        {"apiVersion": "v1", "resource": "services", "labelSelector": {}},
    )
    _customize(world, *rules)
    await world.install(composite_controller(world.parent, world.hook.url, hooks=["sync", "customize"]))
    for namespace in (world.namespace, world.namespace + ELSEWHERE):
        for item in ({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}}, deployment(), service()):
            await world.create({**item, "metadata": {**item["metadata"], "namespace": namespace}})
    await world.create(world.parent_object(spec={}))
    await world.rest("all", requests=2)


@scenario
async def customize_nothing(world: World) -> None:
    """`{}`, `null` and null rules mean no related objects."""
    for size, body in enumerate((b"{}", b"null", b'{"relatedResources": null}', b'{"relatedResources": []}'), 1):
        world.hook.script = lambda request, body=body: (  # type: ignore[misc]
            Answer(body=body) if request.target == "/customize" else Answer({"status": GOOD, "children": []})
        )
        if size == 1:
            await world.start(hooks=["sync", "customize"], parent={"size": 1})
        else:
            await world.patch(world.parent.name, "one", {"spec": {"size": size}})
        await world.rest(body.decode(), requests=2)


@scenario
async def customize_version_2(world: World) -> None:
    """Under v2 another namespace may be named, names match in every namespace, and keys are namespace/name."""
    elsewhere = world.namespace + ELSEWHERE
    rules: tuple[Json, ...] = (
        {"apiVersion": "v1", "resource": "secrets", "names": [f"{world.namespace}-named"]},
        {"apiVersion": "v1", "resource": "services", "namespace": elsewhere},
        {"apiVersion": "apps/v1", "resource": "deployments", "namespace": elsewhere, "labelSelector": {}},
    )
    _customize(world, *rules)
    url = world.hook.url
    hooks = {name: webhook(url, name, version="v2") for name in ("sync", "customize")}
    await world.install(composite_controller(world.parent, url, webhooks=hooks))
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": f"{world.namespace}-named"}}
    for namespace in (world.namespace, elsewhere):
        for item in (secret, deployment(), service()):
            await world.create({**item, "metadata": {**item["metadata"], "namespace": namespace}})
    await world.create(world.parent_object(spec={}))
    await world.rest("all", requests=2)


@scenario
async def customize_version_2_sync_version_1(world: World) -> None:
    """The version of customize governs what is looked up, that of sync what is delivered."""
    elsewhere = world.namespace + ELSEWHERE
    _customize(world, {"apiVersion": "v1", "resource": "services", "namespace": elsewhere})
    url = world.hook.url
    hooks = {"sync": webhook(url, "sync"), "customize": webhook(url, "customize", version="v2")}
    await world.install(composite_controller(world.parent, url, webhooks=hooks))
    item = service()
    await world.create({**item, "metadata": {**item["metadata"], "namespace": elsewhere}})
    await world.create(world.parent_object(spec={}))
    await world.rest("filtered away", requests=2)


ILLEGAL: Final[dict[str, Json]] = {
    "names and labelSelector": {"names": ["x"], "labelSelector": {}},
    "names and namespaceSelector": {"names": ["x"], "namespaceSelector": {}},
    "namespace and namespaceSelector": {"namespace": "x", "namespaceSelector": {}},
    "another namespace": {"namespace": "elsewhere", "names": ["x"]},
    "another namespace and labels": {"namespace": "elsewhere", "labelSelector": {}},
    "namespaceSelector under v1": {"namespaceSelector": {}},
    "no such resource": {"resource": "nothings"},
    "no such version": {"apiVersion": "v7"},
    "no resource": {"resource": ""},
    "unknown key": {"resources": "secrets"},
    "unknown key in a selector": {"labelSelector": {"labels": {}}},
    "unknown operator": {"labelSelector": {"matchExpressions": [{"key": "a", "operator": "Is"}]}},
    "In without values": {"labelSelector": {"matchExpressions": [{"key": "a", "operator": "In"}]}},
    "Exists with values": {"labelSelector": {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}},
    "names: text": {"names": "x"},
    "names: numbers": {"names": [1]},
    "names: null": {"names": None},
    "namespace: number": {"namespace": 1},
    "matchLabels: numbers": {"labelSelector": {"matchLabels": {"a": 1}}},
    "bad label key": {"labelSelector": {"matchLabels": {"a b": "c"}}},
    "bad label value": {"labelSelector": {"matchLabels": {"a": "b c"}}},
}  # fmt: skip
"""Rules that end the sync, and `names: null`, which does not."""


@scenario
async def customize_illegal_rules(world: World) -> None:
    """A rule that is refused keeps the sync hook from being called; a legal one brings it back."""
    secret = {"apiVersion": "v1", "resource": "secrets"}
    _customize(world)
    await world.start(hooks=["sync", "customize"], parent={"size": 1})
    await world.rest("legal", requests=2)
    for index, (name, fields) in enumerate(ILLEGAL.items()):
        _customize(world, secret | fields, children=[config_map()])
        before = len(world.asked("/sync"))
        await world.patch(world.parent.name, "one", {"spec": {"size": 2 + index % 2}})
        await world.rest(name)
        world.note(name, "synced" if len(world.asked("/sync")) > before else "not synced")
    _customize(world, secret, children=[config_map()])
    await world.patch(world.parent.name, "one", {"spec": {"size": 9}})
    await world.rest("legal again", requests=2)


@scenario
async def customize_fails(world: World) -> None:
    """A failing customize hook keeps the sync hook from being called; an unusable answer does, too."""
    bad = (
        ("500", Answer(status=500)), ("list", Answer(body=b"[]")), ("unknown key", Answer({"children": []})),
        ("rules: object", Answer({"relatedResources": {}})), ("rule: text", Answer({"relatedResources": ["x"]})),
    )  # fmt: skip
    for size, (name, answer) in enumerate(bad, 1):
        world.hook.script = lambda request, answer=answer: (  # type: ignore[misc]
            answer if request.target == "/customize" else Answer({"status": GOOD, "children": []})
        )
        if size == 1:
            await world.start(hooks=["sync", "customize"], parent={"size": 1})
        else:
            await world.patch(world.parent.name, "one", {"spec": {"size": size}})
        await world.rest(name)
    world.note("synced", len(world.asked("/sync")))
    _customize(world)
    await world.nudge()
    await world.rest("mended", requests=2)


# Finalizers and deletion


@scenario
async def finalize(world: World) -> None:
    """The finalizer comes first; a deleted parent is finalized with its children in sight until the hook says so."""
    world.answers(config_map(), status=GOOD)
    await world.start(hooks=["sync", "finalize"])
    await world.rest("made")
    world.note("first", world.asked("/sync")[0]["parent"]["metadata"]["finalizers"])
    await world.delete(world.parent.name, "one")
    await world.rest("held")
    request = world.asked("/finalize")[0]
    world.note("finalize request", snapshots.request_without_chance(request)["parent"])
    world.answers(status={"word": "going"})
    await world.nudge()
    await world.rest("without children")
    world.answers(status={"word": "gone"}, finalized=True)
    await world.nudge()
    await world.gone(world.parent.name, "one")
    await world.rest("gone")


@scenario
async def finalized_with_children(world: World) -> None:
    """`finalized: true` with children left: they are the garbage collector's."""
    world.answers(config_map(), service(), status=GOOD)
    await world.start(hooks=["sync", "finalize"])
    await world.rest("made")
    world.answers(config_map(data={"key": "other"}), finalized=True)
    await world.delete(world.parent.name, "one")
    for kind, name in ((world.parent.name, "one"), ("ConfigMap", "one-child"), ("Service", "one-service")):
        await world.gone(kind, name)
    await world.rest("gone")


@scenario
async def finalize_after_finalized(world: World) -> None:
    """Another finalizer keeps the parent alive: finalize is called again, and children are not managed any more."""
    world.answers(config_map(), status=GOOD)
    await world.start(hooks=["sync", "finalize"], metadata={"finalizers": ["example.com/wait"]})
    await world.rest("made")
    world.answers(config_map(data={"key": "other"}), status={"word": "gone"}, finalized=True)
    await world.delete(world.parent.name, "one")
    await world.rest("finalized")
    await world.nudge()
    await world.rest("again")
    await world.patch(world.parent.name, "one", {"metadata": {"finalizers": None}})
    await world.gone("ConfigMap", "one-child")
    await world.rest("gone", requests=0)


@scenario
async def finalized_on_sync_with_finalizer(world: World) -> None:
    """A sync that says `finalized` takes the finalizer away; the next sync puts it back."""
    world.answers(status=GOOD, finalized=True)
    await world.start(hooks=["sync", "finalize"])
    await world.rest("taken away")
    world.answers(status=GOOD)
    await world.nudge()
    await world.rest("back")


@scenario
async def finalized_on_sync_without_finalizer(world: World) -> None:
    """Without a finalize hook it means nothing."""
    world.answers(config_map(), status=GOOD, finalized=True)
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def failing_finalize(world: World) -> None:
    """A failing finalize hook holds the parent and its children."""
    world.answers(config_map(), status=GOOD)
    await world.start(hooks=["sync", "finalize"])
    await world.rest("made")
    world.hook.script = lambda _: Answer(status=500)
    await world.delete(world.parent.name, "one")
    await world.rest("held")
    world.answers(finalized=True)
    await world.nudge()
    await world.gone(world.parent.name, "one")
    await world.gone("ConfigMap", "one-child")
    await world.rest("gone")


@scenario
async def finalize_when_labels_no_longer_match(world: World) -> None:
    """With a labelSelector a parent that no longer matches is finalized without being deleted, and left alone then."""
    selected = {"apiVersion": world.parent.api_version, "resource": world.parent.plural,
                "ignoreStatusChanges": True, "labelSelector": {"matchLabels": {"on": "yes"}}}  # fmt: skip
    world.answers(config_map(), status=GOOD)
    await world.start(hooks=["sync", "finalize"], parentResource=selected, metadata={"labels": {"on": "yes"}})
    await world.rest("made")
    world.answers(status={"word": "going"})
    await world.patch(world.parent.name, "one", {"metadata": {"labels": {"on": "no"}}})
    await world.rest("finalizing")
    world.answers(status={"word": "gone"}, finalized=True)
    await world.nudge()
    await world.rest("finalized")
    await world.nudge()
    await world.rest("left alone", requests=0)


@scenario
async def parent_that_is_not_selected(world: World) -> None:
    """Without the labels of the labelSelector nothing happens; with them it is a parent, and without again none."""
    selected = {"apiVersion": world.parent.api_version, "resource": world.parent.plural,
                "ignoreStatusChanges": True, "labelSelector": {"matchLabels": {"on": "yes"}}}  # fmt: skip
    world.answers(config_map(), status=GOOD)
    await world.start(parentResource=selected)
    await world.rest("not selected", requests=0)
    world.note("asked", len(world.hook.requests))
    await world.patch(world.parent.name, "one", {"metadata": {"labels": {"on": "yes"}}})
    await world.rest("selected")
    world.answers(status={"word": "other"})
    await world.patch(world.parent.name, "one", {"metadata": {"labels": None}})
    await world.rest("no more", requests=0)


@scenario
async def deleted_parent_without_finalize_hook(world: World) -> None:
    """Its children are the garbage collector's."""
    world.answers(config_map(), service(), deployment(), status=GOOD)
    await world.start()
    await world.rest("made")
    await world.delete(world.parent.name, "one")
    for kind, name in (("ConfigMap", "one-child"), ("Service", "one-service"), ("Deployment", "one-server")):
        await world.gone(kind, name)
    await world.rest("gone", requests=0)


@scenario
async def deleting_parent_without_finalize_hook(world: World) -> None:
    """While another finalizer holds it, sync is called, children are left as they are and the status is written."""
    world.answers(config_map(), status=GOOD)
    await world.start(metadata={"finalizers": ["example.com/wait"]})
    await world.rest("made")
    world.answers(config_map("another"), status={"word": "going"})
    await world.delete(world.parent.name, "one")
    await world.rest("going")
    await world.patch("ConfigMap", "one-child", {"data": {"key": "mine"}})
    await world.rest("edited")
    await world.delete("ConfigMap", "one-child")
    await world.rest("child deleted")


@scenario
async def label_stripped_while_the_parent_goes(world: World) -> None:
    """A deleting parent lets go of nothing."""
    world.answers(config_map(), status=GOOD)
    await world.start(metadata={"finalizers": ["example.com/wait"]})
    await world.rest("made")
    await world.delete(world.parent.name, "one")
    await world.rest("going")
    await world.patch("ConfigMap", "one-child", {"metadata": {"labels": None}})
    await world.rest("stripped")


@scenario
async def parent_made_again(world: World) -> None:
    """A parent of the same name is another one: its children are made anew."""
    world.answers(config_map(), status=GOOD)
    await world.start()
    await world.rest("made")
    await world.delete(world.parent.name, "one")
    await world.gone("ConfigMap", "one-child")
    await world.rest("gone", requests=0)
    await world.create(world.parent_object(spec={}))
    await world.rest("made again")


@scenario
async def two_parents(world: World) -> None:
    """Each has its own children; one's answer does not touch the other's."""

    def script(request: Request) -> Answer:
        name = request.content["parent"]["metadata"]["name"]
        return Answer({"status": {"word": name}, "children": [config_map(f"{name}-child"), config_map("shared")]})

    world.hook.script = script
    await world.start()
    await world.rest("one")
    await world.create(world.parent_object("two", spec={}))
    await world.rest("two")


@scenario
async def refused_parent_edit(world: World) -> None:
    """What the schema refuses of a user's edit changes nothing."""
    world.answers(config_map(), status=GOOD)
    await world.start()
    await world.rest("made")
    try:
        await world.patch(world.parent.name, "one", {"spec": {"size": 10}})
        world.note("refused", False)
    except Refused:
        world.note("refused", True)
    await world.rest("as before", requests=0)


