"""The suite on an existing cluster, which E2E_KUBECONFIG names."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e import controlplane
from tests.e2e.controlplane import ControlPlane
from tests.e2e.existing import NODE, ExistingCluster, UnsuitableCluster
from tests.e2e.product import install_crds, model_deployment, workload
from tools.ports import free_port

pytestmark = pytest.mark.own_plane


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """A cluster of another user, with objects in it."""
    with controlplane.running(tmp_path_factory.mktemp("theirs")) as plane:
        plane.apply({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"a": "b"}})
        plane.kubectl("label", "node", controlplane.NODE, f"{controlplane.NODE_LABEL}-")  # a node like any other
        yield plane


def content(plane: ControlPlane) -> set[str]:
    """Return all objects of kinds that tests may leave behind."""
    kinds = "crd,namespaces,nodes,deployments,replicasets,pods,services,configmaps,serviceaccounts,roles,clusterroles"
    listed = json.loads(plane.kubectl("get", kinds, "-A", "-o", "json"))["items"]
    return {f"{one['kind']} {one['metadata'].get('namespace', '')}/{one['metadata']['name']}" for one in listed}


def test_pods_become_ready_and_nothing_stays(theirs: ControlPlane, tmp_path: Path) -> None:
    """A workload runs on the node that the suite brings, and at the end the cluster has the objects that it had
    before."""
    before = content(theirs)
    cluster = ExistingCluster(tmp_path / "ours", theirs.kubeconfig)
    try:
        cluster.start()
        install_crds(cluster)
        cluster.kubectl("create", "namespace", "ours")
        cluster.kubectl("create", "serviceaccount", "ours", "-n", "ours")
        role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "ours"}}
        configured = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"a": "c"}}
        cluster.apply(workload("ours"), model_deployment("ours"), role | {"rules": []}, configured)
        cluster.apply(workload("ours"), namespace="ours")
        for namespace in ("default", "ours"):
            cluster.kubectl("wait", "--for=condition=Available", "deployment/ours", "-n", namespace, "--timeout=100s")
            (pod,) = cluster.get("pods", namespace=namespace)["items"]
            assert pod["spec"]["nodeName"] == NODE
        assert cluster.kubectl("auth", "whoami", kubeconfig=cluster.service_account("ours", "ours"))
    finally:
        cluster.stop()
    assert content(theirs) == before


def test_others_are_not_disturbed(theirs: ControlPlane, tmp_path: Path) -> None:
    """The suite refuses a cluster where the product or these tests are in use, changes nothing there, and keeps CRDs
    that existed before."""
    install_crds(theirs)
    theirs.apply(model_deployment("theirs"))
    before = content(theirs)

    def refusal() -> str:
        cluster = ExistingCluster(tmp_path / "ours", theirs.kubeconfig)
        try:
            with pytest.raises(UnsuitableCluster) as caught:
                cluster.start()
        finally:
            cluster.stop()
        return str(caught.value)

    assert "modeldeployment.deployment.beamlit.com/theirs is there already" in refusal()
    assert content(theirs) == before
    theirs.kubectl("delete", "modeldeployment", "theirs")
    first = ExistingCluster(tmp_path / "first", theirs.kubeconfig)
    try:
        first.start()
        install_crds(first)
        assert f"delete node/{NODE}" in refusal()
        assert first.get("node", NODE)
    finally:
        first.stop()
    assert content(theirs) == before


def test_a_cluster_that_is_not_there(theirs: ControlPlane, tmp_path: Path) -> None:
    """The refusal of a cluster that cannot be reached names the kubeconfig."""
    kubeconfig = tmp_path / "nowhere"
    kubeconfig.write_text(theirs.kubeconfig.read_text().replace(theirs.url, f"https://127.0.0.1:{free_port()}"))
    for given in (kubeconfig, tmp_path / "no-such-file"):
        cluster = ExistingCluster(tmp_path / "ours", given)
        with pytest.raises(UnsuitableCluster, match=given.name):
            cluster.start()
        cluster.stop()
