"""Slots: never more than there are, none lost, in the order of asking."""

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gateway import errors
from gateway.backends.concurrency import CHECK_SECONDS, ConcurrencyLimit
from tests.deadlines import SECONDS


def taken_all(limit: int) -> ConcurrencyLimit:
    """Return a limit whose slots are all taken."""
    concurrency = ConcurrencyLimit()
    concurrency.apply(limit)
    concurrency.taken = limit
    return concurrency


async def test_a_wait_has_an_end() -> None:
    """Whoever waits in vain learns it in time, with one timer for all; a later one waits for its own time."""
    concurrency = taken_all(1)
    started = asyncio.get_running_loop().time()
    waits = [asyncio.ensure_future(concurrency.wait(0.1)) for _ in range(50)]
    await asyncio.sleep(0.05)
    waits.append(asyncio.ensure_future(concurrency.wait(0.1)))
    for wait in waits:
        with pytest.raises(errors.QueueTimeout) as refused:
            await wait
        assert refused.value.retry_after == 1
    assert 0.14 < asyncio.get_running_loop().time() - started < 2
    assert (concurrency.taken, concurrency.waiting) == (1, 0)
    concurrency.release()
    assert concurrency.taken == 0


async def test_cp_07_whoever_goes_as_the_time_is_up_takes_nothing_along() -> None:
    """CP-07: a wait that ends and is given up at the same moment had no permit to give back."""
    concurrency = taken_all(1)
    wait = asyncio.ensure_future(concurrency.wait(10))
    await asyncio.sleep(0)
    concurrency.expire(asyncio.get_running_loop().time() + 20)
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait
    assert (concurrency.taken, concurrency.waiting) == (1, 0)


async def test_a_lifted_limit_lets_everybody_in() -> None:
    """Without a limit nobody waits; a lower one than is taken is reached by and by."""
    concurrency = taken_all(2)
    waits = [asyncio.ensure_future(concurrency.wait(10)) for _ in range(3)]
    await asyncio.sleep(0)
    concurrency.apply(None)
    await asyncio.gather(*waits)
    assert (concurrency.taken, concurrency.waiting) == (5, 0)
    concurrency.apply(1)
    waiting = asyncio.ensure_future(concurrency.wait(10))
    await asyncio.sleep(0)
    for left in (4, 3, 2, 1):
        concurrency.release()
        await asyncio.sleep(0)
        assert (concurrency.taken, waiting.done()) == (left, False)
    concurrency.release()
    await waiting
    assert concurrency.taken == 1


async def test_cp_07_whoever_goes_gives_its_place_on() -> None:
    """CP-07: a permit that comes to one whose client goes in the same moment is the next one's."""
    concurrency = taken_all(1)
    first, second = [asyncio.ensure_future(concurrency.wait(10)) for _ in range(2)]
    await asyncio.sleep(0)
    concurrency.release()
    first.cancel()
    await second
    assert first.cancelled()
    assert (concurrency.taken, concurrency.waiting) == (1, 0)


async def test_somebody_else_takes_the_first_in_line() -> None:
    """Those that wait are asked one after the other whether there is somebody else, each after the one before went."""
    concurrency, room = taken_all(1), 0
    gone: list[int] = []

    def elsewhere() -> str | None:
        return "there" if len(gone) < room else None

    async def one(number: int) -> None:
        assert await concurrency.wait(10, elsewhere) == "there"
        gone.append(number)

    waits = [asyncio.ensure_future(one(number)) for number in range(5)]
    await asyncio.sleep(2 * CHECK_SECONDS)
    assert (gone, concurrency.waiting) == ([], 5)
    room = 3
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*waits[:3])
    assert (gone, concurrency.waiting, concurrency.taken) == ([0, 1, 2], 2, 1)
    room = 5
    async with asyncio.timeout(SECONDS):
        await asyncio.gather(*waits)
    assert gone == [0, 1, 2, 3, 4]


async def test_a_wait_that_may_go_elsewhere_has_the_same_end() -> None:
    """Whoever nobody takes learns it in time."""
    concurrency = taken_all(1)
    started = asyncio.get_running_loop().time()
    with pytest.raises(errors.QueueTimeout):
        await concurrency.wait(2.5 * CHECK_SECONDS, lambda: None)
    assert 2.4 * CHECK_SECONDS < asyncio.get_running_loop().time() - started < 2


