"""SIGTERM and SIGINT as events of the loop. Signals that came before the loop ran count from its start."""

import asyncio
import signal
from collections.abc import Coroutine
from types import FrameType
from typing import Any

import structlog

from program import early_signals

log = structlog.get_logger(__name__)


class Signals:
    """The signals that the process has received, as the orders that they mean."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.stop = asyncio.Event()
        """Set by the first signal: the process ends once the running requests have ended."""
        self.now = asyncio.Event()
        """Set by the second signal: the process ends at once."""
        self.at_terminal = False
        """Whether the last signal came from a terminal (SIGINT)."""
        for number in early_signals.NUMBERS:
            signal.signal(number, self._arrived)
        for number in early_signals.received:
            self._received(number)

    def _arrived(self, number: int, _frame: FrameType | None) -> None:
        self._loop.call_soon_threadsafe(self._received, signal.Signals(number))

    def _received(self, number: signal.Signals) -> None:
        if self.stop.is_set():
            self.now.set()
        self.at_terminal = number == signal.SIGINT
        log.info("signal", signal=number.name, second=self.now.is_set())
        self.stop.set()

    def close(self) -> None:
        """Ignore the signals from now on, for the process is about to end.

        They are no handlers of the loop: where a loop removes one, the signal has its default effect for a moment.
        """
        early_signals.ignore()

    async def unless_now(self, waiting: Coroutine[Any, Any, object]) -> None:
        """Wait for `waiting` to end, or for the second signal, which cancels it."""
        tasks = {asyncio.ensure_future(waiting), asyncio.ensure_future(self.now.wait())}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()
