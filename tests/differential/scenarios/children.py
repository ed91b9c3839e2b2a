"""Children: made, deleted, adopted, released, refused."""

from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.widgets import config_map, service
from tests.differential.world import ELSEWHERE, World, composite_controller, rule


@scenario
async def unwanted_child_goes_first(world: World) -> None:
    """A child that is no longer wanted is deleted before the new one is made."""
    world.record.in_order = True
    world.answers(config_map())
    await world.start()
    await world.rest("made")
    world.answers(config_map("a-new-one"), service())
    await world.nudge()
    await world.rest("replaced")


@scenario
async def deleted_child_comes_back(world: World) -> None:
    """What a user deletes is there again."""
    world.answers(config_map(), service())
    await world.start()
    await world.rest("made")
    await world.delete("ConfigMap", "one-child")
    await world.rest("back")
    await world.delete("Service", "one-service")
    await world.rest("both")


@scenario
async def foreign_object_of_a_childs_name(world: World) -> None:
    """AlreadyExists is swallowed: the child never appears; it does once the name is free."""
    world.answers(config_map(), service(), status=GOOD)
    await world.install(composite_controller(world.parent, world.hook.url))
    await world.create(config_map(data={"mine": "yes"}))
    await world.create(world.parent_object(spec={}))
    await world.rest("taken")
    await world.delete("ConfigMap", "one-child")
    await world.nudge()
    await world.rest("free")


@scenario
async def stripped_label_releases(world: World) -> None:
    """A child without controller-uid loses its owner, its name stays taken, and no update reaches it."""
    world.answers(config_map())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"metadata": {"labels": {"controller-uid": None}}})
    await world.rest("released")
    world.answers(config_map(data={"key": "other"}))
    await world.nudge()
    await world.rest("still released")


@scenario
async def stripped_owner_is_adopted_again(world: World) -> None:
    """A child that keeps its label and loses its owner is an orphan that matches."""
    world.answers(config_map())
    await world.start()
    await world.rest("made")
    await world.patch("ConfigMap", "one-child", {"metadata": {"ownerReferences": None}})
    await world.rest("adopted")


@scenario
async def stripped_label_and_owner(world: World) -> None:
    """A child that loses both is nobody's, and its going away brings no sync."""
    world.answers(config_map())
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
    """An orphan with the label that the hook does not want goes."""
    world.answers()
    await world.start()
    await world.rest("without children")
    uid = (await world.get(world.parent.name, "one"))["metadata"]["uid"]
    await world.create(config_map("orphan", metadata={"labels": {"controller-uid": uid}}))
    await world.rest("gone")


@scenario
async def matching_orphan_is_adopted_and_kept(world: World) -> None:
    """An orphan with the label that the hook wants becomes a child, with what it had besides."""
    world.answers()
    await world.start()
    await world.rest("without children")
    uid = (await world.get(world.parent.name, "one"))["metadata"]["uid"]
    world.answers(config_map("orphan"))
    await world.create(config_map("orphan", metadata={"labels": {"controller-uid": uid}}, data={"mine": "yes"}))
    await world.rest("adopted")


@scenario
async def child_of_another_controller(world: World) -> None:
    """An object with the label and another controller is nobody's orphan."""
    world.answers()
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
    """Of two children alike the last counts."""
    world.answers(config_map(data={"n": "1"}), config_map(data={"n": "2"}))
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def unlisted_kind_is_made_once(world: World) -> None:
    """A child of a kind that is no child resource is made, and never seen, updated or deleted again."""
    world.answers(service(), config_map())
    await world.start(childResources=[rule("v1", "configmaps")])
    await world.rest("made")
    world.answers(service(ports=[{"name": "http", "port": 81}]), config_map())
    await world.nudge()
    await world.rest("not updated")
    world.answers()
    await world.nudge()
    await world.rest("not deleted")


@scenario
async def unknown_api_version(world: World) -> None:
    """A child of a version that is not there fails alone: the others are made, the status is written."""
    world.answers(config_map(apiVersion="v2"), config_map("second"), service(), status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_without_api_version(world: World) -> None:
    """It fails alone as well."""
    child = config_map()
    del child["apiVersion"]
    world.answers(child, service(), status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_without_name(world: World) -> None:
    """The API server refuses it; the others are made."""
    child = config_map()
    child["metadata"] = {}
    world.answers(child, config_map("second"), status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_without_metadata(world: World) -> None:
    """No metadata at all, and metadata that is null."""
    child = config_map()
    del child["metadata"]
    world.answers(child, config_map("second"), config_map("third") | {"metadata": None}, status=GOOD)
    await world.start()
    await world.rest("the others")


@scenario
async def child_in_another_namespace(world: World) -> None:
    """It is made there at each sync, its owner does not count, and the garbage collector takes it."""
    world.record.uncounted.append(f"ConfigMap/{world.namespace}{ELSEWHERE}/one-child")
    world.answers(config_map(metadata={"namespace": world.namespace + ELSEWHERE}), service(), status=GOOD)
    await world.start()
    await world.until(lambda: len(world.hook.requests) >= 2, "two syncs")
    world.answers(service(), status=GOOD)
    await world.nudge()
    await world.until(lambda: _absent(world, f"ConfigMap/{world.namespace}{ELSEWHERE}/one-child"), "it is collected")
    await world.rest("collected")


async def _absent(world: World, key: str) -> bool:
    return key not in await world.objects()


@scenario
async def child_with_owners_of_its_own(world: World) -> None:
    """Owner references of the hook stay, ours is added."""
    world.answers()
    await world.start()
    await world.rest("without children")
    other = await world.create(config_map("other"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": other["metadata"]["uid"]}
    world.answers(config_map(metadata={"ownerReferences": [reference]}))
    await world.nudge()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")
