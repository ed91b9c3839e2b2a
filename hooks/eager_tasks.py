"""Coroutines that mostly need not wait: those that do become tasks, the others cost no more than a call.

Tasks do that themselves from Python 3.12 on (`eager_start`): https://docs.python.org/3/library/asyncio-task.html. Until
it waits for the first time, such a coroutine must not ask for its own task, and so not begin an `asyncio.timeout`.
"""

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def begun(started: Coroutine[Any, Any, T]) -> T | asyncio.Task[T]:
    """Run a coroutine as far as it goes without waiting: its result, or the task that goes on with it."""
    try:
        waited_for = started.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    task = asyncio.create_task(_rest(started, waited_for))
    task.add_done_callback(lambda _: started.close())  # a task that is cancelled at once never runs
    return task


async def _rest(started: Coroutine[Any, Any, T], waited_for: Any) -> T:
    return await _go_on(started, waited_for)


@coroutine
def _go_on(started: Coroutine[Any, Any, T], waited_for: Any) -> Generator[Any, Any, T]:
    """Pass what it waits for on to the event loop, and back what comes of it (PEP 380)."""
    while True:
        try:
            try:
                came = yield waited_for
            except BaseException as exc:  # noqa: BLE001 - it is for the coroutine to catch
                waited_for = started.throw(exc)
            else:
                waited_for = started.send(came)
        except StopIteration as done:
            result: T = done.value
            return result
