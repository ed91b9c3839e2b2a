"""Backends that ask for a pause, fail too often or are not well: who is asked instead, and when they come back."""

import asyncio
from collections.abc import Mapping
from email.utils import formatdate
from functools import partial
from time import time
from typing import Any

import pytest

from gateway import admin
from gateway.api.v1alpha1 import Breaker, HealthCheck, Retry, Use
from tests.integration.gateway.wire import Response, Running, document, echo, gateway, local, remote, reply
from tests.integration.servers import ServerSide, serving, until

LOOPBACK: dict[str, Any] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
LABELS = {"namespace": "default", "model": "demo", "backend": "local"}


class Switch:
    """A server whose answers a test changes while it runs."""

    def __init__(self, response: bytes) -> None:
        self.response = response
        self.asked = 0
        self.checked = 0
        self.go = asyncio.Event()
        self.go.set()

    async def __call__(self, side: ServerSide) -> None:
        """Answer every request as of now; nothing at all means a reset."""
        while True:
            request = await side.request()
            if request.startswith(b"GET /health "):
                self.checked += 1
            else:
                self.asked += 1
            await self.go.wait()
            if not self.response:
                side.reset()
                return
            await side.send(self.response)


OK = reply(b"ok")


async def asked(running: Running) -> Response:
    """The answer to one POST."""
    return await running.post(b"/default/demo/x", b"{}")


async def backends(running: Running, count: int) -> list[bytes | None]:
    """Who answers so many requests, one after the other."""
    return [(await asked(running)).value(b"x-beamlit-backend") for _ in range(count)]


def state(running: Running, backend: int = 0) -> Mapping[str, Any]:
    """What /routes says of a backend."""
    result: Mapping[str, Any] = admin.describe(running.store)["routes"][0]["backends"][backend]
    return result


# A pause


@pytest.mark.parametrize("status", [b"429 Too Many Requests", b"503 Service Unavailable"])
@pytest.mark.parametrize("date", [False, True])
async def test_rt_06_a_backend_that_asks_for_a_pause_gets_it(status: bytes, date: bool) -> None:
    """RT-06: while it lasts requests go elsewhere and say why; it ends by itself."""
    value = formatdate(time() + 2, usegmt=True).encode() if date else b"1"
    near = Switch(reply(b"no", status, b"retry-after: " + value))
    async with (
        serving(near) as server,
        serving(echo) as far,
        gateway(
            document(local(), remote()), local_port=server.port, remote_port=far.port, settings=LOOPBACK
        ) as running,
    ):
        assert (await asked(running)).value(b"x-beamlit-reason") == b"Failover"
        near.response = OK
        response = await asked(running)
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (b"remote", b"CoolDown")
        assert near.asked == 1
        assert 0 < running.count("beamlit_gateway_cool_down_seconds", **LABELS) <= 2
        assert 0 < state(running)["coolDownSeconds"] <= 2
        await until(lambda: running.count("beamlit_gateway_cool_down_seconds", **LABELS) == 0)
        response = await asked(running)
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (b"local", b"Local")
        await until(lambda: len(running.lines()) == 3)
        assert [line["reason"] for line in running.lines()] == ["Failover", "CoolDown", "Local"]


