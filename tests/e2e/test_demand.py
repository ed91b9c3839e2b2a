"""A workload without replicas is woken by the requests that arrive for it, and they come back from the remote backend.

The ScaledObject is that of the tutorial, and its query is asked of a real Prometheus that scrapes a real gateway. Only
KEDA is replaced, by `keda.Scaler`, and times are shortened.
"""

import copy
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.e2e import controlplane
from tests.e2e.controlplane import ControlPlane
from tests.e2e.installation import ModelServer
from tests.e2e.keda import Scaler, install_crd, manifests, wanted
from tests.e2e.product import Product, workload
from tests.e2e.scraping import PROMETHEUS, Prometheus
from tests.e2e.traffic import Traffic
from tests.processes import poll, status
from tools.ports import free_port
from tools.repository import ROOT

RETURN_SECONDS: Final = 6
COOL_DOWN_SECONDS: Final = 4
WINDOW: Final = "5s"
"""Range of the query in place of the tutorial's, so that the end of the traffic shows soon."""


@dataclass(frozen=True, slots=True)
class World:
    """What the tutorial has: the product, a gateway, and a Prometheus that scrapes it."""

    product: Product
    port: int
    prometheus: Prometheus


@pytest.fixture
def world(plane: ControlPlane, product: Product) -> Iterator[World]:
    """The tutorial's model, scaled to zero, with a gateway process and its Prometheus."""
    controlplane.require((PROMETHEUS,), "Debian has a package of that name")
    local, remote = ModelServer(plane, "tiny-local"), ModelServer(plane, "tiny-remote")
    port, admin = free_port(), free_port()
    config = plane.folder / "demand.yaml"
    config.write_text(
        "namespaces: default\ngateway: {lameDuckSeconds: 0, endpoints: service, allowedAddresses: [127.0.0.0/8]}\n"
    )
    gateway = plane.run(
        "demand-gateway",
        *(sys.executable, "-m", "gateway", "--config", str(config), "--kubeconfig", str(plane.kubeconfig)),
        *("--listen", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{admin}"),
        f"--resolve=chat-local.default.svc.cluster.local:80=127.0.0.1:{local.port}",
        environment=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    poll(lambda: status(f"http://127.0.0.1:{admin}/readyz") == 200, "the gateway is ready")
    prometheus = Prometheus(plane, admin)
    install_crd(plane)
    plane.apply(workload("chat", 0), model(remote.port), scaled_object())
    product.until("chat", LocalReady="False", Synced="True")
    yield World(product, port, prometheus)
    for kind in ("scaledobjects.keda.sh", "modeldeployments", "deployments"):
        plane.kubectl("delete", kind, "chat", "-n", "default", check=False)
    for process in (prometheus.process, gateway, local.process, remote.process):
        process.stop()


def model(remote: int) -> dict[str, Any]:
    """Return the ModelDeployment of the tutorial, with servers of this machine."""
    parent = copy.deepcopy(manifests()["ModelDeployment"])
    spec = parent["spec"]
    spec |= {"model": "tiny-remote", "gateway": {"localModel": "tiny-local"}}
    spec["offloadingConfig"]["remoteBackend"] = {"host": f"127.0.0.1:{remote}", "scheme": "http"}
    spec["offloadingConfig"]["behavior"]["returnSeconds"] = RETURN_SECONDS
    return parent


def scaled_object() -> dict[str, Any]:
    """Return the ScaledObject of the tutorial with shorter times."""
    scaled = copy.deepcopy(manifests()["ScaledObject"])
    metadata = scaled["spec"]["triggers"][0]["metadata"]
    assert "[2m]" in metadata["query"]
    metadata["query"] = metadata["query"].replace("[2m]", f"[{WINDOW}]")
    scaled["spec"]["cooldownPeriod"] = COOL_DOWN_SECONDS
    return scaled


def reason(product: Product) -> str:
    """Return the reason of the split in the route; a route in which nothing is offloaded has none."""
    return str(product.route("chat").get("split", {}).get("reason", ""))


def test_requests_wake_the_workload_and_come_back(world: World) -> None:
    """Without requests there is no replica. Requests are served by the remote backend while the first replica starts,
    come back over `returnSeconds`, none fails, and after them there is no replica again."""
    product = world.product
    with Scaler(product.plane, "chat", world.prometheus.value) as scaler:
        poll(lambda: scaler.looks > 3, "it has looked some times")
        assert scaler.replicas == [], "nobody asks"
        assert product.remote_weight("chat") == 100
        reasons = {reason(product)}
        assert reasons == {"ScaledToZero"}
        with Traffic(lambda: ("127.0.0.1", world.port), "/default/chat") as traffic:
            poll(lambda: traffic.responses[200, "remote"] > 0, "the remote backend serves requests meanwhile")
            poll(lambda: scaler.replicas, "the workload is woken")

            def is_back() -> bool:
                reasons.add(reason(product))
                return product.remote_weight("chat") == 0

            poll(is_back, "the requests come back")
            poll(lambda: traffic.responses[200, "local"] > 0, "the local backend serves them")
        assert traffic.failures == []
        assert {code for code, _ in traffic.responses} == {200}
        assert "Returning" in reasons
        poll(lambda: scaler.replicas[-1] == 0, "nobody asks any more")
    product.until("chat", LocalReady="False")
    assert product.remote_weight("chat") == 100


@pytest.mark.parametrize(
    ("value", "now", "idle", "replicas"),
    [
        (0.0, 0, 1e9, 0),
        (0.01, 0, 0, 1),
        (5.0, 1, 0, 1),
        (5.1, 1, 0, 2),
        (100, 2, 0, 4),
        (0.0, 3, 1, 3),
        (0.0, 3, 601, 0),
    ],
)
def test_what_the_scaled_object_asks_for(value: float, now: int, idle: float, replicas: int) -> None:
    """The ScaledObject of the tutorial asks for a replica from the first request on, for another for each five requests
    a second, for four at most, and for none after its cool-down period."""
    assert wanted(manifests()["ScaledObject"]["spec"], value, now, idle) == replicas
