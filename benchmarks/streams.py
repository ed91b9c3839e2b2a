"""CPU of a proxy per SSE chunk as a ratio to nginx in the same run, and its memory per open stream."""

import asyncio
import statistics
import sys
from pathlib import Path

import psutil

from benchmarks import processes
from tools.ports import free_port

REQUEST = (
    b"POST /default/demo/v1/chat/completions HTTP/1.1\r\nHost: demo\r\n"
    b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
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
    """Measure nginx and gateway in front of the same streams, in interleaved rounds. Return the medians of `rounds`."""
    folder.mkdir(parents=True)
    chunks = _chunks(folder / "chunks", rounds, seconds)
    return chunks | {"stream_rss_kib": _memory(folder / "memory", memory_streams)}


def _origin(port: int, interval: float) -> list[str]:
    return [sys.executable, "-m", "benchmarks.origin", str(port), str(interval)]


def _chunks(folder: Path, rounds: int, seconds: float) -> dict[str, float]:
    folder.mkdir()
    origin_port, nginx_port = free_port(), free_port()
    proxy = (
        f"upstream origin {{ server 127.0.0.1:{origin_port}; keepalive 64; }}"
        f"server {{ listen 127.0.0.1:{nginx_port}; location / {{ proxy_pass http://origin/; proxy_buffering off;"
        " proxy_http_version 1.1; proxy_set_header Connection ''; } }"
    )
    gateway, gateway_port = processes.gateway(folder, origin_port)
    full, full_port = processes.gateway(folder / "full", origin_port, everything=True)
    with (
        processes.running("origin", _origin(origin_port, 0.02), origin_port, folder),
        processes.nginx("proxy", proxy, nginx_port, folder) as reference,
        gateway as subject,
        full as with_everything,
    ):

        async def interleaved() -> tuple[list[float], list[float], list[float]]:
            ours, theirs, most = [], [], []
            for _ in range(rounds):
                theirs.append(await microseconds_per_chunk(reference, nginx_port, 100, seconds))
                ours.append(await microseconds_per_chunk(subject, gateway_port, 100, seconds))
                most.append(await microseconds_per_chunk(with_everything, full_port, 100, seconds))
            return ours, theirs, most

        ours, theirs, most = asyncio.run(interleaved())
    return {
        "sse_chunk_vs_nginx": statistics.median(a / b for a, b in zip(ours, theirs, strict=True)),
        "sse_chunk_us": statistics.median(ours),
        "sse_chunk_nginx_us": statistics.median(theirs),
        "sse_chunk_everything": statistics.median(a / b for a, b in zip(most, ours, strict=True)),
    }


def _memory(folder: Path, streams: int) -> float:
    folder.mkdir()
    origin_port = free_port()
    gateway, gateway_port = processes.gateway(folder, origin_port, everything=True)
    with processes.running("origin", _origin(origin_port, 1), origin_port, folder), gateway as subject:
        return asyncio.run(kib_per_stream(subject, gateway_port, streams))
