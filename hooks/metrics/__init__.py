"""Sources of metrics and pods.

A source returns raw samples or the reason why it has none. It decides nothing, and raises nothing.
"""

from dataclasses import dataclass
from typing import Protocol

from hooks.api.metrics import MetricSpec
from hooks.kube.pods import Pod
from hooks.kube.selectors import Selector
from hooks.observation.readings import Reading, Unread


class MetricSource(Protocol):
    """A source of metrics."""

    async def read(self, metric: MetricSpec, namespace: str, selector: Selector | None) -> Reading:
        """Return the samples of a metric, or the reason why there are none.

        Args:
            metric: a metric that `hooks.offloading.targets.declared` accepts.
            namespace: namespace of all objects that the metric may describe.
            selector: selector of the workload's pods; None where there is no workload.
        """


class PodSource(Protocol):
    """A source of pods."""

    async def pods(self, namespace: str, selector: Selector) -> tuple[Pod, ...] | Unread:
        """Return the pods in a namespace that a selector matches, or the reason why they are not known."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of an installation, opened and closed by `hooks.metrics.installed.open_sources`."""

    metrics: MetricSource
    pods: PodSource
