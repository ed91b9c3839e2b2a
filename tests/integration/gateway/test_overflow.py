"""Backends at their limit of requests in flight: overflow, the queue, and slots that are never lost."""

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import httpx
import pytest

from gateway import admin
from gateway.api.v1alpha1 import Queue, Timeouts, Use
from tests.deadlines import SECONDS
from tests.integration.gateway.wire import Client, Response, Running, document, echo, gateway, local, remote, reply
from tests.integration.servers import ServerSide, serving, until

LOOPBACK: dict[str, Any] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
LABELS = {"namespace": "default", "model": "demo", "backend": "local"}
SPILL = (Use.OVERFLOW,)


class Slow:
    """Server that responds when `go` is released, and counts its requests in flight."""

    def __init__(self) -> None:
        self.go = asyncio.Semaphore(0)
        self.now = self.most = self.total = 0
        self.order: list[bytes] = []

    async def __call__(self, side: ServerSide) -> None:
        """Send the first half of a response at once, the second when `go` is released."""
        while True:
            request = await side.request()
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)
            self.order.append(request.split(b" ")[1])
            try:
                await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\nhalf")
                await self._released(side)
            finally:
                self.now -= 1
            await side.send(b"rest")

    async def _released(self, side: ServerSide) -> None:
        go = asyncio.ensure_future(self.go.acquire())
        gone = asyncio.ensure_future(side.reader.read(1))
        try:
            await asyncio.wait((go, gone), return_when=asyncio.FIRST_COMPLETED)
            if not go.done():
                raise ConnectionResetError
        finally:
            go.cancel()
            gone.cancel()


def get(number: int) -> bytes:
    """Return a request with a number in its path."""
    return b"GET /default/demo/%d HTTP/1.1\r\nHost: x\r\n\r\n" % number


@asynccontextmanager
async def in_flight(running: Running, number: int) -> AsyncIterator[asyncio.Task[Response]]:
    """Yield the response of a request in flight; reset its client at the end."""
    client: Client = await running.client()
    await client.send(get(number))
    task = asyncio.create_task(client.response())
    try:
        yield task
    finally:
        task.cancel()
        client.reset()


async def test_above_the_limit_a_request_goes_to_another_backend_at_once() -> None:
    """A request above the limit goes to the backend for overflow, with that reason; later ones do not."""
    near = Slow()
    async with (
        serving(near) as a,
        serving(echo) as b,
        gateway(
            document(local(in_flight=1), remote(use=SPILL)), local_port=a.port, remote_port=b.port, settings=LOOPBACK
        ) as running,
        in_flight(running, 1) as first,
    ):
        await until(lambda: near.now == 1)
        assert running.count("beamlit_gateway_backend_in_flight_requests", **LABELS) == 1
        response = await running.ask(get(2))
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (b"remote", b"Overflow")
        near.go.release()
        assert (await first).complete
        near.go.release()
        response = await running.ask(get(3))
        assert (response.value(b"x-beamlit-backend"), response.value(b"x-beamlit-reason")) == (b"local", b"Local")
        labels = {"namespace": "default", "model": "demo", "reason": "Overflow"}
        assert running.count("beamlit_gateway_diverted_requests_total", **labels) == 1


