"""Model server that records every byte of its requests, and responds as an OpenAI or Anthropic server does.

It listens on two ports, one for each backend of a route, and on both it serves an empty page for browsers.
"""

import asyncio
import gzip
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from gateway.http.messages import websocket_accept
from tests.deadlines import SECONDS
from tests.processes import poll

PIECES: Final = ("You ", "said: ", "hello")
"""Pieces of the text that the server responds with."""
TEXT: Final = "".join(PIECES)
_PAUSE: Final = 0.05
"""Seconds between two events of a stream that never ends."""
_TOO_MANY: Final = (
    b"HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: 63\r\n\r\n"
    b'{"error": {"message": "slow down", "code": "rate_limited"}}    '
)
"""Response of a server that has no room."""
_HOP_BY_HOP: Final = ("connection", "upgrade", "http2-settings", "keep-alive", "te", "proxy-connection")


@dataclass
class Recorded:
    """One request that the server received."""

    backend: str
    """`local` or `remote`: the port on which the request came."""
    head: bytes
    body: bytes
    gone: threading.Event = field(default_factory=threading.Event)
    """Event that is set when the connection has ended while the server was still responding."""

    @property
    def line(self) -> str:
        """Request line."""
        return self.head.split(b"\r\n")[0].decode()

    @property
    def fields(self) -> list[tuple[str, str]]:
        """Header fields, with names in lower case."""
        lines = self.head.decode("latin-1").split("\r\n")[1:]
        return [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in lines if line)]

    def form(self) -> dict[str, bytes]:
        """Return the parts of a form by their names, without the types of their contents."""
        kind = dict(self.fields)["content-type"].encode()
        message = BytesParser(policy=HTTP).parsebytes(b"content-type: " + kind + b"\r\n\r\n" + self.body)
        parts: dict[str, bytes] = {}
        for part in message.iter_parts():
            content = part.get_payload(decode=True)
            assert isinstance(content, bytes)
            parts[str(part.get_param("name", header="content-disposition"))] = content
        return parts

    @property
    def hop_by_hop(self) -> list[str]:
        """Names of fields that must have ended at the gateway."""
        return [name for name, _ in self.fields if name in _HOP_BY_HOP]


