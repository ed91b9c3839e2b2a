"""The hostile tenant: its clients, its backend and what it writes. Each way to do harm is a coroutine of its name.

    python -m faults.fairness.hostile --gateway 20001 --admin 20002 --backend 20003 --routes routes --largest 33554432

Orders come by standard input: `{"way": "body"}` begins a way, or goes on with it, and `{"way": null}` ends it. Each is
confirmed by a line on standard output with the number of the order and what was seen since the order before, such as
the statuses of responses.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, Final

import uvloop

from faults.fairness.tenants import HOSTILE, Hostile
from faults.records import Orders
from faults.site import config_map

ADDRESS: Final = "127.0.0.2"
"""Address from which the clients of this tenant connect: a tenant's pods have addresses of their own."""
TENANT: Final = b"/hostile/llm/v1/"
"""Path of the hostile tenant's own model."""
ANYBODY: Final = b"/v1/chat/completions"
"""Path of requests whose route is not known before their body is read."""
HELD_BYTES: Final = 1 << 18
"""Bytes of a body that the gateway holds to send it again."""
PIECE: Final = 1 << 18
"""Bytes of a body that are written together."""

Way = Callable[[], Coroutine[Any, Any, None]]


class Tenant:
    """The hostile tenant."""

    def __init__(
        self, gateway: int, admin: int, routes: Path, hostile: Hostile, largest: int, connections: int
    ) -> None:
        self._gateway = gateway
        self._admin = admin
        self._routes = routes
        self._hostile = hostile
        self._largest = largest
        """Bytes of the largest body."""
        self._connections = connections
        """Connections that the gateway takes."""
        self._way: asyncio.Task[None] | None = None
        self._orders: asyncio.Queue[str | None] = asyncio.Queue()
        self.seen: Counter[str] = Counter()
        """What was seen of the present way: statuses, connections that ended, checks of its backend."""

    def obey(self, order: dict[str, Any]) -> None:
        """Take an order."""
        self._orders.put_nowait(order["way"])

    async def run(self) -> None:
        """Obey orders for ever."""
        present: str | None = None
        for number in itertools.count(1):
            way = await self._orders.get()
            if way != present and self._way is not None:
                self._way.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await self._way
            seen, self.seen = self.seen, Counter()
            if way is not None and way != present:
                begin: Way = getattr(self, way)
                self._way = asyncio.create_task(begin())
            present = way
            print(json.dumps({"order": number, "seen": seen}), flush=True)

    # Ways

    async def body(self) -> None:
        """Send one body of the largest size after the other, with a second `model` deep inside."""
        item = b'{"a":{"model":"x"}},'
        early = filled(b'{"model":"hostile/llm","a":[', item, b"1]}", self._largest)
        late = filled(b'{"a":[', item, b'1],"model":"hostile/llm"}', self._largest)
        for content in itertools.cycle((early, late)):
            await self._post(ANYBODY, content)

    async def memory(self) -> None:
        """Send twelve large images at once, and a body of small strings, again and again."""
        strings = filled(b'{"a":[', b'"a",', b'1],"model":"hostile/llm"}', self._largest)
        image = _image(self._largest * 5 // 8)
        await asyncio.gather(self._again(ANYBODY, strings), *(self._again(ANYBODY, image) for _ in range(12)))

    async def unfinished(self) -> None:
        """Begin forty bodies and never end them: half with the model in the path, half without a known model."""
        content = _image(self._largest)
        targets = itertools.cycle((ANYBODY, TENANT + b"completions"))
        await asyncio.gather(*(self._again(next(targets), content, missing=1) for _ in range(40)))

    async def names(self) -> None:
        """Send requests to backends whose name server is silent."""
        targets = [f"/{HOSTILE}/{name}/v1/completions".encode() for name in self._hostile.dark]
        await asyncio.gather(*(self._again(target) for target in targets * 8))

    async def loopback(self) -> None:
        """Send requests to Services that lead to the gateway's admin port and to a metadata service."""
        for name in itertools.cycle(self._hostile.inside):
            if await self._post(f"/{HOSTILE}/{name}/routes".encode()) == "200":
                self.seen["reached"] += 1
            await asyncio.sleep(0.05)

    async def claims(self) -> None:
        """Write documents that claim the names of other tenants, and change them all the time."""
        with self._files() as write:
            for percentage in itertools.cycle(range(100)):
                for name, content in self._hostile.claims(percentage):
                    write(name, content)
                await asyncio.sleep(0.2)

    async def documents(self) -> None:
        """Write files and documents that are no objects, too deep, or large, and change them all the time."""
        with self._files() as write:
            for number in itertools.count():
                for name, content in UNUSABLE.items():
                    write(name, content + "\n" * (number % 5))
                for name, document in self._hostile.large(number).items():
                    write(f"{name}.yaml", config_map(document, HOSTILE))
                await asyncio.sleep(0.5)

    async def checks(self) -> None:
        """Have 33 backends checked that take checks and never respond."""
        with self._files() as write:
            for document in self._hostile.checked():
                write(f"{document.name}.yaml", config_map(document, HOSTILE))
            await asyncio.Event().wait()

    async def admin(self) -> None:
        """Send heads without an end to the admin port, and ask for its longest pages."""
        head = b"GET / HTTP/1.1\r\na: " + b"x" * self._largest
        pages = (b"/routes", b"/metrics", b"/decisions?limit=100000", b"/")
        asked = [b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % page for page in pages]
        await asyncio.gather(*(self._ask_admin(content) for content in (head, head, *asked)))

    async def shares(self) -> None:
        """Hold all connections and all memory: requests with bodies to backends that never respond, by four routes, and
        responses that are not read."""
        content = _image(HELD_BYTES)
        targets = itertools.cycle([f"/{HOSTILE}/{name}/v1/silent".encode() for name in self._hostile.holding])
        count = self._connections * 5 // 4
        await asyncio.gather(
            *(self._again(next(targets), content, pause=1.0) for _ in range(count)), *(self._unread() for _ in range(8))
        )

    async def idle(self) -> None:
        """Open more connections than the gateway takes, and send nothing on them."""
        await asyncio.gather(*(self._again(b"", pause=1.0) for _ in range(self._connections * 5 // 4)))

    async def slow(self) -> None:
        """Send bodies at ten bytes a second, and requests to a backend that responds twice."""
        await asyncio.gather(
            *(self._again(TENANT + b"slow", b"{" + b" " * 1000, every=0.1) for _ in range(40)),
            *(self._again(TENANT + b"late", pause=0.05) for _ in range(4)),
        )

    # Clients

    async def _again(
        self, target: bytes, content: bytes = b"{}", *, missing: int = 0, every: float = 0.0, pause: float = 0.1
    ) -> None:
        """Send a request again and again, on a new connection each time."""
        while True:
            await self._post(target, content, missing=missing, every=every)
            await asyncio.sleep(pause)

    async def _post(self, target: bytes, content: bytes = b"{}", *, missing: int = 0, every: float = 0.0) -> str:
        """Send a request and return the status of its response, or `closed`.

        Args:
            target: Target of the request; empty for a connection without a request.
            content: Body.
            missing: Bytes of its end that are never sent.
            every: Seconds between two bytes; 0 for all of them at once.
        """
        status = "closed"
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self._gateway, local_addr=(ADDRESS, 0))
            head = (
                b"POST %b HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
                % (target, len(content))
            )
            # All requests share one body: copies would take this machine's memory and time before anything is sent.
            body = memoryview(content)[: len(content) - missing]
            sending = asyncio.create_task(_send(writer, head, body, every) if target else asyncio.sleep(0))
            self.seen["begun"] += 1
            try:
                status = (await reader.readuntil(b"\r\n\r\n")).split()[1].decode()
            finally:
                sending.cancel()
                writer.transport.abort()
        self.seen[status] += 1
        return status

    async def _unread(self) -> None:
        """Ask for a response of the largest size, and read nothing of it but its head."""
        while True:
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", self._gateway, local_addr=(ADDRESS, 0), limit=4096
                )
                writer.write(b"GET %blarge HTTP/1.1\r\nHost: gateway\r\n\r\n" % TENANT)
                try:
                    await reader.readuntil(b"\r\n\r\n")
                    self.seen["unread"] += 1
                    await asyncio.sleep(10)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.1)

    async def _ask_admin(self, content: bytes) -> None:
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._admin)
                sending = asyncio.create_task(_send(writer, b"", memoryview(content), 0.0))
                try:
                    read = 0
                    while data := await reader.read(PIECE):
                        read += len(data)
                    self.seen["page" if read else "closed"] += 1
                finally:
                    sending.cancel()
                    writer.transport.abort()
            await asyncio.sleep(0.01)

    @contextlib.contextmanager
    def _files(self) -> Iterator[Callable[[str, str], None]]:
        """Yield a function that writes a file of routes; all of them are removed at the end."""
        written: set[Path] = set()

        def write(name: str, content: str) -> None:
            path = self._routes / name
            beside = self._routes / f".{name}.new"
            beside.write_text(content)
            beside.rename(path)
            written.add(path)
            self.seen["written"] += 1

        try:
            yield write
        finally:
            for path in written:
                path.unlink()

    # The backend

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Read requests on a connection, and respond as their target says: never, twice, at length, or once."""
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                target = head.split()[1]
                length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
                left = int(length or 0)
                while left:
                    left -= len(data := await reader.read(min(left, PIECE)))
                    if not data:
                        raise ConnectionError
                if target.startswith(b"/health"):
                    self.seen["checked"] += 1
                if target.endswith((b"/silent", b"/health")):
                    await reader.read()
                    break
                size = self._largest if target.endswith(b"/large") else 2
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size)
                for _ in range(0, size, PIECE):
                    writer.write(b"x" * min(size, PIECE))
                    await writer.drain()
                if target.endswith(b"/late"):
                    await asyncio.sleep(0.005)
                    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlate")
        writer.close()


async def _send(writer: asyncio.StreamWriter, head: bytes, body: memoryview, every: float) -> None:
    """Send a head, and a body behind it: in large pieces, or one byte every so many seconds."""
    with contextlib.suppress(OSError):
        writer.write(head)
        step = 1 if every else PIECE
        for start in range(0, len(body), step):
            writer.write(body[start : start + step])
            await writer.drain()
            if every:
                await asyncio.sleep(every)


def filled(head: bytes, item: bytes, tail: bytes, size: int) -> bytes:
    """Return a body of at most `size` bytes: an item many times between head and tail."""
    return head + item * ((size - len(head) - len(tail)) // len(item)) + tail


def _image(size: int) -> bytes:
    """Return a body of one long string, which names its model at the end."""
    return filled(b'{"image":"', b"A", b'","model":"hostile/llm"}', size)


_LABELED: Final = (
    "kind: ConfigMap\nmetadata: {name: bad, namespace: hostile, labels: {gateway.beamlit.com/route: v1alpha1}"
)
UNUSABLE: Final = {
    "labels.yaml": "kind: ConfigMap\nmetadata: {name: bad, labels: [a]}\n",
    "data.yaml": f"{_LABELED}}}\ndata: abc\n",
    "items.yaml": "kind: List\nitems: 5\n",
    "deep.yaml": "[" * 200_000,
    "deep.json": '{"kind": "ConfigMap", "metadata": ' + "[" * 200_000,
    "document.yaml": f"{_LABELED}}}\ndata: {{route.json: '{'[' * 200_000}'}}\n",
    "bomb.yaml": "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    + "".join(f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 12)),
}
"""Files that are no objects, by name."""


async def main() -> None:
    """Serve and obey until the campaign has ended."""
    parser = argparse.ArgumentParser(prog="python -m faults.fairness.hostile", description=__doc__)
    add = parser.add_argument
    add("--gateway", type=int, required=True, help="port of the gateway for clients")
    add("--admin", type=int, required=True, help="its admin port")
    add("--backend", type=int, required=True, help="port on which this tenant's backend listens")
    add("--routes", type=Path, required=True, help="directory of the gateway's routes")
    add("--largest", type=int, required=True, help="bytes of the largest body that the gateway takes")
    add("--connections", type=int, required=True, help="connections that the gateway takes")
    options = parser.parse_args()
    os.nice(10)  # what is measured is the gateway, not the rest of the machine
    hostile = Hostile(options.backend, options.admin)
    tenant = Tenant(options.gateway, options.admin, options.routes, hostile, options.largest, options.connections)
    asyncio.get_running_loop().add_reader(0, Orders(tenant.obey).readable)
    await asyncio.start_server(tenant.serve, "127.0.0.1", options.backend, backlog=1024)
    await tenant.run()


if __name__ == "__main__":
    uvloop.run(main())
