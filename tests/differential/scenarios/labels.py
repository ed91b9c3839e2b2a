"""Children and the selector that their labels have to match."""

from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.widgets import config_map, service
from tests.differential.world import World, composite_controller


@scenario
async def label_that_is_no_string(world: World) -> None:
    """A child with a label that is no string keeps all children from being applied and the status from being
    written."""
    world.respond(config_map(metadata={"labels": {"n": 1}}), service(), status=GOOD)
    await world.start()
    await world.rest("nothing")


@scenario
async def labels_that_are_no_map(world: World) -> None:
    """Labels that are a list or null fail the whole sync."""
    world.respond(config_map(metadata={"labels": ["n"]}), service(), status=GOOD)
    await world.start()
    await world.rest("nothing")
    world.respond(config_map(metadata={"labels": None}), service(), status=GOOD)
    await world.nudge()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def foreign_controller_uid(world: World) -> None:
    """A child with another parent's controller-uid fails the whole sync."""
    world.respond(config_map(metadata={"labels": {"controller-uid": "x"}}), service(), status=GOOD)
    await world.start()
    await world.rest("nothing")


@scenario
async def selector_of_the_parent(world: World) -> None:
    """Without generateSelector the parent's own selector counts, and an orphan that matches it is adopted."""
    labels = {"labels": {"app": "one"}}
    world.respond(config_map(metadata=labels), status=GOOD)
    await world.install(composite_controller(world.parent, world.hook.url, generateSelector=False))
    await world.create(config_map("orphan", metadata=labels))
    await world.create(world.parent_object(spec={"selector": {"matchLabels": {"app": "one"}}}))
    await world.rest("made")
    world.respond(config_map(), status=GOOD)
    await world.nudge()
    await world.rest("mismatch")


@scenario
async def parent_without_selector(world: World) -> None:
    """Without generateSelector and without a selector the hook is not called."""
    world.respond(config_map(), status=GOOD)
    await world.start(generateSelector=False)
    await world.rest("nothing", requests=0)
    world.note("asked", len(world.asked("/sync")))