class Line(RuleBasedStateMachine):
    """Requests that take, wait, give up and give back in any order, while the limit and the time move, and another
    backend has room for some now and then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.concurrency = ConcurrencyLimit()
        self.holders = 0
        self.line: list[asyncio.Task[str | None]] = []
        """Those that wait, in their order."""
        self.room = 0
        """Of the other backend."""
        self.limit: float = 0

    @initialize(limit=st.integers(1, 4))
    def begin(self, limit: int) -> None:
        """There is a limit."""
        self.change(limit)

    @rule(limit=st.integers(1, 4) | st.none())
    def change(self, limit: int | None) -> None:
        """Another document comes."""
        self.limit = float("inf") if limit is None else limit
        self.concurrency.apply(limit)
        self.settle()

    @rule()
    def ask(self) -> None:
        """A request takes a permit where there is one, else it waits."""
        if self.concurrency.taken < self.concurrency.limit:
            self.concurrency.taken += 1
            self.holders += 1
        else:
            self.line.append(self.loop.create_task(self.wait()))
            self.settle()

    async def wait(self) -> str | None:
        """Wait; the request counts where it goes."""
        other = await self.concurrency.wait(1000, lambda: "there" if self.room else None)
        if other is not None:
            self.room -= 1
        return other

    @rule(room=st.integers(0, 3))
    def look(self, room: int) -> None:
        """The other backend has room for some of those that wait."""
        self.room = room
        self.concurrency.check(self.loop)
        self.settle()
        assert not self.line or not self.room
        self.room = 0

    @precondition(lambda self: self.holders)
    @rule()
    def release(self) -> None:
        """A request ends."""
        self.holders -= 1
        self.concurrency.release()
        self.settle()

    @precondition(lambda self: self.line)
    @rule(
        which=st.integers(0, 100),
        also=st.sampled_from(["nothing", "given before", "given after", "expired", "elsewhere"]),
    )
    def give_up(self, which: int, also: str) -> None:
        """The client of one that waits goes, perhaps just as a permit comes, or as its time is up."""
        task = self.line[which % len(self.line)]
        if also == "given before" and self.holders:
            self.holders -= 1
            self.concurrency.release()
        if also == "elsewhere":
            self.room = 1
            self.concurrency.check(self.loop)
        task.cancel()
        if also == "given after" and self.holders:
            self.holders -= 1
            self.concurrency.release()
        if also == "expired":
            self.concurrency.expire(0.0)  # of nobody but those that are gone
        self.settle()
        self.room = 0

    @precondition(lambda self: self.line)
    @rule()
    def expire(self) -> None:
        """The time of all that wait is up."""
        self.concurrency.expire(self.loop.time() + 2000)
        for task in self.line:
            with pytest.raises(errors.QueueTimeout):
                self.loop.run_until_complete(task)
        self.line = []

    def settle(self) -> None:
        """Let everybody notice; nobody has overtaken anybody."""
        for _ in range(10):
            self.loop.run_until_complete(asyncio.sleep(0))
        done = [task for task in self.line if task.done() and not task.cancelled()]
        waiting = [task for task in self.line if not task.done()]
        served = [task for task in self.line if not task.cancelled()]
        assert served == done + waiting
        self.holders += sum(task.result() is None for task in done)
        self.line = waiting

    @invariant()
    def none_is_lost(self) -> None:
        """What is taken is held by somebody, and nobody waits while there is one."""
        assert self.concurrency.taken == self.holders
        assert self.concurrency.waiting == len(self.line)
        assert not self.line or self.concurrency.taken >= self.limit

    def teardown(self) -> None:
        """End all."""
        for task in self.line:
            task.cancel()
        self.settle()
        self.loop.close()


def test_cp_07_no_place_is_lost_in_any_order() -> None:
    """CP-07: permits are neither lost nor doubled, and nobody is overtaken, whatever comes after what."""
    run_state_machine_as_test(Line, settings=settings(stateful_step_count=60))
