"""One control plane for all end-to-end tests: one that they start, or the cluster that E2E_KUBECONFIG names."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.chart.helm import with_dependencies
from tests.e2e import controlplane, pods
from tests.e2e.controlplane import EXISTING, NEEDS_ITS_OWN, ControlPlane
from tests.e2e.existing import PROGRAMS, ExistingCluster, UnsuitableCluster
from tests.e2e.installation import Installation
from tests.e2e.pods import Image
from tests.e2e.product import Product, missing


def pytest_configure(config: pytest.Config) -> None:
    """Register the markers of end-to-end tests."""
    config.addinivalue_line("markers", f"own_plane: {NEEDS_ITS_OWN.replace('points', 'must not point')}")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On an existing cluster, skip tests that would disturb its users or need its processes and logs. With several
    processes, keep those together that share a control plane."""
    if controlplane.existing():
        for item in items:
            if item.get_closest_marker("own_plane"):
                item.add_marker(pytest.mark.skip(reason=NEEDS_ITS_OWN))
    if config.getoption("loadgroup", default=False):
        for item in items:
            item.add_marker(pytest.mark.xdist_group(_group(item)))
        # A process that comes last to what takes longest would keep all others waiting.
        items.sort(key=lambda item: _LONGEST.index(_group(item)) if _group(item) in _LONGEST else len(_LONGEST))


_LONGEST: Final = ("installation", "plane", "test_scale", "test_offloading", "test_offloading_by_load", "test_install")
"""Groups of tests that take the longest, in the order in which processes take them. While one builds the image for the
first group, another needs none for the second."""


def _group(item: pytest.Item) -> str:
    """Return the name of the control plane that a test shares with others, or that of its module."""
    module = item.path.stem
    if "tests/e2e" not in item.path.as_posix():
        return f"{item.path.parent.name}/{module}"
    fixtures: tuple[str, ...] = getattr(item, "fixturenames", ())
    if module in _OWN:
        return module
    return next((name for name in ("installation", "plane") if name in fixtures), module)


_OWN: Final = frozenset({"test_offloading_by_load", "test_uninstall"})
"""Modules with a fixture `plane` of their own."""


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """The control plane. Tests are skipped by name where a program is missing; in CI that is a failure."""
    folder = tmp_path_factory.mktemp("plane")
    given = controlplane.existing()
    if given is None:
        with controlplane.running(folder) as plane:
            yield plane
    else:
        controlplane.require(PROGRAMS)
        yield from attached(folder, given)


def attached(folder: Path, given: Path) -> Iterator[ControlPlane]:
    """An existing cluster. An unsuitable one ends the run, as no test on it would mean anything."""
    cluster = ExistingCluster(folder, given)
    try:
        try:
            cluster.start()
        except UnsuitableCluster as exc:
            pytest.exit(f"{EXISTING}: {exc}", returncode=pytest.ExitCode.USAGE_ERROR)
        yield cluster
    finally:
        cluster.stop()


@pytest.fixture(scope="session")
def product(plane: ControlPlane) -> Iterator[Product]:
    """The product with the real Metacontroller; tests are skipped by name where Metacontroller is missing."""
    if reason := missing():
        pytest.skip(reason)
    product = Product(plane)
    product.start()
    yield product
    product.metacontroller.stop()
    product.hooks.stop()


@pytest.fixture(scope="session")
def image() -> Image:
    """The image that pods run. Tests are skipped by name where pods cannot be started; in CI that is a failure."""
    if reason := pods.missing():
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return Image()


@pytest.fixture(scope="session")
def installation(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The chart on a control plane of its own, serving all namespaces, with Metacontroller where its program exists."""
    chart = with_dependencies(tmp_path_factory.mktemp("chart"))
    with controlplane.running(tmp_path_factory.mktemp("installation")) as plane:
        installation = Installation(plane, image, chart, "demo-local.default", "demo-local.team-a", "demo-local.team-b")
        with installation.proxy.running():
            try:
                installation.install(
                    *("--set=config.defaultRemoteBackend.workspace=demo", "--set=config.namespaces="),
                )
                yield installation
            finally:
                installation.stop()
