"""The gateway as a process, as users run it: flags, files, signals and the admin port."""

import asyncio
import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.api.v1alpha1 import Tls
from tests.authorities import Authority
from tests.deadlines import SECONDS
from tests.integration.gateway.test_directory_source import config_map, write
from tests.integration.gateway.wire import Client, echo
from tests.integration.servers import ServerSide, serving, until
from tests.processes import self_signed
from tools.ports import free_port
from tools.repository import ROOT

GET = b"GET /default/demo/x HTTP/1.1\r\nHost: gateway\r\n\r\n"


@dataclass
class Process:
    """Gateway that runs as a process."""

    process: asyncio.subprocess.Process
    port: int
    admin: httpx.AsyncClient
    routes: Path
    output: Path
    errors: Path
    clients: list[Client] = field(default_factory=list)

    async def client(self, context: ssl.SSLContext | None = None) -> Client:
        """Open a connection for clients."""
        name = "localhost" if context is not None else None
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name))
        self.clients.append(client)
        return client

    async def ask(self, request: bytes = GET) -> Any:
        """Send one request on a new connection; return the response."""
        client = await self.client()
        await client.send(request)
        response = await client.response()
        client.close()
        return response

    async def ready(self) -> int:
        """Return the status of /readyz."""
        return (await self.admin.get("/readyz")).status_code

    async def ended(self) -> int:
        """Wait until the process ends; return its exit code."""
        async with asyncio.timeout(SECONDS):
            return await self.process.wait()


@asynccontextmanager
async def started(
    folder: Path,
    backend: int = 1,
    config: str = "",
    environment: dict[str, str] | None = None,
    *,
    ready: bool = True,
    host: str = "127.0.0.1",
    local: Mapping[str, Any] | None = None,
    prefix: Sequence[str] = (),
) -> AsyncIterator[Process]:
    """Yield a gateway with the route `default/demo` to the port `backend`, by default when it is ready.

    Fields in `local` are those of the backend in the route. The words of `prefix` stand before the command.
    """
    port, admin = free_port(), free_port()
    routes = folder / "routes"
    write(routes / "demo.yaml", config_map(**(local or {})))
    (folder / "config.yaml").write_text(config)
    output, errors = folder / "output", folder / "errors"
    with output.open("wb") as out, errors.open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            *(*prefix, sys.executable, "-m", "gateway"),
            *("--config", str(folder / "config.yaml"), "--routes", str(routes)),
            *("--listen", f"{host}:{port}", "--admin", f"127.0.0.1:{admin}"),
            *("--resolve", f"demo-local.default.svc.cluster.local:80=127.0.0.1:{backend}"),
            cwd=ROOT,
            env=os.environ | (environment or {}),
            stdout=out,
            stderr=err,
        )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{admin}", trust_env=False) as client:
        running = Process(process, port, client, routes, output, errors)
        try:
            async with asyncio.timeout(SECONDS):
                while ready:
                    try:
                        if await running.ready() == 200:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.02)
            yield running
        finally:
            if process.returncode is None:
                process.kill()
            await process.wait()
            for one in running.clients:
                one.reset()


