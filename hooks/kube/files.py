"""Files of Kubernetes objects, as people write them and as kubectl prints them: YAML, JSON, and Lists."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson
import yaml

from program.files import Loader, Unreadable, load_all, problem


class UnreadableFile(Exception):
    """The file cannot be used. The message is a sentence that names the file and says why."""


class _Loader(Loader):
    """A YAML loader that leaves what looks like a time as text, and refuses duplicate keys, as Kubernetes does."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if not tag.endswith(":timestamp")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def read(path: Path) -> list[Any]:
    """Return the objects in a file. A List counts as the objects in it.

    Raises:
        UnreadableFile: The file cannot be read, or is neither YAML nor JSON.
    """
    try:
        return parse(path.read_text(encoding="utf-8"))
    except Unreadable as exc:
        raise UnreadableFile(f"{path} {problem(exc)}.") from exc


def parse(text: str) -> list[Any]:
    """Return the objects in a text of YAML or JSON. A List counts as the objects in it.

    Raises:
        yaml.YAMLError: The text is neither YAML nor JSON, or has a key twice in one mapping.
    """
    try:
        documents = [orjson.loads(text)]  # what kubectl get --raw prints is large, and JSON is read much sooner as such
        json.loads(text, object_pairs_hook=_distinct)
    except ValueError:  # not JSON, or a key is there twice: as YAML, of which JSON is a part, the line of it is known
        documents = list(load_all(text, _Loader))
    return list(_opened(documents))


def _distinct(pairs: list[tuple[str, Any]]) -> None:
    """Check the keys of a JSON object, of which orjson takes the last where there are two.

    Raises:
        ValueError: a key is there twice.
    """
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key is there twice")


def _opened(documents: Iterable[Any]) -> Iterator[Any]:
    """Yield the objects, those of Lists too. In a typed list only the list says what kind its items are."""
    for document in documents:
        kind = document.get("kind") if isinstance(document, dict) else None
        if isinstance(kind, str) and kind.endswith("List"):
            says = {"apiVersion": document.get("apiVersion"), "kind": kind.removesuffix("List")}
            for item in document.get("items") or ():
                yield says | item if kind != "List" and isinstance(item, dict) else item
        elif document is not None:
            yield document
