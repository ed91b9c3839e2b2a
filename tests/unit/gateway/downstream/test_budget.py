"""Tests of `gateway.downstream.budget`: the memory budget and its queue."""

import asyncio
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.downstream.budget import MemoryBudget
from tests.deadlines import NEVER


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
            st.tuples(st.just("take"), st.sampled_from("abc"), st.integers(1, 60)),
            st.tuples(st.just("give"), st.sampled_from("abc"), st.integers(1, 60)),
        )
    ),
    st.booleans(),
)
def test_what_is_used_is_what_is_held(steps: list[tuple[str, str, int]], shared: bool) -> None:
    """Whatever is taken and given back, the sum is right, within the limit, and no owner is above its part."""
    budget = MemoryBudget(100)
    budget.shared = shared
    held = dict.fromkeys("abc", 0)
    for step, owner, size in steps:
        if step == "take":
            fits = sum(held.values()) + size <= 100 and held[owner] + size <= (50 if shared else 100)
            assert budget.take(owner, size) == fits
            held[owner] += size * fits
        elif size <= held[owner]:
            budget.give_back(owner, size)
            held[owner] -= size
        assert budget.used == sum(held.values()) <= 100
