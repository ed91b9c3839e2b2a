"""The traffic socket and the process's signals: serve, then leave without dropping anyone.

At the first SIGTERM `/readyz` says no while requests are served as before, each answer asking its client to close: load
balancers need this time (the lame duck) to notice. Then the socket closes and what runs may finish, up to a limit.
Behind it event streams end with an error event, WebSockets with a close frame, and the rest breaks off. A second signal
ends at once. SIGINT, a person at a terminal, skips the lame duck.
"""

import asyncio
import resource
import socket
import ssl
from typing import Final

import structlog

from gateway.downstream.server import HttpServer
from program.signals import Signals
from program.sockets import BACKLOG

SEND_BUFFER_BYTES: Final = 65536
"""Of the kernel, per connection: a reader that stalls must not cost megabytes."""
INTERRUPT_SECONDS: Final = 0.9
"""For what is said to clients whose answers are interrupted to reach them."""
TLS_HANDSHAKE_SECONDS: Final = 5.0
FILES_PER_CONNECTION: Final = 3
"""A client, a backend, and room for the rest."""

log = structlog.get_logger(__name__)


def connections_allowed(wanted: int) -> int:
    """How many client connections the process can have with its file descriptors; raises the soft limit first."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or wanted * FILES_PER_CONNECTION <= hard:
        return wanted
    allowed = max(1, hard // FILES_PER_CONNECTION)
    log.warning("connections_limited_by_open_files", wanted=wanted, allowed=allowed, open_files=hard)
    return allowed


async def serve(
    server: HttpServer,
    sock: socket.socket,
    signals: Signals,
    *,
    context: ssl.SSLContext | None,
    lame_duck_seconds: float,
    drain_seconds: float,
) -> None:
    """Serve clients on `sock` until told to stop, then let what runs finish."""
    listening = await asyncio.get_running_loop().create_server(
        server,
        sock=sock,
        ssl=context,
        ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS if context is not None else None,
        ssl_shutdown_timeout=1.0 if context is not None else None,
        backlog=BACKLOG,
    )
    try:
        await signals.stop.wait()
        server.leaving = True
        if not signals.at_terminal:
            await signals.unless_now(asyncio.sleep(lame_duck_seconds))
        listening.close()
        server.begin_drain()
        await signals.unless_now(server.drained(drain_seconds))
        if server.connections:
            log.warning("connections_cut", connections=server.connections)
            server.interrupt()
            await signals.unless_now(server.drained(INTERRUPT_SECONDS))
    finally:
        listening.close()
        server.abort()
