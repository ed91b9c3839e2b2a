"""The stored form of objects, and JSON in which equal meaning has equal bytes.

Metacontroller compares what we want with what is stored. Whatever the API server would drop or rewrite makes it write
on every sync, for ever: a null, an empty list, an empty map of labels, `cpu: 1`, `1024Mi`. Values that mean something
although they are empty stay: `emptyDir: {}`, `resources: {}`, `storageClassName: ""`.
"""

from typing import Any, Final

import orjson

from hooks.kube import quantities

PLAIN_MAPS: Final = frozenset(
    {
        "labels",
        "annotations",
        "nodeSelector",
        "matchLabels",
        "limits",
        "requests",
        "overhead",
        "selector",
        "data",
        "binaryData",
        "volumeAttributes",
        "options",
    }
)
"""Fields whose value is a map of strings or quantities. The API server drops them when they are empty (`omitempty`);
any other empty object is a value of its own."""

QUANTITY_MAPS: Final = frozenset({"limits", "requests", "overhead", "capacity"})
"""Fields whose value is a map of quantities (core/v1 ResourceList)."""

QUANTITIES: Final = frozenset({"sizeLimit", "divisor"})
"""Fields whose value is a quantity."""

_TEXT_MAPS: Final = frozenset({"labels", "annotations", "nodeSelector", "matchLabels", "data", "binaryData"})
"""Fields whose value is a map with keys of the user, so that no key in it has a meaning here."""

_OMITTED_ZEROS: Final = frozenset(
    {
        ("value", ""),
        ("subPath", ""),
        ("subPathExpr", ""),
        ("workingDir", ""),
        ("nodeName", ""),
        ("hostname", ""),
        ("subdomain", ""),
        ("serviceAccountName", ""),
        ("priorityClassName", ""),
        ("medium", ""),
        ("hostNetwork", False),
        ("hostPID", False),
        ("hostIPC", False),
        ("stdin", False),
        ("stdinOnce", False),
        ("tty", False),
        ("readOnly", False),
    }
)
"""Fields of a pod with the value that the API server drops, because absence means the same."""

_WITH_OWN_ZEROS: Final = frozenset({"httpHeaders", "csi"})
"""Fields below which the same keys are stored even when they are empty or false."""


def canonical(value: dict[str, Any]) -> dict[str, Any]:
    """Return the object in stored form. The argument is not changed."""
    return _object(value, "", keep_zeros=False)


def canonical_json(value: object) -> bytes:
    """Return JSON with sorted keys and without white space."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def _object(value: dict[str, Any], field: str, *, keep_zeros: bool) -> dict[str, Any]:
    if field in QUANTITY_MAPS:
        return {key: quantity(item, resource=True) for key, item in value.items() if item is not None}
    if field in _TEXT_MAPS:
        return {key: item for key, item in value.items() if item is not None}
    stored = {}
    for key, item in value.items():
        inner = _value(item, key, keep_zeros=keep_zeros or key in _WITH_OWN_ZEROS)
        if inner is None or inner == [] or (inner == {} and key in PLAIN_MAPS):
            continue
        if not keep_zeros and isinstance(inner, str | bool) and (key, inner) in _OMITTED_ZEROS:
            continue
        stored[key] = inner
    return stored


def _value(value: Any, field: str, *, keep_zeros: bool) -> Any:
    if isinstance(value, dict):
        return _object(value, field, keep_zeros=keep_zeros)
    if isinstance(value, list):
        return [_value(item, "", keep_zeros=keep_zeros) for item in value if item is not None]
    return quantity(value) if field in QUANTITIES else value


def quantity(value: Any, *, resource: bool = False) -> Any:
    """Return the quantity in stored form, as a field of its own or as a resource in a map.

    An invalid one is returned unchanged: the API server refuses it and tells the user.
    """
    try:
        return quantities.canonical_resource(value) if resource else quantities.canonical(value)
    except quantities.InvalidQuantity:
        return value
