"""Runs scenarios in a kind of world, several at a time, and keeps what came of each."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest
import yaml

from tests.differential.catalog import ALL
from tests.differential.scenarios.registry import Scenario
from tests.differential.snapshots import Record
from tests.differential.stand_in import stand_in_world
from tests.differential.world import World

Opening = Callable[[Scenario], AbstractAsyncContextManager[World]]
Outcome = Record | Exception
"""What came of a scenario; an error is for its own test to raise."""


async def run(scenarios: Iterable[Scenario], opening: Opening, *, at_once: int) -> dict[str, Outcome]:
    """Run all scenarios, so many at once; those of one kind of parent one after another."""
    free = asyncio.Semaphore(at_once)
    alone: dict[str, asyncio.Lock] = {}
    outcomes: dict[str, Outcome] = {}

    async def one(scenario: Scenario) -> None:
        async with alone.setdefault(scenario.parent.resource, asyncio.Lock()), free:
            try:
                async with opening(scenario) as world:
                    await scenario.run(world)
                    outcomes[scenario.name] = world.record
            except Exception as error:  # noqa: BLE001 - raised again by the test of the scenario
                outcomes[scenario.name] = error

    async with asyncio.TaskGroup() as group:
        # Those that have to wait for each other are the last of the catalog and take longest: they begin first.
        for scenario in reversed(list(scenarios)):
            group.create_task(one(scenario))
    return outcomes


def selected(request: pytest.FixtureRequest) -> list[Scenario]:
    """The scenarios that the tests selected in the fixture's module need."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    mine = [item for item in items if item.module is request.module and hasattr(item, "callspec")]
    return [ALL[str(name)] for name in dict.fromkeys(item.callspec.params["name"] for item in mine)]


def in_stand_ins(folder: Path) -> Opening:
    """Every scenario gets a stand-in of its own below the folder."""

    @asynccontextmanager
    async def opening(scenario: Scenario) -> AsyncIterator[World]:
        place = folder / scenario.name
        crds = place / "crds"
        crds.mkdir(parents=True)
        (crds / "crd.yaml").write_text(yaml.safe_dump(scenario.crd))
        async with stand_in_world(scenario.name, scenario.parent, place, crds) as world:
            yield world

    return opening
