"""Keep-alive of event streams over real sockets: when comments come, what goes on underneath, and how failures end."""

import asyncio
import gzip
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any, Final

import orjson
import pytest

from gateway.api.v1alpha1 import KeepAlive, Queue, Retry
from tests.integration.gateway.test_broken_streams import chunk, events
from tests.integration.gateway.test_pods import slice_of, world
from tests.integration.gateway.wire import Client, Response, Running, document, gateway, local, message, remote, reply
from tests.integration.servers import ScriptedServer, ServerSide, serving, until

LOOPBACK: Final[dict[str, Any]] = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
STREAM_HEAD: Final = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
PACKED_HEAD: Final = STREAM_HEAD[:-2] + b"content-encoding: gzip\r\n\r\n"
END: Final = b"0\r\n\r\n"
COMMENT: Final = b": keep-alive\n\n"
CHAT: Final = b"/default/demo/v1/chat/completions"
MESSAGES: Final = b"/default/demo/v1/messages"
BODY: Final = b'{"model":"demo","stream":true}'
SOON: Final = KeepAlive(after=0.05)
EARLY: Final = KeepAlive(after=0.05, before_head=True)

Script = Callable[[ServerSide], Awaitable[None]]


def after(go: asyncio.Event, then: bytes, *, first: bytes = STREAM_HEAD, closes: bool = False) -> Script:
    """Return the script of a server that sends `first`, and `then` once `go` is set."""

    async def script(side: ServerSide) -> None:
        while True:
            await side.request()
            await side.send(first)
            await go.wait()
            await side.send(then)
            if closes:
                return

    return script


async def post(running: Running, target: bytes = CHAT, body: bytes = BODY, *fields: bytes) -> Response:
    """Send one POST; return the response."""
    return await running.post(target, body, *fields)


def sent(running: Running, backend: str = "local", model: str = "demo") -> float:
    """Return the number of comments that clients got while a backend was silent."""
    labels = {"namespace": "default", "model": model, "backend": backend}
    return running.count("beamlit_gateway_keep_alives_total", **labels)


async def line(running: Running) -> Mapping[str, Any]:
    """Return the only line of the access log, when it is written."""
    await until(lambda: len(running.lines()) == 1)
    return running.lines()[0]


def requests(server: ScriptedServer) -> int:
    """Return the number of requests that a server has received."""
    return sum(side.received.count(b"POST ") for side in server.sides)


# After the head of a stream


async def test_comments_come_until_the_first_event_while_failover_goes_on() -> None:
    """A client that waits gets the head and comments, and then the stream of the backend that takes over, by name."""
    go = asyncio.Event()
    far_script = after(go, chunk(b"data: 1\n\n") + END)
    async with (
        serving(after(go, b"", closes=True)) as near,
        serving(far_script) as far,
        gateway(
            document(local(), remote(), keep_alive=SOON),
            local_port=near.port, remote_port=far.port, settings=LOOPBACK,
        ) as running,
    ):  # fmt: skip
        request = asyncio.create_task(post(running))
        await until(lambda: sent(running) >= 3)
        go.set()
        response = await request
        assert (response.status, response.complete) == (200, True)
        assert response.value(b"x-beamlit-backend") == b"local"  # its head went to the client
        comments, _, stream = response.body.partition(b": keep-alive, backend remote, reason Failover\n\n")
        assert comments == COMMENT * comments.count(COMMENT)
        assert comments.count(COMMENT) == sent(running) + sent(running, "remote")
        assert stream == b"data: 1\n\n"
        logged = await line(running)
        assert (logged["status"], logged["backend"], logged["broken"]) == (200, "remote", None)
        assert logged["attempts"][0]["cause"] == "upstream_reset"


