"""Removal of everything, by the commands of the documentation. Its name is last, so it comes after all other tests."""

import json

from tests.node.cluster import Cluster
from tests.node.release import MODELS, NAME, NAMESPACE, Release
from tests.processes import poll


def test_an_uninstallation_leaves_nothing(release: Release) -> None:
    """After the models are deleted and the release is uninstalled, no object of either is in the cluster, and no
    pod."""
    cluster = release.cluster
    if release.metacontroller:
        cluster.kubectl("delete", MODELS, "-A", "--all", "--timeout=120s")
    cluster.helm("uninstall", NAME, "--namespace", NAMESPACE, "--wait")
    poll(lambda: not _left(cluster), "all objects of the release are gone")
    assert not _left(cluster)


def _left(cluster: Cluster) -> list[str]:
    """Return the objects of the release and of its models, of every kind of the API."""
    kinds = ",".join(
        kind
        for scope in ("true", "false")
        for kind in cluster.kubectl(
            "api-resources", "--verbs=list,delete", f"--namespaced={scope}", "-o", "name"
        ).split()
        if not kind.startswith(("events", "customresourcedefinitions"))
    )
    items = json.loads(cluster.kubectl("get", kinds, "-A", "-o", "json", "--ignore-not-found"))["items"]
    return [f"{one['kind']}/{one['metadata']['name']}" for one in items if _is_ours(one)]


def _is_ours(item: dict[str, object]) -> bool:
    text = json.dumps(item.get("metadata"))
    return any(word in text for word in ("beamlit-controller", "beamlit-metacontroller", "demo-server"))
