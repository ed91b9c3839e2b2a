"""Long pages of the ports for administrators, rendered in slices between which the event loop serves everything else.

A page for thousands of models takes seconds to render. One page is rendered at a time, so that many who ask at once do
not slow the loop down together.
"""

import asyncio
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from fastapi import Request, Response
from prometheus_client import Metric, generate_latest
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

_T = TypeVar("_T")

SLICE_SECONDS: Final = 0.002
"""Seconds for which a page is rendered before the event loop gets a turn."""
SAMPLES: Final = 64
"""Samples that are rendered together."""
_AT_THE_END: Final = ("_created", "_gcount", "_gsum")
"""Endings of the samples that stand behind their family, as one of their own."""


class Pages:
    """Pages of one app."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()

    async def respond(self, request: Request, pieces: Iterable[bytes], content_type: str) -> Response:
        """Return a response whose body consists of `pieces`, which are made when it is this page's turn.

        A request whose client has gone meanwhile costs nothing more.
        """
        async with self._turn:
            if await request.is_disconnected():
                return Response()
            rendered, _ = await _in_slices(pieces)
        return Response(b"".join(rendered), headers={"content-type": content_type})

    async def run(self, steps: Iterable[object]) -> float:
        """Take the steps of something that is rendered, when it is its turn; return the seconds of the event loop."""
        async with self._turn:
            _, seconds = await _in_slices(steps)
        return seconds


async def _in_slices(pieces: Iterable[_T]) -> tuple[list[_T], float]:
    """Return pieces and the seconds that they took, between which the event loop gets its turns."""
    rendered: list[_T] = []
    taken = 0.0
    began = time.perf_counter()
    for piece in pieces:
        rendered.append(piece)
        if (seconds := time.perf_counter() - began) >= SLICE_SECONDS:
            taken += seconds
            await asyncio.sleep(0)
            began = time.perf_counter()
    return rendered, taken + time.perf_counter() - began


class _Part(Collector):
    """Collector of one metric family, or of a part of one."""

    def __init__(self, family: Metric, samples: Iterable[Sample]) -> None:
        self._family = Metric(family.name, family.documentation, family.type)
        self._family.samples = list(samples)

    def collect(self) -> Iterable[Metric]:
        """Return the family."""
        return (self._family,)


def metrics(collector: Collector) -> Iterator[bytes]:
    """Yield metrics in the text format of Prometheus, in small pieces.

    A collector may give a family in several parts, one behind the other, so that it need not make it at once.
    """
    family: Metric | None = None
    later: dict[str, list[Sample]] = {}
    for part in collector.collect():
        if family is None or part.name != family.name:
            yield from _later(family, later)
            family, later = part, {}
            yield generate_latest(_Part(family, ()))
        now: list[Sample] = []
        for sample in part.samples:
            ending = sample.name.removeprefix(family.name)
            (later.setdefault(ending, []) if ending in _AT_THE_END else now).append(sample)
        yield from _text(family, now, 2)
    yield from _later(family, later)


def _later(family: Metric | None, later: dict[str, list[Sample]]) -> Iterator[bytes]:
    """Yield the samples that stand behind their family, with a head for each kind of them."""
    if family is None:
        return
    for _, samples in sorted(later.items()):
        yield from _text(family, samples[:1], 2)
        yield from _text(family, samples[1:], 4)


def _text(family: Metric, samples: list[Sample], lines: int) -> Iterator[bytes]:
    """Yield the lines of samples, without as many lines as have stood before them already."""
    for start in range(0, len(samples), SAMPLES):
        yield generate_latest(_Part(family, samples[start : start + SAMPLES])).split(b"\n", lines)[lines]
