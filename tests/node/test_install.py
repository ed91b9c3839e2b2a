"""The short form: the image in real pods, installed by the commands of the README, with one request each way."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.node.cluster import Client, Cluster
from tests.node.images import CLIENT, MODEL_SERVER, PORT
from tests.node.release import GATEWAY, MODEL, NAME, NAMESPACE, Release
from tools.repository import ROOT


@pytest.fixture
def by_hand(release: Release) -> Iterator[Release]:
    """The release with a model whose Deployment, Service and route were made by hand, without Metacontroller."""
    objects = (*_model_by_hand(), _route_by_hand(local=100))
    release.cluster.apply(*objects)
    release.cluster.kubectl("rollout", "status", "deployment/manual", "--timeout=120s")
    yield release
    for one in objects:
        release.cluster.kubectl("delete", one["kind"], one["metadata"]["name"])


def _model_by_hand() -> Iterator[dict[str, Any]]:
    labels = {"app": "manual"}
    probe = {"httpGet": {"path": "/health", "port": PORT}, "periodSeconds": 1}
    pod = {"containers": [{"name": "server", "image": MODEL_SERVER, "readinessProbe": probe}]}
    yield {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "manual"},
        "spec": {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": pod}},
    }
    yield {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "manual-local"},
        "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": PORT}]},
    }


def _route_by_hand(local: int) -> dict[str, Any]:
    """Return a route that sends `local` percent of the requests to the Service `manual-local`."""
    backends = [
        {"id": "local", "service": "manual-local", "port": 80, "weight": local, "model": "tiny-local"},
        {
            "id": "remote",
            "default": True,
            "weight": 100 - local,
            "model": "tiny-remote",
            "pathPrefix": "/demo/tiny-remote",
        },
    ]
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "manual-route", "labels": {"gateway.beamlit.com/route": "v1alpha1"}},
        "data": {"route.json": json.dumps({"name": "manual", "backends": backends})},
    }


def test_all_pods_become_ready(release: Release) -> None:
    """Every workload of the chart has all its pods ready, and none was started twice."""
    expected = {f"{NAME}-hooks": 2, f"{NAME}-gateway": 2}
    if release.metacontroller:
        expected[f"{NAME}-metacontroller"] = 1
    ready = {item["metadata"]["name"]: item["status"].get("readyReplicas") for item in release.workloads()}
    assert ready == expected
    assert set(release.restarts().values()) == {0}


def test_helm_test(release: Release) -> None:
    """`helm test` succeeds: its pod reaches hooks and the gateway by the names of their Services."""
    output = release.cluster.helm("test", NAME, "--namespace", NAMESPACE, "--timeout", "120s")
    assert "Phase:          Succeeded" in output


@pytest.mark.parametrize("component", ["hooks", "gateway"])
def test_containers_are_confined(release: Release, component: str) -> None:
    """A container has no root, no capability and no way to gain one, seccomp filters its system calls, and it can write
    to /tmp only."""
    check = "import pathlib; print(pathlib.Path('/proc/1/status').read_text())"
    for pod in release.pods(component):
        text = release.cluster.execute(NAMESPACE, pod, "python", "-c", check)
        fields = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
        assert set(fields["Uid"].split()) == set(fields["Gid"].split()) == {"65532"}
        assert {fields[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {"0" * 16}
        assert (fields["NoNewPrivs"], fields["Seccomp"]) == ("1", "2")
        write = (
            "import errno, pathlib\n"
            "pathlib.Path('/tmp/written').touch()\n"
            "for place in ('/', '/app', '/etc', '/var', '/home'):\n"
            "    try: pathlib.Path(place, 'written').touch()\n"
            "    except OSError as exc: assert exc.errno == errno.EROFS, (place, exc)\n"
            "    else: raise AssertionError(place)\n"
        )
        release.cluster.execute(NAMESPACE, pod, "python", "-c", write)


def test_a_route_by_hand(by_hand: Release) -> None:
    """The gateway takes a route that no Metacontroller wrote, and serves a client of another namespace from the pods
    behind it, or from the remote backend where the route says so."""
    url = f"{GATEWAY}/default/manual"
    local = by_hand.client.until_served_by("local", url, "manual")
    assert (local.status, "tiny-local" in local.body) == (200, True), local
    by_hand.cluster.apply(_route_by_hand(local=0))
    remote = by_hand.client.until_served_by("remote", url, "manual")
    assert (remote.status, "tiny-remote" in remote.body) == (200, True), remote


def test_hooks_over_their_service(release: Release) -> None:
    """hooks respond over TLS to a pod with the labels of Metacontroller, by the name of their Service."""
    (policy,) = [
        one
        for one in release.cluster.get("networkpolicies", namespace=NAMESPACE)["items"]
        if one["metadata"]["name"] == f"{NAME}-hooks"
    ]
    (peer,) = policy["spec"]["ingress"][0]["from"]
    (namespace,) = peer["namespaceSelector"]["matchLabels"].values()
    if namespace != NAMESPACE:
        release.cluster.create_namespace(namespace)
    client = Client(release.cluster, "caller", namespace, CLIENT, peer["podSelector"]["matchLabels"])
    body = (ROOT / "examples/requests/sync.json").read_text()
    url = f"https://{NAME}-hooks.{NAMESPACE}.svc:8443/modeldeployments/sync"
    response = client.curl(url, "--insecure", "--json", body)
    assert response.status == 200
    assert {child["kind"] for child in response.json["children"]} >= {"ConfigMap", "Service"}
    release.cluster.kubectl("delete", "pod", "caller", "-n", namespace)
    if namespace != NAMESPACE:
        release.cluster.kubectl("delete", "namespace", namespace)


def test_the_commands_of_the_readme(applied: Release) -> None:
    """`kubectl apply` and `kubectl wait` bring a model up, and `kubectl get` says that it is Ready and local as soon as
    its pod is."""
    applied.cluster.wait("condition=LocalReady", f"modeldeployment/{MODEL}")
    header, *rows = applied.cluster.kubectl("get", "modeldeployments").splitlines()
    assert header.split() == ["NAME", "MODEL", "READY", "OFFLOADED", "REASON", "OFFLOADREADY", "AGE"]
    assert [row.split()[:5] for row in rows] == [[MODEL, "tiny-remote", "True", "0", "Local"]]


@pytest.mark.parametrize("url", [f"{GATEWAY}/default/{MODEL}", f"http://ask-{MODEL}.default"])
def test_a_request_each_way(applied: Release, url: str) -> None:
    """A client of another namespace is served by the model's own pod, and by the remote backend while an override says
    so, under the gateway's name and under the one that the model gives itself."""
    cluster: Cluster = applied.cluster
    local = applied.client.until_served_by("local", url, MODEL)
    assert (local.status, "tiny-local" in local.body) == (200, True), local
    override = {"percentage": 100, "until": "2037-01-01T00:00:00Z"}
    try:
        _patch(cluster, {"offloadingConfig": {"behavior": {"override": override}}})
        remote = applied.client.until_served_by("remote", url, MODEL)
        assert (remote.status, "tiny-remote" in remote.body) == (200, True), remote
    finally:
        _patch(cluster, {"offloadingConfig": {"behavior": {"override": None}}})
    applied.client.until_served_by("local", url, MODEL)


def test_no_ready_pod(applied: Release) -> None:
    """While the model has no pod the remote backend serves, and its pods serve again when they are back."""
    url = f"{GATEWAY}/default/{MODEL}"
    _patch(applied.cluster, {"server": {"replicas": 0}})
    response = applied.client.until_served_by("remote", url, MODEL)
    assert (response.status, "tiny-remote" in response.body) == (200, True), response
    _patch(applied.cluster, {"server": {"replicas": 1}})
    applied.client.until_served_by("local", url, MODEL)


def _patch(cluster: Cluster, spec: dict[str, Any]) -> None:
    cluster.kubectl("patch", "modeldeployment", MODEL, "--type=merge", "-p", json.dumps({"spec": spec}))
