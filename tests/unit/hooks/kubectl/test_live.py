"""What `kubectl beamlit explain` and `decisions` read from a cluster: the same core as hooks decides with."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import orjson
import pytest

from hooks.explain import Explanation, explain
from hooks.kube.objects import Object
from hooks.kubectl import live, requests
from hooks.kubectl.cluster import ClusterFailed, Query, Refused, failure
from hooks.kubectl.drills import ProxiedGateways
from hooks.settings import Settings
from tests import builders
from tests.builders import NAMESPACE

SETTINGS = Settings.load(None, environment={}, flags={"namespaces": ""})
NAMESPACES = "/api/v1/namespaces"
DEPLOYMENT = f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/demo"
PODS = f"{NAMESPACES}/{NAMESPACE}/pods"
PAGE = f"{PODS}/demo-1:8000/proxy/metrics"


class Recorded:
    """A cluster that has what is recorded of it."""

    def __init__(self, found: Mapping[str, Any]) -> None:
        self._found = found
        self.asked: list[str] = []

    async def raw(self, path: str, query: Query = ()) -> bytes:
        """Return what is recorded of a path, with its query or without; raise the error that is recorded, or that
        there is no such object."""
        whole = f"{path}?{urlencode(query)}"
        self.asked.append(whole)
        content = self._found.get(whole, self._found.get(path, Refused("NotFound", "there is none")))
        if isinstance(content, Exception):
            raise content
        return content if isinstance(content, bytes) else orjson.dumps(content)

    @asynccontextmanager
    async def forward(self, namespace: str, pod: str, port: int) -> AsyncIterator[int]:
        """Give the recorded port of this machine, or raise the recorded error."""
        found = self._found[f"{namespace}/{pod}:{port}"]
        if isinstance(found, Exception):
            raise found
        yield found

    async def patch(self, resource: str, name: str, namespace: str, change: Object) -> None:
        """Change nothing."""


def forbidden(verb: str, resource: str) -> Exception:
    """Return the error where a right is missing."""
    words = f'User "ann" cannot {verb} resource "{resource}" in API group "" in the namespace "{NAMESPACE}"'
    return failure(f"Error from server (Forbidden): x is forbidden: {words}")


def queue() -> dict[str, Any]:
    """Return a ModelDeployment that offloads by a metric on the pages of its pods."""
    metric = {
        "type": "Pods",
        "pods": {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": "4"}},
    }
    config = {"remoteBackend": builders.REMOTE, "metrics": [metric], "metricSource": {"type": "pods", "port": 8000}}
    return builders.model_deployment(offloadingConfig=config)


def pod() -> dict[str, Any]:
    """Return a ready pod of the workload."""
    return {
        "metadata": {"name": "demo-1", "namespace": NAMESPACE, "labels": {"app": "demo"}},
        "spec": {"containers": [{"name": "c", "ports": [{"containerPort": 8000}]}]},
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.7",
            "startTime": "2026-03-01T10:00:00Z",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-03-01T10:00:00Z"}],
        },
    }


async def explained(found: Mapping[str, Any], said: list[str]) -> Explanation:
    """Return the explanation of the model with what is recorded of a cluster."""
    observation = await live.observe(Recorded(found), queue(), SETTINGS, prometheus=None, report=said.append)
    return explain(observation, now=datetime.now(UTC))


async def test_a_model_is_explained_from_the_cluster() -> None:
    """The readiness and the metrics of the cluster decide, as in a sync of hooks; children may be unreadable."""
    said: list[str] = []
    found = {
        DEPLOYMENT: builders.workload(),
        PODS: {"kind": "PodList", "items": [pod()]},
        PAGE: b"# TYPE queue gauge\nqueue 2\n",
        f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments": {"items": []},
        f"{NAMESPACES}/{NAMESPACE}/services": {"items": [builders.service("demo-local")]},
        f"{NAMESPACES}/{NAMESPACE}/configmaps": forbidden("list", "configmaps"),
    }
    explanation = await explained(found, said)
    assert explanation.accepted
    assert explanation.split.percentage == 0
    (metric,) = explanation.metrics
    assert (metric.name, metric.state) == ("queue", "Below")
    assert said == [
        (
            "The configmaps of the model are left out. ann lacks the right to list configmaps in namespace team-a:"
            " `kubectl auth can-i list configmaps -n team-a` says so. Ask an administrator for it."
        )
    ]


async def test_a_metric_that_may_not_be_read() -> None:
    """A right that is missing for a metric is what the explanation says of the metric."""
    found = {
        DEPLOYMENT: builders.workload(),
        PODS: {"kind": "PodList", "items": [pod()]},
        PAGE: forbidden("get", "pods/proxy"),
    }
    (metric,) = (await explained(found, [])).metrics
    assert metric.state == "Forbidden"
    assert "kubectl auth can-i get pods --subresource=proxy -n team-a" in str(metric.measure)


async def test_a_workload_that_may_not_be_read() -> None:
    """What the model refers to has to be readable: without it the explanation would be of something else."""
    found = {DEPLOYMENT: forbidden("get", "deployments")}
    with pytest.raises(Refused, match="ann lacks the right to get deployments in namespace team-a"):
        await explained(found, [])


async def test_a_workload_that_does_not_exist() -> None:
    """A workload that the model refers to and that does not exist is explained as hooks do."""
    explanation = await explained({}, [])
    assert (explanation.accepted, explanation.split.reason) == (True, "WorkloadMissing")


@pytest.mark.parametrize("found", [{}, {"items": []}, forbidden("list", "configmaps")], ids=["none", "empty", "right"])
async def test_an_installation_without_a_configuration(found: Any) -> None:
    """Without the configuration of hooks defaults count for it, and a sentence says so."""
    said: list[str] = []
    where = f"{NAMESPACES}/beamlit-system/configmaps"
    settings = await live.settings(Recorded({where: found}), "beamlit-system", said.append)
    assert settings.metric_informer.type == "kubernetes"
    assert "defaults count for it" in said[0]


async def test_the_configuration_of_the_installation() -> None:
    """The configuration of hooks counts as the chart wrote it."""
    content = "namespaces: default\nmetricInformer: {type: pods}\ngateway: {lameDuckSeconds: 1}\n"
    where = f"{NAMESPACES}/beamlit-system/configmaps"
    found = {where: {"items": [{"data": {"config.yaml": content}}]}}
    said: list[str] = []
    settings = await live.settings(Recorded(found), "beamlit-system", said.append)
    assert (settings.metric_informer.type, said) == ("pods", [])


def gateway(name: str) -> dict[str, Any]:
    """Return a pod of the gateway."""
    ports = [{"name": "http", "containerPort": 8080}, {"name": "admin", "containerPort": 8081}]
    return {"metadata": {"name": name}, "spec": {"containers": [{"ports": ports}]}, "status": {"phase": "Running"}}


async def test_requests_of_all_gateways() -> None:
    """The last requests of all gateways are put in the order of their times, and then only new ones come."""
    where = f"{NAMESPACES}/beamlit-system/pods"
    pages = [[{"time": 3.0, "request_id": "c"}, {"time": 1.0, "request_id": "a"}], [{"time": 2.0, "request_id": "b"}]]
    found: dict[str, Any] = {where: {"items": [gateway("g1"), gateway("g2")]}}
    for number, page in enumerate(pages, start=1):
        found[f"{where}/g{number}:8081/proxy/decisions"] = {"decisions": page}
    cluster = Recorded(found)
    paths = await requests.gateways(cluster, "beamlit-system")
    said: list[str] = []
    listed = await requests.decisions(cluster, paths, "default/demo", 2, said.append)
    assert [one["request_id"] for one in listed] == ["b", "c"]
    assert cluster.asked[-1].endswith("g2:8081/proxy/decisions?route=default%2Fdemo&limit=2")
    stream = requests.follow(cluster, "beamlit-system", "default/demo", 2, said.append, pause=0)
    assert [one["request_id"] for one in await anext(stream)] == ["b", "c"]
    pages[1].insert(0, {"time": 4.0, "request_id": "d"})
    found[f"{where}/g2:8081/proxy/decisions"] = {"decisions": pages[1]}
    assert [one["request_id"] for one in await anext(stream)] == ["d"]
    assert await anext(stream) == []
    assert said == []


async def test_a_gateway_that_ends_while_requests_are_followed() -> None:
    """A gateway that cannot be asked is left out with a sentence, said once, and the others are followed on."""
    where = f"{NAMESPACES}/beamlit-system/pods"
    found: dict[str, Any] = {
        where: {"items": [gateway("g1"), gateway("g2")]},
        f"{where}/g1:8081/proxy/decisions": {"decisions": [{"time": 1.0, "request_id": "a"}]},
        f"{where}/g2:8081/proxy/decisions": ClusterFailed("It ends."),
    }
    cluster = Recorded(found)
    said: list[str] = []
    stream = requests.follow(cluster, "beamlit-system", "default/demo", 2, said.append, pause=0)
    assert [one["request_id"] for one in await anext(stream)] == ["a"]
    found[f"{where}/g1:8081/proxy/decisions"] = {"decisions": [{"time": 2.0, "request_id": "b"}]}
    assert [one["request_id"] for one in await anext(stream)] == ["b"]
    assert said == ["1 of 2 gateways cannot be asked and are left out: It ends."]
    found[where] = {"items": []}
    assert await anext(stream) == []
    assert await anext(stream) == []
    assert said[1:] == [
        "No gateway runs in namespace beamlit-system: --system-namespace names that of the installation."
    ]
    found[where] = {"items": [gateway("g1")]}
    assert await anext(stream) == []
    found[f"{where}/g1:8081/proxy/decisions"] = {"decisions": [{"time": 3.0, "request_id": "c"}]}
    assert [one["request_id"] for one in await anext(stream)] == ["c"]
    found[f"{where}/g1:8081/proxy/decisions"] = forbidden("get", "pods/proxy")
    with pytest.raises(ClusterFailed, match="lacks the right to get pods/proxy"):
        await requests.decisions(
            cluster, [f"{where}/g1:8081/proxy", f"{where}/g2:8081/proxy"], "default/demo", 2, print
        )


async def test_drills_of_all_gateways() -> None:
    """What the gateways found is read through the API server, and one that cannot be asked is left out."""
    where = f"{NAMESPACES}/beamlit-system/pods"
    entry = {"namespace": NAMESPACE, "name": "demo", "reason": "TokenRefused", "message": "Correct the secret."}
    found: dict[str, Any] = {
        where: {"items": [gateway("g1"), gateway("g2")]},
        f"{where}/g1:8081/proxy/drills": {"gateway": "g1", "drills": [entry]},
        f"{where}/g2:8081/proxy/drills": b"404 page not found",
    }
    source = ProxiedGateways(Recorded(found), "beamlit-system")
    newest, older = await source.readings((NAMESPACE, "demo"))
    assert newest == older
    assert [drill.message for drill in newest.drills] == ["Correct the secret."]
    found[f"{where}/g1:8081/proxy/drills"] = forbidden("get", "pods/proxy")
    found[f"{where}/g2:8081/proxy/drills"] = forbidden("get", "pods/proxy")
    unread = (await source.readings((NAMESPACE, "demo")))[0].unread
    assert unread is not None
    assert "kubectl auth can-i get pods --subresource=proxy" in unread.message
    found[where] = {"items": []}
    unread = (await source.readings((NAMESPACE, "demo")))[0].unread
    assert unread is not None
    assert "No gateway runs in namespace beamlit-system" in unread.message
