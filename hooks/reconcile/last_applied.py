"""Children as they were decided last, for when nothing new can be decided about them.

Under dynamic apply Metacontroller keeps what it was told in an annotation. Under server-side apply the API server
keeps which fields it was told (`managedFields`), and the observed child reduced to them is the same.
https://kubernetes.io/docs/reference/using-api/server-side-apply/
"""

from collections.abc import Mapping
from typing import Any

import orjson

from hooks import names
from hooks.errors import DamagedAnnotation
from hooks.kube.objects import Key, Object, key_of
from hooks.kube.unstructured import mapping, objects, text


def as_decided_last(key: Key, child: Object) -> Object:
    """The child as it was last answered.

    Raises:
        DamagedAnnotation: its annotation cannot be read, or is about another object.
    """
    annotation = mapping(mapping(child, "metadata"), "annotations").get(names.LAST_APPLIED)
    decided = _owned(child) if annotation is None else _decoded(key, annotation)
    if key_of(decided) != key:
        raise DamagedAnnotation(f"{names.LAST_APPLIED} of {key} is about another object")
    return _without_selector_label(decided)


def _decoded(key: Key, annotation: object) -> Object:
    try:
        decided = orjson.loads(annotation if isinstance(annotation, str) else b"")
    except orjson.JSONDecodeError:
        raise DamagedAnnotation(f"{names.LAST_APPLIED} of {key} cannot be read") from None
    if not isinstance(decided, dict):
        raise DamagedAnnotation(f"{names.LAST_APPLIED} of {key} is not an object")
    return decided


def _without_selector_label(child: Object) -> Object:
    """Metacontroller puts its selector label in before it remembers; what we answered had none."""
    metadata = mapping(child, "metadata")
    labels = {name: value for name, value in mapping(metadata, "labels").items() if name != names.CONTROLLER_UID_LABEL}
    return {**child, "metadata": {**metadata, "labels": labels}}


def _owned(child: Object) -> Object:
    """The fields of an observed child that Metacontroller applied, with what says which object it is."""
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
    """The field set of the manager that also applied Metacontroller's own label."""
    for entry in objects(metadata, "managedFields"):
        fields = mapping(entry, "fieldsV1")
        labels = mapping(mapping(fields, "f:metadata"), "f:labels")
        if text(entry, "operation") == "Apply" and f"f:{names.CONTROLLER_UID_LABEL}" in labels:
            return fields
    raise DamagedAnnotation(
        f"{text(metadata, 'name')} has neither {names.LAST_APPLIED} nor fields that were applied by Metacontroller"
    )


def _reduced(value: Mapping[str, Any], fields: Mapping[str, Any]) -> Object:
    """The fields of an object that are in a FieldsV1 set: `f:name` for a field, the empty set for all of its value."""
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
    """The owned items of a list: `k:{…}` names one by its keys, `v:…` by its value."""
    reduced = []
    for item in items:
        for member, inner in members.items():
            wanted = orjson.loads(member[2:])
            if member.startswith("v:") and item == wanted:
                reduced.append(item)
            elif member.startswith("k:") and isinstance(item, dict) and wanted.items() <= item.items():
                reduced.append(_reduced_value(item, inner) if inner.keys() - {"."} else {**wanted})
    return reduced
