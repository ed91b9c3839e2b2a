"""Mutated requests and responses: what the gateway forwards is read alike by every parser, and it refuses the rest.

`FUZZ_SECONDS` says how long each of the two tests goes on (5), `FUZZ_SEED` where it begins. Every input follows from
the seed and its number, which a failure prints; `FUZZ_ONLY` runs one number alone.
"""

import asyncio
import os
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import h11
import orjson
import pytest
import structlog

from gateway import errors, requested_model
from gateway.api.v1alpha1 import Timeouts
from gateway.http import messages
from gateway.model_names import body as bodies
from gateway.model_names import media_type, scanner
from gateway.routes import table
from tests import deadlines
from tests.integration.gateway.mutations import Parsed, Unreadable, by_h11, by_httptools, mutated, pieces
from tests.integration.gateway.test_framing import cases
from tests.integration.gateway.test_upstream_hostile import BAD_HEADS, CUT_BODIES
from tests.integration.gateway.wire import Client, Running, document, gateway, message, reply
from tests.integration.servers import ServerSide, serving

pytestmark = pytest.mark.long

SECONDS = float(os.environ.get("FUZZ_SECONDS", "5"))
SEED = os.environ.get("FUZZ_SEED", "1")
ONLY = os.environ.get("FUZZ_ONLY")
WORKERS = 8
LEAST = 25
"""Smallest number of inputs, however long they take."""
MARKER = b"q7z9marker"
"""Text in every seed, which no error repeats."""
OF_CLIENTS = {"headSeconds": 0.4, "bodySeconds": 0.4, "keepAliveSeconds": 0.4}
OF_BACKENDS = {"idleSeconds": 1.5, "firstByteSeconds": 1.5}
"""Timeouts in seconds for the side that is mutated; the other side gets as long as a test waits."""
PATIENT = document(name="patient", timeouts=Timeouts(first_byte=deadlines.SECONDS, idle=deadlines.SECONDS))
"""Route to the same backend for canaries behind a mutated response, which have as long as a test waits."""

