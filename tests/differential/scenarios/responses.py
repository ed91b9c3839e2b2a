"""Responses of the hook: unusable ones, empty ones, late ones, and the time of the next call."""

import asyncio
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final

from tests.differential.scenarios.registry import GOOD, Run, register, scenario
from tests.differential.widgets import config_map, service
from tests.differential.world import World, webhook
from tests.hook_server import Request, Response
from tests.ticks import ticking

BAD: Final = {
    "status 500": Response(status=500),
    "status 201": Response({"status": {}, "children": []}, status=201),
    "status 202": Response({"status": {}, "children": []}, status=202),
    "status 404": Response({"status": {}, "children": []}, status=404),
    "status 204": Response(status=204, body=b""),
    "empty": Response(body=b""),
    "no JSON": Response(body=b"oops"),
    "NaN": Response(body=b'{"status": {"ratio": NaN}, "children": []}'),
    "Infinity": Response(body=b'{"resyncAfterSeconds": Infinity}'),
    "single quotes": Response(body=b"{'children': []}"),
    "trailing data": Response(body=b'{"children": []} x'),
    "two documents": Response(body=b'{"children": []}{}'),
    "trailing comma": Response(body=b'{"children": [],}'),
    "control character": Response(body=b'{"status": {"word": "\x01"}}'),
    "a list": Response(body=b"[]"),
    "a text": Response(body=b'"x"'),
    "a number": Response(body=b"1"),
    "true": Response(body=b"true"),
    "children: object": Response(body={"children": {}}),
    "children: text": Response(body={"children": "x"}),
    "child: text": Response(body={"children": ["x"]}),
    "child: list": Response(body={"children": [[]]}),
    "child: number": Response(body={"children": [1]}),
    "child without kind": Response(body={"children": [{"metadata": {"name": "x"}}]}),
    "child of empty kind": Response(body={"children": [{"apiVersion": "v1", "kind": "", "metadata": {"name": "x"}}]}),
    "child of numeric kind": Response(body={"children": [{"apiVersion": "v1", "kind": 1, "metadata": {"name": "x"}}]}),
    "status: list": Response(body={"status": []}),
    "status: text": Response(body={"status": "x"}),
    "status: true": Response(body={"status": True}),
    "resyncAfterSeconds: text": Response(body={"resyncAfterSeconds": "5"}),
    "resyncAfterSeconds: true": Response(body={"resyncAfterSeconds": True}),
    "resyncAfterSeconds: huge": Response(body=b'{"resyncAfterSeconds": 1e999}'),
    "finalized: text": Response(body={"finalized": "true"}),
    "finalized: number": Response(body={"finalized": 1}),
    "unknown key": Response(body={"error": "x"}),
    "wrong case": Response(body={"Status": {}, "children": []}),
    "duplicate key": Response(body=b'{"children": [], "children": []}'),
    "duplicate in status": Response(body=b'{"status": {"word": "a", "word": "b"}, "children": []}'),
    "duplicate below status": Response(body=b'{"status": {"conditions": [{"type": "a", "type": "b"}]}}'),
    "byte order mark": Response(body=b'\xef\xbb\xbf{"children": []}'),
    "number too large": Response(body=b'{"status": {"ratio": 1e999}}'),
}
"""Responses that change nothing in strict mode, by name."""


def _bad_responses(names: Iterable[str]) -> Run:
    async def run(world: World) -> None:
        """Any response but a usable 200 leaves children and status as they are."""
        world.respond(config_map(), status=GOOD)
        await world.start()
        await world.rest("good")
        for name in names:
            world.hook.script = lambda _, response=BAD[name]: response  # type: ignore[misc]
            await world.nudge()
            await world.rest(name)
        world.respond(config_map(), service(), status=GOOD)
        await world.nudge()
        await world.rest("good again")

    return run


_SLICES: Final = 5
for _index in range(_SLICES):
    register(f"bad_answers_{'abcde'[_index]}", _bad_responses(tuple(BAD)[_index::_SLICES]))


