"""`kubectl beamlit` as a plugin of kubectl, on a real API server with RBAC."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.deadlines import NEVER
from tests.e2e.controlplane import ControlPlane
from tests.e2e.process import program
from tests.e2e.product import install_crds, model_deployment, workload
from tests.processes import poll

NAMESPACE = "plugin"
MODEL = "asked"


def call(plane: ControlPlane, *words: str) -> subprocess.CompletedProcess[str]:
    """Run kubectl with the plugin on the search path."""
    kubectl = Path(program("kubectl"))
    path = os.pathsep.join([str(Path(sys.executable).parent), str(kubectl.parent), os.environ["PATH"]])
    environment = os.environ | {"PATH": path, "KUBECONFIG": str(plane.kubeconfig)}
    return subprocess.run([kubectl, *words], capture_output=True, text=True, env=environment, timeout=NEVER)


def beamlit(plane: ControlPlane, command: str, *words: str) -> str:
    """Run a command of the plugin in the namespace of this module, and return what it prints."""
    result = call(plane, "beamlit", command, "-n", NAMESPACE, *words)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def served(plane: ControlPlane) -> Iterator[ControlPlane]:
    """A control plane with a ModelDeployment, its ready workload, and a user who may see models alone."""
    install_crds(plane)
    plane.kubectl("create", "namespace", NAMESPACE)
    source = {"apiVersion": "apps/v1", "kind": "Deployment", "name": MODEL}
    model = model_deployment(MODEL, modelSourceRef=source)
    for item in (workload(MODEL), model):
        item["metadata"]["namespace"] = NAMESPACE
        plane.apply(item)
    role = ("--verb=get,list", "--resource=modeldeployments.deployment.beamlit.com")
    plane.kubectl("create", "role", "viewer", "-n", NAMESPACE, *role)
    plane.kubectl("create", "rolebinding", "viewer", "-n", NAMESPACE, "--role=viewer", "--user=ann")
    poll(lambda: plane.get("deployment", MODEL, NAMESPACE)["status"].get("readyReplicas"), "the workload is ready")
    yield plane
    plane.kubectl("delete", "namespace", NAMESPACE, "--wait=false")


def override(plane: ControlPlane) -> dict[str, Any] | None:
    """Return the override that the API server stores."""
    spec = plane.get("modeldeployment", MODEL, NAMESPACE)["spec"]
    found: dict[str, Any] | None = spec["offloadingConfig"].get("behavior", {}).get("override")
    return found


def test_a_split_for_a_while(served: ControlPlane) -> None:
    """`split` sets an override that ends, `status` shows it, and `split --clear` takes it away."""
    said = beamlit(served, "split", MODEL, "30", "--for", "10m")
    stored = override(served)
    assert stored is not None
    assert (stored["percentage"], stored["mode"]) == (30, "Normal")
    assert (
        said
        == f"{NAMESPACE}/{MODEL}: 30 % of the requests go to the remote backend until {stored['until']} (10 min).\n"
    )
    assert datetime.fromisoformat(stored["until"]) > datetime.now(UTC)
    line = beamlit(served, "status").splitlines()[1]
    assert line.startswith(MODEL)
    assert "30 % for " in line
    (shown,) = json.loads(beamlit(served, "status", MODEL, "-o", "json"))
    assert shown["override"] == {"percentage": 30, "until": stored["until"], "mode": "Normal"}
    beamlit(served, "split", MODEL, "100", "--for", "1h", "--force")
    assert (override(served) or {})["mode"] == "Force"
    assert "the metrics decide again" in beamlit(served, "split", MODEL, "--clear")
    assert override(served) is None


def test_a_model_is_explained(served: ControlPlane) -> None:
    """`explain` decides from the objects of the cluster: the workload is ready, and there is no remote backend."""
    explained = json.loads(beamlit(served, "explain", MODEL, "-o", "json"))
    assert (explained["name"], explained["accepted"], explained["answer"]["percentage"]) == (MODEL, True, 0)
    assert "Rules, in order" in beamlit(served, "explain", MODEL)


def test_models_of_all_namespaces(served: ControlPlane) -> None:
    """`status -A` has a column for the namespace."""
    result = call(served, "beamlit", "status", "-A")
    assert result.stdout.split()[0] == "NAMESPACE"
    assert [NAMESPACE, MODEL] in [line.split()[:2] for line in result.stdout.splitlines()]


@pytest.mark.parametrize(
    ("words", "right"),
    [
        (("split", MODEL, "30", "--for", "10m"), "patch modeldeployments.deployment.beamlit.com"),
        (("explain", MODEL), "get deployments.apps"),
        (("decisions", MODEL, "--system-namespace", NAMESPACE), "list pods"),
    ],
    ids=["split", "explain", "decisions"],
)
def test_a_right_that_is_missing(served: ControlPlane, words: tuple[str, ...], right: str) -> None:
    """A user who lacks a right is told which one, and the command that is told says no."""
    result = call(served, "beamlit", words[0], "-n", NAMESPACE, "--as", "ann", *words[1:])
    assert result.returncode == 1, result.stdout
    assert f"ann lacks the right to {right} in namespace {NAMESPACE}: " in result.stderr
    check = result.stderr.rpartition(": `")[2].partition("`")[0].split()
    answer = call(served, *check[1:], "--as", "ann")
    assert answer.stdout.split()[:1] == ["no"], check


def test_who_may_see_models_sees_them(served: ControlPlane) -> None:
    """`status` needs no other right than that of seeing models."""
    assert MODEL in beamlit(served, "status", "--as", "ann")


def test_a_model_that_does_not_exist(served: ControlPlane) -> None:
    """A name that no model has is said to be none, with its namespace."""
    result = call(served, "beamlit", "explain", "-n", NAMESPACE, "nobody")
    assert result.returncode == 1
    assert result.stderr == f"kubectl beamlit: There is no ModelDeployment nobody in namespace {NAMESPACE}.\n"


def test_completion(served: ControlPlane) -> None:
    """kubectl completes commands and names of models."""
    assert "explain" in call(served, "__complete", "beamlit", "ex").stdout.split()
    assert MODEL in call(served, "__complete", "beamlit", "explain", "-n", NAMESPACE, "a").stdout.split()
