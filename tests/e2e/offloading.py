"""Models that are offloaded by metrics: as users write them, and the backends that serve their requests."""

import json
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from tests.e2e.controlplane import ControlPlane
from tests.e2e.installation import RELEASE, Installation, ModelServer
from tests.e2e.product import RESYNC_SECONDS, Models, model_deployment, workload
from tests.e2e.traffic import ask
from tests.processes import poll

REQUESTS: Final = 200
WINDOW: Final = timedelta(seconds=60)
"""Time between two steps down: the shortest that there is."""
LONG: Final = timedelta(hours=1)
"""More time than any window and any wait of the models here takes, the longest being eight release windows."""
_TIMES: Final = ("since", "reachedSince", "belowSince")
"""Fields of `status.offloading` with a time."""
CONTAINER: Final = "server"
"""Name of the container of the workloads here. It requests one core and 1Gi."""


def server(name: str, replicas: int = 1) -> dict[str, Any]:
    """Return a Deployment whose pods request a core and 1Gi, and use a tenth of both."""
    deployment = workload(name, replicas)
    template = deployment["spec"]["template"]
    template["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1", "memory": "1Gi"}}
    template["metadata"]["annotations"] = _usage(cpu="100m", memory="100Mi")
    return deployment


def offloaded(name: str, *metrics: Mapping[str, Any], local: str = "tiny-local", **behavior: Any) -> dict[str, Any]:
    """Return a ModelDeployment of that Deployment, with short windows unless the behavior says otherwise; `local` is
    the name that its local backend knows the model by."""
    windows = {"triggerWindowSeconds": 1, "releaseWindowSeconds": 2, "percentage": 50}
    return by_default(name, *metrics, local=local, behavior=windows | behavior)


def by_default(name: str, *metrics: Mapping[str, Any], local: str = "tiny-local", **configured: Any) -> dict[str, Any]:
    """Return a ModelDeployment of that Deployment with metrics, and what else its offloadingConfig has."""
    configuration = {"metrics": list(metrics), **configured}
    return model_deployment(name, model="tiny-remote", gateway={"localModel": local}, offloadingConfig=configuration)


def resource(name: str, **target: Any) -> dict[str, Any]:
    """Return a metric of the cpu or memory of the pods."""
    return {"type": "Resource", "resource": {"name": name, "target": _target(target)}}


def container_resource(name: str, **target: Any) -> dict[str, Any]:
    """Return a metric of the cpu or memory of the pods' container."""
    about = {"name": name, "container": CONTAINER, "target": _target(target)}
    return {"type": "ContainerResource", "containerResource": about}


def of_pods(name: str, **target: Any) -> dict[str, Any]:
    """Return a metric that every pod has."""
    return {"type": "Pods", "pods": {"metric": {"name": name}, "target": _target(target)}}


def of_deployment(name: str, deployment: str, **target: Any) -> dict[str, Any]:
    """Return a metric of a Deployment."""
    described = {"apiVersion": "apps/v1", "kind": "Deployment", "name": deployment}
    about = {"describedObject": described, "metric": {"name": name}, "target": _target(target)}
    return {"type": "Object", "object": about}


def external(name: str, labels: Mapping[str, str] | None = None, **target: Any) -> dict[str, Any]:
    """Return an external metric, or one of PromQL."""
    metric = {"name": name} | ({"selector": {"matchLabels": dict(labels)}} if labels else {})
    return {"type": "External", "external": {"metric": metric, "target": _target(target)}}


def _target(target: Mapping[str, Any]) -> dict[str, Any]:
    """Return a target of autoscaling/v2, whose type is the name of its one field."""
    (name,) = target
    kinds = {"averageUtilization": "Utilization", "averageValue": "AverageValue", "value": "Value"}
    return {"type": kinds[name], **target}


def pace(server: ModelServer, seconds: float, concurrency: int = 0) -> None:
    """Have a model server take that long for a response, for that many requests at the same time; 0 is for all."""
    query = f"time_to_first_token={seconds}&tokens_per_second=0&concurrency={concurrency}"
    urllib.request.urlopen(f"{server.url}/_demo/speed?{query}", b"", timeout=5).close()


