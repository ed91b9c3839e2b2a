"""Children as the API server stores or refuses them."""

from typing import Any

from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.widgets import RICH, config_map, deployment, pods, service
from tests.differential.world import World, rule


@scenario
async def defaults_of_workloads(world: World) -> None:
    """With every default of a pod template, each kind of workload comes to rest."""
    parts: dict[str, Any] = {"selector": {"matchLabels": {"app": "one"}}, "template": RICH}
    plain: dict[str, Any] = {"selector": {"matchLabels": {"app": "two"}}, "template": pods(labels={"app": "two"})}
    world.respond(
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
    """Services of every type come to rest, also after a change from one type to another."""
    world.respond(
        service("plain"),
        service("headless", clusterIP="None"),
        service("outside", type="ExternalName", externalName="example.com", ports=[]),
        service("two", ports=[{"name": "a", "port": 80, "targetPort": "http"}, {"name": "b", "port": 81}]),
        service("turns"),
    )
    await world.start()
    await world.rest("made")
    world.respond(
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
    """stringData of a Secret is written once, and its data and type are kept."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "one-secret"}, "stringData": {"a": "b"}}
    world.respond(secret)
    await world.start(childResources=[rule("v1", "secrets")])
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def immutable_selector(world: World) -> None:
    """A Deployment whose selector changes is refused, the other children are applied and the status is written."""
    world.respond(deployment(), status={"word": "before"})
    await world.start()
    await world.rest("made")
    labels = {"app": "one", "more": "yes"}
    changed = deployment(selector={"matchLabels": labels}, template=pods(labels=labels))
    world.respond(changed, config_map(), status={"word": "after"})
    await world.nudge()
    await world.rest("refused")


@scenario
async def headless_flip(world: World) -> None:
    """A Service with a cluster IP that should become headless is refused."""
    world.respond(service())
    await world.start()
    await world.rest("made")
    world.respond(service(clusterIP="None"), config_map(), status={"word": "after"})
    await world.nudge()
    await world.rest("refused")


@scenario
async def immutable_config_map(world: World) -> None:
    """An immutable ConfigMap keeps its data, and its labels can change."""
    world.respond(config_map(immutable=True))
    await world.start()
    await world.rest("made")
    world.respond(config_map(immutable=True, data={"key": "other"}), status=GOOD)
    await world.nudge()
    await world.rest("refused")
    world.respond(config_map(immutable=True, metadata={"labels": {"a": "b"}}), status=GOOD)
    await world.nudge()
    await world.rest("labeled")


@scenario
async def annotations_too_large(world: World) -> None:
    """A ConfigMap whose copy in the annotation exceeds 256 KiB is neither created nor updated."""
    world.respond(config_map(data={"big": "x" * 262144}), config_map("second"), status=GOOD)
    await world.start()
    await world.rest("not made")
    world.respond(config_map(), status=GOOD)
    await world.nudge()
    await world.rest("made")
    world.respond(config_map(data={"big": "x" * 262144}), status=GOOD)
    await world.nudge()
    await world.rest("not updated")


@scenario
async def invalid_children(world: World) -> None:
    """Children that the API server refuses are missing, and all others are created."""
    world.respond(
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
        deployment("no-image", template=pods(container={"image": None})),
        deployment("mismatch", template=pods(labels={"app": "other"})),
        deployment("odd-name", template=pods(container={"name": "Not_A_Name"})),
        deployment("negative", replicas=-1),
        deployment("twice", template=pods(container={"ports": [{"containerPort": 80, "name": "UPPER"}]})),
        status=GOOD,
    )  # fmt: skip
    await world.start()
    await world.rest("what is left")
