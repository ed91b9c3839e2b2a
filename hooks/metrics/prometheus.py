"""Metrics from a Prometheus-compatible server: each type of metric as an instant query.

The name of a metric is PromQL and is sent as it stands, unless `namespaceLabel` confines it to its namespace. cpu and
memory are read from the series of cAdvisor, with one query for all pods of a namespace.
"""

from datetime import timedelta
from typing import Final

from hooks import reasons
from hooks.api.metrics import (
    ContainerResourceMetric,
    ExternalMetric,
    MetricIdentifier,
    MetricSpec,
    ObjectMetric,
    PodsMetric,
    ResourceMetric,
)
from hooks.kube.selectors import Selector
from hooks.metrics import confinement, promql, vectors
from hooks.metrics.cache import Cache, Query
from hooks.metrics.prometheus_api import API, QuerySource
from hooks.metrics.vectors import Point
from hooks.observation.readings import Reading, Unread

RATE_INTERVALS: Final = 3
"""Scrape intervals over which the rate of cpu usage is taken. A rate needs two at least."""
_NAMESPACE_LABEL: Final = "namespace"
"""Label for the namespace in series of cAdvisor, and in those scraped from pods with the usual relabeling."""


class PrometheusMetrics:
    """The source of metrics that reads every type from one Prometheus server."""

    def __init__(self, server: QuerySource, cache: Cache, *, namespace_label: str, scrape_interval: timedelta) -> None:
        """Read by a server, and keep in a cache what it responds.

        Args:
            server: runs the queries.
            cache: keeps the results.
            namespace_label: label by which expressions are confined to a namespace; empty when they are not.
            scrape_interval: longest interval at which the server scrapes.
        """
        self._server = server
        self._cache = cache
        self._confine_by = namespace_label
        self._label = namespace_label or _NAMESPACE_LABEL
        self._scrape_interval = scrape_interval

    async def read(self, metric: MetricSpec, namespace: str, selector: Selector | None) -> Reading:  # noqa: ARG002
        """Return the samples of a metric, or the reason why there are none."""
        match metric.resource or metric.container_resource or metric.pods or metric.object or metric.external:
            case ResourceMetric(name=name) | ContainerResourceMetric(name=name):
                return await self._usage(name, namespace)
            case PodsMetric(metric=named) | ObjectMetric(metric=named) | ExternalMetric(metric=named) as source:
                return await self._named(source, named, namespace)
        return Reading()

    async def _named(
        self, source: PodsMetric | ObjectMetric | ExternalMetric, metric: MetricIdentifier, namespace: str
    ) -> Reading:
        try:
            expression = promql.selected(metric.name, metric.selector)
            sent: str | promql.ExpressionUnusable = expression
            if self._confine_by:
                sent = confinement.confined(expression, self._confine_by, namespace)
            if isinstance(sent, promql.ExpressionUnusable):
                raise sent
        except promql.ExpressionUnusable as exc:
            return Reading(unread=Unread(reasons.REFUSED, f"metric.name {exc}."))
        points = await self._points(sent, namespace)
        if isinstance(points, Unread):
            return Reading(unread=points)
        window = promql.reach(expression) + self._scrape_interval
        if isinstance(source, PodsMetric):
            return vectors.of_pods(points, window, namespace_label=self._label, namespace=namespace)
        if isinstance(source, ObjectMetric):
            return vectors.of_one(points, window, source.described_object.name)
        return vectors.of_series(points, window)

    async def _points(self, expression: str, namespace: str) -> tuple[Point, ...] | Unread:
        return await self._cache.get(Query(API, expression, namespace), lambda: self._server.query(expression))

    async def _usage(self, resource: str, namespace: str) -> Reading:
        expression, window = usage_expression(resource, self._label, namespace, self._scrape_interval)

        async def load() -> Reading:
            points = await self._server.query(expression)
            return vectors.of_pods(points, window, namespace_label=self._label, namespace=namespace, containers=True)

        reading = await self._cache.get(Query(API, (resource, expression), namespace), load)
        return Reading(unread=reading) if isinstance(reading, Unread) else reading


def usage_expression(resource: str, label: str, namespace: str, scrape_interval: timedelta) -> tuple[str, timedelta]:
    """Return the expression for cpu or memory usage of all containers in a namespace, and the time that it covers."""
    series = f'{{container!="",container!="POD",pod!="",{label}={promql.quoted(namespace)}}}'
    if resource == "memory":
        return f"sum by (pod, container, {label}) (container_memory_working_set_bytes{series})", scrape_interval
    length = scrape_interval * RATE_INTERVALS
    expression = f"rate(container_cpu_usage_seconds_total{series}[{length // timedelta(seconds=1)}s])"
    return f"sum by (pod, container, {label}) ({expression})", length + scrape_interval