def serve(installed: Installation, *models: dict[str, Any], replicas: int = 1) -> None:
    """Create models with their Deployments, and wait until their local backends serve them."""
    names = [model["metadata"]["name"] for model in models]
    installed.plane.apply(*(server(name, replicas) for name in names), *models)
    for name in names:
        installed.until(name, LocalReady="True", Synced="True")


def hasten(installed: Installation) -> None:
    """Have Metacontroller sync every model every two seconds, so that tests need not wait until hooks ask for a
    sync."""
    patch = json.dumps({"spec": {"resyncPeriodSeconds": RESYNC_SECONDS}})
    installed.plane.kubectl("patch", "compositecontroller", RELEASE, "--type=merge", "-p", patch)


def metrics_available(models: Models, name: str) -> tuple[str, str]:
    """Return status and reason of the condition MetricsAvailable."""
    return models.conditions(name).get("MetricsAvailable", ("", ""))


def use(plane: ControlPlane, name: str, **usage: str) -> None:
    """Have the pods of a workload use that much from now on."""
    words = [f"{key}={value}" for key, value in _usage(**usage).items()]
    plane.kubectl("annotate", "pods", "-l", f"app={name}", "--overwrite", *words)


def _usage(**usage: str) -> dict[str, str]:
    return {f"kwok.x-k8s.io/usage-{resource}": quantity for resource, quantity in usage.items()}


def in_force(installed: Installation) -> dict[str, int]:
    """Return the percentage of requests that go to the remote backend, by model, as a gateway obeys it now."""
    routes = installed.routes(installed.pods("-gateway")[0])["routes"]
    return {route["name"]: sum(one["weight"] for one in route["backends"] if one["id"] == "remote") for route in routes}


def weights(installed: Installation, *names: str) -> tuple[int | None, ...]:
    """Return the percentage in force of each model."""
    percentages = in_force(installed)
    return tuple(percentages.get(name) for name in names)


# Time that passes


def put_back(models: Models, parent: Mapping[str, Any], by: timedelta) -> None:
    """Put the times in a model's status back, to what they are when Metacontroller was away for so long and nothing
    else has changed.

    Nothing is written where the status has changed since `parent` was read. A sync under way may still write the times
    that it began with, so callers look whether it was of use.
    """
    offloading = parent["status"]["offloading"]
    earlier = {
        name: (datetime.fromisoformat(offloading[name]) - by).strftime("%Y-%m-%dT%H:%M:%SZ")
        for name in _TIMES
        if name in offloading
    }
    metadata = parent["metadata"]
    patch = {"metadata": {"resourceVersion": metadata["resourceVersion"]}, "status": {"offloading": earlier}}
    words = ("patch", "modeldeployment", metadata["name"], "-n", metadata["namespace"], "--subresource=status")
    models.plane.kubectl(*words, "--type=merge", "-p", json.dumps(patch), check=False)


def let_pass(models: Models, name: str, percentage: int | None) -> None:
    """Have the window pass that a model is in, or the time in which its samples are older than its split.

    With another percentage in its status than the one in force, which is `percentage`, it is about to change.
    """
    parent = models.parent(name)
    offloading = parent.get("status", {}).get("offloading", {})
    if offloading.get("percentage") != percentage:
        return
    running = ["reachedSince", "belowSince"]
    if any(one["state"] == "Settling" for one in offloading.get("metrics", ())):
        running.append("since")
    moments = [datetime.fromisoformat(offloading[key]) for key in running if key in offloading]
    if any(datetime.now(UTC) - moment < LONG / 2 for moment in moments):
        put_back(models, parent, LONG)


def settles(installed: Installation, names: Sequence[str], expected: Sequence[int]) -> list[tuple[int | None, ...]]:
    """Wait until models have these percentages in force, while their windows pass at once, one after the other; return
    what was in force in turn."""
    seen: list[tuple[int | None, ...]] = []

    def settled() -> bool:
        percentages = weights(installed, *names)
        if [percentages] != seen[-1:]:
            seen.append(percentages)
        if percentages == tuple(expected):
            return True
        for name, percentage, goal in zip(names, percentages, expected, strict=True):
            if percentage != goal:
                let_pass(installed, name, percentage)
        time.sleep(0.2)
        return False

    poll(settled, f"{names} are at {expected}")
    return seen


