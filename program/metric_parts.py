"""Parts of a page of metrics: some samples at a time, between which a program does its other work."""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Final, TypeVar

PART: Final = 16
"""Largest number of things whose samples are given to a page of metrics together."""

Item = TypeVar("Item")


def in_parts(items: Iterable[Item]) -> Iterator[list[Item]]:
    """Yield `PART` items at a time; once none where there are none, so that the page has the name of their metric."""
    rest = iter(items)
    yield list(islice(rest, PART))
    while part := list(islice(rest, PART)):
        yield part
