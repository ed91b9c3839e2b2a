"""Limits of requests in flight: no slot is lost or given twice, and requests are served in their order."""

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
from gateway.backends.concurrency import CHECK_SECONDS, HIGH_IN_A_ROW, ConcurrencyLimit, make_room
from tests.deadlines import SECONDS


def all_taken(limit: int) -> ConcurrencyLimit:
    """Return a limit whose slots are all taken."""
    concurrency = ConcurrencyLimit()
    concurrency.apply(limit)
    concurrency.taken = limit
    return concurrency


async def test_a_wait_has_an_end() -> None:
    """Every wait ends after its own time with an error that has a Retry-After, with one timer for all."""
    concurrency = all_taken(1)
    started = asyncio.get_running_loop().time()
    waits = [asyncio.ensure_future(concurrency.wait(0.1)) for _ in range(50)]
    await asyncio.sleep(0.05)
    waits.append(asyncio.ensure_future(concurrency.wait(0.1)))
    for wait in waits:
        with pytest.raises(errors.QueueTimeout) as refused:
            await wait
        assert refused.value.retry_after == 1
    assert asyncio.get_running_loop().time() - started > 0.14
    assert (concurrency.taken, concurrency.waiting) == (1, 0)
    concurrency.release()
    assert concurrency.taken == 0


async def test_cp_07_a_wait_cancelled_as_it_expires_releases_no_slot() -> None:
    """CP-07: a wait that expires and is cancelled at the same moment has no slot to release."""
    concurrency = all_taken(1)
    wait = asyncio.ensure_future(concurrency.wait(10))
    await asyncio.sleep(0)
    concurrency.expire(asyncio.get_running_loop().time() + 20)
    wait.cancel()
    with pytest.raises(asyncio.CancelledError):
        await wait
    assert (concurrency.taken, concurrency.waiting) == (1, 0)


async def test_a_removed_limit_ends_all_waits() -> None:
    """No request waits without a limit; a limit below the slots in use is reached as slots are released."""
    concurrency = all_taken(2)
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


async def test_cp_07_a_cancelled_wait_passes_its_slot_on() -> None:
    """CP-07: a slot goes to the next request when the client of the first one leaves at the same moment."""
    concurrency = all_taken(1)
    first, second = [asyncio.ensure_future(concurrency.wait(10)) for _ in range(2)]
    await asyncio.sleep(0)
    concurrency.release()
    first.cancel()
    await second
    assert first.cancelled()
    assert (concurrency.taken, concurrency.waiting) == (1, 0)


async def test_another_backend_takes_the_first_waiting_request() -> None:
    """Waiting requests go to another backend one after the other, as long as it has room."""
    concurrency, room = all_taken(1), 0
    gone: list[int] = []

    def alternative() -> str | None:
        return "there" if len(gone) < room else None

    async def one(number: int) -> None:
        assert await concurrency.wait(10, alternative) == "there"
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


async def test_a_wait_with_an_alternative_ends_in_time() -> None:
    """A request that no other backend takes gets its error after its own time."""
    concurrency = all_taken(1)
    started = asyncio.get_running_loop().time()
    with pytest.raises(errors.QueueTimeout):
        await concurrency.wait(2.5 * CHECK_SECONDS, lambda: None)
    assert asyncio.get_running_loop().time() - started > 2.4 * CHECK_SECONDS


async def order_of(kinds: str, slots: int) -> str:
    """Return the order in which waiting requests get slots: `h` for those of high priority, `n` for others."""
    concurrency = all_taken(1)
    served: list[str] = []

    async def one(kind: str) -> None:
        await concurrency.wait(SECONDS, high=kind == "h")
        served.append(kind)

    waits = [asyncio.ensure_future(one(kind)) for kind in kinds]
    await asyncio.sleep(0)
    for _ in range(slots):
        concurrency.release()
        await asyncio.sleep(0)
    for wait in waits:
        wait.cancel()
    await asyncio.gather(*waits, return_exceptions=True)
    assert concurrency.waiting == 0
    return "".join(served)