async def test_another_pod_takes_over_under_comments() -> None:
    """A client of a pod that is silent and dies gets comments and then the stream of another one, without its name."""
    go = asyncio.Event()
    whole = after(go, b"", first=STREAM_HEAD + chunk(b"data: 1\n\n") + END)
    route = document(local(), remote(), keep_alive=SOON)
    async with world(route, a=after(go, b"", closes=True), b=whole) as there:
        there.table.put(slice_of("a"))
        request = asyncio.create_task(post(there.running))
        await until(lambda: sent(there.running) >= 2)
        there.table.put(slice_of("a", "b"))
        go.set()
        response = await request
        assert response.complete
        assert response.body == COMMENT * int(sent(there.running)) + b"data: 1\n\n"
        assert await there.attempts(1) == [[("local", "a", "upstream_reset"), ("local", "b", None)]]


@pytest.mark.parametrize("before_head", [False, True])
@pytest.mark.parametrize("pieces", [(b"\xef\xbb\xbfdata: 1\n\n",), (b"\xef\xbb", b"\xbfda", b"ta: 1\n\n")])
async def test_a_byte_order_mark_is_none_behind_comments(pieces: tuple[bytes, ...], before_head: bool) -> None:
    """A stream that begins with a byte order mark goes on without it behind comments, so that no event is lost."""
    go = asyncio.Event()
    rest = b"".join(map(chunk, pieces)) + END
    script = after(go, STREAM_HEAD + rest, first=b"") if before_head else after(go, rest)
    route = document(local(), keep_alive=EARLY if before_head else SOON)
    async with serving(script) as near, gateway(route, local_port=near.port) as running:
        request = asyncio.create_task(post(running))
        await until(lambda: sent(running) >= 1)
        go.set()
        response = await request
        assert response.complete
        assert b"\xef" not in response.body
        assert response.body.endswith(b"\n\ndata: 1\n\n")


@pytest.mark.parametrize("usage", ["asAsked", "always"])
async def test_comments_follow_a_byte_order_mark_that_came_alone(usage: str) -> None:
    """Where a byte order mark is all that a server has sent, it stays at the beginning and comments come behind it."""
    go = asyncio.Event()
    mark = b"\xef\xbb\xbf"
    event = b'data: {"choices":[{}]}\n\n'
    script = after(go, chunk(event) + END, first=STREAM_HEAD + chunk(mark))
    settings = {"gateway": {"usage": usage}}
    route = document(local(), keep_alive=SOON)
    async with serving(script) as near, gateway(route, local_port=near.port, settings=settings) as running:
        request = asyncio.create_task(post(running))
        await until(lambda: sent(running) >= 2)
        go.set()
        assert (await request).body == mark + COMMENT * int(sent(running)) + event


async def test_a_comment_without_an_empty_line_is_no_event() -> None:
    """Behind a comment without an empty line further comments come; behind the first line of an event there is none."""
    go = asyncio.Event()
    begun = chunk(b": connected\n")
    routes = [document(local(path_prefix=f"/{name}"), name=name, keep_alive=SOON) for name in ("comment", "event")]

    async def script(side: ServerSide) -> None:
        line = chunk(b"event: x\n") if b"/event/" in await side.request() else begun
        await side.send(STREAM_HEAD + line)
        await go.wait()
        await side.send(chunk(b"data: 1\n\n") + END)

    async with serving(script) as near, gateway(*routes, local_port=near.port) as running:
        asked = [asyncio.create_task(post(running, b"/default/%b/v1/x" % name)) for name in (b"comment", b"event")]
        await until(lambda: sent(running, model="comment") >= 4)
        go.set()
        commented, event = [await one for one in asked]
        assert commented.body == b": connected\n" + COMMENT * int(sent(running, model="comment")) + b"data: 1\n\n"
        assert event.body.endswith(b"event: x\ndata: 1\n\n")


