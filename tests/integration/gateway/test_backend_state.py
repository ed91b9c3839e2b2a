"""Backends in a cool-down, with an open breaker or unhealthy: where requests go instead, and until when."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from email.utils import formatdate
from functools import partial
from time import time
from typing import Any

import orjson
import pytest

from faults.name_server import name_server
from gateway import admin
from gateway.api.v1alpha1 import Backend, Breaker, Headers, HealthCheck, Retry, RouteDocument, Timeouts, Use
from tests.deadlines import SECONDS
from tests.integration.gateway.wire import Response, Running, document, echo, gateway, local, remote, reply
from tests.integration.servers import ServerSide, serving, until

LOOPBACK: dict[str, Any] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
LABELS = {"namespace": "default", "model": "demo", "backend": "local"}


class Switch:
    """Server whose response a test changes while it runs."""

    def __init__(self, response: bytes) -> None:
        self.response = response
        self.requests = 0
        self.checks = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, side: ServerSide) -> None:
        """Respond to every request with the current response; an empty one means a reset."""
        while True:
            request = await side.request()
            if request.startswith(b"GET /health "):
                self.checks += 1
            else:
                self.requests += 1
            await self.go.wait()
            if not self.response:
                side.reset()
                return
            await side.send(self.response)


OK = reply(b"ok")


async def post(running: Running) -> Response:
    """Send one POST; return the response."""
    return await running.post(b"/default/demo/x", b"{}")


async def backends(running: Running, count: int) -> list[bytes | None]:
    """Send `count` requests one after the other; return the backends that the responses come from."""
    return [(await post(running)).value(b"x-beamlit-backend") for _ in range(count)]


def state(running: Running, backend: int = 0) -> Mapping[str, Any]:
    """Return the state of a backend as /routes shows it."""
    page = orjson.loads(b"".join(admin.routes_page(running.store)))
    result: Mapping[str, Any] = page["routes"][0]["backends"][backend]
    return result


# Cool-down


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Service Unavailable", b"529 Overloaded"])
@pytest.mark.parametrize("date", [False, True])
async def test_rt_06_retry_after_starts_a_cool_down(status: bytes, date: bool) -> None:
    """RT-06: during a cool-down requests go to another backend and say why; it ends by itself."""
    value = formatdate(time() + 2, usegmt=True).encode() if date else b"1"
    near = Switch(reply(b"no", status, b"retry-after: " + value))
    async with (
        serving(near) as server,
        serving(echo) as far,
        gateway(
            document(local(), remote()), local_port=server.port, remote_port=far.port, settings=LOOPBACK
        ) as running,
    ):
        assert (await post(running)).value(b"x-beamlit-reason") == b"Failover"
        near.response = OK
        response = await post(running)
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (b"remote", b"CoolDown")
        assert near.requests == 1
        assert 0 < running.count("beamlit_gateway_cool_down_seconds", **LABELS) <= 2
        assert 0 < state(running)["coolDownSeconds"] <= 2
        await until(lambda: running.count("beamlit_gateway_cool_down_seconds", **LABELS) == 0)
        response = await post(running)
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (b"local", b"Local")
        await until(lambda: len(running.lines()) == 3)
        assert [line["reason"] for line in running.lines()] == ["Failover", "CoolDown", "Local"]


@pytest.mark.parametrize(
    ("field", "seconds"),
    [
        (b"retry-after: 30.5", 30.5),
        (b"retry-after-ms: 25500", 25.5),
        (b"retry-after: 50\r\nretry-after-ms: 40000", 40.0),
        (b"retry-after-ms: 1.5e9\r\nretry-after: 20", 20.0),
    ],
)
async def test_rt_06_a_pause_may_be_no_whole_number_of_seconds(field: bytes, seconds: float) -> None:
    """RT-06: a pause with a fraction, or in milliseconds, is kept; the client gets the fields as they were sent."""
    near = Switch(reply(b"no", b"429 No", field))
    async with serving(near) as server, gateway(document(local()), local_port=server.port) as running:
        response = await post(running)
        assert field == b"\r\n".join(b"%b: %b" % pair for pair in response.fields if pair[0].startswith(b"retry-after"))
        left = running.count("beamlit_gateway_cool_down_seconds", **LABELS)
        assert seconds - 15 < left <= seconds


KEYS = [b"Authorization: Bearer mine", b"X-Api-Key: mine", b"api-key: mine"]


@pytest.mark.parametrize("field", KEYS)
@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Service Unavailable"])
async def test_a_backend_that_sees_the_callers_credentials_makes_no_others_wait(field: bytes, status: bytes) -> None:
    """A pause that a backend asks for is the caller's own where the backend sees the caller's credentials."""
    near = Switch(reply(b"slow down", status, b"retry-after: 50"))
    async with (
        serving(near) as server,
        serving(echo) as far,
        gateway(
            document(local(), remote()), local_port=server.port, remote_port=far.port, settings=LOOPBACK
        ) as running,
    ):
        response = await running.post(b"/default/demo/x", b"{}", field)
        assert response.value(b"x-beamlit-reason") == b"Failover"
        near.response = OK
        assert await backends(running, 2) == [b"local", b"local"]


@pytest.mark.parametrize("field", KEYS)
async def test_many_429_to_one_caller_do_not_open_the_breaker(field: bytes) -> None:
    """A 429 with Retry-After to a caller's own credentials is no failure of the backend, a 503 is one."""
    route = document(local(), breaker=Breaker(consecutive_failures=2, open=100))
    for status, breaker in ((b"429 No", "closed"), (b"503 No", "open")):
        near = Switch(reply(b"slow down", status, b"retry-after: 50"))
        async with serving(near) as server, gateway(route, local_port=server.port) as running:
            for _ in range(3):
                assert (await running.post(b"/default/demo/x", b"{}", field)).value(b"retry-after") == b"50"
            assert state(running)["breaker"] == breaker


