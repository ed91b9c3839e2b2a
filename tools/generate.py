"""Command that writes all generated files: `make generate`, or `python -m tools.generate`.

`generated()` is also what the freshness test compares the checked-in files with.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from gateway.api.v1alpha1 import RouteDocument
from hooks.api.crds import crds
from program.problems import MUST_BE
from tools import chart_reference as chart
from tools.case_table import page as case_table
from tools.compatibility import page as compatibility
from tools.dashboard import dashboard
from tools.error_table import page as error_table
from tools.metrics_reference import page as metrics_reference
from tools.reference import crd_reference, offloading_reference, route_document_reference
from tools.repository import ROOT
from tools.version import stamped

# `helm show crds` puts no separator between files.
_HEADER: Final = "---\n# Generated from hooks/api/ by `make generate`.\n"


class _Dumper(yaml.SafeDumper):
    """YAML printer that writes every value in full, because people do not read anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Return that no value is written as an alias."""
        return True


def generated() -> dict[Path, str]:
    """Return the content of every generated file by its path in the repository."""
    definitions = crds()
    schema = route_schema()
    return {
        **{
            Path(folder, name): _HEADER + _yaml(crd)
            for name, crd in definitions.items()
            for folder in ("crds", "charts/beamlit-controller/crds")
        },
        Path("gateway/api/v1alpha1.schema.json"): json.dumps(schema, indent=2, ensure_ascii=False) + "\n",
        Path("charts/beamlit-controller/README.md"): chart.readme(),
        Path("charts/beamlit-controller/values.schema.json"): chart.schema(),
        Path("charts/beamlit-controller/files/dashboard.json"): dashboard(),
        Path("docs/compatibility.md"): compatibility(),
        Path("charts/beamlit-controller/templates/_defaults.tpl"): chart.defaults(),
        Path("docs/reference/crds.md"): crd_reference(list(definitions.values())),
        Path("docs/reference/errors.md"): error_table(),
        Path("docs/reference/metrics.md"): metrics_reference(),
        Path("docs/reference/offloading.md"): offloading_reference(),
        Path("docs/reference/proxy-cases.md"): case_table(),
        Path("docs/reference/route-document.md"): route_document_reference(schema),
        **stamped(),
    }


def route_schema() -> dict[str, Any]:
    """Return the JSON Schema of a route document, as a reader accepts it."""
    schema = RouteDocument.model_json_schema(by_alias=True, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_without_words(schema)}


def _without_words(node: Any) -> Any:
    """Return a schema without the words that error messages are made of."""
    if isinstance(node, list):
        return [_without_words(one) for one in node]
    if not isinstance(node, dict):
        return node
    return {key: _without_words(value) for key, value in node.items() if key != MUST_BE}


def _yaml(value: Mapping[str, Any]) -> str:
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, width=110, allow_unicode=True)
    return text


def main() -> None:
    """Write the files that differ, and print their names."""
    for path, content in generated().items():
        file = ROOT / path
        if file.is_file() and file.read_text(encoding="utf-8") == content:
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        print(f"wrote {path}")


if __name__ == "__main__":
    main()
