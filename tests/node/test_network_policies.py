"""NetworkPolicies of the chart, where the cluster enforces them."""

from collections.abc import Iterator
from typing import Final

import pytest
import yaml

from tests.chart.test_docs import blocks
from tests.e2e.process import CommandFailed
from tests.node.cluster import Client
from tests.node.images import CLIENT, PORT
from tests.node.release import NAME, NAMESPACE, REMOTE, Release
from tests.processes import poll
from tools.repository import ROOT

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


_PAGE: Final = (ROOT / "docs/metrics.md").read_text(encoding="utf-8")


@pytest.fixture
def engine(release: Release) -> Iterator[str]:
    """The URL of the metrics of an engine whose pods have the NetworkPolicy of the documentation."""
    (block,) = [one for one in blocks(_PAGE, "yaml") if "name: metrics-for-beamlit" in one]
    for written, here in (("8000", PORT), ("app: demo", "app: remote"), ("namespace: default", f"namespace: {REMOTE}")):
        assert written in block
        block = block.replace(written, str(here))
    (pod,) = release.cluster.pods(REMOTE, "app=remote")
    url = f"http://{pod['status']['podIP']}:{PORT}/metrics"
    assert release.client.curl(url).status == 200
    release.cluster.apply(yaml.safe_load(block))
    yield url
    release.cluster.kubectl("delete", "networkpolicy", "metrics-for-beamlit", "-n", REMOTE)


def test_metrics_of_engines_are_for_hooks(release: Release, engine: str) -> None:
    """Where the NetworkPolicy of the documentation closes an engine, hooks read its metrics; a pod of another namespace
    and the gateway do not."""
    poll(lambda: not release.client.reaches(engine), "the policy is in force")
    read = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=float(sys.argv[2])).status)"
    for pod in release.pods("hooks"):
        assert release.cluster.execute(NAMESPACE, pod, "python", "-c", read, engine, "60").strip() == "200"
    with pytest.raises(CommandFailed, match="timed out"):
        release.cluster.execute(NAMESPACE, release.pods("gateway")[0], "python", "-c", read, engine, "4")
