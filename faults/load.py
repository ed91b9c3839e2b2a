"""An open-loop client: requests at a constant rate, however the responses come, and a record of what became of each.

    python -m faults.load --records records-load --rate 100 --seed 1

Orders come by standard input: `{"port": …, "phase": …, "models": {"demo": 1.0}}` says where requests go from now on,
and `"kinds"` in it how many of each kind, where that differs from `KINDS`. A model is in the namespace `default`, or
its name has its namespace in front: `blue/llm`. `{"hold": {"kind": …, "count": …, "seconds": …}}` opens streams beside
them, `{"stop": true}` ends the load once what runs has ended. Responses are parsed with h11, a parser the gateway does
not use.
"""

import argparse
import asyncio
import json
import random
import time
from pathlib import Path
from typing import Any, Final

import h11
import uvloop

from faults.judge import SIZES, Response, judge
from faults.records import Orders, Outcome, Record

SECONDS: Final = 25.0
"""Seconds a request may take that is no stream."""
STREAM_SECONDS: Final = 60.0
"""Seconds a stream may take beside its own length: a server may be silent for 40 before another gets the request."""
KINDS: Final = {"chat": 0.62, "stream": 0.2, "embeddings": 0.08, "large": 0.06, "models": 0.02, "upload": 0.02}
"""Share of the requests of each kind. An upload is larger than a body that is kept to be sent again, so it is not
retryable."""
IDLE_SECONDS: Final = 2.0
"""Seconds after which an unused connection is closed: a burst must not leave all of its connections open."""
EVENTS, EVERY = 20, 0.05
"""Number of events of a stream, and seconds between two."""


