"""README.md and values.schema.json of the chart, from the comments in its values.yaml.

A line `# -- …` above a key describes it. A described key is a setting, whatever its value holds; a mapping without a
description is a section, and closed: a misspelled key in it is refused.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

CHART: Final = Path(__file__).resolve().parents[2] / "charts/beamlit-controller"
_KEY: Final = re.compile(r"( *)([A-Za-z][\w-]*):")
_ALLOWED: Final[Mapping[str, tuple[str, ...]]] = {
    "config.defaultRemoteBackend.scheme": ("http", "https"),
    "config.defaultRemoteBackend.authConfig.type": ("oauth",),
    "config.metricInformer.type": ("kubernetes", "prometheus"),
    "gateway.service.type": ("ClusterIP", "NodePort", "LoadBalancer"),
    "image.pullPolicy": ("Always", "IfNotPresent", "Never"),
}
_OPEN: Final = frozenset({"metacontroller", "metacontroller.rbac", "metacontroller.serviceAccount"})
"""Sections that belong to a dependency, whose other keys pass."""
_HEAD: Final = """\
<!-- Generated from values.yaml by `make generate`. -->

# beamlit-controller

Installs hooks, the gateway, their RBAC and, unless told otherwise, Metacontroller. See
[docs/install.md](../../docs/install.md).

| value | default | meaning |
| --- | --- | --- |
"""


@dataclass(frozen=True, slots=True)
class Setting:
    """One described value."""

    path: str
    default: Any
    meaning: str


def settings(text: str | None = None) -> Iterator[Setting]:
    """Every described value, in the order of the file."""
    source = (CHART / "values.yaml").read_text() if text is None else text
    values = yaml.safe_load(source)
    trail: list[tuple[int, str]] = []
    meaning = ""
    for line in source.splitlines():
        if line.strip().startswith("# -- "):
            meaning = line.strip().removeprefix("# -- ")
        elif (found := _KEY.match(line)) is not None:
            depth = len(found[1])
            trail = [(level, name) for level, name in trail if level < depth]
            trail.append((depth, found[2]))
            if meaning:
                path = [name for _, name in trail]
                default = values
                for name in path:
                    default = default[name]
                yield Setting(".".join(path), default, meaning)
            meaning = ""


def readme() -> str:
    """The chart's README."""
    rows = [f"| `{one.path}` | `{json.dumps(one.default)}` | {one.meaning} |\n" for one in settings()]
    return _HEAD + "".join(rows)


def schema() -> str:
    """The chart's values.schema.json."""
    root: dict[str, Any] = _section("")
    root["$schema"] = "https://json-schema.org/draft-07/schema#"
    for one in settings():
        *sections, name = one.path.split(".")
        place = root
        for index, section in enumerate(sections):
            inner = place["properties"].setdefault(section, _section(".".join(sections[: index + 1])))
            place = inner
        place["properties"][name] = _leaf(one)
    # Helm passes these on to every chart.
    root["properties"] |= {"global": {"type": "object"}, "metrics-server": {"type": "object"}}
    return json.dumps(root, indent=2) + "\n"


def _section(path: str) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": path in _OPEN, "properties": {}}


def _leaf(one: Setting) -> dict[str, Any]:
    kinds = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}
    leaf: dict[str, Any] = {"description": one.meaning, "type": kinds[type(one.default)]}
    if one.path in _ALLOWED:
        leaf["enum"] = list(_ALLOWED[one.path])
    return leaf
