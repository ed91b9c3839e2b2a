"""The gateway as a process with the memory that the chart gives it: nothing that a client or a tenant sends ends it."""

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from tests.deadlines import SECONDS
from tests.integration.gateway.test_directory_source import config_map, write
from tests.integration.gateway.test_hostile_sources import HOSTILE
from tests.integration.gateway.test_process import Process, started
from tests.integration.servers import ServerSide, serving
from tests.memory_limits import limited, peak_bytes, quantity
from tools.repository import ROOT

pytestmark = pytest.mark.long

LIMIT: Final = quantity(
    yaml.safe_load((ROOT / "charts/beamlit-controller/values.yaml").read_text())["gateway"]["resources"]["limits"][
        "memory"
    ]
)
"""Bytes of memory that the chart gives the gateway."""
COPIES: Final = 3
"""Number of files of each hostile kind."""
LARGEST: Final = 32 << 20
"""Bytes of the largest body by default."""


def filled(head: bytes, item: bytes, tail: bytes, size: int = LARGEST) -> bytes:
    """Return a body of a size: an item many times between head and tail, and spaces at its end."""
    count = (size - len(head) - len(tail)) // len(item)
    return (head + item * count + tail).ljust(size)


BODIES: Final[Mapping[str, tuple[Callable[[], bytes], int]]] = {
    "a second model deep inside": (lambda: filled(b'{"model": "demo", "a": [', b'{"a":[]},', b'{"model": "x"}]}'), 1),
    "the model at the end": (lambda: filled(b'{"a": [', b'"abc",', b'1], "model": "demo"}'), 2),
    "small strings": (lambda: filled(b'{"model": "demo", "a": [', b'"a",', b"1]}"), 2),
    "many keys": (lambda: filled(b'{"model": "demo"', b',"":{}', b"}"), 2),
    "no end": (lambda: filled(b'{"model": "demo", "a": ', b"[", b""), 2),
    "twelve images": (lambda: filled(b'{"model": "demo", "image": "', b"A", b'"}', 20 << 20), 12),
}
"""Functions that make a body, and how many of each are sent at once."""


async def reads_all(side: ServerSide) -> None:
    """Read requests whole and respond, without keeping anything of them; a request that is broken off ends it."""
    while True:
        head = (await side.reader.readuntil(b"\r\n\r\n")).lower()
        if b"content-length: " in head:
            await skip(side, int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        else:
            while size := int(await side.reader.readuntil(b"\r\n"), 16):
                await skip(side, size + 2)
            await side.reader.readuntil(b"\r\n")
        await side.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


async def skip(side: ServerSide, size: int) -> None:
    """Read that many bytes, and fail at the end of the connection."""
    while size:
        data = await side.reader.read(min(size, 65536))
        if not data:
            raise ConnectionError
        size -= len(data)


async def status(running: Process, body: bytes) -> int:
    """Send a body to `/v1/chat/completions`; return the status of the response, 0 when the connection was closed."""
    client = await running.client()
    head = (
        b"POST /v1/chat/completions HTTP/1.1\r\nHost: g\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
    )

    async def send() -> None:
        try:
            await client.send(head % len(body))
            for start in range(0, len(body), 1 << 20):
                await client.send(body[start : start + (1 << 20)])
        except ConnectionError:
            pass  # the gateway has responded already

    sending = asyncio.create_task(send())
    try:
        response: Any = await client.response()
        return int(response.status)
    except (ConnectionError, asyncio.IncompleteReadError):
        return 0
    finally:
        sending.cancel()
        client.reset()


@pytest.mark.parametrize("kind", BODIES)
async def test_no_body_ends_the_gateway(tmp_path: Path, kind: str) -> None:
    """The largest bodies of costly kinds, some at once, leave the gateway running and serving."""
    make, number = BODIES[kind]
    body = make()
    with limited(LIMIT) as prefix:
        async with (
            serving(reads_all) as backend,
            started(tmp_path, backend.port, prefix=prefix) as running,
            asyncio.timeout(2 * SECONDS),
        ):
            statuses = await asyncio.gather(*(status(running, body) for _ in range(number)))
            assert 0 not in statuses
            assert await status(running, b'{"model": "demo"}') == 200
            assert running.process.returncode is None
            assert await running.ready() == 200
            assert peak_bytes(running.process.pid) < LIMIT


async def test_no_files_of_routes_end_the_gateway(tmp_path: Path) -> None:
    """Files of routes that are large, deep or grow by their aliases leave the gateway running and taking changes."""
    with limited(LIMIT) as prefix:
        async with started(tmp_path, prefix=prefix) as running, asyncio.timeout(2 * SECONDS):
            for name, content in HOSTILE.items():
                for copy in range(COPIES):
                    (running.routes / f"{copy}-{name}").write_bytes(content)
            write(running.routes / "late.yaml", config_map("late"))
            while True:
                shown = (await running.admin.get("/routes")).json()
                if len(shown["sourceErrors"]) == COPIES * len(HOSTILE) and len(shown["routes"]) == 2:
                    break
                await asyncio.sleep(0.1)
            assert running.process.returncode is None
            assert peak_bytes(running.process.pid) < LIMIT