async def test_nothing_is_inserted_between_events() -> None:
    """A stream whose first event has come gets no comment any more, however silent it is."""
    go, more = asyncio.Event(), asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        await go.wait()
        await side.send(chunk(b"data: 1\n\n"))
        await more.wait()
        await side.send(chunk(b"data: 2\n\n") + END)

    async with (
        serving(script) as near,
        gateway(document(local(), remote(), keep_alive=SOON), local_port=near.port, settings=LOOPBACK) as running,
    ):
        request = asyncio.create_task(post(running))
        await until(lambda: sent(running) >= 1)
        go.set()
        await asyncio.sleep(0.4)  # several times as long as it takes to a comment
        more.set()
        body = (await request).body
        assert body == COMMENT * int(sent(running)) + b"data: 1\n\ndata: 2\n\n"


LATE: Final[Mapping[str, tuple[bytes, Mapping[str, str], str]]] = {
    "a status": (
        reply(b'{"error": {"message": "slow down", "code": "rate_limited"}}', b"429 Too Many Requests"),
        {"code": "rate_limited", "type": "rate_limit_error"},
        "The model's backend responded with status 429: slow down",
    ),
    "the caller's fault": (
        reply(b'{"object": "error", "message": "too long", "code": 400}', b"400 Bad Request"),
        {"code": "400", "type": "invalid_request_error"},
        "The model's backend responded with status 400: too long",
    ),
    "no JSON": (
        reply(b"<html>", b"503 Service Unavailable"),
        {"code": "503", "type": "server_error"},
        "The model's backend responded with status 503.",
    ),
    "a long message": (
        reply(b'{"error": "%b"}' % (b"x" * 9000), b"500 Internal Server Error"),
        {"code": "500", "type": "server_error"},
        "The model's backend responded with status 500: " + "x" * 1000,
    ),
    "no stream": (
        reply(b'{"choices": []}'),
        {"code": "bad_response", "type": "server_error"},
        "The model's backend responded with status 200, but with no events that can be read.",
    ),
    "compressed": (
        PACKED_HEAD + chunk(gzip.compress(b"data: 1\n\n")) + END,
        {"code": "bad_response", "type": "server_error"},
        "The model's backend responded with status 200, but with no events that can be read.",
    ),
    "no response": (
        b"",
        {"code": "upstream_reset", "type": "server_error"},
        "The model's backend broke the connection.",
    ),
}  # fmt: skip
"""Responses of a backend that comes too late for them, and what the client gets of them."""


async def test_a_failure_after_a_comment_is_one_error_event() -> None:
    """After a comment a backend's error is one event, with its status and message, and the response is complete."""
    go = asyncio.Event()
    kinds = tuple(LATE)

    async def fails(side: ServerSide) -> None:
        late = LATE[kinds[_number(await side.request())]][0]
        await side.send(late)
        if not late:
            side.reset()
        await side.gone()

    routes = [
        document(local(), remote(path_prefix=f"/{number}"), name=f"late-{number}", keep_alive=SOON)
        for number in range(len(kinds))
    ]
    async with (
        serving(after(go, b"", closes=True)) as near,
        serving(fails) as far,
        gateway(*routes, local_port=near.port, remote_port=far.port, settings=LOOPBACK) as running,
    ):

        async def ask(number: int, version: bytes) -> tuple[int, bytes, Client, Response]:
            client = await running.client()
            target = b"/default/late-%d/v1/chat/completions" % number
            fields = (b"Content-Type: application/json", b"Content-Length: %d" % len(BODY))
            await client.send(message(*fields, line=b"POST %b HTTP/%b" % (target, version), body=BODY))
            return number, version, client, await client.response(b"POST")

        asked = [(number, b"1.1") for number in range(len(kinds))] + [(0, b"1.0")]
        tasks = [asyncio.create_task(ask(number, version)) for number, version in asked]
        for number in range(len(kinds)):
            await until(partial(_has_comments, running, f"late-{number}", 4 if number == 0 else 2))
        go.set()
        for number, version, client, response in [await task for task in tasks]:
            late, error, text = LATE[kinds[number]]
            assert (response.status, response.complete) == (200, True)
            assert response.body.startswith(COMMENT)
            ((event, data),) = events(response.body)
            found = orjson.loads(data)["error"]
            assert event == "message"
            assert {key: found[key] for key in error} == error
            assert found["message"] == text
            assert found["request_id"].encode() == response.value(b"x-request-id")
            logged = await _logged(running, found["request_id"])
            assert (logged["status"], logged["code"]) == (200, None)
            assert logged["broken"] == (_status(late) if late else error["code"])
            if version == b"1.1":  # an orderly end: the connection takes another request
                await client.send(message(line=b"GET /health HTTP/1.1"))
                assert (await client.response()).status == 200


