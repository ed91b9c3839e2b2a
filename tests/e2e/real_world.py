"""The real Metacontroller as a world: on a control plane of its own, reached over the Kubernetes API."""

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import yaml

from metacontroller.local.apiserver.objects import BUILT_IN, Kind
from tests.chart.helm import METACONTROLLER_CRDS
from tests.deadlines import NEVER
from tests.differential.catalog import ALL
from tests.differential.running import Opening
from tests.differential.scenarios.registry import Scenario
from tests.differential.snapshots import Json, Record
from tests.differential.world import ELSEWHERE, SEEN, Refused, World
from tests.e2e.binaries import find
from tests.e2e.controlplane import NODE, ControlPlane
from tests.e2e.product import SYSTEM
from tests.hook_server import HookServer, Response

CONTROLLERS: Final = Kind("metacontroller.k8s.io", "v1alpha1", "CompositeController", "compositecontrollers", False)
_NOT_OURS: Final = ("kube-root-ca.crt",)
"""Names of objects that a control plane puts into every namespace."""


class Cluster:
    """A control plane with the real Metacontroller, for scenarios."""

    def __init__(self, plane: ControlPlane) -> None:
        self.plane = plane
        self.ends: dict[str, list[datetime]] = {}
        """Times at which each point of a scenario was recorded."""

    def start(self, crds: Iterable[Json]) -> None:
        """Install CRDs, then start Metacontroller."""
        plane = self.plane
        documents = yaml.safe_dump_all([*crds])
        for words in (("-f", os.environ[METACONTROLLER_CRDS]), ("-f", "-")):
            plane.kubectl("apply", "--server-side", *words, stdin=documents)
            plane.kubectl("wait", "--for=condition=Established", "--timeout=100s", *words, stdin=documents)
        plane.kubectl("cordon", NODE)  # pods wait until a scenario makes them ready
        plane.kubectl("create", "namespace", SYSTEM)
        plane.kubectl("create", "serviceaccount", SYSTEM, "-n", SYSTEM)
        # Scenarios have children of any kind; other tests cover the rights that the project's own rules give.
        account = f"--serviceaccount={SYSTEM}:{SYSTEM}"
        plane.kubectl("create", "clusterrolebinding", SYSTEM, "--clusterrole=cluster-admin", account)
        program = find("metacontroller")
        assert program is not None
        self.metacontroller = plane.run(
            "metacontroller",
            str(program),
            *("--kubeconfig", str(plane.service_account(SYSTEM, SYSTEM)), "--discovery-interval=1s", "--workers=5"),
            *("--client-go-qps=500", "--client-go-burst=1000", "--events-qps=1", "--events-burst=25"),
            *("--metrics-address=0", "--health-probe-bind-address=0"),
        )

    def opening(self) -> Opening:
        """Yield a world for a scenario, with namespaces of its own."""
        content = yaml.safe_load(self.plane.kubeconfig.read_text())
        headers = {"Authorization": f"Bearer {content['users'][0]['user']['token']}"}
        context = ssl.create_default_context(cafile=str(self.plane.certificate))

        @asynccontextmanager
        async def opening(scenario: Scenario) -> AsyncIterator[World]:
            async with (
                httpx.AsyncClient(
                    base_url=self.plane.url, headers=headers, verify=context, trust_env=False, timeout=30
                ) as client,
                HookServer(lambda _: Response()) as hook,
            ):
                world = RealWorld(scenario.name, scenario.parent, hook, client)
                self.ends[scenario.name] = world.ends
                await world.open()
                try:
                    yield world
                finally:
                    await world.close()

        return opening

    def count(self, records: dict[str, Record]) -> None:
        """Fill in the effective writes of every point, from the audit log."""
        plurals = {kind.plural: kind.name for kind in BUILT_IN}
        user = f"system:serviceaccount:{SYSTEM}:{SYSTEM}"
        for entry in self.plane.writes():
            if entry["user"] != user or not entry["effective"]:
                continue
            namespace = entry["namespace"]
            scenario = namespace.removesuffix(ELSEWHERE)
            if scenario not in records:
                continue
            plural, _, subresource = entry["resource"].partition("/")
            kind = plurals.get(plural) or ALL[scenario].parent.name
            place = (kind, entry["name"]) if namespace == scenario else (kind, namespace, entry["name"])
            name = "/".join((*place, *((subresource,) if subresource else ())))
            time = datetime.fromisoformat(entry["time"])
            points = zip(records[scenario].points, self.ends[scenario], strict=True)
            point = next((point for point, end in points if time <= end), None)
            if point is not None:
                point.wrote(f"{entry['verb'].replace('patch', 'update')} {name}")


