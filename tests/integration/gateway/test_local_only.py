"""Requests that never leave the cluster: no remote backend gets one, whatever state the backends are in."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pytest
import uvloop
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.api.v1alpha1 import Breaker, LocalOnly, Queue, RouteDocument, Split, Timeouts, Use
from tests.integration.gateway.wire import Response, Running, document, echo, gateway, local, remote, reply
from tests.integration.servers import ScriptedServer, ServerSide, serving, until

SETTINGS: Final[dict[str, Any]] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
RULE: Final = LocalOnly(header="x-data-class", values=("restricted",))
RESTRICTED: Final = b"X-Data-Class: public, Restricted"
_STREAM: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
BEHAVIORS: Final = {
    "responds": reply(b"good"),
    "503": reply(b"busy", b"503 No"),
    "cools down": reply(b"busy", b"503 No", b"retry-after: 60"),
    "resets": b"",
    "garbage": b"SSH-2.0-OpenSSH\r\n\r\n",
    "stream with error": _STREAM + b'13\r\ndata: {"error": 1}\n\r\n1\r\n\n\r\n0\r\n\r\n',
}


class Local:
    """Local server that responds to everything in one way."""

    behavior = "responds"

    async def __call__(self, side: ServerSide) -> None:
        """Respond to each request."""
        while True:
            await side.request()
            if self.behavior == "resets":
                side.reset()
                return
            await side.send(BEHAVIORS[self.behavior])
            if self.behavior == "garbage":
                side.writer.close()
                return


@dataclass
class World:
    """Gateway with a local and a remote server."""

    running: Running
    near: Local
    far: ScriptedServer
    number: int = 0

    def requests(self) -> int:
        """Return how many requests the remote server has got."""
        return sum(side.received.count(b" HTTP/1.1\r\n") for side in self.far.sides)

    async def ask(self, name: str, *fields: bytes, handshake: bool = False) -> Response:
        """Send a request by path."""
        if handshake:
            lines = b"\r\n".join((
                b"GET /default/%b/x HTTP/1.1" % name.encode(), b"Host: x",
                b"Connection: upgrade", b"Upgrade: websocket",
                b"Sec-WebSocket-Version: 13", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", *fields,
            ))  # fmt: skip
            return await self.running.ask(lines + b"\r\n\r\n")
        return await self.running.post(b"/default/%b/v1/completions" % name.encode(), b"{}", *fields)


@asynccontextmanager
async def world(local_port: int | None = None) -> AsyncIterator[World]:
    """Yield a gateway with both servers; nothing listens at the local one's place with a `local_port` of 1."""
    near = Local()
    async with (
        serving(near) as a,
        serving(echo) as b,
        gateway(local_port=local_port or a.port, remote_port=b.port, settings=SETTINGS) as running,
    ):
        yield World(running, near, b)


def route(*backends: Any, **values: Any) -> RouteDocument:
    """Return a document with the rule."""
    return document(*backends, **{"local_only": RULE, "requires": ("localOnly",), **values})


@pytest.mark.parametrize("weight", [0, 100])
async def test_the_split_does_not_lead_outside(weight: int) -> None:
    """A restricted request goes to the local backend whatever the split says; its reason says why."""
    async with world() as one:
        split = Split(percentage=weight, reason="MetricReached" if weight else "Local")
        one.running.load(route(local(100 - weight), remote(weight), split=split))
        response = await one.ask("demo", RESTRICTED)
        assert (response.status, response.body) == (200, b"good")
        assert response.value(b"x-beamlit-backend") == b"local"
        assert response.value(b"x-beamlit-reason") == b"LocalOnly"
        other = await one.ask("demo", b"X-Data-Class: public")
        assert other.value(b"x-beamlit-backend") == (b"remote" if weight else b"local")
        await until(lambda: len(one.running.lines()) == 2)
        first, _ = one.running.lines()
        assert (first["backend"], first["reason"], first["weight"]) == ("local", "LocalOnly", 100)


async def test_restricted_requests_take_no_turn_from_the_others() -> None:
    """The split of all other requests stays exact, however many restricted ones are between them."""
    async with world() as one:
        one.running.load(route(local(50), remote(50)))
        backends = []
        for _ in range(4):
            await one.ask("demo", RESTRICTED)
            backends.append((await one.ask("demo")).value(b"x-beamlit-backend") or b"")
        assert sorted(backends) == [b"local", b"local", b"remote", b"remote"]