def _number(request: bytes) -> int:
    """Return the number that the path of a request begins with."""
    return int(request.split(b"/", 2)[1])


def _has_comments(running: Running, model: str, number: int) -> bool:
    """Return whether clients got so many comments while the local backend of a model was silent."""
    return sent(running, model=model) >= number


def _status(response: bytes) -> str:
    return response.split(b" ")[1].decode()


async def _logged(running: Running, request_id: str) -> Mapping[str, Any]:
    """Return the line of the access log about a request, when it is written."""
    await until(lambda: any(one["request_id"] == request_id for one in running.lines()))
    return next(one for one in running.lines() if one["request_id"] == request_id)


@pytest.mark.parametrize("target", [MESSAGES, b"/v1/messages"])
async def test_an_error_event_has_the_form_of_anthropic_on_its_paths(target: bytes) -> None:
    """On paths of Anthropic's API an error after a comment is an event of the name `error` in its form."""
    go = asyncio.Event()
    late = reply(b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}', b"529 Overloaded")
    async with (
        serving(after(go, b"", closes=True)) as near,
        serving(after(go, b"", first=late)) as far,
        gateway(
            document(local(), remote(), keep_alive=SOON),
            local_port=near.port, remote_port=far.port, settings=LOOPBACK,
        ) as running,
    ):  # fmt: skip
        request = asyncio.create_task(post(running, target))
        await until(lambda: sent(running) >= 1)
        go.set()
        response = await request
        ((event, data),) = events(response.body)
        assert (event, response.complete) == ("error", True)
        found = orjson.loads(data)
        assert (found["type"], found["error"]["type"]) == ("error", "overloaded_error")
        assert found["error"]["message"] == "The model's backend responded with status 529: Overloaded"
        assert found["error"]["details"] == {"error_code": "529"}


@pytest.mark.parametrize("kind", ["GET", "POST"])
async def test_a_stream_that_is_relayed_from_the_head_on_gets_comments_between_its_own(kind: str) -> None:
    """A stream that goes nowhere else gets comments too, none within an event, and none after the first one."""
    steps = [asyncio.Event() for _ in range(4)]

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        await steps[0].wait()
        await side.send(chunk(b": own\n\n"))
        await steps[1].wait()
        await side.send(chunk(b"id: 1\nda"))
        await steps[2].wait()
        await side.send(chunk(b"ta: 1\n\n"))
        await steps[3].wait()
        await side.send(END)

    async with serving(script) as near, gateway(document(keep_alive=SOON), local_port=near.port) as running:
        client = await running.client()
        body = BODY if kind == "POST" else b""
        length = (b"Content-Length: %d" % len(body),) if body else ()
        await client.send(message(*length, line=b"%b %b HTTP/1.1" % (kind.encode(), CHAT), body=body))
        received = b""

        async def receive(what: bytes) -> None:
            nonlocal received
            while what not in received:
                received += await client.some()

        await receive(chunk(COMMENT) * 2)
        steps[0].set()
        await receive(chunk(b": own\n\n") + chunk(COMMENT))
        steps[1].set()
        await receive(chunk(b"id: 1\nda"))
        count = sent(running)
        await asyncio.sleep(0.3)
        assert sent(running) == count
        steps[2].set()
        await receive(chunk(b"ta: 1\n\n"))
        await asyncio.sleep(0.3)
        assert sent(running) == count
        steps[3].set()
        await receive(chunk(b"ta: 1\n\n") + END)
        assert received.count(COMMENT) == count
        assert received.endswith(chunk(b"id: 1\nda") + chunk(b"ta: 1\n\n") + END)


