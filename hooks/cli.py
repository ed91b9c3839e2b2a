"""The same answers on files, without a cluster: what would a manifest become?"""

import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import yaml

from hooks import reconcile
from hooks.errors import HookError
from hooks.observation import InstallDefaults, Observation
from hooks.protocol import Object, SyncRequest
from program.files import Unreadable, problem

DEFAULT_NAMESPACE = "default"


class _Loader(yaml.SafeLoader):
    """Reads YAML as Kubernetes does: what looks like a time stays text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if not tag.endswith(":timestamp")]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


class _Printer(yaml.SafeDumper):
    """Prints every value in full, without anchors."""

    def ignore_aliases(self, data: Any) -> bool:  # noqa: ARG002
        """Never an alias."""
        return True


class UnreadableManifest(Exception):
    """A file holds no manifests. The message says which and why."""


def render(
    files: Sequence[Path],
    defaults: InstallDefaults,
    *,
    now: datetime,
    output: TextIO = sys.stdout,
    problems: TextIO = sys.stderr,
) -> int:
    """Print the children of every ModelDeployment in `files` as YAML.

    Other objects in the files are taken for observed: workloads, Services and Policies that a ModelDeployment refers
    to. Conditions that are False are told on `problems`.

    Returns:
        0 when all are accepted, 1 when one is not or there is none, 2 when a file cannot be read.
    """
    try:
        objects = [item for path in files for item in _objects(path)]
    except UnreadableManifest as exc:
        print(f"hooks: {exc}", file=problems)
        return 2
    parents = [item for item in objects if item.get("kind") == "ModelDeployment"]
    if not parents:
        print(f"hooks: there is no ModelDeployment in {', '.join(map(str, files))}.", file=problems)
        return 1
    related = {"observed": {str(number): item for number, item in enumerate(objects) if item not in parents}}
    accepted = True
    for parent in parents:
        name = f"{parent['metadata']['namespace']}/{parent['metadata']['name']}"
        try:
            request = SyncRequest.from_json({"parent": parent, "children": {}, "related": related})
            answer = reconcile.sync(Observation.of(request, defaults), now=now)
        except HookError as exc:
            print(f"{name}: {exc}", file=problems)
            accepted = False
            continue
        for child in answer.children:
            text = yaml.dump(child, Dumper=_Printer, sort_keys=False, allow_unicode=True, width=120)
            output.write(f"---\n{text}")
        for condition in answer.status.get("conditions", ()):
            if condition["status"] == "False":
                print(f"{name}: {condition['type']}=False/{condition['reason']}: {condition['message']}", file=problems)
                accepted = accepted and condition["type"] != "Accepted"
    return 0 if accepted else 1


def _objects(path: Path) -> Iterator[Object]:
    try:
        documents = list(yaml.load_all(path.read_text(encoding="utf-8"), Loader=_Loader))
    except Unreadable as exc:
        raise UnreadableManifest(f"{path} {problem(exc)}.") from exc
    for item in _items(documents):
        metadata = item.get("metadata") if isinstance(item, dict) else None
        if not isinstance(metadata, dict) or not isinstance(metadata.get("name"), str):
            raise UnreadableManifest(f"{path} holds something that is not a Kubernetes object with a name.")
        metadata.setdefault("namespace", DEFAULT_NAMESPACE)
        yield item


def _items(documents: Iterable[Any]) -> Iterator[Any]:
    """The objects, Lists opened."""
    for document in documents:
        if isinstance(document, dict) and str(document.get("kind", "")).endswith("List"):
            yield from document.get("items") or ()
        elif document is not None:
            yield document