@pytest.mark.parametrize(
    ("kinds", "order"),
    [
        ("nnhh", "hhnn"),
        ("nnhhhhhhhhhh", "hhhhnhhhhnhh"),
        ("hhhhhhhn", "hhhhnhhh"),
        ("hhhhhhh", "hhhhhhh"),
        ("nnn", "nnn"),
    ],
)
async def test_high_priority_comes_first(kinds: str, order: str) -> None:
    """Requests of high priority get slots first, but one slot of five goes to one of the others while any waits."""
    assert await order_of(kinds, len(kinds)) == order


async def test_no_row_is_counted_while_nobody_else_waits() -> None:
    """A request of normal priority that comes after a long row of others is behind the one that waits already."""
    concurrency = all_taken(1)
    for _ in range(2 * HIGH_IN_A_ROW):
        wait = asyncio.ensure_future(concurrency.wait(SECONDS, high=True))
        await asyncio.sleep(0)
        concurrency.release()
        await wait
    high, normal = (asyncio.ensure_future(concurrency.wait(SECONDS, high=one)) for one in (True, False))
    await asyncio.sleep(0)
    concurrency.release()
    await high
    assert not normal.done()
    concurrency.release()
    await normal


async def test_a_request_of_high_priority_looks_at_another_backend_at_once() -> None:
    """It is asked for first whether another backend takes it, though one that waits for nothing else was there."""
    concurrency = all_taken(1)
    pinned = asyncio.ensure_future(concurrency.wait(SECONDS))
    await asyncio.sleep(0)
    assert await concurrency.wait(SECONDS, lambda: "there", high=True) == "there"
    pinned.cancel()


@pytest.mark.parametrize(
    ("places", "waiting", "high", "room"),
    [
        (5, "nnnnn", True, "nnnnH"),
        (5, "nhhhh", True, "refused"),
        (5, "hhhhh", False, "hhhhN"),
        (5, "nhhhh", False, "refused"),
        (1, "n", True, "H"),
        (1, "h", False, "refused"),
        (1, "h", True, "refused"),
        (2, "hh", False, "refused"),
        (0, "", True, "refused"),
    ],
)
async def test_places_in_a_full_queue(places: int, waiting: str, high: bool, room: str) -> None:
    """In a full queue four fifths of the places are for high priority, and a fifth for others."""
    concurrency = all_taken(1)
    waits = [asyncio.ensure_future(concurrency.wait(SECONDS, high=kind == "h")) for kind in waiting]
    await asyncio.sleep(0)
    found = make_room((ConcurrencyLimit(), concurrency), places, high=high)
    await asyncio.sleep(0)
    left = [kind for kind, wait in zip(waiting, waits, strict=True) if not wait.done()]
    assert "".join([*left, "H" if high else "N"] if found else ["refused"]) == room
    for wait in waits:
        if wait.done():
            with pytest.raises(errors.AtCapacity):
                await wait
        wait.cancel()


