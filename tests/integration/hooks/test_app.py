"""The hooks over HTTP, as Metacontroller calls them."""

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
from program import web
from program.sockets import bind
from tests.builders import NAMESPACE, NOW, UID, model_deployment, request_body, workload
from tests.deadlines import SECONDS

HOOKS = ("sync", "customize", "finalize")
IDENTITY = {"namespace": NAMESPACE, "name": "demo", "uid": UID, "generation": 1}
"""What a log line says of the parent of `body`."""


@dataclass
class Served:
    """Hooks on a port of their own, and their operations app on another."""

    hooks: httpx.AsyncClient
    operations: httpx.AsyncClient
    draining: bool = False

    async def post(self, hook: str, body: bytes | dict[str, Any], **rest: Any) -> httpx.Response:
        """Ask a hook."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        return await self.hooks.post(f"/modeldeployments/{hook}", content=content, **rest)


@asynccontextmanager
async def on_a_port(app: FastAPI, stop: asyncio.Event) -> AsyncIterator[httpx.AsyncClient]:
    """A client of `app`, served on a real socket."""
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
    """Hooks with a clock that stands still and a body limit of 64 KiB."""
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
    """A request as Metacontroller sends it."""
    return request_body(model_deployment(), related=[workload()], **rest)


async def test_1_7_answers_pass_a_strict_decoder(served: Served) -> None:
    """1.7: of sync, finalize and customize; nothing but the legal keys, each of its type."""
    answer = await served.post("sync", body())
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    decoded = responses.decode_sync(answer.content, strict=True)
    assert {child["kind"] for child in decoded.children} == {"Service", "ConfigMap"}
    assert decoded.status["conditions"]
    assert not decoded.finalized
    finalized = responses.decode_sync((await served.post("finalize", body(finalizing=True))).content, strict=True)
    assert finalized.finalized
    rules = responses.decode_customize((await served.post("customize", body())).content, strict=True)
    assert {rule.resource for rule in rules} >= {"deployments"}
    assert all(rule.names for rule in rules)


async def test_the_answer_is_the_cores(served: Served) -> None:
    """The shell adds nothing to what the core says, and asks with one time."""
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
    """Row 27: JSON, and what curl says of it; anything else is not meant for us."""
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
async def test_what_is_no_request(served: Served, hook: str, content: bytes, status: int) -> None:
    """An error with its own status and one sentence; a 200 would delete children."""
    answer = await served.post(hook, content)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


async def test_a_body_that_grows_too_large(served: Served) -> None:
    """The bound holds for a body of unknown length as well."""

    async def pieces() -> AsyncIterator[bytes]:
        for _ in range(20):
            yield b" " * 8192

    answer = await served.hooks.post("/modeldeployments/sync", content=pieces())
    assert answer.status_code == 413


async def test_a_damaged_annotation_is_a_500(served: Served) -> None:
    """What was decided last cannot be read, so nothing may be decided: the cluster stays as it is."""
    first = responses.decode_sync((await served.post("sync", body())).content, strict=True)
    children = [
        child
        | {"metadata": child["metadata"] | {"annotations": {"metacontroller.k8s.io/last-applied-configuration": "{"}}}
        for child in first.children
    ]
    parent = model_deployment(modelSourceRef={"apiVersion": "apps/v1", "kind": "Deployment", "name": "x",
                                              "namespace": "elsewhere"})  # fmt: skip
    with structlog.testing.capture_logs() as lines:
        answer = await served.post("sync", request_body(parent, children=children, related=[workload()]))
    assert answer.status_code == 500
    assert [(one["event"], one["status"]) for one in lines] == [("hook_refused", 500)]
    assert lines[0].items() >= IDENTITY.items()
    assert "last-applied-configuration of ConfigMap demo-route cannot be read" in answer.json()["error"]


async def test_a_bug_is_a_500_without_its_details(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """What nobody expected is logged, and the answer says where to look."""

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("canary")

    monkeypatch.setattr(reconcile, "decide_sync", broken)
    monkeypatch.setattr(webhooks, "customize", broken)
    monkeypatch.setattr(reconcile, "decide_finalize", broken)
    for hook in HOOKS:
        with structlog.testing.capture_logs() as lines:
            answer = await served.post(hook, body())
        assert answer.status_code == 500
        assert answer.json() == {"error": f"{hook} failed; the log of hooks says why"}
        assert [(one["event"], one["hook"], one["log_level"]) for one in lines] == [("hook_failed", hook, "error")]
        assert lines[0].items() >= IDENTITY.items()


async def test_every_answer_has_a_line_for_who_looks_closely(served: Served) -> None:
    """At debug: which parent, at which generation, how long and how much; nothing at other levels."""
    for hook in HOOKS:
        with structlog.testing.capture_logs() as lines:
            answer = await served.post(hook, body())
        (line,) = lines
        assert (line["event"], line["hook"], line["log_level"]) == ("hook_answered", hook, "debug")
        assert line.items() >= IDENTITY.items()
        assert line["bytes"] == len(answer.content)
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
    """Whatever stands where Metacontroller's parts belong: an error, or an answer with all children."""
    configured = Settings.model_validate({"namespaces": ""})
    app = create_app(configured, Metrics(), clock=lambda: NOW)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://hooks") as client:
        asked = orjson.dumps(body() | content)
        answer = await client.post(f"/modeldeployments/{hook}", content=asked)
    if answer.status_code != 200:
        assert answer.status_code in (400, 422)
        assert "parent" in content
    elif hook == "sync":
        kinds = {child["kind"] for child in responses.decode_sync(answer.content, strict=True).children}
        assert "ConfigMap" in kinds


