"""Kubernetes objects in texts that anything may have written: each is one that can be used, or an error in words."""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeGuard

import orjson

from program import bounded_yaml

KINDS: Final = frozenset({"ConfigMap", "EndpointSlice", "Secret", "ModelDeployment"})
"""Kinds of the objects that a source has; all other objects are left out."""

_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_MAPPINGS: Final[Mapping[str, tuple[str, ...]]] = {
    "ConfigMap": ("data",),
    "EndpointSlice": (),
    "Secret": ("data", "stringData"),
    "ModelDeployment": (),
}
"""Fields of each kind that hold text by keys, beside the labels."""


class UnusableObject(ValueError):
    """Something that is no object. The message follows the name of its file: `holds a ConfigMap whose …`."""


def objects(text: str, *, max_chars: int) -> Iterator[Mapping[str, Any]]:
    """Yield the objects of `KINDS` in a text of JSON or YAML, with those in Lists.

    Args:
        text: Text of a file.
        max_chars: Characters that the text may have once its aliases are written out.

    Raises:
        yaml.YAMLError: The text is not YAML, or has a key twice in one mapping.
        ValueError: The text has something else than objects, is nested too deep, or is too large.
    """
    for document in _documents(text, max_chars):
        if document is None:
            continue
        if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
            raise UnusableObject("holds something that is not a Kubernetes object")
        for one in _items(document):
            if not isinstance(one.get("metadata"), dict):
                raise UnusableObject("holds an object without metadata")
            if one["kind"] in KINDS:
                yield _checked(one, one["metadata"])


def identity(metadata: Mapping[str, Any]) -> tuple[str, str] | None:
    """Return namespace and name of an object, by default in the namespace `default`; None when they cannot be."""
    namespace, name = metadata.get("namespace"), metadata.get("name")
    if namespace is None:
        namespace = "default"
    if not _is_name(namespace) or not _is_name(name):
        return None
    return namespace, name


def _documents(text: str, max_chars: int) -> Iterator[Any]:
    """Yield the documents of a text. JSON is read as such, because YAML has no surrogate pairs and takes much longer.

    What is too deep, has a key twice or may have too many values is left to the reader of YAML, which says where.
    """
    if text.count(",") + text.count("[") + text.count("{") <= bounded_yaml.MAX_VALUES:
        try:
            document = orjson.loads(text)  # refuses lone surrogates, which json lets through
            json.loads(text, object_pairs_hook=_distinct)
        except (ValueError, RecursionError):
            pass
        else:
            yield document
            return
    yield from bounded_yaml.load_all(text, max_chars=max_chars)


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    """Check the keys of a JSON object, of which orjson takes the last where there are two.

    Raises:
        ValueError: a key is there twice.
    """
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a key is there twice")


def _items(document: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the objects of a document; in a typed list only the list says what kind its items are."""
    kind: str = document["kind"]
    if not kind.endswith("List"):
        yield document
        return
    items = document.get("items")
    if items is None:
        return
    if not isinstance(items, list):
        raise UnusableObject(f"holds a {_short(kind)} whose items are no list")
    for one in items:
        if not isinstance(one, dict):
            raise UnusableObject("holds something that is not a Kubernetes object")
        if kind != "List" and "kind" not in one:
            yield {"kind": kind.removesuffix("List"), **one}
        elif isinstance(one.get("kind"), str):
            yield one
        else:
            raise UnusableObject("holds something that is not a Kubernetes object")


def _checked(one: dict[str, Any], metadata: dict[str, Any]) -> Mapping[str, Any]:
    """Return an object whose parts are what Kubernetes would store.

    Raises:
        UnusableObject: It is not one.
    """
    kind = one["kind"]
    known = identity(metadata)
    if known is None:
        raise UnusableObject(f"holds a {kind} whose metadata.name or metadata.namespace is not the name of an object")
    called = f"holds the {kind} {known[1]}, whose"
    if not isinstance(metadata.get("creationTimestamp"), str | None):
        raise UnusableObject(f"{called} metadata.creationTimestamp is not text")
    if not _is_text_by_key(metadata.get("labels")):
        raise UnusableObject(f"{called} metadata.labels are not text by keys")
    for field in _MAPPINGS[kind]:
        if not _is_text_by_key(one.get(field)):
            raise UnusableObject(f"{called} {field} is not text by keys")
    return one


def _is_name(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None


def _is_text_by_key(value: object) -> bool:
    """Return whether a value is a mapping of text, where null counts as none."""
    return value is None or (isinstance(value, dict) and all(isinstance(one, str | None) for one in value.values()))


def _short(kind: str) -> str:
    return kind if len(kind) <= 63 else f"{kind[:60]}…"
