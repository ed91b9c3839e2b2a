"""The sources of an installation, opened and closed together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Final

from hooks.clients.apiserver import ApiServer
from hooks.clients.pods import PodClient
from hooks.metrics import MetricSource, Sources
from hooks.metrics.cache import Cache
from hooks.metrics.kubernetes import KubernetesMetrics
from hooks.metrics.pod_metrics import PodMetrics
from hooks.metrics.podlists import PodLists
from hooks.metrics.prometheus import PrometheusMetrics
from hooks.metrics.prometheus_api import PrometheusServer
from hooks.metrics.recordings import MetricsFile, Recordings
from hooks.settings import MetricInformer
from hooks.telemetry import Metrics
from program.addresses import AddressRules

CLUSTER_SECONDS: Final = 2.5
"""Seconds for one call to the API server; less than the deadline of all reads of a sync together."""
POD_SECONDS: Final = 2.0
"""Seconds for the page of one pod; less than that, so that a silent pod does not take the pages of the others away."""


@asynccontextmanager
async def open_sources(
    informer: MetricInformer, metrics: Metrics, *, strict_tls: bool = False
) -> AsyncIterator[Sources]:
    """Open the sources of pods and metrics for the block; none of them is asked before a sync needs it.

    Args:
        informer: settings of the metrics. Pods come from the API server, unless everything comes from a file.
        metrics: counts reads and requests.
        strict_tls: whether certificates must follow RFC 5280 to the letter.

    Raises:
        program.settings.SettingsError: a file that is named in `informer` cannot be used.
    """
    async with AsyncExitStack() as stack:
        client = PodClient(metrics, AddressRules.parse(allowed=informer.pods.allowed_addresses), POD_SECONDS)
        stack.push_async_callback(client.close)

        def cache(seconds: float) -> Cache:
            """Return a cache whose calls to a source take so many seconds at most."""
            opened = Cache(metrics, seconds=informer.resolution_seconds, flight_seconds=seconds)
            stack.push_async_callback(opened.close)
            return opened

        if informer.type == "file" and informer.file.path is not None:
            recordings = _recordings(informer.file.path)
            pods = _recordings(informer.file.pods_path or informer.file.path)
            yield Sources(recordings, pods, PodMetrics(pods, client, cache(CLUSTER_SECONDS)))
            return
        api = await ApiServer.connect(metrics, CLUSTER_SECONDS, strict_tls=strict_tls)
        stack.push_async_callback(api.close)
        cluster = cache(CLUSTER_SECONDS)
        source: MetricSource = KubernetesMetrics(api, cluster)
        if informer.type == "prometheus":
            settings = informer.prometheus
            server = PrometheusServer(settings, metrics, strict_tls=strict_tls)
            stack.push_async_callback(server.close)
            source = PrometheusMetrics(
                server,
                cache(settings.timeout_seconds),
                namespace_label=settings.namespace_label,
                scrape_interval=timedelta(seconds=settings.scrape_interval_seconds),
            )
        lists = PodLists(api, cluster)
        pages = PodMetrics(lists, client, cache(CLUSTER_SECONDS))
        yield Sources(source, lists, pages, pages_by_default=informer.type == "pods")


def _recordings(path: Path) -> Recordings:
    file = MetricsFile(path)
    return Recordings(file.load, file.missing)
