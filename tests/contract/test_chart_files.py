"""Files of the chart that are copies of others, and the description of its values."""

from pathlib import Path

import pytest

from tools.chart_reference import CHART, settings
from tools.repository import ROOT


@pytest.mark.parametrize("path", sorted((ROOT / "crds").iterdir()), ids=lambda path: path.name)
def test_the_charts_crds_do_not_drift(path: Path) -> None:
    """The CRDs of the chart are equal to those in crds/."""
    assert (CHART / "crds" / path.name).read_text() == path.read_text(), f"cp crds/{path.name} {CHART / 'crds'}"


@pytest.mark.parametrize("path", sorted((CHART / "crds").iterdir()), ids=lambda path: path.name)
def test_the_crds_can_be_piped(path: Path) -> None:
    """Each CRD of the chart begins with a separator, because `helm show crds` prints one after another."""
    assert path.read_text().startswith("---\n")
    assert (ROOT / "crds" / path.name).is_file()


def test_every_value_is_described_once() -> None:
    """Every value of the chart is described in sentences, and no path is there twice."""
    paths = [one.path for one in settings()]
    assert len(set(paths)) == len(paths)
    assert len(paths) > 60
    assert all(one.meaning.endswith(".") for one in settings())


def test_rd_06_nothing_is_mounted_by_sub_path() -> None:
    """RD-06: no template mounts a file by subPath, because it would not be updated when its Secret is."""
    templates = sorted((CHART / "templates").rglob("*.yaml"))
    assert templates
    assert [path.name for path in templates if "subPath" in path.read_text()] == []
