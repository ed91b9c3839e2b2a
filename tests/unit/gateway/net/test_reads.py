"""Reads that are spread over turns of the loop."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from gateway.net.reads import PacedReader


class Transport:
    """Transport that notes whether it is read."""

    def __init__(self) -> None:
        self.read = True
        self.closing = False

    def pause_reading(self) -> None:
        """Stop reading."""
        self.read = False

    def resume_reading(self) -> None:
        """Read again."""
        assert not self.closing
        self.read = True

    def is_closing(self) -> bool:
        """Return whether the connection is closed or closing."""
        return self.closing


@pytest.mark.parametrize(
    ("steps", "at_once", "later"),
    [
        ((PacedReader.rest,), False, True),
        ((PacedReader.rest, PacedReader.rest), False, True),
        ((PacedReader.rest, PacedReader.pause), False, False),
        ((PacedReader.pause, PacedReader.rest), False, False),
        ((PacedReader.rest, PacedReader.resume), False, True),
        ((PacedReader.rest, PacedReader.pause, PacedReader.resume), False, True),
        ((PacedReader.pause, PacedReader.resume), True, True),
    ],
    ids=["rest", "twice", "paused-later", "paused-before", "resumed", "paused-and-resumed", "no-rest"],
)
async def test_a_rest_ends_with_the_turn(
    steps: tuple[Callable[[PacedReader], None], ...], at_once: bool, later: bool
) -> None:
    """A connection that rests is read again in the next turn, if it is to be read then."""
    transport = Transport()
    reads = PacedReader(asyncio.get_running_loop(), cast("asyncio.ReadTransport", transport))
    for step in steps:
        step(reads)
    assert transport.read is at_once
    await asyncio.sleep(0)
    assert transport.read is later


async def test_a_connection_that_closes_while_it_rests_stays_as_it_is() -> None:
    """A connection that closes in the turn in which it rests is not read again."""
    transport = Transport()
    reads = PacedReader(asyncio.get_running_loop(), cast("asyncio.ReadTransport", transport))
    reads.rest()
    transport.closing = True
    await asyncio.sleep(0)
    assert not transport.read
