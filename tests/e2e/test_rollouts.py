"""Scalings and rollouts of a model that serves, on a real control plane: old replicas serve through each of them."""

import json
from collections import Counter
from typing import Any, Final

import pytest

from tests.e2e.offloading import external
from tests.e2e.product import SYSTEM, Product, model_deployment, set_pods_ready, workload
from tests.processes import poll

pytestmark = pytest.mark.own_plane

SCALINGS: Final = 50
ROLLOUTS: Final = 10
SHARES: Final = {"steady": 0, "slow-to-return": 0, "resting": 50, "own-server": 0}
"""Percentage of requests that go to the remote backend, by model."""
DEPLOYMENTS: Final = ("steady", "own-server")


@pytest.fixture(scope="module")
def models(product: Product) -> Product:
    """Ready models: three that adopt one Deployment, of which one is offloaded by a metric that cannot be read now, and
    one with a server of its own."""
    template = workload("own-server")["spec"]["template"]["spec"]
    source = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "steady", "namespace": "default"}
    behaviors: dict[str, dict[str, Any]] = {
        "steady": {},
        "slow-to-return": {"behavior": {"returnSeconds": 300}},
        "resting": {"metrics": [external("load", value="10")], "behavior": {"percentage": 50}},
    }
    product.plane.apply(workload("steady"))
    # A model that is first seen without a ready replica comes back in its own time, which may be long.
    poll(lambda: product.plane.get("deployment", "steady")["status"].get("readyReplicas") == 1, "the workload is ready")
    product.plane.apply(
        *(model_deployment(name, modelSourceRef=source, offloadingConfig=one) for name, one in behaviors.items()),
        model_deployment("own-server", server={"port": 8000, "template": {"spec": template}}),
    )
    for name in SHARES:
        product.until(name, Ready="True", LocalReady="True", Synced="True")
    # As it was left by hooks that could read the metric.
    offloading = {
        "percentage": 50, "reason": "MetricReached", "message": "", "since": "2026-01-01T00:00:00Z", "step": 0,
    }  # fmt: skip
    patch = json.dumps({"status": {"offloading": offloading}})

    def rests() -> bool:
        if product.remote_weight("resting") != 50:
            words = ("patch", "modeldeployment", "resting", "--subresource=status", "--type=merge", "-p", patch)
            product.plane.kubectl(*words)
        return product.remote_weight("resting") == 50

    poll(rests, "it is offloaded as before")
    return product


def routes_written(product: Product) -> Counter[str]:
    """Return how often Metacontroller has changed the route of each model so far, by the audit log."""
    user = f"system:serviceaccount:{SYSTEM}:{SYSTEM}"
    routes = {f"{name}-route": name for name in SHARES}
    return Counter(
        routes[entry["name"]]
        for entry in product.plane.writes()
        if entry["resource"] == "configmaps"
        and entry["name"] in routes
        and entry["effective"]
        and entry["user"] == user
    )


def are_at_rest(product: Product, replicas: int) -> bool:
    """Return whether the Deployments have that many ready replicas, all of them of their present template."""
    for name in DEPLOYMENTS:
        deployment = product.plane.get("deployment", name)
        status = deployment["status"]
        if status.get("observedGeneration") != deployment["metadata"]["generation"]:
            return False
        if {status.get(key) for key in ("replicas", "readyReplicas", "updatedReplicas")} != {replicas}:
            return False
    return True


def set_ready(product: Product, ready: bool) -> None:
    """Make the pods of both Deployments ready, or not."""
    for name in DEPLOYMENTS:
        labels = product.plane.get("deployment", name)["spec"]["selector"]["matchLabels"]
        set_pods_ready(product.plane, ",".join(f"{key}={value}" for key, value in labels.items()), ready)


def test_scalings_and_rollouts_write_no_route(models: Product) -> None:
    """No route is written while a workload is scaled 50 times and rolled out 10 times, in which its status lags behind
    its generation each time; a loss of readiness writes each route, and its end does."""
    plane, names = models.plane, [f"deployment/{name}" for name in DEPLOYMENTS]
    before, syncs = routes_written(models), models.syncs()
    for number in range(SCALINGS):
        replicas = (3, 1)[number % 2]
        plane.kubectl("scale", *names, f"--replicas={replicas}")
        poll(lambda replicas=replicas: are_at_rest(models, replicas), f"there are {replicas} replicas")  # type: ignore[misc]
    for number in range(ROLLOUTS):
        template = {"metadata": {"annotations": {"rollout": str(number)}}}
        for name in names:
            plane.kubectl("patch", name, "-p", json.dumps({"spec": {"template": template}}))
        poll(lambda: are_at_rest(models, 1), "the replica has been replaced")
    assert models.syncs() - syncs > (SCALINGS + ROLLOUTS) * len(SHARES)
    assert routes_written(models) == before
    assert {name: models.remote_weight(name) for name in SHARES} == SHARES

    def weights_are(expected: dict[str, int]) -> bool:
        return {name: models.remote_weight(name) for name in expected} == expected

    set_ready(models, False)
    poll(lambda: weights_are(dict.fromkeys(SHARES, 100)), "no replica is ready")
    assert routes_written(models) - before == Counter(dict.fromkeys(SHARES, 1))
    set_ready(models, True)
    at_once = {name: share for name, share in SHARES.items() if name != "slow-to-return"}
    poll(lambda: weights_are(at_once), "they are back")
    written = routes_written(models) - before
    assert {name: written[name] for name in at_once} == dict.fromkeys(at_once, 2)
    plane.kubectl("delete", "modeldeployment", *SHARES)
    plane.kubectl("delete", "deployment", "steady")
