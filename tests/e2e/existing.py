"""A cluster that was there before: the suite brings a node that fakes its pods, and takes away what it made.

What stays: events, which expire by themselves, and every object that was there before, changed or not.
"""

import json
import re
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.e2e.controlplane import NEEDS_ITS_OWN, NODE_LABEL, ControlPlane
from tests.e2e.process import CommandFailed, Process, program
from tests.processes import poll

PROGRAMS: Final = ("kubectl", "kwok", "helm")
NODE: Final = "beamlit-e2e"
_MADE: Final = re.compile(r"(\S+/\S+) (?:created|serverside-applied)")
_CHILDREN: Final = "deployments,services,configmaps"
_OTHERS: Final = (
    "compositecontrollers.metacontroller.k8s.io",
    "decoratorcontrollers.metacontroller.k8s.io",
    "modeldeployments.deployment.beamlit.com",
)
"""Kinds of which an object means that other users of the cluster are served by this suite's programs."""


class UnsuitableCluster(Exception):
    """The suite does not run on this cluster. The message says why, and what to do."""


class ExistingCluster(ControlPlane):
    """The cluster of a kubeconfig, which needs an administrator's rights. A test that needs the processes or the audit
    log of the suite's own control plane is skipped."""

    def __init__(self, folder: Path, given: Path) -> None:
        super().__init__(folder)
        self.processes = _OurProcesses()
        self._given = given
        self._section: dict[str, Any] = {}
        self._made: dict[tuple[str, str], None] = {}
        """Namespace and `kind/name` of the objects that kubectl said it created, in that order."""
        self._releases: list[tuple[str, ...]] = []
        self._since = ""

    def start(self) -> None:
        """Read the kubeconfig, check that no other user would be disturbed, and bring the node.

        Raises:
            UnsuitableCluster: it cannot be reached, or Metacontroller or the product is in use there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        self._read_kubeconfig()
        try:
            kinds = self._plain("get", "crd", "-o", "name")
        except CommandFailed as exc:
            raise UnsuitableCluster(f"{self._given}: the cluster cannot be used: {exc}") from exc
        for kind in _OTHERS:
            used = self._plain("get", kind, "-A", "-o", "name").split() if f"/{kind}" in kinds else []
            if used:
                raise UnsuitableCluster(
                    f"{self._given}: {', '.join(used[:3])} is there already, and the Metacontroller of these tests"
                    " would serve it too: delete it, or take another cluster"
                )
        if self._plain("get", "node", NODE, "--ignore-not-found", "-o", "name"):
            raise UnsuitableCluster(f"{self._given}: these tests run there already, or ended badly: delete node/{NODE}")
        self.start_node(self.kubeconfig, NODE, [{"key": NODE_LABEL, "value": "fake", "effect": "NoSchedule"}])
        self._since = self.get("node", NODE)["metadata"]["creationTimestamp"]

    def stop(self) -> None:
        """Delete all objects that were made, and end every process.

        Raises:
            AssertionError: an object was not deleted; the message names it.
        """
        node = self.processes.pop("kwok", None)
        super().stop()
        try:
            if self._since:
                self._clean()
        finally:
            if node is not None:
                self._plain("delete", "node", NODE, "--ignore-not-found", check=False)
                node.stop()

    def kubectl(self, *words: str, check: bool = True, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl, and remember the objects that it created."""
        output = super().kubectl(*words, check=check, stdin=stdin, kubeconfig=kubeconfig)
        for place in _created(words, stdin, output):
            self._made.setdefault(place)
        return output

    def helm(self, *words: str) -> str:
        """Run helm, and remember the release that it installed."""
        if words[0] == "install":
            scope = _option(words, "-n", "--namespace") or "default"
            self._releases.append((words[1], "--namespace", scope))
        return super().helm(*words)

    def get(self, resource: str, name: str = "", namespace: str = "default") -> dict[str, Any]:
        """Return an object, or a list of all when no name is given; an empty one when there is none."""
        words = ("get", resource, *((name,) if name else ()), "-n", namespace, "-o", "json")
        output = self._plain(*words, check=False)
        content: dict[str, Any] = json.loads(output) if output else {}
        return content

    def audit(self) -> Iterator[dict[str, Any]]:
        """Skip the test: the log of an existing cluster cannot be read from here."""
        pytest.skip(NEEDS_ITS_OWN)

    def start_metrics_server(self) -> None:
        """Skip the test: the API server of an existing cluster cannot reach this machine."""
        pytest.skip(NEEDS_ITS_OWN)

    def ready(self) -> bool:
        """Return whether the API server says that it is ready."""
        return self._plain("get", "--raw", "/readyz", check=False) == "ok"

    def _cluster(self) -> dict[str, Any]:
        return self._section

    def _serving(self) -> tuple[str, ...]:
        return ()

    def _read_kubeconfig(self) -> None:
        config = self_contained(self._given)
        self._section = config["clusters"][0]["cluster"]
        self.url = self._section["server"]
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(json.dumps(config))

    def _clean(self) -> None:
        for release in self._releases:
            super().helm("uninstall", *release, "--ignore-not-found")
        made = [(scope, name) for scope, name in reversed(self._made) if name != f"node/{NODE}"]
        models = [one for one in made if one[1].startswith("modeldeployment.")]
        self._delete(models)
        # Before their kind is deleted: without it the garbage collector cannot tell that owners are gone.
        poll(
            lambda: not self._left(_CHILDREN, "ModelDeployment"),
            "children of models are collected",
            seconds=120,
        )
        namespaces = [one for one in made if one[1].startswith("namespace/")]
        self._delete(namespaces)  # with all objects in them
        self._delete([one for one in made if one not in models and one not in namespaces])
        on_node = f"--field-selector=spec.nodeName={NODE}"
        poll(lambda: not self._left("pods", "ReplicaSet", on_node), f"the pods of {NODE} are gone", seconds=120)

    def _delete(self, places: Sequence[tuple[str, str]]) -> None:
        """Delete objects that are younger than the suite's node, namespace by namespace, and wait until they are
        gone."""
        for scope in dict.fromkeys(scope for scope, _ in places):
            names = [name for other, name in places if other == scope]
            there = {name for kind in {name.partition("/")[0] for name in names} for name in self._young(kind, scope)}
            going = [name for name in names if name in there]
            if going:
                self._plain("delete", *going, "-n", scope, "--ignore-not-found", "--timeout=100s")

    def _young(self, kind: str, scope: str) -> Iterator[str]:
        """Return `kind/name` of all objects of a kind that are younger than the suite's node; none where the kind is
        gone."""
        output = self._plain("get", kind, "-n", scope, "-o", "json", check=False)
        for one in _items(json.loads(output)) if output else ():
            if self._is_young(one):
                yield f"{kind}/{one['metadata']['name']}"

    def _left(self, resources: str, owner: str, *words: str) -> list[str]:
        """Return objects younger than the suite's node with an owner of that kind."""
        output = self._plain("get", resources, "-A", "-o", "json", *words)
        return [
            one["metadata"]["name"]
            for one in _items(json.loads(output))
            if self._is_young(one) and owner in (ref["kind"] for ref in one["metadata"].get("ownerReferences", ()))
        ]

    def _is_young(self, item: Mapping[str, Any]) -> bool:
        return str(item["metadata"]["creationTimestamp"]) >= self._since

    def _plain(self, *words: str, check: bool = True) -> str:
        return super().kubectl(*words, check=check)


