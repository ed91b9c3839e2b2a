"""Pods of a Service over real sockets: which pod gets a request, what follows when one fails, and what the log says."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import orjson

from gateway.admin import routes_page
from gateway.api.v1alpha1 import Breaker, Retry, RouteDocument, Use
from gateway.api.vocabulary import Endpoints
from gateway.backends.endpoints import Endpoint, EndpointSlice, EndpointTable, PodState
from tests.integration.gateway.wire import Response, Running, document, gateway, local, remote, reply
from tests.integration.servers import ScriptedServer, ServerSide, serving, until

TARGET = b"/default/demo/v1/chat/completions"
BODY = b'{"model":"demo","n":1}'
LOOPBACK: dict[str, Any] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
DEAD = 1
"""Port on loopback where nothing listens."""

Script = Callable[[ServerSide], Awaitable[None]]


def responding(status: bytes, *fields: bytes) -> Script:
    """Return the script of a server that responds to every request with a status and the server's own port."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(reply(b"ok", status, *fields))

    return script


def slice_of(*pods: str, namespace: str = "default") -> EndpointSlice:
    """Return a slice of the Service demo-local with ready pods, the n-th of which is at 10.0.0.n."""
    members = tuple(
        Endpoint(pod, "", (f"10.0.0.{number}",), 8000, PodState.READY) for number, pod in enumerate(pods, 1)
    )
    return EndpointSlice(namespace, "demo-local-x", "demo-local", 1, members)


@dataclass
class World:
    """Gateway in front of a model with pods, its Service and a remote backend."""

    running: Running
    table: EndpointTable
    servers: dict[str, ScriptedServer]
    """Servers by the name of the pod, or `service` and `remote`."""

    async def post(self) -> Response:
        """Send one POST; return the response."""
        return await self.running.post(TARGET, BODY)

    def asked(self) -> dict[str, int]:
        """Return how often each server was connected to."""
        return {name: len(server.sides) for name, server in self.servers.items() if server.sides}

    async def attempts(self, number: int) -> list[list[tuple[str, str | None, str | None]]]:
        """Return the attempts of each of the last `number` requests as backend, pod and cause."""
        await until(lambda: len(self.running.lines()) >= number)
        decisions = list(self.running.journal.decisions(limit=number))
        return [
            [(one["backend"], one.get("pod"), one["cause"]) for one in decision["attempts"]] for decision in decisions
        ]


@asynccontextmanager
async def world(route: RouteDocument | None = None, **scripts: Script | None) -> AsyncIterator[World]:
    """Yield a gateway whose pods follow scripts; one without a script is dead."""
    pods = [name for name in scripts if name not in ("service", "far")]
    async with AsyncExitStack() as stack:
        servers = {
            name: await stack.enter_async_context(serving(script))
            for name, script in ({"service": OK, "far": OK} | scripts).items()
            if script is not None
        }
        table = EndpointTable()
        table.put(slice_of(*pods))
        ports = {
            f"10.0.0.{number}": servers[pod].port if pod in servers else DEAD for number, pod in enumerate(pods, 1)
        }
        running = await stack.enter_async_context(
            gateway(
                route or document(local(), remote()),
                local_port=servers["service"].port,
                remote_port=servers["far"].port,
                settings=LOOPBACK,
                endpoints=table,
                pods=ports,
            )
        )
        yield World(running, table, servers)


OK = responding(b"200 OK")
FULL = responding(b"503 Service Unavailable")


async def test_a_request_goes_to_a_pod_and_the_log_names_it() -> None:
    """A request goes to one of the Service's pods under the Service's name, and the log says to which."""
    async with world(a=OK) as there:
        response = await there.post()
        assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"local")
        assert there.asked() == {"a": 1}
        assert await there.attempts(1) == [[("local", "a", None)]]
        assert there.running.lines()[0]["pod"] == "a"
        assert b"host: demo-local.default.svc.cluster.local" in there.servers["a"].sides[0].received


async def test_the_pods_of_a_route_are_shown_before_its_first_request() -> None:
    """`/routes` shows the same pods before the first request for a model as after it."""
    routes = (document(local(), remote()), document(local(endpoints=Endpoints.SERVICE), name="by-name"))
    async with world(routes[0], a=OK, b=None) as there:
        there.running.load(*routes)

        def shown() -> list[dict[str, Any]]:
            page = orjson.loads(b"".join(routes_page(there.running.store, there.table)))
            return [route["backends"][0] for route in page["routes"]]

        named, whole = shown()
        assert "pods" not in named
        unused = {"inFlight": 0, "breaker": "closed", "coolDownSeconds": 0.0}
        assert whole["pods"] == [{"name": name, **unused} for name in ("a", "b")]
        there.table.put(slice_of("a"))
        assert [pod["name"] for pod in shown()[1]["pods"]] == ["a"]
        assert (await there.post()).status == 200
        await until(lambda: len(there.running.lines()) == 1)
        assert shown()[1]["pods"] == [{"name": "a", **unused}]


