"""Kubernetes objects as decoded JSON, and the keys by which they are told apart."""

from collections.abc import Mapping
from typing import Any, NamedTuple

Object = dict[str, Any]
"""A Kubernetes object as decoded from JSON. Never changed after it was read."""


class Key(NamedTuple):
    """What an object is called."""

    api_version: str
    kind: str
    namespace: str
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


Objects = Mapping[Key, Object]
"""Objects by what they are called."""


def key_of(item: Object) -> Key | None:
    """What the object says it is; None when it does not say enough."""
    metadata = item.get("metadata")
    if not isinstance(metadata, dict):
        return None
    parts = (item.get("apiVersion"), item.get("kind"), metadata.get("namespace", ""), metadata.get("name"))
    api_version, kind, namespace, name = (part if isinstance(part, str) else None for part in parts)
    if api_version is None or kind is None or namespace is None or not name:
        return None
    return Key(api_version, kind, namespace, name)
