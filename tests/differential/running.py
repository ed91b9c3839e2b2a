"""Runs of scenarios in a kind of world, several at a time, with the outcome of each."""

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
"""Record of a scenario, or the error that ended it, which the scenario's own test raises."""


async def run(scenarios: Iterable[Scenario], opening: Opening, *, at_once: int) -> dict[str, Outcome]:
    """Run all scenarios, at most `at_once` at the same time; those with one kind of parent run one after another."""
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
        # Scenarios that wait for each other are the last of the catalog and take longest, so they begin first.
        for scenario in reversed(list(scenarios)):
            group.create_task(one(scenario))
    return outcomes


def selected(request: pytest.FixtureRequest) -> list[Scenario]:
    """Return the scenarios that the selected tests of the fixture's module need."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function)]
    mine = [item for item in items if item.module is request.module and hasattr(item, "callspec")]
    return [ALL[str(name)] for name in dict.fromkeys(item.callspec.params["name"] for item in mine)]


def in_stand_ins(folder: Path) -> Opening:
    """Return an opening that gives every scenario a stand-in of its own below the folder."""

    @asynccontextmanager
    async def opening(scenario: Scenario) -> AsyncIterator[World]:
        place = folder / scenario.name
        crds = place / "crds"
        crds.mkdir(parents=True)
        (crds / "crd.yaml").write_text(yaml.safe_dump(scenario.crd))
        async with stand_in_world(scenario.name, scenario.parent, place, crds) as world:
            yield world

    return opening
