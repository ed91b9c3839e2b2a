"""One cluster for all tests with real pods: a node that they start, or the cluster that NODE_KUBECONFIG names."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.helm import METACONTROLLER_CHART
from tests.e2e.existing import UnsuitableCluster
from tests.node import image, images, lifecycle, machine, programs
from tests.node.cluster import Cluster
from tests.node.given import EXISTING, GivenCluster, existing
from tests.node.release import EXAMPLE, MODEL, Release

_NO_METACONTROLLER = f"not here: the metacontroller binary (METACONTROLLER) or its chart ({METACONTROLLER_CHART})"


def _missing() -> str:
    """Return why there is no node here, as a sentence; an empty text when there can be one."""
    if existing() is not None:
        return ""
    if os.geteuid() != 0:
        return "a node needs root: it mounts, and makes networks"
    return programs.missing()


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """The cluster. Tests are skipped by name where it cannot be had; in CI that is a failure, and so is a machine that
    is not as before when the node has ended."""
    given, folder = existing(), tmp_path_factory.mktemp("cluster")
    if given is not None:
        yield from attached(given, folder)
        return
    if reason := _missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    before = machine.look()
    with lifecycle.started(f"test-{os.getpid()}") as node:
        yield Cluster(node.kubeconfig, folder, node)
    assert machine.look() == before


def attached(given: Path, folder: Path) -> Iterator[Cluster]:
    """A cluster that was there before, and is left as it was. One that the tests would change ends the run."""
    # A run that is told to end takes away what it made, also one that a script started to ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        cluster = GivenCluster(given, folder)
    except UnsuitableCluster as exc:
        pytest.exit(f"{EXISTING}: {exc}", returncode=pytest.ExitCode.USAGE_ERROR)
    try:
        yield cluster
    finally:
        cluster.clear()


@pytest.fixture(scope="session")
def loaded(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> None:
    """All images that pods run, in the cluster. One that is elsewhere has them already."""
    if cluster.node is None:
        return
    folder = tmp_path_factory.mktemp("images")
    try:
        archives = images.write_all(folder)
    except image.Unavailable as exc:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(str(exc))
    for archive in archives:
        cluster.load(archive)


@pytest.fixture(scope="session")
def release(cluster: Cluster, loaded: None, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The chart, installed. It comes with Metacontroller where its program and its chart are here."""
    release = Release(cluster, tmp_path_factory.mktemp("release"), metacontroller=images.has_metacontroller())
    release.install()
    return release


@pytest.fixture
def carried(release: Release) -> Release:
    """The installed chart with Metacontroller; tests are skipped by name where Metacontroller is missing."""
    if not release.metacontroller:
        pytest.skip(_NO_METACONTROLLER)
    return release


@pytest.fixture
def applied(carried: Release) -> Release:
    """The release with the example model, by the commands of the README."""
    carried.cluster.kubectl("apply", "-f", str(EXAMPLE))
    carried.cluster.wait("condition=Ready", f"modeldeployment/{MODEL}")
    return carried
