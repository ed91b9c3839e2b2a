"""Examples of metrics in the docs, each run against a server that has the metric: pods, Prometheus."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import pytest
import yaml

from hooks.api.metrics import MetricSpec
from hooks.gatherer import gather
from hooks.metrics.installed import open_sources
from hooks.observation.observation import Observation
from hooks.offloading.measures import Measured, measure_all
from hooks.protocol import SyncRequest
from hooks.telemetry import Metrics
from tests.builders import DEFAULTS, NAMESPACE, REMOTE, Json, model_deployment, request_body, workload
from tests.engine import Engine, exposition, informer
from tests.integration.apiserver import ApiServer, Scripted, kubeconfig
from tests.metric_responses import PODS_PATH, pod, pod_list
from tests.prometheus import Prometheus, informer_of, series
from tools.repository import ROOT


def examples(path: str) -> list[Json]:
    """Return the YAML documents on a page, those of specifications without their `spec`."""
    page = (ROOT / path).read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    documents = [one for block in blocks for one in yaml.safe_load_all(block) if isinstance(one, dict)]
    return [one["spec"] if set(one) == {"spec"} else one for one in documents]


OF_PODS: Final = [
    (path, one["offloadingConfig"])
    for path in ("README.md", "docs/metrics.md")
    for one in examples(path)
    if "metricSource" in one.get("offloadingConfig", {})
]
"""Examples with pods as their source."""
PAGES: Final = {name: exposition(name) for name in ("vllm", "sglang", "llamacpp")}


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ApiServer]:
    """Start an API server, and set KUBECONFIG for it."""
    api = ApiServer()
    api.start()
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path, api.port, "word")))
    yield api
    api.stop()


def test_there_are_examples() -> None:
    """The README leads with the queue of vLLM, and the page on metrics has the gauges of all engines."""
    named = [(path, metric["pods"]["metric"]["name"]) for path, config in OF_PODS for metric in config["metrics"]]
    assert named[0] == ("README.md", "vllm:num_requests_waiting")
    assert {name for path, name in named if path == "docs/metrics.md"} == {
        "vllm:num_requests_waiting",
        "vllm:kv_cache_usage_perc",
        "sglang:num_queue_reqs",
        "llamacpp:requests_deferred",
    }


@pytest.mark.parametrize(("path", "config"), OF_PODS, ids=str)
async def test_an_example_of_pods(api: ApiServer, path: str, config: Json) -> None:
    """An example reads the page of its engine, idle as below its target and under load as at it."""
    (metric,) = config["metrics"]
    engine_name = metric["pods"]["metric"]["name"].partition(":")[0]
    with Engine.running() as engine:
        ports = [{"name": "metrics", "containerPort": engine.port}]
        item = pod("demo-0")
        item["spec"]["containers"][0]["ports"] = ports
        item["status"]["podIP"] = "127.0.0.1"
        api.scripted[PODS_PATH] = Scripted(pod_list([item]))
        parent = model_deployment(offloadingConfig={"remoteBackend": REMOTE, **config})
        request = SyncRequest.from_json(request_body(parent, related=[workload(ports=ports)]))
        for page, reached in ((PAGES[engine_name], True), (_idle(PAGES[engine_name]), False)):
            engine.serve(page)
            async with open_sources(informer("kubernetes"), Metrics()) as sources:
                observation = await gather(request, DEFAULTS, sources)
            (measured,) = measure_all(
                _specs(observation), observation.readings, ready_replicas=1, now=datetime.now(UTC)
            )
            assert isinstance(measured, Measured), (path, measured)
            assert measured.is_reached is reached


def _specs(observation: Observation) -> tuple[MetricSpec, ...]:
    config = observation.read_spec().offloading_config
    assert config is not None
    return config.metrics


def _idle(page: bytes) -> bytes:
    """Return the page of an engine without requests: each gauge that is no fact about the process is 0."""
    return re.sub(rb"(?m)^((?:vllm|sglang|llamacpp):[^\n]*) \S+$", rb"\1 0.0", page)


OF_PROMETHEUS: Final = [
    metric for one in examples("docs/metrics.md") if set(one) == {"metrics"} for metric in one["metrics"]
]
"""Metrics that are read from Prometheus."""
SERIES: Final = [
    series("vllm:num_requests_waiting", 12, namespace=NAMESPACE, pod="demo-0", model_name="llama"),
    series("vllm:kv_cache_usage_perc", 0.97, namespace=NAMESPACE, pod="demo-0"),
    *(
        series("vllm:time_to_first_token_seconds_bucket", 100, namespace=NAMESPACE, pod="demo-0", le=bound)
        for bound in ("0.5", "+Inf")
    ),
]


@pytest.mark.xdist_group("prometheus")
async def test_the_examples_of_prometheus(api: ApiServer, tmp_path: Path) -> None:
    """Each example for Prometheus is a query that a real server responds to, with the series of vLLM."""
    item = pod("demo-0")
    api.scripted[PODS_PATH] = Scripted(pod_list([item]))
    server = Prometheus(tmp_path, SERIES)
    try:
        settings = informer_of(server.address, namespaceLabel="namespace")
        parent = model_deployment(offloadingConfig={"remoteBackend": REMOTE, "metrics": OF_PROMETHEUS})
        request = SyncRequest.from_json(request_body(parent, related=[workload()]))
        async with open_sources(settings, Metrics()) as sources:
            observation = await gather(request, DEFAULTS, sources)
        assert observation.readings is not None
        found = [
            (str(one.samples[0].value) if one.samples else one.unread and one.unread.reason)
            for one in observation.readings.metrics
        ]
    finally:
        server.stop()
    # The histogram stands still, so its quantile is NaN: the query is one that the server takes.
    assert found == ["12", "NotANumber", "970m"]
