"""The admin port while the gateway starts, serves, drains and ends: a probe never waits in vain.

Load balancers ask it with a new connection each time, or on one that they keep.
"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.deadlines import SECONDS
from tests.integration.gateway.test_process import GET, Process, started
from tests.integration.servers import ServerSide, serving, until

READY = b"GET /readyz HTTP/1.1\r\nHost: admin\r\n\r\n"
CHECK = b"GET /readyz HTTP/1.0\r\n\r\n"
"""Request of HAProxy's health check."""


@dataclass
class Probes:
    """Probes of the admin port, each of which has to end."""

    port: int
    stage: str = ""
    """What the gateway does now."""
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    """The stage in which a probe began, and its outcome: a status, `closed` or `refused`."""
    gone: bool = False
    """Whether the gateway has ended."""

    async def ask(self, request: bytes = CHECK) -> str:
        """Return the outcome of a probe with a connection of its own."""
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return "refused"
        try:
            writer.write(request)
            return await _status(reader)
        finally:
            writer.transport.abort()

    async def by_new_connections(self) -> None:
        """Probe with one new connection after the other, until the gateway has ended."""
        while not self.gone:
            stage = self.stage
            self.outcomes.append((stage, await self.ask()))
            await asyncio.sleep(0.005)

    async def by_one_connection(self) -> None:
        """Probe on a connection that is kept as long as the gateway keeps it, until the gateway has ended."""
        while not self.gone:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.005)
                continue
            outcome = ""
            while outcome != "closed":
                stage = self.stage
                writer.write(READY)
                outcome = await _status(reader)
                self.outcomes.append((stage, outcome))
                await asyncio.sleep(0.005)
            writer.transport.abort()

    async def asked(self, stage: str, times: int = 5) -> None:
        """Wait until probes that began in this stage have ended."""
        await until(lambda: sum(began == stage for began, _ in self.outcomes) >= times)

    def of(self, stage: str) -> set[str]:
        """Return the outcomes of the probes that began in a stage."""
        return {outcome for began, outcome in self.outcomes if began == stage}


async def _status(reader: asyncio.StreamReader) -> str:
    """Return the status of the next response, or `closed`."""
    async with asyncio.timeout(SECONDS):
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
            await reader.readexactly(int(length or 0))
        except (ConnectionError, asyncio.IncompleteReadError):
            return "closed"
    return head.split(b" ")[1].decode()


@asynccontextmanager
async def probed(port: int) -> AsyncIterator[Probes]:
    """Probe a port in both ways for the block, and wait for the end of every probe."""
    probes = Probes(port)
    tasks = [asyncio.create_task(one) for one in (probes.by_new_connections(), probes.by_one_connection())]
    try:
        yield probes
        probes.gone = True
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


class Silent:
    """Connection that sends no whole request, so that it gets no response and has to be closed."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def opened(cls, port: int, begun: bytes = b"") -> "Silent":
        """Open a connection to a port, and send the beginning of a request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(begun)
        await writer.drain()
        return cls(reader, writer)

    async def closed(self) -> bool:
        """Wait for the end of the connection; return whether nothing came before it."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self._reader.read() == b""
            except ConnectionError:
                return True
            finally:
                self._writer.transport.abort()


def admin_port(running: Process) -> int:
    """Return the admin port of a gateway."""
    return int(running.admin.base_url.port or 0)


async def held(side: ServerSide) -> None:
    """Respond with a part of a body, and with its end when the next byte comes."""
    await side.request()
    await side.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n")
    await side.gone()


async def test_every_probe_ends_at_every_stage_of_a_shutdown(tmp_path: Path) -> None:
    """While the gateway serves and drains each probe gets a response; later it gets one, or is closed."""
    config = "gateway: {lameDuckSeconds: 1, drainSeconds: 300}"
    async with (
        serving(held) as server,
        started(tmp_path, server.port, config) as running,
        probed(admin_port(running)) as probes,
    ):
        port, waiting = admin_port(running), []
        probes.stage = "serving"
        client = await running.client()
        await client.send(GET)
        assert (await client.response(head_only=True)).status == 200
        await probes.asked("serving")
        waiting += [await Silent.opened(port), await Silent.opened(port, READY[:20])]

        probes.stage = "leaving"
        running.process.send_signal(signal.SIGTERM)
        await until(lambda: "503" in probes.of("leaving"))
        waiting += [await Silent.opened(port), await Silent.opened(port, READY[:20])]
        async with asyncio.timeout(SECONDS):
            while True:  # until the port for clients is closed
                try:
                    (await running.client()).close()
                except OSError:
                    break
                await asyncio.sleep(0.02)
        probes.stage = "draining"
        await probes.asked("draining", 20)
        waiting += [await Silent.opened(port), await Silent.opened(port, READY[:20])]

        probes.stage = "ending"
        client.reset()
        await until(lambda: "closed" in probes.of("ending") or "refused" in probes.of("ending"))
        assert await running.ended() == 0
        assert all([await one.closed() for one in waiting])
    assert probes.of("serving") <= {"200", "503"}  # the signal may come while a probe is on its way
    assert probes.of("leaving") <= {"200", "503"}
    assert probes.of("draining") == {"503"}
    assert probes.of("ending") <= {"503", "closed", "refused"}


async def test_every_probe_ends_when_connections_are_cut(tmp_path: Path) -> None:
    """At the end of the drain time, and after a second signal, no probe is left without a response or a close."""
    for second in (False, True):
        folder = tmp_path / str(second)
        folder.mkdir()
        config = f"gateway: {{lameDuckSeconds: 0, drainSeconds: {300 if second else 0.3}}}"
        async with (
            serving(held) as server,
            started(folder, server.port, config) as running,
            probed(admin_port(running)) as probes,
        ):
            probes.stage = "serving"
            client = await running.client()
            await client.send(GET)
            assert (await client.response(head_only=True)).status == 200
            idle = await Silent.opened(admin_port(running))
            await probes.asked("serving")
            probes.stage = "ending"
            running.process.send_signal(signal.SIGTERM)
            await probes.asked("ending", 3)
            if second:
                running.process.send_signal(signal.SIGTERM)
            assert await running.ended() == 0
            assert await idle.closed()
        assert probes.of("ending") <= {"200", "503", "closed", "refused"}


async def test_the_first_probes_of_a_start_get_a_response(tmp_path: Path) -> None:
    """A probe that is accepted while the gateway starts gets a response, or is closed where the start is given up."""
    for stopped in (False, True):
        folder = tmp_path / str(stopped)
        folder.mkdir()
        config = "gateway: {lameDuckSeconds: 0, drainSeconds: 1}"
        async with started(folder, config=config, ready=False) as running:
            probes, outcome = Probes(admin_port(running)), "refused"
            async with asyncio.timeout(SECONDS):
                while outcome == "refused":
                    if stopped:
                        waiting = asyncio.create_task(probes.ask())
                        await asyncio.sleep(0.01)
                        if not waiting.done() or waiting.result() != "refused":
                            running.process.send_signal(signal.SIGTERM)
                        outcome = await waiting
                    else:
                        outcome = await probes.ask()
                        await asyncio.sleep(0.005)
            assert outcome in ({"200", "503", "closed"} if stopped else {"200", "503"})
            if stopped:
                assert await running.ended() == 0
