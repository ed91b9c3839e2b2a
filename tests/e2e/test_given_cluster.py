"""The suite of real pods on a cluster that NODE_KUBECONFIG names: it is left as it was, however the suite ends.

The node of the cluster fakes its pods, so all of an installation becomes ready, and requests from pods fail.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Final

import pytest

from tests.deadlines import SECONDS
from tests.e2e import controlplane
from tests.e2e.controlplane import ControlPlane
from tests.e2e.product import install_crds
from tests.node.given import EXISTING
from tests.node.release import CLIENTS, NAME, NAMESPACE, REMOTE
from tests.processes import poll
from tools.repository import ROOT

pytestmark = pytest.mark.own_plane
PASSES: Final = "test_all_pods_become_ready"
FAILS: Final = "test_a_route_by_hand"
"""Name of a test that makes objects in `default` and then sends a request from a pod."""


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster of another user, with an object in it."""
    with controlplane.running(tmp_path_factory.mktemp("theirs")) as plane:
        plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"a": "b"}})
        for namespace in plane.get("namespaces")["items"]:
            until_made(plane, namespace["metadata"]["name"])
        yield plane


def until_made(plane: ControlPlane, namespace: str) -> None:
    """Wait until a namespace has what the controllers of Kubernetes put into each."""
    for kind, name in (("serviceaccount", "default"), ("configmap", "kube-root-ca.crt")):
        poll(partial(plane.get, kind, name, namespace), f"{namespace} has {kind}/{name}")


def content(plane: ControlPlane) -> set[tuple[str, str, str, str]]:
    """Return kind, namespace, name and uid of all objects but events, which expire, and leases of nodes."""
    kinds = [
        kind
        for scope in ("true", "false")
        for kind in plane.kubectl("api-resources", "--verbs=list,delete", f"--namespaced={scope}", "-o", "name").split()
        if not kind.startswith(("events", "leases"))
    ]
    listed = json.loads(plane.kubectl("get", ",".join(kinds), "-A", "-o", "json"))["items"]
    places = ((one["kind"], one["metadata"]) for one in listed)
    return {(kind, about.get("namespace", ""), about["name"], about["uid"]) for kind, about in places}


def check(plane: ControlPlane, before: set[tuple[str, str, str, str]]) -> None:
    """Raise an error unless all objects are those that were there before. What the API server registers for a kind goes
    some moments after the kind."""
    with suppress(AssertionError):
        poll(lambda: content(plane) == before, "the cluster is as before")
    assert content(plane) == before


@contextmanager
def suite(plane: ControlPlane, words: str) -> Iterator[subprocess.Popen[str]]:
    """Run the tests of that name on the cluster, in a process group of their own."""
    runner = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    process = subprocess.Popen(
        [*runner, "tests/node/test_install.py", "-k", words],
        cwd=ROOT,
        env=os.environ | {EXISTING: str(plane.kubeconfig)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def outcome(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Return the exit status of the suite and what it printed."""
    printed, _ = process.communicate(timeout=5 * SECONDS)
    return process.returncode, printed


def test_a_suite_that_fails(theirs: ControlPlane) -> None:
    """After a test that passed and one that failed, the cluster has the objects that it had before, and no others."""
    before = content(theirs)
    with suite(theirs, f"{PASSES} or {FAILS}") as process:
        status, printed = outcome(process)
    assert (status, "1 failed, 1 passed" in printed) == (1, True), printed
    check(theirs, before)


@pytest.mark.parametrize("ending", ["Ctrl-C", "SIGTERM"])
def test_a_suite_that_is_ended(theirs: ControlPlane, ending: str) -> None:
    """After Ctrl-C, which helm and kubectl get too, or a signal that tells it to end, in the middle of an installation,
    the cluster has the objects that it had before, and no others."""
    before = content(theirs)
    with suite(theirs, PASSES) as process:
        poll(
            lambda: theirs.get("deployment", f"{NAME}-gateway", NAMESPACE) or process.poll() is not None,
            "the chart is being installed",
            seconds=3 * SECONDS,
        )
        if ending == "Ctrl-C":
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.terminate()
        status, printed = outcome(process)
    assert (status, "KeyboardInterrupt" in printed) == (2, True), printed
    check(theirs, before)


def test_a_namespace_that_is_there(theirs: ControlPlane) -> None:
    """A namespace of the name of one that the tests make is refused and kept, with all that is in it."""
    theirs.kubectl("create", "namespace", CLIENTS)
    theirs.kubectl("create", "configmap", "precious", "-n", CLIENTS)
    until_made(theirs, CLIENTS)
    before = content(theirs)
    try:
        with suite(theirs, PASSES) as process:
            status, printed = outcome(process)
        assert (status, f"namespace/{CLIENTS} is there already" in printed) == (1, True), printed
        check(theirs, before)
        assert not theirs.get("namespace", REMOTE)
    finally:
        theirs.kubectl("delete", "namespace", CLIENTS)


def test_the_product_is_there(theirs: ControlPlane) -> None:
    """A cluster that has the product's CustomResourceDefinitions ends the suite with a sentence, and is not touched."""
    install_crds(theirs)
    before = content(theirs)
    with suite(theirs, PASSES) as process:
        status, printed = outcome(process)
    assert (status, f"{EXISTING}: customresourcedefinition/" in printed) == (pytest.ExitCode.USAGE_ERROR, True), printed
    assert "is there already: delete it, or take another cluster" in printed
    check(theirs, before)
