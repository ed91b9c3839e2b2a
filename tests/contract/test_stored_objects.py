"""Objects that an earlier version stored, under the CRDs of this one: each is kept whole, accepted and editable.

`stored/` has a file for each version that is held on to: schemas of its CRDs, without descriptions, and objects that it
accepted. `python -m tests.contract.record_stored NAME` writes one for the present version.
"""

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.contract.test_crds import PLURALS
from tests.structural import Schema, crd_schema, defaulted, problems, pruned

VERSIONS: Final = {
    path.stem: json.loads(path.read_text(encoding="utf-8"))
    for path in sorted(Path(__file__).with_name("stored").glob("*.json"))
}
each_version = pytest.mark.parametrize("version", VERSIONS)
_LOWER_IS_WIDER: Final = ("minimum", "minLength", "minItems", "minProperties")
_HIGHER_IS_WIDER: Final = ("maximum", "maxLength", "maxItems", "maxProperties")


def _words(schema: Schema) -> frozenset[str]:
    """Return the alternatives of a pattern that is nothing else, or the pattern."""
    pattern: str = schema.get("pattern", "")
    return frozenset(pattern.removeprefix("^(").removesuffix(")$").split("|"))


def narrowings(old: Schema, new: Schema, path: str = "") -> Iterator[str]:
    """Yield what of a schema refuses, or forgets, a value that an older one took."""
    if old.get("type") != new.get("type"):
        yield f"{path}: of another type"
    yield from (
        f"{path}: {name} is required now" for name in set(new.get("required", ())) - set(old.get("required", ()))
    )
    if "enum" in old:
        yield from (f"{path}: {value} is refused now" for value in old["enum"] if problems(new, value))
        return
    if "enum" in new:
        yield f"{path}: fewer values"
    if new.get("pattern") not in (None, old.get("pattern")) and not _words(old) <= _words(new):
        yield f"{path}: another pattern"
    for key in _LOWER_IS_WIDER:
        if new.get(key, 0) > old.get(key, 0):
            yield f"{path}: {key}"
    for key in _HIGHER_IS_WIDER:
        if key in new and new[key] < old.get(key, float("inf")):
            yield f"{path}: {key}"
    if old.get("x-kubernetes-preserve-unknown-fields") and not new.get("x-kubernetes-preserve-unknown-fields"):
        yield f"{path}: unknown fields are dropped"
    for name, part in old.get("properties", {}).items():
        if name in new.get("properties", {}):
            yield from narrowings(part, new["properties"][name], f"{path}.{name}")
        else:
            yield f"{path}.{name}: gone"
    for key in ("items", "additionalProperties"):
        if isinstance(old.get(key), dict):
            yield from narrowings(old[key], new.get(key, {}), f"{path}[{key}]")


@each_version
@pytest.mark.parametrize("plural", PLURALS.values())
def test_no_field_is_narrower_than_it_was(version: str, plural: str) -> None:
    """No field is gone or takes less than in an earlier version, so that nothing that is stored is refused or lost."""
    assert list(narrowings(VERSIONS[version]["schemas"][plural], crd_schema(plural))) == []


@each_version
def test_stored_objects_stay_as_they_are(version: str) -> None:
    """An object of an earlier version loses no field, passes every rule, and may be written again as it is."""
    objects = VERSIONS[version]["objects"]
    assert len(objects) > 20
    for item in objects:
        schema = crd_schema(PLURALS[item["kind"]])
        name = item["metadata"]["name"]
        assert all(pruned(schema, item).get(part) == item.get(part) for part in ("spec", "status")), name
        now = defaulted(schema, item)
        assert problems(schema, now, now) == [], name


def _with(schema: Schema, *path: str, **change: Any) -> Any:
    changed: Any = copy.deepcopy(schema)
    node = changed
    for name in path:
        node = node["properties"][name]
    node.update(change)
    return changed


@pytest.mark.parametrize(
    ("path", "change", "expected"),
    [
        (("spec",), {"properties": {}}, ".spec.model: gone"),
        (("spec", "model"), {"maxLength": 3}, ".spec.model: maxLength"),
        (("spec", "model"), {"pattern": "^a$"}, ".spec.model: another pattern"),
        (("spec", "environment"), {"enum": ["production"]}, ".spec.environment: fewer values"),
        (
            ("spec", "offloadingConfig", "behavior", "mode"),
            {"enum": ["none"]},
            ".spec.offloadingConfig.behavior.mode: proportional is refused now",
        ),
        (("spec", "enabled"), {"type": "string"}, ".spec.enabled: of another type"),
        (("spec",), {"required": ["model", "policies"]}, ".spec: policies is required now"),
    ],
)
def test_a_narrower_field_is_found(path: tuple[str, ...], change: dict[str, Any], expected: str) -> None:
    """A field that is gone or that takes less is found, so the test above can fail."""
    schema = crd_schema("modeldeployments")
    assert expected in list(narrowings(schema, _with(schema, *path, **change)))
    assert list(narrowings(schema, schema)) == []