async def test_nobody_left_is_503_with_the_earliest_end() -> None:
    """With every backend at pause the answer comes at once and says when to come back."""
    near = Switch(reply(b"no", b"429 No", b"retry-after: 50"))
    far = Switch(reply(b"no", b"503 No", b"retry-after: 20"))
    async with (
        serving(near) as a,
        serving(far) as b,
        gateway(document(local(), remote()), local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
    ):
        response = await asked(running)
        assert (response.status, response.body, response.value(b"retry-after")) == (503, b"no", b"20")
        response = await asked(running)
        assert (response.status, response.code) == (503, "no_backend")
        assert response.value(b"retry-after") in (b"19", b"20")
        assert (near.asked, far.asked) == (1, 1)


async def test_a_single_backend_at_pause_is_503_too() -> None:
    """A route with one backend respects the pause; one that is not for failover does not step in."""
    near = Switch(reply(b"no", b"429 No", b"retry-after: 1"))
    async with serving(near) as a, serving(echo) as b:
        for others in ((), (remote(use=(Use.WEIGHTED,)),)):
            near.response, near.asked = reply(b"no", b"429 No", b"retry-after: 1"), 0
            async with gateway(
                document(local(), *others), local_port=a.port, remote_port=b.port, settings=LOOPBACK
            ) as running:
                assert (await asked(running)).status == 429
                near.response = OK
                response = await asked(running)
                assert (response.status, response.value(b"retry-after"), near.asked) == (503, b"1", 1)
                await until(partial(_has_cooled_down, running))
                assert (await asked(running)).status == 200


def _has_cooled_down(running: Running) -> bool:
    return running.count("beamlit_gateway_cool_down_seconds", **LABELS) == 0


async def test_a_pause_is_capped() -> None:
    """However long a backend asks for, it gets the setting's time at most; 0 turns pauses off."""
    near = Switch(reply(b"no", b"503 No", b"retry-after: 100000000000"))
    for most, expected in ((0.3, 0.3), (0, 0.0)):
        settings = {"gateway": {**LOOPBACK["gateway"], "retry": {"coolDownSeconds": most}}}
        async with (
            serving(near) as a,
            serving(echo) as b,
            gateway(document(local(), remote()), local_port=a.port, remote_port=b.port, settings=settings) as running,
        ):
            assert (await asked(running)).status == 200
            left = running.count("beamlit_gateway_cool_down_seconds", **LABELS)
            assert expected - 0.3 <= left <= expected
            assert running.count("beamlit_gateway_breaker_state", **LABELS) == 0


# The breaker


@pytest.mark.parametrize("failure", [b"", reply(b"no", b"503 No"), reply(b"no", b"429 No"), b"SSH-2.0\r\n\r\n"])
async def test_failures_open_the_breaker_and_a_probe_closes_it(failure: bytes) -> None:
    """After three failures nobody waits for the backend; then a single request tries it, and all follow."""
    near = Switch(failure)
    route = document(local(), remote(), breaker=Breaker(consecutive_failures=3, open=0.4))
    async with (
        serving(near) as a,
        serving(echo) as b,
        gateway(route, local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
    ):
        await backends(running, 3)
        assert near.asked == 3
        assert running.count("beamlit_gateway_breaker_state", **LABELS) == 2
        assert state(running)["breaker"] == "open"
        response = await asked(running)
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (
            b"remote",
            b"BreakerOpen",
        )
        assert near.asked == 3
        await until(lambda: state(running)["breaker"] == "halfOpen")
        near.response = OK
        near.go.clear()
        probing = asyncio.create_task(asked(running))
        await until(lambda: near.asked == 4)
        assert await backends(running, 5) == [b"remote"] * 5
        assert near.asked == 4
        near.go.set()
        assert (await probing).value(b"x-beamlit-backend") == b"local"
        assert state(running)["breaker"] == "closed"
        assert await backends(running, 3) == [b"local"] * 3


async def test_to_06_a_client_that_goes_is_nobodys_failure() -> None:
    """TO-06: requests that were given up neither open the breaker nor keep it half-open."""
    near = Switch(OK)
    near.go.clear()
    route = document(local(), remote(), breaker=Breaker(consecutive_failures=2, open=0.2))
    async with (
        serving(near) as a,
        serving(echo) as b,
        gateway(route, local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
    ):

        async def give_up() -> None:
            before = near.asked
            client = await running.client()
            await client.send(b"POST /default/demo/x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
            await until(lambda: near.asked == before + 1)
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
        await give_up()  # the deciding request
        near.go.set()
        assert await backends(running, 2) == [b"local", b"local"]


async def test_a_breaker_never_excludes_the_last_backend() -> None:
    """A route with one backend, and one whose other is as bad, go on asking; a success closes the breaker."""
    near = Switch(b"")
    rules = Breaker(consecutive_failures=1, open=100)
    async with serving(near) as a:
        for others in ((), (remote(),)):
            near.response, near.asked = b"", 0
            route = document(local(), *others, breaker=rules, retry=Retry(on=()))
            async with gateway(route, local_port=a.port, remote_port=1, settings=LOOPBACK) as running:
                for _ in range(3):
                    await asked(running)
                assert near.asked >= (1 if others else 3)
                if others:
                    assert state(running, 1)["breaker"] == "open"  # asked once, instead
                near.response = OK
                response = await asked(running)
                assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"local")
                assert state(running)["breaker"] == "closed"


async def test_streams_that_break_off_are_failures() -> None:
    """An answer that breaks off after its head counts against the backend as well."""
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


async def test_state_outlives_documents_and_not_places() -> None:
    """Another document of the same place finds the breaker as it was; a backend at another place begins anew."""
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
        assert near.asked == 2
        moved = local(scheme="https")
        running.load(document(moved, remote(), breaker=rules))
        await asked(running)
        assert state(running)["breaker"] == "closed"
        running.load(document(remote(100)))
        await asked(running)
        assert running.metrics.registry.get_sample_value("beamlit_gateway_breaker_state", LABELS) is None


# Health


@pytest.mark.parametrize("bad", [b"", reply(b"", b"500 No"), reply(b"", b"302 Found"), None])
async def test_health_checks_take_a_backend_out_and_back(bad: bytes | None) -> None:
    """Two failed checks take it out, one passed brings it back; the requests do not notice."""
    near = Switch(OK)
    check = HealthCheck(path="/health", interval=0.05, timeout=0.1, unhealthy=2, healthy=1)
    async with (
        serving(near) as a,
        serving(echo) as b,
        gateway(
            document(local(health=check), remote()), local_port=a.port, remote_port=b.port, settings=LOOPBACK
        ) as running,
    ):
        await until(lambda: near.checked >= 2)  # without any request
        assert await backends(running, 1) == [b"local"]
        if bad is None:
            near.go.clear()  # does not answer
        else:
            near.response = bad
        await until(lambda: not state(running)["healthy"])
        assert running.count("beamlit_gateway_backend_healthy", **LABELS) == 0
        asked_before = near.asked
        response = await asked(running)
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (b"remote", b"Unhealthy")
        assert near.asked == asked_before
        near.response = OK
        near.go.set()
        await until(lambda: bool(state(running)["healthy"]))
        assert await backends(running, 1) == [b"local"]


async def test_health_checks_never_take_the_last_backend_out() -> None:
    """Where nobody else is left, it is asked all the same."""
    near = Switch(reply(b"ill", b"500 No"))
    check = HealthCheck(path="/health", interval=0.05, timeout=1, unhealthy=1)
    async with serving(near) as a, gateway(document(local(health=check)), local_port=a.port) as running:
        await until(lambda: not state(running)["healthy"])
        assert (await asked(running)).body == b"ill"


async def test_health_checks_end_with_the_wish_for_them() -> None:
    """A document without them ends them, and what they said is forgotten; other rules begin anew."""
    near = Switch(reply(b"", b"500 No"))
    check = HealthCheck(path="/health", interval=0.05, timeout=1, unhealthy=1)
    async with (
        serving(near) as a,
        gateway(document(local(health=check), remote()), local_port=a.port, settings=LOOPBACK) as running,
    ):
        await until(lambda: not state(running)["healthy"])
        before = near.checked
        running.load(document(local(health=check), remote(weight=0, model="other")))
        await until(lambda: near.checked > before)
        assert not state(running)["healthy"]
        running.load(document(local(), remote()))
        assert state(running)["healthy"]
        tasks = [task for task in asyncio.all_tasks() if "HealthChecks" in repr(task)]
        await until(lambda: all(task.done() for task in tasks))
        running.load(document(name="other"))


async def test_se_15_health_checks_go_to_no_other_addresses_than_requests() -> None:
    """SE-15: a check is no way into the machine or the cluster."""
    check = HealthCheck(path="/health", interval=0.05, timeout=1, unhealthy=1)
    near = Switch(OK)
    async with serving(near) as server:
        backend = remote(100, health=check).model_copy(update={"host": "127.0.0.1", "port": server.port})
        async with gateway(document(backend)) as running:
            await until(lambda: not state(running)["healthy"])
            assert near.checked == 0


# What a change of the table leaves alone


async def test_a_backend_that_is_taken_out_finishes_its_streams() -> None:
    """200 streams run on while their backend leaves the table; idle connections to it are dropped at once."""
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
