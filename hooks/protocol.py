"""Requests and responses of Metacontroller's webhooks (4.17, hook versions v1 and v2).

Requests are read leniently: an absent or null value counts as empty, an unknown field is ignored. Objects are indexed
by their own kind and name, never by the keys under which they arrive, so both hook versions mean the same. Responses
are built whole from required fields, for an empty one (`{}`) would delete every child.
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
"""API version of each kind that may be a parent."""


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """Request of sync and finalize: the parent, and its observed children and related objects."""

    controller: Object
    """The CompositeController; empty when the request has none."""
    parent: Object
    """The parent: an object of the expected kind with a namespace and a name. Nothing else in it was validated."""
    children: Objects
    related: Objects
    finalizing: bool

    @classmethod
    def from_body(cls, body: bytes, kind: str = PARENT_KIND) -> Self:
        """Read a request body.

        Args:
            body: the body as it was received.
            kind: the expected kind of the parent.

        Raises:
            NotMetacontroller: the body is not a webhook request.
            WrongParent: the parent is not of that kind and its API version.
        """
        return cls.from_json(_decoded(body), kind)

    @classmethod
    def from_json(cls, content: Mapping[str, Any], kind: str = PARENT_KIND) -> Self:
        """Read a decoded body. Raise as `from_body` does."""
        return cls(
            controller=_object_or_empty(content.get("controller")),
            parent=_parent(content, kind),
            children=dict(_indexed(content.get("children"))),
            related=dict(_indexed(content.get("related"))),
            finalizing=content.get("finalizing") is True,
        )


@dataclass(frozen=True, slots=True)
class CustomizeRequest:
    """Request of customize: the parent alone."""

    controller: Object
    parent: Object

    @classmethod
    def from_body(cls, body: bytes) -> Self:
        """Read a request body. Raise as `SyncRequest.from_body` does."""
        content = _decoded(body)
        return cls(controller=_object_or_empty(content.get("controller")), parent=_parent(content, PARENT_KIND))


@dataclass(frozen=True, slots=True)
class SyncResponse:
    """Response to sync."""

    status: Object
    """Whole status of the parent, which replaces the present one."""
    children: tuple[Object, ...]
    """All children that should exist, whole. Metacontroller deletes any other child."""
    resync_after_seconds: float | None
    """Seconds until Metacontroller should ask again; None leaves that to its own period."""

    def as_json(self) -> Object:
        """Return the body.

        It never has `finalized`: in a sync, Metacontroller would remove and add its finalizer for ever.
        """
        body: Object = {"status": self.status, "children": list(self.children)}
        if self.resync_after_seconds is not None:
            body["resyncAfterSeconds"] = self.resync_after_seconds
        return body


@dataclass(frozen=True, slots=True)
class FinalizeResponse:
    """Response to finalize."""

    status: Object
    children: tuple[Object, ...]
    finalized: bool
    """Whether nothing is left to clean up, so that the parent may be deleted."""
    resync_after_seconds: float | None

    def as_json(self) -> Object:
        """Return the body."""
        body: Object = {"status": self.status, "children": list(self.children), "finalized": self.finalized}
        if self.resync_after_seconds is not None:
            body["resyncAfterSeconds"] = self.resync_after_seconds
        return body


@dataclass(frozen=True, slots=True)
class RelatedRule:
    """Selection of related objects: one kind, by name, in the namespace of the parent.

    A rule without names would select every object of the kind.
    """

    api_version: str
    resource: str
    """Name of the kind in the API: plural and lower case."""
    namespace: str
    names: tuple[str, ...]

    def as_json(self) -> Object:
        """Return the rule as Metacontroller reads it."""
        return {
            "apiVersion": self.api_version,
            "resource": self.resource,
            "namespace": self.namespace,
            "names": list(self.names),
        }


@dataclass(frozen=True, slots=True)
class CustomizeResponse:
    """Response to customize."""

    related_resources: tuple[RelatedRule, ...]

    def as_json(self) -> Object:
        """Return the body."""
        return {"relatedResources": [rule.as_json() for rule in self.related_resources]}


def _decoded(body: bytes) -> Object:
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        # Neither chained nor repeated: the text of the body would end up in an Event.
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
