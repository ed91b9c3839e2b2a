"""Metrics from a file, which is read again when it changes and is named in a message while it cannot be used."""

import os
from pathlib import Path

import pytest

from hooks import reasons
from hooks.api.metrics import MetricSpec
from hooks.kube.selectors import Selector
from hooks.metrics import Sources
from hooks.metrics.installed import open_sources
from hooks.metrics.recordings import FILE_BYTES
from hooks.observation.readings import Unread
from hooks.settings import MetricInformer
from hooks.telemetry import Metrics
from tests.builders import external

QUEUE = MetricSpec.model_validate(external("queue"))
POD = "kind: Pod\napiVersion: v1\nmetadata: {name: a, labels: {app: a}}\n"


def value(number: int, name: str = "queue") -> str:
    """Return the content of a file with one value."""
    return f"kind: ExternalMetricValue\nmetricName: {name}\nvalue: {number}\n"


class Watched:
    """File of metrics, and what is read of it through the sources that hooks would have."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._turn = 0

    def write(self, text: str) -> None:
        """Replace the file's content, with another modification time than before."""
        self.path.write_text(text)
        self._turn += 1
        os.utime(self.path, ns=(self._turn, self._turn))

    async def reads(self, sources: Sources) -> str | Unread:
        """Return the only value of the metric, or the reason why there is none."""
        reading = await sources.metrics.read(QUEUE, "default", None)
        return reading.unread or str(reading.samples[0].value)


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """Return a file that does not exist yet."""
    return Watched(tmp_path / "metrics.yaml")


def informer(watched: Watched) -> MetricInformer:
    """Return the settings that name the file."""
    return MetricInformer.model_validate({"type": "file", "file": {"path": watched.path}})


async def test_a_changed_file_is_read_again(watched: Watched) -> None:
    """A reading has the file's present value and the present time."""
    async with open_sources(informer(watched), Metrics()) as sources:
        for number in (8, 12, 4):
            watched.write(value(number))
            assert await watched.reads(sources) == str(number)
        first, second = [(await sources.metrics.read(QUEUE, "default", None)).samples[0] for _ in range(2)]
        assert first.time <= second.time


@pytest.mark.parametrize(
    ("content", "reason", "words"),
    [
        (None, reasons.REFUSED, "metrics.yaml cannot be read: No such file or directory."),
        ("value: [", reasons.REFUSED, "metrics.yaml is not YAML in line 1: "),
        ("value: 1", reasons.REFUSED, "metrics.yaml holds something that is not a Kubernetes object with a kind."),
        ("#" * (FILE_BYTES + 1), reasons.REFUSED, "metrics.yaml is larger than 256 KiB."),
        (value(1, "other"), reasons.NO_SAMPLE, "metrics.yaml says nothing of External queue in default: add it."),
    ],
)
async def test_a_file_that_cannot_be_used(
    watched: Watched, content: str | None, reason: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that cannot be used is named with its mistake in the reading and once in the log, and a repaired file is
    read again."""
    async with open_sources(informer(watched), Metrics()) as sources:
        watched.write(value(1))
        assert await watched.reads(sources) == "1"
        if content is None:
            watched.path.unlink()
        else:
            watched.write(content)
        for _ in range(3):
            unread = await watched.reads(sources)
            assert isinstance(unread, Unread)
            assert unread.reason == reason
            assert words in unread.message
        assert capsys.readouterr().out.count("metrics_file_unusable") == (reason == reasons.REFUSED)
        watched.write(value(2))
        assert await watched.reads(sources) == "2"


async def test_pods(watched: Watched) -> None:
    """Pods are read from the same file, and a file without pods has another reason than one that cannot be read."""
    selector = Selector.of({"app": "a"})
    async with open_sources(informer(watched), Metrics()) as sources:
        watched.write(POD)
        pods = await sources.pods.pods("default", selector)
        assert isinstance(pods, tuple)
        assert [pod.name for pod in pods] == ["a"]
        results = [await sources.pods.pods("other", selector)]
        watched.path.unlink()
        results.append(await sources.pods.pods("default", selector))
    assert [result.reason for result in results if isinstance(result, Unread)] == [reasons.NO_SAMPLE, reasons.REFUSED]


def test_the_type_needs_a_path() -> None:
    """The settings refuse the type `file` without a path."""
    with pytest.raises(ValueError, match=r"set file\.path, which type file needs"):
        MetricInformer.model_validate({"type": "file"})
