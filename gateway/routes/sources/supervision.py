"""Keeps a source of routes running: its end is a fault of the gateway, which is shown, and it begins again."""

import asyncio
import time
from typing import Final

import structlog

from gateway.routes.sources import RouteSource
from gateway.routes.store import RouteStore

BACKOFF_SECONDS: Final = (0.2, 10.0)
"""Seconds until a source that has ended begins again, doubled from the first to the last."""
STEADY_SECONDS: Final = 60.0
"""Seconds after which a source ran well: when it ends later, the wait is the shortest again."""

log = structlog.get_logger(__name__)


async def keep_running(source: RouteSource, store: RouteStore) -> None:
    """Run a source until cancelled. While it has ended, the store says so and the gateway is not ready."""
    wait = BACKOFF_SECONDS[0]
    while True:
        began = time.monotonic()
        try:
            await source.run(store.apply, store.confirm)
        except Exception as exc:  # whatever it is, later changes of routes have to count
            log.exception("route_source_ended")
            error = f"the gateway failed at it: {type(exc).__name__}"
        else:
            log.error("route_source_ended")
            error = "it ended"
        store.source_ended(error)
        if time.monotonic() - began >= STEADY_SECONDS:
            wait = BACKOFF_SECONDS[0]
        await asyncio.sleep(wait)
        wait = min(2 * wait, BACKOFF_SECONDS[1])
