"""Metrics from the API server: requests, samples made of the responses, and reasons where there is no response."""

import asyncio
import shutil
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from kubernetes.aio.config import incluster_config

from hooks import gatherer, reasons
from hooks.gatherer import gather
from hooks.kube.quantities import parse
from hooks.metrics import Sources, installed, podlists
from hooks.metrics.installed import open_sources
from hooks.observation.observation import InstallDefaults
from hooks.observation.readings import Reading, Readings, Sample
from hooks.protocol import SyncRequest
from hooks.settings import MetricInformer
from hooks.telemetry import Metrics
from tests.builders import DEFAULTS, NAMESPACE, REMOTE, Json, model_deployment, request_body, workload
from tests.deadlines import NEVER, SECONDS
from tests.integration.apiserver import UNSERVED, ApiServer, Scripted
from tests.integration.servers import until
from tests.metric_responses import (
    CPU,
    CUSTOM,
    EXTERNAL,
    PODS_PATH,
    USAGE_PATH,
    custom_value,
    external_metric,
    group,
    object_metric,
    pod,
    pod_list,
    pods_metric,
    status,
    usage,
    usage_list,
)
from tests.processes import self_signed

TOKEN = "canary-of-the-token"
TIME = datetime(2026, 3, 1, 11, 59, 50, tzinfo=UTC)


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Start a scripted API server with one pod and its usage, and set KUBECONFIG for it."""
    api = ApiServer()
    api.scripted[PODS_PATH] = Scripted(pod_list([pod("demo-0")]))
    api.scripted[USAGE_PATH] = Scripted(usage_list([usage("demo-0")]))
    api.start()
    content = {
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"http://127.0.0.1:{api.port}/"}}],
        "users": [{"name": "x", "user": {"token": TOKEN}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    yield api
    api.stop()


@asynccontextmanager
async def opened(**settings: Any) -> AsyncIterator[tuple[Sources, Metrics]]:
    """Open the sources of an installation with the metrics they count in."""
    metrics = Metrics()
    async with open_sources(MetricInformer.model_validate(settings), metrics) as sources:
        yield sources, metrics


def sync_request(*metrics: Json, related: Json | None = None, **spec: Any) -> SyncRequest:
    """Return a sync of a ModelDeployment with these metrics, which adopts the Deployment `demo`."""
    item = model_deployment(**{"offloadingConfig": {"remoteBackend": REMOTE, "metrics": list(metrics)}} | spec)
    return SyncRequest.from_json(request_body(item, related=[workload() if related is None else related]))


async def readings(sources: Sources, *metrics: Json, **rest: Any) -> Readings:
    """Return the readings that are gathered for these metrics."""
    observation = await gather(sync_request(*metrics, **rest), DEFAULTS, sources)
    assert observation.readings is not None
    return observation.readings


async def only(sources: Sources, metric: Json, **rest: Any) -> Reading:
    """Return the reading of one metric."""
    (reading,) = (await readings(sources, metric, **rest)).metrics
    return reading


def unread(reading: Reading) -> tuple[str, str]:
    """Return reason and message of a reading without samples."""
    assert reading.unread is not None
    assert reading.samples == ()
    assert TOKEN not in reading.unread.message
    return reading.unread.reason, reading.unread.message


async def test_cpu_and_memory_are_one_query_for_a_namespace(api: ApiServer) -> None:
    """Resource and ContainerResource read the same PodMetricsList; the pods are listed from the API server's cache."""
    memory = {"name": "memory", "container": "server", "target": {"type": "AverageValue", "averageValue": "1"}}
    async with opened() as (sources, _):
        found = await readings(sources, CPU, {"type": "ContainerResource", "containerResource": memory})
    window = timedelta(seconds=15.5)
    assert [reading.samples for reading in found.metrics] == [
        (Sample("demo-0", parse(amount), TIME, window, "server"),) for amount in ("250m", "64Mi")
    ]
    assert [one.name for one in found.pods] == ["demo-0"]
    assert found.pods_unread is None
    assert sorted(api.asked) == [f"{PODS_PATH}?limit=500&resourceVersion=0", USAGE_PATH]
    assert set(api.tokens) == {f"Bearer {TOKEN}"}