OFFER = (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABk")
"""Fields of a client that offers HTTP/2, which the gateway ignores."""
REQUESTS = [
    message(b"X-Mark: " + MARKER, b"Content-Length: 5", body=b"hello"),
    message(
        b"X-Mark: " + MARKER, b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nX-T: 1\r\n\r\n"
    ),
    message(b"X-Mark: " + MARKER, line=b"GET /default/demo/x?q=" + MARKER + b" HTTP/1.1"),
    message(b"Connection: close, X-Mark", b"X-Mark: " + MARKER, line=b"DELETE /default/demo/x HTTP/1.1"),
    message(
        b"Content-Type: application/json", b"Content-Length: 16", body=b'{"model":"demo"}', line=b"POST /v1/x HTTP/1.1"
    ),
    b"GET http://gateway/default/demo/x HTTP/1.1\r\nHost: gateway\r\nX-Mark: " + MARKER + b"\r\n\r\n",
    message(*OFFER, b"X-Mark: " + MARKER, b"Content-Length: 5", body=b"hello"),
    message(*OFFER, b"X-Mark: " + MARKER, b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\nUpgrade: h2c\r\n\r\n"),
    message(
        b"Connection: Upgrade",
        b"Upgrade: websocket",
        b"Sec-WebSocket-Version: 13",
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        line=b"GET /default/demo/x HTTP/1.1",
    ),
] * 8 + [sent for _, sent, _ in cases() if len(sent) < 1000]
RESPONSES = [
    reply(b"hello " + MARKER, b"200 OK", b"x-mark: 1"),
    reply(b"data: 1\n\ndata: [DONE]\n\n", b"200 OK", b"content-type: text/event-stream"),
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\nx-t: 1\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nuntil the end",
    b"HTTP/1.1 204 No Content\r\nx-mark: 1\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\netag: \"1\"\r\ncontent-length: 5\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok",
    b"HTTP/1.0 200 OK\r\n\r\nold",
    b"HTTP/1.1 101 Switching\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nraw",
    *(data for data in BAD_HEADS.values() if len(data) < 1000),
    *(data for data, _ in CUT_BODIES.values()),
]  # fmt: skip

_ID = "0" * 8


def _errors(kind: type[errors.GatewayError]) -> Iterator[bytes]:
    yield errors.body(kind(), _ID)
    for below in kind.__subclasses__():
        yield from _errors(below)


def _sentences(*modules: ModuleType) -> list[str]:
    """Return the texts among the constants of modules."""
    constants = [one for module in modules for one in vars(module).items()]
    return [value for name, value in constants if name.isupper() and isinstance(value, str)]


_SENTENCES = _sentences(scanner, media_type, bodies, requested_model)
"""Sentences about names of models that are not clear."""
_REFUSALS = _sentences(messages, table)
"""Sentences about requests that are no valid HTTP, or have an ambiguous path."""
KNOWN = {
    *_errors(errors.GatewayError),
    *(
        errors.body(error, _ID)
        for error in (
            *(errors.ModelMissing(sentence) for sentence in _SENTENCES),
            *(errors.MalformedRequest(sentence) for sentence in _REFUSALS),
        )
    ),
}
"""Body of every error that a client can cause here, with another id of the request."""


def check_error(response: Parsed) -> bool:
    """Return whether a response is an error of the gateway's own, and assert that such an error is a fixed text."""
    if (b"content-type", b"application/json") not in response.fields or not response.body.startswith(b'{"error":'):
        return False
    content = orjson.loads(response.body)
    assert content["error"]["code"] != "internal_error", "a fault of the gateway"
    content["error"]["request_id"] = _ID
    assert orjson.dumps(content) in KNOWN, response.body
    assert len(response.body) <= 400
    assert MARKER not in response.body
    return True


def read_alike(data: bytes, **how: Any) -> list[Parsed]:
    """Return the messages in bytes that the gateway wrote, and assert that two parsers read them alike."""
    one = by_h11(data, **how)
    other = by_httptools(data, responses="responses_to" in how)
    # A message that ends with the connection is complete for h11 alone, which alone gets that end.
    assert [(m.line, m.fields, m.body) for m in one] == [(m.line, m.fields, m.body) for m in other]
    assert all(m.complete or not theirs.complete for m, theirs in zip(one, other, strict=True))
    return one


class Recorder:
    """Backend that keeps the bytes of each connection, and responds to what h11 takes for a request."""

    def __init__(self) -> None:
        self.connections: list[bytearray] = []
        self.response = b""
        """Response to a request that is no canary; empty for a good one."""

    async def script(self, side: ServerSide) -> None:
        """Serve one request on one connection."""
        raw = bytearray()
        self.connections.append(raw)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
        body = b""
        request: h11.Request | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                data = await side.reader.read(65536)
                raw += data
                connection.receive_data(data)
                if not data:
                    return
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            else:
                break
        assert isinstance(event, h11.EndOfMessage)
        assert request is not None
        if self.response and not request.target.startswith(b"/canary"):
            await side.send(self.response)
            return
        await side.send(reply(b"%b %b " % (request.method, request.target) + body, b"200 OK", b"connection: close"))
        raw += await side.reader.read(1)  # a second message would be one too many


async def sent_to(client: Client, *parts: bytes) -> None:
    """Send parts until the gateway closes the connection, which it does when it has refused the beginning."""
    for part in parts:
        if client.writer.transport.is_closing():
            return
        await client.send(part)


async def received(client: Client, until: bytes) -> bytes:
    """Return everything up to `until`, or to the end of the connection."""
    data = b""
    async with asyncio.timeout(deadlines.SECONDS):
        try:
            while until not in data:
                more = await client.reader.read(65536)
                if not more:
                    break
                data += more
        except ConnectionError:
            pass
    return data


async def one_request(running: Running, recorder: Recorder, dice: random.Random, number: int) -> None:
    """Send one mutated request and a canary behind it, and check what arrived at the client and at the backend."""
    recorder.connections.clear()
    sent = mutated(dice, REQUESTS)
    canary = b"/canary-%d" % number
    client = await running.client()
    await sent_to(client, *pieces(dice, sent), b"GET /default/demo%b HTTP/1.1\r\nHost: gateway\r\n\r\n" % canary)
    last = b"GET %b " % canary
    data = await received(client, last)
    closed = last not in data
    client.reset()
    responses = read_alike(data, responses_to=[b"GET"] * 20, ended=closed) if data else []
    good = [
        response
        for response in responses
        if response.complete and not check_error(response) and response.line == (b"200",)
    ]
    forwarded = []
    for raw in recorder.connections:
        messages = read_alike(bytes(raw))
        assert len(messages) <= 1, "two requests on a connection that takes one"
        forwarded += [one for one in messages if one.complete]
    # Every response is that to its own request, and nothing else was executed.
    listed = [response for response in good if response.body.startswith(b'{"object":')]
    echoed = [response.body for response in good if response not in listed]
    executed = [b"%b %b %b" % (*one.line, one.body) for one in forwarded]
    assert echoed == executed[: len(echoed)], (echoed, executed)
    assert len(executed) - len(echoed) <= closed, "executed without a response"
    if not closed:
        assert echoed[-1] == last
    # Where a lenient reader takes the same bytes for requests too, it sees the same ones.
    try:
        meant = by_h11(sent + b"GET /default/demo%b HTTP/1.1\r\nHost: gateway\r\n\r\n" % canary)
    except Unreadable:
        return
    bodies = [one.body for one in meant if one.complete]
    ours = [one.body for one in forwarded]
    at = 0
    for body in ours:  # requests that the gateway itself responded to, with an error, were not forwarded
        assert body in bodies[at:], (ours, bodies)
        at += bodies[at:].index(body) + 1


async def one_response(running: Running, recorder: Recorder, dice: random.Random, number: int) -> None:
    """Let the backend send one mutated response, and check it and the canary behind it on the client's connection."""
    recorder.response = mutated(dice, RESPONSES)
    method = dice.choice((b"GET", b"GET", b"HEAD"))
    canary = b"/canary-%d" % number
    client = await running.client()
    await sent_to(client, b"%b /default/demo/x HTTP/1.1\r\nHost: gateway\r\n\r\n" % method)
    await sent_to(client, b"GET /default/patient%b HTTP/1.1\r\nHost: gateway\r\n\r\n" % canary)
    last = b"GET %b " % canary
    data = await received(client, last)
    closed = last not in data
    client.reset()
    try:
        responses = by_h11(data, responses_to=[method, b"GET"], ended=closed) if data else []
    except Unreadable as exc:
        raise AssertionError(data) from exc
    if method == b"GET":
        read_alike(data, responses_to=[method, b"GET"], ended=closed)
    for response in responses:
        if method == b"GET" or response is not responses[0]:
            check_error(response)
    if not closed:
        assert len(responses) == 2, data
        assert responses[1].body == last
        assert responses[0].complete
    if not responses or not responses[0].complete or int(responses[0].line[0]) >= 502:
        return
    # A complete response is one that a client without the gateway would have got as well.
    try:
        meant = by_h11(recorder.response, responses_to=[method, b"GET", b"GET"])
    except Unreadable:
        return
    if meant and meant[0].complete:
        assert (responses[0].line, responses[0].body) == (meant[0].line, meant[0].body)


@contextmanager
def faults() -> Iterator[list[Any]]:
    """Yield a list that has, at the end, the errors of the event loop and of the program's log."""
    found: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: found.append(context))
    with structlog.testing.capture_logs() as lines:
        yield found
    found += [line for line in lines if line["log_level"] in ("error", "critical") or "exc_info" in line]


async def fuzz(one: Callable[[Running, Recorder, random.Random, int], Awaitable[None]]) -> int:
    """Run inputs for `FUZZ_SECONDS`, and at least `LEAST` of them, and return how many there were."""
    mutated_times = OF_CLIENTS if one is one_request else OF_BACKENDS
    times = dict.fromkeys((*OF_CLIENTS, *OF_BACKENDS, "writeStallSeconds"), deadlines.SECONDS) | mutated_times
    settings = {"gateway": {"timeouts": times}}
    routes = (document(),) if one is one_request else (document(), PATIENT)
    numbers = iter([int(ONLY)] if ONLY else range(1 << 40))
    end = time.monotonic() + SECONDS
    done = 0

    async def work() -> None:
        nonlocal done
        recorder = Recorder()
        async with (
            serving(recorder.script) as server,
            gateway(*routes, local_port=server.port, settings=settings) as running,
        ):
            while (number := next(numbers, None)) is not None and (ONLY or done < LEAST or time.monotonic() < end):
                try:
                    await one(running, recorder, random.Random(f"{SEED}-{number}"), number)
                except Exception as exc:
                    exc.add_note(f"FUZZ_SEED={SEED} FUZZ_ONLY={number}")
                    raise
                done += 1

    with faults() as found:
        async with asyncio.TaskGroup() as group:
            for _ in range(WORKERS):
                group.create_task(work())
    assert found == []
    return done


@pytest.mark.parametrize("one", [one_request, one_response], ids=["requests", "responses"])
async def test_p1_p19_mutations(one: Callable[[Running, Recorder, random.Random, int], Awaitable[None]]) -> None:
    """P1, P19: a mutated message is forwarded as the one message that every parser reads, or refused with a fixed text
    or the end of the connection, and never disturbs the next request."""
    done = await fuzz(one)
    print(f"{done} inputs, FUZZ_SEED={SEED}")
    assert ONLY or done >= LEAST
