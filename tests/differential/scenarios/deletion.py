"""Parents that are deleted: finalizers, garbage collection, and parents that the selector leaves out."""

from tests.differential import snapshots
from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.widgets import config_map, deployment, service
from tests.differential.world import Refused, World
from tests.hook_server import Request, Response


@scenario
async def finalize(world: World) -> None:
    """The finalizer is added before the first sync; a deleted parent is finalized, its children shown, until the hook
    says `finalized`."""
    world.respond(config_map(), status=GOOD)
    await world.start(hooks=["sync", "finalize"])
    await world.rest("made")
    world.note("first", world.asked("/sync")[0]["parent"]["metadata"]["finalizers"])
    await world.delete(world.parent.name, "one")
    await world.rest("held")
    request = world.asked("/finalize")[0]
    world.note("finalize request", snapshots.request_without_chance(request)["parent"])
    world.respond(status={"word": "going"})
    await world.nudge()
    await world.rest("without children")
    world.respond(status={"word": "gone"}, finalized=True)
    await world.nudge()
    await world.gone(world.parent.name, "one")
    await world.rest("gone")


@scenario
async def finalized_with_children(world: World) -> None:
    """Children that are left at `finalized: true` are deleted by the garbage collector."""
    world.respond(config_map(), service(), status=GOOD)
    await world.start(hooks=["sync", "finalize"])
    await world.rest("made")
    world.respond(config_map(data={"key": "other"}), finalized=True)
    await world.delete(world.parent.name, "one")
    for kind, name in ((world.parent.name, "one"), ("ConfigMap", "one-child"), ("Service", "one-service")):
        await world.gone(kind, name)
    await world.rest("gone")


@scenario
async def finalize_after_finalized(world: World) -> None:
    """While another finalizer keeps the parent, finalize is called again and children are no longer managed."""
    world.respond(config_map(), status=GOOD)
    await world.start(hooks=["sync", "finalize"], metadata={"finalizers": ["example.com/wait"]})
    await world.rest("made")
    world.respond(config_map(data={"key": "other"}), status={"word": "gone"}, finalized=True)
    await world.delete(world.parent.name, "one")
    await world.rest("finalized")
    await world.nudge()
    await world.rest("again")
    await world.patch(world.parent.name, "one", {"metadata": {"finalizers": None}})
    await world.gone("ConfigMap", "one-child")
    await world.rest("gone", requests=0)


@scenario
async def finalized_on_sync_with_finalizer(world: World) -> None:
    """A sync response with `finalized` removes the finalizer, and the next sync puts it back."""
    world.respond(status=GOOD, finalized=True)
    await world.start(hooks=["sync", "finalize"])
    await world.rest("taken away")
    world.respond(status=GOOD)
    await world.nudge()
    await world.rest("back")


@scenario
async def finalized_on_sync_without_finalizer(world: World) -> None:
    """Without a finalize hook `finalized` in a sync response has no effect."""
    world.respond(config_map(), status=GOOD, finalized=True)
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")


@scenario
async def finalizer_left_behind(world: World) -> None:
    """Without a finalize hook the finalizer of an earlier one is removed before the first sync."""
    name = f"metacontroller.io/compositecontroller-{world.parent.plural}"
    world.respond(config_map(), status=GOOD)
    await world.start(metadata={"finalizers": [name, "example.com/wait"]})
    await world.rest("made")
    world.note("first", world.asked("/sync")[0]["parent"]["metadata"]["finalizers"])


@scenario
async def customize_holds_a_deletion(world: World) -> None:
    """A deletion is a new generation, so customize is called again, and while it fails nothing is finalized."""

    def script(request: Request) -> Response:
        if request.target == "/customize":
            going = "deletionTimestamp" in request.content["parent"]["metadata"]
            return Response(status=500) if going and broken else Response({"relatedResources": []})
        return Response({"status": GOOD, "children": [], "finalized": request.target == "/finalize"})

    broken = True
    world.hook.script = script
    await world.start(hooks=["sync", "finalize", "customize"])
    await world.rest("made", requests=2)
    await world.delete(world.parent.name, "one")
    await world.rest("held")
    world.note("finalize while customize fails", len(world.asked("/finalize")))
    broken = False
    await world.nudge()
    await world.gone(world.parent.name, "one")
    await world.rest("gone", requests=2)


@scenario
async def failing_finalize(world: World) -> None:
    """A failing finalize hook holds the parent and its children."""
    world.respond(config_map(), status=GOOD)
    await world.start(hooks=["sync", "finalize"])
    await world.rest("made")
    world.hook.script = lambda _: Response(status=500)
    await world.delete(world.parent.name, "one")
    await world.rest("held")
    world.respond(finalized=True)
    await world.nudge()
    await world.gone(world.parent.name, "one")
    await world.gone("ConfigMap", "one-child")
    await world.rest("gone")