@scenario
async def empty_answers_delete_every_child(world: World) -> None:
    """A response of `{}`, `null` or `children: null` deletes every child."""
    for name, body in (("object", b"{}"), ("null", b"null"), ("null children", b'{"children": null}')):
        world.respond(config_map(), status=GOOD)
        if name == "object":
            await world.start()
        else:
            await world.nudge()
        await world.rest(f"before {name}")
        world.hook.script = lambda _, body=body: Response(body=body)  # type: ignore[misc]
        await world.nudge()
        await world.rest(name)


@scenario
async def odd_answers_that_count(world: World) -> None:
    """Strict mode accepts white space around a response, nulls, invalid UTF-8, and unknown or duplicate keys in a
    child."""
    world.respond(config_map(), status=GOOD)
    await world.start()
    await world.rest("good")
    child = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"one-child"},"data":{"a":"1","a":"2"}}'
    bodies = {
        "white space": b' \n{"children": [' + child + b"]}\n\t ",
        "unknown field in a child": b'{"children": [' + child[:-1] + b', "unknown": {"x": 1}}]}',
        "null status": b'{"status": null, "children": [' + child + b'], "resyncAfterSeconds": null, "finalized": null}',
        "negative resync": b'{"children": [' + child + b'], "resyncAfterSeconds": -1, "finalized": false}',
        "invalid UTF-8": b'{"status": {"word": "\xff"}, "children": [' + child + b"]}",
        "half a surrogate": b'{"status": {"word": "\\ud800"}, "children": [' + child + b"]}",
    }
    for name, body in bodies.items():
        world.hook.script = lambda _, body=body: Response(body=body)  # type: ignore[misc]
        await world.nudge()
        await world.rest(name)


@scenario
async def loose_mode(world: World) -> None:
    """Without strict mode an unknown key is ignored, and `{"error": …}` deletes every child."""
    world.respond(config_map(), status=GOOD, unknown=1)
    await world.start(webhooks={"sync": webhook(world.hook.url, "sync", responseUnMarshallMode="loose")})
    await world.rest("unknown key")
    world.hook.script = lambda _: Response(body=b'{"status": {"word": "a", "word": "b"}, "children": [], "Status": {}}')
    await world.nudge()
    await world.rest("duplicates")
    world.respond(config_map())
    await world.nudge()
    await world.rest("a child")
    world.hook.script = lambda _: Response(body={"error": "x"})
    await world.nudge()
    await world.rest("error")


@scenario
async def too_many_requests(world: World) -> None:
    """A response of 429 with whole seconds in Retry-After delays the next call by that time, without an error."""
    times: list[float] = []
    turns: list[int] = []
    async with ticking() as ticks:

        def script(_: Request) -> Response:
            times.append(asyncio.get_running_loop().time())
            turns.append(ticks())
            if len(times) == 1:
                return Response(status=429, headers={"Retry-After": "2"})
            return Response({"status": GOOD, "children": [config_map()]})

        world.hook.script = script
        await world.start()
        await world.rest("after it", requests=2)
    # The time says that the wait was not too short. That it was not longer, a busy machine cannot tell by the time.
    soon = turns[1] - turns[0] <= 400 if world.delays is None else world.delays[0] <= 4
    world.note("waited", times[1] - times[0] >= 1.9 and soon)


