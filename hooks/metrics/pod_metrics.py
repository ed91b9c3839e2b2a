"""Metrics of type Pods from the pods themselves: gauges on the page that the server of a model has for Prometheus.

All pages of a model are read together, once in an interval, whatever number of metrics is on them. A tenant chooses
port and path, so only ready pods of the model are asked, at their own address and at a port that one of their
containers declares.
"""

import asyncio
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from hooks import reasons
from hooks.api.metrics import LabelSelector, MetricSpec
from hooks.clients.errors import CallFailed
from hooks.clients.pods import API, PageSource
from hooks.kube.pods import Pod, total
from hooks.metrics import PodSource, Scrape
from hooks.metrics.cache import Cache, Query
from hooks.metrics.exposition import Gauge, SelectorUnusable, gauges, is_name, selected
from hooks.observation.readings import Reading, Sample, Unread

PODS: Final = 32
"""Pods of one model whose pages are read, the first by name. What they say on average stands for the others."""


@dataclass(frozen=True, slots=True)
class PodPage:
    """The gauges that a pod has on its page, or the reason why there are none."""

    pod: str
    time: datetime
    """Time at which the pod was asked."""
    gauges: Mapping[str, Gauge] | Unread


@dataclass(frozen=True, slots=True)
class PodPages:
    """The pages of the pods of a model."""

    pages: tuple[PodPage, ...]

    def __len__(self) -> int:
        """Return the number of pages and of series on them, by which a cache is bounded."""
        found = [page.gauges for page in self.pages if not isinstance(page.gauges, Unread)]
        return len(self.pages) + sum(len(one) for page in found for one in page.values() if isinstance(one, tuple))


class PodMetrics:
    """The source that reads metrics from the pods of models."""

    def __init__(
        self,
        pods: PodSource,
        client: PageSource,
        cache: Cache,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """Read nothing yet.

        Args:
            pods: the pods and their addresses.
            client: reads the page of a pod.
            cache: keeps what the pages say.
            clock: returns the present time.
        """
        self._pods = pods
        self._client = client
        self._cache = cache
        self._clock = clock

    async def scrape(self, metric: MetricSpec, scrape: Scrape) -> Reading:
        """Return the samples of a metric of type Pods, or the reason why there are none."""
        pages = await self._cache.get(Query(API, scrape, scrape.namespace), lambda: self._pages(scrape))
        return Reading(unread=pages) if isinstance(pages, Unread) else reading(metric, pages.pages)

    async def _pages(self, scrape: Scrape) -> PodPages:
        pods = await self._pods.pods(scrape.namespace, scrape.selector)
        if isinstance(pods, Unread):
            raise CallFailed(pods.reason, pods.message)
        serving = sorted((pod for pod in pods if pod.serves), key=lambda pod: pod.name)[:PODS]
        pages = tuple(await asyncio.gather(*(self._page(pod, scrape) for pod in serving)))
        unread = [page.gauges for page in pages if isinstance(page.gauges, Unread)]
        if serving and len(unread) == len(serving):
            raise CallFailed(unread[0].reason, unread[0].message)
        return PodPages(pages)

    async def _page(self, pod: Pod, scrape: Scrape) -> PodPage:
        moment = self._clock()
        try:
            page = await self._client.page(scrape.namespace, pod.address, _port(pod, scrape.port), scrape.path)
        except CallFailed as exc:
            return PodPage(pod.name, moment, exc.unread)
        names = filter(is_name, scrape.names)
        return PodPage(pod.name, moment, gauges(page.content, names, seconds=page.is_open_metrics))


def reading(metric: MetricSpec, pages: Iterable[PodPage]) -> Reading:
    """Return the samples of a metric of type Pods on pages, or the reason why there are none.

    Several series of a pod are added up, as adapters for custom metrics do. A pod without a page, without the metric or
    with NaN has no sample.
    """
    if metric.pods is None:
        return Reading()
    name, selector = metric.pods.metric.name, metric.pods.metric.selector
    if not is_name(name):
        words = "metric.name must be the name of a gauge, because it is read from the pods themselves."
        return Reading(unread=Unread(reasons.REFUSED, words))
    samples: list[Sample] = []
    idle: list[Sample] = []
    unread: Unread | None = None
    try:
        for page in pages:
            result = _sample(page, name, selector)
            if isinstance(result, Sample):
                samples.append(result)
            else:
                unread = unread or result.unread
                idle += result.without_traffic
    except SelectorUnusable as exc:
        return Reading(unread=Unread(reasons.REFUSED, f"The selector of the metric cannot be used: {exc}."))
    return Reading(tuple(samples)) if samples else Reading(unread=unread, without_traffic=tuple(idle))


def _sample(page: PodPage, name: str, selector: LabelSelector | None) -> Sample | Reading:
    """Return the value of a pod, or a reading with the reason why it has none.

    Raises:
        SelectorUnusable: the selector cannot be used.
    """
    if isinstance(page.gauges, Unread):
        return Reading(unread=page.gauges)
    gauge = page.gauges.get(name, ())
    if isinstance(gauge, Unread):
        return Reading(unread=gauge)
    series = selected(gauge, selector)
    if not series:
        labels = " with the labels of the selector" if gauge else ""
        return Reading(unread=Unread(reasons.NO_SAMPLE, f"The pods serve a page, and no {name}{labels} is on it."))
    values = [one.value for one in series if one.value is not None]
    sample = Sample(page.pod, total(values), min(one.time or page.time for one in series))
    if len(values) == len(series):
        return sample
    unread = Unread(reasons.NOT_A_NUMBER, f"The pods say that {name} is NaN or an infinity.")
    only_nan = all(one.value is not None or one.is_nan for one in series)
    return Reading(unread=unread, without_traffic=(sample,) if only_nan else ())


def _port(pod: Pod, port: int | str) -> int:
    """Return the number of a port that a pod may be asked at.

    Raises:
        CallFailed: there is none.
    """
    if pod.on_host_network:
        raise CallFailed(
            reasons.HOST_NETWORK,
            "The pods are on the network of their node, and their address is the node's: hooks do not read such pods.",
        )
    number = next((one.number for one in pod.ports if port in (one.number, one.name)), None)
    if number is None:
        raise CallFailed(
            reasons.REFUSED,
            f"No container of the pods declares the TCP port {port}: add it to the ports of the container, or correct"
            " metricSource.port.",
        )
    return number
