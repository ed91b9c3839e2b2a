"""Tests of `gateway.downstream.budget`: the memory budget and its queue."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.downstream.budget import MemoryBudget
from tests.deadlines import NEVER

OWNERS = ("a/x", "a/y", "b/x", "/10.0.0.1", "/10.0.0.2")


async def turns() -> None:
    """Let all tasks run as far as they can."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_reservation_waits_for_room_in_its_order() -> None:
    """What does not fit waits for memory to be given back, and none overtakes it."""
    budget = MemoryBudget(100, NEVER)
    await budget.reserve("a", 80)
    first = asyncio.create_task(budget.reserve("b", 60))
    second = asyncio.create_task(budget.reserve("c", 10))
    await turns()
    assert (budget.waiting, first.done(), second.done()) == (2, False, False)
    budget.give_back("a", 80)
    await asyncio.gather(first, second)
    assert (budget.used, budget.waiting) == (70, 0)


async def test_a_wait_ends_with_an_error_when_there_was_no_room_in_time() -> None:
    """A reservation that had no room in time is refused, and those behind it are served."""
    budget = MemoryBudget(100, 0.02)
    await budget.reserve("a", 80)
    with pytest.raises(errors.Overloaded):
        await budget.reserve("b", 60)
    assert (budget.used, budget.waiting, budget.refused) == (80, 0, 1)
    assert budget.take("b", 20)


async def test_what_can_never_fit_is_refused_at_once() -> None:
    """A body of more than the budget, or than one route's part of it, does not wait."""
    budget = MemoryBudget(100, NEVER)
    with pytest.raises(errors.BodyTooLarge):
        await budget.reserve("a", 101)
    budget.shared = True
    with pytest.raises(errors.BodyTooLarge):
        await budget.reserve("a", 51)


async def test_a_route_at_its_share_holds_up_no_other() -> None:
    """While there are several routes one of them has half at most, and its waiting requests hold up nobody else's."""
    budget = MemoryBudget(100, NEVER)
    budget.shared = True
    await budget.reserve("a", 50)
    waiting = asyncio.create_task(budget.reserve("a", 10))
    await turns()
    assert not waiting.done()
    assert not budget.take("a", 1)
    await budget.reserve("b", 50)
    budget.give_back("a", 20)
    await waiting
    assert budget.used == 90


async def test_a_namespace_at_its_share_holds_up_no_other() -> None:
    """While there are several namespaces, all routes of one of them have three quarters together at most."""
    budget = MemoryBudget(100, NEVER)
    budget.shared = budget.divided = True
    await budget.reserve("a/x", 50)
    await budget.reserve("a/y", 25)
    waiting = asyncio.create_task(budget.reserve("a/z", 10))
    await turns()
    assert not waiting.done()
    await budget.reserve("b/x", 20)
    budget.give_back("a/x", 50)
    await waiting
    assert budget.used == 55
    budget.divided = False
    assert budget.take("a/y", 25)
    assert budget.take("b/y", 20)


async def test_clients_whose_route_is_not_known_leave_room() -> None:
    """The address of a client has half at most while its route is not known, and all addresses three quarters."""
    budget = MemoryBudget(100, NEVER)
    budget.shared = True
    assert budget.take("/10.0.0.1", 50)
    assert not budget.take("/10.0.0.1", 1)
    assert budget.take("/10.0.0.2", 25)
    assert not budget.take("/10.0.0.3", 1)
    assert budget.take("a/x", 25)


async def test_a_cancelled_wait_leaves_nothing_behind() -> None:
    """A task that is cancelled while it waits, or at the moment when it gets its room, holds no memory afterwards."""
    budget = MemoryBudget(100, NEVER)
    await budget.reserve("a", 100)
    waiting = asyncio.create_task(budget.reserve("b", 10))
    served = asyncio.create_task(budget.reserve("c", 10))
    await turns()
    waiting.cancel()
    with suppress(asyncio.CancelledError):
        await waiting
    budget.give_back("a", 100)
    served.cancel()  # its room has just come
    with suppress(asyncio.CancelledError):
        await served
    assert (budget.used, budget.waiting) == (0, 0)


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.sampled_from(OWNERS), st.integers(1, 60)),
            st.tuples(st.just("give"), st.sampled_from(OWNERS), st.integers(1, 60)),
        )
    ),
    st.booleans(),
    st.booleans(),
)
def test_what_is_used_is_what_is_held(steps: list[tuple[str, str, int]], shared: bool, divided: bool) -> None:
    """Whatever is taken and given back, the sum is right, within the limit, and nobody is above their part."""
    budget = MemoryBudget(100)
    budget.shared, budget.divided = shared, shared and divided
    held = dict.fromkeys(OWNERS, 0)
    for step, owner, size in steps:
        if step == "take":
            fits = sum(held.values()) + size <= 100 and held[owner] + size <= (50 if shared else 100)
            together = sum(held[other] for other in OWNERS if other.split("/")[0] == owner.split("/")[0])
            if shared and (divided or owner.startswith("/")):
                fits = fits and together + size <= 75
            assert budget.take(owner, size) == fits
            held[owner] += size * fits
        elif size <= held[owner]:
            budget.give_back(owner, size)
            held[owner] -= size
        assert budget.used == sum(held.values()) <= 100
