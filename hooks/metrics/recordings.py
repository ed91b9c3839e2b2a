"""Metrics and pods from what was recorded: as given once, or in a file that is read again when it changes."""

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
from hooks.metrics.recorded import NAMESPACE_LABEL, SCRAPE_INTERVAL, Recorded, Unrecognized
from hooks.observation.readings import Reading, Unread
from hooks.offloading.targets import metric_name
from program.files import Unreadable, problem

FILE_BYTES: Final = 256 << 10
"""Of a file that is read while others wait; it is for one machine."""

log = structlog.get_logger(__name__)

Wording = Callable[[MetricSpec | None, str], str]
"""The sentence for a metric of a namespace, or for its pods, that nothing is recorded of."""


class Recordings:
    """Reads metrics and pods from what was recorded."""

    def __init__(
        self,
        load: Callable[[], Recorded | Unread],
        missing: Wording,
        *,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        scrape_interval: timedelta = SCRAPE_INTERVAL,
        namespace_label: str = NAMESPACE_LABEL,
    ) -> None:
        """
        Args:
            load: gives what was recorded, or why it cannot be used.
            missing: says what to do about what is not there.
            clock: gives the time of values that have none.
            scrape_interval: the longest one of the Prometheus server.
            namespace_label: what holds the namespace of a series of the Prometheus server.
        """
        self._load = load
        self._missing = missing
        self._clock = clock
        self._scrape_interval = scrape_interval
        self._namespace_label = namespace_label

    async def read(self, metric: MetricSpec, namespace: str, selector: Selector | None) -> Reading:  # noqa: ARG002
        """What is known of a metric now."""
        recorded = self._load()
        if isinstance(recorded, Unread):
            return Reading(unread=recorded)
        found = recorded.reading(
            metric,
            namespace,
            now=self._clock(),
            scrape_interval=self._scrape_interval,
            namespace_label=self._namespace_label,
        )
        return found or Reading(unread=Unread(reasons.NO_SAMPLE, self._missing(metric, namespace)))

    async def pods(self, namespace: str, selector: Selector) -> tuple[Pod, ...] | Unread:
        """The pods of a namespace that are selected, or why they are not known."""
        recorded = self._load()
        if isinstance(recorded, Unread):
            return recorded
        found = recorded.pods(namespace, selector)
        return Unread(reasons.NO_SAMPLE, self._missing(None, namespace)) if found is None else found


class MetricsFile:
    """A file with what metrics APIs would answer, read again when it changes."""

    def __init__(self, path: Path) -> None:
        """Nothing is read yet."""
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._problem = ""
        self._kept: Recorded | Unread = Unread(reasons.UNREACHABLE, "")

    def load(self) -> Recorded | Unread:
        """What it holds now, or why that cannot be used. Metrics are then missing until it is mended."""
        try:
            status = self._path.stat()
        except OSError as exc:
            self._stamp = None
            return self._told(_unread(f"{self._path} {problem(exc)}"))
        stamp = (status.st_mtime_ns, status.st_size, status.st_ino)
        if stamp != self._stamp:
            self._stamp = stamp
            self._kept = self._told(self._read(status.st_size))
        return self._kept

    def _read(self, size: int) -> Recorded | Unread:
        if size > FILE_BYTES:
            return _unread(f"{self._path} is larger than {FILE_BYTES >> 10} KiB")
        try:
            return Recorded.of(files.parse(self._path.read_text(encoding="utf-8")))
        except Unreadable as exc:
            return _unread(f"{self._path} {problem(exc)}")
        except Unrecognized as exc:
            return _unread(f"{self._path} holds {exc}")

    def _told(self, found: Recorded | Unread) -> Recorded | Unread:
        """The same; what is wrong is logged once."""
        wrong = found.message if isinstance(found, Unread) else ""
        if wrong and wrong != self._problem:
            log.warning("metrics_file_unusable", problem=wrong)
        self._problem = wrong
        return found

    def missing(self, metric: MetricSpec | None, namespace: str) -> str:
        """What to do about a metric, or pods, that it says nothing of."""
        if metric is None:
            return f"{self._path} holds no pods of namespace {namespace}: add them."
        return f"{self._path} says nothing of {metric.type} {metric_name(metric)} in {namespace}: add it."


def _unread(clause: str) -> Unread:
    return Unread(reasons.REFUSED, f"{clause}.")
