"""The one place that reads the world for a decision.

Metacontroller sends most of the facts: the parent, its children and the related objects. Metrics, pods and what the
drills of gateways found are read here, at the same time and under one deadline. Nothing here raises: what could not be
read is a fact with a reason.
"""

import asyncio
from dataclasses import replace
from typing import Final, TypeVar

from hooks import reasons
from hooks.api.common import InvalidObject
from hooks.api.metrics import MetricSpec, MetricType
from hooks.api.model_deployment import ModelDeploymentSpec
from hooks.api.offloading import MetricSource, MetricSourceType
from hooks.backends.local import find_local, find_workload, metric_port
from hooks.clients.gateways import DrillSource
from hooks.eager_tasks import start
from hooks.kube.pods import Pod
from hooks.kube.selectors import Selector
from hooks.metrics import Scrape, Sources
from hooks.observation import drills
from hooks.observation.observation import InstallDefaults, Observation, Unresolved, Workload
from hooks.observation.readings import Reading, Readings, Unread
from hooks.offloading import targets
from hooks.protocol import SyncRequest

T = TypeVar("T")

DEADLINE_SECONDS: Final = 3.0
"""Seconds in which a sync reads metrics and pods. Metacontroller waits 10 s for the response."""

_TIMED_OUT: Final = Reading(unread=Unread(reasons.TIMED_OUT, "The source of the metric did not respond in time."))
_PODS_TIMED_OUT: Final = Unread(reasons.TIMED_OUT, "The API server did not list the pods in time.")
_OF_PODS: Final = frozenset({MetricType.RESOURCE, MetricType.CONTAINER_RESOURCE, MetricType.PODS})
"""Types of metrics that are measured of pods, so that the pods must be listed."""


async def gather(
    request: SyncRequest,
    defaults: InstallDefaults,
    sources: Sources | None,
    *,
    drill_source: DrillSource | None = None,
    seconds: float | None = None,
) -> Observation:
    """Return all facts for one sync. Metrics are read where the specification is valid, enabled and names some, and
    drills where it may be offloaded at all.

    Args:
        request: the request of Metacontroller.
        defaults: the configuration of the installation.
        sources: the sources of metrics and pods; None when none may be read.
        drill_source: the source of what gateways found in their drills; None where none is asked.
        seconds: seconds in which they are read; None for those that Metacontroller leaves.
    """
    observation = Observation.of(request, defaults)
    spec, parent = observation.spec, observation.parent
    if (
        isinstance(spec, InvalidObject)
        or not spec.enabled
        or spec.offloading_config is None
        or not defaults.manages(parent.namespace)
    ):
        return observation
    limit = DEADLINE_SECONDS if seconds is None else seconds
    drilled = None if drill_source is None else start(_drills(drill_source, (parent.namespace, parent.name), limit))
    try:
        metrics = spec.offloading_config.metrics
        if sources is not None and metrics and not parent.deleting:
            observation = replace(observation, readings=await _read(spec, metrics, observation, sources, limit))
        if drilled is not None:
            found = await drilled if isinstance(drilled, asyncio.Task) else drilled
            observation = replace(observation, drills=found)
        return observation
    finally:
        if isinstance(drilled, asyncio.Task):
            drilled.cancel()


async def _drills(source: DrillSource, route: drills.Route, seconds: float) -> tuple[drills.Reading, ...]:
    """Return the last two readings of a route; none where the source does not respond in time."""
    reading = start(source.readings(route))
    if not isinstance(reading, asyncio.Task):
        return reading
    try:
        await asyncio.wait([reading], timeout=seconds)
        return _result(reading, ())
    finally:
        reading.cancel()


async def _read(
    spec: ModelDeploymentSpec,
    metrics: tuple[MetricSpec, ...],
    observation: Observation,
    sources: Sources,
    seconds: float,
) -> Readings:
    namespace, workload = observation.parent.namespace, find_workload(spec, observation)
    selector = None if workload is None else workload.selector
    measurable = [metric if _can_be_measured(metric) else None for metric in metrics]
    scrape = _scrape(spec, measurable, workload, observation, sources)
    pods_if_late: tuple[Pod, ...] | Unread = _PODS_TIMED_OUT
    reads: list[Reading | asyncio.Task[Reading]] = []
    pods_read = start(_pods(sources, measurable, namespace, selector))
    try:
        reads += [start(_metric(sources, metric, namespace, selector, scrape)) for metric in measurable]
        tasks = [read for read in (pods_read, *reads) if isinstance(read, asyncio.Task)]
        if tasks:
            await asyncio.wait(tasks, timeout=seconds)
        pods = _result(pods_read, pods_if_late)
        return Readings(
            tuple(_result(read, _TIMED_OUT) for read in reads),
            () if isinstance(pods, Unread) else pods,
            pods if isinstance(pods, Unread) else None,
            f"port {scrape.port}, path {scrape.path} of each ready pod" if isinstance(scrape, Scrape) else "",
        )
    finally:
        for read in (pods_read, *reads):
            if isinstance(read, asyncio.Task):
                read.cancel()


def _result(read: T | asyncio.Task[T], if_late: T) -> T:
    """Return the result of a read, or `if_late` when its task is not done."""
    if not isinstance(read, asyncio.Task):
        return read
    return read.result() if read.done() else if_late


def _can_be_measured(metric: MetricSpec) -> bool:
    """Return whether a metric is declared so that it can be measured. Its measure has the reason when it is not."""
    try:
        targets.declared(metric)
    except targets.Misdeclared:
        return False
    return True


async def _metric(
    sources: Sources,
    metric: MetricSpec | None,
    namespace: str,
    selector: Selector | None,
    scrape: Scrape | Unread | None,
) -> Reading:
    if metric is None:
        return Reading()
    if metric.type is not MetricType.PODS or scrape is None:
        return await sources.metrics.read(metric, namespace, selector)
    return Reading(unread=scrape) if isinstance(scrape, Unread) else await sources.pages.scrape(metric, scrape)


def _scrape(
    spec: ModelDeploymentSpec,
    metrics: list[MetricSpec | None],
    workload: Workload | None,
    observation: Observation,
    sources: Sources,
) -> Scrape | Unread | None:
    """Return the pages that have the metrics of type Pods, or the reason why they are not known; None where another
    source has these metrics."""
    given = None if spec.offloading_config is None else spec.offloading_config.metric_source
    names = {metric.pods.metric.name for metric in metrics if metric is not None and metric.pods is not None}
    if workload is None or workload.selector is None or not names or not (given or sources.pages_by_default):
        return None
    source = given or MetricSource(type=MetricSourceType.PODS)
    port = source.port or metric_port(spec, workload, observation)
    if port is None:
        local = find_local(spec, workload, observation)
        if isinstance(local, Unresolved):
            return Unread(
                reasons.REFUSED, f"metricSource has no port, and that of the model is not known: {local.message}"
            )
        port = local.target_port
    return Scrape(observation.parent.namespace, workload.selector, port, source.path, frozenset(names))


async def _pods(
    sources: Sources, metrics: list[MetricSpec | None], namespace: str, selector: Selector | None
) -> tuple[Pod, ...] | Unread:
    if selector is None or not any(metric is not None and metric.type in _OF_PODS for metric in metrics):
        return ()
    return await sources.pods.pods(namespace, selector)
