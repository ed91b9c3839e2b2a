"""A cluster that was there before, which NODE_KUBECONFIG names: it is left as it was."""

import json
import os
import subprocess
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any, Final

from hooks.api.common import AUTHORIZATION_GROUP, DEPLOYMENT_GROUP
from tests.e2e.existing import UnsuitableCluster, kind_of, self_contained
from tests.e2e.process import CommandFailed
from tests.node.cluster import Cluster

EXISTING: Final = "NODE_KUBECONFIG"
_GROUPS: Final = (DEPLOYMENT_GROUP, AUTHORIZATION_GROUP, "metacontroller.k8s.io")
"""API groups of the CustomResourceDefinitions that an installation brings."""
_PARENTS: Final = frozenset({f"modeldeployments.{DEPLOYMENT_GROUP}", f"policies.{AUTHORIZATION_GROUP}"})
_CLUSTER_WIDE: Final = frozenset(
    {
        "namespace",
        "customresourcedefinition.apiextensions.k8s.io",
        "clusterrole.rbac.authorization.k8s.io",
        "clusterrolebinding.rbac.authorization.k8s.io",
    }
)
"""Kinds, as kubectl prints them, of which an object has no namespace."""
_WAIT: Final = "--timeout=180s"


def existing() -> Path | None:
    """Return the kubeconfig of the cluster to test on; None when the tests start a node themselves."""
    named = os.environ.get(EXISTING)
    return Path(named) if named else None


class GivenCluster(Cluster):
    """A cluster that is in use. Nothing that is there is changed, and all that the tests bring is taken away.

    An object is recorded before it is made, so that it is also found where the tests end in the middle of that.
    """

    def __init__(self, given: Path, folder: Path) -> None:
        """Read the kubeconfig, which is not used itself: its context may have another namespace.

        Raises:
            UnsuitableCluster: it cannot be used, or the product or Metacontroller is installed there.
        """
        kubeconfig = folder / "kubeconfig"
        kubeconfig.touch(mode=0o600)
        kubeconfig.write_text(json.dumps(self_contained(given)))
        super().__init__(kubeconfig, folder, None)
        self._brought: dict[tuple[str, str], None] = {}
        """Namespace and `kind/name` of each object that the tests make, in that order."""
        self._releases: list[tuple[str, str]] = []
        """Name and namespace of each release that the tests install."""
        try:
            found = sorted(self._crds())
        except CommandFailed as exc:
            raise UnsuitableCluster(f"{given}: the cluster cannot be used: {exc}") from exc
        if found:
            raise _taken(f"customresourcedefinition/{found[0]}")

    def bring(self, kind: str, name: str, namespace: str = "") -> None:
        """Record an object that is about to be made.

        Raises:
            UnsuitableCluster: it is there already.
        """
        place = (namespace, f"{kind}/{name}")
        if place in self._brought:
            return
        # Where its namespace is one of the tests, so is the object.
        if not self._is_brought(namespace) and self.kubectl("get", place[1], *_scope(namespace), "--ignore-not-found"):
            raise _taken(f"{place[1]}{' in namespace ' if namespace else ''}{namespace}")
        self._brought[place] = None

    def apply(self, *objects: Mapping[str, Any]) -> str:
        """Record these objects, and run `kubectl apply` with them.

        Raises:
            UnsuitableCluster: one of them is there already.
        """
        for one in objects:
            kind, metadata = kind_of(one), one["metadata"]
            if not kind.endswith(_GROUPS):  # all of them are taken away, so none is recorded
                namespace = "" if kind in _CLUSTER_WIDE else metadata.get("namespace", "default")
                self.bring(kind, metadata["name"], namespace)
        return super().apply(*objects)

    def helm(self, *words: str) -> str:
        """Run helm; record the release that it installs, with its namespace."""
        if words[0] == "install":
            namespace = words[words.index("--namespace") + 1]
            self.bring("namespace", namespace)
            self._releases.append((words[1], namespace))
        return super().helm(*words)

    def clear(self) -> None:
        """Take away all that the tests brought, each part also where another one stays.

        Raises:
            AssertionError: something stays. The message has the words of kubectl and helm.
        """
        failures = []
        for take in (
            self._delete_models, self._uninstall, self._delete_objects, self._delete_namespaces, self._delete_crds,
        ):  # fmt: skip
            try:
                take()
            except (CommandFailed, subprocess.TimeoutExpired) as exc:
                failures.append(str(exc))
        assert not failures, "the cluster is not as it was:\n" + "\n".join(failures)

    def _delete_models(self) -> None:
        """Delete all models and Policies with their children. When the kind of an owner is gone, the garbage collector
        cannot tell any more that the owner is."""
        for kind in sorted(self._crds() & _PARENTS):
            self.kubectl("delete", kind, "--all", "--all-namespaces", "--cascade=foreground", _WAIT)

    def _uninstall(self) -> None:
        for name, namespace in self._releases:
            words = ("uninstall", name, "--namespace", namespace, "--ignore-not-found")
            try:
                self.helm(*words, "--wait", "--timeout=180s")
            except CommandFailed:
                # A hook waits for pods, which may be what does not work.
                self.helm(*words, "--no-hooks")

    def _delete_objects(self) -> None:
        """Delete all recorded objects that are in no recorded namespace, the last one first."""
        others = [one for one in reversed(self._brought) if not one[1].startswith("namespace/")]
        for namespace in {namespace for namespace, _ in others if not self._is_brought(namespace)}:
            names = [name for other, name in others if other == namespace]
            self.kubectl("delete", *names, *_scope(namespace), "--ignore-not-found", _WAIT)

    def _delete_namespaces(self) -> None:
        if names := [name for _, name in self._brought if name.startswith("namespace/")]:
            self.kubectl("delete", *names, "--ignore-not-found", _WAIT)

    def _delete_crds(self) -> None:
        if brought := sorted(self._crds()):
            self.kubectl("delete", "customresourcedefinitions", *brought, "--ignore-not-found", _WAIT)

    def _crds(self) -> Set[str]:
        """Return the names of the CustomResourceDefinitions that an installation brings, of those that are there."""
        listed = self.kubectl("get", "customresourcedefinitions", "-o", "name").split()
        names = (name.partition("/")[2] for name in listed)
        return {name for name in names if name.partition(".")[2] in _GROUPS}

    def _is_brought(self, namespace: str) -> bool:
        return ("", f"namespace/{namespace}") in self._brought


def _scope(namespace: str) -> tuple[str, ...]:
    return ("-n", namespace) if namespace else ()


def _taken(place: str) -> UnsuitableCluster:
    return UnsuitableCluster(f"{place} is there already: delete it, or take another cluster")