async def test_pods_are_those_that_the_whole_selector_selects(api: ApiServer) -> None:
    """`matchExpressions` count as `matchLabels` do, in the list of pods and in the query to an adapter."""
    selected = workload()
    selected["spec"]["selector"]["matchExpressions"] = [
        {"key": "track", "operator": "NotIn", "values": ["canary", "beta"]},
        {"key": "on", "operator": "Exists"},
    ]
    labels: Json = {"app": "demo", "on": ""}
    pods = [pod("a", labels), pod("b", labels | {"track": "canary"}), pod("c", {"app": "demo"}), pod("d", {"on": ""})]
    api.scripted[PODS_PATH] = Scripted(pod_list([*pods, pod("e", labels | {"track": "main"})]))
    api.scripted[CUSTOM] = Scripted(group("v1beta2"))
    where = f"{CUSTOM}/v1beta2/namespaces/{NAMESPACE}/pods/*/queue"
    api.scripted[where] = Scripted({"items": [custom_value("a", "3")]})
    async with opened() as (sources, _):
        found = await readings(sources, pods_metric(), related=selected)
    assert [one.name for one in found.pods] == ["a", "e"]
    assert f"{where}?labelSelector=app=demo,on,track+notin+(beta,canary)" in api.asked


async def test_pages_of_pods_are_read_to_the_end(api: ApiServer) -> None:
    """Of a list in pages, the second and later pages are requested by their continue token alone."""

    class Paged(Scripted):
        @property
        def encoded(self) -> bytes:
            last = len([path for path in api.asked if path.startswith(PODS_PATH)]) == 3
            self.body = pod_list([pod(f"p{len(api.asked)}")], "" if last else "next page")
            return super().encoded

    api.scripted[PODS_PATH] = Paged()
    api.scripted[USAGE_PATH] = Scripted(usage_list([]), delay=0.5)
    async with opened() as (sources, _):
        found = await readings(sources, CPU)
    assert len(found.pods) == 3
    first, *rest = [path for path in api.asked if path.startswith(PODS_PATH)]
    assert first.endswith("?limit=500&resourceVersion=0")
    assert rest == [f"{PODS_PATH}?limit=500&continue=next+page"] * 2


