"""The webhooks over HTTP, as Metacontroller calls them."""

import asyncio
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
import structlog
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hooks import middlewares, webhooks
from hooks.app import create_app, create_operations_app
from hooks.authentication import Bearer
from hooks.reconcile import model_deployment as reconcile
from hooks.settings import Settings
from hooks.telemetry import Metrics
from metacontroller.local.controller import responses
from program import problems, web
from program.sockets import bind
from tests.builders import NAMESPACE, NOW, UID, model_deployment, request_body, workload
from tests.deadlines import SECONDS

HOOKS = ("sync", "customize", "finalize")
IDENTITY = {"namespace": NAMESPACE, "name": "demo", "uid": UID, "generation": 1}
"""Fields of a log line about the parent of `body`."""


@dataclass
class Served:
    """Clients of the webhooks and of the app for operations, each on a port of its own."""

    hooks: httpx.AsyncClient
    operations: httpx.AsyncClient
    draining: bool = False

    async def post(self, hook: str, body: bytes | dict[str, Any], **rest: Any) -> httpx.Response:
        """Send a request to a webhook, and return the response."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self.hooks.post(f"/modeldeployments/{hook}", content=content, **rest)


@asynccontextmanager
async def on_a_port(app: FastAPI, stop: asyncio.Event) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of an app that is served on a real socket."""
    sock = bind("127.0.0.1:0", "--listen")
    port = sock.getsockname()[1]
    task = asyncio.create_task(web.serve(app, sock, stop))
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=SECONDS) as client:
        yield client
    stop.set()
    await task
    sock.close()


@pytest.fixture
async def served() -> AsyncIterator[Served]:
    """Yield hooks with a clock that stands still and a body limit of 64 KiB."""
    configured = Settings.model_validate({"namespaces": "", "hooks": {"bodyBytes": 65536}})
    metrics = Metrics()
    app = create_app(configured, metrics, clock=lambda: NOW)
    stop = asyncio.Event()
    state: list[Served] = []
    operations = create_operations_app(app, metrics, draining=lambda: state[0].draining)
    async with on_a_port(app, stop) as hooks_client, on_a_port(operations, stop) as operations_client:
        state.append(Served(hooks_client, operations_client))
        yield state[0]


def body(**rest: Any) -> dict[str, Any]:
    """Return the body of a request as Metacontroller sends it."""
    return request_body(model_deployment(), related=[workload()], **rest)


async def test_1_7_responses_pass_a_strict_decoder(served: Served) -> None:
    """1.7: responses to sync, finalize and customize pass Metacontroller's strict decoder."""
    response = await served.post("sync", body())
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    decoded = responses.decode_sync(response.content, strict=True)
    assert {child["kind"] for child in decoded.children} == {"Service", "ConfigMap"}
    assert decoded.status["conditions"]
    assert not decoded.finalized
    finalized = responses.decode_sync((await served.post("finalize", body(finalizing=True))).content, strict=True)
    assert finalized.finalized
    rules = responses.decode_customize((await served.post("customize", body())).content, strict=True)
    assert {rule.resource for rule in rules} >= {"deployments"}
    assert all(rule.names for rule in rules)


async def test_the_response_is_that_of_the_core(served: Served) -> None:
    """The response is exactly what the core returns for one time."""
    from hooks.observation.observation import Observation
    from hooks.protocol import SyncRequest

    request = orjson.dumps(body())
    configured = Settings.model_validate({"namespaces": ""})
    observation = Observation.of(SyncRequest.from_body(request), configured.install_defaults)
    expected = reconcile.sync(observation, now=NOW).as_json()
    assert (await served.post("sync", request)).json() == expected


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        ("application/json", 200),
        ("application/json; charset=utf-8", 200),
        ("application/x-www-form-urlencoded", 200),
        (None, 200),
        ("text/plain", 415),
        ("multipart/form-data; boundary=x", 415),
    ],
)
async def test_content_types(served: Served, kind: str | None, status: int) -> None:
    """Row 27: a body is read when it is declared as JSON or as curl does, and refused otherwise."""
    headers = {"content-type": kind} if kind else {}
    assert (await served.post("sync", body(), headers=headers)).status_code == status


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"", 400),
        (b"{}", 400),
        (b"null", 400),
        (b"[]", 400),
        (b"{", 400),
        (b'{"parent": {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a", "namespace": "b"}}}', 422),
        (b'{"parent": NaN}', 400),
        (b" " * 70000, 413),
    ],
)
@pytest.mark.parametrize("hook", HOOKS)
async def test_a_body_that_is_no_request(served: Served, hook: str, content: bytes, status: int) -> None:
    """A body that is no request gets an error with a status and a sentence, for a 200 would delete children."""
    response = await served.post(hook, content)
    assert response.status_code == status
    assert set(response.json()) == {"error"}