async def test_a_stream_with_comments_of_its_own_gets_no_others() -> None:
    """The silence begins anew with each comment that the model server sends itself."""
    over = asyncio.Event()

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(STREAM_HEAD)
        for _ in range(60):
            await side.send(chunk(b": ping\n\n"))
            await asyncio.sleep(0.01)
        over.set()
        await side.send(chunk(b"data: 1\n\n") + END)

    async with (
        serving(script) as near,
        gateway(document(keep_alive=KeepAlive(after=20)), local_port=near.port) as running,
    ):
        response = await post(running)
        assert over.is_set()
        assert (response.complete, response.body.count(b": ping"), COMMENT in response.body) == (True, 60, False)


OFF: Final[Mapping[str, tuple[bytes, bytes, KeepAlive]]] = {
    "turned off": (STREAM_HEAD, b"POST", KeepAlive(after=0, before_head=True)),
    "compressed": (PACKED_HEAD, b"POST", SOON),
    "known length": (STREAM_HEAD.replace(b"transfer-encoding: chunked", b"content-length: 9"), b"POST", SOON),
    "no events": (STREAM_HEAD.replace(b"text/event-stream", b"application/x-ndjson"), b"POST", SOON),
    "PUT": (STREAM_HEAD.replace(b"text/event-stream", b"application/json"), b"PUT", EARLY),
}


async def test_nothing_is_inserted_where_it_is_not_wanted_or_not_possible() -> None:
    """A response that is no event stream, has a length or a content coding gets no comment, and none when it is off."""
    go = asyncio.Event()
    kinds = tuple(OFF)
    body = b"data: 1\n\n"

    async def script(side: ServerSide) -> None:
        kind = kinds[_number(await side.request())]
        await side.send(OFF[kind][0])
        await go.wait()
        await side.send(body if kind == "known length" else chunk(body) + END)

    routes = [
        document(local(path_prefix=f"/{number}"), *others, name=f"off-{number}-{len(others)}", keep_alive=OFF[kind][2])
        for number, kind in enumerate(kinds)
        for others in ((), (remote(),))
    ]
    async with serving(script) as near, gateway(*routes, local_port=near.port, settings=LOOPBACK) as running:

        async def ask(name: str) -> tuple[str, Response]:
            client = await running.client()
            fields = (b"Content-Type: application/json", b"Content-Length: %d" % len(BODY))
            target = b"/default/%b/v1/chat/completions" % name.encode()
            method = OFF[kinds[int(name.split("-")[1])]][1]
            await client.send(message(*fields, line=b"%b %b HTTP/1.1" % (method, target), body=BODY))
            return name, await client.response()

        tasks = [asyncio.create_task(ask(route.name)) for route in routes]
        await until(lambda: len(near.sides) == len(routes) and all(side.received for side in near.sides))
        await asyncio.sleep(0.4)
        assert [route.name for route in routes if sent(running, model=route.name)] == []
        go.set()
        for name, response in [await task for task in tasks]:
            assert (response.status, response.body, response.complete) == (200, body, True), name


async def test_the_response_to_head_has_no_comments() -> None:
    """The response to HEAD of a stream is its head alone."""
    async with (
        serving(after(asyncio.Event(), b"")) as near,
        gateway(document(keep_alive=EARLY), local_port=near.port) as running,
    ):
        client = await running.client()
        await client.send(message(line=b"HEAD %b HTTP/1.1" % CHAT))
        assert (await client.response(b"HEAD")).complete
        await client.send(message(line=b"GET /health HTTP/1.1"))
        assert (await client.response()).status == 200
        assert sent(running) == 0