async def test_a_list_without_an_end_is_given_up(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of pods with more pages than the bound is refused."""
    monkeypatch.setattr(podlists, "PAGES", 3)
    api.scripted[PODS_PATH] = Scripted(pod_list([], "more"))
    async with opened() as (sources, _):
        found = await readings(sources, CPU)
    assert found.pods_unread is not None
    assert found.pods_unread.reason == reasons.REFUSED
    assert len([path for path in api.asked if path.startswith(PODS_PATH)]) == 3


async def test_models_that_need_no_metrics_make_no_call(api: ApiServer) -> None:
    """A model without metrics, disabled, unmanaged, being deleted or not valid leads to no call."""
    config: Json = {"remoteBackend": REMOTE, "metrics": [CPU]}
    deleted = model_deployment(offloadingConfig=config)
    deleted["metadata"]["deletionTimestamp"] = "2026-03-01T11:59:00Z"
    elsewhere = InstallDefaults(namespaces=frozenset({"other"}))
    async with opened() as (sources, _):
        for item, defaults, asked in (
            (model_deployment(), DEFAULTS, sources),
            (model_deployment(offloadingConfig=None), DEFAULTS, sources),
            (model_deployment(offloadingConfig=config, enabled=False), DEFAULTS, sources),
            (model_deployment(offloadingConfig=config), elsewhere, sources),
            (deleted, DEFAULTS, sources),
            (model_deployment(offloadingConfig=config, model=7), DEFAULTS, sources),
            (model_deployment(offloadingConfig=config), DEFAULTS, None),
        ):
            request = SyncRequest.from_json(request_body(item, related=[workload()]))
            assert (await gather(request, defaults, asked)).readings is None
    assert api.asked == []


async def test_only_what_is_needed_is_asked(api: ApiServer) -> None:
    """Object and External need no pods, and a metric that is not valid is not requested."""
    api.scripted[f"{EXTERNAL}/queue"] = Scripted({"items": []})
    wrong: Json = {"type": "Resource", "resource": {"name": "gpu", "target": {"type": "Utilization"}}}
    other = workload(name="other")
    async with opened() as (sources, _):
        assert (await readings(sources, external_metric(), wrong)).metrics == (Reading(), Reading())
        assert api.asked == [f"{EXTERNAL}/queue"]
        found = await readings(sources, pods_metric(), related=other)
        assert (found.metrics, found.pods, found.pods_unread) == ((Reading(),), (), None)
        assert api.asked == [f"{EXTERNAL}/queue"]


@pytest.mark.parametrize(
    ("served", "used"),
    [
        (group("v1beta1", "v1beta2"), "v1beta1"),
        (group("v1beta2", "v1beta1"), "v1beta2"),
        (group("v1beta1", "v1beta2", preferred="v2"), "v1beta1"),
        (group("v1", "v1beta1"), "v1beta1"),
    ],
)
async def test_the_served_version_of_custom_metrics(api: ApiServer, served: Json, used: str) -> None:
    """The preferred version is used if it is known, else the first that is known."""
    api.scripted[CUSTOM] = Scripted(served)
    items = [custom_value("demo-0", "1500m", version=used), custom_value("demo-1", "2", version=used, window=30)]
    where = f"{CUSTOM}/{used}/namespaces/{NAMESPACE}/pods/*/queue"
    api.scripted[where] = Scripted({"items": items})
    selector = {
        "matchLabels": {"model": "llama"},
        "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a"]}],
    }
    async with opened() as (sources, _):
        reading = await only(sources, pods_metric(selector=selector))
    assert reading.samples == (
        Sample("demo-0", parse("1500m"), TIME, timedelta(seconds=60)),  # what a sample without a window covers
        Sample("demo-1", parse("2"), TIME, timedelta(seconds=30)),
    )
    assert f"{where}?labelSelector=app=demo&metricLabelSelector=model=llama,tier=a" in api.asked


async def test_the_metric_of_an_object(api: ApiServer) -> None:
    """A metric of an object is requested by resource and group in the parent's namespace; the sample has its name."""
    api.scripted[CUSTOM] = Scripted(group("v1beta2"))
    api.scripted["/apis/networking.k8s.io/v1"] = Scripted(
        {
            "resources": [
                {"name": "ingresses", "kind": "Ingress", "namespaced": True},
                {"name": "ingresses/status", "kind": "Ingress", "namespaced": True},
            ]
        }
    )
    where = f"{CUSTOM}/v1beta2/namespaces/{NAMESPACE}/ingresses.networking.k8s.io/it/queue"
    api.scripted[where] = Scripted({"items": [custom_value("IT", "7")]})
    async with opened() as (sources, _):
        reading = await only(sources, object_metric("Ingress", "networking.k8s.io/v1"))
        assert await only(sources, object_metric("Ingress", "networking.k8s.io/v1")) == reading
    assert reading.samples == (Sample("it", parse("7"), TIME, timedelta(seconds=60)),)
    assert len(api.asked) == 3


async def test_the_metric_of_the_namespace(api: ApiServer) -> None:
    """A metric of a Namespace is read of the parent's own one, whatever name is written, as the autoscaler does."""
    api.scripted[CUSTOM] = Scripted(group("v1beta1"))
    where = f"{CUSTOM}/v1beta1/namespaces/{NAMESPACE}/metrics/queue"
    api.scripted[where] = Scripted({"items": [custom_value(NAMESPACE, "7", version="v1beta1")]})
    async with opened() as (sources, _):
        reading = await only(sources, object_metric("Namespace", "v1", name="kube-system"))
    assert [sample.of for sample in reading.samples] == ["kube-system"]


async def test_the_kind_of_an_object_that_cannot_be_asked_for(api: ApiServer) -> None:
    """A kind that is not served, unknown or cluster-wide is refused with a message that says so."""
    api.scripted[CUSTOM] = Scripted(group("v1beta2"))
    api.scripted["/apis/none.example.com/v1"] = UNSERVED
    api.scripted["/api/v1"] = Scripted({"resources": [{"name": "nodes", "kind": "Node", "namespaced": False}]})
    api.scripted["/apis/apps/v1"] = Scripted(b"", 500)
    async with opened() as (sources, _):
        for kind, api_version, reason, words in (
            (
                "X",
                "none.example.com/v1",
                reasons.REFUSED,
                "Nothing serves describedObject.apiVersion none.example.com/v1",
            ),
            ("Service", None, reasons.REFUSED, "no kind Service in describedObject.apiVersion v1"),
            ("Node", "v1", reasons.REFUSED, "Node is not in a namespace"),
            ("X", "../v1", reasons.REFUSED, "'../v1' is none"),
            ("Deployment", "apps/v1", reasons.UNREACHABLE, "status 500"),
        ):
            reason, message = unread(await only(sources, object_metric(kind, api_version)))
            assert (reason, words in message) == (reason, True), message


async def test_external_metrics_are_narrowed_by_their_selector(api: ApiServer) -> None:
    """Each series is a sample with the labels as its name, narrowed by the selector."""
    items = [
        {
            "metricName": "queue",
            "metricLabels": {"b": "1", "a": "2"},
            "timestamp": "2026-03-01T11:59:50Z",
            "value": "3k",
        },
        {"metricName": "queue", "metricLabels": {}, "timestamp": "2026-03-01T11:59:50Z", "value": "1", "window": 0},
        {"metricName": "queue", "timestamp": "yesterday", "value": "1"},
        {"metricName": "queue", "timestamp": "2026-03-01T11:59:50Z", "value": "many"},
    ]
    api.scripted[f"{EXTERNAL}/queue"] = Scripted({"items": items})
    selector = {"matchExpressions": [{"key": "queue", "operator": "In", "values": ["b", "a"]}]}
    async with opened() as (sources, _):
        reading = await only(sources, external_metric(selector=selector))
    assert reading.samples == (
        Sample("a=2,b=1", parse("3k"), TIME, timedelta(seconds=60)),
        Sample("queue", parse("1"), TIME, timedelta(0)),
    )
    assert api.asked == [f"{EXTERNAL}/queue?labelSelector=queue+in+(a,b)"]


@pytest.mark.parametrize("name", ["..", ".", "a/b", "../../../api/v1/secrets", "a%2Fb"])
async def test_a_name_leads_nowhere_else(api: ApiServer, name: str) -> None:
    """A name that would lead to another path is not sent."""
    async with opened() as (sources, _):
        reason, message = unread(await only(sources, external_metric(name)))
    assert (reason, "cannot be asked for" in message) == (reasons.REFUSED, True)
    assert api.asked == []


async def test_a_name_with_anything_else_is_one_segment(api: ApiServer) -> None:
    """A question mark, a number sign and a space are part of the name."""
    api.scripted[f"{EXTERNAL}/a%3Fb%23c%20d%3Ae"] = Scripted({"items": []})
    async with opened() as (sources, _):
        assert await only(sources, external_metric("a?b#c d:e")) == Reading()


@pytest.mark.parametrize(
    "requirement",
    [
        {"key": "a", "operator": "Like", "values": ["x"]},
        {"key": "a", "operator": "In"},
        {"key": "a", "operator": "Exists", "values": ["x"]},
        {"key": "a,b", "operator": "Exists"},
        {"key": "a", "operator": "In", "values": ["x)"]},
    ],
)
async def test_an_invalid_selector_is_refused(api: ApiServer, requirement: Json) -> None:
    """A selector that the API server would refuse or misread is not sent."""
    async with opened() as (sources, _):
        reason, message = unread(await only(sources, external_metric(selector={"matchExpressions": [requirement]})))
    assert (reason, message.startswith("The selector of the metric cannot be used: ")) == (reasons.REFUSED, True)
    assert api.asked == []


TROUBLE = [
    (UNSERVED, reasons.NOT_SERVED, "Nothing in the cluster serves metrics.k8s.io: install metrics-server."),
    (Scripted(status(403), 403), reasons.FORBIDDEN, "Hooks may not read pods in the API group metrics.k8s.io in this"),
    (Scripted(status(401), 401), reasons.FORBIDDEN, "The API server does not accept the credentials of hooks."),
    (Scripted(b"service unavailable", 503), reasons.UNREACHABLE, "What serves metrics.k8s.io is not available"),
    (Scripted(status(504), 504), reasons.TIMED_OUT, "metrics.k8s.io did not respond to the API server in time."),
    (Scripted(status(429), 429), reasons.UNREACHABLE, "metrics.k8s.io responds with status 429."),
    (Scripted(status(400), 400), reasons.REFUSED, "metrics.k8s.io refuses the request with status 400."),
    (Scripted(b"", 302, headers={"location": "/"}), reasons.UNREACHABLE, "metrics.k8s.io responds with status 302."),
    (Scripted(b"<html>"), reasons.UNREACHABLE, "metrics.k8s.io responds with something that is no JSON object."),
    (Scripted(b"[]"), reasons.UNREACHABLE, "metrics.k8s.io responds with something that is no JSON object."),
    (Scripted(b"{}", headers={"content-encoding": "gzip"}), reasons.UNREACHABLE, "an encoding that was not asked for"),
    (Scripted(b"{}", headers={"content-length": "9"}), reasons.UNREACHABLE, "its response broke off"),
    (Scripted(delay=NEVER), reasons.TIMED_OUT, "metrics.k8s.io did not respond in time"),
]


@pytest.mark.parametrize(("response", "reason", "words"), TROUBLE, ids=[words[-30:] for _, _, words in TROUBLE])
async def test_trouble_has_a_reason_and_a_sentence(
    api: ApiServer, response: Scripted, reason: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure has a reason and a sentence that says what to change, and does not keep the pods from being listed."""
    api.scripted[USAGE_PATH] = response
    if response.delay:
        monkeypatch.setattr(installed, "CLUSTER_SECONDS", 2.0)
    async with opened() as (sources, _):
        found = await readings(sources, CPU)
    stated, message = unread(found.metrics[0])
    assert (stated, words in message) == (reason, True), message
    assert [one.name for one in found.pods] == ["demo-0"]


async def test_pods_that_may_not_be_listed(api: ApiServer) -> None:
    """Samples are read although pods may not be listed."""
    api.scripted[PODS_PATH] = Scripted(status(403), 403)
    async with opened() as (sources, _):
        found = await readings(sources, CPU)
    assert found.pods_unread is not None
    assert found.pods_unread.reason == reasons.FORBIDDEN
    assert "pods of the core API" in found.pods_unread.message
    assert len(found.metrics[0].samples) == 1


async def test_adapters_that_know_no_such_metric(api: ApiServer) -> None:
    """A 404 with a Status object means that there is no sample, not that nothing serves the group."""
    api.scripted[CUSTOM] = Scripted(group("v1beta2"))
    api.scripted[f"{CUSTOM}/v1beta2/namespaces/{NAMESPACE}/pods/*/queue"] = Scripted(status(404), 404)
    api.scripted[f"{EXTERNAL}/queue"] = Scripted(status(404), 404)
    async with opened() as (sources, _):
        found = await readings(sources, pods_metric(), external_metric())
    assert [unread(reading) for reading in found.metrics] == [
        (reasons.NO_SAMPLE, "custom.metrics.k8s.io knows no metric 'queue' of pods in this namespace."),
        (reasons.NO_SAMPLE, "external.metrics.k8s.io knows no metric 'queue'."),
    ]


@pytest.mark.parametrize("served", [UNSERVED, Scripted(group("v9"))])
async def test_without_an_adapter(api: ApiServer, served: Scripted) -> None:
    """Without the group, or with unknown versions only, the message says what to install."""
    api.scripted[CUSTOM] = served
    async with opened() as (sources, _):
        found = await readings(sources, pods_metric(), object_metric("Service"))
    for reading in found.metrics:
        reason, message = unread(reading)
        assert (reason, "prometheus-adapter" in message) == (reasons.NOT_SERVED, True)


async def test_a_list_that_is_too_large_is_read_in_pages(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list from the API server's cache that is too large is given up, and requested again in pages."""
    monkeypatch.setattr(podlists, "PAGE_BYTES", 1000)
    pods = [pod(f"demo-{number}") for number in range(10)]

    class FromCache(Scripted):
        @property
        def encoded(self) -> bytes:
            self.body = pod_list(pods if "resourceVersion" in api.asked[-1] else pods[:1])
            return super().encoded

    api.scripted[PODS_PATH] = FromCache()
    api.scripted.pop(USAGE_PATH)
    async with opened() as (sources, _):
        found = await readings(sources, CPU)
    assert [one.name for one in found.pods] == ["demo-0"]
    assert api.asked == [f"{PODS_PATH}?limit=500&resourceVersion=0", f"{PODS_PATH}?limit=500"]


async def test_a_response_that_is_too_large(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of pods that is too large even in pages is refused."""
    monkeypatch.setattr(podlists, "PAGE_BYTES", 100)
    async with opened() as (sources, _):
        found = await readings(sources, CPU)
    assert found.pods_unread is not None
    assert found.pods_unread.reason == reasons.REFUSED


async def test_a_large_list_is_read(api: ApiServer) -> None:
    """Five thousand pods in one response are read."""
    api.scripted[PODS_PATH] = Scripted(pod_list(pod(f"demo-{number}") for number in range(5000)))
    async with opened() as (sources, _):
        found = await readings(sources, CPU)
    assert len(found.pods) == 5000


async def test_what_arrived_by_the_deadline_is_used(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A slow source costs its own metric only, and the call goes on for the next sync."""
    monkeypatch.setattr(gatherer, "DEADLINE_SECONDS", 1.5)
    api.scripted[f"{EXTERNAL}/queue"] = Scripted({"items": []}, delay=3)
    async with opened() as (sources, _):
        first = await readings(sources, external_metric(), CPU)
        assert unread(first.metrics[0])[0] == reasons.TIMED_OUT
        assert len(first.metrics[1].samples) == 1
        monkeypatch.setattr(gatherer, "DEADLINE_SECONDS", SECONDS)
        assert await only(sources, external_metric()) == Reading()
    assert api.asked.count(f"{EXTERNAL}/queue") == 1


async def test_pods_that_do_not_come_by_the_deadline(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods that do not come by the deadline have the reason TimedOut."""
    monkeypatch.setattr(gatherer, "DEADLINE_SECONDS", 0.3)
    api.scripted[PODS_PATH] = Scripted(pod_list([]), delay=NEVER)
    async with opened() as (sources, _):
        found = await readings(sources, CPU)
    assert found.pods_unread is not None
    assert found.pods_unread.reason == reasons.TIMED_OUT


async def test_no_api_server_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an API server hooks start, and the message says what to set."""
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST"):
        monkeypatch.delenv(name, raising=False)
    async with opened() as (sources, _):
        found = await readings(sources, CPU, pods_metric(), external_metric())
    assert {unread(reading) for reading in found.metrics} == {
        (reasons.UNREACHABLE, "Hooks know no API server: run them in a cluster, or set KUBECONFIG.")
    }
    assert found.pods_unread == found.metrics[0].unread


@pytest.mark.parametrize("content", ["", "a: b", "clusters: 1"])
async def test_a_file_that_is_no_kubeconfig(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    """Hooks start with a kubeconfig that cannot be used, and the message names their log."""
    (tmp_path / "broken").write_text(content)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "broken"))
    async with opened() as (sources, _):
        reason, message = unread(await only(sources, CPU))
    assert (reason, "their log says why" in message) == (reasons.UNREACHABLE, True)


async def test_an_api_server_that_is_not_there(api: ApiServer) -> None:
    """An API server that is not there gives a reason at once, and gets no request for each sync."""
    api.stop()
    async with opened() as (sources, metrics):
        for _ in range(50):
            reason, message = unread(await only(sources, CPU))
            assert (reason, "cannot be connected to" in message) == (reasons.UNREACHABLE, True)
        assert requests(metrics, "metrics.k8s.io", "error") == 1
        assert requests(metrics, "pods", "error") == 1


def requests(metrics: Metrics, api: str, code: str = "200") -> float:
    """Return the number of requests to an API with an outcome."""
    return metrics.registry.get_sample_value("beamlit_hooks_source_requests_total", {"api": api, "code": code}) or 0


async def test_a_thousand_syncs_ask_once(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand syncs at the same time make one request for each distinct query."""
    monkeypatch.setattr(gatherer, "DEADLINE_SECONDS", NEVER)  # how long it takes is another question
    monkeypatch.setattr(installed, "CLUSTER_SECONDS", NEVER)
    api.scripted[USAGE_PATH] = Scripted(usage_list([usage("demo-0")]), delay=0.2)
    for number in range(10):
        api.scripted[f"{EXTERNAL}/queue{number}"] = Scripted({"items": []}, delay=0.1)
    async with opened(resolutionSeconds=300) as (sources, metrics):
        found = await asyncio.gather(
            *(readings(sources, CPU, external_metric(f"queue{number % 10}")) for number in range(1000))
        )
        assert {len(one.metrics[0].samples) for one in found} == {1}
        assert {one.metrics[1].unread for one in found} == {None}
        assert len(api.asked) == 12
        await asyncio.gather(*(readings(sources, CPU) for _ in range(100)))
        assert len(api.asked) == 12
        assert (
            metrics.registry.get_sample_value(
                "beamlit_hooks_metric_reads_total", {"api": "metrics.k8s.io", "by": "flight"}
            )
            == 999
        )
        assert (
            metrics.registry.get_sample_value(
                "beamlit_hooks_metric_reads_total", {"api": "metrics.k8s.io", "by": "cache"}
            )
            == 100
        )


async def test_a_response_is_requested_again_after_its_time(api: ApiServer) -> None:
    """A response is used for `resolutionSeconds`, and requested again after that."""
    async with opened(resolutionSeconds=1) as (sources, _):
        async with asyncio.timeout(SECONDS):
            while api.asked.count(USAGE_PATH) < 3:
                await readings(sources, CPU)
                await asyncio.sleep(0.05)
    async with opened(resolutionSeconds=300) as (sources, _):
        for _ in range(3):
            await readings(sources, CPU)
        assert api.asked.count(USAGE_PATH) == 4


async def test_a_source_that_hangs_delays_only_the_first_syncs(api: ApiServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """An adapter that never responds delays the first syncs only, and neither another API nor another namespace."""
    monkeypatch.setattr(installed, "CLUSTER_SECONDS", 2.0)
    for number in range(200):
        api.scripted[f"{EXTERNAL}/queue{number}"] = Scripted(delay=NEVER)
    async with opened() as (sources, _):
        first = await asyncio.gather(*(only(sources, external_metric(f"queue{number}")) for number in range(20)))
        assert {unread(reading)[0] for reading in first} == {reasons.TIMED_OUT}
        for number in range(20, 200):
            assert unread(await only(sources, external_metric(f"queue{number}")))[0] == reasons.TIMED_OUT
            assert len((await only(sources, CPU)).samples) == 1
    assert len([path for path in api.asked if path.startswith(EXTERNAL)]) <= 22


async def test_nothing_is_left_when_hooks_end(api: ApiServer) -> None:
    """When the sources are closed all their calls end, also those that a caller waits for."""
    api.scripted[USAGE_PATH] = Scripted(delay=NEVER)
    before = asyncio.all_tasks()
    async with opened() as (sources, _):
        waiting = asyncio.create_task(readings(sources, CPU))
        await until(lambda: USAGE_PATH in api.asked)
        waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert asyncio.all_tasks() == before


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_the_identity_of_a_pod(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In a cluster hooks use the mounted authority and token, also after the kubelet has replaced the token, and no
    proxy of the environment.
    """
    certificate, key = self_signed(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ApiServer(context)
    for name in "abcdef":
        server.scripted[f"{EXTERNAL}/{name}"] = Scripted({"items": []})
    server.start()
    token = tmp_path / "token"
    token.write_text("one\n")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "localhost")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:1")
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(token))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(certificate))
    start: Any = incluster_config.InClusterConfigLoader.__init__

    def impatient(self: Any, *words: Any, **rest: Any) -> None:
        start(self, *words, **rest)
        self._token_refresh_period = timedelta(0)

    monkeypatch.setattr(incluster_config.InClusterConfigLoader, "__init__", impatient)
    try:
        async with opened() as (sources, _):
            assert await only(sources, external_metric("a")) == Reading()
            token.write_text("two")
            assert await only(sources, external_metric("b")) == Reading()
            token.write_text(f"{TOKEN}\nx: y")
            assert unread(await only(sources, external_metric("c")))[1].endswith("cannot be sent in a header field.")
            token.write_text("")
            assert unread(await only(sources, external_metric("d"))) == (
                reasons.FORBIDDEN,
                "The credentials of hooks for the API server cannot be read.",
            )
    finally:
        server.stop()
    assert [value.split()[1] for value in server.tokens] == ["one", "two"]


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize(
    ("cluster", "words"),
    [
        ({}, "its certificate is not accepted"),
        ({"insecure-skip-tls-verify": True}, ""),
        ({"certificate-authority": "ca.pem"}, "its certificate is not accepted"),
        ({"certificate-authority": "ca.pem", "tls-server-name": "localhost"}, ""),
        ({"insecure-skip-tls-verify": True, "proxy-url": "http://127.0.0.1:1"}, "cannot be connected to"),
    ],
)
async def test_the_cluster_of_a_kubeconfig(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cluster: Json, words: str
) -> None:
    """A kubeconfig may name an authority, the name in the certificate, a proxy, and a client certificate."""
    certificate, key = self_signed(tmp_path)
    (tmp_path / "ca.pem").write_bytes(certificate.read_bytes())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    server = ApiServer(context)
    server.scripted[f"{EXTERNAL}/queue"] = Scripted({"items": []})
    server.start()
    if "certificate-authority" in cluster:
        cluster = cluster | {"certificate-authority": str(tmp_path / "ca.pem")}
    content = {
        "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": f"https://127.0.0.1:{server.port}", **cluster}}],
        "users": [{"name": "x", "user": {"client-certificate": str(certificate), "client-key": str(key)}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
    }
    (tmp_path / "kubeconfig").write_text(yaml.safe_dump(content))
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "kubeconfig"))
    try:
        async with opened() as (sources, _):
            reading = await only(sources, external_metric())
        assert words in unread(reading)[1] if words else reading == Reading()
    finally:
        server.stop()
    assert set(server.tokens) <= {""}