def gateway(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command to its end; return its output and exit code."""
    return subprocess.run(
        [sys.executable, "-m", "gateway", *words], cwd=ROOT, capture_output=True, text=True, timeout=SECONDS
    )


async def until_ready_is(running: Process, status: int) -> None:
    """Poll /readyz until it has this status."""
    async with asyncio.timeout(SECONDS):
        while await running.ready() != status:
            await asyncio.sleep(0.02)


def test_help_names_every_flag() -> None:
    """`--help` names every flag and the page of the other settings."""
    response = gateway("--help")
    assert response.returncode == 0
    for word in ("--config", "--routes", "--listen", "--admin", "--resolve", "docs/configuration.md"):
        assert word in response.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "there is no source of routes: set --routes to a directory, or --kubeconfig, or run in a cluster."),
        (["--routes", "/none"], "--routes /none is not a directory."),
        (["--kubeconfig", "/none"], "--kubeconfig /none cannot be used: "),
        (["--config", "/none.yaml"], "--config /none.yaml cannot be read: No such file or directory."),
        (["--routes", "/tmp", "--resolve", "x"], "gateway.resolve: "),
        (
            ["--routes", "/tmp", "--listen", "x"],
            "gateway.listen is 'x', and must be host:port, such as 127.0.0.1:8080 or [::]:8080.",
        ),
    ],
)
def test_a_configuration_that_cannot_be_used(words: list[str], sentence: str) -> None:
    """A configuration that cannot be used is one sentence on standard error, and exit code 2."""
    ports = ("--listen", f"127.0.0.1:{free_port()}", "--admin", f"127.0.0.1:{free_port()}")  # another may have 8080
    response = gateway(*ports, *words)
    assert response.returncode == 2
    assert response.stderr.startswith(f"gateway: {sentence}")
    assert response.stderr.count("\n") == 1


@pytest.mark.parametrize("flag", ["--listen", "--admin"])
def test_an_occupied_port_is_one_clear_line(flag: str, tmp_path: Path) -> None:
    """An address in use is one line with the flag, the address and the reason, and exit code 1."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        taken = f"127.0.0.1:{sock.getsockname()[1]}"
        other = {"--listen": "--admin", "--admin": "--listen"}[flag]
        response = gateway("--routes", str(tmp_path), flag, taken, other, "127.0.0.1:0")
    line = f"gateway: {flag} {taken} cannot be used: address already in use; free it or choose another.\n"
    assert (response.returncode, response.stderr) == (1, line)


def test_a_missing_certificate(tmp_path: Path) -> None:
    """A missing certificate is one line that names the setting, and exit code 1."""
    (tmp_path / "c.yaml").write_text(f"gateway: {{tls: {{certFile: {tmp_path}/no, keyFile: {tmp_path}/no}}}}")
    words = ("--config", str(tmp_path / "c.yaml"), "--routes", str(tmp_path))
    response = gateway(*words, "--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0")
    assert response.returncode == 1
    assert "gateway.tls" in response.stderr.splitlines()[-1]


async def test_it_serves_the_routes_of_a_directory(tmp_path: Path) -> None:
    """A route in the directory is served, an edit is applied, and the admin port shows both and errors."""
    async with serving(echo) as server, started(tmp_path, server.port) as running:
        assert (await running.ask()).status == 200
        write(running.routes / "demo.yaml", config_map("renamed"))
        async with asyncio.timeout(SECONDS):
            while (await running.ask()).status != 404:
                await asyncio.sleep(0.02)
        state = (await running.admin.get("/routes")).json()
        assert state["loaded"] is True
        (route,) = state["routes"]
        assert (route["name"], route["origin"]) == ("renamed", str(running.routes / "demo.yaml"))
        assert route["hash"]
        assert route["since"].endswith("Z")
        (running.routes / "demo.yaml").write_text("a: [")
        async with asyncio.timeout(SECONDS):
            while not (state := (await running.admin.get("/routes")).json())["sourceErrors"]:
                await asyncio.sleep(0.02)
        assert state["routes"][0]["inForce"] is True
        assert "not YAML" in state["sourceErrors"][str(running.routes / "demo.yaml")]
        page = (await running.admin.get("/")).text
        assert "renamed" in page
        assert "not YAML" in page


async def test_se_19_the_two_ports_have_nothing_in_common(tmp_path: Path) -> None:
    """SE-19: no path on the clients' port reaches the admin pages, and no route the admin port."""
    async with started(tmp_path) as running:
        assert (await running.admin.get("/healthz")).status_code == 200
        for target in (b"/healthz", b"/readyz", b"/metrics", b"/routes", b"//metrics", b"/default/demo/../metrics"):
            response = await running.ask(b"GET " + target + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
            assert response.status in (400, 404)
        assert (await running.admin.get("/default/demo/x")).status_code == 404


async def test_se_18_labels_come_from_the_routing_table(tmp_path: Path) -> None:
    """SE-18: the number of series stays the same, whatever paths and hosts clients request."""
    async with serving(echo) as server, started(tmp_path, server.port) as running:

        async def series() -> set[str]:
            text = (await running.admin.get("/metrics")).text
            return {line.split(" ")[0] for line in text.splitlines() if not line.startswith("#")}

        async def storm(seed: str) -> None:
            for number in range(40):
                path = f"/{seed}-{number}/x".encode()
                await running.ask(b"GET " + path + b" HTTP/1.1\r\nHost: " + seed.encode() + b"\r\n\r\n")
                await running.ask(GET.replace(b"/x", path))

        await storm("warm")
        before = await series()
        await storm("canary")
        assert await series() == before


@pytest.mark.parametrize("strict", [False, True])
async def test_strict_verification_is_a_setting(tmp_path: Path, *, strict: bool) -> None:
    """An authority without key usage and key identifiers is trusted, unless `tls.strict` is set."""
    bare = Authority("bare", bare=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*bare.issue("demo-local.default.svc.cluster.local").write(tmp_path, "server"))
    local = {"scheme": "https", "tls": Tls(ca_bundle=bare.pem)}
    config = f"tls: {{strict: {str(strict).lower()}}}"
    async with serving(echo, context) as server, started(tmp_path, server.port, config, local=local) as running:
        response = await running.ask()
        assert response.status == (502 if strict else 200)
        assert not strict or response.code == "tls_failed"


async def test_se_16_variables_of_other_programs_do_not_count(tmp_path: Path) -> None:
    """SE-16: variables for a proxy or certificates in the environment have no effect."""
    environment = {"HTTP_PROXY": "http://127.0.0.1:9", "http_proxy": "http://127.0.0.1:9", "SSL_CERT_FILE": "/none"}
    async with serving(echo) as server, started(tmp_path, server.port, environment=environment) as running:
        assert (await running.ask()).status == 200


async def test_rd_07_rd_08_rd_09_sigterm_ends_the_gateway_in_order(tmp_path: Path) -> None:
    """RD-07, RD-09: after SIGTERM the gateway is not ready, serves on, lets a stream finish, and exits with 0."""
    go = asyncio.Event()

    async def script(side: ServerSide) -> None:
        while True:
            if b"/stream" not in await side.request():
                await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                continue
            await side.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
            await go.wait()
            await side.send(b"0\r\n\r\n")

    config = "gateway: {lameDuckSeconds: 1, drainSeconds: 5}"
    async with serving(script) as server, started(tmp_path, server.port, config) as running:
        idle, busy = await running.client(), await running.client()
        await idle.send(GET)
        assert (await idle.response()).value(b"connection") is None
        await busy.send(GET.replace(b"/x", b"/stream"))
        assert (await busy.response(head_only=True)).status == 200
        running.process.send_signal(signal.SIGTERM)
        await until_ready_is(running, 503)
        response = await running.ask()  # on a new connection, in the lame-duck time
        assert (response.status, response.value(b"connection")) == (200, b"close")
        assert await idle.ended() == b""  # closed when draining begins
        with pytest.raises(ConnectionRefusedError):
            await running.client()
        assert running.process.returncode is None
        go.set()
        assert (await busy.ended()).endswith(b"0\r\n\r\n")
        busy.close()
        assert await running.ended() == 0
        events = [json.loads(line)["event"] for line in running.errors.read_text().splitlines()]
        assert events[-2:] == ["signal", "stopped"]


@pytest.mark.parametrize("second", [signal.SIGTERM, signal.SIGINT])
async def test_rd_08_a_second_signal_ends_at_once(tmp_path: Path, second: signal.Signals) -> None:
    """RD-08: a second signal ends the gateway at once, without lame-duck time and drain."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await side.gone()

    config = "gateway: {lameDuckSeconds: 600, drainSeconds: 600}"
    async with serving(script) as server, started(tmp_path, server.port, config) as running:
        client = await running.client()
        await client.send(GET)
        assert (await client.response(head_only=True)).status == 200
        running.process.send_signal(signal.SIGTERM)
        await until_ready_is(running, 503)
        running.process.send_signal(second)
        assert await running.ended() == 0
        assert not (await client.ended()).endswith(b"0\r\n\r\n")


async def test_rd_08_sigint_skips_the_lame_duck(tmp_path: Path) -> None:
    """RD-08: SIGINT ends an idle gateway at once."""
    async with started(tmp_path, config="gateway: {lameDuckSeconds: 600}") as running:
        running.process.send_signal(signal.SIGINT)
        assert await running.ended() == 0


async def test_the_drain_has_a_limit(tmp_path: Path) -> None:
    """A stream that outlasts the drain time is cut, and the log says so."""

    async def script(side: ServerSide) -> None:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await side.gone()

    config = "gateway: {lameDuckSeconds: 0, drainSeconds: 0.3}"
    async with serving(script) as server, started(tmp_path, server.port, config) as running:
        client = await running.client()
        await client.send(GET)
        assert (await client.response(head_only=True)).status == 200
        running.process.send_signal(signal.SIGTERM)
        assert await running.ended() == 0
        assert "connections_cut" in running.errors.read_text()


async def test_rd_15_blocked_standard_output(tmp_path: Path) -> None:
    """RD-15: no request is delayed while standard output is blocked."""
    port, admin = free_port(), free_port()
    write(tmp_path / "routes/demo.yaml", config_map())
    command = (sys.executable, "-m", "gateway", "--routes", str(tmp_path / "routes"), "--listen", f"127.0.0.1:{port}",
               "--admin", f"127.0.0.1:{admin}")  # fmt: skip
    process = await asyncio.create_subprocess_exec(
        *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL, limit=1
    )
    client: Client | None = None
    try:
        async with asyncio.timeout(SECONDS):
            while client is None:
                try:
                    client = Client(*await asyncio.open_connection("127.0.0.1", port))
                except OSError:
                    await asyncio.sleep(0.02)
        for _ in range(3000):  # far more lines than a pipe can contain; each response has a deadline of its own
            await client.send(b"GET /v1/models HTTP/1.1\r\nHost: gateway\r\n\r\n")
            assert (await client.response()).status == 200
    finally:
        if client is not None:
            client.reset()
        process.kill()
        await process.communicate()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
async def test_tls_at_the_edge(tmp_path: Path) -> None:
    """With a certificate the gateway serves clients over TLS only, and uses a renewed certificate at once."""
    certificate, key = self_signed(tmp_path)
    config = f"gateway: {{tls: {{certFile: {certificate}, keyFile: {key}}}}}"
    async with serving(echo) as server, started(tmp_path, server.port, config) as running:
        context = ssl.create_default_context(cafile=str(certificate))
        client = await running.client(context)
        for _ in range(3):
            await client.send(GET)
            response = await client.response()
            assert response.status == 200
            assert b"x-forwarded-proto: https\r\n" in response.body
        await client.send(GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        assert (await client.response()).complete
        client.close()
        listener = 'beamlit_gateway_certificate_end_timestamp_seconds{certificate="listener",name="cert.pem"}'
        assert listener in (await running.admin.get("/metrics")).text
        old = await running.client(context)
        await old.send(b"GET /default/demo/x HTTP/1.0\r\nHost: gateway\r\n\r\n")
        assert (await old.response()).complete
        assert await old.ended() == b""
        plain = await running.client()
        await plain.send(GET)
        assert not (await plain.ended()).startswith(b"HTTP/1.1 200")
        (tmp_path / "renewed").mkdir()
        for path in self_signed(tmp_path / "renewed"):
            path.rename(tmp_path / path.name)
        client = await running.client(ssl.create_default_context(cafile=str(certificate)))
        await client.send(GET)
        assert (await client.response()).status == 200


async def test_tls_is_renewed_under_load(tmp_path: Path) -> None:
    """C6: six renewals, one of them with a key that does not match at first, fail no request of thirty clients.

    Files are renewed as a kubelet does it, by swapping a symlink. Half of the clients keep their connection, the others
    open one for each request.
    """
    authority = Authority("root")
    context = ssl.create_default_context(cadata=authority.pem)
    numbers: set[str] = set()
    served = 0
    failures: list[BaseException | int] = []
    over = asyncio.Event()

    def swap(number: int, key: str | None = None) -> None:
        version = tmp_path / f"version-{number}-{key is None}"
        version.mkdir()
        pair = authority.issue("localhost", common_name=f"number {number}")
        (version / "tls.crt").write_text(pair.chain)
        (version / "tls.key").write_text(key or pair.key)
        link = tmp_path / "next"
        link.symlink_to(version)
        link.rename(tmp_path / "data")

    async def send_requests(keeps_connection: bool) -> None:
        nonlocal served
        client: Client | None = None
        try:
            while not over.is_set():
                if client is None:
                    client = Client(
                        *await asyncio.open_connection(
                            "127.0.0.1", running.port, ssl=context, server_hostname="localhost"
                        )
                    )
                    numbers.add(client.writer.get_extra_info("ssl_object").getpeercert()["subject"][0][0][1])
                await client.send(GET)
                response = await client.response()
                served += 1
                if response.status != 200 or not response.complete:
                    failures.append(response.status)
                if not keeps_connection:
                    client.close()
                    client = None
        except (OSError, TimeoutError, ssl.SSLError) as exc:
            failures.append(exc)
        finally:
            if client is not None:
                client.reset()

    swap(0)
    config = f"gateway: {{tls: {{certFile: {tmp_path}/data/tls.crt, keyFile: {tmp_path}/data/tls.key}}}}"
    async with serving(echo) as server, started(tmp_path, server.port, config) as running:
        tasks = [asyncio.create_task(send_requests(number % 2 == 0)) for number in range(30)]
        await until(lambda: bool(numbers))
        for number in range(1, 7):
            if number == 3:
                swap(number, authority.issue("localhost").key)  # a key that does not match
                await asyncio.sleep(0.1)
            swap(number)
            await until(lambda: len(numbers) > number or bool(failures))  # noqa: B023 - called at once
        over.set()
        await asyncio.wait_for(asyncio.gather(*tasks), SECONDS)
        assert failures == []
        assert numbers == {f"number {number}" for number in range(7)}
        assert served > 100


async def test_both_families_reach_one_port(tmp_path: Path) -> None:
    """On `[::]` clients of IPv4 and IPv6 are served, and the backend gets their own addresses."""
    async with serving(echo) as server, started(tmp_path, server.port, host="[::]") as running:
        assert b"x-forwarded-for: 127.0.0.1\r\n" in (await running.ask()).body
        try:
            client = Client(*await asyncio.open_connection("::1", running.port))
        except OSError:
            pytest.skip("there is no IPv6")
        running.clients.append(client)
        await client.send(GET)
        assert b"x-forwarded-for: ::1\r\n" in (await client.response()).body
