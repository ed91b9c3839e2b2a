"""Setup of all tests: coroutines run on the event loop of the programs, and properties have no deadline."""

import asyncio
from collections.abc import Callable, Mapping

import uvloop
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # a busy machine is no counterexample
settings.load_profile("patient")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return uvloop for tests that are coroutines, for the programs run on it."""
    return {"uvloop": uvloop.new_event_loop}
