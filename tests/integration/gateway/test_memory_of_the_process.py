"""Memory of the gateway as a process, while clients send the bodies that cost most."""

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.deadlines import SECONDS
from tests.integration.gateway.test_process import GET, Process, started
from tests.integration.gateway.wire import Client, reply
from tests.integration.servers import ServerSide, serving

MIB = 1 << 20
AROUND = 24 * MIB
"""Bytes that a large request costs beside its body: buffers of sockets and of the allocator."""
BUDGET = 256 * MIB

pytestmark = [pytest.mark.long, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]


async def sink(side: ServerSide) -> None:
    """Respond to each request once all of it is read, and keep nothing."""
    while True:
        head = (await side.reader.readuntil(b"\r\n\r\n")).lower()
        left = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        while left:
            data = await side.reader.read(min(left, 65536))
            if not data:
                return
            left -= len(data)
        await side.send(reply(b"ok"))


def deep(size: int) -> bytes:
    """Return a body with a second `model` deep inside."""
    depth = 1000
    inside = b'{"a":' * depth + b'{"model":"other"}' + b"}" * depth
    start = b'{"model":"demo","messages":['
    return start + b",".join([inside] * ((size - len(start)) // (len(inside) + 1))) + b"]}"


def strings(size: int) -> bytes:
    """Return a body of small strings, which names its model at the end."""
    return b'{"messages":[' + b'"a",' * (size // 4) + b'"b"],"model":"demo"}'


def image(size: int) -> bytes:
    """Return a body of one long string, which names its model at the end."""
    return b'{"messages":["' + b"A" * size + b'"],"model":"demo"}'


def memory(running: Process, field: bytes) -> int:
    """Return a size from the kernel's status of the process, in bytes."""
    status = Path(f"/proc/{running.process.pid}/status").read_bytes()
    return int(status.partition(field + b":")[2].split()[0]) * 1024


class Growth:
    """Growth of the memory of a process, from when it has served a first request."""

    def __init__(self, running: Process) -> None:
        self._running = running
        Path(f"/proc/{running.process.pid}/clear_refs").write_text("5")  # the peak is what it is now
        self._before = memory(running, b"VmRSS")

    @property
    def peak(self) -> int:
        """Bytes by which the process was larger than before, at most."""
        return memory(self._running, b"VmHWM") - self._before


async def begun(running: Process, content: bytes, *, left: int = 0) -> Client:
    """Send a request by model, without as many bytes of its end as `left`, and return its connection."""
    kind = b"json" if content.startswith(b"{") else b"x-www-form-urlencoded"
    client = await running.client()
    await client.send(
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: gateway\r\nContent-Type: application/%b\r\n"
        b"Content-Length: %d\r\n\r\n" % (kind, len(content))
    )
    view = memoryview(content)[: len(content) - left]
    for start in range(0, len(view), MIB):
        await client.send(bytes(view[start : start + MIB]))
    return client


async def status(client: Client) -> int:
    """Return the status of the response."""
    return (await client.response()).status


async def others(running: Process) -> list[int]:
    """Return the statuses of small requests, sent one after the other."""
    return [(await running.ask()).status for _ in range(20)]


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda: deep(33_000_000), 0),
        (lambda: strings(31 * MIB), 31 * MIB),
        (lambda: image(31 * MIB), 31 * MIB),
        (lambda: b"model=demo&prompt=" + b"a" * 31 * MIB, 0),
        (lambda: b"prompt=" + b"a" * 31 * MIB + b"&model=demo", 31 * MIB),
    ],
    ids=["deep", "strings", "image", "form", "late-form"],
)
async def test_one_body_costs_itself(tmp_path: Path, make: Callable[[], bytes], most: int) -> None:
    """A body of the largest size costs its own bytes, and next to nothing where its model is known early."""
    async with serving(sink) as server, started(tmp_path, server.port, local={"model": "llm"}) as running:
        assert (await running.ask(GET)).status == 200
        growth = Growth(running)
        assert await status(await begun(running, make())) == 200
        assert growth.peak < most + AROUND


async def test_many_images_at_once(tmp_path: Path) -> None:
    """Twelve bodies of 20 MB together cost no more than the budget, each is served, and so are small requests."""
    content = image(20_000_000)
    async with serving(sink) as server, started(tmp_path, server.port, local={"model": "llm"}) as running:
        assert (await running.ask(GET)).status == 200
        growth = Growth(running)

        async def one() -> int:
            return await status(await begun(running, content))

        small, *large = await asyncio.gather(others(running), *(one() for _ in range(12)))
        assert large == [200] * 12
        assert small == [200] * 20
        assert growth.peak < BUDGET + 2 * AROUND


async def test_bodies_that_never_end(tmp_path: Path) -> None:
    """Forty bodies without their ends cost no more than the budget, and small requests are served meanwhile."""
    content = image(31 * MIB)
    async with serving(sink) as server, started(tmp_path, server.port, local={"model": "llm"}) as running:
        assert (await running.ask(GET)).status == 200
        growth = Growth(running)
        tasks = [asyncio.create_task(begun(running, content, left=1)) for _ in range(40)]
        await asyncio.wait(tasks, timeout=8)
        assert await others(running) == [200] * 20
        assert growth.peak < BUDGET + 2 * AROUND
        for one in tasks:
            one.cancel()
        await asyncio.wait(tasks, timeout=SECONDS)
