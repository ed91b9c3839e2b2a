"""Requests and responses of the webhooks as JSON Schema, for their OpenAPI document."""

from typing import Any, Final

from pydantic import BaseModel

from hooks.api.common import MODEL_DEPLOYMENT_API_VERSION, POLICY_API_VERSION
from hooks.api.crds import structural_schema
from hooks.api.model_deployment import ModelDeployment
from hooks.api.policy import Policy
from hooks.kube.objects import Object


def sync_response(**more: Object) -> Object:
    """Return the schema of the response to a sync; with further properties, which are required, that to a finalize."""
    return {
        "type": "object",
        "required": ["status", "children", *more],
        "properties": {
            "status": _OBJECT,
            "children": {"type": "array", "items": _OBJECT},
            "resyncAfterSeconds": {"type": "number"},
            **more,
        },
        "additionalProperties": False,
    }


def _parent(model: type[BaseModel], api_version: str) -> Object:
    """Return the schema of a parent as the API server stores it: that of its CustomResourceDefinition."""
    whole = _plain(structural_schema(model))
    named = {
        "apiVersion": {"type": "string", "enum": [api_version]},
        "kind": {"type": "string", "enum": [model.__name__]},
        "metadata": {**_METADATA, "required": ["name", "namespace"]},
    }
    return {**whole, "required": [*named, "spec"], "properties": {**whole["properties"], **named}}


def _plain(schema: Any) -> Any:
    """Return a schema without the extensions of Kubernetes."""
    if isinstance(schema, list):
        return [_plain(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {key: _plain(value) for key, value in schema.items() if not key.startswith("x-kubernetes-")}


def _groups(*kinds: str) -> Object:
    """Return the schema of observed objects by kind, written as Metacontroller does: `Kind.group/version`."""
    known = {}
    for kind in kinds:
        name, _, api_version = kind.partition(".")
        named = {
            "apiVersion": {"type": "string", "enum": [api_version]},
            "kind": {"type": "string", "enum": [name]},
            "metadata": _METADATA,
            "spec": _OBJECT,
            "status": _OBJECT,
        }
        item = {"type": "object", "required": ["apiVersion", "kind", "metadata"], "properties": named}
        known[kind] = {"type": "object", "additionalProperties": item}
    return {
        "type": "object",
        "description": "Kind.version to name, or namespace/name, to the object.",
        "properties": known,
        "additionalProperties": {"type": "object", "additionalProperties": _OBJECT},
    }


_OBJECT: Final[Object] = {"type": "object"}
_TEXTS: Final[Object] = {"type": "object", "additionalProperties": {"type": "string"}}
_METADATA: Final[Object] = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string", "minLength": 1, "maxLength": 253},
        "namespace": {"type": "string", "minLength": 1, "maxLength": 63},
        "uid": {"type": "string"},
        "generation": {"type": "integer"},
        "labels": _TEXTS,
        "annotations": _TEXTS,
        "creationTimestamp": {"type": "string", "format": "date-time"},
        "deletionTimestamp": {"type": "string", "format": "date-time"},
    },
}
_CHILDREN: Final = ("Deployment.apps/v1", "Service.v1", "ConfigMap.v1")
_RELATED: Final = (
    "Deployment.apps/v1", "StatefulSet.apps/v1", "DaemonSet.apps/v1", "ReplicaSet.apps/v1", "Service.v1",
    f"Policy.{POLICY_API_VERSION}",
)  # fmt: skip
CUSTOMIZE_REQUEST: Final[Object] = {
    "type": "object",
    "required": ["parent"],
    "properties": {"controller": _OBJECT, "parent": _parent(ModelDeployment, MODEL_DEPLOYMENT_API_VERSION)},
}
SYNC_REQUEST: Final[Object] = {
    **CUSTOMIZE_REQUEST,
    "properties": {
        **CUSTOMIZE_REQUEST["properties"],
        "children": _groups(*_CHILDREN),
        "related": _groups(*_RELATED),
        "finalizing": {"type": "boolean"},
    },
}
POLICY_REQUEST: Final[Object] = {
    "type": "object",
    "required": ["parent"],
    "properties": {
        "controller": _OBJECT,
        "parent": _parent(Policy, POLICY_API_VERSION),
        "children": _groups(),
        "related": _groups(),
        "finalizing": {"type": "boolean"},
    },
}
CUSTOMIZE_RESPONSE: Final[Object] = {
    "type": "object",
    "required": ["relatedResources"],
    "properties": {
        "relatedResources": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["apiVersion", "resource", "namespace", "names"],
                "properties": {
                    "apiVersion": {"type": "string"},
                    "resource": {"type": "string"},
                    "namespace": {"type": "string"},
                    "names": {"type": "array", "items": {"type": "string"}},
                },
            },
        }
    },
    "additionalProperties": False,
}
