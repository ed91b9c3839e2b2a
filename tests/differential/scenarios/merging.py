"""Children: the three-way merge of desired fields with those that other clients wrote."""

from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.snapshots import Json
from tests.differential.widgets import config_map, deployment, pods, service
from tests.differential.world import World
from tests.hook_server import Request, Response


@scenario
async def map_updated_in_place(world: World) -> None:
    """Keys of a map are added, changed and removed one by one."""
    world.respond(config_map(data={"a": "1", "b": "2", "c": "3"}))
    await world.start()
    await world.rest("made")
    world.respond(config_map(data={"a": "1", "b": "two", "d": "4"}))
    await world.nudge()
    await world.rest("updated")


@scenario
async def list_with_merge_key(world: World) -> None:
    """Lists of objects with a name or port are merged item by item, and items that a user added stay."""
    first = {"name": "http", "port": 80}
    env = [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]
    world.respond(service(ports=[first]), deployment(template=pods(container={"env": env})))
    await world.start()
    await world.rest("made")
    sidecar = {"name": "sidecar", "image": "example.com/sidecar:1"}
    template = (await world.get("Deployment", "one-server"))["spec"]["template"]["spec"]
    change = {"spec": {"template": {"spec": {"containers": [*template["containers"], sidecar]}}}}
    await world.patch("Deployment", "one-server", change)
    await world.rest("a sidecar")
    env = [{"name": "C", "value": "3"}, {"name": "B", "value": "two"}]
    second = {"name": "more", "port": 81, "targetPort": "http"}
    world.respond(service(ports=[second, first]), deployment(template=pods(container={"env": env})))
    await world.nudge()
    await world.rest("updated")


@scenario
async def two_items_of_one_key(world: World) -> None:
    """Two items with one merge key become the same item, so a Service with one port for TCP and UDP cannot be
    updated."""
    ports = [{"name": "tcp", "port": 53, "protocol": "TCP"}, {"name": "udp", "port": 53, "protocol": "UDP"}]
    env = [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]
    world.respond(service(ports=ports), deployment(template=pods(container={"env": env})))
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def order_of_merge_keys(world: World) -> None:
    """Where several fields could be the merge key, the first in Metacontroller's order is used."""
    ports = [{"name": "a", "containerPort": 1}, {"name": "b", "containerPort": 2}]
    mounts = [{"name": "v", "mountPath": "/a"}, {"name": "v", "mountPath": "/b"}]
    volumes = [{"name": "v", "emptyDir": {}}]
    world.respond(deployment(template=pods(container={"ports": ports, "volumeMounts": mounts}, volumes=volumes)))
    await world.start()
    await world.rest("made")
    ports = [{"name": "c", "containerPort": 2}, {"name": "d", "containerPort": 3}]
    mounts = [{"name": "v", "mountPath": "/c"}, {"name": "v", "mountPath": "/b", "subPath": "x"}]
    world.respond(deployment(template=pods(container={"ports": ports, "volumeMounts": mounts}, volumes=volumes)))
    await world.nudge()
    await world.rest("updated")


@scenario
async def list_without_merge_key(world: World) -> None:
    """A list without a merge key is replaced whole."""
    tolerations = [{"key": "a", "operator": "Exists"}, {"operator": "Exists", "effect": "NoSchedule"}]
    world.respond(deployment(template=pods(container={"args": ["1", "2"]}, tolerations=tolerations)))
    await world.start()
    await world.rest("made")
    spec = {"tolerations": [{"key": "mine", "operator": "Exists"}]}
    await world.patch("Deployment", "one-server", {"spec": {"template": {"spec": spec}}})
    await world.rest("repaired")
    world.respond(deployment(template=pods(container={"args": ["2"]}, tolerations=tolerations[1:])))
    await world.nudge()
    await world.rest("updated")


@scenario
async def field_removed(world: World) -> None:
    """A field that the hook no longer returns is removed, and the API server's default comes back."""
    world.respond(deployment(replicas=0, minReadySeconds=5), service(sessionAffinity="ClientIP"))
    await world.start()
    await world.rest("made")
    world.respond(deployment(replicas=...), service())
    await world.nudge()
    await world.rest("defaults")


@scenario
async def metadata_removed(world: World) -> None:
    """Labels and annotations that the hook no longer returns are removed, and those of a user stay."""
    metadata = {"labels": {"a": "1", "b": "2"}, "annotations": {"a": "1", "b": "2"}}
    world.respond(config_map(metadata=metadata))
    await world.start()
    await world.rest("made")
    mine = {"labels": {"mine": "yes"}, "annotations": {"mine": "yes"}}
    await world.patch("ConfigMap", "one-child", {"metadata": mine})
    await world.rest("a user's")
    world.respond(config_map(metadata={"labels": {"a": "1"}}))
    await world.nudge()
    await world.rest("removed")


