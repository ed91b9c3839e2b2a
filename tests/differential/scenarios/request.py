"""The request to the hook: its five keys, their form, and its bytes."""

from tests.differential import snapshots
from tests.differential.scenarios.registry import GOOD, scenario
from tests.differential.widgets import config_map, deployment, pods, service
from tests.differential.world import World, webhook


@scenario
async def first_sync(world: World) -> None:
    """The first request has five keys, a group for each kind of child and no status, and its whole content is
    compared."""
    world.respond()
    await world.start()
    await world.rest("synced")
    world.note("first request", snapshots.request_without_chance(world.asked("/sync")[0]))
    world.note("keys", sorted(world.asked("/sync")[0]))


@scenario
async def request_headers(world: World) -> None:
    """The hook is called with a POST of JSON."""
    world.respond()
    await world.start()
    await world.rest("synced")
    first = world.hook.requests[0]
    chance = ("host", "content-length")
    headers = {name: value for name, value in first.headers.items() if name not in chance}
    world.note("first request", [first.method, first.target, headers])


@scenario
async def request_is_compact_json(world: World) -> None:
    """The body is compact, its keys are sorted, and < > & are escaped."""
    world.respond()
    await world.start(metadata={"annotations": {"mark": "<a&b> \u2028 é 😀"}})
    await world.rest("synced")
    body = world.hook.requests[0].body
    start = body.index(b'"mark"')
    world.note("escapes", body[start : body.index(b"}", start)].decode())
    world.note("order", list(world.asked("/sync")[0]))
    world.note("children", body[body.index(b'"children"') : body.index(b',"related"')].decode())


@scenario
async def version_2_keys(world: World) -> None:
    """Under v2 the keys of children are namespace/name."""
    world.respond(config_map(), service(), deployment(), status=GOOD)
    await world.start(webhooks={"sync": webhook(world.hook.url, "sync", version="v2")})
    await world.rest("made")


@scenario
async def second_sync_writes_nothing(world: World) -> None:
    """A second sync of children with defaults, quantities and emptyDir volumes writes nothing."""
    resources = {"limits": {"cpu": "1000m", "memory": "1024Mi"}}
    template = pods(container={"resources": resources}, volumes=[{"name": "scratch", "emptyDir": {}}])
    world.respond(deployment(template=template), service(), config_map(), status=GOOD)
    await world.start()
    await world.rest("made")
    await world.nudge()
    await world.rest("synced again")
