"""ASGI middlewares of the webhooks, each with one job. Those that refuse a request do so before its body is read.

A refusal is an exception, which `ErrorResponses` turns into a response. https://asgi.readthedocs.io/en/latest/specs/www.html
"""

import asyncio
import gc
import random
import time
from collections.abc import Mapping
from typing import Any, Final

import orjson
import structlog
from prometheus_client import Gauge
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from hooks.authentication import Bearer
from hooks.errors import HookError
from hooks.telemetry import Metrics

log = structlog.get_logger(__name__)

JSON: Final = "application/json"
"""Media type of requests and responses."""
_ACCEPTED: Final = frozenset({"", JSON, "application/x-www-form-urlencoded"})
"""Media types that are read, as JSON all of them: Metacontroller's, and what curl sends by default."""
COLLECTED_BYTES: Final = 1 << 20
"""Bytes of a body from which what was read of it is collected before the next one is read.

Parts of it refer to each other. From Python 3.12 on the collector does not run while JSON is read, so that two bodies
of the largest size would be in memory where there is room for one."""
BODY_SECONDS: Final = 10.0
"""Seconds in which a whole body must arrive. Metacontroller waits no longer for a response."""
_RETRY_SECONDS: Final = (1, 2, 3)
"""Values of Retry-After, of which one is chosen at random so that not all requests come back at the same time.
Metacontroller reads whole seconds only, from 1 on."""


class RequestTooLarge(HookError):
    """The body is larger than `hooks.bodyBytes`."""

    status = 413


class UnsupportedMediaType(HookError):
    """The request does not declare its body as JSON."""

    status = 415


class BodyMissing(HookError):
    """The client closed the connection, or stopped sending, before the body was whole."""

    status = 408


class TokenMissing(HookError):
    """The request does not carry the bearer token."""

    status = 401


class TooManyRequests(HookError):
    """More than `hooks.inFlight` requests are in flight."""

    status = 429

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.headers = {"retry-after": str(random.choice(_RETRY_SECONDS))}  # noqa: S311 - spreads load