async def test_a_body_that_grows_too_large(served: Served) -> None:
    """A body of unknown length that grows above the limit gets a 413."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 8192

    response = await served.hooks.post("/modeldeployments/sync", content=pieces())
    assert response.status_code == 413


async def test_a_damaged_annotation_is_a_500(served: Served) -> None:
    """A request with a last-applied annotation that cannot be read gets a 500, so that the cluster stays as it is."""
    first = responses.decode_sync((await served.post("sync", body())).content, strict=True)
    children = [
        child
        | {"metadata": child["metadata"] | {"annotations": {"metacontroller.k8s.io/last-applied-configuration": "{"}}}
        for child in first.children
    ]
    parent = model_deployment(modelSourceRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "x",
                                              "namespace": "elsewhere"})  # fmt: skip
    with structlog.testing.capture_logs() as lines:
        response = await served.post("sync", request_body(parent, children=children, related=[workload()]))
    assert response.status_code == 500
    assert [(one["event"], one["status"]) for one in lines] == [("hook_refused", 500)]
    assert lines[0].items() >= IDENTITY.items()
    assert "last-applied-configuration of ConfigMap demo-route cannot be read" in response.json()["error"]


async def test_a_bug_is_a_500_without_its_details(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """After an unexpected exception the response is a 500 that refers to the log, which has the details."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("canary")

    monkeypatch.setattr(reconcile, "decide_sync", broken)
    monkeypatch.setattr(webhooks, "customize", broken)
    monkeypatch.setattr(reconcile, "decide_finalize", broken)
    for hook in HOOKS:
        with structlog.testing.capture_logs() as lines:
            response = await served.post(hook, body())
        assert response.status_code == 500
        assert response.json() == {"error": f"{hook} failed; the log of hooks says why"}
        assert [(one["event"], one["hook"], one["log_level"]) for one in lines] == [("hook_failed", hook, "error")]
        assert lines[0].items() >= IDENTITY.items()


async def test_every_response_has_a_log_line_at_debug(served: Served) -> None:
    """Every response has a log line at level debug with its parent, duration and size, and no other line."""
    for hook in HOOKS:
        with structlog.testing.capture_logs() as lines:
            response = await served.post(hook, body())
        (line,) = lines
        assert (line["event"], line["hook"], line["log_level"]) == ("hook_answered", hook, "debug")
        assert line.items() >= IDENTITY.items()
        assert line["bytes"] == len(response.content)
        assert 0 < line["seconds"] < 10


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=12,
)
FIELDS = st.sampled_from(["parent", "children", "related", "finalizing", "controller"])


@given(st.dictionaries(FIELDS, JSON, max_size=3), st.sampled_from(HOOKS))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_garbage_never_deletes_a_child(content: dict[str, Any], hook: str) -> None:
    """A request with arbitrary parts gets an error, or a response with all children."""
    configured = Settings.model_validate({"namespaces": ""})
    app = create_app(configured, Metrics(), clock=lambda: NOW)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://hooks") as client:
        asked = orjson.dumps(body() | content)
        response = await client.post(f"/modeldeployments/{hook}", content=asked)
    if response.status_code != 200:
        assert response.status_code in (400, 422)
        assert "parent" in content
    elif hook == "sync":
        kinds = {child["kind"] for child in responses.decode_sync(response.content, strict=True).children}
        assert "ConfigMap" in kinds


async def test_only_posts_to_the_webhooks(served: Served) -> None:
    """The port that Metacontroller calls serves POST to the webhooks and nothing else."""
    for path in ("/", "/docs", "/openapi.json", "/healthz", "/metrics", "/modeldeployments/other"):
        assert (await served.hooks.get(path)).status_code == 404
    refused = await served.hooks.get("/modeldeployments/sync")  # row 28
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    # Row 29: a redirect would lose the body.
    assert (await served.hooks.post("/modeldeployments/sync/")).status_code == 404


