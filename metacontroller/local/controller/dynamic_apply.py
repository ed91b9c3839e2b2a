"""Metacontroller's dynamic apply: a three-way merge of the observed, the last applied and the desired object.

Lists of objects count as maps when all items share one of a few well-known fields; all other lists are replaced
whole. The result of `updated` is what Metacontroller would PUT; where it equals the observed object it PUTs nothing.
"""

import json
from typing import Any

from metacontroller.local import errors
from metacontroller.local.apiserver.objects import Object, copy
from metacontroller.local.controller import gojson

LAST_APPLIED = "metacontroller.k8s.io/last-applied-configuration"
"""Annotation in which Metacontroller stores the object that it applied last."""

LIST_MAP_KEYS = ("containerPort", "port", "mountPath", "name", "uid", "ip", "path")
"""Fields that make a list of objects a map, in Metacontroller's order of preference."""

SYSTEM_FIELDS = (
    "selfLink", "uid", "resourceVersion", "generation", "creationTimestamp", "deletionTimestamp",
    "deletionGracePeriodSeconds", "managedFields",
)  # fmt: skip
"""Metadata fields that only the API server writes."""


def remembering(desired: Object) -> Object:
    """Return the desired object with itself in the last-applied annotation, as it is sent to create it."""
    created: Object = copy(desired)
    _remember(created, desired)
    return created


def updated(observed: Object, desired: Object) -> Object:
    """Return the whole object to write over `observed`, with status and system metadata of `observed`.

    Raises:
        errors.Invalid: The annotation is damaged. Metacontroller never updates such a child again.
    """
    result: Object = merge(observed, last_applied(observed), _without_annotation(desired))
    _remember(result, _without_annotation(desired))
    metadata, before = result.setdefault("metadata", {}), observed["metadata"]
    for name in SYSTEM_FIELDS:
        metadata.pop(name, None)
        if name in before:
            metadata[name] = copy(before[name])
    result.pop("status", None)
    if "status" in observed:
        result["status"] = copy(observed["status"])
    return result


def last_applied(observed: Object) -> Object:
    """Return the object that was applied last, from its annotation; empty where there is none. Raise errors.Invalid
    where it is damaged."""
    annotations = observed["metadata"].get("annotations")
    text = annotations.get(LAST_APPLIED) if isinstance(annotations, dict) else None
    if not text or not isinstance(text, str):
        return {}
    try:
        decoded = json.loads(text)
    except ValueError as exc:
        raise errors.Invalid(f"the annotation {LAST_APPLIED} is no JSON: remove it") from exc
    if decoded is not None and not isinstance(decoded, dict):
        raise errors.Invalid(f"the annotation {LAST_APPLIED} is no object: remove it")
    return decoded or {}


def merge(observed: Any, applied: Any, desired: Any) -> Any:
    """Return the three-way merge: fields that were applied and are no longer desired go, fields of other writers stay.

    Where an object or a list is observed and the desired value has another type, nothing counts as desired.
    """
    if isinstance(observed, dict):
        return _merge_objects(observed, _as(dict, applied), _as(dict, desired))
    if isinstance(observed, list):
        return _merge_lists(observed, _as(list, applied), _as(list, desired))
    return copy(desired)


def _merge_objects(observed: Object, applied: Object, desired: Object) -> Object:
    result = {key: copy(value) for key, value in observed.items() if key in desired or key not in applied}
    for key, wanted in desired.items():
        result[key] = merge(observed.get(key), applied.get(key), wanted)
    return result


def _merge_lists(observed: list[Any], applied: list[Any], desired: list[Any]) -> list[Any]:
    key = _list_map_key(observed, applied, desired)
    if key is None:
        return list(copy(desired))
    merged = _merge_objects(_by(key, observed), _by(key, applied), _by(key, desired))
    there = [_name(item[key]) for item in observed]
    more = dict.fromkeys(name for item in desired if (name := _name(item[key])) not in there)
    # Two observed items of one key both become what that key is merged to: Metacontroller does not tell them apart.
    return [merged[name] for name in (*there, *more) if name in merged]


def _list_map_key(*lists: list[Any]) -> str | None:
    items = [item for items in lists for item in items]
    if not items or not all(isinstance(item, dict) for item in items):
        return None
    return next((key for key in LIST_MAP_KEYS if all(key in item for item in items)), None)


def _by(key: str, items: list[Any]) -> Object:
    return {_name(item[key]): item for item in items}


def _name(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _as(kind: type[Any], value: Any) -> Any:
    return value if isinstance(value, kind) else kind()


def _without_annotation(desired: Object) -> Object:
    """Return the object without its annotation: a hook that echoes an observed child does not set what was applied
    last."""
    annotations = (desired.get("metadata") or {}).get("annotations")
    if not isinstance(annotations, dict) or LAST_APPLIED not in annotations:
        return desired
    others = {name: value for name, value in annotations.items() if name != LAST_APPLIED}
    return {**desired, "metadata": {**desired["metadata"], "annotations": others}}


def _remember(item: Object, desired: Object) -> None:
    metadata = item.setdefault("metadata", {})
    annotations = metadata.get("annotations")
    # Annotations that are not all strings cannot be read back: Metacontroller then keeps only its own.
    if not isinstance(annotations, dict) or not all(isinstance(value, str) for value in annotations.values()):
        annotations = metadata["annotations"] = {}
    annotations[LAST_APPLIED] = gojson.encode(desired)
