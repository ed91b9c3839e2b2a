"""Failover over real sockets: which requests are tried again, and what the client gets."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import orjson
import pytest
import structlog

from gateway.api.v1alpha1 import Breaker, Headers, Limits, Retry, SecretKey, Timeouts, Use
from gateway.api.vocabulary import FailureCause
from tests.deadlines import SECONDS
from tests.integration.gateway.wire import NoSecrets, Response, Running, document, echo, gateway, local, remote, reply
from tests.integration.servers import ScriptedServer, ServerSide, serving, until

LOOPBACK: dict[str, Any] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
TARGET = b"/default/demo/v1/chat/completions"
BODY = b'{"model":"demo","n":1}'

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """Return one chunk of a body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def responding(data: bytes) -> Callable[[ServerSide], Awaitable[None]]:
    """Return the script of a server that responds to every request with `data`."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(data)

    return script


async def reset(side: ServerSide) -> None:
    """Read the request and reset the connection."""
    await side.request()
    side.reset()


async def half_a_head(side: ServerSide) -> None:
    """Read the request and end the connection within the head of the response."""
    await side.request()
    await side.send(b"HTTP/1.1 200 OK\r\ncontent-le")


async def silent(side: ServerSide) -> None:
    """Read the request and never respond."""
    await side.request()
    await side.gone()


async def post(running: Running, body: bytes = BODY) -> Response:
    """Send one POST; return the response."""
    return await running.post(TARGET, body)


async def line(running: Running) -> Mapping[str, Any]:
    """Return the only line of the access log."""
    await until(lambda: len(running.lines()) == 1)
    return running.lines()[0]


# Failures


async def test_rt_01_nothing_was_sent() -> None:
    """RT-01: when a backend refuses connections another one responds, as the response and the log say."""
    async with (
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=1, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        response = await post(running)
        assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"remote")
        assert response.value(b"x-beamlit-reason") == b"Failover"
        logged = await line(running)
        assert (logged["backend"], logged["reason"]) == ("remote", "Failover")
        assert [(one["backend"], one["cause"]) for one in logged["attempts"]] == [
            ("local", "connect_failed"),
            ("remote", None),
        ]
        labels = {"namespace": "default", "model": "demo"}
        assert (
            running.count("beamlit_gateway_upstream_errors_total", **labels, backend="local", cause="connect_failed")
            == 1
        )
        assert running.count("beamlit_gateway_requests_total", **labels, backend="remote", code="200") == 1


async def test_rt_01_no_connection_in_time() -> None:
    """RT-01: a TLS handshake without a response ends at its deadline, and another backend responds."""
    async with serving(silent) as near, serving(echo) as far:
        route = document(local(scheme="https"), remote(), timeouts=Timeouts(connect=1))
        async with gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running:
            assert (await post(running)).status == 200
            assert [one["cause"] for one in (await line(running))["attempts"]] == ["connect_timeout", None]


async def test_rt_01_no_token_no_request_but_a_response() -> None:
    """RT-01: when there are no credentials for a backend, nothing is sent to it and another one responds."""
    backend = remote(100, headers=Headers(set_from={"x-api-key": SecretKey(name="none", key="k")}))
    async with (
        serving(echo) as near,
        gateway(document(local(0), backend), local_port=near.port, remote_port=1, settings=LOOPBACK) as running,
    ):
        response = await post(running)
        assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"local")
        assert [one["cause"] for one in (await line(running))["attempts"]] == ["credentials_failed", None]


@pytest.mark.parametrize("script", [reset, half_a_head])
async def test_rt_03_rt_05_a_connection_that_breaks_before_the_responses_head(
    script: Callable[[ServerSide], Awaitable[None]],
) -> None:
    """RT-05: when the connection breaks before the response head is complete, another backend responds."""
    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        response = await post(running)
        assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"remote")
        assert response.body.endswith(BODY)
        assert len(near.sides) == 1


@pytest.mark.parametrize("status", [408, 429, 502, 503, 504, 529])
async def test_rt_06_statuses_of_a_backend_that_cannot(status: int) -> None:
    """RT-06: a response with such a status is dropped, however large, and another backend responds."""
    for size in (0, 10, 500000):
        async with (
            serving(responding(reply(b"n" * size, b"%d No" % status))) as near,
            serving(echo) as far,
            gateway(
                document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK
            ) as running,
        ):
            response = await post(running)
            assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"remote")
            assert (await line(running))["attempts"][0]["cause"] == str(status)


@pytest.mark.parametrize("status", [400, 401, 404, 500, 501])
async def test_rt_06_other_statuses_are_responses(status: int) -> None:
    """RT-06: responses with other statuses go to the client."""
    async with (
        serving(responding(reply(b"as it is", b"%d No" % status))) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        response = await post(running)
        assert (response.status, response.body) == (status, b"as it is")
        assert far.sides == []


async def test_rt_06_causes_are_the_routes() -> None:
    """RT-06: a response whose cause the route does not name goes to the client, with its Retry-After."""
    refusal = reply(b"later", b"503 No", b"retry-after: 7")
    async with serving(responding(refusal)) as near, serving(echo) as far:
        route = document(local(), remote(), retry=Retry(on=(FailureCause.RESET,)))
        async with gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running:
            response = await post(running)
            assert (response.status, response.body, response.value(b"retry-after")) == (503, b"later", b"7")
            assert far.sides == []


@pytest.mark.parametrize("status", [400, 404, 409, 500, 507, 599])
async def test_rt_06_any_error_status_can_be_a_cause(status: int) -> None:
    """RT-06: a status that the route names is a cause; from 500 on it counts as a failure of the backend, too."""
    route = document(
        local(), remote(), retry=Retry(on=(str(status),)), breaker=Breaker(consecutive_failures=2, open=SECONDS)
    )
    async with (
        serving(responding(reply(b"no", b"%d No" % status))) as near,
        serving(echo) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        reasons = [(await post(running)).value(b"x-beamlit-reason") for _ in range(3)]
        assert reasons == [b"Failover", b"Failover", b"BreakerOpen" if status >= 500 else b"Failover"]


@pytest.mark.parametrize("named", [False, True])
async def test_rt_07_no_response_in_time_is_a_cause_only_where_asked_for(named: bool) -> None:
    """RT-07: a missing response is a cause only where the route names it: the backend may still be at work."""
    on = (FailureCause.FIRST_BYTE_TIMEOUT,) if named else Retry().on
    async with serving(silent) as near, serving(echo) as far:
        route = document(local(), remote(), timeouts=Timeouts(first_byte=1), retry=Retry(on=on))
        async with gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running:
            response = await post(running)
            assert (response.status, len(far.sides)) == ((200, 1) if named else (504, 0))
            await until(lambda: running.upstream.stats.open - running.upstream.stats.idle == 0)


@pytest.mark.parametrize("framed", [True, False])
async def test_rt_08_never_after_the_first_byte(framed: bool) -> None:
    """RT-08: a response that ends early ends early for the client, too, and no other backend gets the request."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(
            b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf" if framed else STREAM_HEAD + chunk(b"data: 1\n\n")
        )
        side.writer.close()

    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        response = await post(running)
        assert not response.complete
        assert far.sides == []
        assert (await line(running))["broken"] == "upstream_reset"