async def test_the_own_setting_counts_where_the_route_says_nothing() -> None:
    """`gateway.keepAlive` counts for each field that the route document does not have."""
    go = asyncio.Event()
    section = {**LOOPBACK["gateway"], "keepAlive": {"afterSeconds": 0.05, "beforeHead": True}}
    async with (
        serving(after(go, STREAM_HEAD + chunk(b"data: 1\n\n") + END, first=b"")) as near,
        gateway(
            document(), document(name="late", keep_alive=KeepAlive(before_head=False)),
            document(name="off", keep_alive=KeepAlive(after=0)),
            local_port=near.port, settings={"gateway": section},
        ) as running,
    ):  # fmt: skip
        tasks = [
            asyncio.create_task(post(running, b"/default/%b/v1/responses" % name))
            for name in (b"demo", b"late", b"off")
        ]
        await until(lambda: sent(running) >= 3)
        go.set()
        first, *others = [await task for task in tasks]
        assert first.body.startswith(b": keep-alive, backend local, reason Local\n\n" + COMMENT * 2)
        assert [one.body for one in others] == [b"data: 1\n\n"] * 2


async def test_a_client_that_leaves_is_noticed_and_costs_nothing_more() -> None:
    """A client that leaves after comments ends the work, and the log says so."""
    async with (
        serving(after(asyncio.Event(), b"")) as near,
        gateway(document(local(), remote(), keep_alive=SOON), local_port=near.port, settings=LOOPBACK) as running,
    ):
        request = asyncio.create_task(post(running))
        await until(lambda: sent(running) >= 1)
        request.cancel()
        for client in running._clients:
            client.reset()
        logged = await line(running)
        assert (logged["status"], logged["broken"]) == (200, "client_gone")
        count = sent(running)
        await asyncio.sleep(0.2)
        assert sent(running) == count
        await until(lambda: running.upstream.stats.open == 0)


async def test_a_gateway_that_stops_ends_the_stream_in_order() -> None:
    """A stream of comments ends with an error event and its end when the drain time of the gateway is over."""
    async with (
        serving(after(asyncio.Event(), b"")) as near,
        gateway(document(local(), remote(), keep_alive=SOON), local_port=near.port, settings=LOOPBACK) as running,
    ):
        request = asyncio.create_task(post(running))
        await until(lambda: sent(running) >= 1)
        running.server.interrupt()
        response = await request
        assert response.complete
        assert orjson.loads(events(response.body)[0][1])["error"]["code"] == "gateway_stopping"


# Before the head


async def test_a_queue_is_survived_and_the_first_comment_names_backend_and_reason() -> None:
    """With beforeHead a request in the queue gets comments, the first of which names the backend and the reason."""
    go = asyncio.Event()
    route = document(local(in_flight=1), keep_alive=EARLY, queue=Queue(size=5, wait=600))
    async with (
        serving(after(go, chunk(b"data: 1\n\n") + END)) as near,
        gateway(route, local_port=near.port) as running,
    ):
        tasks = [asyncio.create_task(post(running))]
        await until(lambda: requests(near) == 1)
        tasks.append(asyncio.create_task(post(running)))
        await until(lambda: sent(running) >= 8)
        assert requests(near) == 1
        go.set()
        for response in [await task for task in tasks]:
            assert (response.status, response.complete) == (200, True)
            assert (response.value(b"content-type") or b"").startswith(b"text/event-stream")
            first, _, rest = response.body.partition(b"\n\n")
            assert first in (b": keep-alive, backend local, reason Local", b": keep-alive")
            assert rest.replace(COMMENT, b"") == b"data: 1\n\n"
        assert response.body.startswith(b": keep-alive, backend local")
        assert response.value(b"cache-control") == b"no-cache"
        assert response.value(b"x-beamlit-backend") is None


