"""An app on a socket, for as long as the process wants it."""

import asyncio
import socket
from contextlib import nullcontext
from typing import Any

import uvicorn
from fastapi import FastAPI


class _Server(uvicorn.Server):
    """A uvicorn server that leaves signals to the process it runs in."""

    def install_signal_handlers(self) -> None:
        """Install none: the process handles them."""

    def capture_signals(self) -> Any:
        """Capture none, for the same reason."""
        return nullcontext()


async def serve(app: FastAPI, sock: socket.socket, stop: asyncio.Event, *, grace_seconds: int = 1) -> None:
    """Serve `app` on a listening socket until `stop` is set; requests that run then have `grace_seconds`."""
    config = uvicorn.Config(
        app,
        http="httptools",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        lifespan="off",
        timeout_keep_alive=75,
        timeout_graceful_shutdown=grace_seconds,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[sock]))
    waiter = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({task, waiter}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        server.should_exit = True
        waiter.cancel()
        await task
