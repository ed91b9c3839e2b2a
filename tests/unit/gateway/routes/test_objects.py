"""Objects in texts that anything may have written."""

import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from gateway.routes.sources.objects import objects
from program.files import DuplicateKey

CONFIG_MAP = {"kind": "ConfigMap", "metadata": {"name": "a"}}

plain = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner))
FIELDS = ("kind", "metadata", "data", "stringData", "items", "labels", "name", "namespace", "creationTimestamp")
KINDS = ("ConfigMap", "Secret", "ModelDeployment", "List", "ConfigMapList", "Pod")


def likely(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return mappings that may be objects, with something else at some of their fields."""
    return st.dictionaries(st.sampled_from(FIELDS), inner | st.sampled_from(KINDS) | st.just({"name": "a"}), min_size=1)


alike = st.recursive(values | likely(values), lambda inner: likely(inner) | st.lists(inner, max_size=3), max_leaves=20)


def read(text: str) -> list[Any]:
    """Return the objects in a text."""
    return list(objects(text, max_chars=1 << 20))


@given(alike, st.booleans())
def test_any_value_is_objects_or_an_error(value: Any, as_yaml: bool) -> None:
    """Any value as a file gives objects whose parts have their types, or an error."""
    text = yaml.safe_dump(value) if as_yaml else json.dumps(value)
    try:
        found = read(text)
    except (ValueError, yaml.YAMLError):
        return
    for one in found:
        assert one["kind"] in ("ConfigMap", "Secret", "ModelDeployment")
        metadata = one["metadata"]
        assert metadata["name"]
        assert isinstance(metadata["name"], str)
        for mapping in (metadata.get("labels"), one.get("data") if one["kind"] != "ModelDeployment" else None):
            assert mapping is None or all(isinstance(text, str | None) for text in mapping.values())


@pytest.mark.parametrize("as_yaml", [False, True])
@pytest.mark.parametrize(
    ("document", "problem"),
    [
        (5, "something that is not a Kubernetes object"),
        ([CONFIG_MAP], "something that is not a Kubernetes object"),
        ({"metadata": {}}, "something that is not a Kubernetes object"),
        ({"kind": ["ConfigMap"]}, "something that is not a Kubernetes object"),
        ({"kind": "ConfigMap"}, "an object without metadata"),
        ({"kind": "ConfigMap", "metadata": [1]}, "an object without metadata"),
        ({"kind": "List", "items": 5}, "a List whose items are no list"),
        ({"kind": "List", "items": {"a": CONFIG_MAP}}, "a List whose items are no list"),
        ({"kind": "List", "items": [CONFIG_MAP, 5]}, "something that is not a Kubernetes object"),
        ({"kind": "List", "items": [{"metadata": {"name": "a"}}]}, "something that is not a Kubernetes object"),
        (
            {"kind": "ConfigMap", "metadata": {}},
            "a ConfigMap whose metadata.name or metadata.namespace is not the name",
        ),
        ({"kind": "Secret", "metadata": {"name": 5}}, "a Secret whose metadata.name or metadata.namespace is not"),
        ({"kind": "Secret", "metadata": {"name": "a/b"}}, "a Secret whose metadata.name or metadata.namespace is not"),
        ({"kind": "Secret", "metadata": {"name": "a", "namespace": "b/c"}}, "metadata.namespace is not the name"),
        ({"kind": "ConfigMap", "metadata": {"name": "a", "labels": ["a"]}}, "the ConfigMap a, whose metadata.labels"),
        (
            {"kind": "ConfigMap", "metadata": {"name": "a", "labels": {"a": 1}}},
            "the ConfigMap a, whose metadata.labels",
        ),
        ({"kind": "ConfigMap", "metadata": {"name": "a", "creationTimestamp": 5}}, "creationTimestamp is not text"),
        (CONFIG_MAP | {"data": "abc"}, "the ConfigMap a, whose data is not text by keys"),
        (CONFIG_MAP | {"data": {"route.json": {"name": "a"}}}, "the ConfigMap a, whose data is not text by keys"),
        (CONFIG_MAP | {"kind": "Secret", "data": [1]}, "the Secret a, whose data is not text by keys"),
        (CONFIG_MAP | {"kind": "Secret", "stringData": {"a": 1}}, "the Secret a, whose stringData is not text by keys"),
    ],
)
def test_what_is_no_object_is_an_error(document: Any, problem: str, as_yaml: bool) -> None:
    """A document that is no object, or an object with a part of another type, is an error that names the part."""
    with pytest.raises(ValueError, match=problem):
        read(yaml.safe_dump(document) if as_yaml else json.dumps(document))


@pytest.mark.parametrize(
    "text",
    ['{"kind":"List","items":' + "[" * 200_000, '{"a":' * 5000 + "1" + "}" * 5000, "[" * 2000 + "]" * 2000],
)
def test_depth_of_json_is_bounded(text: str) -> None:
    """JSON that is nested too deep is refused like YAML."""
    with pytest.raises(ValueError, match="nested deeper than"):
        read(text)


def test_values_of_json_are_bounded() -> None:
    """JSON of more values than YAML may have is refused like it."""
    with pytest.raises(ValueError, match="more than 500000 values"):
        read('{"kind": "Pod", "metadata": {"a": [' + "{}," * 600_000 + "1]}}")


def test_json_may_be_escaped() -> None:
    """JSON with escaped characters beyond 16 bits is read, which YAML has no escapes for."""
    document = CONFIG_MAP | {"data": {"a": "🙂"}}
    assert read(json.dumps(document)) == [document]


def test_lists_and_other_kinds() -> None:
    """Objects of other kinds are left out, an empty list has none, and items of a typed list have its kind."""
    assert read('{"kind": "Pod", "metadata": {"labels": [1]}}') == []
    assert read('{"kind": "List"}') == read('{"kind": "List", "items": []}') == read("") == []
    item = {"metadata": {"name": "a", "labels": None}, "data": {"a": None}}
    assert read(json.dumps({"kind": "ConfigMapList", "items": [item]})) == [{"kind": "ConfigMap", **item}]


def test_a_key_twice_in_json_is_an_error() -> None:
    """JSON that has a key twice is refused with both lines, as YAML is."""
    with pytest.raises(DuplicateKey):
        read('{"kind": "ConfigMap",\n "metadata": {"name": "a", "name": "b"}}')
