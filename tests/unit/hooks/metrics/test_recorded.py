"""Answers of metrics APIs kept in documents: which are about a metric, and what they say."""

from datetime import timedelta
from typing import Any

import pytest
import yaml

from hooks import reasons
from hooks.api.metrics import MetricSpec
from hooks.kube import files
from hooks.kube.selectors import Selector
from hooks.metrics.recorded import Recorded, Unrecognized
from hooks.observation.readings import Reading
from tests.builders import NOW, Json

LATER = "2026-03-01T11:59:30Z"
TARGET = {"type": "Value", "value": 10}


def recorded(text: str) -> Recorded:
    """What a file holds."""
    return Recorded.of(files.parse(text))


def metric(type_: str, **fields: Any) -> MetricSpec:
    """A metric of a specification."""
    field = type_[0].lower() + type_[1:]
    return MetricSpec.model_validate({"type": type_, field: {"target": TARGET, **fields}})


def named(type_: str, name: str = "queue", labels: Json | None = None, **fields: Any) -> MetricSpec:
    """One that is called by name, possibly with a selector."""
    selector = {} if labels is None else {"selector": {"matchLabels": labels}}
    return metric(type_, metric={"name": name, **selector}, **fields)


def values(reading: Reading | None) -> list[tuple[str, str]]:
    """Whose samples there are, and their values."""
    assert reading is not None
    return [(sample.of, str(sample.value)) for sample in reading.samples]


def read(text: str, spec: MetricSpec, namespace: str = "default", **given: Any) -> Reading | None:
    """What a text says of a metric."""
    return recorded(text).reading(spec, namespace, now=NOW, **given)


USAGE = """
{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "items": [
  {"metadata": {"name": "a", "namespace": "default"}, "timestamp": "2026-03-01T11:59:30Z", "window": "30s",
   "containers": [{"name": "server", "usage": {"cpu": "350m", "memory": "64Mi"}}]},
  {"metadata": {"name": "a", "namespace": "other"}, "timestamp": "2026-03-01T11:59:30Z", "window": "30s",
   "containers": [{"name": "server", "usage": {"cpu": "1", "memory": "1Mi"}}]}]}
"""


@pytest.mark.parametrize(("name", "value"), [("cpu", "350m"), ("memory", "64Mi")])
def test_pod_metrics(name: str, value: str) -> None:
    """As kubectl get --raw gives it; of another namespace nothing counts."""
    for spec in (metric("Resource", name=name), metric("ContainerResource", name=name, container="server")):
        found = read(USAGE, spec)
        assert values(found) == [("a", value)]
        assert found is not None
        assert (found.samples[0].container, found.samples[0].window) == ("server", timedelta(seconds=30))
    assert read(USAGE, metric("Resource", name=name), "third") is None


V1BETA1 = """
kind: MetricValueList
apiVersion: custom.metrics.k8s.io/v1beta1
items:
- {describedObject: {kind: Pod, name: a}, metricName: queue, timestamp: 2026-03-01T11:59:30Z, value: "3"}
- {describedObject: {kind: Pod, name: b}, metricName: other, timestamp: 2026-03-01T11:59:30Z, value: "4"}
- {describedObject: {kind: Service, name: a}, metricName: queue, timestamp: 2026-03-01T11:59:30Z, value: "5"}
- {describedObject: {kind: Service, name: b}, metricName: queue, timestamp: 2026-03-01T11:59:30Z, value: "6"}
"""
V1BETA2 = V1BETA1.replace("v1beta1", "v1beta2").replace("metricName: queue", "metric: {name: queue}")


@pytest.mark.parametrize("text", [V1BETA1, V1BETA2])
def test_metric_values(text: str) -> None:
    """Both versions of the API say which metric and which object they are about."""
    assert values(read(text, named("Pods"))) == [("a", "3")]
    described = {"kind": "Service", "name": "a"}
    assert values(read(text, named("Object", describedObject=described))) == [("a", "5")]
    assert read(text, named("Pods"), "other") is None
    assert values(read(text.replace("kind: Pod", "kind: Pod, namespace: other"), named("Pods"), "other")) == [
        ("a", "3")
    ]
    assert read(text, named("Pods", name="third")) is None


@pytest.mark.parametrize(
    ("answer", "asked", "counts"),
    [
        ({"matchLabels": {"verb": "GET"}}, {"verb": "GET"}, True),
        ({"matchLabels": {"verb": "GET"}}, {"verb": "PUT"}, False),
        ({"matchLabels": {"verb": "GET"}}, None, False),
        ({}, {"verb": "GET"}, True),
        ({"matchLabels": {"verb": "not a label"}}, {"verb": "GET"}, False),
    ],
)
def test_selectors_of_metric_values(answer: Json, asked: Json | None, counts: bool) -> None:
    """An answer that says which series it is about is about no others."""
    item = {
        "kind": "MetricValue",
        "metric": {"name": "queue", "selector": answer},
        "describedObject": {"kind": "Pod", "name": "a"},
        "timestamp": LATER,
        "value": "3",
    }
    assert (read(yaml.dump(item), named("Pods", labels=asked)) is not None) is counts