async def test_the_end_of_a_queue_is_an_error_event() -> None:
    """With beforeHead a request for which there is no room in time ends with an error event of that code."""
    route = document(local(in_flight=1), keep_alive=EARLY, queue=Queue(size=5, wait=0.6))
    async with (
        serving(after(asyncio.Event(), b"")) as near,
        gateway(route, local_port=near.port) as running,
    ):
        first = asyncio.create_task(post(running))
        await until(lambda: requests(near) == 1)
        response = await post(running)
        first.cancel()
        assert (response.status, response.complete) == (200, True)
        assert orjson.loads(events(response.body)[0][1])["error"]["code"] == "queue_timeout"


async def test_failover_before_the_head_is_survived() -> None:
    """With beforeHead a server that dies before its head is replaced by another, which a comment names."""
    go = asyncio.Event()
    async with (
        serving(after(go, b"", first=b"", closes=True)) as near,
        serving(after(go, chunk(b"data: 1\n\n") + END)) as far,
        gateway(
            document(local(), remote(), keep_alive=EARLY),
            local_port=near.port, remote_port=far.port, settings=LOOPBACK,
        ) as running,
    ):  # fmt: skip
        request = asyncio.create_task(post(running, CHAT, BODY, b"Accept-Encoding: gzip, br"))
        await until(lambda: sent(running) >= 2)
        go.set()
        response = await request
        assert response.complete
        names = [one for one in response.body.split(b"\n\n") if b"backend" in one]
        assert names == [
            b": keep-alive, backend local, reason Local",
            b": keep-alive, backend remote, reason Failover",
        ]
        assert events(response.body) == [("message", "1")]
        for server in (near, far):
            assert b"accept-encoding: identity\r\n" in server.sides[0].received
            assert b"gzip" not in server.sides[0].received


async def test_a_stream_with_a_length_follows_comments() -> None:
    """An event stream whose length is known goes on behind comments, in chunks."""
    go = asyncio.Event()
    whole = reply(b"data: 1\n\n", b"200 OK", b"content-type: text/event-stream")
    async with (
        serving(after(go, whole, first=b"")) as near,
        gateway(document(keep_alive=EARLY), local_port=near.port) as running,
    ):
        request = asyncio.create_task(post(running))
        await until(lambda: sent(running) >= 1)
        go.set()
        response = await request
        assert (response.complete, events(response.body)) == (True, [("message", "1")])


ASKS_NOT: Final[tuple[tuple[bytes, tuple[bytes, ...]], ...]] = (
    (b'{"stream":false}', ()),
    (b'{"messages":[{"stream":true}]}', ()),
    (b'{"stream":true', ()),
    (b"", ()),
    (b'{"stream":false}', (b"Accept: text/event-stream, application/json",)),
    (b"nothing like gzip", (b"Content-Encoding: gzip",)),
)
"""Bodies and fields of requests whose clients may expect something else than events."""


async def test_who_does_not_ask_for_a_stream_gets_the_status() -> None:
    """With beforeHead a client that may expect something else than events gets the late response as it is."""
    go = asyncio.Event()
    async with (
        serving(after(go, reply(b"no", b"400 Bad Request"), first=b"")) as near,
        gateway(document(keep_alive=EARLY), local_port=near.port) as running,
    ):
        tasks = [asyncio.create_task(post(running, CHAT, body, *fields)) for body, fields in ASKS_NOT]
        await until(lambda: requests(near) == len(ASKS_NOT))
        await asyncio.sleep(0.4)
        go.set()
        for response in [await task for task in tasks]:
            assert (response.status, response.body, sent(running)) == (400, b"no", 0)


