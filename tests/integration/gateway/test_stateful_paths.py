"""Requests that refer to an earlier response go to the one backend that has it, over real sockets."""

import gzip
import itertools
from typing import Any

import orjson
import pytest

from gateway.api.v1alpha1 import Backend, Queue, Use
from gateway.api.vocabulary import StatefulPaths
from tests.integration.gateway.test_pods import FULL, Script, World, slice_of, world
from tests.integration.gateway.wire import Running, document, echo, gateway, local, remote, reply
from tests.integration.servers import ServerSide, serving, until

LOOPBACK: dict[str, Any] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
TARGET = b"/default/demo/v1/responses"
NEXT = b'{"model":"demo","input":"and then?","previous_response_id":"resp_1"}'
FIRST = b'{"model":"demo","input":"hello","previous_response_id":null}'


async def unavailable(side: ServerSide) -> None:
    """Respond to every request with 503."""
    while True:
        await side.request()
        await side.send(reply(b"no", b"503 Service Unavailable"))


async def backend_of(running: Running, body: bytes, *fields: bytes, target: bytes = TARGET) -> str:
    """Return the backend and the reason that the response to a POST names."""
    response = await running.post(target, body, *fields)
    assert response.status == 200, response
    return f"{response.value(b'x-beamlit-backend')!r} {response.value(b'x-beamlit-reason')!r}"


@pytest.mark.parametrize(
    ("paths", "expected"),
    [(StatefulPaths.LOCAL, "b'local' b'Stateful'"), (StatefulPaths.REMOTE, "b'remote' b'Stateful'")],
)
async def test_a_request_that_refers_to_a_response_goes_to_its_side(paths: StatefulPaths, expected: str) -> None:
    """A request that refers to a response goes to the side of the route's state, and any other by the split."""
    other = "remote" if paths is StatefulPaths.LOCAL else "local"
    weight = 100 if other == "remote" else 0
    async with (
        serving(echo) as near,
        serving(echo) as far,
        gateway(
            document(local(100 - weight), remote(weight), stateful_paths=paths),
            local_port=near.port,
            remote_port=far.port,
            settings=LOOPBACK,
        ) as running,
    ):
        long = orjson.dumps({"input": "a" * 300000, "model": "demo", "previous_response_id": "resp_1"})
        for body in (NEXT, b" " + NEXT, NEXT.replace(b"_r", rb"\u005fR"), b'{"n":NaN,' + NEXT[1:], long):
            assert await backend_of(running, body) == expected, body[:90]
        assert await backend_of(running, gzip.compress(NEXT), b"Content-Encoding: gzip") == expected
        assert await backend_of(running, NEXT, target=b"/v1/responses") == expected  # by model
        for method in (b"GET", b"DELETE"):
            response = await running.ask(b"%b %b/resp_1 HTTP/1.1\r\nHost: x\r\n\r\n" % (method, TARGET), method=method)
            assert f"{response.value(b'x-beamlit-backend')!r}" == expected.split()[0]
        assert (await running.post(TARGET + b"/resp_1/cancel", b"")).value(b"x-beamlit-reason") == b"Stateful"
        for body in (FIRST, b'{"model":"demo","input":"previous_response_id"}', b'{"a":{"previous_response_id":"b"}}'):
            assert await backend_of(running, body) == f"b'{other}' b'Local'", body
        assert await backend_of(running, NEXT, target=b"/default/demo/v1/chat/completions") == f"b'{other}' b'Local'"


@pytest.mark.parametrize("body", [b'{"input": [', b"\xff\xfe{\0", b'{"input":"\\u0070"} {}'])
async def test_a_body_that_cannot_be_read_counts_as_one_that_refers(body: bytes) -> None:
    """A body of which it cannot be told whether it refers to a response goes where such requests go."""
    async with (
        serving(echo) as near,
        gateway(document(local(0), remote(100)), local_port=near.port, remote_port=1, settings=LOOPBACK) as running,
    ):
        content = body if b"\\u" in body or b"\0" in body else body + b'"previous_response_id'
        assert await backend_of(running, content) == "b'local' b'Stateful'"


