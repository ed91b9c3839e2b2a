"""The gateway's data path on a real socket, and a client that sends bytes exactly as a test writes them.

Responses are parsed with h11, a parser that the gateway does not use, as a second opinion on every byte it sends.
"""

import asyncio
import io
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from math import inf
from typing import Any

import h11
import orjson

from gateway.__main__ import server_limits
from gateway.access.directory import KeyDirectory
from gateway.access.model_keys import ModelKeys
from gateway.access.rules import CallerRules
from gateway.access.tokens import Tokens
from gateway.api.v1alpha1 import Backend, RouteDocument
from gateway.backends.endpoints import EndpointTable
from gateway.credentials.cache import Credentials
from gateway.credentials.secrets import SecretReader
from gateway.downstream.budget import MemoryBudget
from gateway.downstream.server import HttpServer
from gateway.drill.drills import Drills
from gateway.journal import Journal
from gateway.plan import cors_rule
from gateway.proxy import Proxy
from gateway.routes import sources
from gateway.routes.store import RouteStore
from gateway.settings import Settings
from gateway.telemetry import AccessLog, Metrics
from gateway.tracing.spans import Tracer
from gateway.upstream.connection import Upstream
from gateway.upstream.name_server import NameServer
from gateway.upstream.resolver import Resolver
from program.addresses import AddressRules
from program.oauth.credentials import ClientCredentials
from tests.deadlines import NEVER, SECONDS
from tests.integration.servers import ScriptedServer, ServerSide

UNHURRIED = dict.fromkeys(
    ("connectSeconds", "localConnectSeconds", "headSeconds", "bodySeconds", "writeStallSeconds"), SECONDS
)
"""Times that a gateway under test gives others: those of production are short for a busy machine."""


@dataclass
class Response:
    """Response as h11 parsed it."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    complete: bool = False
    interim: list[int] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        """Return all values of a field, by its name in lower case."""
        return [value for key, value in self.fields if key == name]

    def value(self, name: bytes) -> bytes | None:
        """Return the value of a field that occurs at most once; None when it does not."""
        values = self.values(name)
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def code(self) -> str:
        """Code of the gateway's own error response."""
        return str(orjson.loads(self.body)["error"]["code"])


