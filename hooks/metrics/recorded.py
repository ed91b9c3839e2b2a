"""Recorded responses: pods, metrics as the metrics APIs or Prometheus return them, and drills of gateways.

Responses of the metrics APIs are taken as they are: PodMetrics of metrics.k8s.io, MetricValue of custom.metrics.k8s.io,
ExternalMetricValue of external.metrics.k8s.io. A value without a time is a momentary one of the present. A response of
Prometheus does not say which metric it is for, so it stands in a document of its own:

    kind: PrometheusAnswer
    metric: queue_depth          # metric.name of the specification; cpu or memory for those
    answer: {"status": "success", "data": …}

So does the page that a pod has for Prometheus, for metrics that are read from the pods themselves:

    kind: PodMetricsPage
    pod: demo-5d8f7c9b6d-x2x7k   # in the namespace of its own, if it names one
    page: |
      vllm:num_requests_waiting{model_name="llama"} 3

What a gateway reports of its drills is taken as it is: the response to `/drills`, which has no kind.
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
from hooks.metrics import Scrape, prometheus, promql, values, vectors
from hooks.metrics.exposition import gauges, is_name
from hooks.metrics.pod_metrics import PodPage
from hooks.observation.drills import Reading as DrillReading
from hooks.observation.drills import Report, Round, Route, is_report, report_of
from hooks.observation.readings import Reading, Unread
from hooks.offloading.targets import RESOURCES

DEFAULT_NAMESPACE: Final = "default"
"""Namespace of objects that name none."""
SCRAPE_INTERVAL: Final = timedelta(seconds=60)
"""Longest interval at which a Prometheus server scrapes, unless the settings say otherwise."""
NAMESPACE_LABEL: Final = "namespace"
"""Label for the namespace of a series, unless the settings say otherwise."""
_MAX_ERROR: Final = 200
"""Characters of an error of Prometheus that are repeated."""

Item = Mapping[str, Any]
"""A document, or an item of a list in one."""


class Unrecognized(ValueError):
    """A document is neither an object with a name nor a response with metrics. The message follows `holds`."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Documents, sorted by what they are."""

    objects: tuple[Object, ...] = ()
    """Objects with a name, each in a namespace."""
    usage: tuple[Item, ...] = ()
    """Documents of the kind PodMetrics."""
    values: tuple[Item, ...] = ()
    """Documents of the kind MetricValue."""
    series: tuple[Item, ...] = ()
    """Documents of the kind ExternalMetricValue."""
    results: tuple[Item, ...] = ()
    """Documents of the kind PrometheusAnswer."""
    pages: tuple[Item, ...] = ()
    """Documents of the kind PodMetricsPage."""
    reports: tuple[Report, ...] = ()
    """What gateways report of their drills."""

    @classmethod
    def of(cls, documents: Iterable[Any]) -> Self:
        """Return documents, sorted by what they are.

        Raises:
            Unrecognized: a document is nothing that can be used.
        """
        sorted_: dict[str, list[Any]] = {
            kind: []
            for kind in ("PodMetrics", "MetricValue", "ExternalMetricValue", "PrometheusAnswer", "PodMetricsPage", "")
        }
        reports = []
        for item in documents:
            if is_report(item) and "kind" not in item:
                reports.append(report_of(item))
                continue
            kind = item.get("kind") if isinstance(item, dict) else None
            if not isinstance(kind, str):
                raise Unrecognized("something that is not a Kubernetes object with a kind")
            if kind in sorted_ and kind:
                sorted_[kind].append(item)
            elif not text(mapping(item, "metadata"), "name"):
                raise Unrecognized(f"a {kind} that is neither an object with a name nor a response with metrics")
            else:
                metadata = {"namespace": DEFAULT_NAMESPACE, **item["metadata"]}
                sorted_[""].append(item | {"metadata": metadata})
        return cls(
            tuple(sorted_[""]),
            tuple(sorted_["PodMetrics"]),
            tuple(sorted_["MetricValue"]),
            tuple(sorted_["ExternalMetricValue"]),
            tuple(sorted_["PrometheusAnswer"]),
            tuple(sorted_["PodMetricsPage"]),
            tuple(reports),
        )

    def drills(self, route: Route, now: datetime) -> tuple[DrillReading, ...] | None:
        """Return what gateways report of a route, twice, as nothing here waits for a second reading; None where no
        report is recorded."""
        reading = Round(now, self.reports).of(route)
        return (reading, reading) if self.reports else None

    def pods(self, namespace: str, selector: Selector) -> tuple[Pod, ...] | None:
        """Return the pods in a namespace that a selector matches; None when no pod of the namespace is recorded."""
        pods = [one for one in self.objects if one["kind"] == "Pod" and one["metadata"]["namespace"] == namespace]
        if not pods:
            return None
        return tuple(Pod.of(one) for one in pods if selector.matches(texts(one["metadata"], "labels")))

    def pod_pages(self, scrape: Scrape, now: datetime) -> tuple[PodPage, ...]:
        """Return the pages of pods in a namespace, as they are at a time."""
        return tuple(
            PodPage(text(one, "pod"), now, gauges(text(one, "page").encode(), filter(is_name, scrape.names)))
            for one in self.pages
            if _namespace(one) == scrape.namespace
        )

    def reading(
        self,
        metric: MetricSpec,
        namespace: str,
        *,
        now: datetime,
        scrape_interval: timedelta = SCRAPE_INTERVAL,
        namespace_label: str = NAMESPACE_LABEL,
    ) -> Reading | None:
        """Return the samples of a metric, or the reason why they cannot be used; None when no document is about it.

        Args:
            metric: metric of a specification.
            namespace: namespace of all objects that the metric may describe.
            now: time of values that have none.
            scrape_interval: longest interval at which the Prometheus server scrapes.
            namespace_label: label for the namespace of a series of the Prometheus server.
        """
        match metric.resource or metric.container_resource or metric.pods or metric.object or metric.external:
            case ResourceMetric(name=name) | ContainerResourceMetric(name=name):
                usage = [_timed(one, now) for one in self.usage if _namespace(mapping(one, "metadata")) == namespace]
                if usage and name in RESOURCES:
                    return Reading(values.pod_usage(usage)[RESOURCES.index(name)])
                window = prometheus.usage_expression(name, namespace_label, namespace, scrape_interval)[1]
                return self._result(metric, name, namespace, window, namespace_label)
            case PodsMetric(metric=named):
                items = [one for one in self.values if _is_of(one, named.name, named.selector, namespace, "Pod")]
            case ObjectMetric(metric=named, described_object=described):
                items = [
                    one
                    for one in self.values
                    if _is_of(one, named.name, named.selector, namespace, described.kind)
                    and text(mapping(one, "describedObject"), "name") == described.name
                ]
            case ExternalMetric(metric=named):
                series = [one for one in self.series if _has_labels(one, named.name, named.selector)]
                if series:
                    return Reading(values.of_series({"items": [_timed(one, now) for one in series]}))
                items = []
            case _:
                return None
        if items:
            return Reading(values.of_objects({"items": [_timed(one, now) for one in items]}))
        return self._result(metric, named.name, namespace, promql.reach(named.name) + scrape_interval, namespace_label)

    def _result(
        self, metric: MetricSpec, name: str, namespace: str, window: timedelta, namespace_label: str
    ) -> Reading | None:
        """Return what Prometheus responded for a metric; None when that is not recorded."""
        document = next((one for one in self.results if text(one, "metric") == name), None)
        if document is None:
            return None
        content = dict(mapping(document, "answer"))
        if text(content, "status") != "success":
            error = text(content, "error")[:_MAX_ERROR] or "it has no status success"
            return Reading(unread=Unread(reasons.REFUSED, f"The response of Prometheus is an error: {error}."))
        try:
            points = vectors.points(content)
        except vectors.ResultUnusable as exc:
            return Reading(unread=Unread(reasons.REFUSED, str(exc)))
        if metric.object is not None:
            return vectors.of_one(points, window, metric.object.described_object.name)
        if metric.external is not None:
            return vectors.of_series(points, window)
        return vectors.of_pods(
            points, window, namespace_label=namespace_label, namespace=namespace, containers=metric.pods is None
        )


