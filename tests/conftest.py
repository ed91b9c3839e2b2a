"""What all tests share: the event loop that the programs run on, and properties that no clock judges."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # a busy machine is no counterexample
settings.load_profile("patient")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Coroutine tests run on uvloop, as the programs do."""
    return {"uvloop": uvloop.new_event_loop}
