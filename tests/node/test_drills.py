"""Drills of real gateways: a remote backend that is not there, and then is, while no pod of the model is."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest
import yaml

from tests.node.cluster import Cluster
from tests.node.release import EXAMPLE, GATEWAY, REMOTE, Release
from tests.processes import poll

LONELY: Final = "lonely"
"""Name of the model."""


@pytest.fixture
def lonely(carried: Release) -> Iterator[Release]:
    """The release with a model that has no pods, and a remote backend whose name does not resolve."""
    model = yaml.safe_load(EXAMPLE.read_text())
    model["metadata"]["name"] = LONELY
    model["spec"]["server"]["replicas"] = 0
    del model["spec"]["gateway"]["serviceName"]
    model["spec"]["offloadingConfig"] = {"remoteBackend": _remote("nowhere")}
    carried.cluster.apply(model)
    yield carried
    carried.cluster.kubectl("delete", "modeldeployment", LONELY)


def _remote(service: str) -> dict[str, str]:
    return {"host": f"{service}.{REMOTE}.svc.cluster.local", "scheme": "http"}


def _condition(cluster: Cluster, kind: str) -> dict[str, Any]:
    listed = cluster.get("modeldeployment", LONELY).get("status", {}).get("conditions", [])
    return next((one for one in listed if one["type"] == kind), {})


def test_ready_tells_whether_the_remote_backend_can_be_reached(lonely: Release) -> None:
    """While requests could be served nowhere, OffloadReady and Ready are False and say which name to correct; when the
    name is right, `kubectl wait` sees it, and requests get there."""
    cluster, model = lonely.cluster, f"modeldeployment/{LONELY}"
    cluster.wait("condition=OffloadReady=False", model, seconds=300)
    poll(lambda: _condition(cluster, "Ready").get("reason") == "RemoteFails", "three drills have failed")
    proof, ready = _condition(cluster, "OffloadReady"), _condition(cluster, "Ready")
    assert (proof["status"], proof["reason"], ready["status"]) == ("False", "NameUnknown", "False")
    assert _remote("nowhere")["host"] in proof["message"]
    assert proof["message"] in ready["message"]
    change = {"spec": {"offloadingConfig": {"remoteBackend": _remote("remote")}}}
    cluster.kubectl("patch", model, "--type=merge", "-p", json.dumps(change))
    cluster.wait("condition=OffloadReady", model, seconds=300)
    cluster.wait("condition=Ready", model, seconds=300)
    lonely.client.until_served_by("remote", f"{GATEWAY}/default/{LONELY}", LONELY)
