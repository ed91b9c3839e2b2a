"""How each update method treats children, and when children are left alone."""

from tests.differential.scenarios.registry import Run, register, scenario
from tests.differential.widgets import config_map
from tests.differential.world import World, rule


def _method(method: str | None) -> Run:
    async def run(world: World) -> None:
        world.respond(config_map(data={"v": "1"}))
        await world.start(childResources=[rule("v1", "configmaps", method)])
        await world.rest("made")
        world.respond(config_map(data={"v": "2"}))
        await world.nudge()
        await world.rest("changed")
        await world.patch("ConfigMap", "one-child", {"data": {"v": "mine"}})
        await world.rest("edited")
        await world.patch("ConfigMap", "one-child", {"metadata": {"labels": {"mine": "yes"}}})
        await world.rest("labeled")

    return run


register("method_on_delete", _method("OnDelete"))
register("method_recreate", _method("Recreate"))
register("method_left_out", _method(None))


@scenario
async def child_that_is_going(world: World) -> None:
    """A child with a deletionTimestamp is left alone until it is gone, and then created again."""
    world.respond(config_map())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"metadata": {"finalizers": ["example.com/wait"]}})
    await world.rest("held")
    await world.delete("ConfigMap", "one-child")
    await world.rest("going")
    world.respond(config_map(data={"key": "other"}))
    await world.nudge()
    await world.rest("still going")
    await world.patch("ConfigMap", "one-child", {"metadata": {"finalizers": None}})
    await world.rest("made again")


@scenario
async def unwanted_child_that_is_going(world: World) -> None:
    """A child with a finalizer that is no longer desired is deleted only once."""
    world.respond(config_map())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"metadata": {"finalizers": ["example.com/wait"]}})
    await world.rest("held")
    world.respond()
    await world.nudge()
    await world.rest("going")
    await world.nudge()
    await world.rest("still going")
