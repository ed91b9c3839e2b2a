"""The one place that reads the world for a decision.

Metacontroller sends most of what is decided on: the parent, its children and the related objects. Metrics and pods are
asked for here, under one deadline. Nothing here fails: what could not be read is a fact with a reason.
"""

import asyncio
from dataclasses import replace
from typing import Final, TypeVar

from hooks import reasons
from hooks.api.common import InvalidObject
from hooks.api.metrics import MetricSpec, MetricType
from hooks.api.model_deployment import ModelDeploymentSpec
from hooks.backends.local import find_workload
from hooks.eager_tasks import begun
from hooks.kube.pods import Pod
from hooks.kube.selectors import Selector
from hooks.metrics import Sources
from hooks.observation.observation import InstallDefaults, Observation
from hooks.observation.readings import Reading, Readings, Unread
from hooks.offloading import targets
from hooks.protocol import SyncRequest

T = TypeVar("T")

DEADLINE_SECONDS: Final = 3.0
"""For everything that one answer asks for. Metacontroller waits 10 s for the answer."""

_TIMED_OUT: Final = Reading(unread=Unread(reasons.TIMED_OUT, "The source of the metric did not answer in time."))
_PODS_TIMED_OUT: Final = Unread(reasons.TIMED_OUT, "The API server did not list the pods in time.")
_OF_PODS: Final = frozenset({MetricType.RESOURCE, MetricType.CONTAINER_RESOURCE, MetricType.PODS})


async def gather(request: SyncRequest, defaults: InstallDefaults, sources: Sources | None) -> Observation:
    """All facts for one answer, frozen. Metrics are read where a specification in force names some.

    Args:
        request: of Metacontroller.
        defaults: what the administrator configured.
        sources: what to ask; None when nothing may be asked.
    """
    observation = Observation.of(request, defaults)
    spec, parent = observation.spec, observation.parent
    if (
        sources is None
        or isinstance(spec, InvalidObject)
        or not spec.enabled
        or spec.offloading_config is None
        or not spec.offloading_config.metrics
        or parent.deleting
        or not defaults.manages(parent.namespace)
    ):
        return observation
    readings = await _read(spec, spec.offloading_config.metrics, observation, sources)
    return replace(observation, readings=readings)


async def _read(
    spec: ModelDeploymentSpec, metrics: tuple[MetricSpec, ...], observation: Observation, sources: Sources
) -> Readings:
    namespace, workload = observation.parent.namespace, find_workload(spec, observation)
    selector = None if workload is None else workload.selector
    worth = [metric if _can_be_measured(metric) else None for metric in metrics]
    late: tuple[Pod, ...] | Unread = _PODS_TIMED_OUT
    asked: list[Reading | asyncio.Task[Reading]] = []
    listed = begun(_pods(sources, worth, namespace, selector))
    try:
        asked += [begun(_metric(sources, metric, namespace, selector)) for metric in worth]
        waited_for = [one for one in (listed, *asked) if isinstance(one, asyncio.Task)]
        if waited_for:
            await asyncio.wait(waited_for, timeout=DEADLINE_SECONDS)
        pods = _told(listed, late)
        return Readings(
            tuple(_told(one, _TIMED_OUT) for one in asked),
            () if isinstance(pods, Unread) else pods,
            pods if isinstance(pods, Unread) else None,
        )
    finally:
        for one in (listed, *asked):
            if isinstance(one, asyncio.Task):
                one.cancel()


def _told(asked: T | asyncio.Task[T], late: T) -> T:
    """What came of it by now."""
    if not isinstance(asked, asyncio.Task):
        return asked
    return asked.result() if asked.done() else late


def _can_be_measured(metric: MetricSpec) -> bool:
    """Whether it is worth asking for; what is wrong with it is told where it is measured."""
    try:
        targets.declared(metric)
    except targets.Misdeclared:
        return False
    return True


async def _metric(sources: Sources, metric: MetricSpec | None, namespace: str, selector: Selector | None) -> Reading:
    return Reading() if metric is None else await sources.metrics.read(metric, namespace, selector)


async def _pods(
    sources: Sources, metrics: list[MetricSpec | None], namespace: str, selector: Selector | None
) -> tuple[Pod, ...] | Unread:
    if selector is None or not any(metric is not None and metric.type in _OF_PODS for metric in metrics):
        return ()
    return await sources.pods.pods(namespace, selector)
