"""Coroutines that need not wait cost no task; the others go on in one."""

import asyncio

import pytest

from hooks.eager_tasks import begun
from tests.deadlines import SECONDS


async def test_what_need_not_wait_is_there_at_once() -> None:
    """The result, without a task; what is raised is raised."""

    async def answer(value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return value

    before = asyncio.all_tasks()
    assert begun(answer(3)) == 3
    with pytest.raises(ValueError, match="negative"):
        begun(answer(-1))
    assert asyncio.all_tasks() == before


async def test_what_waits_goes_on_as_a_task() -> None:
    """It has run up to where it waits, goes on when that comes, and waits as often as it likes."""
    steps: list[str] = []
    first: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def answer() -> str:
        steps.append("begun")
        steps.append(await first)
        await asyncio.sleep(0)
        async with asyncio.timeout(SECONDS):
            await asyncio.sleep(0)
        return "done"

    task = begun(answer())
    assert isinstance(task, asyncio.Task)
    assert steps == ["begun"]
    first.set_result("came")
    assert await task == "done"
    assert steps == ["begun", "came"]


async def test_failures_and_cancellation_reach_it() -> None:
    """What it waits for may fail, and whoever has the task may cancel it: its own code sees both."""
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

    mended, cancelled = begun(wait_for(failing)), begun(wait_for(never))
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
    """Cancelled before it goes on for the first time, the coroutine is closed all the same."""
    left: list[str] = []
    never: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def wait() -> None:
        try:
            await never
        finally:
            left.append("left")

    task = begun(wait())
    assert isinstance(task, asyncio.Task)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0)
    assert left == ["left"]
