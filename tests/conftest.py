"""Setup of all tests: coroutines run on the event loop of the programs, and properties have no deadline."""

import asyncio
import gc
from collections.abc import Callable, Generator, Mapping

import pytest
import uvloop
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # a busy machine is no counterexample
settings.load_profile("patient")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return uvloop for tests that are coroutines, for the programs run on it."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect without garbage collection, and leave what was collected out of it: it lives to the end of the run."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run where the groups of pytest-xdist have no effect: each process would make their costly fixtures."""
    if not config.getoption("loadgroup", default=False):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") and item.nodeid.rfind("@") <= item.nodeid.rfind("]"):
            raise pytest.UsageError("this pytest-xdist does not group tests under this pytest; pin both in pyproject")
