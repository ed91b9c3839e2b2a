"""SIGTERM and SIGINT as events of the loop; those that came before it are acted on at once."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any

import structlog

from program import early_signals

log = structlog.get_logger(__name__)


class Signals:
    """What the process has been told to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.stop = asyncio.Event()
        """Leave in an orderly way."""
        self.now = asyncio.Event()
        """Leave at once."""
        self.at_terminal = False
        """Whether it was a person (SIGINT)."""
        for number in early_signals.NUMBERS:
            loop.add_signal_handler(number, self._received, number)
        for number in early_signals.received:
            self._received(number)

    def _received(self, number: signal.Signals) -> None:
        if self.stop.is_set():
            self.now.set()
        self.at_terminal = number == signal.SIGINT
        log.info("signal", signal=number.name, second=self.now.is_set())
        self.stop.set()

    def close(self) -> None:
        """All is done: what comes between here and the end of the process changes nothing."""
        for number in early_signals.NUMBERS:
            self._loop.remove_signal_handler(number)
        early_signals.ignore()

    async def unless_now(self, waiting: Coroutine[Any, Any, object]) -> None:
        """Wait for `waiting`, or for the second signal, which cancels it."""
        tasks = {asyncio.ensure_future(waiting), asyncio.ensure_future(self.now.wait())}
        done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        for task in done:
            task.result()
