"""Traces: spans at a collector that parses real protobuf, and the context that backends get."""

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import pytest
from structlog.testing import capture_logs

from gateway.api.v1alpha1 import Headers, Queue
from gateway.http.trace_context import TraceContext, parsed
from gateway.tracing.export import Exporter
from gateway.tracing.spans import Tracer
from tests.deadlines import SECONDS
from tests.integration.collector import Collector, collecting
from tests.integration.gateway.test_process import started
from tests.integration.gateway.wire import Running, document, echo, gateway, local, message, remote, reply
from tests.integration.servers import ScriptedServer, ServerSide, serving, until
from tools.ports import free_port

LOOPBACK: Final = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
TARGET: Final = b"/default/demo/v1/chat/completions"
BODY: Final = b'{"model": "demo", "messages": [{"role": "user", "content": "canary-prompt"}]}'
TRACE: Final = b"0af7651916cd43dd8448eb211c80319c"
SPAN: Final = b"b7ad6b7169203331"
PARENT: Final = b"traceparent: 00-%b-%b-01" % (TRACE, SPAN)
STATE: Final = b"tracestate: rojo=00f067aa0ba902b7"


@asynccontextmanager
async def traced(collector: Collector, *documents: Any, ratio: float = 1.0, **options: Any) -> AsyncIterator[Running]:
    """Yield a gateway whose traces go to a collector."""
    tracer = Tracer(ratio)
    exporter = Exporter(tracer, f"{collector.url}/v1/traces", delay_seconds=0.02)
    try:
        async with gateway(*documents, settings=LOOPBACK, tracer=tracer, **options) as running:
            yield running
    finally:
        await asyncio.to_thread(exporter.close)


async def unavailable(side: ServerSide) -> None:
    """Respond to every request with 503."""
    while True:
        await side.request()
        await side.send(reply(b"canary-of-a-response", b"503 Service Unavailable"))


def contexts(server: ScriptedServer) -> list[TraceContext]:
    """Return the trace contexts that a backend got."""
    values = re.findall(rb"(?im)^traceparent: ([^\r]*)\r$", b"".join(side.received for side in server.sides))
    found = [parsed(value) for value in values]
    assert None not in found
    return [one for one in found if one is not None]


async def test_a_request_that_fails_over() -> None:
    """A request with failover is one trace: the client's span, ours, and one for each attempt, which backends go on."""
    route = document(local(model="tiny"), remote(model="large"))
    with collecting() as collector:
        async with (
            serving(unavailable) as near,
            serving(echo) as far,
            traced(collector, route, local_port=near.port, remote_port=far.port) as running,
        ):
            response = await running.post(
                TARGET + b"?api-key=canary-in-query&user=canary-name",
                BODY, PARENT, STATE, b"Authorization: Bearer canary-token", b"X-Data: canary-field",
                b"X-Request-Id: the-id",
            )  # fmt: skip
            assert response.status == 200
            await until(lambda: len(collector.spans) == 3)
    request, first, second = collector.spans
    assert {one.trace_id for one in collector.spans} == {TRACE.decode()}
    assert [one.kind for one in collector.spans] == ["server", "client", "client"]
    assert (request.parent_id, first.parent_id, second.parent_id) == (SPAN.decode(), request.span_id, request.span_id)
    assert contexts(near) == [TraceContext(TRACE, first.span_id.encode(), 1)]
    assert contexts(far) == [TraceContext(TRACE, second.span_id.encode(), 1)]
    for server in (near, far):
        assert b"rojo=00f067aa0ba902b7" in server.sides[0].received
    assert request.attributes.pop("http.request.header.x-request-id") == ["the-id"]
    assert (request.name, request.attributes) == (
        "POST /v1/chat/completions",
        {
            "http.request.method": "POST", "http.route": "/v1/chat/completions", "http.response.status_code": 200,
            "url.path": TARGET.decode(), "url.scheme": "http", "server.address": "gateway",
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "demo",
            "beamlit.route": "default/demo", "beamlit.backend": "remote", "beamlit.reason": "Failover",
        },
    )  # fmt: skip
    assert (first.name, first.attributes) == (
        "chat tiny",
        {
            "http.request.method": "POST", "http.response.status_code": 503, "error.type": "503",
            "server.address": "demo-local.default.svc.cluster.local", "server.port": 80, "beamlit.backend": "local",
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "tiny",
        },
    )  # fmt: skip
    assert (second.name, second.attributes) == (
        "chat large",
        {
            "http.request.method": "POST", "http.response.status_code": 200, "http.request.resend_count": 1,
            "server.address": "remote.test", "server.port": 80, "beamlit.backend": "remote",
            "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "large",
        },
    )  # fmt: skip
    assert [one.failed for one in collector.spans] == [False, True, False]
    assert request.began <= first.began <= first.ended <= second.began <= second.ended <= request.ended
    assert request.resource["service.name"] == "beamlit-gateway"
    assert b"canary" not in b"".join(collector.content) + repr(collector.fields).encode()


