"""Steps of an API server with a custom resource: prune, default (both as `render` does) and validate.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

import functools
from collections.abc import Iterator
from typing import Any

import cel
import jsonschema
import yaml

from hooks.kube.structural import Schema, defaulted, pruned
from tools.repository import ROOT

__all__ = ["Schema", "crd_schema", "defaulted", "nodes", "problems", "pruned"]


@functools.cache
def crd_schema(plural: str) -> Schema:
    """Return the checked-in structural schema of a kind, by its plural."""
    (path,) = (ROOT / "crds").glob(f"*_{plural}.yaml")
    definition = yaml.load(path.read_text(encoding="utf-8"), yaml.CSafeLoader)
    schema: Schema = definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def problems(schema: Schema, value: Any, old: Any = None) -> list[str]:
    """Return why an API server would refuse a value: by the schema, or if that accepts it, by the CEL rules."""
    errors = [
        f"{error.json_path}: {error.message}" for error in jsonschema.Draft4Validator(dict(schema)).iter_errors(value)
    ]
    return errors or list(_broken_rules(schema, value, old))


def _broken_rules(schema: Schema, value: Any, old: Any) -> Iterator[str]:
    for rule in schema.get("x-kubernetes-validations", ()):
        transition = "oldSelf" in rule["rule"]
        if transition and old is None:
            continue
        bound = {"self": value} | ({"oldSelf": old} if transition else {})
        if cel.evaluate(rule["rule"], bound) is not True:
            yield rule["message"]
    if isinstance(value, dict) and "x-kubernetes-preserve-unknown-fields" not in schema:
        for name, member in value.items():
            before = old.get(name) if isinstance(old, dict) else None
            yield from _broken_rules(_member(schema, name), member, before)
    if isinstance(value, list):
        for item in value:  # items of a list that is no map have no counterpart in the old object
            yield from _broken_rules(schema.get("items", {}), item, None)


def _member(schema: Schema, name: str) -> Schema:
    member: Schema = schema.get("properties", {}).get(name) or schema.get("additionalProperties") or {}
    return member


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Yield every node below the schema and itself, with its path."""
    yield path, schema
    for name, child in schema.get("properties", {}).items():
        yield from nodes(child, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if "additionalProperties" in schema:
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")
