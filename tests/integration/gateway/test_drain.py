"""A gateway that ends: requests finish or get an error, and clients of a load balancer in front notice nothing."""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK

from tests.deadlines import NEVER, SECONDS
from tests.integration.gateway.test_directory_source import config_map, write
from tests.integration.gateway.test_process import GET, started
from tests.integration.gateway.test_websocket import KEY, SWITCH, handshake
from tests.integration.servers import ServerSide, serving, until
from tools.ports import free_port
from tools.repository import ROOT

STREAM: Final = GET.replace(b"/x", b"/stream")


def events(output: Path) -> list[dict[str, Any]]:
    """Return the lines of a program's log."""
    return [json.loads(line) for line in output.read_text().splitlines()]


# The end of the drain time


async def test_rd_07_responses_end_at_the_limit(tmp_path: Path) -> None:
    """RD-07: at the end of the drain time an event stream ends with an error event, any other response breaks off, and
    a request without a response gets a 503."""

    async def script(side: ServerSide) -> None:
        request = await side.request()
        if b"/silent" not in request:
            kind = b"text/event-stream" if b"/stream" in request else b"application/octet-stream"
            head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ntransfer-encoding: chunked\r\n\r\n" % kind
            await side.send(head + b"9\r\ndata: a\n\n\r\n")
        await side.gone()

    config = "gateway: {lameDuckSeconds: 0, drainSeconds: 0.5}"
    async with serving(script) as server, started(tmp_path, server.port, config) as running:
        stream, raw, silent = [await running.client() for _ in range(3)]
        await stream.send(STREAM)
        assert (await stream.response(head_only=True)).status == 200
        await raw.send(GET)
        assert (await raw.response(head_only=True)).status == 200
        await silent.send(GET.replace(b"/x", b"/silent"))
        await until(lambda: len(server.sides) == 3 and bool(server.sides[2].received))
        running.process.send_signal(signal.SIGTERM)
        end = await stream.ended()
        assert b'"code":"gateway_stopping"' in end
        assert not end.endswith(b"0\r\n\r\n")
        assert not (await raw.ended()).endswith(b"0\r\n\r\n")
        response = await silent.response()
        assert (response.status, response.code, response.complete) == (503, "gateway_stopping", True)
        for client in (stream, raw, silent):
            client.close()
        assert await running.ended() == 0
        assert "connections_cut" in [line["event"] for line in events(running.errors)]
        lines = [json.loads(line) for line in running.output.read_text().splitlines()]
        assert sorted(str(line["broken"] or line["code"]) for line in lines) == ["gateway_stopping"] * 3


