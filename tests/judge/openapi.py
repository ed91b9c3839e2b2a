"""Kinds of Kubernetes as an API server describes them, and the JSON schemas that kubeconform makes of that.

`kubernetes_openapi.json` is what the API server of `make e2e` publishes under /openapi/v3: the kinds that the chart
renders, without prose. `tests/e2e/test_openapi.py` holds it against the server, or writes it.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tools.repository import ROOT

RECORD: Final = Path(__file__).with_name("kubernetes_openapi.json")
"""Path of the record, which has a schema by the name of each type."""
PATHS: Final = (
    "api/v1",
    "apis/admissionregistration.k8s.io/v1",
    "apis/apiextensions.k8s.io/v1",
    "apis/apps/v1",
    "apis/autoscaling/v2",
    "apis/batch/v1",
    "apis/networking.k8s.io/v1",
    "apis/policy/v1",
    "apis/rbac.authorization.k8s.io/v1",
)
"""Documents of the API server that describe kinds of the chart."""
KINDS: Final = frozenset(
    {
        *("ClusterRole", "ClusterRoleBinding", "ConfigMap", "CustomResourceDefinition", "Deployment"),
        *("HorizontalPodAutoscaler", "Job", "Namespace", "NetworkPolicy", "Pod", "PodDisruptionBudget", "Role"),
        *("RoleBinding", "Secret", "Service", "ServiceAccount", "StatefulSet"),
        *("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"),
    }
)
"""Kinds of Kubernetes that the chart, its dependencies and the manifests of this repository have."""
_PREFIX: Final = "#/components/schemas/"
_IDENTITY: Final = "x-kubernetes-group-version-kind"


def described(read: Callable[[str], str]) -> dict[str, Any]:
    """Return the types that KINDS need, by name.

    Args:
        read: returns the text of a document below /openapi/v3/.
    """
    types: dict[str, Any] = {}
    for path in PATHS:
        types.update(json.loads(read(path))["components"]["schemas"])
    names = [name for name, schema in types.items() if _kind(schema) in KINDS]
    needed: dict[str, Any] = {}
    while names:
        name = names.pop()
        if name not in needed:
            needed[name] = _without_prose(types[name])
            names += _references(types[name])
    return dict(sorted(needed.items()))


def write_schemas(folder: Path, types: Mapping[str, Any]) -> None:
    """Write a JSON schema for each kind of Kubernetes and of this project, by names that `location` has.

    A key that a type does not have is refused, as by `kubectl apply` with strict validation.
    """
    (folder / "types.json").write_text(json.dumps({"definitions": {name: _closed(one) for name, one in types.items()}}))
    for name, schema in types.items():
        for identity in schema.get(_IDENTITY, ()):
            if identity["kind"] in KINDS:
                path = folder / _file(identity["kind"], identity["group"], identity["version"])
                path.write_text(json.dumps({"$ref": f"types.json#/definitions/{name}"}))
    for path in (ROOT / "crds").glob("*.yaml"):
        write_custom(folder, yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader))


def write_custom(folder: Path, definition: Mapping[str, Any]) -> None:
    """Write a JSON schema for each version of a kind that a CustomResourceDefinition defines."""
    spec = definition["spec"]
    for version in spec["versions"]:
        schema = _closed(version["schema"]["openAPIV3Schema"])
        schema["properties"] |= {name: {} for name in ("apiVersion", "kind", "metadata")}
        (folder / _file(spec["names"]["kind"], spec["group"], version["name"])).write_text(json.dumps(schema))


def location(folder: Path) -> str:
    """Return where kubeconform finds the schemas."""
    return f"{folder}/{{{{.ResourceKind}}}}-{{{{.Group}}}}-{{{{.ResourceAPIVersion}}}}.json"


def _file(kind: str, group: str, version: str) -> str:
    # What kubeconform calls the group of an object is its apiVersion before the slash, if there is one.
    return f"{kind.lower()}-{group or version}-{version}.json"


def _kind(schema: Mapping[str, Any]) -> str | None:
    (identity, *others) = schema.get(_IDENTITY) or ({"kind": None},)
    return None if others else identity["kind"]


def _parts(schema: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the schemas that a schema consists of."""
    yield from schema.get("properties", {}).values()
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            yield schema[key]
    for key in ("allOf", "anyOf", "oneOf"):
        yield from schema.get(key, ())


def _references(schema: Mapping[str, Any]) -> Iterator[str]:
    if "$ref" in schema:
        yield schema["$ref"].removeprefix(_PREFIX)
    for part in _parts(schema):
        yield from _references(part)


def _changed(schema: Mapping[str, Any], change: Callable[[Mapping[str, Any]], dict[str, Any]]) -> dict[str, Any]:
    """Return a schema with a change of each schema that it consists of."""
    result = dict(schema)
    if "properties" in schema:
        result["properties"] = {name: change(part) for name, part in schema["properties"].items()}
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            result[key] = change(schema[key])
    for key in ("allOf", "anyOf", "oneOf"):
        if key in schema:
            result[key] = [change(part) for part in schema[key]]
    return result


def _without_prose(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema without descriptions, and without `default`, which refuses nothing."""
    changed = _changed(schema, _without_prose)
    return {key: value for key, value in changed.items() if key not in ("description", "default")}


def _closed(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a schema that refuses keys that its types do not have, with references into one file."""
    closed = _changed(schema, _closed)
    if "$ref" in schema:
        closed["$ref"] = f"types.json#/definitions/{schema['$ref'].removeprefix(_PREFIX)}"
    if schema.get("properties") and not schema.get("x-kubernetes-preserve-unknown-fields"):
        closed.setdefault("additionalProperties", False)
    if schema.get("x-kubernetes-int-or-string"):
        closed["type"] = ["integer", "string"]
    if schema.get("nullable") is True and isinstance(closed.get("type"), str):
        closed["type"] = [closed["type"], "null"]
    return closed
