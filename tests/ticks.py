"""Time as a busy machine lets this process have it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


@asynccontextmanager
async def ticking() -> AsyncIterator[Callable[[], int]]:
    """Count hundredths of a second; a pause of this process or its loop counts as one, however long it is.

    Work without a wait takes a few of them on any machine, and a wait takes many. A duration in seconds cannot tell one
    from the other on a machine where everything takes long.
    """
    count = 0

    async def tick() -> None:
        nonlocal count
        while True:
            await asyncio.sleep(0.01)
            count += 1

    task = asyncio.create_task(tick())
    try:
        yield lambda: count
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
