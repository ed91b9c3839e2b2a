"""The hooks over HTTP: Metacontroller's webhooks, and beside them what an administrator asks.

An answer is either whole, with status 200, or an error with another status: Metacontroller then changes nothing and
tries again. It shows an error's text in an Event, so that text repeats nothing of the request but names.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final

import orjson
import structlog
from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from starlette.requests import ClientDisconnect

from hooks import openapi
from hooks.authentication import Bearer
from hooks.decision_metrics import Decisions
from hooks.errors import HookError
from hooks.gatherer import gather
from hooks.kube.objects import Object
from hooks.metrics import Sources
from hooks.observation.observation import Observation
from hooks.platform.beamlit.registrar import Registrar, let_go, registered
from hooks.protocol import PARENT_KIND, POLICY_KIND, CustomizeRequest, SyncRequest
from hooks.reconcile import model_deployment
from hooks.reconcile import policy as policy_reconcile
from hooks.settings import Settings
from hooks.telemetry import Metrics
from program import web

log = structlog.get_logger(__name__)

Answer = Callable[[bytes, Object], Awaitable[Object]]
"""From a body to the answer; puts into the object what a log line says of the parent, as soon as it is known."""

_JSON: Final = "application/json"
_ACCEPTED: Final = frozenset({"", _JSON, "application/x-www-form-urlencoded"})
"""Content types that are read, as JSON all of them: Metacontroller's, and what curl says unless told otherwise."""
BODY_SECONDS: Final = 10.0
"""For a whole body. Metacontroller waits no longer for its answer."""
_LARGE: Final = 1 << 20
"""Bytes of a body above which a thread reads it, so that others do not wait."""
_RETRY_SECONDS: Final = (1, 2, 3)
"""For Retry-After (whole seconds, at least 1: Metacontroller reads nothing else), so that not all come back at once."""


class BodyTooLarge(HookError):
    """The request is larger than `hooks.bodyBytes`."""

    status = 413


class UnsupportedMediaType(HookError):
    """The request does not say that it is JSON."""

    status = 415


class BodyMissing(HookError):
    """The request ended, or went silent, before its body was whole."""

    status = 408


class Unauthorized(HookError):
    """The request does not carry the token."""

    status = 401


class TooManyRequests(HookError):
    """More than `hooks.inFlight` requests are being answered."""

    status = 429


