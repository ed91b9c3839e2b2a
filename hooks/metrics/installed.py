"""The sources of an installation, opened and closed together."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import Final

from hooks.clients.apiserver import ApiServer
from hooks.metrics import MetricSource, Sources
from hooks.metrics.cache import Cache
from hooks.metrics.kubernetes import KubernetesMetrics
from hooks.metrics.podlists import PodLists
from hooks.metrics.prometheus import PrometheusMetrics
from hooks.metrics.prometheus_api import PrometheusServer
from hooks.metrics.recordings import MetricsFile, Recordings
from hooks.settings import MetricInformer
from hooks.telemetry import Metrics

CLUSTER_SECONDS: Final = 2.5
"""Seconds for one call to the API server; less than the deadline of all reads of a sync together."""


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
    if informer.type == "file" and informer.file.path is not None:
        file = MetricsFile(informer.file.path)
        recordings = Recordings(file.load, file.missing)
        yield Sources(recordings, recordings)
        return
    async with AsyncExitStack() as stack:
        api = await ApiServer.connect(metrics, CLUSTER_SECONDS, strict_tls=strict_tls)
        stack.push_async_callback(api.close)
        cluster = Cache(metrics, seconds=informer.resolution_seconds, flight_seconds=CLUSTER_SECONDS)
        stack.push_async_callback(cluster.close)
        source: MetricSource = KubernetesMetrics(api, cluster)
        if informer.type == "prometheus":
            settings = informer.prometheus
            server = PrometheusServer(settings, metrics, strict_tls=strict_tls)
            stack.push_async_callback(server.close)
            cache = Cache(metrics, seconds=informer.resolution_seconds, flight_seconds=settings.timeout_seconds)
            stack.push_async_callback(cache.close)
            source = PrometheusMetrics(
                server,
                cache,
                namespace_label=settings.namespace_label,
                scrape_interval=timedelta(seconds=settings.scrape_interval_seconds),
            )
        yield Sources(source, PodLists(api, cluster))
