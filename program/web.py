"""FastAPI apps on sockets, for the hooks and for the ports of administrators."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from program import pages
from program.pages import Pages
from program.web_connection import WebConnection


def operations_app(
    title: str, *, not_ready: Callable[[], str | None], registry: CollectorRegistry, rendering: Pages | None = None
) -> FastAPI:
    """Return an app with `/healthz`, `/readyz` and `/metrics`, which the tools of administrators ask of each program.

    Args:
        title: title of the app.
        not_ready: returns in a few words why the program should get no requests now; None when it should get some.
        registry: metrics to expose.
        rendering: the app's pages, where it has more of them than `/metrics`.
    """
    renderer = rendering or Pages()
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(_HeadAsGet)

    @app.get("/healthz")
    async def healthz() -> Response:
        """Respond 200: the process runs, and its event loop turns."""
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        """Respond 200 when the program should get requests, else 503 with the reason."""
        reason = not_ready()
        return Response(f"{reason or 'ok'}\n", 503 if reason else 200, media_type="text/plain")

    @app.get("/metrics")
    async def metrics(request: Request) -> Response:
        """Respond with the metrics in the text format of Prometheus."""
        return await renderer.respond(request, pages.metrics(registry), CONTENT_TYPE_LATEST)

    return app


IS_HEAD: Final = "beamlit.is_head"
"""Key of the scope of a request that was HEAD, for responses whose body has no end."""


class _HeadAsGet:
    """Middleware by which HEAD is GET without a body, on every path (RFC 9110 9.3.2)."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Call the app for a request."""
        if scope["type"] != "http" or scope["method"] != "HEAD":
            await self._app(scope, receive, send)
            return

        async def send_without_body(message: Message) -> None:
            await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

        await self._app({**scope, "method": "GET", IS_HEAD: True}, receive, send_without_body)


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process it runs in."""

    def install_signal_handlers(self) -> None:
        """Install no handler, for the process handles signals."""

    def capture_signals(self) -> Any:
        """Capture no signal, for the process handles signals."""
        return nullcontext()


KEEP_ALIVE_SECONDS: Final = 120
"""Seconds that an idle connection stays open. Clients written in Go close it after 90 s, so that it is never closed
while a request is on its way."""


async def serve(
    app: FastAPI,
    sock: socket.socket,
    stop: asyncio.Event,
    *,
    grace_seconds: int = 1,
    context: ssl.SSLContext | None = None,
) -> None:
    """Serve an app on a listening socket until `stop` is set.

    Args:
        app: the app.
        sock: a listening socket.
        stop: ends the serving.
        grace_seconds: seconds that running requests then have.
        context: makes the port speak TLS.
    """
    config = uvicorn.Config(
        app,
        http=WebConnection,
        ws="none",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=grace_seconds,
    )
    config.load()
    config.ssl = context
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    waiter = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        waiter.cancel()
        await task