@scenario
async def forms_of_retry_after(world: World) -> None:
    """Metacontroller waits for whole seconds and for dates in Retry-After; with any other value it tries again at
    once."""
    forms = {
        "2": "2", "+2": "+2", "padded": " 2 ", "fraction": "2.5", "negative": "-2", "zero": "0", "word": "soon",
        "date": "", "date of another form": "",
    }  # fmt: skip
    left, times = list(forms), list[tuple[float, int]]()
    async with ticking() as ticks:

        def script(_: Request) -> Response:
            times.append((asyncio.get_running_loop().time(), ticks()))
            if not left:
                return Response({"status": GOOD, "children": [config_map()]})
            name = left.pop(0)
            soon = datetime.now(UTC) + timedelta(seconds=6)
            dates = {"date": f"{soon:%a, %d %b %Y %H:%M:%S} GMT", "date of another form": f"{soon:%Y-%m-%dT%H:%M:%SZ}"}
            return Response(status=429, headers={"Retry-After": dates.get(name, forms[name])})

        world.hook.script = script
        await world.start()
        await world.rest("after them", requests=len(forms) + 1)
    waited = {}
    for number, (name, (sooner, before), (later, after)) in enumerate(zip(forms, times, times[1:], strict=False)):
        # A busy machine takes long for a try at once as well, so the stand-in tells for how long it meant to wait.
        meant = after - before >= 10 if world.delays is None else world.delays[number] > 1
        waited[name] = later - sooner > 1 and meant
    world.note("waited", waited)


@scenario
async def redirects(world: World) -> None:
    """Metacontroller follows 302 with a GET without a body, and repeats method and body after 307."""

    def script(request: Request) -> Response:
        if request.target == "/sync":
            return Response(status=307, headers={"Location": "/again"})
        if request.target == "/again":
            return Response(status=302, headers={"Location": "/there"})
        if request.target == "/there":
            return Response(status=308, headers={"Location": "/here"})
        return Response({"status": GOOD, "children": [config_map()]})

    world.hook.script = script
    await world.start()
    await world.rest("after it", requests=4)
    world.note("requests", [[each.method, each.target, bool(each.body)] for each in world.hook.requests[:4]])


@scenario
async def endless_redirect(world: World) -> None:
    """A hook that redirects for ever fails the sync as any other failure does."""
    world.hook.script = lambda _: Response(status=307, headers={"Location": "/sync"})
    await world.start()
    await world.rest("nothing", requests=10)


@scenario
async def slow_hook(world: World) -> None:
    """A response that comes after the timeout is not applied."""
    world.respond(config_map(), status=GOOD)
    await world.start(webhooks={"sync": webhook(world.hook.url, "sync", timeout="1s")})
    await world.rest("made")
    slow = [Response({"status": {}, "children": []}, delay=1.5)]
    good = Response({"status": GOOD, "children": [config_map(data={"key": "other"})]})
    world.hook.script = lambda _: slow.pop() if slow else good
    await world.nudge()
    await world.rest("the next one", requests=2)


@scenario
async def resync_after_seconds(world: World) -> None:
    """Each response with resyncAfterSeconds brings a further call, and one without it brings none."""
    world.respond(config_map(), resyncAfterSeconds=1.5)
    await world.start()
    await world.until(lambda: len(world.hook.requests) >= 1, "the first request")
    await asyncio.sleep(0.7)
    first = len(world.hook.requests)
    await world.until(lambda: len(world.hook.requests) > first + 1, "two more")
    world.respond(config_map(), resyncAfterSeconds=0)
    last = len(world.hook.requests)
    await world.until(lambda: len(world.hook.requests) > last, "a response without it")
    await world.calm("after it was left out")
    last = len(world.hook.requests)
    await asyncio.sleep(3)
    world.note("calls after it was left out", len(world.hook.requests) - last)
    await world.keep("quiet")


@scenario
async def resync_survives_a_failure(world: World) -> None:
    """resyncAfterSeconds is obeyed although the API server refuses a child."""
    world.respond(config_map("UPPER"), status=GOOD, resyncAfterSeconds=1)
    await world.start()
    # Backoff alone brings fewer tries in that time: 5 ms, doubled at each try, are 41 s after 13 tries.
    await world.until(lambda: len(world.hook.requests) >= 20, "20 tries")
    await world.keep("refused")


@scenario
async def resync_period(world: World) -> None:
    """With resyncPeriodSeconds every parent is synced again and again, and nothing is written."""
    world.respond(config_map(), status=GOOD)
    await world.start(resyncPeriodSeconds=1)
    await world.until(lambda: len(world.hook.requests) >= 5, "some periods")
    await world.keep("at rest")