class Keys(NoSecrets):
    """Reader of a Secret whose key is for `remote.test`."""

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """Return the key for `remote.test`."""
        return {"k": "key-canary", "hosts": "remote.test"}


WITH_KEY = Headers(set_from={"x-api-key": SecretKey(name="key", key="k")})


def requests_of(*servers: ScriptedServer) -> list[int]:
    """Return the number of requests that each server has received."""
    return [b"".join(side.received for side in server.sides).count(BODY) for server in servers]


async def test_rt_09_a_renewed_token_belongs_to_the_attempt() -> None:
    """RT-09: after a 401 a remote backend gets the request once more with new credentials, then another backend does.

    Once it has refused them too often it is left alone. Neither log nor metrics have anything of the credentials.
    """
    route = document(local(0), remote(100, headers=WITH_KEY), breaker=Breaker(consecutive_failures=2, open=SECONDS))
    async with (
        serving(echo) as near,
        serving(responding(reply(b"no", b"401 Unauthorized"))) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK, secrets=Keys()) as running,
    ):
        with structlog.testing.capture_logs() as logs:
            reasons = [(await post(running)).value(b"x-beamlit-reason") for _ in range(3)]
        assert reasons == [b"Failover", b"Failover", b"BreakerOpen"]
        assert requests_of(near, far) == [3, 4]
        assert [line["event"] for line in logs] == ["credentials_refused"]
        assert (logs[0]["name"], logs[0]["backend"], logs[0]["host"]) == ("demo", "remote", "remote.test")
        labels = {"namespace": "default", "model": "demo", "backend": "remote", "cause": "credentials_refused"}
        assert running.count("beamlit_gateway_upstream_errors_total", **labels) == 2
        assert "canary" not in repr(logs) + running.log.getvalue()


@pytest.mark.parametrize(
    "backend",
    [
        remote(100, headers=WITH_KEY),
        remote(100, headers=Headers(set={"Authorization": "Bearer key-canary"})),
        remote(100, headers=Headers(add={"x-api-key": "key-canary"})),
    ],
)
async def test_a_refused_credential_of_the_gateway_is_not_the_callers(backend: Any) -> None:
    """A 401 to the gateway's own credentials is 502 `credentials_refused` where no other backend takes the request."""
    async with (
        serving(responding(reply(b"no key-canary", b"401 No", b"www-authenticate: Bearer"))) as far,
        gateway(document(backend), remote_port=far.port, settings=LOOPBACK, secrets=Keys()) as running,
    ):
        response = await post(running)
        assert (response.status, response.code) == (502, "credentials_refused")
        assert response.value(b"www-authenticate") is None
        assert b"canary" not in response.body
        assert (await line(running))["attempts"][0]["cause"] == "credentials_refused"


