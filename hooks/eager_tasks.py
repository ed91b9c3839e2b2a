"""Eager start of coroutines that mostly need not wait: only those that do become tasks.

Tasks can start eagerly themselves from Python 3.12 on: https://docs.python.org/3/library/asyncio-task.html,
`eager_start`. Before it waits for the first time, such a coroutine has no task of its own, so it must not enter an
`asyncio.timeout`.
"""

import asyncio
from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def start(coroutine_: Coroutine[Any, Any, T]) -> T | asyncio.Task[T]:
    """Run a coroutine until it waits. Return its result when it never does, else the task that continues it."""
    try:
        awaited = coroutine_.send(None)
    except StopIteration as done:
        result: T = done.value
        return result
    task = asyncio.create_task(_rest(coroutine_, awaited))
    task.add_done_callback(lambda _: coroutine_.close())  # A task that is cancelled at once never runs.
    return task


async def _rest(coroutine_: Coroutine[Any, Any, T], awaited: Any) -> T:
    return await _continue(coroutine_, awaited)


@coroutine
def _continue(coroutine_: Coroutine[Any, Any, T], awaited: Any) -> Generator[Any, Any, T]:
    """Continue a coroutine as `yield from` does (PEP 380): yield what it awaits, send it what comes back."""
    while True:
        try:
            try:
                value = yield awaited
            except BaseException as exc:  # noqa: BLE001 - the coroutine may catch it
                awaited = coroutine_.throw(exc)
            else:
                awaited = coroutine_.send(value)
        except StopIteration as done:
            result: T = done.value
            return result