async def test_a_429_to_one_caller_leaves_a_half_open_breaker_to_the_next_request() -> None:
    """A probe that ends with a 429 to a caller's own credentials says nothing, and the next request is the probe."""
    near = Switch(b"")
    route = document(local(), remote(), breaker=Breaker(consecutive_failures=1, open=0.2))
    async with (
        serving(near) as server,
        serving(echo) as far,
        gateway(route, local_port=server.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        await post(running)
        await until(lambda: state(running)["breaker"] == "halfOpen")
        near.response = reply(b"slow down", b"429 No", b"retry-after: 50")
        await running.post(b"/default/demo/x", b"{}", KEYS[0])
        assert state(running)["breaker"] == "halfOpen"
        near.response = OK
        assert await backends(running, 1) == [b"local"]
        assert state(running)["breaker"] == "closed"


@pytest.mark.parametrize("field", KEYS)
async def test_a_pause_asked_of_the_gateway_is_for_all(field: bytes) -> None:
    """A pause counts for all callers where the backend sees the gateway's credentials and none of the callers'."""
    far = Switch(reply(b"slow down", b"429 No", b"retry-after: 50"))
    own = remote(100, headers=Headers(set={"authorization": "Bearer ours"}))
    async with serving(far) as server, gateway(document(own), remote_port=server.port, settings=LOOPBACK) as running:
        assert (await running.post(b"/default/demo/x", b"{}", field)).status == 429
        assert (await post(running)).code == "no_backend"


async def test_all_backends_in_a_cool_down_is_503_with_the_earliest_end() -> None:
    """When all backends are in a cool-down, the response is a 503 at once, with Retry-After."""
    near = Switch(reply(b"no", b"429 No", b"retry-after: 50"))
    far = Switch(reply(b"no", b"503 No", b"retry-after: 20"))
    async with (
        serving(near) as a,
        serving(far) as b,
        gateway(document(local(), remote()), local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
    ):
        response = await post(running)
        assert (response.status, response.body, response.value(b"retry-after")) == (503, b"no", b"20")
        response = await post(running)
        assert (response.status, response.code) == (503, "no_backend")
        assert response.value(b"retry-after") in (b"19", b"20")
        assert (near.requests, far.requests) == (1, 1)


async def test_a_single_backend_in_a_cool_down_is_503_too() -> None:
    """The only backend of a route gets its cool-down, too; one that is not for failover takes no requests."""
    near = Switch(reply(b"no", b"429 No", b"retry-after: 1"))
    async with serving(near) as a, serving(echo) as b:
        for others in ((), (remote(use=(Use.WEIGHTED,)),)):
            near.response, near.requests = reply(b"no", b"429 No", b"retry-after: 1"), 0
            async with gateway(
                document(local(), *others), local_port=a.port, remote_port=b.port, settings=LOOPBACK
            ) as running:
                assert (await post(running)).status == 429
                near.response = OK
                response = await post(running)
                assert (response.status, response.value(b"retry-after"), near.requests) == (503, b"1", 1)
                await until(partial(_has_cooled_down, running))
                assert (await post(running)).status == 200


def _has_cooled_down(running: Running) -> bool:
    return running.count("beamlit_gateway_cool_down_seconds", **LABELS) == 0


async def test_a_cool_down_is_capped() -> None:
    """A cool-down lasts as long as the setting allows at most; 0 turns cool-downs off."""
    near = Switch(reply(b"no", b"503 No", b"retry-after: 100000000000"))
    for most, expected in ((0.3, 0.3), (0, 0.0)):
        settings = {"gateway": {**LOOPBACK["gateway"], "retry": {"coolDownSeconds": most}}}
        async with (
            serving(near) as a,
            serving(echo) as b,
            gateway(document(local(), remote()), local_port=a.port, remote_port=b.port, settings=settings) as running,
        ):
            assert (await post(running)).status == 200
            left = running.count("beamlit_gateway_cool_down_seconds", **LABELS)
            assert expected - 0.3 <= left <= expected
            assert running.count("beamlit_gateway_breaker_state", **LABELS) == 0


# Circuit breaker


@pytest.mark.parametrize("failure", [b"", reply(b"no", b"503 No"), reply(b"no", b"429 No"), b"SSH-2.0\r\n\r\n"])
async def test_failures_open_the_breaker_and_a_probe_closes_it(failure: bytes) -> None:
    """Three failures open the breaker; later a single request probes the backend, and its success closes it."""
    near = Switch(failure)
    route = document(local(), remote(), breaker=Breaker(consecutive_failures=3, open=0.4))
    async with (
        serving(near) as a,
        serving(echo) as b,
        gateway(route, local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
    ):
        await backends(running, 3)
        assert near.requests == 3
        assert running.count("beamlit_gateway_breaker_state", **LABELS) == 2
        assert state(running)["breaker"] == "open"
        response = await post(running)
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (
            b"remote",
            b"BreakerOpen",
        )
        assert near.requests == 3
        await until(lambda: state(running)["breaker"] == "halfOpen")
        near.response = OK
        near.go.clear()
        probing = asyncio.create_task(post(running))
        await until(lambda: near.requests == 4)
        assert await backends(running, 5) == [b"remote"] * 5
        assert near.requests == 4
        near.go.set()
        assert (await probing).value(b"x-beamlit-backend") == b"local"
        assert state(running)["breaker"] == "closed"
        assert await backends(running, 3) == [b"local"] * 3


async def test_to_06_a_client_that_leaves_is_no_failure_of_the_backend() -> None:
    """TO-06: requests whose client leaves neither open the breaker nor keep it half-open."""
    near = Switch(OK)
    near.go.clear()
    route = document(local(), remote(), breaker=Breaker(consecutive_failures=2, open=0.2))
    async with (
        serving(near) as a,
        serving(echo) as b,
        gateway(route, local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
    ):

        async def give_up() -> None:
            before = near.requests
            client = await running.client()
            await client.send(b"POST /default/demo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            await until(lambda: near.requests == before + 1)
            lines = len(running.lines())
            client.reset()
            await until(lambda: len(running.lines()) == lines + 1)

        for _ in range(4):
            await give_up()
        assert state(running)["breaker"] == "closed"
        near.response = b""
        near.go.set()
        await backends(running, 2)
        assert state(running)["breaker"] == "open"
        await until(lambda: state(running)["breaker"] == "halfOpen")
        near.response = OK
        near.go.clear()
        await give_up()  # this is the probe
        near.go.set()
        assert await backends(running, 2) == [b"local", b"local"]


async def test_a_breaker_never_excludes_the_last_backend() -> None:
    """A backend with an open breaker gets requests when no other one is better; a success closes the breaker."""
    near = Switch(b"")
    rules = Breaker(consecutive_failures=1, open=100)
    async with serving(near) as a:
        for others in ((), (remote(),)):
            near.response, near.requests = b"", 0
            route = document(local(), *others, breaker=rules, retry=Retry(on=()))
            async with gateway(route, local_port=a.port, remote_port=1, settings=LOOPBACK) as running:
                for _ in range(3):
                    await post(running)
                assert near.requests >= (1 if others else 3)
                if others:
                    assert state(running, 1)["breaker"] == "open"  # it got one request instead
                near.response = OK
                response = await post(running)
                assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"local")
                assert state(running)["breaker"] == "closed"


async def test_streams_that_break_off_are_failures() -> None:
    """A response that ends before it is complete is a failure of the backend."""
    head = b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf"

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(head)
        side.writer.close()

    route = document(local(), remote(), breaker=Breaker(minimum=4, open=100))
    async with (
        serving(script) as a,
        serving(echo) as b,
        gateway(route, local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
    ):
        assert await backends(running, 3) == [b"local", b"local", b"remote"]


async def test_state_is_kept_for_the_same_server_only() -> None:
    """A new document for the same server keeps the breaker's state; a backend on another server has a new breaker."""
    near = Switch(b"")
    rules = Breaker(consecutive_failures=2, open=100)
    async with (
        serving(near) as a,
        serving(echo) as b,
        gateway(
            document(local(), remote(), breaker=rules), local_port=a.port, remote_port=b.port, settings=LOOPBACK
        ) as running,
    ):
        await backends(running, 2)
        running.load(document(local(path_prefix="/new"), remote(), breaker=rules))
        assert state(running)["breaker"] == "open"
        assert await backends(running, 1) == [b"remote"]
        assert near.requests == 2
        moved = local(scheme="https")
        running.load(document(moved, remote(), breaker=rules, timeouts=Timeouts(connect=0.5)))  # it speaks no TLS
        await post(running)
        assert state(running)["breaker"] == "closed"
        running.load(document(remote(100)))
        await post(running)
        assert running.metrics.registry.get_sample_value("beamlit_gateway_breaker_state", LABELS) is None


# Health checks


@pytest.mark.parametrize("bad", [b"", reply(b"", b"500 No"), reply(b"", b"302 Found"), None])
async def test_health_checks_exclude_a_backend_and_bring_it_back(
    bad: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After two failed checks a backend gets no requests, after a passed one it does; no request fails."""
    monkeypatch.setattr("gateway.health.LEAST_SECONDS", SECONDS)
    near = Switch(OK)
    seconds = 1 if bad is None else SECONDS
    check = HealthCheck(path="/health", interval=0.05, timeout=seconds, unhealthy=2, healthy=1)
    async with (
        serving(near) as a,
        serving(echo) as b,
        gateway(
            document(local(health=check), remote()), local_port=a.port, remote_port=b.port, settings=LOOPBACK
        ) as running,
    ):
        await until(lambda: near.checks >= 2)  # without any request
        assert await backends(running, 1) == [b"local"]
        if bad is None:
            near.go.clear()  # it does not respond
        else:
            near.response = bad
        await until(lambda: not state(running)["healthy"])
        assert running.count("beamlit_gateway_backend_healthy", **LABELS) == 0
        requests_before = near.requests
        response = await post(running)
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (b"remote", b"Unhealthy")
        assert near.requests == requests_before
        near.response = OK
        near.go.set()
        await until(lambda: bool(state(running)["healthy"]))
        assert await backends(running, 1) == [b"local"]


async def test_health_checks_never_exclude_the_last_backend() -> None:
    """An unhealthy backend gets requests when there is no other one."""
    near = Switch(reply(b"ill", b"500 No"))
    check = HealthCheck(path="/health", interval=0.05, timeout=1, unhealthy=1)
    async with serving(near) as a, gateway(document(local(health=check)), local_port=a.port) as running:
        await until(lambda: not state(running)["healthy"])
        assert (await post(running)).body == b"ill"


async def test_health_checks_end_with_the_document_that_asks_for_them() -> None:
    """A document without health checks ends them and their verdict; one that keeps them changes nothing."""
    near = Switch(reply(b"", b"500 No"))
    check = HealthCheck(path="/health", interval=0.05, timeout=1, unhealthy=1)
    async with (
        serving(near) as a,
        gateway(document(local(health=check), remote()), local_port=a.port, settings=LOOPBACK) as running,
    ):
        await until(lambda: not state(running)["healthy"])
        before = near.checks
        running.load(document(local(health=check), remote(weight=0, model="other")))
        await until(lambda: near.checks > before)
        assert not state(running)["healthy"]
        running.load(document(local(), remote()))
        assert state(running)["healthy"]
        tasks = [task for task in asyncio.all_tasks() if "HealthChecks" in repr(task)]
        await until(lambda: all(task.done() for task in tasks))
        running.load(document(name="other"))


async def test_se_15_health_checks_go_to_no_other_addresses_than_requests() -> None:
    """SE-15: health checks are refused the same addresses as requests."""
    check = HealthCheck(path="/health", interval=0.05, timeout=1, unhealthy=1)
    near = Switch(OK)
    async with serving(near) as server:
        backend = remote(100, health=check).model_copy(update={"host": "127.0.0.1", "port": server.port})
        async with gateway(document(backend)) as running:
            await until(lambda: not state(running)["healthy"])
            assert near.checks == 0


async def hold(side: ServerSide) -> None:
    """Take a request, and never respond."""
    await side.request()
    await side.gone()


async def hold_half(side: ServerSide) -> None:
    """Send the head of a response and half of its body."""
    await side.request()
    await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf")
    await side.gone()


@pytest.mark.parametrize("black_hole", [hold, hold_half, None], ids=["no response", "half a response", "no address"])
async def test_a_check_that_is_late_is_late_for_its_own_route_only(
    black_hole: Callable[[ServerSide], Awaitable[None]] | None,
) -> None:
    """However many routes have backends that respond to no check, or names that nobody resolves, all others are
    checked, and what a check may take is bounded by its interval."""
    near = Switch(OK)
    check = HealthCheck(path="/health", interval=1, timeout=3600, unhealthy=1)
    with name_server({}, silent=("silent.example",)) as names:
        async with serving(near) as good, serving(black_hole or hold) as bad:

            def late(number: int) -> RouteDocument:
                host = "127.0.0.1" if black_hole is not None else f"h{number}.silent.example"
                held = [
                    Backend(id=f"b{place}", host=host, port=bad.port, health=check, weight=0 if place else 100)
                    for place in range(2)
                ]
                return document(*held, name=f"late-{number}", timeouts=Timeouts(connect=3600))

            async with gateway(settings=LOOPBACK, open_server=names.open, local_port=good.port) as running:
                hostile = [late(number) for number in range(40)]
                running.load_all({"bad": hostile})
                await until(lambda: len(bad.sides) >= 33 or len(set(names.asked)) >= 32)
                before = near.checks
                running.load_all({"bad": hostile, "default": [document(local(health=check))]})
                await until(lambda: near.checks >= before + 3)
                runtime = running.store.runtime("bad/late-0")
                await until(lambda: not runtime.backends["b0"].breaker.healthy)


async def test_the_checks_of_one_route_share_its_slots() -> None:
    """A route has four checks under way at most, however many backends it has."""
    check = HealthCheck(path="/health", interval=1, timeout=1, unhealthy=1)
    under_way = most = 0

    async def script(side: ServerSide) -> None:
        nonlocal under_way, most
        await side.request()
        under_way += 1
        most = max(most, under_way)
        await side.gone()
        under_way -= 1

    async with serving(script) as server:
        many = [
            Backend(id=f"b{place}", host="127.0.0.1", port=server.port, health=check, weight=0 if place else 100)
            for place in range(16)
        ]
        async with gateway(document(*many), settings=LOOPBACK):
            await until(lambda: len(server.sides) >= 12)
        assert 2 <= most <= 5  # the end of one may reach the server after the beginning of the next


# Changes of the routing table


async def test_streams_of_a_removed_backend_finish() -> None:
    """200 streams of a removed backend continue to their end; idle connections to it are closed at once."""
    go = asyncio.Event()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"

    async def script(side: ServerSide) -> None:
        first = await side.request()
        if b"GET /idle" in first:
            await side.send(OK)
            await side.gone()
            return
        await side.send(head + b"9\r\ndata: 1\n\n\r\n")
        await go.wait()
        await side.send(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")

    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        tasks = []
        for _ in range(200):
            client = await running.client()
            await client.send(b"GET /default/demo/x HTTP/1.1\r\nHost: x\r\n\r\n")
            tasks.append(asyncio.create_task(client.response()))
        await until(lambda: sum(bool(side.received) for side in near.sides) == 200)
        assert (await running.ask(b"GET /default/demo/idle HTTP/1.1\r\nHost: x\r\n\r\n")).status == 200
        assert running.upstream.stats.idle == 1
        running.load(document(remote(100)))
        assert running.upstream.stats.idle == 0
        assert await backends(running, 1) == [b"remote"]
        go.set()
        responses = await asyncio.gather(*tasks)
        assert all(response.complete and response.body == b"data: 1\n\ndata: 2\n\n" for response in responses)
        labels = {"namespace": "default", "model": "demo"}
        await until(lambda: running.count("beamlit_gateway_in_flight_requests", **labels) == 0)
        assert running.count("beamlit_gateway_requests_total", **labels, backend="local", code="200") == 201