@pytest.mark.parametrize("causes", [("reset",), ("credentialsRefused",), ("401",)])
async def test_a_refused_credential_is_a_cause_that_a_route_can_name(causes: tuple[str, ...]) -> None:
    """A 401 to the gateway's own credentials goes to another backend where the route has a cause for it."""
    async with (
        serving(echo) as near,
        serving(responding(reply(b"no", b"401 No"))) as far,
        gateway(
            document(local(0), remote(100, headers=WITH_KEY), retry=Retry(on=causes)),
            local_port=near.port,
            remote_port=far.port,
            settings=LOOPBACK,
            secrets=Keys(),
        ) as running,
    ):
        assert (await post(running)).status == (502 if causes == ("reset",) else 200)


async def test_a_403_to_the_gateways_credentials_concerns_one_request() -> None:
    """A 403 to the gateway's own credentials goes to another backend and does not open the breaker."""
    route = document(local(0), remote(100, headers=WITH_KEY), breaker=Breaker(consecutive_failures=1, open=SECONDS))
    async with (
        serving(echo) as near,
        serving(responding(reply(b"not in this region", b"403 No"))) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK, secrets=Keys()) as running,
    ):
        assert [(await post(running)).value(b"x-beamlit-reason") for _ in range(3)] == [b"Failover"] * 3
        assert requests_of(near, far) == [3, 3]
        await until(lambda: len(running.lines()) == 3)
        assert [one["cause"] for one in running.lines()[0]["attempts"]] == ["403", None]


@pytest.mark.parametrize("size", [20, 300000])
@pytest.mark.parametrize("near", ["none", "unreachable", "reset"])
async def test_a_403_is_relayed_where_no_other_backend_responds(near: str, size: int) -> None:
    """A 403 to the gateway's own credentials goes to the client, whole, where no other backend has a response."""
    others = () if near == "none" else (local(0),)
    async with (
        serving(reset) as resetting,
        serving(responding(reply(b"n" * size, b"403 No"))) as far,
        gateway(
            document(*others, remote(100, headers=WITH_KEY)),
            local_port=resetting.port if near == "reset" else 1,
            remote_port=far.port,
            settings=LOOPBACK,
            secrets=Keys(),
        ) as running,
    ):
        response = await post(running)
        assert (response.status, response.body, response.complete) == (403, b"n" * size, True)
        assert response.value(b"x-beamlit-backend") == b"remote"
        logged = await line(running)
        causes = {"none": [], "unreachable": ["connect_failed"], "reset": ["upstream_reset"]}[near]
        assert (logged["backend"], logged["status"]) == ("remote", 403)
        assert [one["cause"] for one in logged["attempts"]] == ["403", *causes]


async def test_a_403_is_dropped_where_another_backend_has_a_response() -> None:
    """Any response of another backend, also a failure, goes to the client instead of a 403 from before."""
    async with (
        serving(responding(reply(b"busy", b"503 No"))) as near,
        serving(responding(reply(b"n" * 300000, b"403 No"))) as far,
        gateway(
            document(local(0), remote(100, headers=WITH_KEY)),
            local_port=near.port,
            remote_port=far.port,
            settings=LOOPBACK,
            secrets=Keys(),
        ) as running,
    ):
        assert (await post(running)).body == b"busy"
        await until(lambda: running.upstream.stats.open == running.upstream.stats.idle)


@pytest.mark.parametrize("status", [401, 403])
async def test_a_refused_credential_of_the_caller_is_the_callers(status: int) -> None:
    """A 401 or 403 of a backend that sees the caller's credentials goes to the caller and is no failure."""
    route = document(local(headers=WITH_KEY), remote(), breaker=Breaker(consecutive_failures=1, open=SECONDS))
    async with (
        serving(responding(reply(b"no", b"%d No" % status))) as near,
        serving(echo) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK, secrets=Keys()) as running,
    ):
        for _ in range(2):
            response = await running.post(TARGET, BODY, b"Authorization: Bearer mine")
            assert (response.status, response.value(b"x-beamlit-backend")) == (status, b"local")
        assert far.sides == []


async def test_rt_10_the_budget_ends_and_the_responses_pass() -> None:
    """RT-10: without retry budget the failed response goes to the client; connect failures need no budget."""
    settings = {"gateway": {**LOOPBACK["gateway"], "retry": {"budgetPercentage": 0, "budgetPerSecond": 1}}}
    route = document(local(), remote(), breaker=Breaker(consecutive_failures=1000, minimum=1000))
    async with (
        serving(responding(reply(b"full", b"503 No"))) as near,
        serving(echo) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=settings) as running,
    ):
        statuses = [(await post(running)).status for _ in range(15)]
        assert statuses == [200] * 10 + [503] * 5
        await until(lambda: len(running.lines()) == 15)
        last = running.lines()[-1]
        assert (last["retryable"], last["not_retryable"]) == (False, "budget")
        assert "retryable" not in running.lines()[0]
        assert last["attempts"][0]["cause"] == "503"
    async with (
        serving(echo) as far,
        gateway(route, local_port=1, remote_port=far.port, settings=settings) as running,
    ):
        assert [(await post(running)).status for _ in range(15)] == [200] * 15


