"""Recorded responses of metrics APIs: which of them are about a metric, and the samples in them."""

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
    """Return the documents of a file."""
    return Recorded.of(files.parse(text))


def metric(type_: str, **fields: Any) -> MetricSpec:
    """Return a metric of a specification."""
    field = type_[0].lower() + type_[1:]
    return MetricSpec.model_validate({"type": type_, field: {"target": TARGET, **fields}})


def named(type_: str, name: str = "queue", labels: Json | None = None, **fields: Any) -> MetricSpec:
    """Return a metric that is identified by a name, and by a selector where labels are given."""
    selector = {} if labels is None else {"selector": {"matchLabels": labels}}
    return metric(type_, metric={"name": name, **selector}, **fields)


def values(reading: Reading | None) -> list[tuple[str, str]]:
    """Return the owner and the value of each sample."""
    assert reading is not None
    return [(sample.of, str(sample.value)) for sample in reading.samples]


def read(text: str, spec: MetricSpec, namespace: str = "default", **options: Any) -> Reading | None:
    """Return the reading of a metric from a text, or None when the text is not about it."""
    return recorded(text).reading(spec, namespace, now=NOW, **options)


USAGE = """
{"kind": "PodMetricsList", "apiVersion": "metrics.k8s.io/v1beta1", "items": [
  {"metadata": {"name": "a", "namespace": "default"}, "timestamp": "2026-03-01T11:59:30Z", "window": "30s",
   "containers": [{"name": "server", "usage": {"cpu": "350m", "memory": "64Mi"}}]},
  {"metadata": {"name": "a", "namespace": "other"}, "timestamp": "2026-03-01T11:59:30Z", "window": "30s",
   "containers": [{"name": "server", "usage": {"cpu": "1", "memory": "1Mi"}}]}]}
"""


@pytest.mark.parametrize(("name", "value"), [("cpu", "350m"), ("memory", "64Mi")])
def test_pod_metrics(name: str, value: str) -> None:
    """A PodMetricsList, as kubectl get --raw prints it, gives usage per container of its own namespace only."""
    for spec in (metric("Resource", name=name), metric("ContainerResource", name=name, container="server")):
        reading = read(USAGE, spec)
        assert values(reading) == [("a", value)]
        assert reading is not None
        assert (reading.samples[0].container, reading.samples[0].window) == ("server", timedelta(seconds=30))
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
    """Values in both versions of custom.metrics.k8s.io count for the metric and the object that they name."""
    assert values(read(text, named("Pods"))) == [("a", "3")]
    described = {"kind": "Service", "name": "a"}
    assert values(read(text, named("Object", describedObject=described))) == [("a", "5")]
    assert read(text, named("Pods"), "other") is None
    assert values(read(text.replace("kind: Pod", "kind: Pod, namespace: other"), named("Pods"), "other")) == [
        ("a", "3")
    ]
    assert read(text, named("Pods", name="third")) is None


@pytest.mark.parametrize(
    ("selector", "labels", "counts"),
    [
        ({"matchLabels": {"verb": "GET"}}, {"verb": "GET"}, True),
        ({"matchLabels": {"verb": "GET"}}, {"verb": "PUT"}, False),
        ({"matchLabels": {"verb": "GET"}}, None, False),
        ({}, {"verb": "GET"}, True),
        ({"matchLabels": {"verb": "not a label"}}, {"verb": "GET"}, False),
    ],
)
def test_selectors_of_metric_values(selector: Json, labels: Json | None, counts: bool) -> None:
    """A value with a selector counts only for a metric with those labels."""
    item = {
        "kind": "MetricValue",
        "metric": {"name": "queue", "selector": selector},
        "describedObject": {"kind": "Pod", "name": "a"},
        "timestamp": LATER,
        "value": "3",
    }
    assert (read(yaml.dump(item), named("Pods", labels=labels)) is not None) is counts


SERIES = """
kind: ExternalMetricValueList
apiVersion: external.metrics.k8s.io/v1beta1
items:
- {metricName: queue, metricLabels: {queue: a}, timestamp: 2026-03-01T11:59:30Z, window: 30, value: "3"}
- {metricName: queue, metricLabels: {queue: b}, timestamp: 2026-03-01T11:59:30Z, value: "4"}
- {metricName: bare, timestamp: 2026-03-01T11:59:30Z, value: "5"}
"""


