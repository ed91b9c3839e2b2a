"""Metacontroller's wire types (4.17, hook versions v1 and v2).

Requests are read leniently: what is absent or null is empty, what is unknown is ignored. Objects are indexed by what
they say of themselves, never by the keys they come under, so both hook versions mean the same. Answers are built whole
from required fields, for a defaulted one (`{}`) would delete every child.
https://metacontroller.github.io/metacontroller/api/compositecontroller.html
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

import orjson

from hooks import errors
from hooks.api.common import MODEL_DEPLOYMENT_API_VERSION, POLICY_API_VERSION
from hooks.kube.objects import Key, Object, Objects, key_of

PARENT_KIND: Final = "ModelDeployment"
POLICY_KIND: Final = "Policy"
_API_VERSIONS: Final[Mapping[str, str]] = {
    PARENT_KIND: MODEL_DEPLOYMENT_API_VERSION,
    POLICY_KIND: POLICY_API_VERSION,
}
"""Of each kind that may be a parent."""


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """What sync and finalize are asked: the parent, and what is observed of its children and related objects."""

    controller: Object
    """The CompositeController; empty when absent."""
    parent: Object
    """An object of the expected kind with a namespace and a name. The rest may be anything."""
    children: Objects
    related: Objects
    finalizing: bool

    @classmethod
    def from_body(cls, body: bytes, kind: str = PARENT_KIND) -> Self:
        """Read a request body.

        Args:
            body: as received.
            kind: of the parent.

        Raises:
            NotMetacontroller: it is not a hook request.
            WrongParent: its parent is not of that kind, of v1alpha1.
        """
        return cls.from_json(_decoded(body), kind)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], kind: str = PARENT_KIND) -> Self:
        """Read a decoded request; raises as `from_body` does."""
        return cls(
            controller=_object_or_empty(content.get("controller")),
            parent=_parent(content, kind),
            children=dict(_indexed(content.get("children"))),
            related=dict(_indexed(content.get("related"))),
            finalizing=content.get("finalizing") is True,
        )


@dataclass(frozen=True, slots=True)
class CustomizeRequest:
    """What customize is asked: the parent alone."""

    controller: Object
    parent: Object

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """Read a request body; raises as `SyncRequest.from_body` does."""
        content = _decoded(body)
        return cls(controller=_object_or_empty(content.get("controller")), parent=_parent(content, PARENT_KIND))


@dataclass(frozen=True, slots=True)
class SyncResponse:
    """The answer to sync."""

    status: Object
    """The parent's whole status; it replaces the present one."""
    children: tuple[Object, ...]
    """All children that shall exist, whole. What is not in it is deleted."""
    resync_after_seconds: float | None
    """When to ask again; None leaves that to Metacontroller's own period."""

    def as_json(self) -> Object:
        """The body. `finalized` is never in it: on sync it would loop the finalizer."""
        body: Object = {"status": self.status, "children": list(self.children)}
        if self.resync_after_seconds is not None:
            body["resyncAfterSeconds"] = self.resync_after_seconds
        return body


@dataclass(frozen=True, slots=True)
class FinalizeResponse:
    """The answer to finalize."""

    status: Object
    children: tuple[Object, ...]
    finalized: bool
    """Whether nothing is left to clean up, so the parent may go."""
    resync_after_seconds: float | None

    def as_json(self) -> Object:
        """The body."""
        body: Object = {"status": self.status, "children": list(self.children), "finalized": self.finalized}
        if self.resync_after_seconds is not None:
            body["resyncAfterSeconds"] = self.resync_after_seconds
        return body


@dataclass(frozen=True, slots=True)
class RelatedRule:
    """Objects of one kind, by name, in the parent's namespace. A rule without names would select everything."""

    api_version: str
    resource: str
    """Lower-case plural."""
    namespace: str
    names: tuple[str, ...]

    def as_json(self) -> Object:
        """The rule as Metacontroller reads it."""
        return {
            "apiVersion": self.api_version,
            "resource": self.resource,
            "namespace": self.namespace,
            "names": list(self.names),
        }


@dataclass(frozen=True, slots=True)
class CustomizeResponse:
    """The answer to customize."""

    related_resources: tuple[RelatedRule, ...]

    def as_json(self) -> Object:
        """The body."""
        return {"relatedResources": [rule.as_json() for rule in self.related_resources]}


def _decoded(body: bytes) -> Object:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        # Not chained and not repeated: the text would end up in an Event.
        raise errors.NotMetacontroller("the body is not JSON") from None
    if not isinstance(content, dict):
        raise errors.NotMetacontroller("the body is not a JSON object")
    return content


def _parent(content: Mapping[str, Any], kind: str) -> Object:
    parent = content.get("parent")
    if not isinstance(parent, dict):
        raise errors.NotMetacontroller("the request has no parent")
    if (parent.get("apiVersion"), parent.get("kind")) != (_API_VERSIONS[kind], kind):
        raise errors.WrongParent(f"the parent must be a {kind} of {_API_VERSIONS[kind]}")
    key = key_of(parent)
    if key is None or not key.namespace:
        raise errors.NotMetacontroller("the parent has no name or no namespace")
    return parent


def _indexed(groups: object) -> Iterator[tuple[Key, Object]]:
    for group in groups.values() if isinstance(groups, dict) else ():
        for item in group.values() if isinstance(group, dict) else ():
            key = key_of(item) if isinstance(item, dict) else None
            if key is not None:
                yield key, item


def _object_or_empty(value: object) -> Object:
    return value if isinstance(value, dict) else {}
