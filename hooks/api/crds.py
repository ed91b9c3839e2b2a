"""The CustomResourceDefinitions, generated from the Python types.

pydantic's JSON Schema is turned into the structural schema that apiextensions/v1 asks for: no `$ref`, no null, no
`anyOf` but the one of int-or-string, a type on every node. Defaults are written where the API server should set them:
all scalars of spec, and the lists and objects that carry an explicit `default`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from pydantic import BaseModel

from hooks.api import common, model_deployment, policy
from program.problems import resolved

Schema = dict[str, Any]

_COPIED: Final = (
    "description",
    "type",
    "format",
    "enum",
    "minLength",
    "maxLength",
    "pattern",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-map-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
)
"""Keywords of JSON Schema that are copied as they are, in this order."""
_INT32_MAX: Final = 2**31 - 1
_OBJECT_FIELDS: Final = {
    "apiVersion": "Version of the schema of this object.",
    "kind": "Kind of this object.",
}

_AGE: Final = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_READY: Final = {
    "name": "Ready",
    "type": "string",
    "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
    "description": "Whether the requests for the model are served as spec says.",
}
_MODEL_DEPLOYMENT_COLUMNS: Final[Sequence[Mapping[str, str]]] = (
    {
        "name": "Model",
        "type": "string",
        "jsonPath": ".spec.model",
        "description": "Name of the model on the remote platform.",
    },
    _READY,
    {
        "name": "Offloaded",
        "type": "integer",
        "jsonPath": ".status.offloading.percentage",
        "description": "Percentage of the requests that go to the remote backend.",
    },
    {
        "name": "Reason",
        "type": "string",
        "jsonPath": ".status.offloading.reason",
        "description": "Reason for that percentage.",
    },
    {
        "name": "OffloadReady",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="OffloadReady")].status',
        "description": "Whether the remote backend would serve a request if it got one now.",
    },
    _AGE,
)
_POLICY_COLUMNS: Final[Sequence[Mapping[str, str]]] = (
    {"name": "Type", "type": "string", "jsonPath": ".spec.type", "description": "Subject of the policy."},
    {
        "name": "Ready",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Ready")].status',
        "description": "Whether the policy is enforced as it is written.",
    },
    {
        "name": "Registered",
        "type": "string",
        "jsonPath": '.status.conditions[?(@.type=="Registered")].reason',
        "description": "Whether the policy is registered on the platform, or the reason why not.",
    },
    _AGE,
)


def crds() -> dict[str, Schema]:
    """Return every CustomResourceDefinition by its file name under crds/."""
    definitions = (
        _crd(
            model_deployment.ModelDeployment,
            group=common.DEPLOYMENT_GROUP,
            plural="modeldeployments",
            short_name="md",
            columns=_MODEL_DEPLOYMENT_COLUMNS,
        ),
        _crd(
            policy.Policy,
            group=common.AUTHORIZATION_GROUP,
            plural="policies",
            short_name="pol",
            columns=_POLICY_COLUMNS,
        ),
    )
    return {f"{crd['spec']['group']}_{crd['spec']['names']['plural']}.yaml": crd for crd in definitions}


def _crd(
    model: type[BaseModel], *, group: str, plural: str, short_name: str, columns: Sequence[Mapping[str, str]]
) -> Schema:
    kind = model.__name__
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": f"{kind}List",
                "plural": plural,
                "singular": kind.lower(),
                "shortNames": [short_name],
                "categories": ["beamlit"],
            },
            "versions": [
                {
                    "name": common.VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": [dict(column) for column in columns],
                    "schema": {"openAPIV3Schema": structural_schema(model)},
                }
            ],
        },
    }


def structural_schema(model: type[BaseModel]) -> Schema:
    """Return the structural schema of a kind whose model has metadata, spec and status."""
    raw = model.model_json_schema(by_alias=True)
    definitions: Mapping[str, Schema] = raw.get("$defs", {})
    spec, status = (raw["properties"][part] for part in ("spec", "status"))
    return {
        "type": "object",
        "description": raw["description"],
        "required": ["spec"],
        "properties": {
            **{name: {"type": "string", "description": text} for name, text in _OBJECT_FIELDS.items()},
            "metadata": {"type": "object"},
            "spec": _node(spec, definitions, defaults=True),
            "status": _node(_without_default(status), definitions, defaults=False),
        },
    }


def _node(raw: Schema, definitions: Mapping[str, Schema], *, defaults: bool) -> Schema:
    """Return one node of the schema with all nodes below it."""
    source = resolved(raw, definitions)
    node: Schema = {key: source[key] for key in _COPIED if key in source}
    if "description" in node:
        node["description"] = " ".join(node["description"].split())
    if "const" in source:
        node["enum"] = [source["const"]]
    if source.get("x-kubernetes-int-or-string"):
        node["anyOf"] = [{"type": "integer"}, {"type": "string"}]
        node.pop("type", None)
    elif node.get("type") == "integer":
        node.setdefault("format", "int32" if node.get("maximum", _INT32_MAX) <= _INT32_MAX else "int64")
    elif node.get("type") == "object":
        node |= _object_members(source, definitions, defaults=defaults)
    elif node.get("type") == "array":
        node["items"] = _node(source["items"], definitions, defaults=defaults)
    if defaults and _has_default(source):
        node["default"] = source["default"]
    return node


def _object_members(source: Schema, definitions: Mapping[str, Schema], *, defaults: bool) -> Schema:
    if source.get("x-kubernetes-preserve-unknown-fields"):
        return {}
    if "properties" not in source:
        members: Schema = {"additionalProperties": _node(_map_values(source), definitions, defaults=defaults)}
        if "maxProperties" in source:
            members["maxProperties"] = source["maxProperties"]
        return members
    properties = {name: _node(value, definitions, defaults=defaults) for name, value in source["properties"].items()}
    members = {"properties": properties}
    # A field with a default is never missing, and `required` would only repeat what the API server fills in.
    required = [name for name in source.get("required", ()) if "default" not in properties[name]]
    return members | ({"required": required} if required else {})


def _map_values(source: Schema) -> Schema:
    """Return the schema of the values of a map, which pydantic puts under the pattern of the keys.

    Keys are not checked by a CEL rule: they have no declared length, so that its cost could not be bounded.
    """
    patterns: Mapping[str, Schema] = source.get("patternProperties", {})
    value: Schema = next(iter(patterns.values()), source.get("additionalProperties", {}))
    return value


def _without_default(raw: Schema) -> Schema:
    return {key: value for key, value in raw.items() if key != "default"}


def _has_default(source: Schema) -> bool:
    """Return whether the API server sets the default of a node.

    It sets an empty list or object only where the type says so: for those pydantic gives the default that Python has,
    which is `null` or the whole object.
    """
    default = source.get("default")
    if default is None or default == "":
        return False
    return not isinstance(default, list | dict) or "x-default" in source
