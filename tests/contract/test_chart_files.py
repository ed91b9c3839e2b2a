"""Files of the chart that follow from others."""

from pathlib import Path

import pytest

from tools.chart_reference import CHART, settings
from tools.repository import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "crds").iterdir()), ids=lambda path: path.name)
def test_the_charts_crds_do_not_drift(path: Path) -> None:
    """The chart carries the CRDs as they are; copy them when they change."""
    assert (CHART / "crds" / path.name).read_text() == path.read_text(), f"cp crds/{path.name} {CHART / 'crds'}"


@pytest.mark.parametrize("path", sorted((CHART / "crds").iterdir()), ids=lambda path: path.name)
def test_the_crds_can_be_piped(path: Path) -> None:
    """`helm show crds` prints the files one after another: without a separator kubectl would take two for one."""
    assert path.read_text().startswith("---\n")
    assert (ROOT / "crds" / path.name).is_file()


def test_every_value_is_described_once() -> None:
    """A value has a meaning, and no two have the same path."""
    paths = [one.path for one in settings()]
    assert len(set(paths)) == len(paths)
    assert len(paths) > 60
    assert all(one.meaning.endswith(".") for one in settings())


def test_rd_06_nothing_is_mounted_by_sub_path() -> None:
    """A file mounted by subPath is never updated: a renewed certificate or Secret would go unnoticed."""
    templates = sorted((CHART / "templates").rglob("*.yaml"))
    assert templates
    assert [path.name for path in templates if "subPath" in path.read_text()] == []
