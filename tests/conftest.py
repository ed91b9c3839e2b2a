"""Setup of all tests: coroutines run on the event loop of the programs, and properties have no deadline."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop
from hypothesis import settings

settings.register_profile("patient", deadline=None)  # a busy machine is no counterexample
settings.load_profile("patient")


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Return uvloop for tests that are coroutines, for the programs run on it."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Refuse to run where the groups of pytest-xdist have no effect: each process would make their costly fixtures."""
    if not config.getoption("loadgroup", default=False):
        return
    for item in items:
        if item.get_closest_marker("xdist_group") and item.nodeid.rfind("@") <= item.nodeid.rfind("]"):
            raise pytest.UsageError("this pytest-xdist does not group tests under this pytest; pin both in pyproject")
