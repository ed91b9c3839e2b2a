"""Observables: the metrics of engines are known by their names, and others are asked for."""

from typing import Any

import pytest
import yaml

from hooks.api.metrics import MetricSpec
from hooks.simulate.observables import Kind, Observable, UnknownMetric, observables, read_observable
from tests.unit.hooks.simulate.worlds import CPU
from tools.repository import ROOT


def external(name: str) -> MetricSpec:
    """Return a metric of type External."""
    return MetricSpec.model_validate(
        {"type": "External", "external": {"metric": {"name": name}, "target": {"type": "Value", "value": 1}}}
    )


def resource(name: str) -> MetricSpec:
    """Return a metric of type Resource."""
    return MetricSpec.model_validate({**CPU, "resource": {**CPU["resource"], "name": name}})


def known(metric: MetricSpec, **given: str) -> Observable:
    """Return the observable of one metric."""
    (one,) = observables([metric], {name: read_observable(text) for name, text in given.items()}, has_cache=True)
    return one


def documented() -> list[Any]:
    """Return the metrics of the configurations in the chapter about the quickest way."""
    page = (ROOT / "docs/metrics.md").read_text(encoding="utf-8").split("## Sources")[0]
    blocks = [one.split("```")[0] for one in page.split("```yaml\n")[1:]]
    configs = [one["offloadingConfig"] for block in blocks for one in yaml.safe_load_all(block)]
    return [metric for config in configs for metric in config["metrics"]]


@pytest.mark.parametrize("metric", documented(), ids=lambda one: one["pods"]["metric"]["name"])
def test_metrics_of_the_documentation(metric: Any) -> None:
    """The metrics of engines that the documentation leads with are known by their names."""
    assert known(MetricSpec.model_validate(metric)).kind in (Kind.WAITING, Kind.CACHE)


def test_names() -> None:
    """A metric of cpu is known by its type, and a quantile of the time to first token by its expression."""
    assert known(resource("cpu")) == Observable(Kind.CPU)
    name = "histogram_quantile(0.95, sum by (le) (rate(vllm:time_to_first_token_seconds_bucket[1m])))"
    assert known(external(name)) == Observable(Kind.FIRST_TOKEN, 0.95)


@pytest.mark.parametrize(
    ("text", "observable"),
    [
        ("waiting", Observable(Kind.WAITING)),
        ("cpu", Observable(Kind.CPU)),
        ("ttft-p90", Observable(Kind.FIRST_TOKEN, 0.9)),
        ("ttft-p99.9", Observable(Kind.FIRST_TOKEN, 0.999)),
    ],
)
def test_what_is_given(text: str, observable: Observable) -> None:
    """What a metric is may be given."""
    assert known(external("depth"), depth=text) == observable


@pytest.mark.parametrize("text", ["", "ttft", "ttft-p", "queue", "ttft-p100"])
def test_what_cannot_be_read(text: str) -> None:
    """A word that names nothing is refused with those that do."""
    with pytest.raises(UnknownMetric, match="must be waiting, running, cache, cpu, or ttft-p90"):
        read_observable(text)


def test_what_is_not_known() -> None:
    """A metric whose name tells nothing, one that follows no requests, and one that is not there are refused."""
    with pytest.raises(UnknownMetric, match="what the metric depth follows: say it with --metric 'depth=waiting'"):
        known(external("depth"))
    with pytest.raises(UnknownMetric, match="the metric memory does not follow requests"):
        known(resource("memory"))
    with pytest.raises(UnknownMetric, match=r"there is no metric other: the metrics are depth\."):
        known(external("depth"), depth="cpu", other="cpu")
    with pytest.raises(UnknownMetric, match="the metric cpu of type Resource can only be cpu"):
        known(resource("cpu"), cpu="waiting")
    with pytest.raises(UnknownMetric, match="is a part of the cache: say with --cache-tokens"):
        observables([external("vllm:kv_cache_usage_perc")], {}, has_cache=False)