async def test_a_dead_pod_of_three_costs_no_error_and_no_remote_request() -> None:
    """While one pod of three is dead every request is served, by the other pods, and few of them try it at all."""
    async with world(a=OK, b=None, c=OK) as there:
        statuses = Counter([(await there.post()).status for _ in range(60)])
        assert statuses == {200: 60}
        assert not there.asked().keys() & {"far", "service"}
        tried = Counter(pod for attempts in await there.attempts(60) for _, pod, _ in attempts)
        assert tried["b"] < 10 < min(tried["a"], tried["c"])


async def test_another_pod_comes_before_another_backend() -> None:
    """A request that fails at one pod goes to another one; its last attempt goes to another backend."""
    async with world(a=FULL, b=FULL, c=FULL) as there:
        response = await there.post()
        assert (response.status, response.value(b"x-beamlit-reason")) == (200, b"Failover")
        (attempts,) = await there.attempts(1)
        assert [backend for backend, _, _ in attempts] == ["local", "local", "remote"]
        assert len({pod for _, pod, _ in attempts[:2]}) == 2
        assert [cause for _, _, cause in attempts] == ["503", "503", None]


async def test_a_request_has_three_attempts() -> None:
    """Without another backend a request is tried at three pods, and the client gets what the last one said."""
    async with world(document(local()), a=FULL, b=FULL, c=FULL, d=FULL) as there:
        assert (await there.post()).status == 503
        assert sum(there.asked().values()) == 3
        await until(lambda: len(there.running.lines()) == 1)
        assert there.running.lines()[0]["not_retryable"] == "attempts"


async def test_a_pod_that_fails_is_left_alone_and_its_backend_is_not() -> None:
    """The breaker of a pod that fails again and again opens; that of its backend, which has sound pods, does not."""
    async with world(document(local(), remote(), breaker=Breaker(open=3600)), a=FULL, b=OK) as there:
        assert {(await there.post()).status for _ in range(40)} == {200}
        assert len([one for one in await there.attempts(40) if ("local", "a", "503") in one]) == 5
        state = next(iter(orjson.loads(b"".join(routes_page(there.running.store)))["routes"]))["backends"][0]
        assert (state["breaker"], [pod["breaker"] for pod in state["pods"]]) == ("closed", ["open", "closed"])
        labels = {"namespace": "default", "model": "demo", "backend": "local"}
        assert there.running.count("beamlit_gateway_upstream_errors_total", **labels, cause="503") == 5


async def test_a_backend_whose_pods_all_fail_is_left_alone() -> None:
    """When every pod fails the breaker of the backend opens, and requests go to another backend at once."""
    async with world(document(local(), remote(), breaker=Breaker(open=3600)), a=None, b=None) as there:
        assert {(await there.post()).status for _ in range(30)} == {200}
        assert (await there.post()).value(b"x-beamlit-reason") == b"BreakerOpen"
        assert await there.attempts(1) == [[("remote", None, None)]]


async def test_a_pod_that_comes_has_asked_for_no_pause() -> None:
    """A backend in a cool-down that its only pod has asked for gets requests for as long as another pod is there."""
    asks = responding(b"503 Service Unavailable", b"Retry-After: 3600")
    async with world(a=asks, b=OK) as there:
        there.table.put(slice_of("a"))
        assert [(await there.post()).value(b"x-beamlit-reason") for _ in range(2)] == [b"Failover", b"CoolDown"]
        there.table.put(slice_of("a", "b"))
        assert {(await there.post()).value(b"x-beamlit-backend") for _ in range(6)} == {b"local"}
        assert {one[-1][1] for one in await there.attempts(6)} == {"b"}
        there.table.put(slice_of("a"))
        assert (await there.post()).value(b"x-beamlit-reason") == b"CoolDown"