async def test_a_trace_that_begins_here() -> None:
    """Without a valid context of the client the trace begins here, and its state is dropped."""
    with collecting() as collector:
        async with serving(echo) as server, traced(collector, local_port=server.port) as running:
            for fields in ((), (b"traceparent: 00-nonsense", STATE), (PARENT, PARENT, STATE), (STATE,)):
                assert (await running.ask(message(*fields))).status == 200
            await until(lambda: len(collector.spans) == 8)
    sent = contexts(server)
    assert len({one.trace_id for one in sent}) == 4
    assert TRACE not in {one.trace_id for one in sent}
    assert b"tracestate" not in server.sides[0].received
    assert all(one.flags == 3 for one in sent)
    assert {one.parent_id for one in collector.spans if one.kind == "server"} == {""}
    attempts = {one.span_id for one in collector.spans if one.kind == "client"}
    assert attempts == {one.span_id.decode() for one in sent}


async def test_a_trace_that_is_not_kept() -> None:
    """A trace that the client does not keep passes as it came; one that begins here and is not kept says so."""
    unkept = PARENT[:-1] + b"0"
    with collecting() as collector:
        async with serving(echo) as server, traced(collector, local_port=server.port, ratio=0.0) as running:
            response = await running.ask(message(unkept, STATE))
            assert unkept in response.body
            assert STATE in response.body
            await running.ask(message())
        assert [one.flags for one in contexts(server)] == [0, 2]
    assert collector.spans == []


async def test_off_both_fields_pass() -> None:
    """While traces are off, both fields pass as they came, whatever they have."""
    async with serving(echo) as server, gateway(local_port=server.port) as running:
        for parent in (PARENT, b"traceparent: nonsense"):
            response = await running.ask(message(parent, STATE, b"tracestate: =="))
            assert [one for one in response.body.split(b"\r\n") if one.startswith(b"trace")] == [
                parent, STATE, b"tracestate: ==",
            ]  # fmt: skip


async def test_a_backend_may_get_no_context() -> None:
    """A backend whose route removes `traceparent` gets none, of the client or of ours."""
    route = document(remote(100, headers=Headers(remove=("traceparent",))))
    with collecting() as collector:
        async with serving(echo) as server, traced(collector, route, remote_port=server.port) as running:
            for fields in ((), (PARENT,)):
                response = await running.ask(message(*fields))
                assert response.status == 200
                assert b"traceparent" not in response.body


def waiting(running: Running) -> float:
    """Return the number of requests that wait for a slot."""
    return running.count("beamlit_gateway_queued_requests", namespace="default", model="demo", backend="local")


