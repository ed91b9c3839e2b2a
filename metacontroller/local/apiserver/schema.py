"""Structural schemas as the API server applies them to a custom resource: prune, default, validate.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
Each step is a pure function of a schema and a decoded value. Problems are sentences that name the field and say what
is allowed. Rules written in CEL are in `rules`.
"""

import re
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from metacontroller.local.apiserver.objects import Object, copy, equal

EMPTY: Object = {}
_BOUNDS = {"int32": (-(2**31), 2**31 - 1), "int64": (-(2**63), 2**63 - 1)}
_NAMES = {
    "object": "an object",
    "array": "a list",
    "string": "a string",
    "integer": "an integer",
    "number": "a number",
    "boolean": "true or false",
}


def member(schema: Object, name: str) -> Object | None:
    """Return the schema of a field of an object, or None where the schema does not know the field."""
    if (found := schema.get("properties", EMPTY).get(name)) is not None:
        return dict(found)
    additional = schema.get("additionalProperties")
    if additional is None or additional is False:
        return None
    return EMPTY if additional is True else dict(additional)


def prune(schema: Object, value: Any, path: str = "") -> tuple[Any, list[str]]:
    """Return a copy without the fields that the schema does not know, and the paths of the dropped fields."""
    dropped: list[str] = []
    return _prune(schema, value, path, dropped), dropped


def _prune(schema: Object, value: Any, path: str, dropped: list[str]) -> Any:
    keep = bool(schema.get("x-kubernetes-preserve-unknown-fields"))
    if isinstance(value, dict):
        result = {}
        for name, item in value.items():
            below = member(schema, name)
            if below is None:
                if keep:
                    result[name] = copy(item)
                else:
                    dropped.append(f"{path}.{name}".lstrip("."))
            elif item is None and not below.get("nullable"):
                continue  # a null counts as absent, and a default takes its place
            else:
                result[name] = _prune(below, item, f"{path}.{name}", dropped)
        return result
    if isinstance(value, list):
        items = schema.get("items")
        return copy(value) if items is None else [_prune(items, item, f"{path}[]", dropped) for item in value]
    return value


def default(schema: Object, value: Any) -> Any:
    """Return a copy in which every absent field with a default is set, where the object that holds it is present."""
    if isinstance(value, dict):
        result = dict(value)
        for name, below in schema.get("properties", EMPTY).items():
            if name not in result and "default" in below:
                result[name] = copy(below["default"])
        return {name: default(member(schema, name) or EMPTY, item) for name, item in result.items()}
    if isinstance(value, list):
        items = schema.get("items", EMPTY)
        return [default(items, item) for item in value]
    return value


def problems(schema: Object, value: Any, path: str = "") -> Iterator[str]:
    """Return the violations of the schema, one sentence each."""
    if value is None and schema.get("nullable"):
        return
    if (complaint := _wrong_type(schema, value)) is not None:
        yield f"{_at(path)} {complaint}"
        return
    if "enum" in schema and not any(equal(value, allowed) for allowed in schema["enum"]):
        allowed = ", ".join(str(item) for item in schema["enum"])
        yield f"{_at(path)} must be one of {allowed}, not {_shown(value)}"
    if isinstance(value, bool):
        pass
    elif isinstance(value, str):
        yield from _string(schema, value, path)
    elif isinstance(value, int | float):
        yield from _number(schema, value, path)
    elif isinstance(value, dict):
        yield from _object(schema, value, path)
    elif isinstance(value, list):
        yield from _list(schema, value, path)
    yield from _combined(schema, value, path)


def _at(path: str) -> str:
    return path.lstrip(".") or "the object"


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _wrong_type(schema: Object, value: Any) -> str | None:
    if schema.get("x-kubernetes-int-or-string"):
        fits = isinstance(value, int | str) and not isinstance(value, bool)
        return None if fits else f"must be an integer or a string, not {_shown(value)}"
    wanted = schema.get("type")
    if wanted is None:
        return None
    fits = {
        "object": isinstance(value, dict),
        "array": isinstance(value, list),
        "string": isinstance(value, str),
        "boolean": isinstance(value, bool),
        "integer": (isinstance(value, int) and not isinstance(value, bool))
        or (isinstance(value, float) and value.is_integer()),
        "number": isinstance(value, int | float) and not isinstance(value, bool),
    }[wanted]
    return None if fits else f"must be {_NAMES[wanted]}, not {_shown(value)}"


