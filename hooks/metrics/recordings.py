"""Metrics and pods from recorded responses: those of one command, or of a file that is read again when it changes."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import structlog

from hooks import reasons
from hooks.api.metrics import MetricSpec
from hooks.kube import files
from hooks.kube.pods import Pod
from hooks.kube.selectors import Selector
from hooks.metrics import Scrape, pod_metrics
from hooks.metrics.recorded import NAMESPACE_LABEL, SCRAPE_INTERVAL, Recorded, Unrecognized
from hooks.observation.readings import Reading, Unread
from hooks.offloading.targets import metric_name
from program.files import Unreadable, problem
from program.watched_file import FileUnusable, WatchedFile

FILE_BYTES: Final = 256 << 10
"""Bytes that a file of metrics may have. It is for one machine, and parsed while other syncs wait."""

log = structlog.get_logger(__name__)

Wording = Callable[[MetricSpec | None, str, Scrape | None], str]
"""Function that returns the message for a metric in a namespace that is not recorded, and for the pods when None; with
the pages where the metric is read from them."""


class Recordings:
    """The source that reads metrics and pods from recorded responses."""

    def __init__(
        self,
        load: Callable[[], Recorded | Unread],
        missing: Wording,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        scrape_interval: timedelta = SCRAPE_INTERVAL,
        namespace_label: str = NAMESPACE_LABEL,
    ) -> None:
        """Read nothing yet.

        Args:
            load: returns the recorded responses, or the reason why they cannot be used.
            missing: returns the message for a metric of which nothing is recorded.
            clock: returns the time of values that have none.
            scrape_interval: longest interval at which the Prometheus server scrapes.
            namespace_label: label for the namespace of a series of the Prometheus server.
        """
        self._load = load
        self._missing = missing
        self._clock = clock
        self._scrape_interval = scrape_interval
        self._namespace_label = namespace_label

    async def read(self, metric: MetricSpec, namespace: str, selector: Selector | None) -> Reading:  # noqa: ARG002
        """Return the samples of a metric, or the reason why there are none."""
        recorded = self._load()
        if isinstance(recorded, Unread):
            return Reading(unread=recorded)
        reading = recorded.reading(
            metric,
            namespace,
            now=self._clock(),
            scrape_interval=self._scrape_interval,
            namespace_label=self._namespace_label,
        )
        return reading or Reading(unread=Unread(reasons.NO_SAMPLE, self._missing(metric, namespace, None)))

    async def scrape(self, metric: MetricSpec, scrape: Scrape) -> Reading:
        """Return the samples of a metric of type Pods, from recorded pages or else from recorded responses of APIs."""
        recorded = self._load()
        if isinstance(recorded, Unread):
            return Reading(unread=recorded)
        pages = recorded.pod_pages(scrape, self._clock())
        found = pod_metrics.reading(metric, pages) if pages else await self.read(metric, scrape.namespace, None)
        if pages or found.samples:
            return found
        return Reading(unread=Unread(reasons.NO_SAMPLE, self._missing(metric, scrape.namespace, scrape)))

    async def pods(self, namespace: str, selector: Selector) -> tuple[Pod, ...] | Unread:
        """Return the pods in a namespace that a selector matches, or the reason why they are not known."""
        recorded = self._load()
        if isinstance(recorded, Unread):
            return recorded
        pods = recorded.pods(namespace, selector)
        return Unread(reasons.NO_SAMPLE, self._missing(None, namespace, None)) if pods is None else pods


class MetricsFile:
    """A file with recorded responses, which is read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Read nothing yet."""
        self._path = path
        self._file = WatchedFile(path, _recorded, limit=FILE_BYTES, report=self._report)

    def load(self) -> Recorded | Unread:
        """Return what the file holds now, or the reason why that cannot be used."""
        try:
            return self._file.current()
        except FileUnusable as exc:
            return Unread(reasons.REFUSED, f"{self._path} {exc}.")

    def _report(self, problem: FileUnusable) -> None:
        log.warning("metrics_file_unusable", problem=f"{self._path} {problem}.")

    def missing(self, metric: MetricSpec | None, namespace: str, _scrape: Scrape | None) -> str:
        """Return the message for a metric of which the file says nothing; for the pods when `metric` is None."""
        if metric is None:
            return f"{self._path} holds no pods of namespace {namespace}: add them."
        return f"{self._path} says nothing of {metric.type} {metric_name(metric)} in {namespace}: add it."


def _recorded(content: bytes) -> Recorded:
    """Return what a file holds.

    Raises:
        FileUnusable: it holds something else.
    """
    try:
        return Recorded.of(files.parse(content.decode()))
    except Unreadable as exc:
        raise FileUnusable(problem(exc)) from exc
    except Unrecognized as exc:
        raise FileUnusable(f"holds {exc}") from exc
