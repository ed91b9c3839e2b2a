"""The nouns of the stand-in: a Kubernetes object as the API server speaks of it, its kind and its key.

An object itself stays the mapping that was on the wire: the stand-in must carry fields it has never heard of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar, cast

Object: TypeAlias = dict[str, Any]
"""One Kubernetes object, decoded: apiVersion, kind, metadata and whatever the kind adds."""

Decoded = TypeVar("Decoded")


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind as discovery lists it."""

    group: str
    """API group; empty for the core group."""
    version: str
    name: str
    """CamelCase, as in an object's `kind`."""
    plural: str
    namespaced: bool = True
    status: bool = False
    """Has a status subresource: status is written by `update_status` only."""
    generation: bool = False
    """Counts changes of anything but metadata and status in `metadata.generation`."""
    schema: Object | None = None
    """`openAPIV3Schema` of a custom resource; built-in kinds have none here."""

    @property
    def api_version(self) -> str:
        """`group/version`, or the bare version in the core group."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """`plural.group`, or the bare plural in the core group: the name of a CRD and of a folder."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def hook_key(self) -> str:
        """The outer key of `children` and `related` in a hook request: `Deployment.apps/v1`, `Service.v1`."""
        return f"{self.name}.{self.api_version}"


BUILT_IN = (
    Kind("", "v1", "ConfigMap", "configmaps"),
    Kind("", "v1", "Secret", "secrets"),
    Kind("", "v1", "Service", "services", status=True),
    Kind("apps", "v1", "DaemonSet", "daemonsets", status=True, generation=True),
    Kind("apps", "v1", "Deployment", "deployments", status=True, generation=True),
    Kind("apps", "v1", "ReplicaSet", "replicasets", status=True, generation=True),
    Kind("apps", "v1", "StatefulSet", "statefulsets", status=True, generation=True),
)
"""The built-in kinds one machine needs; custom kinds come from the CRDs."""


@dataclass(frozen=True, slots=True, order=True)
class Key:
    """Where an object lives: its resource, namespace and name. A later object may have the same key and another uid."""

    resource: str
    namespace: str
    """Empty for cluster-scoped kinds."""
    name: str

    def __str__(self) -> str:
        """As kubectl names things: `deployments.apps/demo in default`."""
        where = f" in {self.namespace}" if self.namespace else ""
        return f"{self.resource}/{self.name}{where}"


def key_of(kind: Kind, item: Object) -> Key:
    """The key of an object of this kind."""
    metadata = item["metadata"]
    return Key(kind.resource, metadata.get("namespace", "") if kind.namespaced else "", metadata["name"])


def controller_of(item: Object) -> Object | None:
    """The owner reference with `controller: true`, if there is one."""
    for owner in item["metadata"].get("ownerReferences") or ():
        if owner.get("controller"):
            return dict(owner)
    return None


def equal(one: Any, other: Any) -> bool:
    """Deep equality as Go sees decoded JSON: true is not 1, and 1 is not 1.0."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(equal(value, other[key]) for key, value in one.items())
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(equal, one, other))
    return type(one) is type(other) and bool(one == other)


def copy(value: Decoded) -> Decoded:
    """A deep copy of decoded JSON, several times faster than copy.deepcopy."""
    duplicate: Any = value
    if isinstance(value, dict):
        duplicate = {key: copy(item) for key, item in value.items()}
    elif isinstance(value, list):
        duplicate = [copy(item) for item in value]
    return cast("Decoded", duplicate)
