"""The ASGI apps of hooks: Metacontroller's webhooks, and on another port what an administrator asks.

A response is either whole, with status 200, or an error with another status: Metacontroller then changes nothing and
tries again. It shows the text of an error in an Event, so that text repeats nothing of the request but names.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Generic, TypeVar

import orjson
from fastapi import FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.routing import APIRoute
from starlette.middleware import Middleware

from hooks import openapi
from hooks.authentication import Bearer
from hooks.clients.gateways import DrillSource
from hooks.decision_metrics import Decisions
from hooks.kube.objects import Object
from hooks.metrics import Sources
from hooks.middlewares import (
    JSON,
    Authentication,
    BodyBytes,
    BodyDeadline,
    BodyLimit,
    ErrorResponses,
    InFlight,
    InFlightLimit,
    JsonOnly,
    Measurement,
    RequestCounter,
)
from hooks.platform.beamlit.registrar import Registrar
from hooks.protocol import POLICY_KIND, CustomizeRequest, SyncRequest
from hooks.settings import Hooks, Settings
from hooks.telemetry import Metrics
from hooks.webhooks import Webhooks
from program import web

T = TypeVar("T", SyncRequest, CustomizeRequest)

_LARGE: Final = 1 << 20
"""Bytes from which on a body is decoded in a thread, so that other requests need not wait."""


@dataclass(frozen=True, slots=True)
class Hook(Generic[T]):
    """A webhook, and how it is described in the OpenAPI document."""

    path: str
    summary: str
    read: Callable[[bytes], T]
    """Function that reads the body of a request."""
    respond: Callable[[T], Awaitable[Object]]
    """Function that returns the JSON of the response."""
    request_schema: Object
    response_schema: Object

    @property
    def name(self) -> str:
        """Name of the webhook in metrics and logs."""
        return self.respond.__name__


class HookRoute(APIRoute):
    """Route of a webhook with middlewares of its own, as `starlette.routing.Route` has them."""

    def __init__(self, hook: Hook[Any], middlewares: Sequence[Middleware]) -> None:
        async def endpoint(request: Request) -> Response:
            body = await request.body()
            parsed = hook.read(body) if len(body) < _LARGE else await asyncio.to_thread(hook.read, body)
            metadata = parsed.parent["metadata"]
            request.state.log_fields = {key: metadata.get(key) for key in ("namespace", "name", "uid", "generation")}
            return Response(orjson.dumps(await hook.respond(parsed)), media_type=JSON)

        super().__init__(
            hook.path,
            endpoint,
            methods=["POST"],
            name=hook.name,
            summary=hook.summary,
            response_class=Response,
            responses={200: {"content": {JSON: {"schema": hook.response_schema}}}},
            openapi_extra={"requestBody": {"required": True, "content": {JSON: {"schema": hook.request_schema}}}},
        )
        for middleware, args, kwargs in reversed(middlewares):
            self.app = middleware(self.app, *args, **kwargs)


def create_app(
    settings: Settings,
    metrics: Metrics,
    *,
    sources: Sources | None = None,
    drill_source: DrillSource | None = None,
    bearer: Bearer | None = None,
    registrar: Registrar | None = None,
    clock: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> FastAPI:
    """Return the app that Metacontroller calls.

    Args:
        settings: the settings of the installation.
        metrics: the metrics that requests are counted in.
        sources: the sources of the metrics that models offload by, opened and closed by the caller; with None no metric
            is read.
        drill_source: the source of what gateways found in their drills, opened and closed by the caller; with None none
            is asked.
        bearer: the token that a request has to carry; None when none is asked for.
        registrar: the account on the platform, opened and closed by the caller; with None nothing is done there.
        clock: the time, read once per request: the only time that a decision sees.
    """
    app = FastAPI(title="Beamlit hooks", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    decisions = Decisions()
    metrics.registry.register(decisions)
    webhooks = Webhooks(
        settings.install_defaults,
        decisions,
        sources=sources,
        drill_source=drill_source,
        registrar=registrar,
        clock=clock,
    )
    in_flight, bodies = InFlight(metrics.in_flight), BodyBytes()
    for hook in _hooks(webhooks):
        middlewares = _middlewares(hook.name, settings.hooks, metrics, in_flight, bodies, bearer)
        app.router.routes.append(HookRoute(hook, middlewares))
    return app


def _middlewares(
    hook: str, settings: Hooks, metrics: Metrics, in_flight: InFlight, bodies: BodyBytes, bearer: Bearer | None
) -> list[Middleware]:
    """Return what a request passes through, from the outside in. None of them reads the body, the endpoint does."""
    authentication = [] if bearer is None else [Middleware(Authentication, bearer=bearer)]
    return [
        Middleware(RequestCounter, hook=hook, metrics=metrics),
        Middleware(ErrorResponses, hook=hook),
        *authentication,
        Middleware(InFlightLimit, in_flight=in_flight, limit=settings.in_flight),
        Middleware(JsonOnly),
        Middleware(BodyLimit, limit=settings.body_bytes, bodies=bodies),
        Middleware(BodyDeadline),
        Middleware(Measurement, hook=hook, metrics=metrics),
    ]


def _hooks(webhooks: Webhooks) -> tuple[Hook[Any], ...]:
    finalized = openapi.sync_response(finalized={"type": "boolean"})

    def read_policy(body: bytes) -> SyncRequest:
        return SyncRequest.from_body(body, POLICY_KIND)

    return (
        Hook(
            "/modeldeployments/sync",
            "Desired children and status",
            SyncRequest.from_body,
            webhooks.sync,
            openapi.SYNC_REQUEST,
            openapi.sync_response(),
        ),
        Hook(
            "/modeldeployments/customize",
            "Which related objects a sync needs to see",
            CustomizeRequest.from_body,
            webhooks.customize,
            openapi.CUSTOMIZE_REQUEST,
            openapi.CUSTOMIZE_RESPONSE,
        ),
        Hook(
            "/modeldeployments/finalize",
            "What is left to do before it goes",
            SyncRequest.from_body,
            webhooks.finalize,
            openapi.SYNC_REQUEST,
            finalized,
        ),
        Hook(
            "/policies/sync",
            "Status of a Policy",
            read_policy,
            webhooks.policy_sync,
            openapi.POLICY_REQUEST,
            openapi.sync_response(),
        ),
        Hook(
            "/policies/finalize",
            "What is left to do before it goes",
            read_policy,
            webhooks.policy_finalize,
            openapi.POLICY_REQUEST,
            finalized,
        ),
    )


def create_operations_app(hooks: FastAPI, metrics: Metrics, *, draining: Callable[[], bool]) -> FastAPI:
    """Return the app for an administrator, which has a port of its own.

    Args:
        hooks: the app to document.
        metrics: the metrics to expose.
        draining: whether the process is stopping.
    """
    app = web.operations_app(
        "Beamlit hooks: operations",
        not_ready=lambda: "draining" if draining() else None,
        registry=metrics.registry,
    )

    @app.get("/openapi.json")
    async def document() -> dict[str, Any]:
        """Return the webhooks as an OpenAPI document."""
        return hooks.openapi()

    @app.get("/docs", response_class=HTMLResponse)
    async def docs() -> HTMLResponse:
        """Return the OpenAPI document as a page for a browser."""
        return get_swagger_ui_html(openapi_url="/openapi.json", title="Beamlit hooks")

    return app
