"""The pods of Services from a scripted API server and from files."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from kubernetes.aio.client import Configuration

from gateway.backends.endpoints import SELECTOR, SERVICE_LABEL, EndpointTable
from gateway.routes.sources import RouteSource
from gateway.routes.sources.configmaps import ConfigMapSource
from gateway.routes.sources.directory import DirectorySource
from program.kubernetes.client import KubernetesClient
from tests.integration.apiserver import ApiServer, Collection, config_map
from tests.integration.servers import until

SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


@pytest.fixture
def api() -> Iterator[ApiServer]:
    """Start a scripted API server with one route."""
    api = ApiServer()
    api.collections["/api/v1/namespaces/default/configmaps"] = Collection([config_map("a")])
    api.start()
    yield api
    api.stop()


def slice_of(name: str, *pods: str, version: int = 1) -> dict[str, Any]:
    """Return an EndpointSlice with ready pods as an API server lists it."""
    labels = dict(part.split("=") for part in SELECTOR.split(",")) | {SERVICE_LABEL: "demo-local"}
    members = [
        {"addresses": ["10.0.0.1"], "targetRef": {"kind": "Pod", "namespace": "default", "name": pod}} for pod in pods
    ]
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": "default", "labels": labels, "resourceVersion": str(version)},
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8000}],
        "endpoints": members,
    }


@asynccontextmanager
async def running(source: RouteSource) -> AsyncIterator[None]:
    """Run a source for the block."""
    task = asyncio.create_task(source.run(lambda _: None, lambda: None))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


class Pods:
    """Names of the pods that a table tells for a Service."""

    def __init__(self, table: EndpointTable) -> None:
        self._told = table.follow("default", "demo-local", "h", 80)

    @property
    def names(self) -> list[str]:
        """Names of the pods now."""
        return [] if self._told is None else [pod.name for pod in self._told.pods]


async def test_slices_are_listed_and_watched(api: ApiServer) -> None:
    """Slices are listed by their labels and followed from there; one that is deleted or changes its Service counts no
    more, and a new list replaces all."""
    script = api.collections[SLICES] = Collection([slice_of("x", "a")])
    table = EndpointTable()
    pods = Pods(table)
    async with KubernetesClient(Configuration(host=f"http://127.0.0.1:{api.port}"), 8) as client:
        source = ConfigMapSource(client, frozenset({"default"}), endpoints=table, relist_seconds=300)
        async with running(source):
            await until(lambda: pods.names == ["a"])
            assert script.queries[0]["labelSelector"] == SELECTOR
            script.push("ADDED", slice_of("y", "b", version=2))
            await until(lambda: pods.names == ["a", "b"])
            script.push("DELETED", slice_of("x", "a", version=3))
            await until(lambda: pods.names == ["b"])
            changed = slice_of("y", "b", version=4)
            changed["metadata"]["labels"][SERVICE_LABEL] = "other"
            script.push("MODIFIED", changed)
            await until(lambda: pods.names == [])
            script.items = [slice_of("z", "c", version=5)]
            script.push("ERROR", {"code": 410, "reason": "Expired"})
            await until(lambda: pods.names == ["c"])


async def test_slices_that_may_not_be_read_hold_up_no_route(api: ApiServer) -> None:
    """Where the gateway may not read slices, routes are complete without them, and the reason is told by its place."""
    script = api.collections[SLICES] = Collection([slice_of("x", "a")], list_status=403)
    table = EndpointTable()
    pods = Pods(table)
    complete: list[bool] = []
    async with KubernetesClient(Configuration(host=f"http://127.0.0.1:{api.port}"), 8) as client:
        source = ConfigMapSource(client, frozenset({"default"}), endpoints=table)
        task = asyncio.create_task(source.run(lambda one: complete.append(one.complete), lambda: None))
        await until(lambda: True in complete and "403" in table.errors.get("namespace default", ""))
        assert pods.names == []
        script.list_status = 200
        await until(lambda: pods.names == ["a"] and not table.errors)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def test_slices_in_files(tmp_path: Path) -> None:
    """EndpointSlices beside the routes of a directory name pods, and are gone with their file."""
    file = tmp_path / "slices.yaml"
    file.write_text(json.dumps({"kind": "List", "items": [slice_of("x", "a"), slice_of("y", "b")]}))
    table = EndpointTable()
    pods = Pods(table)
    async with running(DirectorySource(tmp_path, endpoints=table, poll_seconds=0.2)):
        await until(lambda: pods.names == ["a", "b"])
        beside = tmp_path / ".slices.yaml.new"
        beside.write_text(json.dumps(slice_of("y", "b", "c")))
        beside.rename(file)
        await until(lambda: pods.names == ["b", "c"])
        file.unlink()
        await until(lambda: pods.names == [])
