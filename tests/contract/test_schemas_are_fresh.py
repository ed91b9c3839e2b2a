"""Generated files are what the types say today."""

from pathlib import Path

import pytest

from tools.generate import generated
from tools.repository import ROOT

GENERATED = generated()


@pytest.mark.parametrize("path", GENERATED, ids=str)
def test_checked_in_file_is_fresh(path: Path) -> None:
    """A file that differs is out of date: run `make generate` and commit it."""
    assert (ROOT / path).read_text(encoding="utf-8") == GENERATED[path], f"{path} is stale: run `make generate`"


def test_nothing_is_left_over() -> None:
    """A kind that is gone takes its CRD with it."""
    assert {file.relative_to(ROOT) for file in (ROOT / "crds").iterdir()} <= set(GENERATED)


def test_generating_twice_gives_the_same() -> None:
    """The order of fields does not depend on the run."""
    assert generated() == GENERATED