def _timed(item: Item, now: datetime) -> dict[str, Any]:
    """Return the item with a time; one that has none is a momentary value of the present."""
    if item.get("timestamp"):
        return dict(item)
    momentary = {} if "window" in item else {"windowSeconds": 0}
    return {**momentary, **item, "timestamp": now.isoformat()}


def _namespace(owner: Item) -> str:
    return text(owner, "namespace") or DEFAULT_NAMESPACE


def _is_of(item: Item, name: str, selector: LabelSelector | None, namespace: str, kind: str) -> bool:
    """Return whether a MetricValue, of v1beta1 or v1beta2, is of a metric and of an object of a kind."""
    metric, described = mapping(item, "metric"), mapping(item, "describedObject")
    if (text(metric, "name") or text(item, "metricName")) != name or text(described, "kind") != kind:
        return False
    if _namespace(described) != namespace:
        return False
    recorded = mapping(metric, "selector") or mapping(item, "selector")
    # An adapter may leave out the selector of the request.
    return not recorded or _written(recorded) == _written(_selector(selector))


def _has_labels(item: Item, name: str, selector: LabelSelector | None) -> bool:
    """Return whether an ExternalMetricValue is of a metric. An adapter may leave out the labels."""
    labels = texts(item, "metricLabels")
    if text(item, "metricName") != name:
        return False
    try:
        return not labels or Selector.read(_selector(selector)).matches(labels)
    except InvalidSelector:
        return False


def _selector(selector: LabelSelector | None) -> dict[str, Any]:
    """Return a selector as the API server stores it."""
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
