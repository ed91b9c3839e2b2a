"""A thousand ModelDeployments at once: how long until all are served, and what it costs."""

import json
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

from tests.e2e import controlplane
from tests.e2e.controlplane import ControlPlane, Process
from tests.e2e.product import ROOT, SYSTEM, Product, missing, model_deployment, workload
from tests.processes import poll

COUNT = 1000
RESYNC_SECONDS = 120
SECONDS = 240.0
"""What all of it may take on two noisy cores."""


@pytest.fixture(scope="module")
def crowd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The product with the resync period of the chart, on a control plane of its own."""
    if reason := missing():
        pytest.skip(reason)
    with controlplane.running(tmp_path_factory.mktemp("crowd")) as plane:
        product = Product(plane, resync_seconds=RESYNC_SECONDS)
        product.start()
        yield product
        product.metacontroller.stop()
        product.hooks.stop()


def ready(plane: ControlPlane) -> int:
    """How many are Ready."""
    count = 0
    for item in plane.get("modeldeployments.deployment.beamlit.com")["items"]:
        conditions = {one["type"]: one["status"] for one in item.get("status", {}).get("conditions", ())}
        count += conditions.get("Ready") == "True" and conditions.get("Synced") == "True"
    return count


def usage(process: Process) -> tuple[float, float]:
    """CPU seconds and resident MiB."""
    found = psutil.Process(process.pid)
    times = found.cpu_times()
    return times.user + times.system, found.memory_info().rss / 2**20


def test_a_thousand_at_once(crowd: Product) -> None:
    """All are Ready, hooks are not what it waits for, and at rest nothing is written."""
    plane = crowd.plane
    shared = workload("shared")
    plane.apply(shared)
    source = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shared", "namespace": "default"}
    items = [model_deployment(f"model-{number}", modelSourceRef=source) for number in range(COUNT)]
    cpu_before, _ = usage(crowd.hooks)
    began = time.monotonic()
    plane.kubectl("create", "-f", "-", stdin=json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    created = time.monotonic() - began
    poll(lambda: ready(plane) == COUNT, SECONDS, f"{COUNT} are ready")
    took = time.monotonic() - began
    cpu, rss = usage(crowd.hooks)
    writes = Counter(str(entry["resource"]) for entry in _writes(crowd))
    quiet = len(_writes(crowd))
    time.sleep(5)
    figures: dict[str, Any] = {
        "models": COUNT,
        "created_seconds": round(created, 1),
        "ready_seconds": round(took, 1),
        "writes_per_model": round(quiet / COUNT, 2),
        "writes": dict(writes),
        "hooks_syncs": crowd.syncs(),
        "hooks_cpu_seconds": round(cpu - cpu_before, 1),
        "hooks_rss_mib": round(rss, 1),
        "metacontroller_rss_mib": round(usage(crowd.metacontroller)[1], 1),
        "writes_at_rest": len(_writes(crowd)) - quiet,
    }
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build/scale.json").write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))
    assert figures["writes_at_rest"] == 0
    assert figures["hooks_cpu_seconds"] < took / 2
    assert figures["writes_per_model"] <= 6


def _writes(product: Product) -> list[dict[str, Any]]:
    user = f"system:serviceaccount:{SYSTEM}:{SYSTEM}"
    return [entry for entry in product.plane.writes() if entry["user"] == user]
