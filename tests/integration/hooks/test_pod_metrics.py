"""Metrics from the pods themselves: which pods are asked for what, and what becomes of every response."""

import asyncio
import gzip
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from hooks import reasons
from hooks.clients.pods import OF_NAMESPACE, PAGE_BYTES, PodClient
from hooks.explain import explain
from hooks.explain.document import as_document
from hooks.explain.text import as_text
from hooks.gatherer import gather
from hooks.metrics import Sources, installed, pod_metrics
from hooks.metrics.installed import open_sources
from hooks.observation.observation import Observation
from hooks.observation.readings import Reading
from hooks.offloading.measures import Missing, measure_all
from hooks.protocol import SyncRequest
from hooks.settings import MetricInformer
from hooks.telemetry import Metrics
from program.addresses import AddressRules
from tests.builders import DEFAULTS, NAMESPACE, NOW, REMOTE, Json, model_deployment, request_body, service, workload
from tests.deadlines import NEVER
from tests.engine import LOOPBACK, Engine, Page, exposition, informer
from tests.integration.apiserver import UNSERVED, ApiServer, Scripted, kubeconfig
from tests.metric_responses import CPU, CUSTOM, PODS_PATH, USAGE_PATH, pod_list, pods_metric, usage, usage_list
from tools.ports import free_port

QUEUE = "vllm:num_requests_waiting"


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Start an API server without metrics APIs, and set KUBECONFIG for it."""
    api = ApiServer()
    api.scripted[CUSTOM] = UNSERVED
    api.start()
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, api.port, "word")))
    yield api
    api.stop()


@pytest.fixture
def engine() -> Iterator[Engine]:
    """Start a server with vLLM's page."""
    with Engine.running(exposition("vllm")) as engine:
        yield engine


