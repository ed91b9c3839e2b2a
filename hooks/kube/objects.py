"""Kubernetes objects as decoded JSON, and the keys by which they are told apart."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Object = dict[str, Any]
"""A Kubernetes object as decoded from JSON. It is never changed after it was read."""


class Key(NamedTuple):
    """The identity of an object: API version, kind, namespace and name."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


Objects = Mapping[Key, Object]
"""Objects by their keys."""


def key_of(item: Object) -> Key | None:
    """Return the key of an object, or None where its own fields do not give one."""
    metadata = item.get("metadata")
    if not isinstance(metadata, dict):
        return None
    parts = (item.get("apiVersion"), item.get("kind"), metadata.get("namespace", ""), metadata.get("name"))
    api_version, kind, namespace, name = (part if isinstance(part, str) else None for part in parts)
    if api_version is None or kind is None or namespace is None or not name:
        return None
    return Key(api_version, kind, namespace, name)