async def test_a_pod_that_comes_closes_the_breaker_of_its_backend() -> None:
    """The open breaker of a backend whose only pod is dead lets a request through to a pod that comes, and closes."""
    async with world(document(local(), remote(), breaker=Breaker(open=3600)), a=None, b=OK) as there:
        there.table.put(slice_of("a"))
        assert {(await there.post()).status for _ in range(6)} == {200}
        assert (await there.post()).value(b"x-beamlit-reason") == b"BreakerOpen"
        there.table.put(slice_of("a", "b"))
        assert {(await there.post()).value(b"x-beamlit-backend") for _ in range(6)} == {b"local"}
        runtime = there.running.store.runtime("default/demo").backends["local"]
        assert runtime.breaker.usable


async def test_without_slices_the_name_of_the_service_is_used() -> None:
    """Requests go to the Service by its name until slices name its pods, and again once they name none."""
    async with world(a=OK) as there:
        there.table.remove("default", "demo-local-x")
        assert (await there.post()).status == 200
        there.table.put(slice_of("a"))
        assert (await there.post()).status == 200
        there.table.put(slice_of())
        assert (await there.post()).status == 200
        assert [one[0][1] for one in await there.attempts(3)] == [None, "a", None]


async def test_a_route_may_ask_for_the_name_of_the_service() -> None:
    """A route whose document says so has its requests sent to the name of the Service, and the others have pods."""
    async with world(document(local(endpoints=Endpoints.SERVICE)), a=OK) as there:
        assert (await there.post()).status == 200
        assert there.asked() == {"service": 1}


async def test_pods_of_another_namespace_are_never_reached() -> None:
    """Slices of another namespace name no pods for a Service of the same name."""
    async with world() as there:
        there.table.put(slice_of("a", namespace="other"))
        assert (await there.post()).status == 200
        assert there.asked() == {"service": 1}


async def test_the_less_busy_pod_gets_the_request() -> None:
    """Of two pods the one with fewer requests in flight gets the next request, and both count again at their end."""
    free = asyncio.Event()

    async def waiting(side: ServerSide) -> None:
        await side.request()
        await free.wait()
        await side.send(reply())

    async with world(a=waiting, b=waiting) as there:
        first = asyncio.create_task(there.post())
        await until(lambda: len(there.asked()) == 1)
        second = asyncio.create_task(there.post())
        await until(lambda: there.asked() == {"a": 1, "b": 1})
        free.set()
        assert {(await first).status, (await second).status} == {200}
        runtime = there.running.store.runtime("default/demo").backends["local"]
        assert runtime.pods is not None
        await until(lambda: [pod.in_flight for pod in runtime.pods.pods] == [0, 0] if runtime.pods else False)


async def test_a_request_that_may_not_be_repeated_goes_elsewhere_only_unsent() -> None:
    """Without failover a request goes to another pod where nothing was sent, and nowhere else after a response."""
    once = document(local(use=(Use.WEIGHTED,)))
    async with world(once, a=None, b=OK) as there:
        assert {(await there.post()).status for _ in range(10)} == {200}
    async with world(once, a=FULL, b=FULL) as there:
        assert (await there.post()).status == 503
        assert sum(there.asked().values()) == 1
    async with world(document(local(), remote(), retry=Retry(on=("503",))), a=None, b=OK) as there:
        statuses = {(await there.post()).status for _ in range(10)}
        assert statuses <= {200, 502}
        assert "far" not in there.asked()


async def test_a_pod_is_reached_by_its_address_of_either_family() -> None:
    """A pod with an address of each family is served by the one that can be connected to."""
    async with serving(OK) as server:
        table = EndpointTable()
        pod = Endpoint("a", "", ("10.0.0.1", "fd00::1"), 8000, PodState.READY)
        table.put(EndpointSlice("default", "x", "demo-local", 1, (pod,)))
        pods = {"10.0.0.1": DEAD, "fd00::1": server.port}
        async with gateway(endpoints=table, pods=pods) as running:
            assert (await running.post(TARGET, BODY)).status == 200


async def test_a_stream_that_breaks_off_speaks_against_its_pod() -> None:
    """A response that ends too soon is a failure of its pod, and none of a backend that has other pods."""

    async def half(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")
        side.reset()

    async with world(document(local(), breaker=Breaker(consecutive_failures=1, open=3600)), a=half, b=OK) as there:
        for _ in range(20):
            client = await there.running.client()
            await client.send(b"POST " + TARGET + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}")
            await client.reader.read(50)
            client.reset()
        state = there.running.store.runtime("default/demo").backends["local"]
        assert state.pods is not None
        await until(lambda: state.pods is not None and not state.pods.pods[0].breaker.usable)
        assert state.breaker.usable
