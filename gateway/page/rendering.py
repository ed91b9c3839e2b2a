"""Templates of the page, which become HTML in small pieces.

Jinja2 and the templates are loaded when the page is opened for the first time, and not by the start of the
gateway: in a thread, because it takes longer than requests should wait.
"""

import asyncio
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.page.view import Level

if TYPE_CHECKING:
    from jinja2 import Environment

TEMPLATES: Final = Path(__file__).parent / "templates"
STATIC: Final = Path(__file__).parent / "static"
FILES: Final[Mapping[str, str]] = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
    "icon.svg": "image/svg+xml",
}
"""Types of the files that the page consists of besides."""
SECTIONS: Final = ("now", "routes", "requests", "sources")
"""Parts of the page that change by themselves, each with a template and an element of its name."""


class Templates:
    """Templates of the page."""

    def __init__(self) -> None:
        self._environment: Environment | None = None
        self._files: dict[str, bytes] = {}
        self._loading = asyncio.Lock()

    async def load(self) -> None:
        """Load everything where that has not been done."""
        async with self._loading:
            if self._environment is None:
                self._files, self._environment = await asyncio.to_thread(_load)

    def file(self, name: str) -> bytes:
        """Return the content of one of `FILES`."""
        return self._files[name]

    def page(self, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield the whole page in small pieces."""
        yield from self._generate("page", values)

    def section(self, name: str, values: Mapping[str, Any]) -> Iterator[str]:
        """Yield the content of a section in small pieces."""
        yield from self._generate(name, values)

    def _generate(self, name: str, values: Mapping[str, Any]) -> Iterator[str]:
        if self._environment is None:
            raise RuntimeError("the templates are not loaded")
        return self._environment.get_template(f"{name}.html").generate(values)


@cache
def _load() -> "tuple[dict[str, bytes], Environment]":
    """Read the files and compile the templates."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,  # what a name has of markup is text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    environment.globals["levels"] = Level
    for name in environment.list_templates():
        environment.get_template(name)
    return {name: (STATIC / name).read_bytes() for name in FILES}, environment
