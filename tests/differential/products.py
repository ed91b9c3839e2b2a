"""Scenarios with the product's own hooks, which run in this process on the scenario's clock and are recorded."""

import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import orjson
import yaml

from hooks.app import create_app
from hooks.settings import Settings
from hooks.telemetry import Metrics
from metacontroller.local.apiserver import kinds
from metacontroller.local.apiserver.objects import Kind
from tests.differential.scenarios.registry import Scenario
from tests.differential.snapshots import Exchange, Json
from tests.differential.widgets import pods
from tests.differential.world import World
from tests.hook_server import Request, Response
from tools.repository import ROOT

START: Final = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
"""Time of the hooks' clock when a scenario begins."""
SETTINGS: Final[Json] = {
    "namespaces": "",
    "defaultRemoteBackend": {
        "host": "remote.example.com", "scheme": "https", "pathPrefix": "/$workspace/$model", "workspace": "acme",
    },
    "proxyService": {"namespace": "beamlit-system", "name": "beamlit-gateway", "port": 80},
}  # fmt: skip
"""Content of `config.yaml` of the product under test."""


def _crd(name: str) -> Json:
    # The C loader: every process of a test run reads these files when it collects the tests.
    content: Json = yaml.load((ROOT / "crds" / name).read_text(), Loader=yaml.CSafeLoader)
    return content


_CRD: Final = _crd("deployment.beamlit.com_modeldeployments.yaml")
_POLICY_CRD: Final = _crd("authorization.beamlit.com_policies.yaml")
_KINDS: Final = {kind.name: kind for kind in kinds.read_kinds(ROOT / "crds")}
_KIND: Final = _KINDS["ModelDeployment"]
_POLICY: Final = _KINDS["Policy"]

PRODUCTS: Final[dict[str, Scenario]] = {}
"""Scenarios with the product's hooks, by name."""


class Hooks:
    """The hooks' app behind the hook of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.now = START
        self._client = client(lambda: self.now)
        self._seen: set[str] = set()
        world.hook.script = self._ask

    def pass_time(self, time: timedelta) -> None:
        """Move the clock of hooks forward."""
        self.now += time

    async def _ask(self, request: Request) -> Response:
        response = await _post(self._client, request.target, request.body)
        recorded = _without_bulk(request.content)
        # What a record leaves out must not change the response.
        assert (await _post(self._client, request.target, orjson.dumps(recorded))).content == response.content
        exchange = Exchange(request.target, self.now.isoformat(), recorded, response.status_code, response.json())
        # Most exchanges repeat an earlier one except for resource versions.
        key = re.sub(r'"resourceVersion": "\d+"', "", json.dumps([exchange.target, exchange.now, recorded]))
        if key not in self._seen:
            self._seen.add(key)
            self._world.record.exchanges.append(exchange)
        return Response(response.content, response.status_code)


def client(clock: Callable[[], datetime]) -> httpx.AsyncClient:
    """Return a client for a new app that has this clock."""
    app = create_app(Settings.model_validate(SETTINGS), Metrics(), clock=clock)
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hooks")


async def respond_again(exchange: Exchange) -> tuple[int, Json]:
    """Return status and content of the response that hooks give to a recorded request, at its time."""
    async with client(lambda: datetime.fromisoformat(exchange.now)) as hooks:
        response = await _post(hooks, exchange.target, orjson.dumps(exchange.request))
    return response.status_code, response.json()


async def _post(hooks: httpx.AsyncClient, target: str, body: bytes) -> httpx.Response:
    return await hooks.post(target, content=body, headers={"Content-Type": "application/json"})


def _without_bulk(request: Json) -> Json:
    """Return the request without the parts that hooks do not read: managedFields, and the controller except its
    name."""

    def plain(item: Json) -> Json:
        metadata = {name: value for name, value in item["metadata"].items() if name != "managedFields"}
        return {**item, "metadata": metadata}

    groups: Json = {
        name: {kind: {key: plain(item) for key, item in items.items()} for kind, items in request[name].items()}
        for name in ("children", "related")
        if name in request
    }
    controller = {"metadata": {"name": request["controller"]["metadata"]["name"]}}
    return {**request, **groups, "controller": controller, "parent": plain(request["parent"])}


Run = Callable[[World, Hooks], Awaitable[None]]


def product(run: Run) -> Run:
    """Register a scenario of a ModelDeployment under its function's name."""
    return _registered(run, _KIND, _CRD, "compositecontroller")


def product_of_policies(run: Run) -> Run:
    """Register a scenario of a Policy under its function's name."""
    return _registered(run, _POLICY, _POLICY_CRD, "policies")


def _registered(run: Run, kind: Kind, crd: Json, file: str) -> Run:
    name = run.__name__.replace("_", "-")

    async def whole(world: World) -> None:
        hooks = Hooks(world)
        await world.install(_composite_controller(file, world.hook.url))
        await run(world, hooks)
        # The next scenario has the same kind of parent and must not find this one.
        for parent in [item for item in (await world.objects()).values() if item["kind"] == kind.name]:
            await world.delete(kind.name, parent["metadata"]["name"])
            await world.gone(kind.name, parent["metadata"]["name"])

    PRODUCTS[name] = Scenario(name, whole, kind, crd)
    return run


def _composite_controller(file: str, url: str) -> Json:
    text = (ROOT / f"metacontroller/{file}.yaml").read_text()
    controller: Json = yaml.safe_load(text)
    for hook in controller["spec"]["hooks"].values():
        hook["webhook"]["url"] = url + httpx.URL(hook["webhook"]["url"]).raw_path.decode()
    return controller