async def test_only_posts_to_the_three_hooks(served: Served) -> None:
    """Nothing else is there: no docs, no health on the port that Metacontroller calls."""
    for path in ("/", "/docs", "/openapi.json", "/healthz", "/metrics", "/modeldeployments/other"):
        assert (await served.hooks.get(path)).status_code == 404
    refused = await served.hooks.get("/modeldeployments/sync")  # row 28
    assert (refused.status_code, refused.headers["allow"]) == (405, "POST")
    assert (await served.hooks.post("/modeldeployments/sync/")).status_code == 404  # row 29: a redirect loses the body


async def test_row_36_no_entity_tags(served: Served) -> None:
    """Row 36: a condition is ignored: 304 would have an old answer used again."""
    answer = await served.post("sync", body(), headers={"if-none-match": "*"})
    assert answer.status_code == 200
    assert "etag" not in answer.headers


async def test_row_24_a_large_request(served: Served) -> None:
    """Row 24: megabytes of children are read, up to the limit."""
    configured = Settings.model_validate({"namespaces": ""})
    app = create_app(configured, Metrics(), clock=lambda: NOW)
    extra = {"children": {"ConfigMap.v1": {f"c{number}": {"data": "a" * 10000} for number in range(200)}}}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hooks") as client:
        asked = orjson.dumps(body() | extra)
        assert len(asked) > 1 << 20
        assert (await client.post("/modeldeployments/sync", content=asked)).status_code == 200


async def test_row_31_too_many_at_once() -> None:
    """Row 31: above the limit 429 with whole seconds to wait; nobody waits in a queue without end."""
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
                answer := await client.post("/modeldeployments/sync", content=orjson.dumps(body()))
            ).status_code == 200:
                await asyncio.sleep(0.01)
        assert answer.status_code == 429
        assert int(answer.headers["retry-after"]) in (1, 2, 3)
        assert metrics.registry.get_sample_value("beamlit_hooks_in_flight_requests") == 1
        go.set()
        assert (await first).status_code == 200
        assert (await client.post("/modeldeployments/sync", content=orjson.dumps(body()))).status_code == 200


async def test_operations(served: Served) -> None:
    """Health, readiness that ends with the first signal, metrics by hook and status, and the hooks documented."""
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
    """A connection to the hooks on which a test says what it wants."""
    return await asyncio.open_connection(served.hooks.base_url.host, served.hooks.base_url.port)


async def answered(reader: asyncio.StreamReader) -> int:
    """The status of the next answer, read whole."""
    async with asyncio.timeout(SECONDS):
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    return int(head.split()[1])


HEAD = b"POST /modeldeployments/sync HTTP/1.1\r\nHost: hooks\r\nContent-Length: %d\r\n\r\n"


async def test_a_body_that_does_not_come(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sender that goes silent is told so and holds no place; one that goes away is no failure of ours."""
    monkeypatch.setattr(middlewares, "BODY_SECONDS", 0.2)
    reader, writer = await raw(served)
    writer.write(HEAD % 100 + b"{")
    assert await answered(reader) == 408
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
    """An idle connection is kept for as long as the setting says, and that is longer than Go's 90 seconds."""
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
            assert await answered(reader) == 200
        began = loop.time()
        async with asyncio.timeout(SECONDS):
            assert await reader.read() == b""
        assert loop.time() - began > 2
        writer.close()


async def test_row_30_tokens_are_compared_in_constant_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Row 30: how long a refusal takes tells nothing of the token."""
    compared: list[tuple[bytes, bytes]] = []

    def compare(given: bytes, token: bytes) -> bool:
        compared.append((given, token))
        return False

    path = tmp_path / "token"
    path.write_text("secret\n")
    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert not Bearer(path).permits("Bearer secret")
    assert compared == [(b"secret", b"secret")]  # what it says counts, and nothing else


async def test_row_30_the_token_is_checked_before_the_body_is_read(tmp_path: Path) -> None:
    """Row 30: without the token 401, although the body never comes; a token that was rotated counts at once."""
    path = tmp_path / "token"
    path.write_text("first-canary\n")
    configured = Settings.model_validate({"namespaces": "", "hooks": {"bodyBytes": 65536}})
    app = create_app(configured, Metrics(), bearer=Bearer(path), clock=lambda: NOW)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://hooks") as client:

        async def ask(authorization: str | None, content: Any) -> httpx.Response:
            headers = {"authorization": authorization} if authorization is not None else {}
            return await client.post("/modeldeployments/sync", content=content, headers=headers)

        for wrong in (None, "", "Bearer", "Bearer ", "Bearer other", "Basic first-canary", "first-canary"):
            answer = await ask(wrong, b"x" * 70000)
            assert answer.status_code == 401, wrong
            assert "canary" not in answer.text
        assert (await ask("bearer first-canary", orjson.dumps(body()))).status_code == 200
        path.with_name("new").write_text("second-canary")
        path.with_name("new").rename(path)
        assert (await ask("Bearer first-canary", b"")).status_code == 401
        assert (await ask("Bearer second-canary", orjson.dumps(body()))).status_code == 200
        path.unlink()
        assert (await ask("Bearer second-canary", orjson.dumps(body()))).status_code == 200