class ModelServer:
    """Server in a thread of its own."""

    def __init__(self) -> None:
        self.ports: dict[str, int] = {}
        """Ports by the name of the backend."""
        self.admin = 0
        """Port for administrators of the gateway in front."""
        self._recorded: dict[str, list[Recorded]] = {}
        self._loop = asyncio.new_event_loop()

    @contextmanager
    def running(self) -> Iterator["ModelServer"]:
        """Yield this server, which listens."""
        thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        thread.start()
        servers = [self._call(self._listen(backend)) for backend in ("local", "remote")]
        try:
            yield self
        finally:
            for server in servers:
                self._loop.call_soon_threadsafe(server.close)
            self._call(self._cancel())
            self._loop.call_soon_threadsafe(self._loop.stop)
            thread.join(SECONDS)
            self._loop.close()

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(SECONDS)

    async def _cancel(self) -> None:
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=5)

    async def _listen(self, backend: str) -> asyncio.Server:
        async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await self._serve(backend, reader, writer):
                    pass
            except (ConnectionError, asyncio.IncompleteReadError, asyncio.CancelledError):
                pass
            finally:
                writer.transport.abort()

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.ports[backend] = server.sockets[0].getsockname()[1]
        return server

    def of(self, case: str) -> list[Recorded]:
        """Return the requests of a case: those with that value of the field `x-case` or of the query's `case`."""
        return self._recorded.get(case, [])

    def wait_for(self, case: str) -> Recorded:
        """Return the only request of a case, when it has come."""
        poll(lambda: self.of(case), f"a request of {case}")
        (recorded,) = self.of(case)
        return recorded

    async def _serve(self, backend: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Serve one request; return whether the connection takes another one."""
        head = await reader.readuntil(b"\r\n\r\n")
        fields = dict(Recorded(backend, head, b"").fields)
        if fields.get("transfer-encoding") == "chunked":
            body = await _chunked(reader)
        else:
            body = await reader.readexactly(int(fields.get("content-length", "0")))
        method, target, _ = head.decode("latin-1").split(" ", 2)
        url = urlsplit(target)
        case = fields.get("x-case") or parse_qs(url.query).get("case", [""])[0]
        recorded = Recorded(backend, head, body)
        self._recorded.setdefault(case, []).append(recorded)
        if "sec-websocket-key" in fields:
            writer.write(_websocket(fields))
            await reader.read(1024)  # the client's close frame
            return False
        asked = json.loads(body) if body and "json" in fields.get("content-type", "") else {}
        if asked.get("model") in ("slow", "late"):
            await self._commented(asked["model"])
        if asked.get("model") == "late":
            writer.write(_TOO_MANY)
            await writer.drain()
            return True
        if asked.get("stream") or url.path.endswith("/events"):
            silent = asked.get("model") == "slow"
            usage = (asked.get("stream_options") or {}).get("include_usage") is True
            endless = case.endswith("/cancel")
            return await self._stream(recorded, writer, url.path, endless=endless, silent=silent, usage=usage)
        writer.write(_whole(method, url.path, asked, fields))
        await writer.drain()
        return True

    async def _commented(self, model: str) -> None:
        """Wait until the gateway has sent one more comment to the client of a model, which its metrics count."""
        before = await self._comments(model)
        while await self._comments(model) == before:
            await asyncio.sleep(_PAUSE)

    async def _comments(self, model: str) -> float:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.admin)
        writer.write(b"GET /metrics HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n\r\n")
        page = (await reader.read()).decode()
        writer.close()
        found = re.search(rf'^beamlit_gateway_keep_alives_total{{.*model="{model}".*}} (\S+)$', page, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def _stream(
        self, recorded: Recorded, writer: asyncio.StreamWriter, path: str, *, endless: bool, silent: bool, usage: bool
    ) -> bool:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        events = _anthropic_events() if path.endswith("/messages") else _openai_events(usage)
        writer.write(head)
        if silent:
            await self._commented("slow")
        try:
            for number, event in enumerate(events):
                writer.write(b"%x\r\n%b\r\n" % (len(event), event))
                await writer.drain()
                while endless and number == 2:
                    comment = b": still here\n\n"
                    writer.write(b"%x\r\n%b\r\n" % (len(comment), comment))
                    await writer.drain()
                    await asyncio.sleep(_PAUSE)
        except ConnectionError:
            recorded.gone.set()
            raise
        writer.write(b"0\r\n\r\n")
        await writer.drain()
        return True


def _websocket(fields: dict[str, str]) -> bytes:
    """Return the opening of a WebSocket, which selects the subprotocol `realtime` if any, a text and the end."""
    offered = [one.strip() for one in fields.get("sec-websocket-protocol", "").split(",")]
    selected = b"sec-websocket-protocol: realtime\r\n" if "realtime" in offered else b""
    accept = websocket_accept(fields["sec-websocket-key"].encode())
    head = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
    text = TEXT.encode()
    frames = b"\x81%c%b\x88\x02\x03\xe8" % (len(text), text)
    return b"%bsec-websocket-accept: %b\r\n%b\r\n%b" % (head, accept, selected, frames)


async def _chunked(reader: asyncio.StreamReader) -> bytes:
    body = b""
    while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
        body += (await reader.readexactly(size + 2))[:-2]
    await reader.readuntil(b"\r\n")
    return body


def _whole(method: str, path: str, asked: dict[str, Any], fields: dict[str, str]) -> bytes:
    """Return a whole response."""
    kind = b"application/json"
    more = b""
    if path == "/page":
        kind, body = b"text/html", b"<!doctype html><title>page</title>"
    elif path.endswith("/embeddings"):
        texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        data = [{"object": "embedding", "index": index, "embedding": [0.5, 0.25]} for index, _ in enumerate(texts)]
        usage = {"prompt_tokens": 1, "total_tokens": 1}
        body = json.dumps({"object": "list", "data": data, "model": asked["model"], "usage": usage}).encode()
    elif path.endswith("/messages"):
        body = json.dumps(_message(asked["model"], [{"type": "text", "text": TEXT}], "end_turn")).encode()
    elif path.endswith("/audio/transcriptions"):
        body = json.dumps({"text": TEXT}).encode()
    elif path.endswith("/chat/completions"):
        choice = {"index": 0, "message": {"role": "assistant", "content": TEXT}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        whole = {"id": "1", "object": "chat.completion", "created": 1, "model": asked["model"], "usage": usage}
        body = json.dumps({**whole, "choices": [choice]}).encode()
    else:
        body = json.dumps({"method": method, "path": path}).encode()
    if "gzip" in fields.get("accept-encoding", "") and "compressed" in fields.get("x-case", ""):
        body, more = gzip.compress(body), b"content-encoding: gzip\r\nvary: accept-encoding\r\n"
    return b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n%b" % (kind, more, len(body), body)


def _openai_events(usage: bool) -> Iterator[bytes]:
    whole = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "tiny"}
    for piece in PIECES:
        choice = {"index": 0, "delta": {"role": "assistant", "content": piece}, "finish_reason": None}
        yield _event({**whole, "choices": [choice]})
    yield _event({**whole, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    if usage:
        tokens = {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4}
        yield _event({**whole, "choices": [], "usage": tokens})
    yield b"data: [DONE]\n\n"


def _anthropic_events() -> Iterator[bytes]:
    yield _event({"type": "message_start", "message": _message("tiny", [], None)})
    block = {"type": "text", "text": ""}
    yield _event({"type": "content_block_start", "index": 0, "content_block": block})
    for piece in PIECES:
        yield _event({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}})
    yield _event({"type": "content_block_stop", "index": 0})
    usage = {"output_tokens": 3}
    yield _event({"type": "message_delta", "delta": {"stop_reason": "end_turn", "stop_sequence": None}, "usage": usage})
    yield _event({"type": "message_stop"})


def _event(data: dict[str, Any]) -> bytes:
    name = f"event: {data['type']}\n" if "type" in data else ""
    return f"{name}data: {json.dumps(data)}\n\n".encode()


def _message(model: str, content: list[dict[str, Any]], reason: str | None) -> dict[str, Any]:
    usage = {"input_tokens": 1, "output_tokens": 3}
    message = {"id": "1", "type": "message", "role": "assistant", "model": model, "content": content}
    return {**message, "stop_reason": reason, "stop_sequence": None, "usage": usage}
