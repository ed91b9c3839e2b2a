"""The parent's status, and the changes of a parent that bring a sync."""

from typing import Any

from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.widgets import config_map
from tests.differential.world import World


@scenario
async def status_is_replaced_whole(world: World) -> None:
    """The hook's status replaces the whole stored one; Metacontroller itself sets observedGeneration."""
    world.respond(status={"word": "one", "conditions": [{"type": "A", "status": "True"}]})
    await world.start()
    await world.rest("one")
    world.respond(status={"word": "two", "observedGeneration": 99})
    await world.nudge()
    await world.rest("two")
    await world.patch(world.parent.name, "one", {"spec": {"size": 5}})
    await world.rest("generation")
    world.respond()
    await world.nudge()
    await world.rest("empty")


@scenario
async def status_is_pruned(world: World) -> None:
    """Fields of the status that the schema does not know are dropped, and cause no write at the next sync."""
    world.respond(status={"word": "x", "unknown": 1, "conditions": [{"type": "A", "more": 1}]})
    await world.start()
    await world.rest("pruned")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def status_is_refused(world: World) -> None:
    """A status of the wrong type is not written, and the children are applied."""
    world.respond(config_map(), status=GOOD)
    await world.start()
    await world.rest("good")
    for name, status in (("number", {"word": 5}), ("null", {"word": None}), ("null list", {"conditions": None})):
        world.respond(config_map(data={"key": name}), status=status)
        await world.nudge()
        await world.rest(name)


@scenario
async def status_with_numbers(world: World) -> None:
    """Numbers of a status are stored exactly, and 1.0 in the place of 1 causes no second write."""
    world.respond(status={"ratio": 1.0})
    await world.start()
    await world.rest("float")
    await world.nudge()
    await world.rest("synced again")
    world.respond(status={"ratio": 2})
    await world.nudge()
    await world.rest("integer")
    world.respond(status={"ratio": 0.1})
    await world.nudge()
    await world.rest("fraction")
    world.respond(status={"ratio": 9007199254740993})
    await world.nudge()
    await world.rest("large")


@scenario
async def status_edited_is_ignored(world: World) -> None:
    """With ignoreStatusChanges a status that a user edits stays until another change brings a sync."""
    world.respond(status=GOOD)
    await world.start()
    await world.rest("good")
    await world.patch(world.parent.name, "one", {"status": {"word": "mine"}}, status=True)
    await world.rest("not noticed", requests=0)
    await world.nudge()
    await world.rest("repaired")


@scenario
async def status_edited_is_noticed(world: World) -> None:
    """Without ignoreStatusChanges an edit of the status brings a sync."""
    world.respond(status=GOOD)
    await world.start(parentResource={"apiVersion": world.parent.api_version, "resource": world.parent.plural})
    await world.rest("good")
    await world.patch(world.parent.name, "one", {"status": {"word": "mine"}}, status=True)
    await world.rest("repaired")


@scenario
async def what_brings_a_sync(world: World) -> None:
    """With ignoreStatusChanges a new label, annotation or generation brings a sync, and a finalizer does not."""
    world.respond(status=GOOD)
    await world.start()
    await world.rest("good")
    changes: dict[str, dict[str, Any]] = {
        "finalizers": {"metadata": {"finalizers": ["example.com/wait"]}},
        "no finalizers": {"metadata": {"finalizers": None}},
        "labels": {"metadata": {"labels": {"a": "b"}}},
        "annotations": {"metadata": {"annotations": {"a": "b"}}},
        "spec": {"spec": {"size": 4}},
        "spec as it is": {"spec": {"size": 4}},
    }
    for name, change in changes.items():
        before = len(world.hook.requests)
        await world.patch(world.parent.name, "one", change)
        await world.rest(name, requests=0)
        world.note(name, len(world.hook.requests) > before)
