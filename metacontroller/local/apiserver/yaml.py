"""YAML as Kubernetes reads and prints it.

Reading: timestamps stay text and 12:30 is no number, as in Kubernetes' own decoder; a key that is there twice is an
error. Printing: one object as `kubectl get -o yaml` shows it, text of several lines as a block.
"""

import re
from typing import Any

import yaml

from metacontroller.local.apiserver.objects import Object
from program.files import in_yaml


class DocumentError(ValueError):
    """The text is no YAML, or holds something other than Kubernetes objects. The message says where."""


class _Reader(yaml.SafeLoader):
    """A SafeLoader with the scalars of JSON."""


class _Printer(yaml.SafeDumper):
    """A SafeDumper that prints text of several lines as a block."""


def _without_surprises() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return the implicit scalars of YAML 1.1 without timestamps and base-60 numbers."""
    resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for first, entries in yaml.SafeLoader.yaml_implicit_resolvers.items():
        keep = [(tag, form) for tag, form in entries if tag.rpartition(":")[2] in {"bool", "null", "merge"}]
        resolvers[first] = keep
    return resolvers


_Reader.yaml_implicit_resolvers = _without_surprises()
_Reader.add_implicit_resolver(
    "tag:yaml.org,2002:int", re.compile(r"[-+]?(0b[01]+|0o?[0-7]+|0x[0-9a-fA-F]+|0|[1-9][0-9]*)$"), list("-+0123456789")
)
_Reader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(\.[0-9]+|[0-9]+\.[0-9]*|[0-9]+(?=[eE]))([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> Object:
    loader.flatten_mapping(node)
    result: Object = {}
    for key_node, value_node in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            key = str(key).lower() if isinstance(key, bool) else str(key)
        if key in result:
            raise DocumentError(f"line {key_node.start_mark.line + 1}: the key {key!r} is there twice")
        result[key] = loader.construct_object(value_node, deep=True)
    return result


_Reader.add_constructor("tag:yaml.org,2002:map", _mapping)
_Printer.add_representer(
    str,
    lambda printer, text: printer.represent_scalar(
        "tag:yaml.org,2002:str", text, style="|" if "\n" in text.rstrip("\n") else None
    ),
)


def read(text: str) -> list[Object]:
    """Return all objects of a manifest with its documents and the items of Lists. Empty documents are skipped.

    Raises:
        DocumentError: The text is no manifest.
    """
    return [item for document in _documents(text) if document is not None for item in _items(document)]


def read_plain(text: str) -> Any:
    """Return the one document of a file that holds no Kubernetes objects, or None where it is empty; raise
    DocumentError where it is invalid."""
    found = _documents(text)
    if len(found) > 1:
        raise DocumentError("the file must be one document")
    return found[0] if found else None


def _documents(text: str) -> list[Any]:
    try:
        return list(yaml.load_all(text, Loader=_Reader))
    except DocumentError:
        raise
    except yaml.YAMLError as exc:
        raise DocumentError(f"not YAML{in_yaml(exc)}") from exc
    except (ValueError, RecursionError) as exc:
        raise DocumentError("a number in it is too long, or it is nested too deep") from exc


def _items(document: Any) -> list[Object]:
    if not isinstance(document, dict):
        raise DocumentError("a document must be an object with apiVersion, kind and metadata")
    kind = document.get("kind")
    if isinstance(kind, str) and kind.endswith("List") and isinstance(document.get("items"), list):
        return [item for inner in document["items"] for item in _items(inner)]
    if not isinstance(kind, str) or not isinstance(document.get("apiVersion"), str):
        raise DocumentError("an object needs apiVersion and kind")
    return [document]


def render(item: Object) -> str:
    """Return one object as YAML for people."""
    return yaml.dump(item, Dumper=_Printer, default_flow_style=False, sort_keys=True, allow_unicode=True, width=120)