class RequestCounter:
    """Counts the requests of a hook by the status of their responses."""

    def __init__(self, app: ASGIApp, *, hook: str, metrics: Metrics) -> None:
        self._app, self._hook, self._metrics = app, hook, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def count(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(self._hook, str(message["status"])).inc()
            await send(message)

        await self._app(scope, receive, count)


class ErrorResponses:
    """Turns an exception into a response with its status, and logs it.

    The endpoint sends its response in one piece as the last thing it does, so none has begun when there is an
    exception.
    """

    def __init__(self, app: ASGIApp, *, hook: str) -> None:
        self._app, self._hook = app, hook

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await self._app(scope, receive, send)
            return
        except HookError as exc:
            log.warning("hook_refused", hook=self._hook, status=exc.status, error=str(exc), **_log_fields(scope))
            response = _error(exc.status, str(exc), exc.headers)
        except Exception:
            log.exception("hook_failed", hook=self._hook, **_log_fields(scope))
            response = _error(500, f"{self._hook} failed; the log of hooks says why")
        await response(scope, receive, send)


class Authentication:
    """Refuses requests that do not carry the bearer token."""

    def __init__(self, app: ASGIApp, *, bearer: Bearer) -> None:
        self._app, self._bearer = app, bearer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._bearer.permits(Headers(scope=scope).get("authorization", "")):
            raise TokenMissing("the request does not carry the token of hooks")
        await self._app(scope, receive, send)


class InFlight:
    """Number of requests in flight, over all hooks."""

    def __init__(self, gauge: Gauge) -> None:
        self.count = 0
        self._gauge = gauge

    def add(self, change: int) -> None:
        """Change the number."""
        self.count += change
        self._gauge.set(self.count)


class InFlightLimit:
    """Refuses requests while more than a number of them are in flight.

    A request is in flight until its response is sent: a client that is slow to read it does not hold up others.
    """

    def __init__(self, app: ASGIApp, *, in_flight: InFlight, limit: int) -> None:
        self._app, self._in_flight, self._limit = app, in_flight, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_counted = True

        def leave() -> None:
            nonlocal is_counted
            if is_counted:
                is_counted = False
                self._in_flight.add(-1)

        async def leave_and_send(message: Message) -> None:
            leave()
            await send(message)

        self._in_flight.add(1)
        try:
            if self._in_flight.count > self._limit:
                raise TooManyRequests("more requests than hooks.inFlight are in flight")
            await self._app(scope, receive, leave_and_send)
        finally:
            leave()


class JsonOnly:
    """Refuses requests whose body is declared as something other than JSON."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower() not in _ACCEPTED:
            raise UnsupportedMediaType("the content type must be application/json")
        await self._app(scope, receive, send)


class BodyBytes:
    """Bytes of the bodies of all requests in flight, over all hooks."""

    def __init__(self) -> None:
        self.held = 0


class BodyLimit:
    """Refuses bodies of more than a number of bytes: at once when they declare it, else while they arrive.

    All bodies together may have as many, for a byte becomes some forty of memory while its request is in flight. A
    request that comes on top of them is refused like one of too many.
    """

    def __init__(self, app: ASGIApp, *, limit: int, bodies: BodyBytes) -> None:
        self._app, self._limit, self._bodies = app, limit, bodies

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        length = Headers(scope=scope).get("content-length", "")
        size = 0

        async def receive_bounded() -> Message:
            nonlocal size
            message = await receive()
            more = len(message.get("body", b""))
            size += more
            self._bodies.held += more
            if size > self._limit:
                raise self._too_large()
            if self._bodies.held > self._limit:
                raise TooManyRequests("the bodies of all requests together are larger than hooks.bodyBytes")
            return message

        if self._declares_too_much(length):
            raise self._too_large()
        try:
            await self._app(scope, receive_bounded, send)
        finally:
            if size > COLLECTED_BYTES:
                gc.collect()
            self._bodies.held -= size

    def _declares_too_much(self, length: str) -> bool:
        """Return whether a Content-Length is above the limit; of more than 4,300 digits Python makes no number."""
        digits = length.lstrip("0") if length.isascii() and length.isdigit() else ""
        return len(digits) > len(str(self._limit)) or int(digits or "0") > self._limit

    def _too_large(self) -> RequestTooLarge:
        return RequestTooLarge(f"the request is larger than hooks.bodyBytes, {self._limit}")


class BodyDeadline:
    """Refuses bodies that are not whole after BODY_SECONDS, or never will be."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        deadline = asyncio.get_running_loop().time() + BODY_SECONDS

        async def receive_in_time() -> Message:
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                message = {"type": "http.disconnect"}
            if message["type"] == "http.disconnect":
                raise BodyMissing(f"the body was not there within {BODY_SECONDS:g} seconds")
            return message

        await self._app(scope, receive_in_time, send)


class Measurement:
    """Measures the size of a whole request and the time from then to its response, and logs that there was one."""

    def __init__(self, app: ASGIApp, *, hook: str, metrics: Metrics) -> None:
        self._app, self._hook, self._metrics = app, hook, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        size = 0
        started = 0.0

        async def receive_measured() -> Message:
            nonlocal size, started
            message = await receive()
            size += len(message.get("body", b""))
            if not message.get("more_body", False):
                self._metrics.bytes.labels(self._hook).observe(size)
                started = time.perf_counter()
            return message

        async def send_measured(message: Message) -> None:
            if message["type"] == "http.response.body":
                seconds = time.perf_counter() - started
                self._metrics.seconds.labels(self._hook).observe(seconds)
                length = len(message["body"])
                log.debug(
                    "hook_answered", hook=self._hook, seconds=round(seconds, 6), bytes=length, **_log_fields(scope)
                )
            await send(message)

        await self._app(scope, receive_measured, send_measured)


def _log_fields(scope: Scope) -> dict[str, Any]:
    """Return what a log line repeats of the parent, once the endpoint has read it."""
    fields: dict[str, Any] = scope.get("state", {}).get("log_fields", {})
    return fields


def _error(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(orjson.dumps({"error": message}), status, headers, media_type=JSON)
