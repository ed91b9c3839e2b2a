"""The metrics APIs of Kubernetes, called as the HorizontalPodAutoscaler of Kubernetes 1.36 calls them."""

from typing import Final

from hooks import reasons
from hooks.api.metrics import (
    ContainerResourceMetric,
    CrossVersionObjectReference,
    ExternalMetric,
    LabelSelector,
    MetricIdentifier,
    MetricSpec,
    ObjectMetric,
    PodsMetric,
    ResourceMetric,
)
from hooks.clients.apiserver import Group, ObjectSource, path
from hooks.clients.errors import Api, CallFailed
from hooks.kube.selectors import InvalidSelector, Selector
from hooks.kube.unstructured import objects
from hooks.metrics import kinds, values
from hooks.metrics.cache import Cache, Query
from hooks.observation.readings import Reading, Sample, Unread
from hooks.offloading.targets import RESOURCES

USAGE: Final = Group(Api("metrics.k8s.io", "metrics.k8s.io"), "pods", "metrics.k8s.io", "metrics-server")
_ADAPTER: Final = "an adapter such as prometheus-adapter or KEDA"
CUSTOM: Final = Group(Api("custom.metrics.k8s.io", "custom.metrics.k8s.io"), "*", "custom.metrics.k8s.io", _ADAPTER)
EXTERNAL: Final = Group(
    Api("external.metrics.k8s.io", "external.metrics.k8s.io"), "*", "external.metrics.k8s.io", _ADAPTER
)
DISCOVERY: Final = Group(Api("discovery", "The API server"), "*", "", "the API server")

DISCOVERY_SECONDS: Final = 300.0
"""Seconds for which the served versions and kinds are remembered."""
_CUSTOM_VERSIONS: Final = ("v1beta2", "v1beta1")


