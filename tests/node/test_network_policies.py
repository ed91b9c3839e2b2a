"""NetworkPolicies of the chart, where the cluster enforces them."""

import pytest

from tests.node.cluster import Client
from tests.node.images import CLIENT
from tests.node.release import NAME, NAMESPACE, Release

GATEWAY = f"http://{NAME}-gateway.{NAMESPACE}"
HOOKS = f"{NAME}-hooks.{NAMESPACE}.svc"


@pytest.fixture(scope="module")
def neighbor(release: Release) -> Client:
    """A client in the namespace of the release."""
    return Client(release.cluster, "neighbor", NAMESPACE, CLIENT)


@pytest.mark.parametrize(
    "url", [f"https://{HOOKS}:8443/healthz", f"http://{HOOKS}:8083/healthz", f"{GATEWAY}:8081/routes"]
)
def test_other_namespaces_reach_no_port_for_operators(release: Release, url: str) -> None:
    """A pod of another namespace reaches neither the webhooks nor the ports for health, metrics and routes."""
    assert not release.client.reaches(url)


def test_other_namespaces_reach_the_gateway(release: Release) -> None:
    """A pod of another namespace may send requests."""
    assert release.client.curl(f"{GATEWAY}/v1/models").status == 200


@pytest.mark.parametrize("url", [f"http://{HOOKS}:8083/metrics", f"{GATEWAY}:8081/metrics"])
def test_the_namespace_of_the_release_reads_metrics(neighbor: Client, url: str) -> None:
    """A pod of the namespace of the release reads metrics."""
    assert neighbor.curl(url).status == 200


def test_webhooks_are_for_metacontroller(neighbor: Client) -> None:
    """A pod of the namespace of the release that is not Metacontroller's does not reach the webhooks."""
    assert not neighbor.reaches(f"https://{HOOKS}:8443/healthz")