def test_external_metric_values() -> None:
    """The metric's selector picks its series by their labels; a series without labels counts as selected already."""
    assert values(read(SERIES, named("External"))) == [("queue=a", "3"), ("queue=b", "4")]
    assert values(read(SERIES, named("External", labels={"queue": "b"}))) == [("queue=b", "4")]
    assert values(read(SERIES, named("External", name="bare", labels={"queue": "b"}))) == [("bare", "5")]
    assert read(SERIES, named("External", labels={"queue": "not a label"})) is None
    assert read(SERIES, named("External", labels={"queue": "c"})) is None


def test_without_a_time() -> None:
    """A value without a timestamp is of now, and without a window it is momentary."""
    reading = read("kind: ExternalMetricValue\nmetricName: queue\nvalue: 8\n", named("External"))
    assert reading is not None
    (sample,) = reading.samples
    assert (str(sample.value), sample.time, sample.window) == ("8", NOW, timedelta(0))
    reading = read("kind: ExternalMetricValue\nmetricName: queue\nvalue: 8\nwindow: 7\n", named("External"))
    assert reading is not None
    assert reading.samples[0].window == timedelta(seconds=7)


def document(result: str, name: str = "queue") -> str:
    """Return a document of kind PrometheusAnswer, with a response of Prometheus as curl prints it."""
    return f'kind: PrometheusAnswer\nmetric: {name}\nanswer: {{"status":"success","data":{result}}}\n'


VECTOR = '{"resultType":"vector","result":[{"metric":{"pod":"a","container":"server"},"value":[1772366370,"3"]}]}'
SCALAR = '{"resultType":"scalar","result":[1772366370,"7"]}'


def test_prometheus() -> None:
    """The document names the metric that a response of /api/v1/query is for; the metric's type says whose values they
    are."""
    assert values(read(document(VECTOR), named("Pods"))) == [("a", "3")]
    assert values(read(document(SCALAR), named("External"))) == [("", "7")]
    described = {"kind": "Service", "name": "front"}
    assert values(read(document(SCALAR), named("Object", describedObject=described))) == [("front", "7")]
    assert values(read(document(VECTOR, "cpu"), metric("Resource", name="cpu"))) == [("a", "3")]
    assert read(document(SCALAR), named("External", name="other")) is None


def test_windows_of_prometheus() -> None:
    """The window of a sample from Prometheus is the range of the expression and a scrape interval."""
    name = "sum(rate(requests_total[5m]))"
    reading = read(document(SCALAR, name), named("External", name=name), scrape_interval=timedelta(seconds=15))
    assert reading is not None
    assert reading.samples[0].window == timedelta(seconds=315)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (document('{"resultType":"matrix","result":[]}'), "The expression is a range"),
        ('kind: PrometheusAnswer\nmetric: queue\nanswer: {"status":"error","error":"parse error"}', "parse error"),
        ("kind: PrometheusAnswer\nmetric: queue", "it has no status success"),
    ],
)
def test_a_response_without_values(text: str, words: str) -> None:
    """A recorded refusal of Prometheus is a reason, as when the server itself refuses."""
    reading = read(text, named("External"))
    assert reading is not None
    assert reading.unread is not None
    assert reading.unread.reason == reasons.REFUSED
    assert words in reading.unread.message


def test_pods() -> None:
    """Pods are read from a List or a PodList, those of a namespace that the selector picks; the result is None where
    the file has none of that namespace."""
    items = [{"metadata": {"name": name, "labels": {"app": name}}, "status": {}} for name in ("a", "b")]
    for text in (
        yaml.dump({"kind": "PodList", "apiVersion": "v1", "items": items}),
        yaml.dump({"kind": "List", "items": [item | {"kind": "Pod", "apiVersion": "v1"} for item in items]}),
    ):
        reading = recorded(text).pods("default", Selector.of({"app": "b"}))
        assert reading is not None
        assert [pod.name for pod in reading] == ["b"]
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
def test_a_document_of_another_kind(text: str, words: str) -> None:
    """A document that is neither an object nor a response with metrics is refused, not ignored."""
    with pytest.raises(Unrecognized, match=words):
        recorded(text)