ASKS: Final[Mapping[str, tuple[bytes, bytes, tuple[bytes, ...]]]] = {
    "messages": (MESSAGES, BODY, ()),
    "completions": (b"/v1/completions?a=b", b'{"model":"demo","prompt":"x", "stream" : true}', ()),
    "accept": (b"/default/demo/anything", b"text", (b"Accept: text/event-stream",)),
    "compressed, by path": (CHAT, gzip.compress(BODY), (b"Content-Encoding: gzip",)),
    "compressed, by model": (b"/v1/responses", gzip.compress(BODY), (b"Content-Encoding: gzip",)),
}
"""Ways to ask for a stream: target, body and fields of a request."""


async def test_who_asks_for_a_stream_gets_comments_before_the_head() -> None:
    """With beforeHead all ways to ask for a stream count, also in a compressed body."""
    go = asyncio.Event()
    late = reply(b'{"detail":"no"}', b"400 Bad Request")
    async with (
        serving(after(go, late, first=b"")) as near,
        gateway(document(keep_alive=EARLY), local_port=near.port) as running,
    ):
        for way, (target, body, fields) in ASKS.items():
            go.clear()
            count = sent(running)
            request = asyncio.create_task(post(running, target, body, *fields))
            await until(lambda count=count: sent(running) > count)  # type: ignore[misc]
            go.set()
            response = await request
            assert (response.status, response.complete) == (200, True), way
            assert "responded with status 400: no" in events(response.body)[0][1], way
            shown = [response.value(b"x-request-id")] if target == MESSAGES else []
            assert response.values(b"request-id") == shown, way


async def test_an_upload_is_no_silence() -> None:
    """With beforeHead no comment comes while the request is still being uploaded."""
    go = asyncio.Event()
    async with (
        serving(after(go, STREAM_HEAD + chunk(b"data: 1\n\n") + END, first=b"")) as near,
        gateway(document(keep_alive=EARLY), local_port=near.port) as running,
    ):
        client = await running.client()
        fields = (b"Content-Type: application/json", b"Content-Length: %d" % len(BODY))
        await client.send(message(*fields, line=b"POST %b HTTP/1.1" % CHAT, body=BODY[:7]))
        await until(lambda: len(near.sides) == 1)
        await asyncio.sleep(0.3)
        assert sent(running) == 0
        await client.send(BODY[7:])
        await until(lambda: sent(running) >= 1)
        go.set()
        response = await client.response(b"POST")
        assert (response.complete, events(response.body)) == (True, [("message", "1")])


async def test_websites_may_read_comments_and_errors() -> None:
    """The head that the gateway sends by itself has the fields for websites."""
    go = asyncio.Event()
    section = {"cors": {"origins": ["https://chat.example"]}}
    async with (
        serving(after(go, reply(b"no", b"503 Unavailable"), first=b"")) as near,
        gateway(
            document(keep_alive=EARLY, retry=Retry(on=())), local_port=near.port, settings={"gateway": section}
        ) as running,
    ):  # fmt: skip
        request = asyncio.create_task(post(running, CHAT, BODY, b"Origin: https://chat.example"))
        await until(lambda: sent(running) >= 1)
        go.set()
        response = await request
        assert response.value(b"access-control-allow-origin") == b"https://chat.example"
        assert "status 503" in events(response.body)[0][1]


async def test_a_stream_that_breaks_after_its_first_event_is_cut() -> None:
    """A stream that breaks off after comments and an event ends with an error event and without its end, as any."""
    go = asyncio.Event()
    broken = STREAM_HEAD + chunk(b"data: 1\n\n") + chunk(b"data: 2")
    async with (
        serving(after(go, broken, first=b"", closes=True)) as near,
        gateway(document(keep_alive=EARLY), local_port=near.port) as running,
    ):
        request = asyncio.create_task(post(running))
        await until(lambda: sent(running) >= 1)
        go.set()
        response = await request
        assert (response.status, response.complete) == (200, False)
        first, (event, data) = events(response.body)
        assert (first, event) == (("message", "1"), "error")
        assert data.endswith("}")
        logged = await line(running)
        assert (logged["broken"], logged.get("attempts")) == ("upstream_reset", None)