async def test_row_36_no_entity_tags(served: Served) -> None:
    """Row 36: a conditional request is treated as any other, for a 304 would have an old response used again."""
    response = await served.post("sync", body(), headers={"if-none-match": "*"})
    assert response.status_code == 200
    assert "etag" not in response.headers


async def test_row_24_a_large_request(served: Served) -> None:
    """Row 24: a request with megabytes of children is read, up to the limit."""
    configured = Settings.model_validate({"namespaces": ""})
    app = create_app(configured, Metrics(), clock=lambda: NOW)
    extra = {"children": {"ConfigMap.v1": {f"c{number}": {"data": "a" * 10000} for number in range(200)}}}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hooks") as client:
        asked = orjson.dumps(body() | extra)
        assert len(asked) > 1 << 20
        assert (await client.post("/modeldeployments/sync", content=asked)).status_code == 200


async def test_row_31_too_many_at_once() -> None:
    """Row 31: above the limit of requests in flight, a request gets 429 with whole seconds to wait."""
    configured = Settings.model_validate({"namespaces": "", "hooks": {"inFlight": 1}})
    metrics = Metrics()
    app = create_app(configured, metrics, clock=lambda: NOW)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hooks") as client:
        go = asyncio.Event()

        async def slow() -> AsyncIterator[bytes]:
            await go.wait()
            yield orjson.dumps(body())

        first = asyncio.create_task(client.post("/modeldeployments/sync", content=slow()))
        await asyncio.sleep(0)
        async with asyncio.timeout(SECONDS):
            while (
                response := await client.post("/modeldeployments/sync", content=orjson.dumps(body()))
            ).status_code == 200:
                await asyncio.sleep(0.01)
        assert response.status_code == 429
        assert int(response.headers["retry-after"]) in (1, 2, 3)
        assert metrics.registry.get_sample_value("beamlit_hooks_in_flight_requests") == 1
        go.set()
        assert (await first).status_code == 200
        assert (await client.post("/modeldeployments/sync", content=orjson.dumps(body()))).status_code == 200


async def test_operations(served: Served) -> None:
    """The app for operations serves health, readiness, metrics and the OpenAPI document."""
    await served.post("sync", body())
    await served.post("sync", b"{}")
    assert (await served.operations.get("/healthz")).text == "ok\n"
    assert (await served.operations.get("/readyz")).status_code == 200
    served.draining = True
    assert (await served.operations.get("/readyz")).status_code == 503
    metrics = (await served.operations.get("/metrics")).text
    assert 'beamlit_hooks_requests_total{code="200",hook="sync"} 1.0' in metrics
    assert 'beamlit_hooks_requests_total{code="400",hook="sync"} 1.0' in metrics
    assert 'beamlit_hooks_request_seconds_count{hook="sync"} 1.0' in metrics
    assert 'beamlit_hooks_request_bytes_count{hook="sync"} 2.0' in metrics
    assert "beamlit_hooks_in_flight_requests 0.0" in metrics
    assert "swagger" in (await served.operations.get("/docs")).text
    paths = (await served.operations.get("/openapi.json")).json()["paths"]
    assert set(paths) == {f"/modeldeployments/{hook}" for hook in HOOKS} | {"/policies/sync", "/policies/finalize"}


async def raw(served: Served) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to the hooks for bytes of a test's own."""
    return await asyncio.open_connection(served.hooks.base_url.host, served.hooks.base_url.port)