class RealWorld(World):
    """A world of two namespaces on a control plane."""

    quiet = 1.2
    patience = NEVER

    def __init__(self, namespace: str, parent: Kind, hook: HookServer, client: httpx.AsyncClient) -> None:
        super().__init__(namespace, parent, hook)
        self.ends: list[datetime] = []
        self._client = client
        self._controllers: list[str] = []

    async def open(self) -> None:
        """Create the namespaces."""
        for name in (self.namespace, self.namespace + ELSEWHERE):
            item = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
            await self._send("POST", "/api/v1/namespaces", item)

    async def close(self) -> None:
        """Delete the CompositeControllers, so that Metacontroller leaves the scenario alone."""
        for name in self._controllers:
            await self._send("DELETE", _path(CONTROLLERS, "", name))

    async def install(self, controller: Json) -> None:
        """Register a CompositeController with Metacontroller."""
        await self._send("POST", _path(CONTROLLERS, ""), controller)
        self._controllers.append(controller["metadata"]["name"])

    async def post(self, item: Json) -> Json:
        """Create an object with POST."""
        made: Json = await self._send("POST", _path(self.kinds[item["kind"]], item["metadata"]["namespace"]), item)
        return made

    async def merge(self, kind: Kind, name: str, change: Json, *, status: bool) -> None:
        """Apply a merge patch with PATCH."""
        path = _path(kind, self.namespace, name) + ("/status" if status else "")
        await self._send("PATCH", path, change, "application/merge-patch+json")

    async def remove(self, kind: Kind, name: str) -> None:
        """Delete an object with DELETE."""
        await self._send("DELETE", _path(kind, self.namespace, name), {"propagationPolicy": "Background"})

    async def objects(self) -> dict[str, Json]:
        """Return every object of the scenario, from lists of every kind that counts."""
        objects = {}
        for kind in (self.parent, *(self.kinds[name] for name in SEEN)):
            for namespace in (self.namespace, self.namespace + ELSEWHERE):
                listed = await self._send("GET", _path(kind, namespace))
                for item in listed["items"]:
                    name = item["metadata"]["name"]
                    if name not in _NOT_OURS:
                        head = {"apiVersion": kind.api_version, "kind": kind.name}
                        objects[self._key(kind.name, name, namespace)] = head | item
        return objects

    async def make_ready(self, name: str) -> None:
        """Let pods onto the node, and wait until kwok has them run."""
        await self._open_node(True)
        try:
            await self._until_ready(name)
        finally:
            await self._open_node(False)

    async def _open_node(self, is_open: bool) -> None:
        change = {"spec": {"unschedulable": not is_open}}
        await self._send("PATCH", f"/api/v1/nodes/{NODE}", change, "application/merge-patch+json")

    async def _until_ready(self, name: str) -> None:

        async def ready() -> bool:
            item = await self.get("Deployment", name)
            desired, status = item["spec"]["replicas"], item.get("status", {})
            current = status.get("observedGeneration") == item["metadata"]["generation"]
            return bool(current and status.get("readyReplicas", 0) == status.get("updatedReplicas", 0) == desired)

        await self.until(ready, f"{name} is ready")

    def rested(self) -> None:
        """Remember the time: the writes of each point are counted at the end."""
        self.ends.append(datetime.now(UTC))

    async def _send(self, method: str, path: str, body: Json | None = None, kind: str = "application/json") -> Any:
        content = None if body is None else httpx.Request("POST", "http://x", json=body).content
        response = await self._client.request(method, path, content=content, headers={"Content-Type": kind})
        while response.status_code == 429:  # a CRD's storage is being set up
            await asyncio.sleep(0.2)
            response = await self._client.request(method, path, content=content, headers={"Content-Type": kind})
        if response.status_code in (400, 403, 409, 422):
            raise Refused(response.json()["message"])
        response.raise_for_status()
        return response.json()


def _path(kind: Kind, namespace: str, name: str = "") -> str:
    start = f"/apis/{kind.api_version}" if kind.group else f"/api/{kind.api_version}"
    scope = f"/namespaces/{namespace}" if namespace else ""
    return f"{start}{scope}/{kind.plural}" + (f"/{name}" if name else "")
