"""The version of the product, which pyproject.toml has, in every other file that needs it."""

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from tools.repository import ROOT

_QUERY: Final = r"(?<=\?v=)[\w.+-]+"
PLACES: Final[Mapping[str, str]] = {
    "Dockerfile": r"(?<=^ARG VERSION=)\S+",
    "charts/beamlit-controller/Chart.yaml": (
        r'(?<=^version: )\S+|(?<=^appVersion: ")[^"]+|(?<=image: ghcr\.io/beamlit/beamlit-controller:)\S+'
    ),
    "examples/requests/sync.json": _QUERY,
    "metacontroller/compositecontroller.yaml": _QUERY,
    "metacontroller/policies.yaml": _QUERY,
}
"""Regular expressions that match the version, by the path of the file."""


def version() -> str:
    """Return the version of the product."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["version"])


def stamped() -> dict[Path, str]:
    """Return the content of every file that has the version, by its path in the repository.

    Raises:
        ValueError: a file has no place for it any more.
    """
    result = {}
    for path, pattern in PLACES.items():
        text, count = re.subn(pattern, version(), (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
        if not count:
            raise ValueError(f"{path} has no version")
        result[Path(path)] = text
    return result
