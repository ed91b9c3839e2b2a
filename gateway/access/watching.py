"""Mounted files about access, read again while the gateway runs; what cannot be used changes nothing."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

POLL_SECONDS: Final = 10.0
"""Seconds between two looks at a file or a directory."""
MOST_BYTES: Final = 1 << 20
"""Bytes of the largest file, and of the largest Secret or ConfigMap."""

_Content = TypeVar("_Content")

log = structlog.get_logger(__name__)


async def watch(
    read: Callable[[], _Content],
    apply: Callable[[_Content], None],
    *,
    seconds: float,
    unusable: str,
    failed: str,
    **place: str,
) -> None:
    """Read something again and again, until cancelled.

    Args:
        read: Function that reads it, in a thread; raises OSError where it cannot be read.
        apply: Function that takes what was read; raises ValueError with the reason where it has a mistake.
        seconds: Seconds before each read.
        unusable: Event of the log line that says why it does not count, once for each reason.
        failed: Event of the log line about a fault of the gateway.
        place: Where it is, for the first of these.
    """
    problem: str | None = None
    while True:
        await asyncio.sleep(seconds)
        try:
            apply(await asyncio.to_thread(read))
            problem = None
        except (OSError, ValueError) as exc:
            reason = (exc.strerror if isinstance(exc, OSError) else str(exc)) or type(exc).__name__
            if reason != problem:
                log.error(unusable, **place, reason=reason)
            problem = reason
        except Exception as exc:  # whatever it is, later changes have to count
            log.exception(failed, error=type(exc).__name__)
