"""Generated files: they are those that the present types give."""

from tools.generate import generated
from tools.repository import ROOT


def test_checked_in_files_are_fresh() -> None:
    """Every generated file is the one that `make generate` writes, and generating twice gives the same."""
    files = generated()
    stale = [str(path) for path, text in files.items() if (ROOT / path).read_text(encoding="utf-8") != text]
    assert not stale, f"{', '.join(stale)}: stale, run `make generate`"
    assert generated() == files


def test_nothing_is_left_over() -> None:
    """The folder crds/ has no file that is not generated."""
    assert {file.relative_to(ROOT) for file in (ROOT / "crds").iterdir()} <= set(generated())