def _model(world: World, **spec: Any) -> Json:
    """Return the ModelDeployment `one`, which adopts the Deployment `model` unless it has a server."""
    source = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "model", "namespace": world.namespace}
    adopted = {} if "server" in spec else {"modelSourceRef": source}
    return world.parent_object(spec={"model": "llama", "offloadingConfig": {}, **adopted, **spec})


def _deployment(name: str = "model", replicas: int = 2) -> Json:
    """Return a Deployment as a user writes one."""
    labels = {"app": name}
    template = pods(labels=labels, container={"ports": [{"name": "http", "containerPort": 8000}]})
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


async def _adopted(world: World, **spec: Any) -> None:
    await world.create(_deployment())
    await world.make_ready("model")
    await world.create(_model(world, **spec))
    await world.rest("adopted")


@product
async def model_adopts_a_deployment(world: World, hooks: Hooks) -> None:
    """A ready Deployment is served locally, a second sync writes nothing, and edited or deleted children are
    repaired."""
    await _adopted(world)
    await world.nudge()
    await world.rest("synced again")
    await world.patch("ConfigMap", "one-route", {"data": {"route.json": "{}"}})
    await world.rest("repaired")
    await world.delete("Service", "one-local")
    await world.rest("back")


@product
async def model_without_its_deployment(world: World, hooks: Hooks) -> None:
    """A condition follows the referenced Deployment: missing, created, ready, and deleted again."""
    await world.create(_model(world))
    await world.rest("missing")
    await world.create(_deployment())
    await world.rest("there")
    await world.make_ready("model")
    await world.rest("ready", requests=0)
    await world.delete("Deployment", "model")
    await world.rest("gone")


@product
async def model_with_a_server(world: World, hooks: Hooks) -> None:
    """A model with a server gets a Deployment, which follows a change of the template."""
    template = pods(container={"resources": {"limits": {"cpu": "1000m", "memory": "1024Mi"}}},
                    volumes=[{"name": "scratch", "emptyDir": {}}])  # fmt: skip
    server: Json = {"replicas": 0, "port": 8000, "template": {"spec": template["spec"]}}
    await world.create(_model(world, server=server))
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")
    changed = pods(container={"image": "example.com/server:2"})
    await world.patch(_KIND.name, "one", {"spec": {"server": {"template": {"spec": changed["spec"]}}}})
    await world.rest("another image")


@product
async def model_with_a_gateway_name(world: World, hooks: Hooks) -> None:
    """The Service that leads to the gateway is created, renamed and removed with `gateway.serviceName`."""
    await _adopted(world, gateway={"serviceName": "ask-one"})
    await world.patch(_KIND.name, "one", {"spec": {"gateway": {"serviceName": "ask-two"}}})
    await world.rest("renamed")
    await world.patch(_KIND.name, "one", {"spec": {"gateway": None}})
    await world.rest("removed")


@product
async def model_with_an_override(world: World, hooks: Hooks) -> None:
    """The override sends its share of requests to the remote backend until it ends."""
    override = {"percentage": 30, "until": "2026-03-01T14:00:00Z"}
    backend = {"host": "models.example.com", "scheme": "https"}
    await _adopted(world, offloadingConfig={"remoteBackend": backend, "behavior": {"override": override}})
    hooks.pass_time(timedelta(hours=1))
    await world.nudge()
    await world.rest("an hour later")
    hooks.pass_time(timedelta(hours=2))
    await world.nudge()
    await world.rest("over")


@product
async def model_of_another_namespace(world: World, hooks: Hooks) -> None:
    """A reference to another namespace is not accepted: a new model gets no children, and a serving one keeps its
    own."""
    elsewhere = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "model", "namespace": "elsewhere"}
    await world.create(_model(world, modelSourceRef=elsewhere))
    await world.rest("not accepted")
    await world.create(_deployment())
    await world.make_ready("model")
    await world.patch(_KIND.name, "one", {"spec": {"modelSourceRef": {"namespace": world.namespace}}})
    await world.rest("accepted")
    await world.patch(_KIND.name, "one", {"spec": {"modelSourceRef": {"namespace": "elsewhere"}}})
    await world.rest("kept")


@product
async def model_whose_name_is_taken(world: World, hooks: Hooks) -> None:
    """A condition names the foreign ConfigMap that has the name of the route."""
    await world.create(_deployment())
    await world.make_ready("model")
    await world.create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one-route"}, "data": {"a": "b"}})
    await world.create(_model(world))
    await world.rest("first")
    await world.nudge()
    await world.rest("named")
    await world.delete("ConfigMap", "one-route")
    await world.nudge()
    await world.rest("free")


@product
async def model_that_is_deleted(world: World, hooks: Hooks) -> None:
    """The children of a deleted model are deleted, and its adopted Deployment stays."""
    await _adopted(world, gateway={"serviceName": "ask-one"})
    await world.delete(_KIND.name, "one")
    for kind, name in (("ConfigMap", "one-route"), ("Service", "one-local"), ("Service", "ask-one")):
        await world.gone(kind, name)
    await world.rest("gone", requests=0)


@product_of_policies
async def policy_without_children(world: World, hooks: Hooks) -> None:
    """A Policy gets a status and no children, and the status follows a change and names a mistake."""
    places = [{"type": "country", "name": "fr"}]
    await world.create(world.parent_object(spec={"type": "location", "locations": places}))
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")
    await world.patch(_POLICY.name, "one", {"spec": {"locations": [{"type": "country", "name": "nowhere"}]}})
    await world.rest("no such country")
    await world.delete(_POLICY.name, "one")
    await world.gone(_POLICY.name, "one")
    await world.rest("gone", requests=0)