class Queue(RuleBasedStateMachine):
    """State machine: requests take slots, wait, are cancelled and release slots in any order.

    Meanwhile the limit changes, waits expire, and another backend has room now and then.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.concurrency = ConcurrencyLimit()
        self.holders = 0
        self.queue: list[asyncio.Task[str | None]] = []
        """Waiting requests, in their order."""
        self.high: set[asyncio.Task[str | None]] = set()
        """Those of high priority, which may have ended since."""
        self.room = 0
        """Requests that the other backend can take."""
        self.limit: float = 0

    @initialize(limit=st.integers(1, 4))
    def begin(self, limit: int) -> None:
        """Begin with a limit."""
        self.change(limit)

    @rule(limit=st.integers(1, 4) | st.none())
    def change(self, limit: int | None) -> None:
        """Change the limit, as another document does."""
        self.limit = float("inf") if limit is None else limit
        self.concurrency.apply(limit)
        self.settle()

    @rule(high=st.booleans())
    def ask(self, high: bool) -> None:
        """Let a request take a slot if one is free, otherwise wait."""
        if self.concurrency.taken < self.concurrency.limit:
            self.concurrency.taken += 1
            self.holders += 1
        else:
            task = self.loop.create_task(self.wait(high))
            self.queue.append(task)
            if high:
                self.high.add(task)
            self.settle()

    async def wait(self, high: bool) -> str | None:
        """Wait; count the request at the other backend if it goes there."""
        other = await self.concurrency.wait(1000, lambda: "there" if self.room else None, high=high)
        if other is not None:
            self.room -= 1
        return other

    @rule(room=st.integers(0, 3))
    def check(self, room: int) -> None:
        """Let the other backend have room for some of the waiting requests."""
        self.room = room
        self.concurrency.check(self.loop)
        self.settle()
        assert not self.queue or not self.room
        self.room = 0

    @precondition(lambda self: self.holders)
    @rule()
    def release(self) -> None:
        """End a request that holds a slot."""
        self.holders -= 1
        self.concurrency.release()
        self.settle()

    @precondition(lambda self: self.queue)
    @rule(
        which=st.integers(0, 100),
        also=st.sampled_from(["nothing", "released before", "released after", "expired", "alternative"]),
    )
    def give_up(self, which: int, also: str) -> None:
        """Cancel a waiting request, perhaps just as it gets a slot or as its time is over."""
        task = self.queue[which % len(self.queue)]
        if also == "released before" and self.holders:
            self.holders -= 1
            self.concurrency.release()
        if also == "alternative":
            self.room = 1
            self.concurrency.check(self.loop)
        task.cancel()
        if also == "released after" and self.holders:
            self.holders -= 1
            self.concurrency.release()
        if also == "expired":
            self.concurrency.expire(0.0)  # ends only waits that are cancelled already
        self.settle()
        self.room = 0

    @rule(high=st.booleans())
    def evict(self, high: bool) -> None:
        """Let the last request of a priority lose its place to another one."""
        those = [task for task in self.queue if (task in self.high) is high]
        assert self.concurrency.evict(high=high) is bool(those)
        if those:
            with pytest.raises(errors.AtCapacity):
                self.loop.run_until_complete(those[-1])
            self.queue.remove(those[-1])
        self.settle()

    @precondition(lambda self: self.queue)
    @rule()
    def expire(self) -> None:
        """Let the time of all waiting requests be over."""
        self.concurrency.expire(self.loop.time() + 2000)
        for task in self.queue:
            with pytest.raises(errors.QueueTimeout):
                self.loop.run_until_complete(task)
        self.queue = []

    def settle(self) -> None:
        """Run the loop until nothing changes; check that no request has overtaken another of its priority."""
        for _ in range(10):
            self.loop.run_until_complete(asyncio.sleep(0))
        done = [task for task in self.queue if task.done() and not task.cancelled()]
        waiting = [task for task in self.queue if not task.done()]
        served = [task for task in self.queue if not task.cancelled()]
        for high in (True, False):
            order = [task for task in served if (task in self.high) is high]
            assert order == [task for task in done + waiting if (task in self.high) is high]
        self.holders += sum(task.result() is None for task in done)
        self.queue = waiting

    @invariant()
    def none_is_lost(self) -> None:
        """Check that every slot in use has a holder, and that no request waits while a slot is free."""
        assert self.concurrency.taken == self.holders
        assert self.concurrency.waiting == len(self.queue)
        assert not self.queue or self.concurrency.taken >= self.limit

    def teardown(self) -> None:
        """Cancel all waiting requests."""
        for task in self.queue:
            task.cancel()
        self.settle()
        self.loop.close()


def test_cp_07_no_slot_is_lost_in_any_order() -> None:
    """CP-07: no slot is lost or given twice in any order of events, and no request overtakes one of its priority."""
    run_state_machine_as_test(Queue, settings=settings(stateful_step_count=60))