SERIES = """
kind: ExternalMetricValueList
apiVersion: external.metrics.k8s.io/v1beta1
items:
- {metricName: queue, metricLabels: {queue: a}, timestamp: 2026-03-01T11:59:30Z, window: 30, value: "3"}
- {metricName: queue, metricLabels: {queue: b}, timestamp: 2026-03-01T11:59:30Z, value: "4"}
- {metricName: bare, timestamp: 2026-03-01T11:59:30Z, value: "5"}
"""


def test_external_metric_values() -> None:
    """The selector of the metric picks its series; an adapter that gives no labels picked them itself."""
    assert values(read(SERIES, named("External"))) == [("queue=a", "3"), ("queue=b", "4")]
    assert values(read(SERIES, named("External", labels={"queue": "b"}))) == [("queue=b", "4")]
    assert values(read(SERIES, named("External", name="bare", labels={"queue": "b"}))) == [("bare", "5")]
    assert read(SERIES, named("External", labels={"queue": "not a label"})) is None
    assert read(SERIES, named("External", labels={"queue": "c"})) is None


def test_without_a_time() -> None:
    """What was written by hand is of now and momentary, unless it says what time it is about."""
    found = read("kind: ExternalMetricValue\nmetricName: queue\nvalue: 8\n", named("External"))
    assert found is not None
    (sample,) = found.samples
    assert (str(sample.value), sample.time, sample.window) == ("8", NOW, timedelta(0))
    found = read("kind: ExternalMetricValue\nmetricName: queue\nvalue: 8\nwindow: 7\n", named("External"))
    assert found is not None
    assert found.samples[0].window == timedelta(seconds=7)


def answer(result: str, name: str = "queue") -> str:
    """A PrometheusAnswer, its answer as curl prints it."""
    return f'kind: PrometheusAnswer\nmetric: {name}\nanswer: {{"status":"success","data":{result}}}\n'


VECTOR = '{"resultType":"vector","result":[{"metric":{"pod":"a","container":"server"},"value":[1772366370,"3"]}]}'
SCALAR = '{"resultType":"scalar","result":[1772366370,"7"]}'


def test_prometheus() -> None:
    """The document says which metric an answer of /api/v1/query is for; the type says what its values are of."""
    assert values(read(answer(VECTOR), named("Pods"))) == [("a", "3")]
    assert values(read(answer(SCALAR), named("External"))) == [("", "7")]
    described = {"kind": "Service", "name": "front"}
    assert values(read(answer(SCALAR), named("Object", describedObject=described))) == [("front", "7")]
    assert values(read(answer(VECTOR, "cpu"), metric("Resource", name="cpu"))) == [("a", "3")]
    assert read(answer(SCALAR), named("External", name="other")) is None


def test_windows_of_prometheus() -> None:
    """An answer is about as much time as its expression reads, and as the server takes to read it."""
    name = "sum(rate(requests_total[5m]))"
    found = read(answer(SCALAR, name), named("External", name=name), scrape_interval=timedelta(seconds=15))
    assert found is not None
    assert found.samples[0].window == timedelta(seconds=315)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (answer('{"resultType":"matrix","result":[]}'), "The expression is a range"),
        ('kind: PrometheusAnswer\nmetric: queue\nanswer: {"status":"error","error":"parse error"}', "parse error"),
        ("kind: PrometheusAnswer\nmetric: queue", "it has no status success"),
    ],
)
def test_an_answer_without_values(text: str, words: str) -> None:
    """What the server refused is a reason, as when it is asked."""
    found = read(text, named("External"))
    assert found is not None
    assert found.unread is not None
    assert found.unread.reason == reasons.REFUSED
    assert words in found.unread.message


def test_pods() -> None:
    """Pods as a List or a PodList; those of a namespace that the selector picks, None without any of that namespace."""
    items = [{"metadata": {"name": name, "labels": {"app": name}}, "status": {}} for name in ("a", "b")]
    for text in (
        yaml.dump({"kind": "PodList", "apiVersion": "v1", "items": items}),
        yaml.dump({"kind": "List", "items": [item | {"kind": "Pod", "apiVersion": "v1"} for item in items]}),
    ):
        found = recorded(text).pods("default", Selector.of({"app": "b"}))
        assert found is not None
        assert [pod.name for pod in found] == ["b"]
        assert recorded(text).pods("default", Selector.of({"app": "c"})) == ()
        assert recorded(text).pods("other", Selector.of({"app": "b"})) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("just text", "something that is not a Kubernetes object with a kind"),
        ("a: 1", "something that is not a Kubernetes object with a kind"),
        ("kind: Status\nstatus: Failure", "a Status that is neither an object with a name nor a response with metrics"),
    ],
)
def test_what_is_neither(text: str, words: str) -> None:
    """A document that would be ignored is refused instead."""
    with pytest.raises(Unrecognized, match=words):
        recorded(text)
