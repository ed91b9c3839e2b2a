"""Small worlds for the tests of the plant of requests and of scenarios."""

from collections.abc import Sequence
from typing import Any

from hooks.api.metrics import MetricSpec
from hooks.kube.objects import Object
from hooks.simulate.observables import observables
from hooks.simulate.outcome import Outcome
from hooks.simulate.request_plant import Engine, RequestPlant, RequestWorld
from hooks.simulate.requests import Request
from hooks.simulate.scenario import Case, Setting, prepare, simulate
from tests import builders

WAITING: Object = {
    "type": "Pods",
    "pods": {
        "metric": {"name": "vllm:num_requests_waiting"},
        "target": {"type": "AverageValue", "averageValue": 5},
    },
}
CPU: Object = {
    "type": "Resource",
    "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
}


def plant_of(requests: Sequence[Request], engine: Engine, *metrics: Object, **fields: Any) -> RequestPlant:
    """Return a plant at time zero, without noise."""
    specs = tuple(MetricSpec.model_validate(one) for one in metrics)
    found = observables(specs, {}, has_cache=engine.cache is not None)
    world = RequestWorld(requests, engine, specs, found, **fields)
    return RequestPlant(world, start=builders.NOW, error=lambda: 0.0)


def ran(plant: RequestPlant, seconds: float) -> RequestPlant:
    """Return the plant after a time, drained."""
    while plant.now < seconds:
        plant.tick()
    plant.drain()
    return plant


def parent_of(*metrics: Object, **behavior: Any) -> Object:
    """Return a ModelDeployment with a remote backend."""
    config = {"remoteBackend": builders.REMOTE, "metrics": list(metrics), "behavior": behavior}
    return builders.model_deployment(offloadingConfig=config)


def outcome_of(parent: Object, requests: Sequence[Request], seconds: float, engine: Engine, **fields: Any) -> Outcome:
    """Return what comes of a ModelDeployment, without noise."""
    setting = Setting(requests, seconds, engine, builders.NOW, builders.DEFAULTS, **fields)
    return simulate(prepare(Case("", parent), setting, lambda: 0.0), setting).outcome
