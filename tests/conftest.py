"""What all tests share: the event loop that the programs run on."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Coroutine tests run on uvloop, as the programs do."""
    return {"uvloop": uvloop.new_event_loop}
