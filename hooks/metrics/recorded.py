"""Answers of APIs that were kept in documents: pods, and metrics as the metrics APIs or Prometheus give them.

What a metrics API answers is taken as it is: PodMetrics of metrics.k8s.io, MetricValue of custom.metrics.k8s.io,
ExternalMetricValue of external.metrics.k8s.io. A value without a time is of now, and momentary. What Prometheus answers
does not say which metric it is for, so it stands in a document of its own:

    kind: PrometheusAnswer
    metric: queue_depth          # metric.name of the specification; cpu or memory for those
    answer: {"status": "success", "data": …}
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from hooks import reasons
from hooks.api.metrics import (
    ContainerResourceMetric,
    ExternalMetric,
    LabelSelector,
    MetricSpec,
    ObjectMetric,
    PodsMetric,
    ResourceMetric,
)
from hooks.kube.objects import Object
from hooks.kube.pods import Pod
from hooks.kube.selectors import InvalidSelector, Selector
from hooks.kube.unstructured import mapping, text, texts
from hooks.metrics import prometheus, promql, values, vectors
from hooks.observation.readings import Reading, Unread
from hooks.offloading.targets import RESOURCES

DEFAULT_NAMESPACE: Final = "default"
SCRAPE_INTERVAL: Final = timedelta(seconds=60)
NAMESPACE_LABEL: Final = "namespace"
_MAX_SAID: Final = 200

Item = Mapping[str, Any]


class Unrecognized(ValueError):
    """A document that is neither an object with a name nor an answer; the message follows `holds`."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the documents hold."""

    objects: tuple[Object, ...] = ()
    """Everything with a name, each in a namespace."""
    usage: tuple[Item, ...] = ()
    """PodMetrics."""
    values: tuple[Item, ...] = ()
    """MetricValues."""
    series: tuple[Item, ...] = ()
    """ExternalMetricValues."""
    answers: tuple[Item, ...] = ()
    """PrometheusAnswers."""

    @classmethod
    def of(cls, documents: Iterable[Any]) -> Self:
        """Sort documents by what they are.

        Raises:
            Unrecognized: one is neither.
        """
        kept: dict[str, list[Any]] = {
            kind: [] for kind in ("PodMetrics", "MetricValue", "ExternalMetricValue", "PrometheusAnswer", "")
        }
        for item in documents:
            kind = item.get("kind") if isinstance(item, dict) else None
            if not isinstance(kind, str):
                raise Unrecognized("something that is not a Kubernetes object with a kind")
            if kind in kept and kind:
                kept[kind].append(item)
            elif not text(mapping(item, "metadata"), "name"):
                raise Unrecognized(f"a {kind} that is neither an object with a name nor an answer with metrics")
            else:
                metadata = {"namespace": DEFAULT_NAMESPACE, **item["metadata"]}
                kept[""].append(item | {"metadata": metadata})
        return cls(
            tuple(kept[""]),
            tuple(kept["PodMetrics"]),
            tuple(kept["MetricValue"]),
            tuple(kept["ExternalMetricValue"]),
            tuple(kept["PrometheusAnswer"]),
        )

    def pods(self, namespace: str, selector: Selector) -> tuple[Pod, ...] | None:
        """The pods of a namespace that are selected; None when there is no pod of that namespace at all."""
        found = [one for one in self.objects if one["kind"] == "Pod" and one["metadata"]["namespace"] == namespace]
        if not found:
            return None
        return tuple(Pod.of(one) for one in found if selector.matches(texts(one["metadata"], "labels")))

    def reading(
        self,
        metric: MetricSpec,
        namespace: str,
        *,
        now: datetime,
        scrape_interval: timedelta = SCRAPE_INTERVAL,
        namespace_label: str = NAMESPACE_LABEL,
    ) -> Reading | None:
        """What is known of a metric; None when no document is about it.

        Args:
            metric: as specified.
            namespace: where everything that it may be about is.
            now: the time of what has none.
            scrape_interval: the longest one of the Prometheus server.
            namespace_label: what holds the namespace of a series of the Prometheus server.
        """
        match metric.resource or metric.container_resource or metric.pods or metric.object or metric.external:
            case ResourceMetric(name=name) | ContainerResourceMetric(name=name):
                usage = [_timed(one, now) for one in self.usage if _namespace(mapping(one, "metadata")) == namespace]
                if usage and name in RESOURCES:
                    return Reading(values.pod_usage(usage)[RESOURCES.index(name)])
                window = prometheus.usage_expression(name, namespace_label, namespace, scrape_interval)[1]
                return self._answer(metric, name, namespace, window, namespace_label)
            case PodsMetric(metric=named):
                found = [one for one in self.values if _is_of(one, named.name, named.selector, namespace, "Pod")]
            case ObjectMetric(metric=named, described_object=described):
                found = [
                    one
                    for one in self.values
                    if _is_of(one, named.name, named.selector, namespace, described.kind)
                    and text(mapping(one, "describedObject"), "name") == described.name
                ]
            case ExternalMetric(metric=named):
                series = [one for one in self.series if _has_labels(one, named.name, named.selector)]
                if series:
                    return Reading(values.of_series({"items": [_timed(one, now) for one in series]}))
                found = []
            case _:
                return None
        if found:
            return Reading(values.of_objects({"items": [_timed(one, now) for one in found]}))
        return self._answer(metric, named.name, namespace, promql.reach(named.name) + scrape_interval, namespace_label)

    def _answer(
        self, metric: MetricSpec, name: str, namespace: str, window: timedelta, namespace_label: str
    ) -> Reading | None:
        """What Prometheus answered for a metric."""
        document = next((one for one in self.answers if text(one, "metric") == name), None)
        if document is None:
            return None
        answer = dict(mapping(document, "answer"))
        if text(answer, "status") != "success":
            said = text(answer, "error")[:_MAX_SAID] or "it has no status success"
            return Reading(unread=Unread(reasons.REFUSED, f"The answer of Prometheus is an error: {said}."))
        try:
            found = vectors.points(answer)
        except vectors.Unreadable as exc:
            return Reading(unread=Unread(reasons.REFUSED, str(exc)))
        if metric.object is not None:
            return vectors.of_one(found, window, metric.object.described_object.name)
        if metric.external is not None:
            return vectors.of_series(found, window)
        return vectors.of_pods(
            found, window, namespace_label=namespace_label, namespace=namespace, containers=metric.pods is None
        )