async def test_no_other_backend_is_tried() -> None:
    """A failure of the backend that has the response goes to the client, and the log says why."""
    async with (
        serving(unavailable) as near,
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        for _ in range(7):  # which opens the breaker
            response = await running.post(TARGET, NEXT)
            assert (response.status, response.body) == (503, b"no")
        assert far.sides == []
        await until(lambda: len(running.lines()) == 7)
        assert {one["not_retryable"] for one in running.lines()} == {"stateful"}
        assert await backend_of(running, FIRST) == "b'remote' b'BreakerOpen'"


async def test_a_backend_that_is_away_is_no_reason_for_another() -> None:
    """A backend without a connection fails such a request, although nothing was sent."""
    async with (
        serving(echo) as far,
        gateway(document(local(), remote()), local_port=1, remote_port=far.port, settings=LOOPBACK) as running,
    ):
        response = await running.post(TARGET, NEXT)
        assert (response.status, response.code) == (502, "connect_failed")
        assert await backend_of(running, FIRST) == "b'remote' b'Failover'"


async def test_such_requests_do_not_overflow() -> None:
    """Above the limit of the local backend a request that refers to a response goes nowhere else."""

    async def silent(side: ServerSide) -> None:
        await side.request()
        await side.gone()

    spill = Backend(id="remote", host="remote.test", port=80, use=(Use.OVERFLOW,))
    async with (
        serving(silent) as near,
        serving(echo) as far,
        gateway(
            document(local(in_flight=1), spill, queue=Queue(size=0)),
            local_port=near.port,
            remote_port=far.port,
            settings=LOOPBACK,
        ) as running,
    ):
        client = await running.client()
        await client.send(b"GET %b/resp_1 HTTP/1.1\r\nHost: x\r\n\r\n" % TARGET)
        await until(lambda: len(near.sides) == 1)
        assert (await running.post(TARGET, NEXT)).code == "at_capacity"
        assert await backend_of(running, FIRST) == "b'remote' b'Overflow'"
        client.reset()


@pytest.mark.parametrize("backends", [(local(),), (local(50), remote(50))])
async def test_a_route_may_refuse_them(backends: tuple[Backend, ...]) -> None:
    """A route that refuses stateful requests responds with 400 and the code for it, and serves all others."""
    async with (
        serving(echo) as near,
        serving(echo) as far,
        gateway(
            document(*backends, stateful_paths=StatefulPaths.REFUSE),
            local_port=near.port,
            remote_port=far.port,
            settings=LOOPBACK,
        ) as running,
    ):
        response = await running.post(TARGET, NEXT)
        assert (response.status, response.code) == (400, "state_refused")
        response = await running.ask(b"GET %b/resp_1 HTTP/1.1\r\nHost: x\r\n\r\n" % TARGET)
        assert (response.status, response.code) == (400, "state_refused")
        assert (await running.post(TARGET, FIRST)).status == 200


async def test_a_route_without_the_side_that_has_the_responses() -> None:
    """Without the backend that has the responses a request that refers to one is 503, and any other is served."""
    async with (
        serving(echo) as far,
        gateway(document(remote(100)), remote_port=far.port, settings=LOOPBACK) as running,
    ):
        response = await running.post(TARGET, NEXT)
        assert (response.status, response.code) == (503, "no_backend")
        assert (await running.post(TARGET, FIRST)).status == 200


async def test_one_backend_is_not_looked_for() -> None:
    """Where the only backend is the one that has the responses, a large body streams through as ever."""
    body = orjson.dumps({"input": "a" * 3000000, "previous_response_id": "resp_1"})
    async with serving(echo) as near, gateway(local_port=near.port) as running:
        assert await backend_of(running, body) == "b'local' b'Local'"


async def test_no_other_pod_is_tried() -> None:
    """A pod that fails a request which refers to a response ends its attempts, though another pod is there."""
    async with world(document(local()), a=FULL, b=FULL) as there:
        assert (await there.running.post(TARGET, NEXT)).status == 503
        assert [len(one) for one in await there.attempts(1)] == [1]
        assert (await there.running.post(TARGET, FIRST)).status == 503
        assert [len(one) for one in await there.attempts(2)] == [2, 1]


def making(name: str) -> Script:
    """Return the script of a pod that makes responses with ids of its own, as JSON or as a stream."""
    numbers = itertools.count()

    async def script(side: ServerSide) -> None:
        while True:
            request = await side.request()
            content = b'{"id": "resp_%b%d"}' % (name.encode(), next(numbers))
            if b'"stream"' not in request:
                await side.send(reply(content))
                continue
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for piece in (b"data: " + content[:9], content[9:] + b"\n\n"):
                await side.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await side.send(b"0\r\n\r\n")

    return script


async def made(there: World, *fields: bytes, **body: Any) -> tuple[str, str]:
    """Return the id of a new response, and the pod that made it."""
    lines = len(there.running.lines())
    response = await there.running.post(TARGET, orjson.dumps({"input": "hello", **body}), *fields)
    assert response.status == 200
    await until(lambda: len(there.running.lines()) > lines)
    return str(orjson.loads(response.body.removeprefix(b"data: "))["id"]), str(there.running.lines()[-1]["pod"])


async def test_a_request_goes_to_the_pod_that_made_the_response() -> None:
    """Requests that refer to a response go to the pod that made it, for the caller who got its id."""
    async with world(document(local()), a=making("a"), b=making("b"), c=making("c")) as there:
        response = ""
        for number in range(6):
            more: dict[str, Any] = {"stream": True} if number % 2 else {}
            response, pod = await made(there, **more)
            response, next_pod = await made(there, previous_response_id=response, **more)
            assert next_pod == pod
            await there.running.ask(b"GET %b/%b HTTP/1.1\r\nHost: x\r\n\r\n" % (TARGET, response.encode()))
            await until(lambda: there.running.lines()[-1]["method"] == "GET")
            assert there.running.lines()[-1]["pod"] == pod
        for credential in (b"Authorization: b", b"api-key: b", b"x-api-key: b"):
            others = {(await made(there, credential, previous_response_id=response))[1] for _ in range(30)}
            assert len(others) > 1


async def test_a_response_whose_pod_is_gone() -> None:
    """When the pod that made a response is gone, another one gets the request and says what it knows."""
    async with world(document(local()), a=making("a"), b=making("b")) as there:
        response, pod = await made(there)
        names = [one if one != pod else "new" for one in ("a", "b")]
        there.table.put(slice_of(*names))
        assert (await made(there, previous_response_id=response))[1] in names