async def test_overflow_is_not_failover() -> None:
    """A backend for overflow only takes no failover, and one for failover only takes no overflow."""
    async with serving(echo) as b:
        route = document(local(in_flight=1), remote(use=SPILL))
        async with gateway(route, local_port=1, remote_port=b.port, settings=LOOPBACK) as running:
            assert (await running.ask(get(1))).code == "connect_failed"
    near = Slow()
    async with serving(near) as a, serving(echo) as b:
        route = document(local(in_flight=1), remote(use=(Use.FAILOVER,)))
        async with (
            gateway(route, local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
            in_flight(running, 1),
        ):
            await until(lambda: near.now == 1)
            response = await running.ask(get(2))
            assert (response.status, response.code, response.value(b"retry-after")) == (503, "at_capacity", b"1")
            assert response.value(b"connection") is None


async def test_failover_respects_the_limit() -> None:
    """A backend at its limit takes no failover; the client gets the failed response."""
    near = Slow()
    failing = reply(b"no", b"503 No")

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(failing)

    async with serving(near) as a, serving(script) as b:
        route = document(local(50, in_flight=1), remote(50))
        async with (
            gateway(route, local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
            in_flight(running, 1),
        ):
            await until(lambda: near.now == 1)
            assert (await running.ask(get(2))).body == b"no"
            assert near.total == 1


async def test_a_queue_is_first_come_first_served() -> None:
    """Requests wait in the order in which they came; above the queue's size the response is a 503 at once."""
    near = Slow()
    route = document(local(in_flight=1), queue=Queue(size=3, wait=SECONDS))
    async with serving(near) as a, gateway(route, local_port=a.port) as running:
        clients = []
        for number in range(4):
            client = await running.client()
            await client.send(get(number))
            clients.append(client)
            await until(partial(_has_queued, running, number))
            await until(lambda: near.now == 1)
        response = await running.ask(get(9))
        assert (response.status, response.code, response.value(b"retry-after")) == (503, "at_capacity", b"1")
        clients[2].reset()  # its request leaves the queue and is never sent (TO-07)
        await until(lambda: running.count("beamlit_gateway_queued_requests", **LABELS) == 2)
        for client in (clients[0], clients[1], clients[3]):
            near.go.release()
            assert (await client.response()).complete
        assert near.order == [b"/0", b"/1", b"/3"]
        assert near.most == 1
        await until(lambda: len(running.lines()) == 5)
        logged = {line["path"]: line for line in running.lines()}
        assert logged["/default/demo/2"]["status"] == 499
        assert "attempts" not in logged["/default/demo/2"]
        assert logged["/default/demo/3"]["queued_seconds"] > 0
        assert "queued_seconds" not in logged["/default/demo/0"]
        assert running.count("beamlit_gateway_queue_seconds_count", **LABELS) == 3
        assert running.count("beamlit_gateway_overhead_seconds_count", **LABELS) == 3
        assert running.count("beamlit_gateway_request_attempts_sum", **LABELS) == 3
        await until(lambda: running.count("beamlit_gateway_backend_in_flight_requests", **LABELS) == 0)


def _has_queued(running: Running, number: int) -> bool:
    return running.count("beamlit_gateway_queued_requests", **LABELS) == number


async def test_a_queue_has_a_deadline() -> None:
    """A request that waits for too long gets a 503 with Retry-After, and is never sent to the backend."""
    near = Slow()
    route = document(local(in_flight=1), queue=Queue(size=3, wait=0.2))
    async with serving(near) as a, gateway(route, local_port=a.port) as running, in_flight(running, 1):
        await until(lambda: near.now == 1)
        response = await running.ask(get(2))
        assert (response.status, response.code, response.value(b"retry-after")) == (503, "queue_timeout", b"1")
        assert near.total == 1


async def test_waiting_requests_go_to_another_backend_once_that_is_possible() -> None:
    """Waiting requests go to the backend for overflow when its cool-down ends."""
    near, asked_once = Slow(), asyncio.Event()

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            busy = b"retry-after: 2\r\n" if not asked_once.is_set() else b""
            asked_once.set()
            await side.send(b"HTTP/1.1 %b\r\n%bcontent-length: 0\r\n\r\n" % (b"429 No" if busy else b"200 OK", busy))

    route = document(local(in_flight=1), remote(use=SPILL), queue=Queue(size=9, wait=SECONDS))
    async with (
        serving(near) as a,
        serving(script) as b,
        gateway(route, local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
        in_flight(running, 1),
    ):
        await until(lambda: near.now == 1)
        assert (await running.ask(get(2))).status == 429
        async with in_flight(running, 3) as third, in_flight(running, 4) as fourth:
            await until(partial(_has_queued, running, 2))
            for response in await asyncio.gather(third, fourth):
                assert (response.status, response.value(b"x-beamlit-reason")) == (200, b"Overflow")
        assert near.total == 1
        await until(lambda: len(running.lines()) == 3)
        assert sum("queued_seconds" in line for line in running.lines()) == 2


async def test_waiting_requests_stay_where_another_document_is_in_force() -> None:
    """A backend for overflow that was removed meanwhile takes no waiting request."""
    near, requests = Slow(), 0

    async def script(side: ServerSide) -> None:
        nonlocal requests
        while True:
            await side.request()
            requests += 1
            await side.send(b"HTTP/1.1 429 No\r\nretry-after: 2\r\ncontent-length: 0\r\n\r\n")

    route = document(local(in_flight=1), remote(use=SPILL), queue=Queue(size=9, wait=3))
    async with (
        serving(near) as a,
        serving(script) as b,
        gateway(route, local_port=a.port, remote_port=b.port, settings=LOOPBACK) as running,
        in_flight(running, 1),
    ):
        await until(lambda: near.now == 1)
        assert (await running.ask(get(2))).status == 429
        async with in_flight(running, 3) as third:
            await until(partial(_has_queued, running, 1))
            running.load(document(local(in_flight=1), queue=Queue(size=9, wait=3)))
            assert (await third).code == "queue_timeout"
        assert requests == 1


async def test_a_slot_is_held_to_the_end_of_the_stream_and_no_longer() -> None:
    """A slot is released however a request ends, and stays counted when the document changes."""
    near = Slow()
    route = document(local(in_flight=1), timeouts=Timeouts(idle=2))
    async with serving(near) as a, gateway(route, local_port=a.port) as running:
        async with in_flight(running, 1):
            await until(lambda: near.now == 1)
            assert (await running.ask(get(2))).code == "at_capacity"
        await until(lambda: running.count("beamlit_gateway_backend_in_flight_requests", **LABELS) == 0)
        assert not (await running.ask(get(3))).complete  # the backend is idle for too long
        assert running.count("beamlit_gateway_backend_in_flight_requests", **LABELS) == 0
        async with in_flight(running, 4) as fourth:
            await until(lambda: near.now == 1)
            running.load(document(local(in_flight=1, path_prefix="/new"), timeouts=Timeouts(idle=SECONDS)))
            assert (await running.ask(get(5))).code == "at_capacity"  # counted across documents
            near.go.release()
            assert (await fourth).complete
        near.go.release()
        assert (await running.ask(get(6))).complete


@pytest.mark.parametrize("seed", range(4))
async def test_cp_07_no_slot_is_ever_lost(seed: int) -> None:
    """CP-07: while clients leave and servers break at random, the limit holds; all slots are free at the end."""
    dice = random.Random(seed)
    most = 0

    async def script(side: ServerSide) -> None:
        nonlocal most
        while True:
            await side.request()
            most = max(most, int(running.count("beamlit_gateway_backend_in_flight_requests", **LABELS)))
            await asyncio.sleep(dice.random() * 0.01)
            kind = dice.randrange(5)
            if kind == 0:
                return
            if kind == 1:
                await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
                return
            await side.send(reply(b"no", b"503 No") if kind == 2 else reply(b"ok"))

    route = document(local(in_flight=3), queue=Queue(size=10, wait=0.05))
    async with serving(script) as a, gateway(route, local_port=a.port) as running:

        async def one(number: int) -> None:
            client = await running.client()
            await client.send(get(number))
            try:
                async with asyncio.timeout(dice.choice((0.001, 0.01, 0.05, 3))):
                    await client.response()
            except TimeoutError:
                pass
            finally:
                client.reset()

        waiting: set[asyncio.Task[None]] = set()
        for number in range(200):
            waiting.add(asyncio.create_task(one(number)))
            if len(waiting) == 25:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*waiting)
        await until(lambda: len(running.lines()) == 200)
        assert running.count("beamlit_gateway_backend_in_flight_requests", **LABELS) == 0
        assert running.count("beamlit_gateway_queued_requests", **LABELS) == 0
        assert 1 < most <= 3


async def test_the_response_the_log_and_decisions_agree() -> None:
    """/decisions lists the last requests, the newest first, as response and log have them, and nothing secret."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(reply(b"no", b"503 No"))

    async with (
        serving(script) as a,
        serving(echo) as b,
        gateway(
            document(local(70), remote(30)),
            document(local(), name="other"),
            local_port=a.port,
            remote_port=b.port,
            settings=LOOPBACK,
        ) as running,
    ):
        field = b"Authorization: Bearer canary"
        first = await running.post(b"/default/demo/v1/x?key=canary", b'{"p":"canary"}', field)
        second = await running.post(b"/default/other/v1/x", b"{}", field)
        app = admin.create_app(running.store, running.metrics, running.journal, draining=lambda: False)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
            everything = (await client.get("/decisions")).json()["decisions"]
            one = (await client.get("/decisions", params={"route": "default/demo", "limit": 1})).json()["decisions"]
            refused = await client.get("/decisions", params={"limit": 0})
            assert (refused.status_code, refused.json()["error"][:43]) == (
                422,
                "limit must be a whole number from 1 to 1000",
            )
            assert "canary" not in (await client.get("/decisions")).text
        assert [decision["route"] for decision in everything] == ["default/other", "default/demo"]
        assert one == everything[1:]
        decision = one[0]
        assert (decision["reason"], decision["backend"], decision["weight"], decision["status"]) == (
            "Failover",
            "remote",
            30,
            200,
        )
        assert [(attempt["backend"], attempt["cause"]) for attempt in decision["attempts"]] == [
            ("local", "503"),
            ("remote", None),
        ]
        assert first.value(b"x-beamlit-reason") == decision["reason"].encode()
        assert first.value(b"x-request-id") == decision["request_id"].encode()
        assert second.status == everything[0]["status"] == 503
        await until(lambda: len(running.lines()) == 2)
        logged = running.lines()[0]
        assert {key: logged[key] for key in decision} == decision
        assert "canary" not in running.log.getvalue()