def shares(installed: Installation, name: str, count: int = REQUESTS) -> Counter[str]:
    """Send that many requests for a model to one gateway, and count the backends of the responses, all of them 200."""
    port = installed.pods("-gateway")[0].port("http")
    with ThreadPoolExecutor(8) as pool:
        responses = list(pool.map(lambda _: ask("127.0.0.1", port, f"/default/{name}"), range(count)))
    assert {status for status, _ in responses} == {200}, Counter(responses)
    return Counter(backend for _, backend in responses)


def sync_seconds(installed: Installation) -> list[float]:
    """Return how long each sync took to which hooks have responded so far, from their logs at level debug."""
    lines = (line for pod in installed.pods("-hooks") for line in pod.process.log.read_text().splitlines())
    events = [json.loads(line) for line in lines if '"hook_answered"' in line]
    return [one["seconds"] for one in events if one["hook"] == "sync"]


def _nothing(_: bool) -> None:
    """Do nothing."""


@dataclass
class Cycle:
    """A model whose metric rises and falls again, with its responses before, at the height, and after."""

    name: str
    percentage: int
    """Percentage of requests that go to the remote backend while the metric is at its target."""
    change: Callable[[bool], None] = _nothing
    """Function that raises the metric, or lets it fall."""
    keep: Callable[[bool], None] = _nothing
    """Function that repeats that the metric is high, or low; it is called all along."""
    hurried: bool = True
    """Whether its windows pass at once; otherwise they take their time."""
    requests: int = REQUESTS
    """Number of requests in each phase."""
    seen: list[int] = field(default_factory=list)
    """Every percentage that was in force, with repetitions in a row left out."""
    responses: list[Counter[str]] = field(default_factory=list)
    status: dict[str, Any] = field(default_factory=dict)
    """Status of the ModelDeployment at the height."""

    @property
    def high(self) -> bool:
        """Return whether the metric should be high now."""
        return len(self.responses) == 1

    @property
    def done(self) -> bool:
        """Return whether the responses of all three phases are counted."""
        return len(self.responses) == 3


class Cycles:
    """Models that go through their cycles at the same time, while tests do other things, as metrics take a minute."""

    def __init__(self, installed: Installation, *cycles: Cycle) -> None:
        self._installed = installed
        self._cycles = {cycle.name: cycle for cycle in cycles}
        self._stop = threading.Event()
        self._error: Exception | None = None
        self._thread = threading.Thread(target=self._run)

    @contextmanager
    def running(self) -> Iterator["Cycles"]:
        """Run the cycles for as long as the context lasts."""
        self._thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            self._thread.join()

    def finished(self, name: str, seconds: float) -> Cycle:
        """Wait until a model is through its cycle, and return it."""
        cycle = self._cycles[name]
        try:
            poll(lambda: cycle.done or self._error, f"{name} goes out and back", seconds=seconds)
        except AssertionError as exc:
            raise AssertionError(f"{exc}; so far {cycle.responses}, {self._installed.parent(name)['status']}") from None
        if self._error:
            raise self._error
        return cycle

    def _run(self) -> None:
        try:
            while not self._stop.wait(0.2):
                weights = in_force(self._installed)
                for cycle in self._cycles.values():
                    self._advance(cycle, weights.get(cycle.name))
        except Exception as exc:  # noqa: BLE001 - raised again by `finished`
            self._error = exc

    def _advance(self, cycle: Cycle, weight: int | None) -> None:
        cycle.keep(cycle.high)
        if weight is not None and [weight] != cycle.seen[-1:]:
            cycle.seen.append(weight)
        if cycle.done:
            return
        if weight != (cycle.percentage if cycle.high else 0):
            if cycle.hurried:
                let_pass(self._installed, cycle.name, weight)
            return
        if cycle.high:
            status = self._installed.parent(cycle.name)["status"]
            if status["offloading"]["percentage"] != weight:  # the status is written after the route
                return
            cycle.status = status
        cycle.responses.append(shares(self._installed, cycle.name, cycle.requests))
        if not cycle.done:
            cycle.change(cycle.high)