class _OurProcesses(dict[str, Process]):
    """Processes that the suite starts; a test that asks for another one is skipped."""

    def __missing__(self, name: str) -> Process:
        pytest.skip(NEEDS_ITS_OWN)


def self_contained(kubeconfig: Path) -> dict[str, Any]:
    """Return the current context of a kubeconfig with all that it refers to, and with the namespace `default`.

    Raises:
        UnsuitableCluster: it cannot be read, or has no current context.
    """
    command = [program("kubectl"), "config", "view", "--kubeconfig", str(kubeconfig)]
    result = subprocess.run(
        [*command, "--raw", "--flatten", "--minify", "-o", "json"], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise UnsuitableCluster(f"{kubeconfig} is no kubeconfig that can be used: {result.stderr.strip()}")
    config: dict[str, Any] = json.loads(result.stdout)
    config["contexts"][0]["context"]["namespace"] = "default"
    return config


def _created(words: Sequence[str], stdin: str | None, output: str) -> Iterator[tuple[str, str]]:
    """Yield namespace and `kind/name` of the objects that kubectl says it created; `default` for one without a
    namespace."""
    names = [match[1] for line in output.splitlines() if (match := _MADE.fullmatch(line))]
    scope = _option(words, "-n", "--namespace")
    given = [one for document in yaml.safe_load_all(stdin or "") if document for one in _items(document)]
    for name in names:
        places = {
            one["metadata"].get("namespace", "default")
            for one in given
            if name == f"{kind_of(one)}/{one['metadata'].get('name')}"
        }
        for place in {scope} if scope else places or {"default"}:
            yield place, name


def _items(document: dict[str, Any]) -> list[dict[str, Any]]:
    return list(document["items"]) if "items" in document else [document]


def kind_of(item: Mapping[str, Any]) -> str:
    """Return a kind as kubectl prints it: `deployment.apps`, `service`."""
    group = item["apiVersion"].rpartition("/")[0]
    return ".".join(filter(None, (item["kind"].lower(), group)))


def _option(words: Sequence[str], *names: str) -> str:
    """Return the value of an option of a command line; empty when it is not there."""
    for word, following in zip(words, (*words[1:], ""), strict=True):
        if word in names:
            return following
        if word.startswith(tuple(f"{name}=" for name in names)):
            return word.partition("=")[2]
    return ""
