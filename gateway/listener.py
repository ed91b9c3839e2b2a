"""The traffic socket and the process's signals: serve, then leave without dropping anyone.

At the first SIGTERM `/readyz` says no while requests are served as before, each answer asking its client to close: load
balancers need this time (the lame duck) to notice. Then the socket closes and what runs may finish, up to a limit. A
second signal ends at once. SIGINT, a person at a terminal, skips the lame duck.
"""

import asyncio
import resource
import signal
import socket
import ssl
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import structlog

from gateway.edge import Edge

SEND_BUFFER_BYTES: Final = 65536
"""Of the kernel, per connection: a reader that stalls must not cost megabytes."""
BACKLOG: Final = 2048
TLS_HANDSHAKE_SECONDS: Final = 5.0
FILES_PER_CONNECTION: Final = 3
"""A client, a backend, and room for the rest."""

log = structlog.get_logger(__name__)


class ListenError(Exception):
    """The process cannot listen as it was told. The message is one sentence for the administrator."""


def bind(address: str, flag: str) -> socket.socket:
    """A listening socket on `host:port` or `[address]:port`.

    Args:
        address: where; port 0 lets the kernel choose.
        flag: what set it, for the message.

    Raises:
        ListenError: the address is in use, not this machine's, or not allowed.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        sock.bind((host, int(port)))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        reason = (exc.strerror or str(exc)).lower()
        raise ListenError(f"{flag} {address} cannot be used: {reason}; free it or choose another.") from exc
    sock.setblocking(False)
    return sock


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """TLS 1.2 and later, HTTP/1.1 only.

    Raises:
        ListenError: the files are not a certificate and its key.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key)
    except OSError as exc:
        reason = exc.strerror or "they are no certificate with its key in PEM"
        raise ListenError(f"gateway.tls {certificate} and {key} cannot be used: {reason.lower()}.") from exc
    return context


def connections_allowed(wanted: int) -> int:
    """How many client connections the process can have with its file descriptors; raises the soft limit first."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY or wanted * FILES_PER_CONNECTION <= hard:
        return wanted
    allowed = max(1, hard // FILES_PER_CONNECTION)
    log.warning("connections_limited_by_open_files", wanted=wanted, allowed=allowed, open_files=hard)
    return allowed


class Signals:
    """What the process has been told to do."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.stop = asyncio.Event()
        """Leave in an orderly way."""
        self.now = asyncio.Event()
        """Leave at once."""
        self.at_terminal = False
        """Whether it was a person (SIGINT)."""
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._received, number)

    def _received(self, number: signal.Signals) -> None:
        if self.stop.is_set():
            self.now.set()
        self.at_terminal = number == signal.SIGINT
        log.info("signal", signal=number.name, second=self.now.is_set())
        self.stop.set()


async def serve(
    edge: Edge,
    sock: socket.socket,
    signals: Signals,
    *,
    context: ssl.SSLContext | None,
    lame_duck_seconds: float,
    drain_seconds: float,
) -> None:
    """Serve clients on `sock` until told to stop, then let what runs finish."""
    server = await asyncio.get_running_loop().create_server(
        edge,
        sock=sock,
        ssl=context,
        ssl_handshake_timeout=TLS_HANDSHAKE_SECONDS if context is not None else None,
        ssl_shutdown_timeout=1.0 if context is not None else None,
        backlog=BACKLOG,
    )
    try:
        await signals.stop.wait()
        edge.leaving = True
        if not signals.at_terminal:
            await _unless_now(signals, asyncio.sleep(lame_duck_seconds))
        server.close()
        edge.begin_drain()
        await _unless_now(signals, edge.drained(drain_seconds))
    finally:
        server.close()
        if edge.connections:
            log.warning("connections_cut", connections=edge.connections)
        edge.abort()


async def _unless_now(signals: Signals, waiting: Coroutine[Any, Any, object]) -> None:
    """Wait for `waiting`, or for the second signal."""
    tasks = {asyncio.ensure_future(waiting), asyncio.ensure_future(signals.now.wait())}
    _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for task in pending:
        task.cancel()
    await asyncio.gather(*pending, return_exceptions=True)
