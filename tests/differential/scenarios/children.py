"""Children that are created, deleted, adopted, released and refused."""

from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.widgets import config_map, service
from tests.differential.world import ELSEWHERE, World, composite_controller, rule


@scenario
async def unwanted_child_goes_first(world: World) -> None:
    """A child that is no longer desired is deleted before the new one is created."""
    world.record.in_order = True
    world.respond(config_map())
    await world.start()
    await world.rest("made")
    world.respond(config_map("a-new-one"), service())
    await world.nudge()
    await world.rest("replaced")


@scenario
async def deleted_child_comes_back(world: World) -> None:
    """A child that a user deletes is created again."""
    world.respond(config_map(), service())
    await world.start()
    await world.rest("made")
    await world.delete("ConfigMap", "one-child")
    await world.rest("back")
    await world.delete("Service", "one-service")
    await world.rest("both")


@scenario
async def foreign_object_of_a_childs_name(world: World) -> None:
    """A foreign object with a child's name keeps the child from being created, without an error, until the name is
    free."""
    world.respond(config_map(), service(), status=GOOD)
    await world.install(composite_controller(world.parent, world.hook.url))
    await world.create(config_map(data={"mine": "yes"}))
    await world.create(world.parent_object(spec={}))
    await world.rest("taken")
    await world.delete("ConfigMap", "one-child")
    await world.nudge()
    await world.rest("free")


@scenario
async def stripped_label_releases(world: World) -> None:
    """A child without the label controller-uid loses its owner, its name stays taken, and no update reaches it."""
    world.respond(config_map())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"metadata": {"labels": {"controller-uid": None}}})
    await world.rest("released")
    world.respond(config_map(data={"key": "other"}))
    await world.nudge()
    await world.rest("still released")


@scenario
async def stripped_owner_is_adopted_again(world: World) -> None:
    """A child that keeps its label and loses its owner is adopted again as a matching orphan."""
    world.respond(config_map())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"metadata": {"ownerReferences": None}})
    await world.rest("adopted")


@scenario
async def stripped_label_and_owner(world: World) -> None:
    """A child that loses both label and owner has no parent, and its deletion brings no sync."""
    world.respond(config_map())
    await world.start()
    await world.rest("made")
    before = len(world.hook.requests)
    await world.patch("ConfigMap", "one-child", {"metadata": {"ownerReferences": None, "labels": None}})
    await world.rest("lost", requests=0)
    world.note("syncs", len(world.hook.requests) - before)
    await world.delete("ConfigMap", "one-child")
    await world.rest("deleted", requests=0)
    world.note("syncs after it was deleted", len(world.hook.requests) - before)
    await world.nudge()
    await world.rest("made again")


@scenario
async def matching_orphan_is_adopted_and_deleted(world: World) -> None:
    """An orphan that has the label and is not desired is deleted."""
    world.respond()
    await world.start()
    await world.rest("without children")
    uid = (await world.get(world.parent.name, "one"))["metadata"]["uid"]
    await world.create(config_map("orphan", metadata={"labels": {"controller-uid": uid}}))
    await world.rest("gone")


@scenario
async def matching_orphan_is_adopted_and_kept(world: World) -> None:
    """An orphan that has the label and is desired becomes a child and keeps its other fields."""
    world.respond()
    await world.start()
    await world.rest("without children")
    uid = (await world.get(world.parent.name, "one"))["metadata"]["uid"]
    world.respond(config_map("orphan"))
    await world.create(config_map("orphan", metadata={"labels": {"controller-uid": uid}}, data={"mine": "yes"}))
    await world.rest("adopted")


@scenario
async def child_of_another_controller(world: World) -> None:
    """An object with the label and another controller is not adopted."""
    world.respond()
    await world.start()
    await world.rest("without children")
    uid = (await world.get(world.parent.name, "one"))["metadata"]["uid"]
    owner = await world.create(config_map("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    metadata = {"labels": {"controller-uid": uid}, "ownerReferences": [reference | {"controller": True}]}
    await world.create(config_map("owned", metadata=metadata))
    await world.nudge()
    await world.rest("left alone")


@scenario
async def twins_last_wins(world: World) -> None:
    """Of two children with the same kind and name the last one is applied."""
    world.respond(config_map(data={"n": "1"}), config_map(data={"n": "2"}))
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def unlisted_kind_is_made_once(world: World) -> None:
    """A child of a kind that is no child resource is created, and never observed, updated or deleted again."""
    world.respond(service(), config_map())
    await world.start(childResources=[rule("v1", "configmaps")])
    await world.rest("made")
    world.respond(service(ports=[{"name": "http", "port": 81}]), config_map())
    await world.nudge()
    await world.rest("not updated")
    world.respond()
    await world.nudge()
    await world.rest("not deleted")


@scenario
async def unknown_api_version(world: World) -> None:
    """A child of an unknown version fails alone: the others are created and the status is written."""
    world.respond(config_map(apiVersion="v2"), config_map("second"), service(), status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_without_api_version(world: World) -> None:
    """A child without apiVersion fails alone, and the others are created."""
    child = config_map()
    del child["apiVersion"]
    world.respond(child, service(), status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_without_name(world: World) -> None:
    """The API server refuses a child without a name, and the others are created."""
    child = config_map()
    child["metadata"] = {}
    world.respond(child, config_map("second"), status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_without_metadata(world: World) -> None:
    """A child without metadata, or with null metadata, is refused, and the others are created."""
    child = config_map()
    del child["metadata"]
    world.respond(child, config_map("second"), config_map("third") | {"metadata": None}, status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_in_another_namespace(world: World) -> None:
    """A child in another namespace is created at each sync, and the garbage collector deletes it as its owner does not
    count there."""
    world.record.uncounted.append(f"ConfigMap/{world.namespace}{ELSEWHERE}/one-child")
    world.respond(config_map(metadata={"namespace": world.namespace + ELSEWHERE}), service(), status=GOOD)
    await world.start()
    await world.until(lambda: len(world.hook.requests) >= 2, "two syncs")
    world.respond(service(), status=GOOD)
    await world.nudge()
    await world.until(lambda: _absent(world, f"ConfigMap/{world.namespace}{ELSEWHERE}/one-child"), "it is collected")
    await world.rest("collected")


async def _absent(world: World, key: str) -> bool:
    return key not in await world.objects()


@scenario
async def child_with_owners_of_its_own(world: World) -> None:
    """Owner references that the hook returns stay, and Metacontroller's own is added."""
    world.respond()
    await world.start()
    await world.rest("without children")
    other = await world.create(config_map("other"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": other["metadata"]["uid"]}
    world.respond(config_map(metadata={"ownerReferences": [reference]}))
    await world.nudge()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")
