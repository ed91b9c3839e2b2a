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
class Scrape:
    """The pages of a model that have its metrics of type Pods: one of each pod, as an engine has it for Prometheus."""

    namespace: str
    selector: Selector
    """Selector of the workload's pods."""
    port: int | str
    """Port of the pods: its number, or the name that their containers give it."""
    path: str
    """Path of the page, percent-encoded."""
    names: frozenset[str]
    """Names of all metrics of the model that are on its pages."""


class PageSource(Protocol):
    """A source of metrics of type Pods that has them from the pods themselves."""

    async def scrape(self, metric: MetricSpec, scrape: Scrape) -> Reading:
        """Return the samples of a metric of type Pods, or the reason why there are none."""


@dataclass(frozen=True, slots=True)
class Sources:
    """The sources of an installation, opened and closed by `hooks.metrics.installed.open_sources`."""

    metrics: MetricSource
    pods: PodSource
    pages: PageSource
    pages_by_default: bool = False
    """Whether the metrics of type Pods of every model are read from its pods, and not only where a model says so."""
