"""CPU of the gateway per SSE chunk as a ratio to other proxies in the same run, and its memory per open stream."""

import asyncio
import statistics
import sys
from pathlib import Path

import psutil

from benchmarks import processes, proxies
from tools.ports import free_port

REQUEST = (
    b"POST /default/demo/v1/chat/completions HTTP/1.1\r\nHost: demo\r\n"
    b'Content-Type: application/json\r\nContent-Length: 15\r\n\r\n{"stream":true}'
)


class Client(asyncio.Protocol):
    """A client with one open stream that counts the events."""

    def __init__(self) -> None:
        self.events = 0
        self.started = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send the request for the stream."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.write(REQUEST)

    def data_received(self, data: bytes) -> None:
        """Count events. The first bytes must be a successful response."""
        if not self.started.done():
            if data.startswith(b"HTTP/1.1 200"):
                self.started.set_result(None)
            else:
                self.started.set_exception(processes.BenchmarkError(f"no stream: {data[:200]!r}"))
        self.events += data.count(b"data: ")

    def connection_lost(self, exc: Exception | None) -> None:
        """Fail: a stream never ends by itself here."""
        if not self.started.done():
            self.started.set_exception(processes.BenchmarkError(f"the stream broke off: {exc}"))


async def open_streams(port: int, count: int) -> list[Client]:
    """Open `count` streams, a few at a time, and return when each has its first byte."""
    loop = asyncio.get_running_loop()
    clients: list[Client] = []
    for start in range(0, count, 50):
        batch = [(await loop.create_connection(Client, "127.0.0.1", port))[1] for _ in range(min(50, count - start))]
        async with asyncio.timeout(30):
            await asyncio.gather(*(client.started for client in batch))
        clients.extend(batch)
    return clients


async def microseconds_per_chunk(process: psutil.Process, port: int, streams: int, seconds: float) -> float:
    """Return the CPU time in microseconds that `process` spends on one chunk, with `streams` open."""
    clients = await open_streams(port, streams)
    before, seen = processes.cpu_seconds(process), sum(client.events for client in clients)
    await asyncio.sleep(seconds)
    used, count = processes.cpu_seconds(process) - before, sum(client.events for client in clients) - seen
    for client in clients:
        client.transport.abort()
    return used / count * 1e6


async def kib_per_stream(process: psutil.Process, port: int, streams: int) -> float:
    """Return the resident memory of one more open stream, in KiB."""
    before = processes.resident_kib(process)
    clients = await open_streams(port, streams)
    await asyncio.sleep(2)
    grown = processes.resident_kib(process) - before
    for client in clients:
        client.transport.abort()
    return grown / streams


def measure(folder: Path, *, rounds: int, seconds: float, memory_streams: int) -> dict[str, float]:
    """Measure other proxies and the gateway in front of the same streams, in interleaved rounds. Return the medians."""
    folder.mkdir(parents=True)
    chunks = _chunks(folder / "chunks", rounds, seconds)
    return chunks | {"stream_rss_kib": _memory(folder / "memory", memory_streams)}


def _origin(port: int, interval: float) -> list[str]:
    return [sys.executable, "-m", "benchmarks.origin", str(port), str(interval)]


def _chunks(folder: Path, rounds: int, seconds: float) -> dict[str, float]:
    folder.mkdir()
    origin_port = free_port()
    gateway, gateway_port = processes.gateway(folder, origin_port)
    full, full_port = processes.gateway(folder / "full", origin_port, everything=True)
    asking, asking_port = processes.gateway(folder / "usage", origin_port, usage=True)
    with (
        processes.running("origin", _origin(origin_port, 0.02), origin_port, folder),
        proxies.beside(origin_port, folder, streams=True) as others,
        gateway as subject,
        full as with_everything,
        asking as with_usage,
    ):
        ways = {
            **others,
            "gateway": (subject, gateway_port),
            "everything": (with_everything, full_port),
            "usage": (with_usage, asking_port),
        }
        times: dict[str, list[float]] = {name: [] for name in ways}

        async def interleaved() -> None:
            for _ in range(rounds):
                for name, (process, port) in ways.items():
                    times[name].append(await microseconds_per_chunk(process, port, 100, seconds))

        asyncio.run(interleaved())

    def ratio(one: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(times[one], times[other], strict=True))

    return {
        **{f"sse_chunk_vs_{name}": ratio("gateway", name) for name in others},
        "sse_chunk_us": statistics.median(times["gateway"]),
        **{f"sse_chunk_{name}_us": statistics.median(times[name]) for name in others},
        "sse_chunk_everything": ratio("everything", "gateway"),
        "sse_chunk_usage": ratio("usage", "gateway"),
    }


def _memory(folder: Path, streams: int) -> float:
    folder.mkdir()
    origin_port = free_port()
    gateway, gateway_port = processes.gateway(folder, origin_port, everything=True)
    with processes.running("origin", _origin(origin_port, 1), origin_port, folder), gateway as subject:
        return asyncio.run(kib_per_stream(subject, gateway_port, streams))
