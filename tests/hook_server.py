"""A scripted webhook over real HTTP: tests set its responses and read its requests."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self


@dataclass(frozen=True, slots=True)
class Request:
    """A request to the hook."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def content(self) -> dict[str, Any]:
        """Return the decoded JSON body."""
        content: dict[str, Any] = json.loads(self.body)
        return content


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the hook."""

    body: bytes | dict[str, Any] | None = field(default_factory=dict)
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    """Seconds that the hook waits before it responds."""

    def encoded(self) -> bytes:
        """Return the response as bytes of HTTP/1.1."""
        body = self.body if isinstance(self.body, bytes) else json.dumps(self.body).encode()
        fields = {"Content-Length": str(len(body)), "Content-Type": "application/json", **self.headers}
        head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
        return f"HTTP/1.1 {self.status} Scripted\r\n{head}\r\n".encode() + body


Script = Callable[[Request], Response | Awaitable[Response]]


class HookServer:
    """A server that responds to each request as `script` says: `async with HookServer(script) as hook`."""

    def __init__(self, script: Script) -> None:
        """Make a server; its attribute `script` may be replaced at any time."""
        self.script = script
        self.requests: list[Request] = []
        self.url = ""
        self._connections: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        """Listen on a free port of 127.0.0.1."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0, limit=2**24)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop listening and end every connection."""
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def of(self, path: str) -> list[dict[str, Any]]:
        """Return the bodies of all requests to `path` so far."""
        return [request.content for request in self.requests if request.target.partition("?")[0] == path]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.current_task()
        assert connection is not None
        self._connections.add(connection)
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                first, *lines = head.rstrip("\r\n").split("\r\n")
                method, target, _ = first.split(" ", 2)
                headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                request = Request(method, target, headers, body)
                self.requests.append(request)
                scripted = self.script(request)
                response = scripted if isinstance(scripted, Response) else await scripted
                if response.delay:
                    await asyncio.sleep(response.delay)
                writer.write(response.encoded())
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass  # the client or the test has ended it
        finally:
            writer.close()
            self._connections.discard(connection)
