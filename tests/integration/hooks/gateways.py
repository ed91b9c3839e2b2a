"""Stand-ins for gateways' ports for administrators: real servers that respond to `/drills` with what a test gives."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

from hooks.clients.gateways import Gateways
from hooks.telemetry import Metrics
from tests.builders import NAMESPACE, Json
from tests.deadlines import SECONDS
from tools.ports import free_port

NAME: Final = "gateways.test"
"""Name whose addresses are those of the gateways."""


def entry(reason: str = "Proven", message: str = "", *, name: str = "demo", failures: int = 0) -> Json:
    """Return what a gateway found at the remote backend of a model."""
    return {
        "namespace": NAMESPACE,
        "name": name,
        "backend": "remote",
        "reason": reason,
        "message": message,
        "observedTime": "2026-03-01T12:00:00Z",
        "consecutiveFailures": failures,
        "lastSuccessTime": None,
        "by": "drill",
        "generation": 1,
    }


class AdminPort:
    """The port for administrators of one gateway."""

    def __init__(self, address: str, *found: Json) -> None:
        self.address = address
        self.found: tuple[Json, ...] = found
        """Entries of its report."""
        self.response: bytes | None = None
        """Whole response in place of a report; empty to send nothing."""
        self.asked: list[str] = []
        """Heads of the requests."""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond to requests until the client closes the connection."""
        try:
            while True:
                self.asked.append((await reader.readuntil(b"\r\n\r\n")).decode())
                if self.response == b"":
                    await reader.read()
                    return
                body = json.dumps({"gateway": self.address, "drills": self.found}).encode()
                head = f"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
                writer.write(head.encode() + body if self.response is None else self.response)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def asking(
    *ports: AdminPort, seconds: float = SECONDS, interval: float = 0.0, monotonic: Callable[[], float] = lambda: 1.0
) -> AsyncIterator[Gateways]:
    """Let gateways serve on one port at their addresses, and yield a client for the name that all of them have.

    Args:
        ports: the gateways' ports for administrators.
        seconds: seconds that a round may take.
        interval: seconds for which a round is used; with 0 each reading asks again.
        monotonic: returns the seconds of the client's clock.
    """
    port = free_port()

    async def resolve(host: str, number: int) -> list[str]:
        assert (host, number) == (NAME, port)
        if not ports:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [one.address for one in ports]

    async with AsyncExitStack() as stack:
        for one in ports:
            server = await asyncio.start_server(one.serve, one.address, port)
            stack.push_async_callback(server.wait_closed)
            stack.callback(server.close)
        client = Gateways(
            f"{NAME}:{port}", Metrics(), interval=interval, seconds=seconds, resolve=resolve, monotonic=monotonic
        )
        stack.push_async_callback(client.close)
        yield client
