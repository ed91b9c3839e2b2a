"""Access to fields of objects that were not validated: a value of the wrong type counts as absent."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any


def mapping(parent: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """Return the object under a key, or an empty one where there is none."""
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def text(parent: Mapping[str, Any], key: str) -> str:
    """Return the text under a key, or an empty one where there is none."""
    value = parent.get(key)
    return value if isinstance(value, str) else ""


def integer(parent: Mapping[str, Any], key: str) -> int | None:
    """Return the whole number under a key, or None where there is none."""
    value = parent.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def texts(parent: Mapping[str, Any], key: str) -> Mapping[str, str]:
    """Return the map of texts under a key, without the values that are no texts."""
    return {name: value for name, value in mapping(parent, key).items() if isinstance(value, str)}


def objects(parent: Mapping[str, Any], key: str, most: int | None = None) -> list[Mapping[str, Any]]:
    """Return the objects in the list under a key, without the items that are no objects.

    Args:
        parent: the object that has the list.
        key: the name of the list.
        most: items at the beginning of the list that count; None for all.
    """
    value = parent.get(key)
    return [item for item in value[:most] if isinstance(item, dict)] if isinstance(value, list) else []


def time(parent: Mapping[str, Any], key: str) -> datetime | None:
    """Return the time (RFC 3339) under a key, or None where there is none."""
    try:
        value = datetime.fromisoformat(text(parent, key))
    except ValueError:
        return None
    return value if value.tzinfo is not None else None
