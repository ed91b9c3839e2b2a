"""Fixtures: the chart with its dependencies, a registry that has it, and schemas."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.chart.helm import METACONTROLLER_CRDS, helm, with_dependencies
from tests.e2e.binaries import find
from tests.judge import openapi
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


@pytest.fixture(scope="session")
def schemas(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Where kubeconform finds schemas: those of the API server, of our kinds, and of Metacontroller's where it is."""
    folder = tmp_path_factory.mktemp("schemas")
    openapi.write_schemas(folder, json.loads(openapi.RECORD.read_text(encoding="utf-8")))
    if crds := os.environ.get(METACONTROLLER_CRDS):
        for definition in yaml.safe_load_all(Path(crds).read_text(encoding="utf-8")):
            openapi.write_custom(folder, definition)
    return openapi.location(folder)
