"""Generated files: they are those that the present types give."""

from pathlib import Path

import pytest

from tools.generate import generated
from tools.repository import ROOT

GENERATED = generated()


@pytest.mark.parametrize("path", GENERATED, ids=str)
def test_checked_in_file_is_fresh(path: Path) -> None:
    """A generated file is the one that `make generate` writes."""
    assert (ROOT / path).read_text(encoding="utf-8") == GENERATED[path], f"{path} is stale: run `make generate`"


def test_nothing_is_left_over() -> None:
    """The folder crds/ has no file that is not generated."""
    assert {file.relative_to(ROOT) for file in (ROOT / "crds").iterdir()} <= set(GENERATED)


def test_generating_twice_gives_the_same() -> None:
    """Generating twice gives the same files."""
    assert generated() == GENERATED