async def test_each_backend_is_tried_once_in_the_documents_order() -> None:
    """After the chosen backend those for failover are tried in the document's order, each once."""

    def refusing(name: bytes) -> Callable[[ServerSide], Awaitable[None]]:
        return responding(reply(name, b"503 No"))

    async with (
        serving(refusing(b"a")) as a,
        serving(refusing(b"b")) as b,
        serving(refusing(b"c")) as c,
        serving(refusing(b"d")) as d,
    ):
        servers = {"a": a, "b": b, "c": c, "d": d}
        route = document(
            *(
                remote().model_copy(
                    update={"id": name, "host": "127.0.0.1", "port": server.port, "weight": 100 if name == "c" else 0}
                    | ({"use": (Use.WEIGHTED,)} if name == "b" else {})
                )
                for name, server in servers.items()
            )
        )
        async with gateway(route, settings=LOOPBACK) as running:
            response = await post(running)
            assert (response.status, response.body, response.value(b"x-beamlit-backend")) == (503, b"d", b"d")
            assert [len(server.sides) for server in servers.values()] == [1, 0, 1, 1]
            logged = await line(running)
            assert [one["backend"] for one in logged["attempts"]] == ["c", "a", "d"]


async def test_a_request_has_three_attempts_at_most() -> None:
    """A fourth backend is not tried, and the log says why."""
    async with serving(responding(reply(b"busy", b"503 No"))) as busy, serving(echo) as far:
        route = document(
            *(
                remote().model_copy(
                    update={"id": f"b{index}", "host": "127.0.0.1", "port": port, "weight": 0 if index else 100}
                )
                for index, port in enumerate((busy.port, 1, busy.port, far.port))
            )
        )
        async with gateway(route, settings=LOOPBACK) as running:
            response = await post(running)
            assert (response.status, response.value(b"x-beamlit-backend")) == (503, b"b2")
            assert far.sides == []
            logged = await line(running)
            assert [one["backend"] for one in logged["attempts"]] == ["b0", "b1", "b2"]
            assert (logged["retryable"], logged["not_retryable"]) == (False, "attempts")


async def test_every_attempt_begins_with_the_request_as_it_came() -> None:
    """Each attempt has the target, fields, model name and credentials of its own backend only."""
    far_backend = remote(
        100,
        path_prefix="/far",
        model="far-model",
        headers=Headers(
            set={"x-set": "far"},
            add={"x-add": "far"},
            remove=("x-plain",),
            set_from={"x-api-key": SecretKey(name="key", key="k")},
        ),
    )
    async with (
        serving(echo) as near,
        serving(responding(reply(b"", b"503 No"))) as far,
        gateway(
            document(local(0, path_prefix="/near"), far_backend),
            local_port=near.port,
            remote_port=far.port,
            settings=LOOPBACK,
            secrets=Keys(),
        ) as running,
    ):
        fields = (b"Authorization: Bearer caller", b"X-Plain: 1", b"X-Set: mine")
        response = await running.post(TARGET, BODY, *fields)
        assert response.value(b"x-beamlit-backend") == b"local"
        first = far.sides[0].received
        assert first.startswith(b"POST /far/v1/chat/completions HTTP/1.1\r\nhost: remote.test\r\n")
        assert b"x-api-key: key-canary\r\n" in first
        assert b"caller" not in first
        assert first.endswith(b'{"model":"far-model","n":1}')
        second = response.body
        assert second.startswith(
            b"POST /near/v1/chat/completions HTTP/1.1\r\nhost: demo-local.default.svc.cluster.local\r\n"
        )
        assert second.endswith(BODY)
        for line in (b"authorization: Bearer caller", b"x-plain: 1", b"x-set: mine", b"content-length: %d" % len(BODY)):
            assert second.count(b"\r\n" + line + b"\r\n") == 1
        for trace in (b"canary", b"x-add", b"far"):
            assert trace not in second.replace(b"x-forwarded-for", b"")
        assert second.count(b"via: ") == 1


