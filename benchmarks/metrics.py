"""What metrics cost: syncs from the warm cache beside syncs without any, and calls to the API server in an interval."""

import asyncio
import os
import statistics
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import httpx
import orjson
import psutil

from benchmarks import processes, sync, unary
from benchmarks.metrics_api import Json, MetricsApi
from tools.ports import free_port

MODELS: Final = 1000
NAMESPACES: Final = 20
INTERVAL_SECONDS: Final = 300
"""Seconds for which hooks use what they read while calls are counted: both rounds of syncs are within it."""
CPU: Final[Json] = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}
_AVERAGE: Final[Json] = {"type": "AverageValue", "averageValue": "10"}
_MEMORY: Final[Json] = {
    "name": "memory",
    "container": "server",
    "target": {"type": "Utilization", "averageUtilization": 80},
}
_OBJECT: Final[Json] = {
    "describedObject": {"apiVersion": "v1", "kind": "Service", "name": "shared"},
    "metric": {"name": "queue"},
    "target": {"type": "Value", "value": "10"},
}
EVERY_KIND: Final[list[Json]] = [
    CPU,
    {"type": "ContainerResource", "containerResource": _MEMORY},
    {"type": "Pods", "pods": {"metric": {"name": "queue"}, "target": _AVERAGE}},
    {"type": "Object", "object": _OBJECT},
    {"type": "External", "external": {"metric": {"name": "queue"}, "target": {"type": "Value", "value": "10"}}},
]
LEAST: Final = {
    "pod lists": NAMESPACES,
    "pod metrics": NAMESPACES,
    "pods metrics": MODELS,
    "object metrics": NAMESPACES,
    "external metrics": NAMESPACES,
}
"""Calls that one interval needs: the pods of a namespace are listed once, the rest is read once for each distinct
query. A metric of type Pods is read with the selector of its model."""


def request(metrics: list[Json], name: str = "demo", namespace: str = "default") -> Json:
    """Return the request of `benchmarks.sync` for a model with these metrics."""
    body: Json = orjson.loads(sync.realistic_body())
    for item in (body["parent"], *(one for group in body["related"].values() for one in group.values())):
        item["metadata"]["namespace"] = namespace
    parent, deployments = body["parent"], body["related"]["Deployment.apps/v1"]
    parent["metadata"]["name"] = name
    for field in ("modelSourceRef", "serviceRef"):
        parent["spec"][field]["namespace"] = namespace
    parent["spec"]["modelSourceRef"]["name"] = name
    parent["spec"]["offloadingConfig"]["metrics"] = metrics
    workload = deployments.pop("demo")
    workload["metadata"]["name"] = name
    workload["spec"]["selector"]["matchLabels"] = {"app": name}
    workload["spec"]["template"]["metadata"]["labels"] = {"app": name}
    deployments[name] = workload
    return body


def measure(folder: Path, *, rounds: int, seconds: float) -> dict[str, float]:
    """Return the medians of the ratios of `rounds` interleaved rounds, and the calls for all models."""
    folder.mkdir(parents=True)
    names: dict[str, list[str]] = {f"team-{number}": [] for number in range(NAMESPACES)}
    for number in range(MODELS):
        names[f"team-{number % NAMESPACES}"].append(f"model-{number}")
    api = MetricsApi({"default": ["demo"], **names})
    with api.serving() as kubeconfig:
        (folder / "kubeconfig").write_text(kubeconfig)
        before = os.environ.get("KUBECONFIG")
        os.environ["KUBECONFIG"] = str(folder / "kubeconfig")
        try:
            return _speed(folder / "speed", rounds, seconds) | _calls(folder / "calls", api)
        finally:
            del os.environ["KUBECONFIG"]
            if before is not None:
                os.environ["KUBECONFIG"] = before


@contextmanager
def _hooks(folder: Path, resolution: int) -> Iterator[tuple[psutil.Process, int]]:
    """Run hooks and yield their process and port."""
    folder.mkdir()
    port, operations = free_port(), free_port()
    config = folder / "config.yaml"
    config.write_text(f"namespaces: ''\nmetricInformer: {{resolutionSeconds: {resolution}}}\n")
    command = [
        sys.executable,
        *("-m", "hooks", "--config", str(config), "--listen", f"127.0.0.1:{port}"),
        *("--operations", f"127.0.0.1:{operations}"),
    ]
    with processes.running("hooks", command, port, folder) as subject:
        yield subject, port


def _speed(folder: Path, rounds: int, seconds: float) -> dict[str, float]:
    """Return the CPU of a sync without metrics divided by that of one with. On one core that is the ratio of syncs per
    second."""
    variants: dict[str, list[Json]] = {"none": [], "cpu": [CPU], "every_kind": EVERY_KIND}
    bodies = {name: orjson.dumps(request(metrics)).decode() for name, metrics in variants.items()}
    costs: dict[str, list[float]] = {name: [] for name in variants}
    with _hooks(folder, 15) as (subject, port):
        for body in bodies.values():
            unary.wrk(port, 1, folder, "/modeldeployments/sync", body)
        for _ in range(rounds):
            for name, body in bodies.items():
                start = processes.cpu_seconds(subject)
                count = unary.wrk(port, seconds, folder, "/modeldeployments/sync", body)
                costs[name].append((processes.cpu_seconds(subject) - start) / count * 1e6)
    ratios = {
        name: statistics.median(none / cost for none, cost in zip(costs["none"], costs[name], strict=True))
        for name in ("cpu", "every_kind")
    }
    return {
        "sync_metric_ratio": ratios["cpu"],
        "sync_5_metrics_ratio": ratios["every_kind"],
        "sync_metric_us": statistics.median(costs["cpu"]),
        "sync_5_metrics_us": statistics.median(costs["every_kind"]),
    }


def _calls(folder: Path, api: MetricsApi) -> dict[str, float]:
    """Count the calls of two syncs of every model within one interval.

    Raises:
        BenchmarkError: a metric was not read, so the figure would mean nothing.
    """
    with _hooks(folder, INTERVAL_SECONDS) as (_, port):
        api.asked.clear()
        for _ in range(2):
            asyncio.run(_sync_all(port, api.models))
    asked = {name: api.asked[name] for name in LEAST}
    print("calls in one interval:", ", ".join(f"{asked[name]} {name}" for name in LEAST), file=sys.stderr)
    return {
        "calls_vs_least": sum(asked.values()) / sum(LEAST.values()),
        "calls_per_interval": sum(api.asked.values()),
        "calls_without_cache": 2.0 * MODELS * (len(EVERY_KIND) + 1),
    }


async def _sync_all(port: int, models: dict[str, list[str]]) -> None:
    template = request(EVERY_KIND, "NAME", "SPACE")
    text = orjson.dumps(template).decode()
    slots = asyncio.Semaphore(32)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:

        async def one(namespace: str, name: str) -> None:
            content = text.replace("NAME", name).replace("SPACE", namespace)
            async with slots:
                response = await client.post(
                    "/modeldeployments/sync", content=content, headers={"content-type": "application/json"}
                )
            status: dict[str, Any] = response.raise_for_status().json()["status"]
            told = {entry["type"]: entry for entry in status["conditions"]}["MetricsAvailable"]
            if told["status"] != "True":
                raise processes.BenchmarkError(f"{namespace}/{name} has no metrics: {told['message']}")

        await asyncio.gather(
            *(one(namespace, name) for namespace, names in models.items() if namespace != "default" for name in names)
        )
