"""Resources of the gateway itself on its two ports: HEAD wherever GET, and `/health` for load balancers."""

import asyncio
import signal
from pathlib import Path

import orjson
import pytest

from gateway.api.v1alpha1 import RouteDocument
from tests.integration.gateway.test_process import started
from tests.integration.gateway.wire import Response, echo, gateway, local
from tests.integration.servers import ServerSide, serving


def request(method: bytes, target: bytes, host: bytes = b"gateway", *fields: bytes) -> bytes:
    """Return the bytes of a request without a body."""
    return b"\r\n".join((b"%b %b HTTP/1.1" % (method, target), b"Host: " + host, *fields)) + b"\r\n\r\n"


def without_id(response: Response) -> list[tuple[bytes, bytes]]:
    """Return the fields of a response but its request id and its time."""
    return [field for field in response.fields if field[0] not in (b"x-request-id", b"date")]


@pytest.mark.parametrize(
    "target", [b"/v1/models", b"/v1/models/demo", b"/v1/models/default%2Fdemo", b"/health", b"/none"]
)
async def test_head_is_get_without_a_body(target: bytes) -> None:
    """HEAD for a resource or an error of the gateway has the head of GET and no body, and its connection goes on."""
    async with gateway() as running:
        get = await running.ask(request(b"GET", target))
        client = await running.client()
        for _ in range(2):
            await client.send(request(b"HEAD", target))
            head = await client.response(b"HEAD")
            assert (head.status, without_id(head), head.body) == (get.status, without_id(get), b"")
            assert head.value(b"content-length") == b"%d" % len(get.body)
        assert get.body


@pytest.mark.parametrize(
    ("framing", "length"),
    [
        (b"content-length: 1234567", b"1234567"),
        (b"content-length: 0", b"0"),
        (b"transfer-encoding: chunked", None),
        (b"x-nothing: 1", None),
    ],
)
@pytest.mark.parametrize("status", [b"200 OK", b"404 Not Found"])
async def test_ur_04_a_relayed_head_has_the_length_of_its_backend(
    framing: bytes, length: bytes | None, status: bytes
) -> None:
    """UR-04: a relayed response to HEAD has the length that the backend says GET would have, or none, never 0."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(b"HTTP/1.1 " + status + b"\r\n" + framing + b"\r\n\r\n")

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        for _ in range(3):
            await client.send(request(b"HEAD", b"/default/demo/v1/models"))
            response = await client.response(b"HEAD")
            assert (response.value(b"content-length"), response.body) == (length, b"")
            assert response.value(b"transfer-encoding") is None
        assert len(server.sides) == 1


async def test_health_of_the_gateway() -> None:
    """`/health` responds with a small JSON object, and is neither counted nor logged nor a decision."""
    async with gateway() as running:
        for target in (b"/health", b"/health?from=balancer"):
            response = await running.ask(request(b"GET", target, b"10.1.2.3:8080"))
            assert (response.status, orjson.loads(response.body)) == (200, {"status": "ok"})
            assert response.value(b"cache-control") == b"no-store"
        await running.ask(request(b"HEAD", b"/health"), method=b"HEAD")
        assert not list(running.journal.decisions(route=None, limit=10))
        assert running.lines() == []
        assert running.count("beamlit_gateway_refused_requests_total", code="none") == 0
        running.store.loaded.clear()
        response = await running.ask(request(b"GET", b"/health"))
        assert (response.status, orjson.loads(response.body)) == (503, {"status": "routes are not loaded yet"})


@pytest.mark.parametrize(
    ("line", "status"),
    [
        (b"GET /health HTTP/1.0", 200),
        (b"HEAD /health HTTP/1.0", 200),
        (b"OPTIONS * HTTP/1.0", 204),
        (b"GET /default/demo/health HTTP/1.0", 200),
        (b"GET / HTTP/1.0", 404),
        (b"GET /health HTTP/1.1", 400),
        (b"GET http://gateway/health HTTP/1.0", 421),
    ],
)
async def test_fr_26_http_1_0_has_no_host(line: bytes, status: int) -> None:
    """FR-26: a request by HTTP/1.0 without a Host field, as HAProxy's health check is, is served by its path."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        response = await running.ask(line + b"\r\n\r\n", method=line.partition(b" ")[0])
        assert response.status == status
        if b"/demo/" in line:
            assert response.body.startswith(b"GET /health HTTP/1.1\r\nhost: demo-local.default.svc.cluster.local\r\n")
            assert b"x-forwarded-host" not in response.body


@pytest.mark.parametrize("target", [b"/healthy", b"/health/", b"/health/x", b"/v1/health", b"/health%3Fx"])
async def test_health_is_one_path(target: bytes) -> None:
    """Other paths that begin like `/health` are no resources of the gateway."""
    async with gateway() as running:
        assert (await running.ask(request(b"GET", target))).status in (400, 404)


async def test_health_can_only_be_read() -> None:
    """Another method than GET and HEAD for `/health` or `/v1/models` is 405 and says which are allowed."""
    async with gateway() as running:
        for method in (b"POST", b"PUT", b"DELETE", b"PATCH"):
            for target in (b"/health", b"/v1/models", b"/v1/models/demo"):
                response = await running.ask(request(method, target))
                assert (response.status, response.code) == (405, "method_not_allowed")
                assert response.value(b"allow") == b"GET, HEAD"


async def test_health_of_a_model_stays_its_own() -> None:
    """A request for `/health` by the host or the path of a model goes to the model's backend."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        for target, host in ((b"/health", b"demo.default"), (b"/default/demo/health", b"gateway")):
            response = await running.ask(request(b"GET", target, host))
            assert response.body.startswith(b"GET /health HTTP/1.1\r\n")


async def test_health_by_an_ambiguous_host() -> None:
    """A request for `/health` of a short host name that needs its namespace is an error that says so."""
    async with gateway(RouteDocument(name="demo", backends=(local(),), service_names=("web",))) as running:
        response = await running.ask(request(b"GET", b"/health", b"web"))
        assert (response.status, response.code) == (404, "ambiguous_host")


async def test_rd_01_health_while_the_gateway_leaves(tmp_path: Path) -> None:
    """In the lame-duck time `/health` is 503 as /readyz is, while requests are served as before."""
    async with serving(echo) as server:
        config = "gateway: {lameDuckSeconds: 5, drainSeconds: 1}"
        async with started(tmp_path, server.port, config) as running:
            assert (await running.ask(request(b"GET", b"/health"))).status == 200
            running.process.send_signal(signal.SIGTERM)
            while (await running.ready()) != 503:
                await asyncio.sleep(0.01)
            response = await running.ask(request(b"GET", b"/health"))
            assert (response.status, orjson.loads(response.body)) == (503, {"status": "draining"})
            assert (await running.ask()).status == 200
            running.process.send_signal(signal.SIGTERM)
            assert await running.ended() == 0


async def test_head_on_the_admin_port(tmp_path: Path) -> None:
    """HEAD on the admin port has the status, type and length of GET for every path, and no body."""
    async with started(tmp_path) as running:
        for path in ("/healthz", "/readyz", "/metrics", "/routes", "/decisions", "/decisions?limit=x", "/", "/none"):
            get, head = await running.admin.get(path), await running.admin.head(path)
            assert (head.status_code, head.headers["content-type"]) == (get.status_code, get.headers["content-type"])
            assert int(head.headers["content-length"]) > 0
            assert head.content == b""