def _timed(item: Item, now: datetime) -> dict[str, Any]:
    """The item with a time: what has none is of now, and momentary."""
    if item.get("timestamp"):
        return dict(item)
    momentary = {} if "window" in item else {"windowSeconds": 0}
    return {**momentary, **item, "timestamp": now.isoformat()}


def _namespace(owner: Item) -> str:
    return text(owner, "namespace") or DEFAULT_NAMESPACE


def _is_of(item: Item, name: str, selector: LabelSelector | None, namespace: str, kind: str) -> bool:
    """Whether a MetricValue, of v1beta1 or v1beta2, is of that metric and of an object of that kind."""
    metric, described = mapping(item, "metric"), mapping(item, "describedObject")
    if (text(metric, "name") or text(item, "metricName")) != name or text(described, "kind") != kind:
        return False
    if _namespace(described) != namespace:
        return False
    said = mapping(metric, "selector") or mapping(item, "selector")
    # An adapter may leave out which series it was asked for.
    return not said or _written(said) == _written(_selector(selector))


def _has_labels(item: Item, name: str, selector: LabelSelector | None) -> bool:
    """Whether an ExternalMetricValue is of that metric. An adapter may leave out the labels."""
    labels = texts(item, "metricLabels")
    if text(item, "metricName") != name:
        return False
    try:
        return not labels or Selector.read(_selector(selector)).matches(labels)
    except InvalidSelector:
        return False


def _selector(selector: LabelSelector | None) -> dict[str, Any]:
    """As the API server stores it."""
    if selector is None:
        return {}
    expressions = [
        {"key": one.key, "operator": one.operator, "values": list(one.values)} for one in selector.match_expressions
    ]
    return {"matchLabels": dict(selector.match_labels), "matchExpressions": expressions}


def _written(selector: Item) -> str | None:
    try:
        return str(Selector.read(selector))
    except InvalidSelector:
        return None