async def test_tokens() -> None:
    """The tokens that a response names are on the spans of the request and of its last attempt."""
    usage = b'{"usage": {"prompt_tokens": 11, "completion_tokens": 7, "total_tokens": 18}}'

    async def counting(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(reply(usage, b"200 OK", b"content-type: application/json"))

    with collecting() as collector:
        async with serving(counting) as server, traced(collector, local_port=server.port) as running:
            await running.post(TARGET, BODY)
            await until(lambda: len(collector.spans) == 2)
    for span in collector.spans:
        names = ("gen_ai.usage.input_tokens", "gen_ai.usage.output_tokens")
        assert [span.attributes[name] for name in names] == [11, 7]


async def test_a_wait_in_a_queue() -> None:
    """A request that waits for a slot has a span for that, between its own and that of its attempt."""
    gate = asyncio.Event()

    async def slow(side: ServerSide) -> None:
        while True:
            await side.request()
            await gate.wait()
            await side.send(reply())

    route = document(local(in_flight=1), queue=Queue(size=1, wait=SECONDS))
    with collecting() as collector:
        async with serving(slow) as server, traced(collector, route, local_port=server.port) as running:
            first = asyncio.create_task(running.ask(message(PARENT)))
            await until(lambda: len(server.sides) == 1)
            second = asyncio.create_task(running.ask(message(PARENT)))
            await until(lambda: waiting(running) == 1)
            refused = await running.ask(message(PARENT))
            assert (refused.status, refused.code) == (503, "at_capacity")
            gate.set()
            assert [(await one).status for one in (first, second)] == [200, 200]
            await until(lambda: len(collector.spans) == 6)
    queue = next(one for one in collector.spans if one.name == "queue")
    assert (queue.kind, queue.failed, queue.attributes) == ("internal", False, {"beamlit.backend": "local"})
    request = next(one for one in collector.spans if one.span_id == queue.parent_id)
    attempt = next(one for one in collector.spans if one.kind == "client" and one.parent_id == request.span_id)
    assert request.began <= queue.began < queue.ended <= attempt.began
    alone = next(one for one in collector.spans if one.attributes.get("http.response.status_code") == 503)
    assert (alone.failed, alone.attributes["error.type"], alone.attributes["beamlit.code"]) == (
        True, "at_capacity", "at_capacity",
    )  # fmt: skip


async def broken(side: ServerSide) -> None:
    """Begin an event stream and reset the connection."""
    await side.request()
    await side.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\ndata: {}\n\n")
    await side.read()
    side.reset()


async def test_what_goes_wrong() -> None:
    """Errors of the gateway's own, unreachable backends and streams that break off are told by their codes."""
    routes = document(local()), document(remote(100), name="other")
    with collecting() as collector:
        async with serving(broken) as server, traced(collector, *routes, local_port=server.port) as running:
            await running.post(TARGET, BODY)
            await running.ask(message(line=b"GET /default/none/x HTTP/1.1"))
            await running.ask(message(line=b"GET /health HTTP/1.1"))
            await running.ask(message(line=b"DELETE /default/other/x HTTP/1.1"))
            await until(lambda: len(collector.spans) == 5)
    shown = {(one.name, one.kind, one.failed, one.attributes.get("error.type")) for one in collector.spans}
    assert shown == {
        ("POST /v1/chat/completions", "server", True, "upstream_reset"),
        ("chat", "client", True, "upstream_reset"),
        ("GET", "server", False, None),
        ("DELETE", "server", True, "connect_failed"),
        ("DELETE", "client", True, "connect_failed"),
    }
    stream = next(one for one in collector.spans if one.name == "chat")
    assert 0 <= stream.attributes["gen_ai.response.time_to_first_chunk"] <= SECONDS
    assert (
        "http.response.status_code"
        not in next(one for one in collector.spans if one.name == "DELETE" and one.kind == "client").attributes
    )


async def test_a_collector_that_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the collector takes nothing, requests are served as ever, and the log says once why, and when it does."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "0.3")
    port = free_port()
    with capture_logs() as logs:
        tracer = Tracer(size=20)
        exporter = Exporter(tracer, f"http://127.0.0.1:{port}/v1/traces", delay_seconds=0.01)
        try:
            async with serving(echo) as server, gateway(local_port=server.port, tracer=tracer) as running:

                def lines() -> list[tuple[str, str]]:
                    found = [one for one in logs if one["event"].startswith("traces_")]
                    return [(one["event"], one.get("message", "")) for one in found]

                async def until_it_is_said(number: int) -> str:
                    while len(lines()) < number:
                        assert (await running.ask(message())).status == 200
                        await asyncio.sleep(0.01)
                    return "".join(lines()[number - 1])

                async with asyncio.timeout(SECONDS):
                    said = "traces_not_takenThe collector of traces takes no spans: it"
                    assert await until_it_is_said(1) == f"{said} cannot be reached."
                    for _ in range(40):
                        assert (await running.ask(message())).status == 200
                    assert len(lines()) == 1
                    with collecting(port) as collector:
                        assert await until_it_is_said(2) == "traces_taken_again"
                        assert collector.spans
                        assert exporter.dropped > 0
                        collector.status = 400
                        assert await until_it_is_said(3) == f"{said} responded with status 400."
        finally:
            await asyncio.to_thread(exporter.close)


async def test_the_process(tmp_path: Path) -> None:
    """The variables of OpenTelemetry turn traces on in the process, which sends the last ones when it ends."""
    with collecting() as collector:
        environment = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": collector.url,
            "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer%20of-the-collector",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_BSP_SCHEDULE_DELAY": "600000",
            "OTEL_RESOURCE_ATTRIBUTES": "k8s.pod.name=gateway-0",
            "OTEL_SERVICE_NAME": "edge",
        }
        async with serving(echo) as server, started(
            tmp_path, server.port, "gateway: {lameDuckSeconds: 0}", environment
        ) as running:  # fmt: skip
            assert (await running.ask(message(PARENT))).status == 200
            running.process.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
        assert {one.name for one in collector.spans} == {"POST"}
        resource = collector.spans[0].resource
        assert (resource["service.name"], resource["k8s.pod.name"]) == ("edge", "gateway-0")
        assert collector.fields[0]["authorization"] == "Bearer of-the-collector"
        assert b"of-the-collector" not in running.errors.read_bytes() + running.output.read_bytes()


async def test_a_name_that_is_no_unicode_loses_no_spans() -> None:
    """A model's name with half a surrogate pair has spans after a failover, and so have the requests beside it."""
    route = document(local(50), remote(50, model="large"), name="demo")
    body = b'{"model": "\\ud800", "messages": []}'
    with collecting() as collector:
        async with (
            serving(echo) as near,
            serving(unavailable) as far,
            traced(collector, route, local_port=near.port, remote_port=far.port) as running,
        ):
            for _ in range(4):  # by the split, some of them begin at the remote backend
                assert (await running.post(TARGET, body)).status == 200
            await until(lambda: sum(one.kind == "server" for one in collector.spans) == 4)
    assert "chat ?" in {one.name for one in collector.spans}
