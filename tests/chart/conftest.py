"""Fixtures: the chart with its dependencies."""

import os
from pathlib import Path

import pytest

from tests.chart.helm import METACONTROLLER_CHART, with_dependencies
from tests.e2e.binaries import find


@pytest.fixture(scope="session")
def chart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with its dependencies. Tests are skipped by name without helm; in CI that is a failure."""
    if find("helm") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("helm is missing: `make e2e` builds it")
        pytest.skip("helm is missing: `make e2e` builds it")
    return with_dependencies(tmp_path_factory.mktemp("chart"))


@pytest.fixture(scope="session")
def noted(chart: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The chart with a ConfigMap `notes` that holds the text that helm prints after an installation."""
    copy = with_dependencies(tmp_path_factory.mktemp("noted"))
    (copy / "templates/notes-shown.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: notes}\n"
        'data: {notes: {{ include "beamlit.notes" . | toJson }}}\n'
    )
    return copy


@pytest.fixture
def real(chart: Path) -> Path:
    """The chart with Metacontroller's own chart as dependency; tests are skipped by name where that is missing."""
    if not os.environ.get(METACONTROLLER_CHART):
        pytest.skip(f"not here: the chart of Metacontroller ({METACONTROLLER_CHART})")
    return chart
