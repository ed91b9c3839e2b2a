"""Fields of objects that nobody validated: a value of the wrong type counts as absent."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The object under a key; empty when there is none."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def text(parent: Mapping[str, Any], key: str) -> str:
    """The text under a key; empty when there is none."""
    value = parent.get(key)
    return value if isinstance(value, str) else ""


def integer(parent: Mapping[str, Any], key: str) -> int | None:
    """The whole number under a key; None when there is none."""
    value = parent.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def texts(parent: Mapping[str, Any], key: str) -> Mapping[str, str]:
    """The map of texts under a key."""
    return {name: value for name, value in mapping(parent, key).items() if isinstance(value, str)}


def objects(parent: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """The objects in the list under a key."""
    value = parent.get(key)
    return [item for item in value if isinstance(item, dict)] if isinstance(value, list) else []


def time(parent: Mapping[str, Any], key: str) -> datetime | None:
    """The RFC 3339 time under a key; None when there is none."""
    try:
        value = datetime.fromisoformat(text(parent, key))
    except ValueError:
        return None
    return value if value.tzinfo is not None else None