class KubernetesMetrics:
    """The source of metrics that reads metrics.k8s.io, custom.metrics.k8s.io and external.metrics.k8s.io."""

    def __init__(self, api: ObjectSource, cache: Cache) -> None:
        """Read by `api`, and keep in `cache` what it responds."""
        self._api = api
        self._cache = cache

    async def read(self, metric: MetricSpec, namespace: str, selector: Selector | None) -> Reading:
        """Return the samples of a metric, or the reason why there are none."""
        try:
            samples = await self._read(metric, namespace, selector)
        except CallFailed as exc:
            return Reading(unread=exc.unread)
        except InvalidSelector as exc:
            return Reading(unread=Unread(reasons.REFUSED, f"The selector of the metric cannot be used: {exc}."))
        return Reading(unread=samples) if isinstance(samples, Unread) else Reading(samples)

    async def _read(self, metric: MetricSpec, namespace: str, selector: Selector | None) -> tuple[Sample, ...] | Unread:
        match metric.resource or metric.container_resource or metric.pods or metric.object or metric.external:
            case ResourceMetric(name=name) | ContainerResourceMetric(name=name):
                usage = await self._cache.get(Query(USAGE.api, namespace, namespace), lambda: self._usage(namespace))
                return usage if isinstance(usage, Unread) else usage[RESOURCES.index(name)]
            case PodsMetric(metric=named) if selector is not None:
                return await self._of_pods(named, namespace, selector)
            case ObjectMetric(metric=named, described_object=described):
                return await self._of_object(named, described, namespace)
            case ExternalMetric(metric=named):
                return await self._of_series(named, namespace)
        return ()

    async def _usage(self, namespace: str) -> tuple[tuple[Sample, ...], ...]:
        where = path("apis", "metrics.k8s.io", "v1beta1", "namespaces", namespace, "pods")
        content = await self._api.get(USAGE, where, ()) or {}
        return values.pod_usage(objects(content, "items"))

    async def _of_pods(
        self, metric: MetricIdentifier, namespace: str, selector: Selector
    ) -> tuple[Sample, ...] | Unread:
        version = await self._version()
        if isinstance(version, Unread):
            return version
        where = path("apis", CUSTOM.name, version, "namespaces", namespace, "pods", "*", metric.name)
        query = [("labelSelector", str(selector)), *_narrowed("metricLabelSelector", metric.selector)]
        return await self._custom(namespace, where, query, f"knows no metric {metric.name!r} of pods")

    async def _of_object(
        self, metric: MetricIdentifier, described: CrossVersionObjectReference, namespace: str
    ) -> tuple[Sample, ...] | Unread:
        version = await self._version()
        if isinstance(version, Unread):
            return version
        start = ("apis", CUSTOM.name, version, "namespaces", namespace)
        if described.kind == "Namespace" and "/" not in (described.api_version or ""):
            where = path(*start, "metrics", metric.name)
        else:
            resource = await self._resource(described)
            if isinstance(resource, Unread):
                return resource
            where = path(*start, resource, described.name, metric.name)
        query = _narrowed("metricLabelSelector", metric.selector)
        nothing = f"knows no metric {metric.name!r} of {described.kind} {described.name}"
        samples = await self._custom(namespace, where, query, nothing)
        # The request was for this one object, however the response spells its name.
        return samples if isinstance(samples, Unread) else tuple(_named(described.name, one) for one in samples)

    async def _of_series(self, metric: MetricIdentifier, namespace: str) -> tuple[Sample, ...] | Unread:
        where = path("apis", EXTERNAL.name, "v1beta1", "namespaces", namespace, metric.name)
        query = _narrowed("labelSelector", metric.selector)

        async def load() -> tuple[Sample, ...]:
            content = await self._api.get(EXTERNAL, where, query)
            if content is None:
                raise CallFailed(reasons.NO_SAMPLE, f"{EXTERNAL.api.words} knows no metric {metric.name!r}.")
            return values.of_series(content)

        return await self._cache.get(Query(EXTERNAL.api, (where, *query), namespace), load)

    async def _custom(
        self, namespace: str, where: str, query: list[tuple[str, str]], nothing: str
    ) -> tuple[Sample, ...] | Unread:
        async def load() -> tuple[Sample, ...]:
            content = await self._api.get(CUSTOM, where, query)
            if content is None:
                raise CallFailed(reasons.NO_SAMPLE, f"{CUSTOM.api.words} {nothing} in this namespace.")
            return values.of_objects(content)

        return await self._cache.get(Query(CUSTOM.api, (where, *query), namespace), load)

    async def _version(self) -> str | Unread:
        """Return the version of custom.metrics.k8s.io to use."""

        async def load() -> str:
            group = await self._api.get(CUSTOM, path("apis", CUSTOM.name), ()) or {}
            version = kinds.served_version(group, _CUSTOM_VERSIONS)
            if version is None:
                words = f"The cluster serves no version of {CUSTOM.name} that hooks know: {_ADAPTER} gives one."
                raise CallFailed(reasons.NOT_SERVED, words)
            return version

        return await self._cache.get(Query(CUSTOM.api, "versions"), load, seconds=DISCOVERY_SECONDS)

    async def _resource(self, described: CrossVersionObjectReference) -> str | Unread:
        """Return the resource of an object's kind, as it stands in paths."""
        api_version = described.api_version or "v1"
        if not kinds.is_api_version(api_version):
            return Unread(reasons.REFUSED, f"describedObject.apiVersion {api_version!r} is none.")

        async def load() -> dict[str, kinds.Kind]:
            content = await self._api.get(DISCOVERY, kinds.discovery_path(api_version), ())
            return kinds.kinds(api_version, content or {})

        served = await self._cache.get(Query(DISCOVERY.api, api_version), load, seconds=DISCOVERY_SECONDS)
        if isinstance(served, Unread):
            if served.reason != reasons.NOT_SERVED:
                return served
            return Unread(reasons.REFUSED, f"Nothing serves describedObject.apiVersion {api_version}.")
        kind = served.get(described.kind)
        if kind is None:
            return Unread(
                reasons.REFUSED, f"There is no kind {described.kind} in describedObject.apiVersion {api_version}."
            )
        if not kind.namespaced:
            return Unread(
                reasons.REFUSED, f"{described.kind} is not in a namespace: describedObject must be in this one."
            )
        return kind.resource


def _narrowed(parameter: str, selector: LabelSelector | None) -> list[tuple[str, str]]:
    """Return the query parameter for the selector of a metric; none where it has no selector."""
    if selector is None:
        return []
    expressions = tuple((one.key, one.operator, one.values) for one in selector.match_expressions)
    text = str(Selector.of(selector.match_labels, expressions))
    return [(parameter, text)] if text else []


def _named(name: str, sample: Sample) -> Sample:
    return Sample(name, sample.value, sample.time, sample.window)
