"""A model server that can be killed: it writes down what it executes, and can be told to misbehave.

    python -m faults.origin --port 20001 --name local --ledger ledger-local [--key KEY]

It serves OpenAI's chat (whole and as a stream) and embeddings for the model of its name; with several ports and names
it is as many servers. A request is known by its `user`; the ledger has a line `E <user> <time>` once a request is to
be executed and `A <user> <time>` once a byte of its response is with the kernel, so that both survive SIGKILL. A
health check at `/health` is a line `H <name> <time>`. Times are of the machine's monotonic clock, in seconds.
`POST /_fault {"mode": …}` changes the mode: `ok`, `throttle` (429 with Retry-After), `silent` (never responds),
`stalled` (sends the heads of streams and no event) or `revoke` (401, whatever the token). With a key it wants a bearer
token of `faults.tokens`.
"""

import argparse
import asyncio
import contextlib
import hashlib
import itertools
import json
import os
import select
import time
from typing import Any, Final

from faults import tokens
from faults.wire import chunk, read_request

BACKLOG: Final = 128
WORK_SECONDS: Final = 0.02
"""Seconds that a whole response takes, so that some are always running."""
RETRY_AFTER: Final = b"retry-after: 1\r\n"
LAST: Final = b"connection: close\r\n"
"""Field of the last response on a connection."""
REASONS: Final = {200: b"OK", 400: b"Bad Request", 401: b"Unauthorized", 429: b"Too Many Requests"}


class Origin:
    """A model server for one model."""

    def __init__(self, name: str, ledger: str, key: str | None, requests: int = 0) -> None:
        """Args:
        name: Name of the model.
        ledger: File for what is executed.
        key: Key of tokens that requests need; None where they need none.
        requests: Requests after which a connection is closed; 0 for any number.
        """
        self.name = name
        self.key = key
        self.requests = requests
        self.mode = "ok"
        self.throttled = 0
        self._ledger = os.open(ledger, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, what: str, user: str) -> None:
        """Append a line to the ledger."""
        os.write(self._ledger, f"{what} {user} {time.monotonic():.6f}\n".encode())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            for number in itertools.count(1):
                target, fields, body = await read_request(reader)
                if target == b"/health":
                    self.note("H", self.name)
                    await self.send(writer, 200, {})
                    continue
                if target == b"/_fault":
                    self.mode = json.loads(body)["mode"]
                    await self.send(writer, 200, {"mode": self.mode})
                    continue
                if self.mode == "silent":
                    await reader.read()  # until the other side has had enough
                    break
                if self.mode == "throttle":
                    self.throttled += 1
                    await self.send(writer, 429, error("slow down", "throttled"), RETRY_AFTER)
                    continue
                known = self.key is None or tokens.valid(fields.get(b"authorization", b""), self.key)
                if self.mode == "revoke" or not known:
                    await self.send(writer, 401, error("no valid token", "token"))
                    continue
                if _gone(writer):
                    break  # as a model server does: nobody waits for it
                last = number >= self.requests > 0
                await self.respond(writer, target, body, LAST if last else b"")
                if last:
                    break
        writer.close()

    async def respond(self, writer: asyncio.StreamWriter, target: bytes, body: bytes, fields: bytes) -> None:
        """Execute a request and respond to it, with `fields` in the head of the response."""
        asked = json.loads(body)
        uploaded = isinstance(asked, list)  # a file, in which no model is named
        if uploaded:
            (asked,) = asked
        if asked["model"] != self.name and not uploaded:
            await self.send(writer, 404, error(f"this is {self.name}", "wrong_model"), fields)
            return
        user = str(asked["user"])
        if status := int((asked.get("metadata") or {}).get("status", 0)):
            await self.send(writer, status, error("as it was asked for", "asked_for"), fields)
            return
        self.note("E", user)
        if asked.get("stream"):
            await self.stream(writer, user, int(asked["max_tokens"]), float(asked.get("every", 0.05)), fields)
            return
        await asyncio.sleep(WORK_SECONDS)
        if target.endswith(b"/embeddings"):
            row = {"object": "embedding", "index": 0, "embedding": [0.25, 0.5]}
            given = {"object": "list", "model": self.name, "data": [row], "user": user}
            await self.send(writer, 200, given | {"usage": {"prompt_tokens": 1, "total_tokens": 1}}, fields, user=user)
            return
        text = asked["messages"][-1]["content"]
        said = {"user": user, "sha256": digest(text), "pad": "x" * int(asked.get("max_tokens") or 0)}
        choice = {"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": json.dumps(said)}}
        head = {"id": user, "object": "chat.completion", "created": 1, "model": self.name}
        await self.send(writer, 200, head | {"choices": [choice]}, fields, user=user)

    async def stream(self, writer: asyncio.StreamWriter, user: str, events: int, every: float, fields: bytes) -> None:
        """Send numbered events, one each `every` seconds, and [DONE]."""
        head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n"
        head += fields + b"\r\n"
        if self.mode == "stalled":
            writer.write(head)
            await asyncio.Event().wait()  # until the program is killed
        for number in range(events):
            choice = {"index": 0, "delta": {"content": f"{user}:{number} "}, "finish_reason": None}
            data = {
                "id": user,
                "object": "chat.completion.chunk",
                "created": 1,
                "model": self.name,
                "choices": [choice],
            }
            writer.write(head + chunk(b"data: %b\n\n" % json.dumps(data).encode()))
            await writer.drain()
            if head:
                self.note("A", user)
            head = b""
            await asyncio.sleep(every)
        writer.write(chunk(b"data: [DONE]\n\n") + b"0\r\n\r\n")
        await writer.drain()

    async def send(
        self, writer: asyncio.StreamWriter, status: int, content: Any, fields: bytes = b"", *, user: str | None = None
    ) -> None:
        """Send a whole response."""
        body = json.dumps(content).encode()
        lines = (b"HTTP/1.1 %d %b" % (status, REASONS.get(status, b"No")), b"content-type: application/json")
        head = b"\r\n".join((*lines, b"content-length: %d" % len(body)))
        writer.write(head + b"\r\n" + fields + b"\r\n" + body)
        if user is not None:
            self.note("A", user)
        await writer.drain()


def _gone(writer: asyncio.StreamWriter) -> bool:
    """Return whether the client has closed or dropped the connection."""
    poll = select.poll()
    poll.register(writer.get_extra_info("socket").fileno(), select.POLLRDHUP)
    return bool(poll.poll(0))


def digest(text: str) -> str:
    """Return a digest by which a response shows that it is about the text that was sent."""
    return hashlib.sha256(text.encode()).hexdigest()


def error(message: str, code: str) -> dict[str, Any]:
    """Return an error in the shape of OpenAI's API."""
    return {"error": {"message": message, "type": "invalid_request_error", "code": code, "param": None}}


async def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(prog="python -m faults.origin", description=__doc__)
    parser.add_argument("--port", type=int, required=True, action="append")
    parser.add_argument("--name", required=True, action="append", help="of the model at the port of the same place")
    parser.add_argument("--ledger", required=True)
    parser.add_argument("--key")
    parser.add_argument("--backlog", type=int, default=BACKLOG)
    parser.add_argument("--requests", type=int, default=0, help="of a connection, which is closed then (any number)")
    options = parser.parse_args()
    # asyncio's own loop: what it writes is with the kernel when `write` returns, so the ledger tells the truth.
    for name, port in zip(options.name, options.port, strict=True):
        origin = Origin(name, options.ledger, options.key, options.requests)
        await asyncio.start_server(origin.serve, "127.0.0.1", port, backlog=options.backlog, limit=1 << 20)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main())