class Client:
    """Client with one connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._rest = b""

    async def send(self, *pieces: bytes) -> None:
        """Send each piece as a segment of its own, which the gateway has read before the next is sent."""
        for piece in pieces:
            self.writer.write(piece)
            for _ in range(6):  # turns of the event loop, on which the gateway runs, too
                await asyncio.sleep(0)

    async def response(self, method: bytes = b"GET", *, head_only: bool = False) -> Response:
        """Read one response; return a broken one with `complete` false.

        Args:
            method: Method of the request; a response to HEAD has no body.
            head_only: Whether to return once the head is read and leave the rest to be read.
        """
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        if self._rest:  # an empty value would mean the end
            connection.receive_data(self._rest)
        self._rest = b""
        response = Response(0, [])
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    event = connection.next_event()
                except h11.RemoteProtocolError:
                    return response  # the connection ended within the message
                if event is h11.NEED_DATA:
                    try:
                        connection.receive_data(await self.reader.read(65536))
                    except ConnectionError:
                        return response
                elif isinstance(event, h11.InformationalResponse):
                    response.interim.append(event.status_code)
                elif isinstance(event, h11.Response):
                    response.status = event.status_code
                    response.fields = [(bytes(name), bytes(value)) for name, value in event.headers]
                    if head_only:
                        self._rest = connection.trailing_data[0]
                        return response
                elif isinstance(event, h11.Data):
                    response.body += event.data
                elif isinstance(event, h11.EndOfMessage):
                    response.complete = True
                    self._rest = connection.trailing_data[0]
                    return response
                else:
                    return response

    async def switched(self) -> Response:
        """Read the 101 response to an opening handshake; later bytes are left to be read."""
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method="GET", target="/", headers=[("host", "x"), ("upgrade", "websocket")]))
        connection.send(h11.EndOfMessage())
        async with asyncio.timeout(SECONDS):
            connection.receive_data(await self.reader.readuntil(b"\r\n\r\n"))
        event = connection.next_event()
        assert isinstance(event, h11.InformationalResponse), event
        assert event.status_code == 101
        return Response(101, [(bytes(name), bytes(value)) for name, value in event.headers])

    async def ended(self) -> bytes:
        """Return all bytes until the gateway closes or resets the connection."""
        rest, self._rest = self._rest, b""
        async with asyncio.timeout(SECONDS):
            try:
                while data := await self.reader.read(65536):
                    rest += data
            except ConnectionError:
                pass
        return rest

    async def some(self) -> bytes:
        """Return bytes that were read already, or the next ones."""
        rest, self._rest = self._rest, b""
        if rest:
            return rest
        async with asyncio.timeout(SECONDS):
            return await self.reader.read(65536)

    def close(self) -> None:
        """Close the connection."""
        self.writer.close()

    def reset(self) -> None:
        """Reset the connection."""
        self.writer.transport.abort()


@dataclass
class Running:
    """Gateway in this process, on a real socket."""

    port: int
    server: HttpServer
    store: RouteStore
    upstream: Upstream
    metrics: Metrics
    log: io.StringIO
    journal: Journal
    memory: MemoryBudget
    drills: Drills
    _clients: list[Client]

    async def client(self, context: ssl.SSLContext | None = None) -> Client:
        """Open a connection, which is closed with the gateway."""
        name = "localhost" if context is not None else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)
        client = Client(reader, writer)
        self._clients.append(client)
        return client

    async def ask(self, *pieces: bytes, method: bytes = b"GET") -> Response:
        """Send one request on a new connection; return the response."""
        client = await self.client()
        await client.send(*pieces)
        return await client.response(method)

    async def post(self, target: bytes, body: bytes, *fields: bytes) -> Response:
        """Send a POST with a JSON body to `target` of host `gateway`; return the response."""
        lines = (b"Host: gateway", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *fields)
        return await self.ask(b"POST %b HTTP/1.1\r\n%b\r\n\r\n%b" % (target, b"\r\n".join(lines), body), method=b"POST")

    def load(self, *documents: RouteDocument, namespace: str = "default") -> None:
        """Bring documents into force instead of all others."""
        self.store.loaded.clear()  # so that they are in force at once
        self.store.apply(snapshot(documents, namespace))

    def load_all(self, documents: Mapping[str, Iterable[RouteDocument]]) -> None:
        """Bring documents into force, by their namespaces, instead of all others."""
        maps = [one for namespace, those in documents.items() for one in snapshot(those, namespace).config_maps]
        self.store.loaded.clear()
        self.store.apply(sources.Snapshot(maps))

    def lines(self) -> list[dict[str, Any]]:
        """Return the lines of the access log."""
        return [orjson.loads(line) for line in self.log.getvalue().splitlines()]

    def count(self, metric: str, **labels: str) -> float:
        """Return the value of a metric; 0 when it is absent."""
        return self.metrics.registry.get_sample_value(metric, labels) or 0.0


def snapshot(documents: Iterable[RouteDocument], namespace: str = "default") -> sources.Snapshot:
    """Return the snapshot that a source reads from these documents."""
    return sources.Snapshot(
        [
            sources.ConfigMap(
                namespace, f"{one.name}-route", "2026-01-01T00:00:00Z", one.canonical_json(), f"{one.name}.yaml"
            )
            for one in documents
        ]
    )


def local(weight: int = 100, **values: Any) -> Backend:
    """Return a backend in the cluster: the Service `demo-local`."""
    return Backend(id="local", service="demo-local", weight=weight, port=80, **values)


def remote(weight: int = 0, **values: Any) -> Backend:
    """Return a remote backend: the host `remote.test`."""
    return Backend(id="remote", host="remote.test", weight=weight, port=80, **values)


def document(*backends: Backend, name: str = "demo", **values: Any) -> RouteDocument:
    """Return a route document, by default with one local backend."""
    return RouteDocument(name=name, backends=backends or (local(),), **values)


class NoSecrets:
    """Reader of credentials that has none."""

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """Raise: there is no Secret."""
        raise LookupError(name)

    async def inline(self, namespace: str, model_deployment: str) -> Mapping[str, str]:
        """Raise: there are no inline credentials."""
        raise LookupError(model_deployment)


@asynccontextmanager
async def gateway(
    *documents: RouteDocument,
    local_port: int = 1,
    remote_port: int = 1,
    settings: Mapping[str, Any] | None = None,
    context: ssl.SSLContext | None = None,
    secrets: SecretReader | None = None,
    default: ClientCredentials | None = None,
    open_server: Callable[[], NameServer] = NameServer,
    memory_wait: float = NEVER,
    access: KeyDirectory | None = None,
    rules: CallerRules | None = None,
    tokens: Tokens | None = None,
    endpoints: EndpointTable | None = None,
    pods: Mapping[str, int] | None = None,
    tracer: Tracer | None = None,
) -> AsyncIterator[Running]:
    """Yield a gateway with `documents` in force, by default one with a local backend.

    Args:
        documents: Route documents of the namespace `default`.
        local_port: Port on loopback to which `demo-local` resolves.
        remote_port: Port on loopback to which `remote.test` resolves.
        settings: Settings as in config.yaml.
        context: TLS context for clients; without TLS when None.
        secrets: Reader of credentials.
        default: Credentials of the default remote backend.
        open_server: Function that returns the name servers.
        memory_wait: Seconds for which a request waits for memory.
        access: API keys of callers; the directory must be in the settings, too.
        rules: Rules for callers; the file must be in the settings, too.
        tokens: Tokens by which callers are known; they must be in the settings, too.
        endpoints: Pods of Services; None to send requests to the names of Services.
        pods: Ports on loopback to which the addresses of pods lead, whose own port is 8000.
        tracer: Source of traces; None where these are off.
    """
    section = dict((settings or {}).get("gateway", {}))
    section["timeouts"] = UNHURRIED | section.get("timeouts", {})
    section.setdefault("drill", {"intervalSeconds": 0})  # remote servers of most tests count their connections
    loaded = Settings.load(None, environment={}, flags=None).model_validate({**(settings or {}), "gateway": section})
    metrics = Metrics()
    log = io.StringIO()
    access_log = AccessLog(log, metrics.access_log_dropped)
    store = RouteStore(
        namespaces=None,
        cluster_domain="cluster.local",
        bare_hostnames="namespace",
        metrics=metrics,
        clock=time.time,
        retry=loaded.gateway.retry,
        slice_seconds=inf,  # a table is in force when `load` returns, however busy the machine is
    )
    overrides = {
        ("demo-local.default.svc.cluster.local", 80): ("127.0.0.1", local_port),
        ("remote.test", 80): ("127.0.0.1", remote_port),
        ("remote.test", 443): ("127.0.0.1", remote_port),
        **{(address, 8000): ("127.0.0.1", port) for address, port in (pods or {}).items()},
    }
    resolver = Resolver(
        AddressRules.parse(cluster=loaded.gateway.cluster_ranges, allowed=loaded.gateway.allowed_addresses),
        overrides=overrides,
        open_server=open_server,
    )
    seen = metrics.certificates.see
    upstream = Upstream(
        resolver, strict_tls=loaded.tls.strict, sweep_seconds=0.1, certificate_seen=partial(seen, "server")
    )
    metrics.certificates.authorities = store.authorities
    credentials = Credentials(
        secrets or NoSecrets(),
        resolver,
        default=(lambda: default) if default is not None else None,
        token_request=metrics.token_request,
        certificate_seen=partial(seen, "client"),
    )
    journal = Journal(loaded.gateway.limits.decisions)
    memory = MemoryBudget(loaded.gateway.limits.memory_bytes, memory_wait)
    proxy = Proxy(
        settings=loaded,
        store=store,
        upstream=upstream,
        credentials=credentials,
        metrics=metrics,
        access_log=access_log,
        journal=journal,
        memory=memory,
        access=access,
        endpoints=endpoints,
        model_keys=ModelKeys(secrets or NoSecrets()),
        rules=rules,
        tracer=tracer,
        sweep_seconds=0.05,
        tokens=tokens,
    )
    store.subscribe(proxy.refresh)
    server = HttpServer(
        proxy.handle,
        server_limits(loaded.gateway),
        metrics,
        access_log,
        cors=cors_rule(loaded.gateway.cors),
        memory=memory,
        sweep_seconds=0.1,
    )
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, ssl=context)
    clients: list[Client] = []
    running = Running(
        listening.sockets[0].getsockname()[1],
        server,
        store,
        upstream,
        metrics,
        log,
        journal,
        memory,
        proxy.drills,
        clients,
    )
    running.load(*(documents or (document(),)))
    try:
        yield running
    finally:
        for client in clients:
            client.reset()
        listening.close()
        server.abort()
        async with asyncio.timeout(SECONDS):
            await server.drained(SECONDS)
        proxy.close()
        await credentials.close()
        upstream.close()
        resolver.close()
        store.close()
        access_log.close()


def message(*fields: bytes, line: bytes = b"POST /default/demo/x HTTP/1.1", body: bytes = b"") -> bytes:
    """Return the bytes of a request with these field lines behind Host."""
    return b"\r\n".join((line, b"Host: gateway", *fields)) + b"\r\n\r\n" + body


async def refused(client: Client, server: ScriptedServer, hidden: bytes) -> Response:
    """Return the response to a request that has been refused, once all is checked that goes with it.

    It is one whole response and the end of the connection, and no backend has received a whole request, or the bytes
    `hidden`.
    """
    response = await client.response()
    assert response.complete
    assert response.value(b"connection") == b"close"
    assert await client.ended() == b""
    for side in server.sides:  # a body that breaks off may have begun to flow
        assert hidden not in side.received
        assert not side.received.endswith(b"0\r\n\r\n")
    return response


def reply(body: bytes = b"ok", status: bytes = b"200 OK", *fields: bytes) -> bytes:
    """Return the bytes of a whole response of a server."""
    lines = (b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *fields)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def echo(side: ServerSide) -> None:
    """Respond to every request with the bytes that were received of it."""
    while True:
        await side.send(reply(await side.request()))