def pod(name: str, port: int, address: str = "127.0.0.1", **fields: Any) -> Json:
    """Return a ready pod of the workload `demo` with one declared port."""
    spec = {"containers": [{"name": "server", "ports": [{"name": "http", "containerPort": port}]}]}
    status = {"phase": "Running", "podIP": address, "conditions": [{"type": "Ready", "status": "True"}]}
    item: Json = {"metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "demo"}}}
    return item | {"spec": spec | fields.pop("spec", {}), "status": status | fields.pop("status", {})} | fields


def lists(api: ApiServer, *pods: Json) -> None:
    """Let the API server list these pods."""
    api.scripted[PODS_PATH] = Scripted(pod_list(pods))


@asynccontextmanager
async def opened(settings: MetricInformer | None = None) -> AsyncIterator[tuple[Sources, Metrics]]:
    """Open the sources of an installation with the metrics they count in."""
    metrics = Metrics()
    async with open_sources(settings or informer(), metrics) as sources:
        yield sources, metrics


def request(*metrics: Json, related: tuple[Json, ...] = (), port: int = 8000, **config: Any) -> SyncRequest:
    """Return a sync of a ModelDeployment with these metrics, whose workload declares a port."""
    spec = config.pop("spec", {})
    config = {"remoteBackend": REMOTE, "metrics": list(metrics), **config}
    adopted = workload(ports=[{"name": "http", "containerPort": port}])
    parent = model_deployment(offloadingConfig=config, **spec)
    return SyncRequest.from_json(request_body(parent, related=[adopted, *related]))


async def observed(sources: Sources, *metrics: Json, **rest: Any) -> Observation:
    """Return what is gathered for a ModelDeployment; its source of metrics is its pods."""
    config = {"metricSource": {"type": "pods", **rest.pop("source", {})}, **rest}
    return await gather(request(*metrics, **config), DEFAULTS, sources)


async def read(sources: Sources, *metrics: Json, **rest: Any) -> tuple[Reading, ...]:
    """Return the readings of metrics."""
    readings = (await observed(sources, *(metrics or (pods_metric(QUEUE),)), **rest)).readings
    assert readings is not None
    return readings.metrics


def values(*readings: Reading) -> list[tuple[str, str]]:
    """Return pods and their values."""
    assert all(reading.unread is None for reading in readings), readings
    return [(sample.of, str(sample.value)) for reading in readings for sample in reading.samples]


def unread(readings: tuple[Reading, ...]) -> tuple[str, str]:
    """Return reason and message of the only reading, which has no samples."""
    (reading,) = readings
    assert reading.samples == ()
    assert reading.unread is not None, "nothing is wrong"
    return reading.unread.reason, reading.unread.message


async def test_the_gauges_of_all_pods(api: ApiServer, engine: Engine) -> None:
    """Each ready pod is asked once for all metrics together, and each of its values is a sample of that time."""
    with Engine.running(exposition("vllm").replace(b"} 12.0", b"} 7.0")) as other:
        lists(api, pod("b", other.port), pod("a", engine.port))
        before = datetime.now(UTC)
        async with opened() as (sources, metrics):
            source = {"port": "http"}
            queue, cache = await read(
                sources, pods_metric(QUEUE), pods_metric("vllm:kv_cache_usage_perc"), source=source
            )
    assert values(queue) == [("a", "12"), ("b", "7")]
    assert values(cache) == [("a", "972307693n"), ("b", "972307693n")]
    assert all(before <= sample.time <= datetime.now(UTC) and not sample.window for sample in queue.samples)
    assert [path for one in (engine, other) for path, _ in one.asked] == ["/metrics"] * 2
    requests = metrics.registry.get_sample_value
    assert requests("beamlit_hooks_source_requests_total", {"api": "pod_metrics", "code": "200"}) == 2
    assert requests("beamlit_hooks_metric_reads_total", {"api": "pod_metrics", "by": "source"}) == 1
    assert requests("beamlit_hooks_metric_reads_total", {"api": "pod_metrics", "by": "flight"}) == 1


async def test_what_is_sent(api: ApiServer, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has no credentials and no cookie, wants no coding, and goes to no proxy of the environment."""
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    engine.pages["/x?y=1"] = Page(exposition("vllm"), headers={"set-cookie": "canary=1"})
    lists(api, pod("a", engine.port))
    async with opened(informer(resolutionSeconds=1)) as (sources, _):
        for name in (QUEUE, "vllm:num_requests_running"):
            await read(sources, pods_metric(name), source={"port": engine.port, "path": "/x?y=1"})
    assert [path for path, _ in engine.asked] == ["/x?y=1"] * 2
    for _, headers in engine.asked:
        assert headers["accept-encoding"] == "identity"
        assert headers["host"] == f"127.0.0.1:{engine.port}"
        assert not headers.keys() & {"cookie", "authorization", "proxy-authorization"}


async def test_a_response_is_kept(api: ApiServer, engine: Engine) -> None:
    """Within the resolution a page is read once, however many syncs want it; other paths are other pages."""
    engine.pages["/other"] = Page(b"# nothing")
    lists(api, pod("a", engine.port))
    async with opened() as (sources, _):
        source = {"port": engine.port}
        await asyncio.gather(*(read(sources, source=source) for _ in range(20)))
        assert values(*await read(sources, source=source)) == [("a", "12")]
        await read(sources, source={**source, "path": "/other"})
    assert sorted(path for path, _ in engine.asked) == ["/metrics", "/other"]


@pytest.mark.parametrize(
    ("page", "reason", "words"),
    [
        (Page(b"", 404), reasons.NOT_SERVED, "has no such page: correct port or path"),
        (Page(b"", 401), reasons.FORBIDDEN, "wants credentials"),
        (Page(b"", 500), reasons.UNREACHABLE, "responds with status 500"),
        (Page(b"", 301, {"location": "/other"}), reasons.REFUSED, "hooks follow no redirect"),
        (Page(b"", 307, {"location": "http://169.254.169.254/"}), reasons.REFUSED, "hooks follow no redirect"),
        (Page(b"# x\n" * (1 << 19)), reasons.REFUSED, "more than 1 MiB"),
        (
            Page(gzip.compress(exposition("vllm")), headers={"content-encoding": "gzip"}),
            reasons.UNREACHABLE,
            "in an encoding that was not asked for",
        ),
        (
            Page(gzip.compress(b"\n" * (1 << 20)) * 256, headers={"content-encoding": "gzip"}),
            reasons.UNREACHABLE,
            "encoding",
        ),
        (Page(b"short", headers={"content-length": "10"}), reasons.UNREACHABLE, "broke off"),
        (Page(b"# only a comment\n"), reasons.NO_SAMPLE, f"no {QUEUE} is on it"),
        (Page(b"\x00\xff" * 1000), reasons.NO_SAMPLE, f"no {QUEUE} is on it"),
        (Page(f"{QUEUE} NaN\n".encode()), reasons.NOT_A_NUMBER, "NaN"),
        (Page(f"{QUEUE}{{engine=0}} 1\n".encode()), reasons.REFUSED, "cannot be read"),
        (Page(f"# TYPE {QUEUE} counter\n{QUEUE} 1\n".encode()), reasons.REFUSED, "is a counter: only a gauge"),
    ],
)
async def test_a_page_that_cannot_be_used(api: ApiServer, engine: Engine, page: Page, reason: str, words: str) -> None:
    """A response that is no page with the gauge is a reason with a sentence, never zero; and nothing else is asked."""
    engine.pages["/metrics"] = page
    engine.pages["/other"] = Page(exposition("vllm"))
    lists(api, pod("a", engine.port))
    async with opened() as (sources, _):
        found = unread(await read(sources, source={"port": engine.port}))
    assert found[0] == reason
    assert words in found[1]
    assert [path for path, _ in engine.asked] == ["/metrics"]


async def test_a_page_of_the_largest_size(api: ApiServer, engine: Engine) -> None:
    """A page of exactly 1 MiB is read."""
    line = f"{QUEUE} 3\n".encode()
    engine.serve(b"#" * (PAGE_BYTES - len(line) - 1) + b"\n" + line)
    lists(api, pod("a", engine.port))
    async with opened() as (sources, _):
        assert values(*await read(sources, source={"port": engine.port})) == [("a", "3")]


async def test_a_pod_without_a_response_is_missing(api: ApiServer, engine: Engine) -> None:
    """A pod that refuses connections, and one with an error, have no sample; the others count, and zero is nobody's."""
    closed = free_port()
    with Engine.running() as broken:
        broken.serve(b"", status=503)
        lists(api, pod("a", engine.port), pod("b", broken.port), pod("c", closed))
        async with opened() as (sources, _):
            observation = await observed(sources, pods_metric(QUEUE), source={"port": "http"})
    assert observation.readings is not None
    assert values(*observation.readings.metrics) == [("a", "12")]
    (measured,) = measure_all(
        _metrics(observation), observation.readings, ready_replicas=3, now=datetime.now(UTC), since=None
    )
    assert not isinstance(measured, Missing)
    assert [one.name for one in measured.counted] == ["a"]
    assert {one.name for one in measured.left_out} == {"b", "c"}


def _metrics(observation: Observation) -> tuple[Any, ...]:
    config = observation.read_spec().offloading_config
    assert config is not None
    return config.metrics


@pytest.mark.parametrize("way", ["silent", "slow", "a socket that accepts nothing"])
async def test_a_slow_pod(api: ApiServer, engine: Engine, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """A pod that does not respond in time has no sample, and the samples of the others come nevertheless."""
    monkeypatch.setattr(installed, "POD_SECONDS", 4.0)
    with ExitStack() as stack:
        slow = stack.enter_context(Engine.running())
        port = slow.port
        if way == "silent":
            slow.serve(exposition("vllm"), pause=NEVER)
        elif way == "slow":
            slow.serve(exposition("vllm"), pause=0.2, pieces=1000)
        else:
            listener = stack.enter_context(socket.socket())
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            port = listener.getsockname()[1]
        lists(api, pod("a", port), pod("b", engine.port))
        async with opened() as (sources, _):
            assert values(*await read(sources, source={"port": "http"})) == [("b", "12")]
        lists(api, pod("a", port))
        monkeypatch.setattr(installed, "POD_SECONDS", 0.5)
        async with opened() as (sources, _):
            reason, message = unread(await read(sources, source={"port": "http"}))
    assert reason == reasons.TIMED_OUT
    assert "did not respond in time" in message


async def test_which_pods_are_asked(api: ApiServer, engine: Engine) -> None:
    """Only pods that serve are asked: not one that is not ready, not running, being deleted, or of another workload."""
    conditions = [{"type": "Ready", "status": "False"}]
    others = [
        pod("unready", engine.port, status={"conditions": conditions}),
        pod("failed", engine.port, status={"phase": "Failed"}),
        pod("going", engine.port, metadata={"name": "going", "labels": {"app": "demo"}, "deletionTimestamp": "x"}),
        pod("foreign", engine.port, metadata={"name": "foreign", "labels": {"app": "other"}}),
    ]
    lists(api, *others, pod("a", engine.port))
    async with opened() as (sources, _):
        assert values(*await read(sources, source={"port": engine.port})) == [("a", "12")]
    assert len(engine.asked) == 1


async def test_no_more_than_32_pods(api: ApiServer, engine: Engine) -> None:
    """Of many pods the first 32 by name are asked, always the same."""
    lists(api, *(pod(f"demo-{number:02}", engine.port) for number in reversed(range(40))))
    async with opened() as (sources, _):
        found = values(*await read(sources, source={"port": engine.port}))
    assert [name for name, _ in found] == [f"demo-{number:02}" for number in range(pod_metrics.PODS)]
    assert len(engine.asked) == pod_metrics.PODS == 32


@pytest.mark.parametrize(
    ("fields", "settings", "reason", "words"),
    [
        ({"spec": {"hostNetwork": True}}, {}, reasons.HOST_NETWORK, "on the network of their node"),
        ({"address": "127.0.0.1"}, {"pods": {}}, reasons.REFUSED, "an address that hooks never connect to"),
        ({"address": "127.0.0.2"}, {"pods": {"allowedAddresses": ["127.0.0.1/32"]}}, reasons.REFUSED, "never connect"),
        ({"address": "169.254.169.254"}, {}, reasons.REFUSED, "never connect"),
        ({"address": "fe80::1"}, {}, reasons.REFUSED, "never connect"),
        ({"address": "::ffff:169.254.169.254"}, {}, reasons.REFUSED, "never connect"),
        ({"address": "[::1]"}, {}, reasons.REFUSED, "never connect"),
        ({"address": "localhost"}, {}, reasons.REFUSED, "never connect"),
        ({"address": ""}, {}, reasons.REFUSED, "never connect"),
        ({"spec": {"containers": [{"name": "server"}]}}, {}, reasons.REFUSED, "declares the TCP port"),
        (
            {"spec": {"containers": [{"name": "a", "ports": [{"containerPort": 1, "protocol": "UDP"}]}]}},
            {},
            reasons.REFUSED,
            "declares the TCP port",
        ),
    ],
)
async def test_a_pod_that_is_never_asked(
    api: ApiServer, engine: Engine, fields: Json, settings: Json, reason: str, words: str
) -> None:
    """No connection is made to a node, to an address that the rules refuse, or to a port that nobody declares."""
    for container in fields.get("spec", {}).get("containers", ()):
        for port in container.get("ports", ()):
            port["containerPort"] = engine.port
    lists(api, pod("a", engine.port, **fields))
    async with opened(informer(**settings)) as (sources, _):
        found = unread(await read(sources, source={"port": engine.port}))
    assert found[0] == reason
    assert words in found[1]
    assert engine.asked == []


async def test_an_undeclared_port(api: ApiServer, engine: Engine) -> None:
    """A port of the pod that is open and not declared is not asked; a sidecar's declared port is."""
    with Engine.running(exposition("sglang")) as other:
        lists(api, pod("a", engine.port))
        async with opened() as (sources, _):
            reason, message = unread(await read(sources, source={"port": other.port}))
        assert (reason, str(other.port) in message) == (reasons.REFUSED, True)
        assert other.asked == []
        sidecar = {"name": "m", "restartPolicy": "Always", "ports": [{"name": "metrics", "containerPort": other.port}]}
        lists(api, pod("a", engine.port, spec={"initContainers": [sidecar]}))
        async with opened() as (sources, _):
            metric = pods_metric("sglang:num_queue_reqs")
            assert values(*await read(sources, metric, source={"port": "metrics"})) == [("a", "12")]


async def test_the_port_by_default(api: ApiServer, engine: Engine) -> None:
    """Without a port it is the one behind metricServiceRef, or else the model's own, by number or name."""
    lists(api, pod("a", engine.port))
    name = {"name": "demo-svc", "targetPort": 80}
    by_name = service(ports=[{"port": 80, "targetPort": "http"}])
    for related, spec in (
        ((), {}),
        ((by_name,), {"serviceRef": name}),
        ((service(ports=[{"port": 80, "targetPort": engine.port}]),), {"metricServiceRef": name}),
    ):
        async with opened() as (sources, _):
            assert values(*await read(sources, related=related, spec=spec, port=engine.port)) == [("a", "12")]
    async with opened() as (sources, _):
        reason, message = unread(await read(sources, spec={"serviceRef": name}))
    assert reason == reasons.REFUSED
    assert message.startswith("metricSource has no port, and that of the model is not known: Service demo-svc")


async def test_several_series_of_a_pod(api: ApiServer, engine: Engine) -> None:
    """Several series of a pod are added up, as adapters for custom metrics do; a selector chooses among them."""
    engine.serve(f'{QUEUE}{{engine="0"}} 3\n{QUEUE}{{engine="1"}} 4.5\n')
    lists(api, pod("a", engine.port))
    async with opened() as (sources, _):
        both = pods_metric(QUEUE)
        one = pods_metric(QUEUE, selector={"matchLabels": {"engine": "1"}})
        none = pods_metric(QUEUE, selector={"matchLabels": {"engine": "2"}})
        wrong = pods_metric(QUEUE, selector={"matchExpressions": [{"key": "engine", "operator": "Like"}]})
        source = {"port": engine.port}
        *found, empty, refused = await read(sources, both, one, none, wrong, source=source)
    assert values(*found) == [("a", "7500m"), ("a", "4500m")]
    assert unread((empty,)) == (
        reasons.NO_SAMPLE,
        f"The pods serve a page, and no {QUEUE} with the labels of the selector is on it.",
    )
    assert unread((refused,))[0] == reasons.REFUSED
    assert len(engine.asked) == 1


@pytest.mark.parametrize(
    ("page", "without_traffic"),
    [
        (f'{QUEUE}{{engine="0"}} NaN\n{QUEUE}{{engine="1"}} 2\n', [("a", "2")]),
        (f"{QUEUE} NaN\n", [("a", "0")]),
        (f'{QUEUE}{{engine="0"}} NaN\n{QUEUE}{{engine="1"}} +Inf\n', []),
    ],
)
async def test_a_gauge_without_traffic(
    api: ApiServer, engine: Engine, page: str, without_traffic: list[tuple[str, str]]
) -> None:
    """A gauge that is NaN is no number, and counts as zero while requests are offloaded; an infinity never counts."""
    engine.serve(page)
    lists(api, pod("a", engine.port))
    async with opened() as (sources, _):
        (reading,) = await read(sources, source={"port": engine.port})
    assert unread((reading,))[0] == reasons.NOT_A_NUMBER
    assert [(sample.of, str(sample.value)) for sample in reading.without_traffic] == without_traffic


async def test_a_name_that_is_an_expression(api: ApiServer, engine: Engine) -> None:
    """An expression is refused, and the other metrics of the model are read."""
    lists(api, pod("a", engine.port))
    async with opened() as (sources, _):
        refused, queue = await read(
            sources, pods_metric("max(vllm:num_requests_waiting)"), pods_metric(QUEUE), source={"port": engine.port}
        )
    assert unread((refused,)) == (
        reasons.REFUSED,
        "metric.name must be the name of a gauge, because it is read from the pods themselves.",
    )
    assert values(queue) == [("a", "12")]


async def test_the_type_of_the_installation(api: ApiServer, engine: Engine) -> None:
    """With metricInformer.type pods each model is read so, without any other setting, and other types as ever; without
    either, nothing is."""
    lists(api, pod("a", engine.port))
    api.scripted[USAGE_PATH] = Scripted(usage_list([usage("a")]))
    async with opened() as (sources, _):
        result = await gather(request(pods_metric(QUEUE), CPU, port=engine.port), DEFAULTS, sources)
        assert result.readings is not None
        assert values(*result.readings.metrics) == [("a", "12"), ("a", "250m")]
    async with opened(informer("kubernetes")) as (sources, _):
        result = await gather(request(pods_metric(QUEUE), port=engine.port), DEFAULTS, sources)
        assert result.readings is not None
        assert unread(result.readings.metrics)[0] == reasons.NOT_SERVED
    assert len(engine.asked) == 1


async def test_unknown_pods(api: ApiServer, engine: Engine) -> None:
    """While the pods cannot be listed, the reason is that of the list; without a ready pod there is nothing to ask."""
    api.scripted[PODS_PATH] = Scripted({}, 403)
    async with opened() as (sources, _):
        reason, message = unread(await read(sources, port=engine.port))
    assert reason == reasons.FORBIDDEN
    assert "pods" in message
    lists(api)
    async with opened() as (sources, _):
        assert await read(sources, port=engine.port) == (Reading(),)


async def test_an_engine_that_comes_back(api: ApiServer, engine: Engine) -> None:
    """Once a pod responds again it is read, a failure is remembered for the resolution at most."""
    lists(api, pod("a", engine.port))
    async with opened(informer(resolutionSeconds=1)) as (sources, _):
        engine.stop()
        assert unread(await read(sources, port=engine.port))[0] == reasons.UNREACHABLE
        engine.start()
        while (found := await read(sources, port=engine.port))[0].unread is not None:
            await asyncio.sleep(0.05)
        assert values(*found) == [("a", "12")]


async def test_slow_pods_of_one_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pods of a namespace wait for each other, and those of another namespace do not."""
    monkeypatch.setattr(installed, "POD_SECONDS", NEVER)
    with Engine.running(exposition("vllm")) as engine, Engine.running() as silent:
        silent.serve(b"", pause=NEVER)
        client = PodClient(Metrics(), AddressRules.parse(allowed=[LOOPBACK]), NEVER)
        waiting = [
            asyncio.create_task(client.page("slow", "127.0.0.1", silent.port, "/metrics"))
            for _ in range(OF_NAMESPACE + 8)
        ]
        while len(silent.asked) < OF_NAMESPACE:
            await asyncio.sleep(0.02)
        page = await client.page("quick", "127.0.0.1", engine.port, "/metrics")
        assert page.content == exposition("vllm")
        assert len(silent.asked) == OF_NAMESPACE
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        await client.close()


async def test_explain(api: ApiServer, engine: Engine) -> None:
    """The explanation says where the metric is read, and how it stands to its target."""
    lists(api, pod("a", engine.port))
    async with opened() as (sources, _):
        observation = await observed(sources, pods_metric(QUEUE), port=engine.port)
    explanation = explain(observation, now=datetime.now(UTC))
    where = f"port {engine.port}, path /metrics of each ready pod"
    assert f"read at {where}" in " ".join(as_text(explanation).split())
    assert "(12) / (1 × 1) = 12" in as_text(explanation)
    assert as_document(explanation)["metrics"][0]["pages"] == where
    assert explanation.now > NOW
