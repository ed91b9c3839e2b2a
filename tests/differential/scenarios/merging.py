"""Children: the three-way merge with what others wrote."""

from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.snapshots import Json
from tests.differential.widgets import config_map, deployment, pods, service
from tests.differential.world import World
from tests.hook_server import Request, Response


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
async def two_items_of_one_key(world: World) -> None:
    """Two items of one key become the same one: a Service with a port for TCP and for UDP can never be updated."""
    ports = [{"name": "tcp", "port": 53, "protocol": "TCP"}, {"name": "udp", "port": 53, "protocol": "UDP"}]
    env = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    world.answers(service(ports=ports), deployment(template=pods(container={"env": env})))
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def order_of_merge_keys(world: World) -> None:
    """Of several fields that could be the key the first in Metacontroller's order is it."""
    ports = [{"name": "a", "containerPort": 1}, {"name": "b", "containerPort": 2}]
    mounts = [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]
    volumes = [{"name": "v", "emptyDir": {}}]
    world.answers(deployment(template=pods(container={"ports": ports, "volumeMounts": mounts}, volumes=volumes)))
    await world.start()
    await world.rest("made")
    ports = [{"name": "c", "containerPort": 2}, {"name": "d", "containerPort": 3}]
    mounts = [{"name": "v", "mountPath": "/c"}, {"name": "v", "mountPath": "/b", "subPath": "x"}]
    world.answers(deployment(template=pods(container={"ports": ports, "volumeMounts": mounts}, volumes=volumes)))
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
    world.answers(config_map(data={"b": '<a&b> \u2028 é 😀 " \\ / \t \x7f', "a": ""}, immutable=False))
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

    def script(request: Request) -> Response:
        seen = [dict(item) for item in request.content["children"]["ConfigMap.v1"].values()]
        return Response({"status": {}, "children": seen or [config_map()]})

    world.hook.script = script
    await world.start()
    await world.until(lambda: len(world.hook.requests) >= 3, "some rounds")
    world.answers(config_map())
    await world.nudge()
    await world.until(lambda: _equals(world, {"key": "value"}), "it is as wanted")
    world.note("data", (await world.get("ConfigMap", "one-child"))["data"])


async def _equals(world: World, data: Json) -> bool:
    return bool((await world.get("ConfigMap", "one-child"))["data"] == data)
