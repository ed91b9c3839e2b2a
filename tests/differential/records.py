"""Records of the real Metacontroller, one file for each scenario, so that tests without one can compare with it."""

import json
import os
from pathlib import Path
from typing import Any, Final

from tests.differential.snapshots import Record

FOLDER: Final = Path(__file__).resolve().parents[1] / "contract/recorded"
E2E_RECORD: Final = "E2E_RECORD"
"""Environment variable with which a run of the real Metacontroller writes the records instead of comparing with
them."""
_DEPTH: Final = 4


def recording() -> bool:
    """Return whether records are to be written."""
    return os.environ.get(E2E_RECORD, "") not in ("", "0")


def names() -> list[str]:
    """Return the names of the scenarios that have a record."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> Record:
    """Return the record of a scenario; raise FileNotFoundError when there is none."""
    return Record.from_json(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def write(name: str, record: Record) -> None:
    """Write the record of a scenario to its file."""
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{name}.json").write_text(f"{_text(record.as_json())}\n", encoding="utf-8")


def _text(value: Any, depth: int = 0) -> str:
    """Return JSON with a line for each object of a point and for each part of an exchange, short and easy to
    compare."""
    inside = "\n" + " " * (depth + 1)
    if depth < _DEPTH and value and isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {_text(value[key], depth + 1)}" for key in sorted(value)]
        return "{" + inside + f",{inside}".join(parts) + inside[:-1] + "}"
    if depth < _DEPTH and value and isinstance(value, list):
        return "[" + inside + f",{inside}".join(_text(item, depth + 1) for item in value) + inside[:-1] + "]"
    return json.dumps(value, sort_keys=True)
