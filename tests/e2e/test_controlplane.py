"""The control plane of these tests: how it is read, and how it runs by itself."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.e2e.controlplane import PROGRAMS, ControlPlane, require
from tests.e2e.product import install_crds, workload
from tests.processes import poll
from tools.repository import ROOT


@pytest.mark.parametrize(
    ("resource", "name"),
    [
        ("node", "node-0"),
        ("svc", "kubernetes"),
        ("services,configmaps", ""),
        ("crd", "modeldeployments.deployment.beamlit.com"),
        ("deployments.apps", "read"),
        ("modeldeployments.deployment.beamlit.com", ""),
    ],
)
@pytest.mark.own_plane
def test_reading_is_what_kubectl_reads(plane: ControlPlane, resource: str, name: str) -> None:
    """Objects and lists, by any name of their resource, are read as kubectl reads them, without managedFields."""
    install_crds(plane)
    plane.apply(workload("read", replicas=0))
    plane.kubectl("rollout", "status", "deployment", "read", "--timeout=100s")
    words = (resource, name) if name else (resource,)

    def same() -> bool:
        expected = json.loads(plane.kubectl("get", *words, "-n", "default", "-o", "json"))
        actual = plane.get(resource, name)
        return bool(actual == expected if name else actual["items"] == expected["items"])

    words = (resource, name) if name else (resource,)
    poll(same, "both are the same, where nothing changes in between")


def test_what_is_not_there_is_empty(plane: ControlPlane) -> None:
    """An object or a resource that does not exist is read as empty."""
    assert plane.get("configmap", "no-such") == {}
    assert plane.get("no-such-resource") == {}


@pytest.mark.own_plane
def test_by_itself(tmp_path: Path) -> None:
    """`python -m tests.e2e.controlplane` prints a kubeconfig that works, and leaves no process after SIGTERM."""
    require(PROGRAMS)
    command = [sys.executable, "-m", "tests.e2e.controlplane", "--folder", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=dict(os.environ)) as process:
        assert process.stdout is not None
        try:
            kubeconfig = process.stdout.readline().strip()
            plane = ControlPlane(tmp_path)
            node = plane.kubectl("get", "nodes", "--no-headers", kubeconfig=Path(kubeconfig))
            assert node.split()[:2] == ["node-0", "Ready"]
            children = psutil.Process(process.pid).children()
            assert len(children) == 5
        finally:
            process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    poll(lambda: not any(child.is_running() for child in children), "all processes are gone")
