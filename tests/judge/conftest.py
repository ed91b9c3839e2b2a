"""Fixtures: the chart with its dependencies, and a registry that has it."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chart.helm import helm, with_dependencies
from tests.e2e.binaries import find
from tests.judge.registry import Registry


def needed(program: str) -> str:
    """Return the path of a program. Tests are skipped by name without it; in CI that is a failure."""
    path = find(program)
    if path is None:
        reason = f"{program} is missing: `make judge` builds it"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    return str(path)


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with its dependencies."""
    needed("helm")
    return with_dependencies(tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="session")
def registry(chart: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    """A registry on this machine to which the chart was pushed, as a release does it."""
    folder = tmp_path_factory.mktemp("registry")
    registry = Registry(folder)
    with registry.running():
        helm("package", str(chart), "--destination", str(folder))
        (package,) = folder.glob("*.tgz")
        helm("push", str(package), "oci://ghcr.io/beamlit", environment=registry.environment(folder))
        yield registry
