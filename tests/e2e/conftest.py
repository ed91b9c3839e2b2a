"""One control plane for all end-to-end tests."""

import os
from collections.abc import Iterator

import pytest

from tests.chart.helm import with_dependencies
from tests.e2e import controlplane, pods
from tests.e2e.binaries import find
from tests.e2e.controlplane import ControlPlane
from tests.e2e.installation import Installation
from tests.e2e.pods import Image
from tests.e2e.product import Product, missing


@pytest.fixture(scope="session")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A control plane on loopback. Skipped by name where a program is missing; in CI that is a failure."""
    missing = [name for name in controlplane.PROGRAMS if find(name) is None]
    if missing:
        reason = f"{', '.join(missing)}: missing, `make e2e` builds them"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    with controlplane.running(tmp_path_factory.mktemp("plane")) as plane:
        yield plane


@pytest.fixture(scope="session")
def product(plane: ControlPlane) -> Iterator[Product]:
    """The product with the real Metacontroller; skipped by name where that is not here."""
    if reason := missing():
        pytest.skip(reason)
    product = Product(plane)
    product.start()
    yield product
    product.metacontroller.stop()
    product.hooks.stop()


@pytest.fixture(scope="session")
def image(tmp_path_factory: pytest.TempPathFactory) -> Image:
    """What pods run; skipped by name where pods cannot be started."""
    if reason := pods.missing():
        pytest.skip(reason)
    return Image(tmp_path_factory.mktemp("image"))


@pytest.fixture(scope="session")
def installation(image: Image, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The chart on a control plane of its own, serving all namespaces, with the real Metacontroller."""
    if reason := missing():
        pytest.skip(reason)
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