# Request bodies


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("size", [1, 70000, 1 << 20])
async def test_rt_12_a_replayed_body_is_the_same(size: int, chunked: bool) -> None:
    """RT-12: a body within the limit is sent again with the same bytes and framing."""
    body = bytes(range(1, 10)) * (size // 9 + 1)
    async with (
        serving(reset) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        client = await running.client()
        framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
        await client.send(b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % (TARGET, framing))
        for start in range(0, size, 60000):
            piece = body[start : min(start + 60000, size)]
            await client.send(chunk(piece) if chunked else piece)
        if chunked:
            await client.send(b"0\r\n\r\n")
        response = await client.response(b"POST")
        assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"remote")
        head, _, received = response.body.partition(b"\r\n\r\n")
        if chunked:
            assert b"transfer-encoding: chunked" in head
            received = _unchunked(received)
        else:
            assert b"content-length: %d" % size in head
        assert received == body[:size]


def _unchunked(data: bytes) -> bytes:
    result = b""
    while data:
        size, _, data = data.partition(b"\r\n")
        result += data[: int(size, 16)]
        data = data[int(size, 16) + 2 :]
    return result


@pytest.mark.parametrize("chunked", [False, True])
async def test_rt_12_a_body_above_the_limit_is_sent_once(chunked: bool) -> None:
    """RT-12: a body above the limit is streamed once, and the log says that it is not retryable."""
    size = 200000
    for script, status in ((responding(reply(b"no", b"503 No")), 503), (echo, 200)):
        async with serving(script) as near, serving(echo) as far:
            route = document(local(), remote(), retry=Retry(body_bytes=size - 1))
            async with gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running:
                client = await running.client()
                framing = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: %d" % size
                await client.send(b"POST %b HTTP/1.1\r\nHost: x\r\n%b\r\n\r\n" % (TARGET, framing))
                await client.send(chunk(b"b" * size) + b"0\r\n\r\n" if chunked else b"b" * size)
                response = await client.response(b"POST")
                assert (response.status, response.value(b"x-beamlit-backend")) == (status, b"local")
                assert far.sides == []
                logged = await line(running)
                assert (logged["retryable"], logged["not_retryable"]) == (False, "body")


async def test_rt_12_a_body_at_the_limit_is_sent_again() -> None:
    """RT-12: a body as large as the limit is sent again; with 0 only requests without a body are."""
    async with serving(reset) as near, serving(echo) as far:
        for limit, body, status in ((22, BODY, 200), (21, BODY, 502), (0, BODY, 502), (0, b"", 200)):
            route = document(local(), remote(), retry=Retry(body_bytes=limit))
            async with gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running:
                assert (await post(running, body)).status == status


async def test_rt_12_a_large_body_is_sent_again_where_nothing_was_sent() -> None:
    """RT-12: after a connect failure a body of any size goes to another backend."""
    body = b"b" * 300000
    async with serving(echo) as far:
        route = document(local(), remote(), retry=Retry(body_bytes=10))
        async with gateway(route, local_port=1, remote_port=far.port, settings=LOOPBACK) as running:
            response = await post(running, body)
            assert (response.status, len(response.body) > len(body)) == (200, True)


async def test_a_slow_body_does_not_delay_the_first_attempt() -> None:
    """The first backend gets the body as it comes; when it refuses early, the next one gets all of it."""
    seen = asyncio.Event()

    async def script(side: ServerSide) -> None:
        head = await side.reader.readuntil(b"\r\n\r\n")
        assert b"content-length: 6" in head
        assert await side.reader.readexactly(3) == b"abc"
        seen.set()
        await side.send(reply(b"early", b"503 No"))
        await side.gone()

    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        client = await running.client()
        await client.send(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n" % TARGET, b"ab", b"c")
        async with asyncio.timeout(SECONDS):
            await seen.wait()
        await until(lambda: len(far.sides) == 1)
        await client.send(b"d", b"ef")
        response = await client.response(b"POST")
        assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"remote")
        assert response.body.endswith(b"\r\n\r\nabcdef")


async def test_a_body_that_grows_above_the_limit_is_sent_to_the_second_backend_once() -> None:
    """A chunked body that was short when the first attempt failed goes to the second backend at any size."""

    async def script(side: ServerSide) -> None:
        await side.reader.readuntil(b"a\r\n")
        side.reset()

    async with serving(script) as near, serving(echo) as far:
        route = document(local(), remote(), retry=Retry(body_bytes=1000))
        async with gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running:
            client = await running.client()
            await client.send(
                b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % TARGET, chunk(b"a")
            )
            await until(lambda: len(far.sides) == 1)
            await client.send(*(chunk(b"b" * 50000) for _ in range(4)), b"0\r\n\r\n")
            response = await client.response(b"POST")
            assert response.status == 200
            assert _unchunked(response.body.partition(b"\r\n\r\n")[2]) == b"a" + b"b" * 200000


async def test_a_body_that_is_too_large_is_the_clients_failure() -> None:
    """A body above the limit gets a 413, and no other backend is tried."""

    async def script(side: ServerSide) -> None:
        await side.gone()

    async with serving(script) as near, serving(echo) as far:
        route = document(local(), remote(), limits=Limits(body_bytes=1000))
        async with gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running:
            client = await running.client()
            await client.send(
                b"POST %b HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" % TARGET, chunk(b"a")
            )
            await until(lambda: len(near.sides) == 1)
            await client.send(chunk(b"b" * 1000))
            assert (await client.response(b"POST")).code == "body_too_large"
            assert far.sides == []
            assert "attempts" not in await line(running)


async def test_a_kept_body_is_freed_once_the_response_streams() -> None:
    """Nothing of the request body is kept while the response streams."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD + chunk(b"data: 1\n\n"))
        await side.gone()

    async with (
        serving(script) as near,
        gateway(document(local(), remote()), local_port=near.port, settings=LOOPBACK) as running,
    ):
        client = await running.client()
        body = b"b" * 200000
        await client.send(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (TARGET, len(body)), body)
        assert (await client.response(head_only=True)).status == 200
        (connection,) = running.server._connections
        assert connection._exchange is not None
        assert connection._exchange.size == len(body)
        assert connection._exchange._pieces == []


async def test_rt_03_a_dead_connection_and_a_body_in_pieces() -> None:
    """RT-03: a request whose body comes late is sent on a new connection when an idle one has died."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(reply(b"%d" % side.number))
        if side.number == 0:
            await side.reader.readuntil(b"\r\n\r\n")  # the connection ends during the second request

    async with serving(script) as server, gateway(local_port=server.port) as running:
        client = await running.client()
        for number in (b"0", b"1"):
            await client.send(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n" % TARGET)
            await until(lambda: running.upstream.stats.open - running.upstream.stats.idle > 0)
            if number == b"1":
                await until(lambda: len(server.sides) == 2)
            await client.send(b"body")
            assert (await client.response(b"POST")).body == number
        assert server.sides[1].received.endswith(b"\r\n\r\nbody")


# Event streams


@pytest.mark.parametrize(
    "event",
    [b'data: {"error": {"message": "no room"}}\n\n', b"event: error\r\ndata: x\r\n\r\n"],
)
@pytest.mark.parametrize("pieces", [1, 4])
async def test_a_stream_that_begins_with_an_error_is_a_failure(event: bytes, pieces: int) -> None:
    """A stream whose first event is an error is dropped, and another backend responds."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        step = len(event) // pieces + 1
        for start in range(0, len(event), step):
            await side.send(chunk(event[start : start + step]))
            await asyncio.sleep(0.005)
        await side.gone()

    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        response = await post(running)
        assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"remote")
        assert (await line(running))["attempts"][0]["cause"] == "streamError"


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"error": {"message": "too long", "type": "BadRequestError", "param": null, "code": 400}}\n\n',
        b'data: {"error": {"message": "m", "type": "invalid_request_error"}}\n\n',
        b'event: error\ndata: {"type": "error", "error": {"type": "request_too_large", "message": "m"}}\n\n',
        b'data: {"error": "m", "error_type": "validation"}\r\n\r\n',
    ],
)
async def test_an_error_that_is_the_callers_fault_is_no_failure(event: bytes) -> None:
    """A stream that begins with an error of the caller's goes to the caller, and the backend is not blamed for it."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(STREAM_HEAD + chunk(event) + chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")

    route = document(local(), remote(), breaker=Breaker(consecutive_failures=1, open=SECONDS))
    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        for _ in range(3):
            response = await post(running)
            assert (response.status, response.body) == (200, event + b"data: [DONE]\n\n")
            assert response.value(b"x-beamlit-reason") == b"Local"
        assert far.sides == []
        await until(lambda: len(running.lines()) == 3)
        assert "attempts" not in running.lines()[0]


@pytest.mark.parametrize("code", [b"500", b"429", b"null", b'"server_error"'])
async def test_an_error_that_is_the_servers_opens_the_breaker(code: bytes) -> None:
    """A stream that begins with an error of the server's is a failure, and so is one that says that it has no room."""
    data = b'data: {"error": {"message": "m", "code": %b}}\n\n' % code
    route = document(local(), remote(), breaker=Breaker(consecutive_failures=1, open=SECONDS))
    async with (
        serving(responding(STREAM_HEAD + chunk(data) + b"0\r\n\r\n")) as near,
        serving(echo) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        assert [(await post(running)).value(b"x-beamlit-reason") for _ in range(2)] == [b"Failover", b"BreakerOpen"]


@pytest.mark.parametrize(
    "beginning",
    [b"data: 1\n\n", b": wait\n\ndata: 1\n\n", b"x" * 17000, b"data: 1\r\rdata: 2\r\r"],
)
async def test_a_stream_that_begins_well_passes_as_it_is(beginning: bytes) -> None:
    """A stream goes to the client once its first event or 16 KiB of it is here, and none of it is lost."""
    more = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD + chunk(beginning))
        await more.wait()
        await side.send(chunk(b"rest") + b"0\r\n\r\n")

    async with (
        serving(script) as near,
        gateway(document(local(), remote()), local_port=near.port, settings=LOOPBACK) as running,
    ):
        client = await running.client()
        await client.send(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % TARGET)
        head = await client.response(head_only=True)
        assert head.value(b"x-beamlit-backend") == b"local"
        more.set()
        assert _unchunked(await _until_last_chunk(client)) == beginning + b"rest"


async def _until_last_chunk(client: Any) -> bytes:
    data = b""
    while not data.endswith(b"0\r\n\r\n"):
        data += await client.some()
    return data


@pytest.mark.parametrize("comments", [0, 3, 3000])
@pytest.mark.parametrize(
    ("end", "cause"),
    [
        (b'data: {"error": {"code": 503}}\n\n', "streamError"),
        (b"data: {", "upstream_reset"),
        (b"", "upstream_reset"),
    ],
)
async def test_head_and_comments_of_a_stream_commit_nothing(end: bytes, cause: str, comments: int) -> None:
    """A stream that fails behind its head and any number of comments is dropped, and another backend responds."""
    queued = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        for _ in range(comments):
            await side.send(chunk(b": waiting\n\n"))
        await queued.wait()
        await side.send(chunk(end) if end else b"")
        side.writer.close()

    route = document(local(), remote(), timeouts=Timeouts(idle=0.3))
    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        request = asyncio.create_task(post(running))
        await until(partial(_has_request, near))
        await asyncio.sleep(0.6)  # more than the idle time, which begins at the first event
        assert not request.done()
        queued.set()
        response = await request
        assert (response.status, response.value(b"x-beamlit-backend")) == (200, b"remote")
        assert (await line(running))["attempts"][0]["cause"] == cause


async def test_of_many_comments_only_the_last_are_kept() -> None:
    """A stream with more comments than 16 KiB before its first event goes to the client from that event on."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        for _ in range(100):
            await side.send(chunk(b": %b\n\n" % (b"c" * 1000)))
        await side.send(chunk(b"id: 7\n: c\nda") + chunk(b"ta: 1\n\n") + b"0\r\n\r\n")

    async with (
        serving(script) as near,
        gateway(document(local(), remote()), local_port=near.port, settings=LOOPBACK) as running,
    ):
        response = await post(running)
        assert len(response.body) < 600_000  # what came with the event in one read, and what was kept before
        assert response.body.endswith((b"id: 7\n: c\ndata: 1\n\n", b"id: 7\ndata: 1\n\n"))


@pytest.mark.parametrize("named", [False, True])
async def test_rt_07_no_first_event_in_time_is_a_cause_only_where_asked_for(named: bool) -> None:
    """RT-07: a stream without an event in time, whatever its comments, is 504, or a cause where the route names it."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        while not side.writer.is_closing():
            await side.send(chunk(b": waiting\n\n"))
            await asyncio.sleep(0.05)

    on = (FailureCause.FIRST_TOKEN_TIMEOUT,) if named else Retry().on
    route = document(local(), remote(), timeouts=Timeouts(first_token=0.5), retry=Retry(on=on))
    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        response = await post(running)
        assert (response.status, len(far.sides)) == ((200, 1) if named else (504, 0))
        if not named:
            assert response.code == "first_token_timeout"
        assert (await line(running))["attempts"][0]["cause"] == "first_token_timeout"
        await until(lambda: running.upstream.stats.open - running.upstream.stats.idle == 0)


@pytest.mark.parametrize("install", [False, True])
async def test_the_wait_for_the_first_event_has_its_own_time(install: bool) -> None:
    """Without a time of its own the first event has as long as the head; the idle time counts only after it."""
    # Long enough for the head on a busy machine, and shorter than the wait for the first event.
    first_byte, wait = (2.0, 2.3) if install else (SECONDS, 0.5)

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        await asyncio.sleep(wait)
        await side.send(chunk(b"data: 1\n\n"))
        await side.gone()

    settings = {"gateway": {**LOOPBACK["gateway"], "timeouts": {"firstTokenSeconds": SECONDS}}} if install else LOOPBACK
    route = document(local(), remote(), timeouts=Timeouts(first_byte=first_byte, idle=0.2))
    async with (
        serving(script) as near,
        gateway(route, local_port=near.port, remote_port=1, settings=settings) as running,
    ):
        response = await post(running)
        assert (response.status, response.complete) == (200, False)
        assert b"data: 1\n\n" in response.body
        assert b"idle_timeout" in response.body
        logged = await line(running)
        assert logged["broken"] == "idle_timeout"
        assert logged["seconds"] > logged["first_event_seconds"] >= wait


async def test_a_compressed_stream_is_committed_by_its_first_byte() -> None:
    """The head of a compressed stream commits nothing, and its first byte does."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n"))
        if side.number == 0:
            side.writer.close()
        else:
            await side.send(chunk(b"\x1f\x8b") + b"0\r\n\r\n")

    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        assert [(await post(running)).value(b"x-beamlit-backend") for _ in range(2)] == [b"remote", b"local"]


# Streams that are relayed from the head on

QUIET = {
    "a subscription": (b"GET %b HTTP/1.1\r\nHost: x\r\n\r\n" % TARGET, (local(), remote()), Retry()),
    "no other backend": (b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % TARGET, (local(),), Retry()),
    "too large to be sent again": (
        b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % TARGET,
        (local(), remote()),
        Retry(body_bytes=1),
    ),
}


@pytest.mark.parametrize("kind", QUIET)
async def test_the_silence_before_the_first_event_of_any_stream_has_its_own_time(kind: str) -> None:
    """A stream that goes nowhere else is relayed from the head on, and comments keep it open until its first event.

    Then the idle time counts.
    """
    request, backends, retry = QUIET[kind]
    more = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        await more.wait()
        for _ in range(20):
            await asyncio.sleep(0.1)
            await side.send(chunk(b": wait\n\n"))
        await side.send(chunk(b"data: 1\n\n"))
        await side.gone()

    route = document(*backends, retry=retry, timeouts=Timeouts(first_token=1.2, idle=0.1))
    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(route, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        client = await running.client()
        await client.send(request)
        assert (await client.response(head_only=True)).status == 200
        more.set()
        stream = await client.ended()
        assert stream.count(b": wait") == 20
        assert (await line(running))["first_event_seconds"] > 2
        assert b"idle_timeout" in stream.partition(b"data: 1\n\n")[2]
        assert far.sides == []


@pytest.mark.parametrize("kind", QUIET)
async def test_to_04_a_stream_without_an_event_says_so(kind: str) -> None:
    """TO-04: a stream that was relayed from the head on and has no event in time ends with an error that says so."""
    request, backends, retry = QUIET[kind]

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        await side.gone()

    route = document(*backends, retry=retry, timeouts=Timeouts(first_token=0.3))
    async with (
        serving(script) as near,
        gateway(route, local_port=near.port, remote_port=1, settings=LOOPBACK) as running,
    ):
        client = await running.client()
        await client.send(request)
        assert (await client.response(head_only=True)).status == 200
        assert b'"code":"first_token_timeout"' in await client.ended()
        assert (await line(running))["broken"] == "first_token_timeout"


@pytest.mark.parametrize(
    ("backends", "retry"),
    [
        ((local(),), Retry()),
        ((local(), remote(use=(Use.WEIGHTED,))), Retry()),
        ((local(), remote()), Retry(on=(FailureCause.SERVICE_UNAVAILABLE,))),
        ((local(), remote()), Retry(body_bytes=1)),
    ],
)
async def test_a_stream_is_not_held_without_another_backend(backends: tuple[Any, ...], retry: Retry) -> None:
    """A stream is not held back without another backend, without the cause, or without a body to send again."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        await side.reader.read(1)

    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(
            document(*backends, retry=retry), local_port=near.port, remote_port=far.port, settings=LOOPBACK
        ) as running,
    ):
        client = await running.client()
        await client.send(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % TARGET)
        assert (await client.response(head_only=True)).status == 200
        assert far.sides == []


async def test_a_stream_that_breaks_off_while_it_is_held() -> None:
    """A stream that ends while it is held back is dropped, and another backend responds."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD + chunk(b"data: "))
        side.writer.close()

    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        assert (await post(running)).status == 200
        assert (await line(running))["attempts"][0]["cause"] == "upstream_reset"


# Clients that leave, and changes of the table


@pytest.mark.parametrize("held", [False, True])
async def test_to_06_to_07_no_attempt_for_a_client_that_has_gone(held: bool) -> None:
    """TO-07: after the client has gone, the backend's connection is closed and no other backend is tried."""

    async def script(side: ServerSide) -> None:
        await side.request()
        if held:
            await side.send(STREAM_HEAD)
        await side.gone()

    async with (
        serving(script) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        client = await running.client()
        await client.send(b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}" % TARGET)
        await until(lambda: bool(near.sides and near.sides[0].received))
        if held:
            await asyncio.sleep(0.05)  # lets the head arrive; nothing shows that it has
        client.reset()
        logged = await line(running)
        assert (logged["status"], logged["broken"]) == (499, "client_gone")
        assert "attempts" not in logged
        await until(lambda: running.upstream.stats.open == 0)
        assert far.sides == []


async def test_rt_13_a_retry_uses_its_table_but_no_removed_backend() -> None:
    """RT-13: a retry uses the rules that the request began with, but no backend that was removed meanwhile."""
    for remains in (True, False):
        go = asyncio.Event()

        async def script(side: ServerSide, go: asyncio.Event = go) -> None:
            await side.request()
            await go.wait()
            await side.send(reply(b"no", b"503 No"))

        async with (
            serving(script) as near,
            serving(echo) as far,
            gateway(
                document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK
            ) as running,
        ):
            request = asyncio.create_task(post(running))
            await until(partial(_has_request, near))
            after = (local(), remote(path_prefix="/new")) if remains else (local(),)
            running.load(document(*after, retry=Retry(on=())))
            go.set()
            response = await request
            if remains:
                assert response.body.startswith(b"POST /v1/chat/completions ")
            else:
                assert (response.status, response.body) == (503, b"no")
                assert far.sides == []


def _has_request(server: ScriptedServer) -> bool:
    return any(side.received for side in server.sides)


async def test_models_that_cannot_be_renamed_pass_as_they_are() -> None:
    """A body without a `model` value goes unchanged to a backend with a model name of its own."""
    async with (
        serving(reset) as near,
        serving(echo) as far,
        gateway(
            document(local(), remote(model="far")), local_port=near.port, remote_port=far.port, settings=LOOPBACK
        ) as running,
    ):
        assert orjson.loads((await post(running)).body.partition(b"\r\n\r\n")[2]) == {"model": "far", "n": 1}
        assert (await post(running, b"[1]")).body.endswith(b"\r\n\r\n[1]")
