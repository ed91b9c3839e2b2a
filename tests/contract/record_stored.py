"""Writer of what the present version stores: `python -m tests.contract.record_stored NAME`, before a release."""

import copy
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.contract.test_crds import ACCEPTED, ORIGINAL, PLURALS, STATUS
from tests.e2e.test_api import FULL
from tests.structural import crd_schema


def objects() -> list[dict[str, Any]]:
    """Return the accepted objects of the tests, each with a name of its own, and one with every field of status."""
    items = [copy.deepcopy(item) for item in (*ORIGINAL, *ACCEPTED.values(), *FULL.values(), FULL["full"])]
    items[-1]["status"] = STATUS
    for number, item in enumerate(items):
        item["metadata"]["name"] = f"stored-{number}"
    return items


def without_descriptions(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without its prose."""
    kept = {key: value for key, value in schema.items() if key != "description"}
    if "properties" in kept:
        kept["properties"] = {name: without_descriptions(part) for name, part in kept["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(kept.get(key), dict):
            kept[key] = without_descriptions(kept[key])
    return kept


def main(name: str) -> None:
    """Write the file of a version."""
    schemas = {plural: without_descriptions(crd_schema(plural)) for plural in PLURALS.values()}
    text = json.dumps({"schemas": schemas, "objects": objects()}, sort_keys=True, separators=(",", ":"))
    path = Path(__file__).with_name("stored") / f"{name}.json"
    path.write_text(f"{text}\n", encoding="utf-8")
    print(f"wrote {path.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
