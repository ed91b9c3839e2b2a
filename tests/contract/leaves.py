"""Leaves of a structural schema: where they are in a value, and which values they may have there."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import jsonschema

from tests.structural import Schema

EACH: Final = "[]"
"""Path segment for the items of a list."""
ABSENT: Final = object()
"""Value that stands for an absent field."""
WORDS: Final = (
    *("other", "another", "Other", "x-other", "demo", "demo-svc", "other.example", "https://other.example/token"),
    *("team-b", "v1", "apps/v1", "Deployment", "StatefulSet", "Service", "eu", "gpu", "fr", "US", "oc", "t4"),
    *("$workspace", "/v2", "2026-03-01T12:00:30Z", "2031-01-01T00:00:00Z", "server", "sidecar"),
    *("cpu", "memory", "Utilization", "Value", "AverageValue", "In", "NotIn", "Exists", "1", "100", "7"),
)
"""Strings that are valid in some field, and some that are valid in none."""
NUMBERS: Final = (0, 1, 2, 3, 7, 20, 60, 81, 90, 100, 1000, 9000, 1000000, 0.5)


@dataclass(frozen=True, slots=True)
class Leaf:
    """A field without fields of its own, or a list of objects."""

    path: tuple[str, ...]
    schema: Mapping[str, Any]
    required: bool

    def __str__(self) -> str:
        return ".".join(self.path).replace(f".{EACH}", EACH)


def leaves(schema: Schema, path: tuple[str, ...] = ()) -> Iterator[Leaf]:
    """Yield the leaves below the schema of an object. A list of objects is a leaf beside those of its items."""
    for name, child in schema.get("properties", {}).items():
        here = (*path, name)
        items = child.get("items", {})
        if "properties" in child:
            yield from leaves(child, here)
            continue
        yield Leaf(here, child, name in schema.get("required", ()))
        if "properties" in items:
            yield from leaves(items, (*here, EACH))


def places(value: Any, path: tuple[str, ...]) -> Iterator[tuple[str | int, ...]]:
    """Yield the places in a value where a leaf is or could be: everything above it exists."""
    name, *rest = path
    if not rest:
        if isinstance(value, dict):
            yield (name,)
    elif name == EACH:
        for index, item in enumerate(value if isinstance(value, list) else ()):
            yield from ((index, *place) for place in places(item, tuple(rest)))
    elif isinstance(value, dict) and name in value:
        yield from ((name, *place) for place in places(value[name], tuple(rest)))


def at(value: Any, place: tuple[str | int, ...]) -> Any:
    """Return the value at a place, or ABSENT."""
    for key in place[:-1]:
        value = value[key]
    return value.get(place[-1], ABSENT)


def replaced(value: Any, place: tuple[str | int, ...], new: Any) -> Any:
    """Return a copy of a value with another value at a place."""
    result = copy.deepcopy(value)
    inner = result
    for key in place[:-1]:
        inner = inner[key]
    if new is ABSENT:
        inner.pop(place[-1], None)
    else:
        inner[place[-1]] = copy.deepcopy(new)
    return result


def others(leaf: Leaf, present: Any) -> Iterator[Any]:
    """Yield values other than the present one that the schema of the leaf accepts."""
    if present is not ABSENT and not leaf.required:
        yield ABSENT
    validator = jsonschema.Draft4Validator(dict(leaf.schema))
    for value in _values(leaf.schema, present):
        if value != present and validator.is_valid(value):
            yield value


def _values(schema: Mapping[str, Any], present: Any) -> Iterator[Any]:
    if "enum" in schema:
        yield from schema["enum"]
    elif schema.get("type") == "array":
        items = present if isinstance(present, list) else []
        yield from (items[:-1], items[1:], [*items, *items])
        if "properties" not in schema["items"]:
            yield from ([*items, word] for word in WORDS[:3])
    elif "x-kubernetes-preserve-unknown-fields" in schema:
        yield {**present, "metadata": {"labels": {"added": "word"}}}
    elif "additionalProperties" in schema:
        yield {**(present if isinstance(present, dict) else {}), "added": "word"}
    elif schema.get("type") == "boolean":
        yield from (False, True)
    else:
        yield from NUMBERS
        yield from WORDS
