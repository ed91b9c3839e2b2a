"""Hooks with a platform and an API server, and syncs of several objects as Metacontroller sends them."""

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
    """Write a kubeconfig for a scripted API server, and return its path."""
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
    """Yield a running platform and API server."""
    platform, api = Platform(), ApiServer()
    platform.start()
    api.start()
    try:
        yield platform, api
    finally:
        platform.stop()
        api.stop()


class World:
    """The objects of a cluster, and the hooks that are called about them."""

    def __init__(
        self, platform: Platform, api: ApiServer, hooks: httpx.AsyncClient, beamlit: Beamlit, metrics: Metrics
    ) -> None:
        self.platform, self.api, self.metrics = platform, api, metrics
        self.beamlit = beamlit
        self.now = NOW
        self.related: list[Json] = []
        self.children: dict[str, list[Json]] = {}
        """Observed children by the uid of their parent."""
        self.responses: list[httpx.Response] = []
        self._hooks = hooks

    def path(self, item: Json) -> str:
        """Return the path of an object in the API server."""
        metadata = item["metadata"]
        plural = PLURALS[item["kind"]]
        return f"/apis/{item['apiVersion']}/namespaces/{metadata['namespace']}/{plural}/{metadata['name']}"

    def apply(self, item: Json) -> Json:
        """Store an object in the API server, and return it."""
        self.api.objects[self.path(item)] = item
        return item

    def remove(self, item: Json) -> None:
        """Remove an object from the API server."""
        del self.api.objects[self.path(item)]

    def delete(self, item: Json) -> Json:
        """Mark an object for deletion, and return it."""
        item["metadata"]["deletionTimestamp"] = self.now.isoformat().replace("+00:00", "Z")
        return item

    def edit(self, item: Json, **spec: Any) -> None:
        """Change fields of a specification; None removes a field."""
        merged = {name: value for name, value in (item["spec"] | spec).items() if value is not None}
        item["spec"] = merged
        item["metadata"]["generation"] += 1

    def set_ready(self, ready: int) -> None:
        """Set the number of ready replicas of every Deployment."""
        for item in self.related:
            if item["kind"] == "Deployment":
                item["status"] = {"observedGeneration": 1, "readyReplicas": ready}

    def pass_time(self, seconds: float) -> None:
        """Move the clock of hooks forward."""
        self.now += timedelta(seconds=seconds)

    async def ask(self, item: Json, hook: str = "sync") -> Json:
        """Return the response of a webhook about an object as it is, without applying it."""
        uid = item["metadata"]["uid"]
        body = request_body(
            copy.deepcopy(item),
            children=self.children.get(uid, ()),
            related=self.related,
            finalizing=hook == "finalize",
        )
        kind = PLURALS[item["kind"]]
        response = await self._hooks.post(f"/{kind}/{hook}", content=json.dumps(body).encode())
        self.responses.append(response)
        assert response.status_code == 200, response.text
        content: Json = response.json()
        return content

    async def sync(self, item: Json) -> Json:
        """Sync an object, or finalize one that is being deleted; apply the response as Metacontroller does."""
        hook = "finalize" if "deletionTimestamp" in item["metadata"] else "sync"
        response = await self.ask(item, hook)
        uid = item["metadata"]["uid"]
        before = {key_of(child): child for child in self.children.get(uid, ())}
        self.children[uid] = [observed(child, before.get(key_of(child))) for child in response["children"]]
        if self.path(item) in self.api.objects:
            item["status"] = response["status"]
        if response.get("finalized"):
            self.remove(item)
        return response

    async def settle(self, item: Json, turns: int = 6) -> Json:
        """Sync until hooks no longer ask for another sync within a second; return the last response."""
        response = await self.sync(item)
        for _ in range(turns):
            if response.get("resyncAfterSeconds", 99) > 1 or response.get("finalized"):
                break
            self.pass_time(response["resyncAfterSeconds"])
            response = await self.sync(item)
        return response

    def close_circuit(self) -> None:
        """Let calls to the platform be made again at once, as after the pause of its circuit breaker."""
        circuit = self.beamlit._circuit
        circuit._until = circuit._asked_to_wait_until = 0.0

    def sample(self, name: str, **labels: str) -> float:
        """Return the value of a metric of the platform; 0 when there is none."""
        return self.metrics.registry.get_sample_value(f"beamlit_hooks_platform_{name}", labels) or 0.0


@asynccontextmanager
async def world(
    platform: Platform, api: ApiServer, folder: Path, accounts: Accounts | None = None, **settings: Any
) -> AsyncIterator[World]:
    """Yield a world with hooks that use both servers and a clock that the test moves."""
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


def registered(response: Json) -> tuple[str, str]:
    """Return status and reason of the condition Registered."""
    (condition,) = [one for one in response["status"]["conditions"] if one["type"] == "Registered"]
    return condition["status"], condition["reason"]


def message(response: Json) -> str:
    """Return the message of the condition Registered."""
    (condition,) = [one for one in response["status"]["conditions"] if one["type"] == "Registered"]
    return str(condition["message"])
