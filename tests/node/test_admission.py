"""The rights of whoever writes a ModelDeployment, where Metacontroller makes real pods of it."""

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.e2e.process import CommandFailed
from tests.node.cluster import Cluster
from tests.node.images import CLIENT, MODEL_SERVER, PORT
from tests.node.release import GATEWAY, Release
from tests.processes import poll

PLACE: Final = "default"
API: Final = "https://kubernetes.default.svc"
ACCOUNT: Final = "/var/run/secrets/kubernetes.io/serviceaccount"
REFUSED: Final = "leave spec.server as it is"


@pytest.fixture(params=["writer", "builder"])
def account(request: pytest.FixtureRequest, release: Release) -> Iterator[str]:
    """A pod, by the name of its account: `writer` may write ModelDeployments, `builder` may create Deployments, too."""
    name, cluster = str(request.param), release.cluster
    objects = [*_account(name, builds=name == "builder"), _pod(name)]
    cluster.apply(*objects)
    cluster.wait("condition=Ready", f"pod/{name}", "-n", PLACE)
    yield name
    for one in objects:
        cluster.kubectl("delete", one["kind"], one["metadata"]["name"], "-n", PLACE)


def _account(name: str, *, builds: bool) -> Iterator[dict[str, Any]]:
    metadata = {"name": name, "namespace": PLACE}
    groups = [("deployment.beamlit.com", "modeldeployments"), *([("apps", "deployments")] if builds else ())]
    rules = [{"apiGroups": [group], "resources": [one], "verbs": ["create", "get"]} for group, one in groups]
    api = {"apiVersion": "rbac.authorization.k8s.io/v1", "metadata": metadata}
    yield {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata}
    yield {**api, "kind": "Role", "rules": rules}
    yield {
        **api,
        "kind": "RoleBinding",
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": PLACE}],
    }


def _pod(name: str) -> dict[str, Any]:
    container = {"name": "main", "image": CLIENT, "imagePullPolicy": "IfNotPresent"}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": PLACE},
        "spec": {"serviceAccountName": name, "containers": [container], "terminationGracePeriodSeconds": 0},
    }


def _create(cluster: Cluster, account: str, document: dict[str, Any]) -> dict[str, Any]:
    """Send an object to the API server from the pod, with its own token, and return the response."""
    group, kind = document["apiVersion"], f"{document['kind'].lower()}s"
    script = (
        f'curl --silent --show-error --cacert {ACCOUNT}/ca.crt -H "Authorization: Bearer $(cat {ACCOUNT}/token)" '
        f'--json "$1" {API}/apis/{group}/namespaces/{PLACE}/{kind}'
    )
    output = cluster.execute(PLACE, account, "sh", "-c", script, "create", json.dumps(document))
    response: dict[str, Any] = json.loads(output)
    return response


def test_pods_of_a_server_need_the_right_to_create_deployments(carried: Release, account: str) -> None:
    """A pod whose account may write ModelDeployments only creates none with a server, and so no pods; with the right to
    create Deployments it does, and its model serves."""
    cluster, model = carried.cluster, f"{account}-model"
    container = {
        "name": "server",
        "image": MODEL_SERVER,
        "imagePullPolicy": "IfNotPresent",
        "ports": [{"name": "http", "containerPort": PORT}],
        "readinessProbe": {"httpGet": {"path": "/health", "port": "http"}},
    }
    document = {
        "apiVersion": "deployment.beamlit.com/v1alpha1",
        "kind": "ModelDeployment",
        "metadata": {"name": model, "namespace": PLACE},
        "spec": {"model": "tiny-local", "server": {"port": PORT, "template": {"spec": {"containers": [container]}}}},
    }
    if account == "writer":
        # The API server takes a policy into account some moments after it is stored.
        poll(lambda: REFUSED in _probe(cluster, account, document), "the policy is in force")
        response = _create(cluster, account, document)
        assert (response["code"], REFUSED in response["message"]) == (403, True)
        assert not cluster.get("modeldeployment", model)
        assert not cluster.get("deployment", model)
        return
    assert _create(cluster, account, document)["kind"] == "ModelDeployment"
    try:
        cluster.wait("condition=LocalReady", f"modeldeployment/{model}", "-n", PLACE)
        carried.client.until_served_by("local", f"{GATEWAY}/{PLACE}/{model}", model)
    finally:
        cluster.kubectl("delete", "modeldeployment", model, "-n", PLACE, "--timeout=120s")


def _probe(cluster: Cluster, account: str, document: dict[str, Any]) -> str:
    """Return what the API server would say to an object of that account, as its administrator sees it."""
    words = ("create", "--dry-run=server", "-f", "-", f"--as=system:serviceaccount:{PLACE}:{account}")
    try:
        return cluster.kubectl(*words, stdin=json.dumps(document))
    except CommandFailed as exc:
        return str(exc)
