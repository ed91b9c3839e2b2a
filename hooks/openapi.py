"""The requests and answers of the hooks as JSON Schema, for their OpenAPI document."""

from typing import Final

from hooks.protocol import Object


def sync_answer(**more: Object) -> Object:
    """Of sync, and with `more` properties of finalize."""
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


_OBJECT: Final[Object] = {"type": "object"}
_GROUPS: Final[Object] = {
    "type": "object",
    "description": "Kind.version to name, or namespace/name, to the object.",
    "additionalProperties": {"type": "object", "additionalProperties": _OBJECT},
}
CUSTOMIZE_REQUEST: Final[Object] = {
    "type": "object",
    "required": ["parent"],
    "properties": {"controller": _OBJECT, "parent": {"type": "object", "description": "A ModelDeployment."}},
}
SYNC_REQUEST: Final[Object] = {
    **CUSTOMIZE_REQUEST,
    "properties": {
        **CUSTOMIZE_REQUEST["properties"],
        "children": _GROUPS,
        "related": _GROUPS,
        "finalizing": {"type": "boolean"},
    },
}
POLICY_REQUEST: Final[Object] = {
    **SYNC_REQUEST,
    "properties": {**SYNC_REQUEST["properties"], "parent": {"type": "object", "description": "A Policy."}},
}
CUSTOMIZE_ANSWER: Final[Object] = {
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
