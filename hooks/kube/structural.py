"""What the API server makes of a custom resource before it stores it: without unknown fields and nulls, with defaults.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/ (pruning, defaulting)
Each step is a pure function of a structural schema and a value.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import Any, Final

from hooks.kube.objects import Object

Schema = Mapping[str, Any]

_METADATA: Final = frozenset(
    {
        *("annotations", "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers"),
        *("generateName", "generation", "labels", "managedFields", "name", "namespace", "ownerReferences"),
        *("resourceVersion", "selfLink", "uid"),
    }
)
"""Fields of meta/v1 ObjectMeta."""


def stored(schema: Schema, item: Object) -> Object:
    """Return an object as the API server stores it, with `metadata` as it is."""
    result: Object = defaulted(schema, pruned(schema, {**item, "metadata": {}}))
    return {**result, "metadata": item.get("metadata")}


def unknown_fields(schema: Schema, item: Object) -> list[str]:
    """Return the paths of the fields that the API server does not know, as its strict decoding names them."""
    metadata = item.get("metadata")
    strange = [f"metadata.{name}" for name in metadata if name not in _METADATA] if isinstance(metadata, dict) else []
    return sorted([*_unknown(schema, {**item, "metadata": {}}, ""), *strange])


def wrong_types(schema: Schema, value: Any, path: str = "") -> Iterator[tuple[str, Schema, str | float]]:
    """Yield path, schema and value of each number or boolean that is given as something else: `"50"` for 50.

    The API server refuses those, and what reads an object later may take them.
    """
    if isinstance(value, dict):
        for name, member in value.items():
            yield from wrong_types(_member(schema, name), member, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from wrong_types(schema.get("items", {}), item, f"{path}[{index}]")
    elif isinstance(value, str | float | int):
        kind, is_number = schema.get("type"), not isinstance(value, str | bool)
        if (kind in ("integer", "number") and not is_number) or (kind == "boolean" and not isinstance(value, bool)):
            yield path, schema, value


def _unknown(schema: Schema, value: Any, path: str) -> Iterator[str]:
    if isinstance(value, dict):
        for name, member in value.items():
            where = f"{path}.{name}" if path else name
            if _is_known(schema, name):
                yield from _unknown(_member(schema, name), member, where)
            elif "x-kubernetes-preserve-unknown-fields" not in schema:
                yield where
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _unknown(schema.get("items", {}), item, f"{path}[{index}]")


def pruned(schema: Schema, value: Any) -> Any:
    """Return a copy of a value without the fields that the schema does not know."""
    if schema.get("x-kubernetes-preserve-unknown-fields"):
        return value
    if isinstance(value, dict):
        return {
            name: pruned(_member(schema, name), member) for name, member in value.items() if _is_known(schema, name)
        }
    if isinstance(value, list):
        return [pruned(schema.get("items", {}), item) for item in value]
    return value


def defaulted(schema: Schema, value: Any) -> Any:
    """Return a copy of a value with every default set; a null counts as absent."""
    if isinstance(value, dict):
        result = {name: member for name, member in value.items() if member is not None or not _drops(schema, name)}
        for name, child in schema.get("properties", {}).items():
            if name not in result and "default" in child:
                result[name] = copy.deepcopy(child["default"])
        return {name: defaulted(_member(schema, name), member) for name, member in result.items()}
    if isinstance(value, list):
        return [defaulted(schema.get("items", {}), item) for item in value]
    return value


def _drops(schema: Schema, name: str) -> bool:
    """Whether a null in that field counts as absent: in one that the schema knows and that is not nullable."""
    return _is_known(schema, name) and not _member(schema, name).get("nullable")


def _is_known(schema: Schema, name: str) -> bool:
    return name in schema.get("properties", ()) or "additionalProperties" in schema


def _member(schema: Schema, name: str) -> Schema:
    member: Schema = schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {}
    return member