class Connection:
    """A connection to a gateway or a load balancer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.used = 0.0
        """Time at which it was used last."""
        self._parser = h11.Connection(h11.CLIENT, max_incomplete_event_size=65536)

    @property
    def usable(self) -> bool:
        """Return whether the connection can take another request."""
        return not self._reader.at_eof() and not self._writer.is_closing() and self._parser.our_state is h11.IDLE

    async def ask(
        self, method: str, target: str, fields: list[tuple[str, str]], body: bytes, response: Response
    ) -> None:
        """Send a request and read into `response` until it is complete or the connection ends.

        Raises:
            OSError: the connection broke.
        """
        request = h11.Request(method=method, target=target, headers=[("host", "gateway"), *fields])
        data = self._parser.send(request) or b""
        if body:
            data += self._parser.send(h11.Data(data=body)) or b""
        self._writer.write(data + (self._parser.send(h11.EndOfMessage()) or b""))
        while True:
            try:
                event = self._parser.next_event()
            except h11.RemoteProtocolError:
                return  # it ended within the message
            if event is h11.NEED_DATA:
                self._parser.receive_data(await self._reader.read(1 << 18))
            elif isinstance(event, h11.Response):
                response.status = event.status_code
                response.fields = dict(event.headers)
            elif isinstance(event, h11.Data):
                response.body += event.data
            elif isinstance(event, h11.EndOfMessage):
                response.complete = True
                if self._parser.their_state is h11.DONE:
                    self._parser.start_next_cycle()
                return
            elif isinstance(event, h11.ConnectionClosed):
                return

    def close(self) -> None:
        """Close the connection immediately."""
        self._writer.transport.abort()


class Load:
    """The load client."""

    def __init__(self, records: Path, rate: float, seed: int) -> None:
        self._records = records.open("a", buffering=1 << 16)
        self._every = 1 / rate
        self._chance = random.Random(seed)
        self._port = 0
        self._phase = ""
        self._models: dict[str, float] = {}
        self._kinds = KINDS
        self._idle: dict[int, list[Connection]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._number = 0
        self._stop = asyncio.Event()
        self.latest = 0.0
        """Largest delay in seconds with which a request began."""

    async def run(self) -> None:
        """Run until an order to stop, and then until all requests have ended."""
        loop = asyncio.get_running_loop()
        orders = Orders(self._obey)
        loop.add_reader(0, orders.readable)
        at = loop.time()
        while not self._stop.is_set():
            at += self._every
            pause = at - loop.time()
            self.latest = max(self.latest, -pause)
            await asyncio.sleep(max(0.0, pause))
            self._records.flush()
            self._close_unused()
            if self._port:
                kind, model = _pick(self._chance, self._kinds), _pick(self._chance, self._models)
                self._begin(kind, model, EVENTS, EVERY)
        loop.remove_reader(0)
        await asyncio.gather(*self._tasks)
        self._records.close()

    def _close_unused(self) -> None:
        """Close at most one connection of each port: the one that has been unused for longest."""
        for idle in self._idle.values():
            if idle and idle[0].used < time.monotonic() - IDLE_SECONDS:
                idle.pop(0).close()

    def _obey(self, order: dict[str, Any]) -> None:
        if order.get("stop"):
            self._stop.set()
        elif hold := order.get("hold"):
            for _ in range(hold["count"]):
                self._begin(hold["kind"], "demo", max(1, round(hold["seconds"] / hold["every"])), hold["every"])
        else:
            self._port, self._phase, self._models = order["port"], order["phase"], order["models"]
            self._kinds = order.get("kinds", KINDS)

    def _begin(self, kind: str, model: str, events: int, every: float) -> None:
        self._number += 1
        record = Record(f"load-{self._number}", kind, self._phase, time.monotonic())
        task = asyncio.create_task(self._one(record, self._port, model, events, every))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _one(self, record: Record, port: int, model: str, events: int, every: float) -> None:
        """Send one request and record its outcome."""
        response = Response()
        method, target, kind, content, text = self._request(record, model, events, every)
        fields = [("content-type", kind), ("content-length", str(len(content)))] if content else []
        connection: Connection | None = None
        try:
            async with asyncio.timeout(STREAM_SECONDS + events * every if "stream" in record.kind else SECONDS):
                connection = await self._connection(port)
                await connection.ask(method, target, fields, content, response)
        except ConnectionRefusedError:
            record.outcome = Outcome.REFUSED
        except TimeoutError:
            record.outcome = Outcome.TIMEOUT
        except OSError as exc:
            record.outcome, record.detail = Outcome.RESET, repr(exc)
        record.ended = time.monotonic()
        if connection is not None:
            if response.complete and connection.usable:
                connection.used = record.ended
                self._idle.setdefault(port, []).append(connection)
            else:
                connection.close()
        found = response.fields or {}
        record.status = response.status
        record.backend = found.get(b"x-beamlit-backend", b"").decode()
        record.via = found.get(b"x-gateway", b"").decode()
        if response.status:
            judge(record, response, text, events)
        elif record.outcome is Outcome.OK:
            record.outcome = Outcome.RESET
        self._records.write(record.line() + "\n")

    def _request(self, record: Record, model: str, events: int, every: float) -> tuple[str, str, str, bytes, str]:
        """Return method, target, content type, body, and the text in the body."""
        if record.kind == "models":
            return "GET", "/v1/models", "", b"", ""
        text = f"{record.user} " * (SIZES.get(record.kind, 100) // (len(record.user) + 1))
        asked: dict[str, Any] = {"model": model, "user": record.user}
        if record.kind == "embeddings":
            asked |= {"input": text}
        else:
            asked |= {"messages": [{"role": "user", "content": text}]}
        if "stream" in record.kind:
            asked |= {"stream": True, "max_tokens": events, "every": every}
        elif record.kind == "large":
            asked |= {"max_tokens": SIZES["large"]}
        prefix = (
            f"/{model if '/' in model else f'default/{model}'}"
            if record.kind == "upload" or self._chance.random() < 0.5
            else ""
        )
        target = f"{prefix}/v1/{'embeddings' if record.kind == 'embeddings' else 'chat/completions'}"
        if record.kind == "upload":
            # A file, which names no model: the gateway passes it on as it comes, and does not read all of it first.
            return "POST", target, "application/octet-stream", json.dumps([asked]).encode(), text
        return "POST", target, "application/json", json.dumps(asked).encode(), text

    async def _connection(self, port: int) -> Connection:
        idle = self._idle.get(port, [])
        while idle:
            connection = idle.pop()
            if connection.usable:
                return connection
            connection.close()
        return Connection(*await asyncio.open_connection("127.0.0.1", port, limit=1 << 18))


def _pick(chance: random.Random, shares: dict[str, float]) -> str:
    return chance.choices(list(shares), list(shares.values()))[0]


async def main() -> None:
    """Run until an order to stop. The last line of output is the largest delay with which a request began, in
    seconds."""
    parser = argparse.ArgumentParser(prog="python -m faults.load", description=__doc__)
    parser.add_argument("--records", type=Path, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests per second")
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args()
    load = Load(options.records, options.rate, options.seed)
    await load.run()
    print(f"latest {load.latest:.3f}")


if __name__ == "__main__":
    uvloop.run(main())
