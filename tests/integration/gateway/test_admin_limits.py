"""What a client of the admin port can do to the traffic beside it: nothing, whatever it sends, reads or asks for."""

import asyncio
import contextlib
import gc
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx
import pytest
from fastapi import FastAPI, Request

from gateway import admin
from gateway.journal import Journal
from gateway.routes.store import RouteStore
from gateway.telemetry import Metrics
from program import web, web_connection
from program.sockets import bind
from tests.deadlines import SECONDS
from tests.integration.gateway.test_store import snapshot, text
from tests.integration.servers import until
from tests.unit.gateway.test_journal import record

MODELS = 2000
AT_A_STRETCH = 0.05
"""Seconds of CPU that the event loop may spend on a page before it serves others; a slice takes 0.002."""


@dataclass
class Longest:
    """Longest time between two turns of the event loop."""

    seconds: float = 0.0


@asynccontextmanager
async def turns() -> AsyncIterator[Longest]:
    """Measure the CPU of this thread between two turns of the event loop, without garbage collection, for the block."""
    longest = Longest()

    async def watch() -> None:
        before = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            longest.seconds = max(longest.seconds, now - before)
            before = now

    task = asyncio.create_task(watch())
    gc.disable()
    await asyncio.sleep(0)
    try:
        yield longest
        await asyncio.sleep(0)
    finally:
        gc.enable()
        task.cancel()


@asynccontextmanager
async def on_a_port(app: FastAPI) -> AsyncIterator[int]:
    """Serve an app on a port for the block."""
    stop, sock = asyncio.Event(), bind("127.0.0.1:0", "--admin")
    task = asyncio.create_task(web.serve(app, sock, stop))
    try:
        yield int(sock.getsockname()[1])
    finally:
        stop.set()
        await task
        sock.close()


@pytest.fixture
async def port() -> AsyncIterator[int]:
    """Port of an app whose responses are as long as a request asks for."""
    app = FastAPI()

    @app.get("/{size}")
    async def page(size: int) -> str:
        return "x" * size

    @app.post("/")
    async def read(request: Request) -> int:
        return len(await request.body())

    async with on_a_port(app) as number:
        yield number


async def ended(port: int, sent: bytes, *, more: bytes = b"", every: float = 0.0) -> bytes:
    """Send bytes, then more of them again and again; return what comes until the connection ends."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def send() -> None:
        try:
            writer.write(sent)
            while more:
                await writer.drain()
                writer.write(more)
                await asyncio.sleep(every)
        except ConnectionError:
            pass

    sending = asyncio.create_task(send())
    received = b""
    try:
        async with asyncio.timeout(SECONDS):
            while data := await reader.read(65536):
                received += data
    except ConnectionError:
        pass
    finally:
        sending.cancel()
        writer.transport.abort()
    return received


async def taken(reader: asyncio.StreamReader, *, every: float = 0.0, pauses: int = 0) -> int:
    """Read until the connection ends, with pauses after the first reads; return the number of bytes."""
    size = 0
    with contextlib.suppress(ConnectionError):
        while data := await reader.read(1 << 16):
            size += len(data)
            if pauses:
                pauses -= 1
                await asyncio.sleep(every)
    return size


@pytest.mark.parametrize(
    "head",
    [b"GET /1 HTTP/1.1\r\na: ", b"GET /1 HTTP/1.1\r\n", b"GET /"],
    ids=["value", "name", "url"],
)
async def test_a_head_has_a_limit(port: int, head: bytes) -> None:
    """A head without an end closes its connection, whatever part of it has none, and nothing responds to it."""
    more = b"a: b\r\n" * 4000 if head.endswith(b"\r\n") else b"x" * 24000
    assert await ended(port, head, more=more) == b""


async def test_a_head_at_the_limit(port: int) -> None:
    """A head of nearly the limit is served, also as the second one on its connection and in small pieces."""
    room = web_connection.HEAD_BYTES - 100
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for size in (room, 10, room):
        head = b"GET /2 HTTP/1.1\r\nHost: x\r\na: %b\r\n\r\n" % (b"b" * size)
        for start in range(0, len(head), 5000):
            writer.write(head[start : start + 5000])
            await writer.drain()
            await asyncio.sleep(0.001)
        async with asyncio.timeout(SECONDS):
            assert (await reader.readuntil(b'"xx"')).startswith(b"HTTP/1.1 200 OK\r\n")
    writer.close()


async def test_a_body_may_be_larger_than_a_head(port: int) -> None:
    """The limit of heads is none of bodies, also where both come in one read."""
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=SECONDS) as client:
        for size in (0, 15000, 17000, 200000, 3000000):
            assert (await client.post("/", content=b"x" * size)).json() == size


async def test_many_requests_at_once(port: int) -> None:
    """A few requests that come together are served in their order, and thousands of them close the connection."""
    few = b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % number for number in range(4))
    last = b"GET /4 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    received = await ended(port, few + last)
    assert [line for line in received.split(b"\r\n") if line.startswith(b'"')][-1] == b'"xxxx"'
    assert received.count(b"HTTP/1.1 200 OK") == 5
    assert (await ended(port, b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\n" * 8000)).count(b"HTTP/1.1 200 OK") < 100


@pytest.mark.parametrize(
    "sent", [b"", b"GET /", b"GET /1 HTTP/1.1\r\nHost: x\r\n\r\nGET /"], ids=["-", "first", "next"]
)
async def test_a_head_has_a_deadline(port: int, sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that sends no head, or a head byte by byte, is closed after a while."""
    monkeypatch.setattr(web_connection, "HEAD_SECONDS", 0.3)
    received = await ended(port, sent, more=b"x" if sent else b"", every=0.05)
    assert received.count(b"HTTP/1.1") == sent.count(b"HTTP/1.1")