@scenario
async def finalize_when_labels_no_longer_match(world: World) -> None:
    """A parent that no longer matches the labelSelector is finalized without being deleted, and then left alone."""
    selected = {"apiVersion": world.parent.api_version, "resource": world.parent.plural,
                "ignoreStatusChanges": True, "labelSelector": {"matchLabels": {"on": "yes"}}}  # fmt: skip
    world.respond(config_map(), status=GOOD)
    await world.start(hooks=["sync", "finalize"], parentResource=selected, metadata={"labels": {"on": "yes"}})
    await world.rest("made")
    world.respond(status={"word": "going"})
    await world.patch(world.parent.name, "one", {"metadata": {"labels": {"on": "no"}}})
    await world.rest("finalizing")
    world.respond(status={"word": "gone"}, finalized=True)
    await world.nudge()
    await world.rest("finalized")
    await world.nudge()
    await world.rest("left alone", requests=0)


@scenario
async def parent_that_is_not_selected(world: World) -> None:
    """A parent is synced only while it has the labels of the labelSelector."""
    selected = {"apiVersion": world.parent.api_version, "resource": world.parent.plural,
                "ignoreStatusChanges": True, "labelSelector": {"matchLabels": {"on": "yes"}}}  # fmt: skip
    world.respond(config_map(), status=GOOD)
    await world.start(parentResource=selected)
    await world.rest("not selected", requests=0)
    world.note("asked", len(world.hook.requests))
    await world.patch(world.parent.name, "one", {"metadata": {"labels": {"on": "yes"}}})
    await world.rest("selected")
    world.respond(status={"word": "other"})
    await world.patch(world.parent.name, "one", {"metadata": {"labels": None}})
    await world.rest("no more", requests=0)


@scenario
async def deleted_parent_without_finalize_hook(world: World) -> None:
    """Without a finalize hook the garbage collector deletes the children of a deleted parent."""
    world.respond(config_map(), service(), deployment(), status=GOOD)
    await world.start()
    await world.rest("made")
    await world.delete(world.parent.name, "one")
    for kind, name in (("ConfigMap", "one-child"), ("Service", "one-service"), ("Deployment", "one-server")):
        await world.gone(kind, name)
    await world.rest("gone", requests=0)


@scenario
async def deleting_parent_without_finalize_hook(world: World) -> None:
    """While another finalizer holds a deleted parent, sync is called, children stay as they are and the status is
    written."""
    world.respond(config_map(), status=GOOD)
    await world.start(metadata={"finalizers": ["example.com/wait"]})
    await world.rest("made")
    world.respond(config_map("another"), status={"word": "going"})
    await world.delete(world.parent.name, "one")
    await world.rest("going")
    await world.patch("ConfigMap", "one-child", {"data": {"key": "mine"}})
    await world.rest("edited")
    await world.delete("ConfigMap", "one-child")
    await world.rest("child deleted")


@scenario
async def label_stripped_while_the_parent_goes(world: World) -> None:
    """A parent that is being deleted releases no child, even one that has lost its label."""
    world.respond(config_map(), status=GOOD)
    await world.start(metadata={"finalizers": ["example.com/wait"]})
    await world.rest("made")
    await world.delete(world.parent.name, "one")
    await world.rest("going")
    await world.patch("ConfigMap", "one-child", {"metadata": {"labels": None}})
    await world.rest("stripped")


@scenario
async def parent_made_again(world: World) -> None:
    """A new parent of the same name is another object, and its children are created anew."""
    world.respond(config_map(), status=GOOD)
    await world.start()
    await world.rest("made")
    await world.delete(world.parent.name, "one")
    await world.gone("ConfigMap", "one-child")
    await world.rest("gone", requests=0)
    await world.create(world.parent_object(spec={}))
    await world.rest("made again")


@scenario
async def two_parents(world: World) -> None:
    """Each parent has its own children, and the response for one does not touch those of the other."""

    def script(request: Request) -> Response:
        name = request.content["parent"]["metadata"]["name"]
        return Response({"status": {"word": name}, "children": [config_map(f"{name}-child"), config_map("shared")]})

    world.hook.script = script
    await world.start()
    await world.rest("one")
    await world.create(world.parent_object("two", spec={}))
    await world.rest("two")


@scenario
async def refused_parent_edit(world: World) -> None:
    """A user's edit that the schema refuses changes nothing."""
    world.respond(config_map(), status=GOOD)
    await world.start()
    await world.rest("made")
    try:
        await world.patch(world.parent.name, "one", {"spec": {"size": 10}})
        world.note("refused", False)
    except Refused:
        world.note("refused", True)
    await world.rest("as before", requests=0)
