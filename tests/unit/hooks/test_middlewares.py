"""Middlewares of the webhooks: what each of them refuses, and that it does so before the body is read."""

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Gauge
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hooks.authentication import Bearer
from hooks.errors import HookError
from hooks.middlewares import (
    COLLECTED_BYTES,
    Authentication,
    BodyBytes,
    BodyDeadline,
    BodyLimit,
    BodyMissing,
    ErrorResponses,
    InFlight,
    InFlightLimit,
    JsonOnly,
    RequestTooLarge,
    TokenMissing,
    TooManyRequests,
    UnsupportedMediaType,
)

START: Message = {"type": "http.response.start", "status": 200, "headers": []}


async def respond(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the whole body, and respond."""
    while (await receive()).get("more_body", False):
        pass
    await send(START)
    await send({"type": "http.response.body", "body": b"{}"})


async def call(app: ASGIApp, *messages: Message, headers: dict[str, str] | None = None) -> list[Message]:
    """Send a request to an app, and return the messages of its response. The body is read from `messages`."""
    pending, sent = list(messages), []

    async def receive() -> Message:
        return pending.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    encoded = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
    await app({"type": "http", "headers": encoded}, receive, send)
    return sent


def gauge() -> Gauge:
    """Return a gauge of requests in flight."""
    return Gauge("in_flight", "Requests in flight", registry=None)


@pytest.mark.parametrize(
    ("name", "headers", "refusal"),
    [
        ("token", {}, TokenMissing),
        ("type", {"content-type": "text/plain"}, UnsupportedMediaType),
        ("size", {"content-length": "11"}, RequestTooLarge),
        ("in flight", {}, TooManyRequests),
    ],
)
async def test_a_request_is_refused_before_its_body_is_read(
    name: str, headers: dict[str, str], refusal: type[HookError], tmp_path: Path
) -> None:
    """A refusal by header fields or by the requests in flight reads nothing of the body."""
    (tmp_path / "token").write_text("canary")
    apps: dict[str, ASGIApp] = {
        "token": Authentication(respond, bearer=Bearer(tmp_path / "token")),
        "type": JsonOnly(respond),
        "size": BodyLimit(respond, limit=10, bodies=BodyBytes()),
        "in flight": InFlightLimit(respond, in_flight=InFlight(gauge()), limit=0),
    }
    with pytest.raises(refusal):
        await call(apps[name], headers=headers)


@pytest.mark.parametrize(
    ("length", "fits"),
    [("10", True), ("11", False), ("9" * 5000, False), ("0" * 5000 + "10", True), ("0" * 5000 + "11", False)],
    ids=["the limit", "above it", "5,000 digits", "zeros before the limit", "zeros before more"],
)
async def test_a_declared_length_has_any_number_of_digits(length: str, fits: bool) -> None:
    """A Content-Length above the limit is refused, however many digits it has."""
    app, body = BodyLimit(respond, limit=10, bodies=BodyBytes()), {"type": "http.request", "body": b" " * 10}
    if fits:
        assert (await call(app, body, headers={"content-length": length}))[0] == START
    else:
        with pytest.raises(RequestTooLarge):
            await call(app, headers={"content-length": length})


@pytest.mark.parametrize(("sizes", "fits"), [((10,), True), ((5, 5), True), ((11,), False), ((5, 6), False)])
async def test_a_body_of_undeclared_length_is_bounded(sizes: tuple[int, ...], fits: bool) -> None:
    """A body that does not declare its length is refused as soon as it is too large."""
    messages = [{"type": "http.request", "body": b" " * size, "more_body": True} for size in sizes]
    end = {"type": "http.request", "body": b"", "more_body": False}
    app = BodyLimit(respond, limit=10, bodies=BodyBytes())
    if fits:
        assert (await call(app, *messages, end))[0] == START
    else:
        with pytest.raises(RequestTooLarge):
            await call(app, *messages)


@pytest.mark.parametrize(("size", "collected"), [(COLLECTED_BYTES + 1, True), (10, False)])
async def test_what_was_read_of_a_large_body_is_collected(size: int, collected: bool) -> None:
    """Parts of a large body that refer to each other are gone before the body's bytes make room for another one."""
    parts: list[weakref.ref[Part]] = []

    async def read(scope: Scope, receive: Receive, send: Send) -> None:
        await respond(scope, receive, send)
        part = Part()
        part.other = part
        parts.append(weakref.ref(part))

    app = BodyLimit(read, limit=2 * COLLECTED_BYTES, bodies=BodyBytes())
    gc.disable()
    try:
        await call(app, {"type": "http.request", "body": b" " * size})
        assert (parts[0]() is None) is collected
    finally:
        gc.enable()


class Part:
    """Part of a body that refers to a part."""

    other: "Part"


async def test_a_client_that_closes_its_connection() -> None:
    """A body that ends with its connection is missing."""
    with pytest.raises(BodyMissing):
        await call(BodyDeadline(respond), {"type": "http.disconnect"})


async def test_a_slow_reader_is_not_in_flight() -> None:
    """A request is no longer in flight when its response is sent, however slowly the client reads it."""
    in_flight = InFlight(gauge())
    counts: list[int] = []

    async def record(scope: Scope, receive: Receive, send: Send) -> None:
        counts.append(in_flight.count)
        await respond(scope, receive, send)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def send(_: Message) -> None:
        counts.append(in_flight.count)

    await InFlightLimit(record, in_flight=in_flight, limit=1)({"type": "http", "headers": []}, receive, send)
    assert counts == [1, 0, 0]
    assert in_flight.count == 0


async def test_an_error_leaves_nothing_in_flight() -> None:
    """A request that raises is no longer in flight, and the exception is the response."""
    in_flight = InFlight(gauge())

    async def fail(*_: Any) -> None:
        raise TooManyRequests("too many")

    app = ErrorResponses(InFlightLimit(fail, in_flight=in_flight, limit=1), hook="sync")
    start, body = await call(app)
    headers = dict(start["headers"])
    assert (start["status"], body["body"]) == (429, b'{"error":"too many"}')
    assert headers[b"retry-after"] in (b"1", b"2", b"3")
    assert in_flight.count == 0
