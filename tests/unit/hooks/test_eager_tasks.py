"""Eager start of coroutines: those that need not wait cost no task, the others continue in one."""

import asyncio

import pytest

from hooks.eager_tasks import start
from tests.deadlines import SECONDS


async def test_a_coroutine_that_does_not_wait_returns_at_once() -> None:
    """A coroutine that never waits gives its result, or raises its exception, without a task."""

    async def work(value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return value

    before = asyncio.all_tasks()
    assert start(work(3)) == 3
    with pytest.raises(ValueError, match="negative"):
        start(work(-1))
    assert asyncio.all_tasks() == before


async def test_a_coroutine_that_waits_becomes_a_task() -> None:
    """A coroutine that waits runs up to there at once, and continues as a task that may wait again."""
    steps: list[str] = []
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def work() -> str:
        steps.append("begun")
        steps.append(await first)
        await asyncio.sleep(0)
        async with asyncio.timeout(SECONDS):
            await asyncio.sleep(0)
        return "done"

    task = start(work())
    assert isinstance(task, asyncio.Task)
    assert steps == ["begun"]
    first.set_result("came")
    assert await task == "done"
    assert steps == ["begun", "came"]


async def test_failures_and_cancellation_reach_the_coroutine() -> None:
    """The coroutine sees the exception of what it awaits, and the cancellation of its task."""
    seen: list[str] = []
    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait_for(future: "asyncio.Future[None]") -> str:
        try:
            await future
        except OSError:
            seen.append("failed")
            return "mended"
        finally:
            seen.append("left")
        return "fine"

    mended, cancelled = start(wait_for(failing)), start(wait_for(never))
    assert isinstance(mended, asyncio.Task)
    assert isinstance(cancelled, asyncio.Task)
    failing.set_exception(OSError())
    assert await mended == "mended"
    cancelled.cancel()
    with pytest.raises(asyncio.CancelledError):
        await cancelled
    assert seen == ["failed", "left", "left"]
    assert never.cancelled()


async def test_a_task_that_never_ran_leaves_nothing_open() -> None:
    """A coroutine whose task is cancelled before it runs is closed nevertheless."""
    left: list[str] = []
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        try:
            await never
        finally:
            left.append("left")

    task = start(wait())
    assert isinstance(task, asyncio.Task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert left == ["left"]