@pytest.mark.parametrize("target", [b"/default/demo/v1/messages", b"/v1/chat/completions"])
async def test_a_failed_request_gets_an_error_of_its_own(target: bytes) -> None:
    """Where failover would lead outside, the client gets 503 in the form of its API, and the log has the cause."""
    async with world(local_port=1) as one:
        one.running.load(route(local(), remote()))
        response = await one.running.post(target, b'{"model": "demo"}', RESTRICTED)
        assert response.status == 503
        content = orjson.loads(response.body)
        if b"messages" in target:
            assert content["error"]["details"] == {"error_code": "local_only"}
        else:
            assert content["error"]["code"] == "local_only"
        assert response.value(b"x-beamlit-reason") == b"LocalOnly"
        assert one.requests() == 0
        await until(lambda: bool(one.running.lines()))
        (line,) = one.running.lines()
        assert (line["code"], line["attempts"][0]["cause"]) == ("local_only", "connect_failed")


async def test_requests_without_the_field_stay_where_the_rule_says_so() -> None:
    """With `missing: local` only a request with another value may leave the cluster."""
    async with world() as one:
        one.running.load(route(local(0), remote(100), local_only=RULE.model_copy(update={"missing": "local"})))
        assert (await one.ask("demo")).value(b"x-beamlit-backend") == b"local"
        assert (await one.ask("demo", b"X-Data-Class:")).value(b"x-beamlit-backend") == b"local"
        assert (await one.ask("demo", b"X-Data-Class: public")).value(b"x-beamlit-backend") == b"remote"


async def test_without_a_local_backend_nothing_is_left() -> None:
    """A route that has only a remote backend refuses restricted requests."""
    async with world() as one:
        one.running.load(route(remote(100)))
        response = await one.ask("demo", RESTRICTED)
        assert (response.status, response.code) == (503, "local_only")
        assert one.requests() == 0


@dataclass(frozen=True)
class Case:
    """State of a route and its backends."""

    behavior: str
    weight: int
    has_local: bool
    uses: tuple[Use, ...]
    default_causes: bool
    full: bool
    queue: bool
    state: str
    missing: bool
    handshake: bool


CASES: Final = st.builds(
    Case,
    behavior=st.sampled_from(sorted(BEHAVIORS)),
    weight=st.sampled_from([0, 50, 100]),
    has_local=st.booleans() | st.just(True),
    uses=st.sets(st.sampled_from(Use)).map(tuple),
    default_causes=st.booleans(),
    full=st.booleans(),
    queue=st.booleans(),
    state=st.sampled_from(["usable", "open", "unhealthy", "cooling down"]),
    missing=st.booleans(),
    handshake=st.booleans(),
)


async def _check(one: World, case: Case) -> None:
    """Send restricted requests in a state of the backends, with others between them."""
    one.number += 1
    one.near.behavior = case.behavior
    name = f"d{one.number}"
    backends = [remote(case.weight if case.has_local else 100, use=(Use.WEIGHTED, *case.uses))]
    if case.has_local:
        backends.insert(0, local(100 - case.weight, in_flight=1))
    rule = LocalOnly(header="x-data-class", values=("restricted",), missing="local" if case.missing else "anywhere")
    retry = {} if case.default_causes else {"retry": {"on": ["connectFailure", "reset", "500", "503"]}}
    made = route(
        *backends, name=name, local_only=rule, breaker=Breaker(consecutive_failures=2),
        timeouts=Timeouts(first_byte=60), queue=Queue(size=int(case.queue), wait=0.01), **retry,
    )  # fmt: skip
    one.running.load(RouteDocument.model_validate(made.model_dump()))
    await one.ask(name, b"X-Data-Class: public")  # so that there is a state
    runtime = one.running.store.runtime(f"default/{name}").backends.get("local")
    if runtime is not None:
        now = time.perf_counter()
        runtime.concurrency.taken += case.full
        if case.state == "open":
            runtime.breaker.failed(now)
            runtime.breaker.failed(now)
        elif case.state == "unhealthy":
            runtime.breaker.report(healthy=False, now=now)
        elif case.state == "cooling down":
            runtime.breaker.cool_down(now + 60)
    for fields in ((RESTRICTED,), () if case.missing else (RESTRICTED,)):
        before = one.requests()
        response = await one.ask(name, *fields, handshake=case.handshake)
        assert one.requests() == before
        assert response.value(b"x-beamlit-reason") == b"LocalOnly"
        if response.status == 503 and response.body != b"busy":
            assert response.code == "local_only"
        else:
            assert response.value(b"x-beamlit-backend") == b"local"
        await one.ask(name, b"X-Data-Class: public")


def test_no_way_leads_outside() -> None:
    """Whatever the split, failover, overflow, the queue and the state of backends, no remote gets a restricted request.

    It is served by a local backend, or 503 with a code of its own; its reason says so.
    """
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        stack = AsyncExitStack()
        one = runner.run(stack.enter_async_context(world()))

        @settings(max_examples=80, deadline=None)
        @given(CASES)
        def check(case: Case) -> None:
            runner.run(_check(one, case))

        check()
        assert one.requests() > 0
        runner.run(stack.aclose())
