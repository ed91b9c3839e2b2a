"""What the real Metacontroller did, one file for each scenario, so that everybody's tests know it."""

import json
import os
from pathlib import Path
from typing import Final

from tests.differential.snapshots import Record

FOLDER: Final = Path(__file__).resolve().parents[1] / "contract/recorded"
E2E_RECORD: Final = "E2E_RECORD"
"""With this variable a run with the real Metacontroller writes the records instead of comparing with them."""


def recording() -> bool:
    """Whether records are to be written."""
    return os.environ.get(E2E_RECORD, "") not in ("", "0")


def names() -> list[str]:
    """Scenarios that have a record."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def read(name: str) -> Record:
    """The record of a scenario; raises FileNotFoundError when there is none."""
    return Record.from_json(json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8")))


def write(name: str, record: Record) -> None:
    """Keep a record."""
    FOLDER.mkdir(exist_ok=True)
    text = json.dumps(record.as_json(), indent=1, sort_keys=True)
    (FOLDER / f"{name}.json").write_text(f"{text}\n", encoding="utf-8")