@scenario
async def nulls_and_empty_values(world: World) -> None:
    """Nulls and empty values, which the API server does not store, cause no write at the next sync."""
    template = pods(container={"env": [], "args": None}, tolerations=[], nodeSelector={}, volumes=None)
    world.respond(
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
    """Whole floats and quantities that are not canonical cause no write at the next sync."""
    resources = {"limits": {"cpu": 1, "memory": "1.5Gi"}, "requests": {"cpu": "250.0m", "memory": 1048576}}
    template = pods(container={"resources": resources}, terminationGracePeriodSeconds=30.0)
    world.respond(deployment(template=template, replicas=0.0), service(ports=[{"port": 80.0}]))
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def last_applied_text(world: World) -> None:
    """The last-applied annotation has the JSON that Go writes: sorted, compact and escaped."""
    world.respond(config_map(data={"b": '<a&b> \u2028 é 😀 " \\ / \t \x7f', "a": ""}, immutable=False))
    await world.start()
    await world.rest("made")


@scenario
async def users_additions_survive(world: World) -> None:
    """A label, an annotation and fields that a user adds stay, and nothing is written because of them."""
    world.respond(config_map(), service())
    await world.start()
    await world.rest("made")
    mine = {"labels": {"mine": "yes"}, "annotations": {"mine": "yes"}}
    await world.patch("ConfigMap", "one-child", {"metadata": mine, "data": {"mine": "yes"}})
    await world.patch("Service", "one-service", {"metadata": mine, "spec": {"publishNotReadyAddresses": True}})
    await world.rest("added")
    world.respond(config_map(data={"key": "other"}), service(sessionAffinity="ClientIP"))
    await world.nudge()
    await world.rest("updated")


@scenario
async def edited_field_is_repaired(world: World) -> None:
    """A desired field that a user changes is set back."""
    world.respond(config_map(), service(), deployment())
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
    """A removed last-applied annotation is written again, and a key that the hook stopped returning meanwhile stays."""
    world.respond(config_map(data={"a": "1", "b": "2"}))
    await world.start()
    await world.rest("made")
    world.respond(config_map(data={"a": "1"}))
    await world.patch("ConfigMap", "one-child", {"metadata": {"annotations": None}})
    await world.rest("again")


@scenario
async def damaged_annotation(world: World) -> None:
    """A child whose last-applied annotation is no JSON object is not updated; with a null or empty one it is
    repaired."""
    world.respond(config_map(), service(), status=GOOD)
    await world.start()
    await world.rest("made")
    for point, text in (("no JSON", "{"), ("no object", "[1]"), ("null", "null"), ("empty", "")):
        annotations = {"metacontroller.k8s.io/last-applied-configuration": text}
        await world.patch("ConfigMap", "one-child", {"metadata": {"annotations": annotations}, "data": {"key": point}})
        await world.rest(point)


@scenario
async def map_becomes_something_else(world: World) -> None:
    """A map that becomes a text loses its keys, and a list that becomes a map is refused."""
    world.respond(config_map(), service())
    await world.start()
    await world.rest("made")
    world.respond(config_map(data="text"), service(ports={"http": 80}), status=GOOD)
    await world.nudge()
    await world.rest("changed")


@scenario
async def scalar_becomes_a_map(world: World) -> None:
    """A map in the place of a text is refused by the API server, and the other children are applied."""
    world.respond(config_map())
    await world.start()
    await world.rest("made")
    world.respond(config_map(data={"key": {"a": "b"}}), service(), status=GOOD)
    await world.nudge()
    await world.rest("refused")


@scenario
async def status_of_a_child_is_not_ours(world: World) -> None:
    """A status in a desired child changes nothing."""
    ingress = {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}
    world.respond(service() | {"status": ingress})
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def system_metadata_of_a_child(world: World) -> None:
    """The API server ignores uid, generation and times in a desired child."""
    metadata = {"uid": "x", "generation": 7, "creationTimestamp": "2020-01-01T00:00:00Z", "selfLink": "/x"}
    world.respond(config_map(metadata=metadata))
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def resource_version_of_a_child(world: World) -> None:
    """A desired child with a resourceVersion cannot be created; once the child exists, the version has no effect."""
    world.respond(config_map(metadata={"resourceVersion": "1"}), service(), status=GOOD)
    await world.start()
    await world.rest("not made")
    world.respond(config_map(), service(), status=GOOD)
    await world.nudge()
    await world.rest("made")
    world.respond(config_map(metadata={"resourceVersion": "1"}, data={"key": "other"}), service(), status=GOOD)
    await world.nudge()
    await world.rest("updated")


@scenario
async def observed_child_echoed(world: World) -> None:
    """A hook that returns the observed children makes all their fields its own, and comes to rest after one round."""

    def script(request: Request) -> Response:
        seen = [dict(item) for item in request.content["children"]["ConfigMap.v1"].values()]
        return Response({"status": {}, "children": seen or [config_map()]})

    world.hook.script = script
    await world.start()
    await world.until(lambda: len(world.hook.requests) >= 3, "some rounds")
    world.respond(config_map())
    await world.nudge()
    await world.until(lambda: _equals(world, {"key": "value"}), "it is as desired")
    world.note("data", (await world.get("ConfigMap", "one-child"))["data"])


async def _equals(world: World, data: Json) -> bool:
    return bool((await world.get("ConfigMap", "one-child"))["data"] == data)
