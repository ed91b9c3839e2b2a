"""Hook of mkdocs: links of the documentation that lead out of docs/ lead to the repository on the site.

In the repository such a link is a path, so it works there, too, and a dead one is an error.
"""

import logging
import posixpath
import re
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[1]
"""Path of the checkout. mkdocs runs this file by itself, where no other module of the project is found."""
REPOSITORY: Final = "https://github.com/beamlit/beamlit-controller/blob/main"
_LINK: Final = re.compile(r"\]\((?P<path>(?:\.\./)+[^)#\s]*)(?P<anchor>#[^)\s]*)?\)")
_log = logging.getLogger("mkdocs.hooks.docs_site")


def on_page_markdown(markdown: str, /, *, page: Any, **_: Any) -> str:
    """Return the text of a page with its links out of docs/ changed to addresses."""
    return with_addresses(markdown, page.file.src_uri)


def with_addresses(markdown: str, source: str) -> str:
    """Return the text of the page at `source`, a path below docs/, with its links out of docs/ changed to addresses."""

    def address(link: re.Match[str]) -> str:
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(source), link["path"]))
        if path.startswith("docs/"):
            return link[0]
        if not (ROOT / path).exists():
            _log.warning("%s links to %s, which does not exist", source, path)
        return f"]({REPOSITORY}/{path}{link['anchor'] or ''})"

    return _LINK.sub(address, markdown)
