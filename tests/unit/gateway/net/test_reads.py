"""Large reads, which tenants take in turns."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from gateway.net.reads import PacedReader, ReadTurns


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


def rest(reads: PacedReader) -> None:
    """Let a connection rest."""
    reads.rest("a/llm")


@pytest.mark.parametrize(
    ("steps", "at_once", "later"),
    [
        ((rest,), False, True),
        ((rest, rest), False, True),
        ((rest, PacedReader.pause), False, False),
        ((PacedReader.pause, rest), False, False),
        ((rest, PacedReader.resume), False, True),
        ((rest, PacedReader.pause, PacedReader.resume), False, True),
        ((PacedReader.pause, PacedReader.resume), True, True),
    ],
    ids=["rest", "twice", "paused-later", "paused-before", "resumed", "paused-and-resumed", "no-rest"],
)
async def test_a_rest_ends_with_the_turn(
    steps: tuple[Callable[[PacedReader], None], ...], at_once: bool, later: bool
) -> None:
    """A connection that rests is read again in the next turn, if it is to be read then."""
    transport = Transport()
    reads = PacedReader(ReadTurns(asyncio.get_running_loop()), cast("asyncio.ReadTransport", transport))
    for step in steps:
        step(reads)
    assert transport.read is at_once
    await asyncio.sleep(0)
    assert transport.read is later


async def test_a_connection_that_closes_while_it_rests_stays_as_it_is() -> None:
    """A connection that closes in the turn in which it rests is not read again."""
    transport = Transport()
    reads = PacedReader(ReadTurns(asyncio.get_running_loop()), cast("asyncio.ReadTransport", transport))
    rest(reads)
    transport.closing = True
    await asyncio.sleep(0)
    assert not transport.read


async def test_each_tenant_has_one_turn_at_a_time() -> None:
    """Of the connections that rest one of each tenant is read in a turn, in their order, and none that is paused."""
    turns = ReadTurns(asyncio.get_running_loop())
    owners = ("a/one", "a/two", "a/one", "b/llm", "/192.0.2.1", "a/two", "/192.0.2.1", "/192.0.2.2")
    transports = [Transport() for _ in owners]
    readers = [PacedReader(turns, cast("asyncio.ReadTransport", one)) for one in transports]
    for reader, owner in zip(readers, owners, strict=True):
        reader.rest(owner)
    readers[1].pause()
    in_turns = []
    for _ in range(4):
        before = [one.read for one in transports]
        await asyncio.sleep(0)
        in_turns.append([n for n, one in enumerate(transports) if one.read and not before[n]])
    assert in_turns == [[0, 3, 4, 7], [2, 6], [5], []]
    readers[1].resume()
    assert transports[1].read