def _string(schema: Object, value: str, path: str) -> Iterator[str]:
    if len(value) < schema.get("minLength", 0):
        yield f"{_at(path)} must have at least {schema['minLength']} characters"
    if len(value) > schema.get("maxLength", len(value)):
        yield f"{_at(path)} must have at most {schema['maxLength']} characters, not {len(value)}"
    if "pattern" in schema and not re.search(schema["pattern"], value):
        # A real API server shows the pattern; the description says the same to people.
        meaning = schema.get("description", f"what the pattern {schema['pattern']} allows").partition(". ")[0]
        yield f"{_at(path)} cannot be {_shown(value)}; it is: {meaning.rstrip('.')}"
    if schema.get("format") == "date-time" and not _is_time(value):
        yield f"{_at(path)} must be a time such as 2026-01-31T12:00:00Z, not {_shown(value)}"


def _is_time(value: str) -> bool:
    if not re.fullmatch(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", value):
        return False
    try:
        datetime.fromisoformat(value.upper())
    except ValueError:
        return False
    return True


def _number(schema: Object, value: float, path: str) -> Iterator[str]:
    low, high = _BOUNDS.get(schema.get("format", ""), (value, value))
    if not low <= value <= high:
        yield f"{_at(path)} must fit {schema['format']}, which {value} does not"
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and (value < least or (schema.get("exclusiveMinimum") and value == least)):
        word = "greater than" if schema.get("exclusiveMinimum") else "at least"
        yield f"{_at(path)} must be {word} {least}, not {value}"
    if most is not None and (value > most or (schema.get("exclusiveMaximum") and value == most)):
        word = "less than" if schema.get("exclusiveMaximum") else "at most"
        yield f"{_at(path)} must be {word} {most}, not {value}"
    if "multipleOf" in schema and value % schema["multipleOf"]:
        yield f"{_at(path)} must be a multiple of {schema['multipleOf']}, not {value}"


def _object(schema: Object, value: Object, path: str) -> Iterator[str]:
    for name in schema.get("required", ()):
        if name not in value:
            yield f"{_at(f'{path}.{name}')} is required"
    if len(value) < schema.get("minProperties", 0):
        yield f"{_at(path)} must have at least {schema['minProperties']} fields"
    if len(value) > schema.get("maxProperties", len(value)):
        yield f"{_at(path)} must have at most {schema['maxProperties']} fields"
    for name, item in value.items():
        if (below := member(schema, name)) is not None:
            yield from problems(below, item, f"{path}.{name}")


def _list(schema: Object, value: list[Any], path: str) -> Iterator[str]:
    if len(value) < schema.get("minItems", 0):
        yield f"{_at(path)} must have at least {schema['minItems']} items"
    if len(value) > schema.get("maxItems", len(value)):
        yield f"{_at(path)} must have at most {schema['maxItems']} items, not {len(value)}"
    for index, item in enumerate(value):
        yield from problems(schema.get("items", EMPTY), item, f"{path}[{index}]")
    kind = schema.get("x-kubernetes-list-type")
    if kind == "set":
        identities = value
    elif kind == "map":
        identities = [list_key(schema, item) for item in value]
    else:
        return
    for index, identity in enumerate(identities):
        if any(equal(identity, earlier) for earlier in identities[:index]):
            yield f"{_at(path)}[{index}] is there twice: {_shown(identity)}"


def list_key(schema: Object, item: Any) -> list[Any]:
    """Return the key of an item of a list of type `map`."""
    return [item.get(name) if isinstance(item, dict) else None for name in schema["x-kubernetes-list-map-keys"]]


def _combined(schema: Object, value: Any, path: str) -> Iterator[str]:
    for part in schema.get("allOf", ()):
        yield from problems(part, value, path)
    if "anyOf" in schema and not any(_fits(part, value) for part in schema["anyOf"]):
        yield f"{_at(path)} must have one of the allowed forms"
    if "oneOf" in schema and sum(_fits(part, value) for part in schema["oneOf"]) != 1:
        yield f"{_at(path)} must have exactly one of the allowed forms"
    if "not" in schema and _fits(schema["not"], value):
        yield f"{_at(path)} has a form that is not allowed"


def _fits(schema: Object, value: Any) -> bool:
    return next(problems(schema, value), None) is None
