"""Hooks with a platform, an API server and a turn of Metacontroller after another over several objects."""

import copy
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
import yaml

from hooks.app import create_app
from hooks.clients.apiserver import ApiServer as Cluster
from hooks.kube.objects import key_of
from hooks.platform.beamlit import registrar
from hooks.platform.beamlit.client import Beamlit
from hooks.platform.beamlit.credentials import Account, Accounts, Fixed
from hooks.platform.beamlit.registrar import Registrar
from hooks.settings import Settings
from hooks.telemetry import Metrics
from tests.builders import NOW, Json, observed, request_body
from tests.integration.apiserver import ApiServer
from tests.platform import CLIENT_ID, SECRET, Platform

PLURALS: Final = {"ModelDeployment": "modeldeployments", "Policy": "policies"}
SETTINGS: Final = {
    "namespaces": "",
    "defaultRemoteBackend": {"host": "run.example.com", "pathPrefix": "/$workspace/$model"},
}


def kubeconfig(folder: Path, port: int) -> Path:
    """A kubeconfig of a scripted API server."""
    content = {
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{port}/"}}],
        "users": [{"name": "x", "user": {"token": "of-the-service-account"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    (folder / "kubeconfig").write_text(yaml.safe_dump(content))
    return folder / "kubeconfig"


@contextmanager
def running() -> Iterator[tuple[Platform, ApiServer]]:
    """A platform and an API server."""
    platform, api = Platform(), ApiServer()
    platform.start()
    api.start()
    try:
        yield platform, api
    finally:
        platform.stop()
        api.stop()


class World:
    """What a cluster holds of the objects that hooks are asked about, and the hooks."""

    def __init__(
        self, platform: Platform, api: ApiServer, hooks: httpx.AsyncClient, beamlit: Beamlit, metrics: Metrics
    ) -> None:
        self.platform, self.api, self.metrics = platform, api, metrics
        self.beamlit = beamlit
        self.now = NOW
        self.related: list[Json] = []
        self.children: dict[str, list[Json]] = {}
        """By uid of the parent."""
        self.answers: list[httpx.Response] = []
        self._hooks = hooks

    def path(self, item: Json) -> str:
        """Where the API server has an object."""
        metadata = item["metadata"]
        plural = PLURALS[item["kind"]]
        return f"/apis/{item['apiVersion']}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"

    def apply(self, item: Json) -> Json:
        """Let the API server have it; what it had of the status stays."""
        self.api.objects[self.path(item)] = item
        return item

    def remove(self, item: Json) -> None:
        """It is gone."""
        del self.api.objects[self.path(item)]

    def delete(self, item: Json) -> Json:
        """Mark it as being deleted."""
        item["metadata"]["deletionTimestamp"] = self.now.isoformat().replace("+00:00", "Z")
        return item

    def edit(self, item: Json, **spec: Any) -> None:
        """Change fields of a specification; None removes one."""
        merged = {name: value for name, value in (item["spec"] | spec).items() if value is not None}
        item["spec"] = merged
        item["metadata"]["generation"] += 1

    def set_ready(self, ready: int) -> None:
        """Of every workload."""
        for item in self.related:
            if item["kind"] == "Deployment":
                item["status"] = {"observedGeneration": 1, "readyReplicas": ready}

    def pass_time(self, seconds: float) -> None:
        """Let time go by."""
        self.now += timedelta(seconds=seconds)

    async def ask(self, item: Json, hook: str = "sync") -> Json:
        """What a hook says of an object as it is; nothing of it is kept."""
        uid = item["metadata"]["uid"]
        body = request_body(
            copy.deepcopy(item),
            children=self.children.get(uid, ()),
            related=self.related,
            finalizing=hook == "finalize",
        )
        kind = PLURALS[item["kind"]]
        response = await self._hooks.post(f"/{kind}/{hook}", content=json.dumps(body).encode())
        self.answers.append(response)
        assert response.status_code == 200, response.text
        answer: Json = response.json()
        return answer

    async def sync(self, item: Json) -> Json:
        """One sync, or finalize of what is being deleted, with its answer applied as Metacontroller does."""
        hook = "finalize" if "deletionTimestamp" in item["metadata"] else "sync"
        answer = await self.ask(item, hook)
        uid = item["metadata"]["uid"]
        before = {key_of(child): child for child in self.children.get(uid, ())}
        self.children[uid] = [observed(child, before.get(key_of(child))) for child in answer["children"]]
        if self.path(item) in self.api.objects:
            item["status"] = answer["status"]
        if answer.get("finalized"):
            self.remove(item)
        return answer

    async def settle(self, item: Json, turns: int = 6) -> Json:
        """Sync for as long as hooks want to be asked again within a second."""
        answer = await self.sync(item)
        for _ in range(turns):
            if answer.get("resyncAfterSeconds", 99) > 1 or answer.get("finalized"):
                break
            self.pass_time(answer["resyncAfterSeconds"])
            answer = await self.sync(item)
        return answer

    def patience(self) -> None:
        """Forget that the platform is left alone for a while, as time would have it."""
        circuit = self.beamlit._circuit
        circuit._until = circuit._asked_to_wait_until = 0.0

    def sample(self, name: str, **labels: str) -> float:
        """A metric of hooks."""
        return self.metrics.registry.get_sample_value(f"beamlit_hooks_platform_{name}", labels) or 0.0


@asynccontextmanager
async def world(
    platform: Platform, api: ApiServer, folder: Path, accounts: Accounts | None = None, **settings: Any
) -> AsyncIterator[World]:
    """Hooks that know the two, with a clock of the test's."""
    metrics = Metrics()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KUBECONFIG", str(kubeconfig(folder, api.port)))
        cluster = await Cluster.connect(metrics, registrar.CALL_SECONDS)
    beamlit = Beamlit(platform.url, accounts or Fixed(Account(CLIENT_ID, SECRET)), metrics)
    clock: list[World] = []

    def now() -> datetime:
        return clock[0].now

    app = create_app(
        Settings.model_validate(SETTINGS | settings), metrics, registrar=Registrar(beamlit, cluster), clock=now
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hooks") as client:
        clock.append(World(platform, api, client, beamlit, metrics))
        yield clock[0]
    await beamlit.close()
    await cluster.close()


def registered(answer: Json) -> tuple[str, str]:
    """Status and reason of the condition Registered."""
    (found,) = [one for one in answer["status"]["conditions"] if one["type"] == "Registered"]
    return found["status"], found["reason"]


def message(answer: Json) -> str:
    """What the condition Registered says."""
    (found,) = [one for one in answer["status"]["conditions"] if one["type"] == "Registered"]
    return str(found["message"])
