"""The parent's status, and what of a parent brings a sync."""

from typing import Any

from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.widgets import config_map
from tests.differential.world import World


@scenario
async def status_is_replaced_whole(world: World) -> None:
    """What another hand wrote goes; observedGeneration is Metacontroller's, whatever the hook says."""
    world.answers(status={"word": "one", "conditions": [{"type": "A", "status": "True"}]})
    await world.start()
    await world.rest("one")
    world.answers(status={"word": "two", "observedGeneration": 99})
    await world.nudge()
    await world.rest("two")
    await world.patch(world.parent.name, "one", {"spec": {"size": 5}})
    await world.rest("generation")
    world.answers()
    await world.nudge()
    await world.rest("empty")


@scenario
async def status_is_pruned(world: World) -> None:
    """Fields that the schema does not know are dropped, sync after sync, without a change."""
    world.answers(status={"word": "x", "unknown": 1, "conditions": [{"type": "A", "more": 1}]})
    await world.start()
    await world.rest("pruned")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def status_is_refused(world: World) -> None:
    """A status of the wrong type is not written; the children are applied."""
    world.answers(config_map(), status=GOOD)
    await world.start()
    await world.rest("good")
    for name, status in (("number", {"word": 5}), ("null", {"word": None}), ("null list", {"conditions": None})):
        world.answers(config_map(data={"key": name}), status=status)
        await world.nudge()
        await world.rest(name)


@scenario
async def status_with_numbers(world: World) -> None:
    """1.0 for an integer, an integer for a number, and one beyond 2^53."""
    world.answers(status={"ratio": 1.0})
    await world.start()
    await world.rest("float")
    await world.nudge()
    await world.rest("synced again")
    world.answers(status={"ratio": 2})
    await world.nudge()
    await world.rest("integer")
    world.answers(status={"ratio": 0.1})
    await world.nudge()
    await world.rest("fraction")
    world.answers(status={"ratio": 9007199254740993})
    await world.nudge()
    await world.rest("large")


@scenario
async def status_edited_is_ignored(world: World) -> None:
    """With ignoreStatusChanges a status of another hand stays until something else brings a sync."""
    world.answers(status=GOOD)
    await world.start()
    await world.rest("good")
    await world.patch(world.parent.name, "one", {"status": {"word": "mine"}}, status=True)
    await world.rest("not noticed", requests=0)
    await world.nudge()
    await world.rest("repaired")


@scenario
async def status_edited_is_noticed(world: World) -> None:
    """Without ignoreStatusChanges it brings a sync."""
    world.answers(status=GOOD)
    await world.start(parentResource={"apiVersion": world.parent.api_version, "resource": world.parent.plural})
    await world.rest("good")
    await world.patch(world.parent.name, "one", {"status": {"word": "mine"}}, status=True)
    await world.rest("repaired")


@scenario
async def what_brings_a_sync(world: World) -> None:
    """With ignoreStatusChanges: labels, annotations and generation do, finalizers do not."""
    world.answers(status=GOOD)
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