def create_app(
    settings: Settings,
    metrics: Metrics,
    *,
    sources: Sources | None = None,
    bearer: Bearer | None = None,
    registrar: Registrar | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:
    """The hooks.

    Args:
        settings: of the installation.
        metrics: where requests are counted.
        sources: of the metrics that models offload by, opened and closed by the caller; with None none is read.
        bearer: the token that a request has to carry, checked before its body is read; None when there is none.
        registrar: what is done on the platform, opened and closed by the caller; with None nothing is.
        clock: gives the time, once per request; the only time a decision sees.
    """
    app = FastAPI(title="Beamlit hooks", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    defaults = settings.install_defaults
    decisions = Decisions()
    metrics.registry.register(decisions)
    in_flight = 0

    async def sync(body: bytes, about: Object) -> Object:
        request = await _parsed(body)
        about |= _identity(request)
        observation = await gather(request, defaults, sources)
        now = clock()
        synced = model_deployment.sync_assessed(observation, now=now, account=account(), check=check(request, now))
        if synced.assessment is not None:
            decisions.record(synced.assessment, now=now)
        return (await registered(registrar, synced.response, synced.task, now=now)).as_json()

    async def customize(body: bytes, about: Object) -> Object:
        request = CustomizeRequest.from_body(body)
        about |= _identity(request)
        return model_deployment.customize(request, defaults).as_json()

    async def finalize(body: bytes, about: Object) -> Object:
        request = await _parsed(body)
        about |= _identity(request)
        decisions.forget(request.parent["metadata"]["namespace"], request.parent["metadata"]["name"])
        now = clock()
        response, found = model_deployment.finalize(Observation.of(request, defaults), now=now, account=account())
        return (await let_go(registrar, response, found, now=now)).as_json()

    async def policy_sync(body: bytes, about: Object) -> Object:
        request = await _parsed(body, POLICY_KIND)
        about |= _identity(request)
        now = clock()
        due = check(request, now)
        response, task = policy_reconcile.sync(request, defaults, account=account(), now=now, check=due)
        return (await registered(registrar, response, task, now=now)).as_json()

    async def policy_finalize(body: bytes, about: Object) -> Object:
        request = await _parsed(body, POLICY_KIND)
        about |= _identity(request)
        now = clock()
        response, found = policy_reconcile.finalize(request, account=account(), now=now)
        return (await let_go(registrar, response, found, now=now)).as_json()

    def account() -> str | None:
        return None if registrar is None else registrar.account

    def check(request: SyncRequest, now: datetime) -> bool:
        return registrar is not None and registrar.is_check_due(request.parent, now)

    def hook(path: str, answer: Answer, request_schema: Object, answer_schema: Object, summary: str) -> None:
        name = answer.__name__

        async def endpoint(request: Request) -> Response:
            nonlocal in_flight
            in_flight += 1
            metrics.in_flight.set(in_flight)
            headers = None
            about: Object = {}
            try:
                if bearer is not None and not bearer.permits(request.headers.get("authorization", "")):
                    raise Unauthorized("the request does not carry the token of hooks")
                if in_flight > settings.hooks.in_flight:
                    raise TooManyRequests("more requests than hooks.inFlight are being answered")
                body = await _read(request, settings.hooks.body_bytes)
                metrics.bytes.labels(name).observe(len(body))
                started = time.perf_counter()
                content = orjson.dumps(await answer(body, about))
                seconds = time.perf_counter() - started
                metrics.seconds.labels(name).observe(seconds)
                status = 200
                log.debug("hook_answered", hook=name, seconds=round(seconds, 6), bytes=len(content), **about)
            except HookError as exc:
                log.warning("hook_refused", hook=name, status=exc.status, error=str(exc), **about)
                status, content = exc.status, _error(str(exc))
                if isinstance(exc, TooManyRequests):
                    headers = {"retry-after": str(random.choice(_RETRY_SECONDS))}  # noqa: S311 - spreads load
            except Exception:
                log.exception("hook_failed", hook=name, **about)
                status, content = 500, _error(f"{name} failed; the log of hooks says why")
            finally:
                in_flight -= 1
                metrics.in_flight.set(in_flight)
            metrics.requests.labels(name, str(status)).inc()
            return Response(content, status, headers, media_type=_JSON)

        app.add_api_route(
            path,
            endpoint,
            methods=["POST"],
            name=name,
            summary=summary,
            response_class=Response,
            responses={200: {"content": {_JSON: {"schema": answer_schema}}}},
            openapi_extra={"requestBody": {"required": True, "content": {_JSON: {"schema": request_schema}}}},
        )

    finalized = openapi.sync_answer(finalized={"type": "boolean"})
    model, policy = openapi.SYNC_REQUEST, openapi.POLICY_REQUEST
    hook("/modeldeployments/sync", sync, model, openapi.sync_answer(), "Desired children and status")
    hook(
        "/modeldeployments/customize",
        customize,
        openapi.CUSTOMIZE_REQUEST,
        openapi.CUSTOMIZE_ANSWER,
        "Which related objects a sync needs to see",
    )
    hook("/modeldeployments/finalize", finalize, model, finalized, "What is left to do before it goes")
    hook("/policies/sync", policy_sync, policy, openapi.sync_answer(), "Status of a Policy")
    hook("/policies/finalize", policy_finalize, policy, finalized, "What is left to do before it goes")
    return app


def create_operations_app(hooks: FastAPI, metrics: Metrics, *, draining: Callable[[], bool]) -> FastAPI:
    """What an administrator asks, for a port of its own.

    Args:
        hooks: the app to document.
        metrics: what to expose.
        draining: whether the process has been told to stop.
    """
    app = web.operations_app(
        "Beamlit hooks: operations",
        not_ready=lambda: "draining" if draining() else None,
        registry=metrics.registry,
    )

    @app.get("/openapi.json")
    async def document() -> dict[str, Any]:
        """The hooks as OpenAPI."""
        return hooks.openapi()

    @app.get("/docs", response_class=HTMLResponse)
    async def docs() -> HTMLResponse:
        """The same for a browser."""
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Beamlit hooks")

    return app


async def _read(request: Request, limit: int) -> bytes:
    """The whole body.

    Raises:
        BodyMissing: it does not come.
        BodyTooLarge: it is longer than `limit` bytes.
        UnsupportedMediaType: it is something other than JSON.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() not in _ACCEPTED:
        raise UnsupportedMediaType("the content type must be application/json")
    length = request.headers.get("content-length", "")
    if length.isdigit() and int(length) > limit:
        raise BodyTooLarge(f"the request is larger than hooks.bodyBytes, {limit}")
    pieces: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    raise BodyTooLarge(f"the request is larger than hooks.bodyBytes, {limit}")
                pieces.append(piece)
    except (ClientDisconnect, TimeoutError):
        raise BodyMissing(f"the body was not there within {BODY_SECONDS:g} seconds") from None
    return b"".join(pieces)


def _identity(request: SyncRequest | CustomizeRequest) -> Object:
    """What a log line says of a parent."""
    metadata = request.parent["metadata"]
    return {key: metadata.get(key) for key in ("namespace", "name", "uid", "generation")}


async def _parsed(body: bytes, kind: str = PARENT_KIND) -> SyncRequest:
    if len(body) < _LARGE:
        return SyncRequest.from_body(body, kind)
    return await asyncio.to_thread(SyncRequest.from_body, body, kind)


def _error(message: str) -> bytes:
    return orjson.dumps({"error": message})
