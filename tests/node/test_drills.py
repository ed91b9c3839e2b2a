"""Drills of real gateways: a remote backend that is not there, and then is, while no pod of the model is; and what the
command `kubectl beamlit drill` says and tries there."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deadlines import NEVER
from tests.e2e.process import program
from tests.node.cluster import Cluster
from tests.node.release import EXAMPLE, GATEWAY, MODEL, REMOTE, Release
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


def _drill(cluster: Cluster, *words: str) -> tuple[int, dict[str, Any]]:
    """Run `kubectl beamlit drill` for the example model; return its exit status and the JSON that it prints."""
    kubectl = Path(program("kubectl"))
    path = os.pathsep.join([str(Path(sys.executable).parent), str(kubectl.parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "KUBECONFIG": str(cluster.kubeconfig)}
    command = (str(kubectl), "beamlit", "drill", MODEL, "-o", "json", *words)
    result = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=NEVER, check=False)
    assert result.returncode in (0, 1), result.stderr
    return result.returncode, json.loads(result.stdout)


def _checks(printed: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {one["name"]: (one["state"], one["message"]) for one in printed["checks"]}


def test_the_command_drill(applied: Release) -> None:
    """The command says what gateways found, has one of them send a completion of one token, and tries the remote
    backend with a share of the requests, of which it sends some itself."""
    cluster = applied.cluster
    cluster.wait("condition=OffloadReady", f"modeldeployment/{MODEL}", seconds=300)
    status, printed = _drill(cluster)
    assert (status, _checks(printed)["remote backend"][0], printed["split"]["percentage"]) == (0, "good", 100)

    status, printed = _drill(cluster, "--probe")
    checks = _checks(printed)
    assert (status, printed["state"]) == (0, "good"), printed
    assert "for a completion of one token that a gateway has sent now." in checks["first token"][1]
    assert checks["credentials"] == ("good", "They were accepted when the remote backend was tried last.")

    status, printed = _drill(cluster, "--for", "20s", "--percentage", "20")
    assert (status, printed["drill"]["outcome"]) == (0, "Passed"), printed
    assert printed["drill"]["percentage"] == 20
    assert printed["checks"][-1]["message"].endswith("s to the first token of its stream, for a request of this drill.")
    assert cluster.get("modeldeployment", MODEL)["status"]["offloading"]["drill"] == printed["drill"]