async def test_rd_07_websockets_get_a_close_frame_at_the_limit(tmp_path: Path) -> None:
    """RD-07: at the end of the drain time both sides of a WebSocket get a close frame with code 1001."""
    seen: list[int | None] = []

    async def chatter(connection: ServerConnection) -> None:
        try:
            while True:
                await connection.send(b"x" * 5000)
                await asyncio.sleep(0.001)
        except ConnectionClosed:
            await connection.wait_closed()
            seen.append(connection.close_code)

    config = "gateway: {lameDuckSeconds: 0, drainSeconds: 0.5}"
    async with serve(chatter, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with started(tmp_path, port, config) as running:
            url = f"ws://127.0.0.1:{running.port}/default/demo/live"
            async with connect(url, proxy=None) as client:
                await client.recv()
                running.process.send_signal(signal.SIGTERM)
                with pytest.raises(ConnectionClosedOK):  # noqa: PT012 - which 1001 is
                    async with asyncio.timeout(SECONDS):
                        while True:
                            assert await client.recv() == b"x" * 5000
                assert client.close_code == 1001
            assert await running.ended() == 0
            await until(lambda: seen == [1001])


async def test_rd_07_a_websocket_within_a_frame_is_cut(tmp_path: Path) -> None:
    """RD-07: at the end of the drain time the side of a WebSocket on which a frame has begun is cut, and the other gets
    a close frame."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(SWITCH + b"\x82\x7e\x10\x00half")
        await side.gone()

    config = "gateway: {lameDuckSeconds: 0, drainSeconds: 0.3}"
    async with serving(script) as server, started(tmp_path, server.port, config) as running:
        client = await running.client()
        await client.send(handshake(key=KEY))
        await client.switched()
        running.process.send_signal(signal.SIGTERM)
        assert await client.ended() == b"\x82\x7e\x10\x00half"
        assert await running.ended() == 0
        await until(lambda: len(server.sides[0].received.partition(b"\r\n\r\n")[2]) == 8)
        frame = server.sides[0].received.partition(b"\r\n\r\n")[2]
        assert frame[:2] == b"\x88\x82"
        assert bytes(one ^ other for one, other in zip(frame[6:], frame[2:6], strict=False)) == b"\x03\xe9"


async def test_rd_07_a_websocket_that_ends_in_time_is_let_end(tmp_path: Path) -> None:
    """RD-07: a WebSocket that closes before the end of the drain time goes on until its own close."""

    async def echo(connection: ServerConnection) -> None:
        async for message in connection:
            await connection.send(message)

    config = "gateway: {lameDuckSeconds: 0.3, drainSeconds: 300}"
    async with serve(echo, "127.0.0.1", 0) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        async with started(tmp_path, port, config) as running:
            async with connect(f"ws://127.0.0.1:{running.port}/default/demo/live", proxy=None) as client:
                running.process.send_signal(signal.SIGTERM)
                with pytest.raises(OSError):  # noqa: PT012 - until the port is closed
                    while True:
                        (await running.client()).close()
                        await asyncio.sleep(0.02)
                await client.send("late")
                assert await client.recv() == "late"
                assert running.process.returncode is None
            assert client.close_code == 1000
            assert await running.ended() == 0
            assert "connections_cut" not in running.errors.read_text()


async def test_rd_08_a_signal_while_starting_or_reloading(tmp_path: Path) -> None:
    """RD-08: SIGTERM in the middle of changes of routes ends the gateway in order."""
    config = "gateway: {lameDuckSeconds: 0.2, drainSeconds: 300}"
    async with started(tmp_path, config=config) as running:
        for number in range(30):
            write(running.routes / "demo.yaml", config_map(f"demo-{number}"))
            if number == 15:
                running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
        assert [line["event"] for line in events(running.errors)][-1] == "stopped"


# Rolling restarts behind a load balancer


@dataclass
class Load:
    """Requests at a constant rate, each of which gets the right response or is a failure.

    On a busy machine the rate is lower: late requests do not come in a burst, and no more than `most` are open. More
    than the machine can serve would only wait, for ever longer.
    """

    port: int
    most: int = 50
    kinds: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def run(self, over: asyncio.Event, every: float = 0.02) -> None:
        """Start a request each `every` seconds until `over`, one in ten a stream of a second; then let all finish."""
        limits = httpx.Limits(max_connections=500, max_keepalive_connections=30)
        async with httpx.AsyncClient(
            base_url=f"http://127.0.0.1:{self.port}", limits=limits, timeout=SECONDS, trust_env=False
        ) as client:
            loop, number = asyncio.get_running_loop(), 0
            at = loop.time()
            while not over.is_set():
                task = asyncio.create_task(self._one(client, number))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
                number += 1
                at = max(at + every, loop.time())
                await asyncio.sleep(at - loop.time())
                if len(self._tasks) >= self.most:
                    await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*self._tasks)

    async def _one(self, client: httpx.AsyncClient, number: int) -> None:
        kind = "stream" if number % 10 == 0 else "post" if number % 3 == 0 else "get"
        self.kinds[kind] += 1
        target = f"/default/demo/{kind}?number={number}"
        try:
            if kind == "post":
                response = await client.post(target, content=f"body {number}" * 100)
            else:
                response = await client.get(target)
        except httpx.HTTPError as exc:
            self.failures.append(f"{kind} {number}: {exc!r}")
            return
        expected = f"{number}:0 {number}:1 {number}:2 {number}:3 {number}:4 " if kind == "stream" else f"{number}"
        if response.status_code != 200 or response.text != expected:
            self.failures.append(f"{kind} {number}: {response.status_code} {response.text[:80]!r}")


async def model(side: ServerSide) -> None:
    """Respond with the number of each request, to a stream five times within a second."""
    while True:
        request = await side.request()
        number = request.partition(b"number=")[2].partition(b" ")[0]
        if b"/stream" not in request.partition(b"\r\n")[0]:
            await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(number), number))
            continue
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ntransfer-encoding: chunked\r\n\r\n")
        for turn in range(5):
            piece = b"%b:%d " % (number, turn)
            await side.send(b"%x\r\n%b\r\n" % (len(piece), piece))
            await asyncio.sleep(0.2)
        await side.send(b"0\r\n\r\n")


HAPROXY: Final = """\
global
  maxconn 2000
defaults
  mode http
  option log-health-checks
  timeout connect {seconds:g}s
  timeout client {seconds:g}s
  timeout server {seconds:g}s
  timeout check 20s
  option redispatch
  retries 2
frontend clients
  bind 127.0.0.1:{port}
  default_backend gateways
backend gateways
  option httpchk GET /readyz
  http-check expect status 200
  default-server check inter 200ms fall 1 rise 1
  server one 127.0.0.1:{one} port {one_admin}
  server two 127.0.0.1:{two} port {two_admin}
"""

NGINX: Final = """\
daemon off;
pid {folder}/nginx.pid;
error_log {folder}/nginx.log warn;
worker_processes 1;
events {{ worker_connections 2000; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  upstream gateways {{
    server 127.0.0.1:{one} max_fails=0;
    server 127.0.0.1:{two} max_fails=0;
    keepalive 16;
  }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://gateways;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $http_host;
      proxy_connect_timeout {seconds:g}s;
      proxy_read_timeout {seconds:g}s;
      proxy_buffering off;
    }}
  }}
}}
"""


@asynccontextmanager
async def balancer(kind: str, folder: Path, ports: dict[str, int]) -> AsyncIterator[int]:
    """Run HAProxy, which probes /readyz, or nginx, which notices a closed port, and yield its port."""
    program = shutil.which(kind, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if program is None:
        pytest.skip(f"{kind} is not installed")
    port = free_port()
    config = folder / f"{kind}.conf"
    config.write_text(
        (HAPROXY if kind == "haproxy" else NGINX).format(folder=folder, port=port, seconds=SECONDS, **ports)
    )
    words = ("-db", "-f", str(config)) if kind == "haproxy" else ("-c", str(config), "-p", str(folder))
    with (folder / "balancer.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(program, *words, stdout=log, stderr=log)
    try:
        yield port
    finally:
        process.terminate()
        await process.wait()


@asynccontextmanager
async def member(
    folder: Path, backend: int, port: int, admin: int
) -> AsyncIterator[Callable[[], "asyncio.Future[int]"]]:
    """Run a gateway, and yield a function that ends it with SIGTERM and starts a new one on its ports."""
    folder.mkdir()
    write(folder / "routes/demo.yaml", config_map())
    (folder / "config.yaml").write_text(
        "gateway: {lameDuckSeconds: 3, drainSeconds: 30, timeouts: {localConnectSeconds: 60}}"
    )
    process: asyncio.subprocess.Process | None = None

    async def start() -> None:
        nonlocal process
        with (folder / "output").open("ab") as out, (folder / "errors").open("ab") as err:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "gateway", "--config", str(folder / "config.yaml")),
                *("--routes", str(folder / "routes"), "--listen", f"127.0.0.1:{port}"),
                *("--admin", f"127.0.0.1:{admin}"),
                *("--resolve", f"demo-local.default.svc.cluster.local:80=127.0.0.1:{backend}"),
                cwd=ROOT, stdout=out, stderr=err,
            )  # fmt: skip
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(SECONDS):
            while True:
                try:
                    if (await client.get(f"http://127.0.0.1:{admin}/readyz")).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.02)

    async def restart() -> int:
        assert process is not None
        process.send_signal(signal.SIGTERM)
        code = await asyncio.wait_for(process.wait(), SECONDS)
        await start()
        return code

    await start()
    try:
        yield lambda: asyncio.ensure_future(restart())
    finally:
        if process is not None and process.returncode is None:
            process.kill()
            await process.wait()


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
async def test_c7_a_rolling_restart_fails_no_request(tmp_path: Path, kind: str) -> None:
    """C7: no request fails when two gateways behind a load balancer are restarted one after the other under load."""
    ports = {name: free_port() for name in ("one", "one_admin", "two", "two_admin")}

    def served(name: str) -> int:
        return (tmp_path / name / "output").read_text().count('"status":200')

    async with (
        serving(model) as backend,
        member(tmp_path / "one", backend.port, ports["one"], ports["one_admin"]) as restart_one,
        member(tmp_path / "two", backend.port, ports["two"], ports["two_admin"]) as restart_two,
        balancer(kind, tmp_path, ports) as port,
    ):
        async with httpx.AsyncClient(trust_env=False) as client, asyncio.timeout(SECONDS):
            while True:
                try:
                    if (await client.get(f"http://127.0.0.1:{port}/default/demo/get?number=0")).status_code == 200:
                        break
                except httpx.TransportError:
                    pass
                await asyncio.sleep(0.05)
        load, over = Load(port), asyncio.Event()
        running = asyncio.create_task(load.run(over))
        began = time.monotonic()
        for name, restart in (("one", restart_one), ("two", restart_two)):
            assert await restart() == 0
            before = served(name)
            await until(lambda name=name, before=before: served(name) > before)  # type: ignore[misc]
        # Both had their share, of enough requests.
        await until(lambda: load.kinds.total() > 100 and all(served(name) > 50 for name in ("one", "two")), NEVER)
        over.set()
        await running
        seconds = time.monotonic() - began
        print((tmp_path / "balancer.log").read_text()[-4000:])  # how the health checks went
        print(f"{kind}: {dict(load.kinds)} in {seconds:.1f} s, {len(load.failures)} failed")
        assert load.failures == []
        logged = [(tmp_path / name / "errors").read_text() for name in ("one", "two")]
        assert not any("connections_cut" in text for text in logged)


async def test_c7_long_streams_are_cut_visibly(tmp_path: Path) -> None:
    """C7: of many open event streams, short ones complete during drain and long ones end with an error event."""
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        while True:
            request = await side.request()
            await side.send(
                b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
                b"9\r\ndata: a\n\n\r\n"
            )
            if b"/long" in request:
                await side.gone()
                return
            await go.wait()
            await side.send(b"9\r\ndata: b\n\n\r\n0\r\n\r\n")

    config = "gateway: {lameDuckSeconds: 0.5, drainSeconds: 5}"
    async with serving(script) as server, started(tmp_path, server.port, config) as running:
        clients = []
        for number in range(200):
            client = await running.client()
            clients.append((number % 4 == 0, client))
            await client.send(GET.replace(b"/x", b"/long" if number % 4 == 0 else b"/short"))
        for _, client in clients:
            assert (await client.response(head_only=True)).status == 200
        running.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(SECONDS):
            while await running.ready() == 200:
                await asyncio.sleep(0.02)
        go.set()
        ends = await asyncio.gather(*(client.ended() for _, client in clients))
        for (is_long, client), end in zip(clients, ends, strict=True):
            assert end.endswith(b"0\r\n\r\n") is not is_long
            assert (b"gateway_stopping" in end) is is_long
            client.close()
        assert await running.ended() == 0
