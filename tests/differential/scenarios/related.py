"""Related objects: the customize hook and its rules."""

from collections.abc import Iterable
from typing import Final

from tests.differential import snapshots
from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.snapshots import Json
from tests.differential.widgets import config_map, deployment, service
from tests.differential.world import ELSEWHERE, World, composite_controller, webhook
from tests.hook_server import Request, Response


def _customize(world: World, *rules: Json, children: Iterable[Json] = ()) -> None:
    """Respond to customize with these rules, and to sync with these children."""

    def script(request: Request) -> Response:
        if request.target == "/customize":
            return Response({"relatedResources": list(rules)})
        return Response({"status": GOOD, "children": list(children)})

    world.hook.script = script


def _secret(name: str, **metadata: Json) -> Json:
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, **metadata}, "stringData": {"a": "b"}}


@scenario
async def customize_request(world: World) -> None:
    """The request to customize has two keys, and its whole content is compared."""
    _customize(world)
    await world.start(hooks=["sync", "customize"])
    await world.rest("synced", requests=2)
    world.note("first request", snapshots.request_without_chance(world.asked("/customize")[0]))


@scenario
async def customize_names(world: World) -> None:
    """A related object that is created, changed or deleted brings a sync; customize is called once per generation."""
    _customize(world, {"apiVersion": "v1", "resource": "secrets", "names": ["wanted"]})
    await world.start(hooks=["sync", "customize"])
    await world.rest("none", requests=2)
    await world.create(_secret("other"))
    await world.rest("another", requests=0)
    before = len(world.asked("/sync"))
    await world.create(_secret("wanted"))
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
    """An object that begins or ceases to match a label selector brings a sync."""
    expression = {"key": "tier", "operator": "In", "values": ["a", "b"]}
    _customize(world, {"apiVersion": "v1", "resource": "secrets", "labelSelector": {"matchExpressions": [expression]}})
    await world.start(hooks=["sync", "customize"])
    await world.rest("none", requests=2)
    await world.create(_secret("a", labels={"tier": "a"}))
    await world.rest("a")
    await world.create(_secret("c", labels={"tier": "c"}))
    await world.rest("not c", requests=0)
    await world.patch("Secret", "c", {"metadata": {"labels": {"tier": "b"}}})
    await world.rest("c as well")
    await world.patch("Secret", "a", {"metadata": {"labels": None}})
    await world.rest("a no more")


@scenario
async def customize_of_a_child_kind(world: World) -> None:
    """A parent's own children can be related objects as well."""
    _customize(world, {"apiVersion": "v1", "resource": "services"}, children=[service()])
    await world.start(hooks=["sync", "customize"])
    await world.rest("made", requests=2)
    await world.create(service("foreign"))
    await world.rest("both")


@scenario
async def customize_empty_rules(world: World) -> None:
    """A rule without names and selector selects all objects of the namespace, and without rules there are none."""
    rules: tuple[Json, ...] = (
        {"apiVersion": "v1", "resource": "secrets"},
        {"apiVersion": "apps/v1", "resource": "deployments", "names": []},
        {"apiVersion": "v1", "resource": "services", "labelSelector": {}},
    )
    _customize(world, *rules)
    await world.install(composite_controller(world.parent, world.hook.url, hooks=["sync", "customize"]))
    for namespace in (world.namespace, world.namespace + ELSEWHERE):
        for item in (_secret("a"), deployment(), service()):
            await world.create({**item, "metadata": {**item["metadata"], "namespace": namespace}})
    await world.create(world.parent_object(spec={}))
    await world.rest("all", requests=2)


@scenario
async def customize_nothing(world: World) -> None:
    """A customize response of `{}`, `null` or null rules selects no related objects."""
    for size, body in enumerate((b"{}", b"null", b'{"relatedResources": null}', b'{"relatedResources": []}'), 1):
        world.hook.script = lambda request, body=body: (  # type: ignore[misc]
            Response(body=body) if request.target == "/customize" else Response({"status": GOOD, "children": []})
        )
        if size == 1:
            await world.start(hooks=["sync", "customize"], parent={"size": 1})
        else:
            await world.patch(world.parent.name, "one", {"spec": {"size": size}})
        await world.rest(body.decode(), requests=2)


@scenario
async def customize_version_2(world: World) -> None:
    """Under v2 a rule may name another namespace, names match in every namespace, and keys are namespace/name."""
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
    secret = _secret(f"{world.namespace}-named")
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


@scenario
async def customize_namespace_selector(world: World) -> None:
    """Under v2 a rule may select namespaces by their labels; under v1 such a rule is refused."""
    elsewhere = world.namespace + ELSEWHERE
    selector = {"matchLabels": {"kubernetes.io/metadata.name": elsewhere}}
    _customize(
        world,
        {"apiVersion": "v1", "resource": "services", "namespaceSelector": selector},
        {"apiVersion": "v1", "resource": "secrets", "namespaceSelector": selector,
         "labelSelector": {"matchLabels": {"tier": "a"}}},
    )  # fmt: skip
    url = world.hook.url
    hooks = {name: webhook(url, name, version="v2") for name in ("sync", "customize")}
    await world.install(composite_controller(world.parent, url, webhooks=hooks))
    for namespace in (world.namespace, elsewhere):
        for item in (_secret("a", labels={"tier": "a"}), _secret("b"), service()):
            await world.create({**item, "metadata": {**item["metadata"], "namespace": namespace}})
    await world.create(world.parent_object(spec={}))
    await world.rest("selected", requests=2)


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
    "Exists with values": {"labelSelector": {"matchExpressions": [
        {"key": "a", "operator": "Exists", "values": ["b"]}]}},
    "names: text": {"names": "x"},
    "names: numbers": {"names": [1]},
    "names: null": {"names": None},
    "namespace: number": {"namespace": 1},
    "matchLabels: numbers": {"labelSelector": {"matchLabels": {"a": 1}}},
    "bad label key": {"labelSelector": {"matchLabels": {"a b": "c"}}},
    "bad label value": {"labelSelector": {"matchLabels": {"a": "b c"}}},
}  # fmt: skip
"""Rules that end the sync, by name; `names: null` alone does not."""


@scenario
async def customize_illegal_rules(world: World) -> None:
    """A rule that is refused keeps the sync hook from being called, and a legal one brings it back."""
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
    """A customize hook that fails or returns an unusable response keeps the sync hook from being called."""
    bad = (
        ("500", Response(status=500)), ("list", Response(body=b"[]")), ("unknown key", Response({"children": []})),
        ("rules: object", Response({"relatedResources": {}})), ("rule: text", Response({"relatedResources": ["x"]})),
    )  # fmt: skip
    for size, (name, response) in enumerate(bad, 1):
        world.hook.script = lambda request, response=response: (  # type: ignore[misc]
            response if request.target == "/customize" else Response({"status": GOOD, "children": []})
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
