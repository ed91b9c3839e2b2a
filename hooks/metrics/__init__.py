"""Where metrics come from. Sources deliver raw samples or say why they have none; they decide nothing, never raise."""

from dataclasses import dataclass
from typing import Protocol

from hooks.api.metrics import MetricSpec
from hooks.kube.pods import Pod
from hooks.kube.selectors import Selector
from hooks.observation.readings import Reading, Unread


class MetricSource(Protocol):
    """Reads metrics."""

    async def read(self, metric: MetricSpec, namespace: str, selector: Selector | None) -> Reading:
        """What is known of a metric now.

        Args:
            metric: one that `hooks.targets.declared` accepts.
            namespace: where everything it may be about is.
            selector: of the workload's pods; None where there is no workload.
        """


class PodSource(Protocol):
    """Lists pods."""

    async def pods(self, namespace: str, selector: Selector) -> tuple[Pod, ...] | Unread:
        """The pods of a namespace that are selected, or why they are not known."""


@dataclass(frozen=True, slots=True)
class Sources:
    """What is asked beside the request. Whoever opened them closes them: `hooks.metrics.installed.open_sources`."""

    metrics: MetricSource
    pods: PodSource
