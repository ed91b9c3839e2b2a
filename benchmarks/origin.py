"""A server of event streams: one small SSE event per chunk and interval, to every client, for ever.

Run as `python -m benchmarks.origin PORT INTERVAL_SECONDS`.
"""

import asyncio
import sys

import uvloop

EVENT = b'data: {"id":"1","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"token"}}]}\n\n'
CHUNK = b"%x\r\n%s\r\n" % (len(EVENT), EVENT)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Streams:
    """The open streams and the task that feeds them."""

    def __init__(self, interval: float) -> None:
        self.interval = interval
        self.open: set[asyncio.StreamWriter] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Respond with a stream that lasts until the client goes, and to a health check with success."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"GET /health "):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
                return
            writer.write(HEAD)
            self.open.add(writer)
            while await reader.read(65536):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self.open.discard(writer)
            writer.close()

    async def feed(self) -> None:
        """Send one event to every client, spread over each interval so that chunks do not coalesce."""
        while True:
            batch = list(self.open)
            for start in range(0, len(batch), 16):
                for writer in batch[start : start + 16]:
                    if not writer.transport.is_closing():  # gone since the batch was taken
                        writer.write(CHUNK)
                await asyncio.sleep(0)
            await asyncio.sleep(self.interval)


async def main(port: int, interval: float) -> None:
    """Serve until terminated."""
    streams = Streams(interval)
    server = await asyncio.start_server(streams.serve, "127.0.0.1", port, backlog=4096)
    async with server, asyncio.TaskGroup() as tasks:
        tasks.create_task(server.serve_forever())
        tasks.create_task(streams.feed())


if __name__ == "__main__":
    uvloop.run(main(int(sys.argv[1]), float(sys.argv[2])))
