"""The site of the documentation: all pages are in its navigation, links lead somewhere, nothing is from elsewhere."""

import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from tools.docs_site import REPOSITORY, with_addresses
from tools.repository import ROOT

DOCS = ROOT / "docs"
CONFIGURATION = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
PAGES = sorted(path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md"))


def pages(nav: Any) -> list[str]:
    """Return the pages of a navigation, in its order."""
    if isinstance(nav, str):
        return [nav]
    return [page for one in (nav.values() if isinstance(nav, dict) else nav) for page in pages(one)]


def test_every_page_is_in_the_navigation() -> None:
    """Every page is in the navigation, once."""
    assert sorted(pages(CONFIGURATION["nav"])) == PAGES


def anchors(path: Path) -> set[str]:
    """Return the anchors of the headings of a page, as GitHub and the site make them."""
    text = re.sub(r"^ *```.*?^ *```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title.lower())) for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    """Every relative link of a page leads to a file, and to a heading where it names one."""
    text = re.sub(r"^ *```.*?^ *```", "", (DOCS / page).read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for target in re.findall(r"\]\((?!https?:|mailto:)([^)\s]+)\)", text):
        name, _, anchor = target.partition("#")
        path = (DOCS / page).parent / name if name else DOCS / page
        assert path.exists(), f"{page}: {target}"
        if anchor and path.suffix == ".md":
            assert anchor in anchors(path), f"{page}: {target}"


def test_links_out_of_the_documentation() -> None:
    """A link out of docs/ leads to the repository on the site; one inside stays as it is."""
    text = "[a](../README.md#try-it) [b](../install.md#upgrading) [c](../../charts)"
    assert with_addresses(text, "tutorials/adopt.md") == (
        f"[a](../README.md#try-it) [b](../install.md#upgrading) [c]({REPOSITORY}/charts)"
    )
    assert with_addresses("[a](../README.md#try-it)", "install.md") == f"[a]({REPOSITORY}/README.md#try-it)"


def test_the_pictures_are_self_contained() -> None:
    """A picture is well-formed, has a title and a description, and refers to nothing outside."""
    pictures = sorted((DOCS / "pictures").glob("*.svg"))
    assert pictures
    for path in pictures:
        root = ElementTree.fromstring(path.read_text(encoding="utf-8"))
        names = [element.tag.rpartition("}")[2] for element in root]
        assert {"title", "desc"} <= set(names)
        assert not {"script", "image", "foreignObject"} & {element.tag.rpartition("}")[2] for element in root.iter()}
        assert "href" not in path.read_text(encoding="utf-8")


def test_nothing_is_fetched_from_elsewhere() -> None:
    """The site has no fonts, scripts or styles of other servers."""
    assert CONFIGURATION["theme"]["font"] is False
    assert not CONFIGURATION.keys() & {"extra_javascript", "extra_css", "repo_url"}
