"""Paths of files in the documentation: each of them exists."""

import re
from pathlib import Path

import pytest

from tools.repository import ROOT

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted((ROOT / "docs").rglob("*.md"))]
_FOLDERS = "benchmarks|charts|crds|docs|examples|faults|gateway|hooks|metacontroller|program|tests|tools"
_PATH = re.compile(rf"`((?:{_FOLDERS})/[\w./-]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_files_that_a_page_names_exist(page: Path) -> None:
    """Every path in backticks that begins with a folder of the project leads to a file or a folder."""
    named = set(_PATH.findall(page.read_text(encoding="utf-8")))
    assert {path for path in named if not (ROOT / path).exists()} == set()


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "docs/glossary.md", "docs/architecture.md"])
def test_the_maps_name_many_files(page: str) -> None:
    """The pages that lead a newcomer through the code name at least five files."""
    assert len(_PATH.findall((ROOT / page).read_text(encoding="utf-8"))) >= 5