async def read_status(reader: asyncio.StreamReader) -> int:
    """Read the next response whole, and return its status."""
    async with asyncio.timeout(SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return int(head.split()[1])


HEAD = b"POST /modeldeployments/sync HTTP/1.1\r\nHost: hooks\r\nContent-Length: %d\r\n\r\n"


async def test_a_body_that_does_not_come(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends no more of its body gets 408, and one that closes its connection is no longer in flight."""
    monkeypatch.setattr(middlewares, "BODY_SECONDS", 0.2)
    reader, writer = await raw(served)
    writer.write(HEAD % 100 + b"{")
    assert await read_status(reader) == 408
    writer.close()
    monkeypatch.setattr(middlewares, "BODY_SECONDS", 30.0)
    with structlog.testing.capture_logs() as lines:
        _, writer = await raw(served)
        writer.write(HEAD % 100 + b"{")
        await writer.drain()
        async with asyncio.timeout(SECONDS):
            while "in_flight_requests 1.0" not in (await served.operations.get("/metrics")).text:
                await asyncio.sleep(0.01)
            writer.transport.abort()
            while "in_flight_requests 0.0" not in (await served.operations.get("/metrics")).text:
                await asyncio.sleep(0.01)
    assert [(one["event"], one["status"]) for one in lines] == [("hook_refused", 408)]


async def test_a_connection_outlives_gos_idle_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle connection is kept for longer than the 90 seconds after which a Go client closes it."""
    assert web.KEEP_ALIVE_SECONDS > 90
    monkeypatch.setattr(web, "KEEP_ALIVE_SECONDS", 4)
    app = create_app(Settings.model_validate({"namespaces": ""}), Metrics(), clock=lambda: NOW)
    stop = asyncio.Event()
    request = orjson.dumps(body())
    loop = asyncio.get_running_loop()
    async with on_a_port(app, stop) as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        for pause in (0.0, 2.0):
            await asyncio.sleep(pause)  # idle, and not for too long
            writer.write(HEAD % len(request) + request)
            assert await read_status(reader) == 200
        began = loop.time()
        async with asyncio.timeout(SECONDS):
            assert await reader.read() == b""
        assert loop.time() - began > 2
        writer.close()


async def test_row_30_tokens_are_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 30: tokens are compared in constant time."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, token: bytes) -> bool:
        compared.append((given, token))
        return False

    path = tmp_path / "token"
    path.write_text("secret\n")
    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert not Bearer(path).permits("Bearer secret")
    assert compared == [(b"secret", b"secret")]  # The result of the comparison counts, and nothing else.


async def test_row_30_the_token_is_checked_before_the_body_is_read(tmp_path: Path) -> None:
    """Row 30: a request without the token gets 401 before its body is read; a rotated token is valid at once."""
    path = tmp_path / "token"
    path.write_text("first-canary\n")
    configured = Settings.model_validate({"namespaces": "", "hooks": {"bodyBytes": 65536}})
    app = create_app(configured, Metrics(), bearer=Bearer(path), clock=lambda: NOW)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hooks") as client:

        async def ask(authorization: str | None, content: Any) -> httpx.Response:
            headers = {"authorization": authorization} if authorization is not None else {}
            return await client.post("/modeldeployments/sync", content=content, headers=headers)

        for wrong in (None, "", "Bearer", "Bearer ", "Bearer other", "Basic first-canary", "first-canary"):
            response = await ask(wrong, b"x" * 70000)
            assert response.status_code == 401, wrong
            assert "canary" not in response.text
        assert (await ask("bearer first-canary", orjson.dumps(body()))).status_code == 200
        path.with_name("new").write_text("second-canary")
        path.with_name("new").rename(path)
        assert (await ask("Bearer first-canary", b"")).status_code == 401
        assert (await ask("Bearer second-canary", orjson.dumps(body()))).status_code == 200
        path.unlink()
        assert (await ask("Bearer second-canary", orjson.dumps(body()))).status_code == 200


async def test_all_bodies_together_have_a_limit(served: Served) -> None:
    """A body on top of others that are in flight gets 429 when they would be larger than the limit together."""
    large = orjson.dumps(body() | {"unknown": "x" * 40000})
    reader, writer = await raw(served)
    writer.write(HEAD % len(large) + large[:-1])
    await writer.drain()
    async with asyncio.timeout(SECONDS):
        while (response := await served.post("sync", large)).status_code == 200:
            await asyncio.sleep(0.01)
    assert response.status_code == 429
    assert int(response.headers["retry-after"]) in (1, 2, 3)
    assert (await served.post("sync", body())).status_code == 200
    writer.write(large[-1:])
    assert await read_status(reader) == 200
    writer.close()
    assert (await served.post("sync", large)).status_code == 200


@pytest.mark.parametrize("field", ["policies", "unknown"])
async def test_a_specification_of_too_many_values(served: Served, monkeypatch: pytest.MonkeyPatch, field: str) -> None:
    """A specification of more values than any that can be accepted is not accepted, and says so."""
    monkeypatch.setattr(problems, "MOST_VALUES", 100)
    parent = model_deployment()
    parent["spec"][field] = [{}] * 101
    response = await served.post("sync", request_body(parent, related=[workload()]))
    conditions = {one["type"]: one for one in response.json()["status"]["conditions"]}
    assert conditions["Accepted"]["status"] == "False"
    assert "values: leave some out" in conditions["Accepted"]["message"]