@pytest.mark.parametrize("method", [b"POST / ", b"GET /1 "], ids=["read", "unread"])
async def test_a_body_has_a_deadline(port: int, method: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A body that comes byte by byte ends after a while, also where its request has got a response already."""
    monkeypatch.setattr(web_connection, "BODY_SECONDS", 0.3)
    head = method + b"HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
    received = await ended(port, head, more=b"x", every=0.05)
    assert received.startswith(b"HTTP/1.1 200 OK") is (method != b"POST / ")


async def test_a_response_that_nobody_reads(port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection whose client takes nothing of a long response is dropped; one that reads slowly gets all of it."""
    monkeypatch.setattr(web_connection, "STALL_SECONDS", 2.0)
    size = 40_000_000
    ask = b"GET /%d HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % size
    stalled, stalled_writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    slow, slow_writer = await asyncio.open_connection("127.0.0.1", port, limit=4096)
    for writer in (stalled_writer, slow_writer):
        writer.write(ask)
    try:
        async with asyncio.timeout(SECONDS):
            await stalled.readuntil(b"\r\n\r\n")
            assert await taken(slow, every=0.02, pauses=100) > size
            assert await taken(stalled) < size
    finally:
        for writer in (stalled_writer, slow_writer):
            writer.transport.abort()


@pytest.fixture
async def store() -> RouteStore:
    """Store of many routes, in force."""
    result = RouteStore(
        namespaces=None, cluster_domain="cluster.local", bare_hostnames="namespace", metrics=Metrics(), clock=time.time
    )
    names = [f"model-{number}" for number in range(MODELS)]
    result.apply(snapshot(*(("default", name, text(name)) for name in names)))
    await until(result.loaded.is_set)
    return result


@pytest.mark.parametrize("path", ["/metrics", "/routes", "/decisions?limit=40000", "/"])
async def test_a_long_page_stalls_nothing(store: RouteStore, path: str) -> None:
    """While a page for many models is rendered, the event loop turns: its stretches of CPU are a small part of it."""
    metrics, journal = Metrics(), Journal(40000)
    for number in range(MODELS // 2):
        metrics.series("default", f"model-{number}", "local").observe(200, 0.1, 0.05)
    one = record()
    for _ in range(40000):
        journal.append(one)
    app = admin.create_app(store, metrics, journal, draining=lambda: False)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://admin") as client:
        await client.get("/healthz")
        async with turns() as longest:
            response = await client.get(path)
    assert response.status_code == 200
    assert len(response.content) > 200_000
    assert longest.seconds < AT_A_STRETCH


async def test_pages_are_rendered_one_at_a_time(store: RouteStore) -> None:
    """Many who ask for a long page at once share the time of one, and those who left cost nothing."""
    app = admin.create_app(store, Metrics(), Journal(10), draining=lambda: False)
    async with (
        on_a_port(app) as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=SECONDS) as client,
    ):
        await client.get("/healthz")
        gone = [await asyncio.open_connection("127.0.0.1", port) for _ in range(50)]
        for _, writer in gone:
            writer.write(b"GET /routes HTTP/1.1\r\nHost: x\r\n\r\n")
        async with turns() as longest:
            for _, writer in gone:
                await writer.drain()
                writer.transport.abort()
            pages = await asyncio.gather(*(client.get("/routes") for _ in range(5)))
    assert {len(page.json()["routes"]) for page in pages} == {MODELS}
    assert longest.seconds < AT_A_STRETCH
