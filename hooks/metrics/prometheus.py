"""A Prometheus-compatible server: what each type of metric means there, as instant queries.

The name of a metric is PromQL and is sent as it stands, unless `namespaceLabel` confines it to its namespace. cpu and
memory are read from the series of cAdvisor, one query for all pods of a namespace.
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
from hooks.metrics.prometheus_api import API, PrometheusServer
from hooks.metrics.vectors import Point
from hooks.observation.readings import Reading, Unread

RATE_INTERVALS: Final = 3
"""Scrape intervals over which the use of cpu is a rate; two are the least that make one."""
_NAMESPACE_LABEL: Final = "namespace"
"""Of cAdvisor's series, and of what is scraped from pods with the usual relabeling."""


class PrometheusMetrics:
    """Reads metrics of every type from one server."""

    def __init__(
        self, server: PrometheusServer, cache: Cache, *, namespace_label: str, scrape_interval: timedelta
    ) -> None:
        """
        Args:
            server: is asked.
            cache: keeps.
            namespace_label: what expressions are confined by; empty for not at all.
            scrape_interval: the longest one of the server's.
        """
        self._server = server
        self._cache = cache
        self._confine_by = namespace_label
        self._label = namespace_label or _NAMESPACE_LABEL
        self._scrape_interval = scrape_interval

    async def read(self, metric: MetricSpec, namespace: str, selector: Selector | None) -> Reading:  # noqa: ARG002
        """What is known of a metric now."""
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
            sent: str | promql.Unusable = expression
            if self._confine_by:
                sent = confinement.confined(expression, self._confine_by, namespace)
            if isinstance(sent, promql.Unusable):
                raise sent
        except promql.Unusable as exc:
            return Reading(unread=Unread(reasons.REFUSED, f"metric.name {exc}."))
        found = await self._points(sent, namespace)
        if isinstance(found, Unread):
            return Reading(unread=found)
        window = promql.reach(expression) + self._scrape_interval
        if isinstance(source, PodsMetric):
            return vectors.of_pods(found, window, namespace_label=self._label, namespace=namespace)
        if isinstance(source, ObjectMetric):
            return vectors.of_one(found, window, source.described_object.name)
        return vectors.of_series(found, window)

    async def _points(self, expression: str, namespace: str) -> tuple[Point, ...] | Unread:
        return await self._cache.get(Query(API, expression, namespace), lambda: self._server.query(expression))

    async def _usage(self, resource: str, namespace: str) -> Reading:
        expression, window = usage_expression(resource, self._label, namespace, self._scrape_interval)

        async def load() -> Reading:
            found = await self._server.query(expression)
            return vectors.of_pods(found, window, namespace_label=self._label, namespace=namespace, containers=True)

        found = await self._cache.get(Query(API, (resource, expression), namespace), load)
        return Reading(unread=found) if isinstance(found, Unread) else found


def usage_expression(resource: str, label: str, namespace: str, scrape_interval: timedelta) -> tuple[str, timedelta]:
    """The expression for the use of cpu or memory by all containers of a namespace, and what time it is about."""
    series = f'{{container!="",container!="POD",pod!="",{label}={promql.quoted(namespace)}}}'
    if resource == "memory":
        return f"sum by (pod, container, {label}) (container_memory_working_set_bytes{series})", scrape_interval
    length = scrape_interval * RATE_INTERVALS
    expression = f"rate(container_cpu_usage_seconds_total{series}[{length // timedelta(seconds=1)}s])"
    return f"sum by (pod, container, {label}) ({expression})", length + scrape_interval
