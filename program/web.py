"""An app on a socket, for as long as the process wants it."""

import asyncio
import socket
import ssl
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any, Final

import uvicorn
from fastapi import FastAPI, Response
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest


def operations_app(title: str, *, not_ready: Callable[[], str | None], registry: CollectorRegistry) -> FastAPI:
    """What an administrator's tools ask of any program: `/healthz`, `/readyz` and `/metrics`.

    Args:
        title: of the app.
        not_ready: why the program should get no requests now, in a few words; None when it should.
        registry: what to expose.
    """
    app = FastAPI(title=title, docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/healthz")
    async def healthz() -> Response:
        """The process runs and its event loop turns."""
        return Response("ok\n", media_type="text/plain")

    @app.get("/readyz")
    async def readyz() -> Response:
        """The program wants requests."""
        reason = not_ready()
        return Response(f"{reason or 'ok'}\n", 503 if reason else 200, media_type="text/plain")

    @app.get("/metrics")
    async def metrics() -> Response:
        """Prometheus's text format."""
        return Response(generate_latest(registry), headers={"content-type": CONTENT_TYPE_LATEST})

    return app


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process it runs in."""

    def install_signal_handlers(self) -> None:
        """Install none: the process handles them."""

    def capture_signals(self) -> Any:
        """Capture none, for the same reason."""
        return nullcontext()


KEEP_ALIVE_SECONDS: Final = 120
"""Longer than the 90 s after which Go's clients drop an idle connection: it is theirs to close, not ours."""


async def serve(
    app: FastAPI,
    sock: socket.socket,
    stop: asyncio.Event,
    *,
    grace_seconds: int = 1,
    context: ssl.SSLContext | None = None,
) -> None:
    """Serve `app` on a listening socket until `stop` is set; requests that run then have `grace_seconds`."""
    config = uvicorn.Config(
        app,
        http="httptools",
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
