"""Listening socket for clients, and the signals that end it: the gateway stops without dropping a request.

At the first SIGTERM `/readyz` fails while requests are served as before, and each response asks its client to close:
load balancers need this time (the lame duck) to notice. Then the socket closes, and requests that are under way may
finish, up to a limit. After that, event streams end with an error event, WebSockets with a close frame, and all else is
aborted. A second signal ends the process at once. SIGINT, which a person sends from a terminal, skips the lame duck.
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
"""Bytes of the kernel's send buffer per connection: a client that stalls must not cost megabytes."""
INTERRUPT_SECONDS: Final = 0.9
"""Seconds in which the last bytes reach clients whose responses are interrupted."""
TLS_HANDSHAKE_SECONDS: Final = 5.0
"""Seconds that a client has for the TLS handshake."""
FILES_PER_CONNECTION: Final = 3
"""File descriptors per client connection: its own, that of a backend, and one for everything else."""

log = structlog.get_logger(__name__)


def connections_allowed(wanted: int) -> int:
    """Raise the soft limit of file descriptors; return how many of the `wanted` client connections they allow."""
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
    """Serve clients on `sock` until the first signal, then let the requests that are under way finish.

    Args:
        server: HTTP server for the connections.
        sock: Listening socket.
        signals: Signals of the process.
        context: TLS towards clients; None for plain HTTP.
        lame_duck_seconds: Time after the first signal in which clients are served as before.
        drain_seconds: Time after that in which requests that are under way may finish.
    """
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
