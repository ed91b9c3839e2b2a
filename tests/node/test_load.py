"""Pods that come and go under load: no client sees an error."""

import subprocess
from pathlib import Path

import pytest

from tests.chart.helm import with_dependencies
from tests.node import load
from tests.node.load import Load
from tests.node.release import CLIENTS, MODEL, NAME, NAMESPACE, Release
from tools.repository import ROOT

HOST = f"{NAME}-gateway.{NAMESPACE}"


def check(sent: Load) -> None:
    """Raise an error unless all requests got a whole response, and that was a good one."""
    assert not sent.failures, (sent.failures, sent.responses)
    assert {words.split()[0] for words in sent.responses} == {"200"}, sent.responses
    assert sent.responses.total() > 100


def test_a_rolling_restart(applied: Release) -> None:
    """All pods of hooks and the gateway are replaced, and no request fails."""
    cluster, before = applied.cluster, {*applied.pods("hooks"), *applied.pods("gateway")}
    with load.running(cluster, CLIENTS, HOST, f"/default/{MODEL}", MODEL) as sent:
        for component in ("gateway", "hooks"):
            cluster.kubectl("rollout", "restart", f"deployment/{NAME}-{component}", "-n", NAMESPACE)
        applied.until_ready()
        sent.until_more(50)
    check(sent)
    assert not before & {*applied.pods("hooks"), *applied.pods("gateway")}


def test_pods_are_deleted(applied: Release) -> None:
    """A gateway's pod is deleted and a model's pod is killed without a grace period, while others are there, and no
    request fails."""
    cluster = applied.cluster
    cluster.kubectl("patch", "modeldeployment", MODEL, "--type=merge", "-p", '{"spec": {"server": {"replicas": 2}}}')
    try:
        cluster.wait("jsonpath={.status.readyReplicas}=2", f"deployment/{MODEL}")
        with load.running(cluster, CLIENTS, HOST, f"/default/{MODEL}", MODEL) as sent:
            sent.until_more(50)
            cluster.kubectl("delete", "pod", applied.pods("gateway")[0], "-n", NAMESPACE)
            applied.until_ready()
            (killed, *_) = _model_pods(applied)
            cluster.kubectl("delete", "pod", killed, "--force", "--grace-period=0")
            sent.until_more(100)
        check(sent)
    finally:
        cluster.kubectl(
            "patch", "modeldeployment", MODEL, "--type=merge", "-p", '{"spec": {"server": {"replicas": 1}}}'
        )


def test_an_upgrade_from_the_chart_before(applied: Release, tmp_path: Path) -> None:
    """`helm upgrade` from the chart as it was before its last change fails no request, keeps the certificate of hooks,
    and the model is Ready under the new one."""
    earlier = _chart_before(tmp_path)
    cluster = applied.cluster
    applied.upgrade(earlier, "--set-string", "gateway.podAnnotations.chart=earlier")
    before = cluster.get("secret", f"{NAME}-hooks-tls", NAMESPACE)["data"]
    with load.running(cluster, CLIENTS, HOST, f"/default/{MODEL}", MODEL) as sent:
        cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", str(applied.chart / "crds"))
        applied.upgrade(applied.chart, "--set-string", "gateway.podAnnotations.chart=new")
        sent.until_more(50)
    check(sent)
    assert cluster.get("secret", f"{NAME}-hooks-tls", NAMESPACE)["data"] == before
    cluster.wait("condition=Ready", f"modeldeployment/{MODEL}")


def _chart_before(folder: Path) -> Path:
    """Return the chart, with its dependencies, as it was before its last change; skip the test where the history is not
    here."""
    command = ("git", "-C", str(ROOT), "log", "-2", "--format=%H", "--", "charts/beamlit-controller")
    commits = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    if len(commits) < 2:
        pytest.skip("the history of the project is not here")
    chart = with_dependencies(folder)
    archive = folder / "chart.tar"
    path = "charts/beamlit-controller"
    subprocess.run(["git", "-C", str(ROOT), "archive", f"--output={archive}", commits[1], path], check=True)
    for name in ("templates", "crds", "values.yaml", "values.schema.json", "Chart.yaml"):
        subprocess.run(["rm", "-r", str(chart / name)], check=True)
    subprocess.run(["tar", "-x", "-f", str(archive), "-C", str(chart), "--strip-components=2", path], check=True)
    return chart


def _model_pods(release: Release) -> list[str]:
    (deployment,) = [one for one in release.cluster.get("deployments")["items"] if one["metadata"]["name"] == MODEL]
    labels = ",".join(f"{key}={value}" for key, value in deployment["spec"]["selector"]["matchLabels"].items())
    return [pod["metadata"]["name"] for pod in release.cluster.pods("default", labels)]
