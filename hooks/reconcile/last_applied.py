"""Children as they were applied last, for when nothing new can be decided about them.

Under dynamic apply Metacontroller keeps the child of its last response in an annotation. Under server-side apply the
API server keeps which fields were applied (`managedFields`), and the observed child reduced to those fields is the
same. https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from collections.abc import Mapping
from typing import Any

import orjson

from hooks import names
from hooks.errors import DamagedAnnotation
from hooks.kube.objects import Key, Object, key_of
from hooks.kube.unstructured import mapping, objects, text
from hooks.observation.observation import Observation


def find_last_applied(api_version: str, kind: str, name: str, observation: Observation) -> Object | None:
    """Return an observed child as it was applied last; None when there is no such child.

    Raises:
        DamagedAnnotation: as `last_applied` does.
    """
    key = observation.key(api_version, kind, name)
    child = observation.children.get(key)
    return None if child is None else last_applied(key, child)


def last_applied(key: Key, child: Object) -> Object:
    """Return an observed child as the last response had it.

    Raises:
        DamagedAnnotation: its annotation cannot be read, or is about another object.
    """
    annotation = mapping(mapping(child, "metadata"), "annotations").get(names.LAST_APPLIED)
    applied = _owned(child) if annotation is None else _decoded(key, annotation)
    if key_of(applied) != key:
        raise DamagedAnnotation(f"{names.LAST_APPLIED} of {key} is about another object")
    return _without_selector_label(applied)


def _decoded(key: Key, annotation: object) -> Object:
    try:
        applied = orjson.loads(annotation if isinstance(annotation, str) else b"")
    except orjson.JSONDecodeError:
        raise DamagedAnnotation(f"{names.LAST_APPLIED} of {key} cannot be read") from None
    if not isinstance(applied, dict):
        raise DamagedAnnotation(f"{names.LAST_APPLIED} of {key} is not an object")
    return applied


def _without_selector_label(child: Object) -> Object:
    """Return a child without the selector label that Metacontroller adds before it writes the annotation."""
    metadata = mapping(child, "metadata")
    labels = {name: value for name, value in mapping(metadata, "labels").items() if name != names.CONTROLLER_UID_LABEL}
    return {**child, "metadata": {**metadata, "labels": labels}}


def _owned(child: Object) -> Object:
    """Return the fields of an observed child that Metacontroller applied, with those that identify it."""
    metadata = mapping(child, "metadata")
    owned = _reduced(child, _applied_fields(metadata))
    owned["apiVersion"], owned["kind"] = child["apiVersion"], child["kind"]
    owned["metadata"] = {
        **mapping(owned, "metadata"),
        "name": metadata["name"],
        "namespace": metadata.get("namespace", ""),
    }
    return owned


def _applied_fields(metadata: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the field set (FieldsV1) of the field manager that applied Metacontroller's own label."""
    for entry in objects(metadata, "managedFields"):
        fields = mapping(entry, "fieldsV1")
        labels = mapping(mapping(fields, "f:metadata"), "f:labels")
        if text(entry, "operation") == "Apply" and f"f:{names.CONTROLLER_UID_LABEL}" in labels:
            return fields
    raise DamagedAnnotation(
        f"{text(metadata, 'name')} has neither {names.LAST_APPLIED} nor fields that were applied by Metacontroller"
    )


def _reduced(value: Mapping[str, Any], fields: Mapping[str, Any]) -> Object:
    """Return the fields of an object that a FieldsV1 set has: `f:name` for a field, the empty set for all its value."""
    reduced: Object = {}
    for field, inner in fields.items():
        name = field.removeprefix("f:")
        if field.startswith("f:") and name in value:
            reduced[name] = _reduced_value(value[name], inner)
    return reduced


def _reduced_value(value: Any, fields: Mapping[str, Any]) -> Any:
    members = {name: inner for name, inner in fields.items() if name != "."}
    if not members:
        return value
    if isinstance(value, dict):
        return _reduced(value, members)
    if isinstance(value, list):
        return _reduced_list(value, members)
    return value


def _reduced_list(items: list[Any], members: Mapping[str, Any]) -> list[Any]:
    """Return the items of a list that a FieldsV1 set has: `k:{…}` names an item by its keys, `v:…` by its value."""
    reduced = []
    for item in items:
        for member, inner in members.items():
            identity = orjson.loads(member[2:])
            if member.startswith("v:") and item == identity:
                reduced.append(item)
            elif member.startswith("k:") and isinstance(item, dict) and identity.items() <= item.items():
                reduced.append(_reduced_value(item, inner) if inner.keys() - {"."} else {**identity})
    return reduced
