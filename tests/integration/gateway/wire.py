"""The gateway's data path on a real socket, and a client that sends bytes as a test writes them.

Answers are parsed with h11, a parser the gateway does not use: a second opinion on every byte it sends.
"""

import asyncio
import io
import ssl
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from typing import Any

import h11
import orjson

from gateway.__main__ import server_limits
from gateway.api.v1alpha1 import Backend, RouteDocument
from gateway.credentials.cache import Credentials
from gateway.credentials.secrets import SecretReader
from gateway.downstream.server import HttpServer
from gateway.journal import Journal
from gateway.proxy import Proxy
from gateway.routes import sources
from gateway.routes.store import RouteStore
from gateway.settings import Settings
from gateway.telemetry import AccessLog, Metrics
from gateway.upstream.addresses import AddressRules
from gateway.upstream.connection import Upstream
from gateway.upstream.resolver import Resolver
from program.oauth.credentials import ClientCredentials
from tests.deadlines import SECONDS
from tests.integration.servers import ServerSide


@dataclass
class Response:
    """One answer as h11 understood it."""

    status: int
    fields: list[tuple[bytes, bytes]]
    body: bytes = b""
    complete: bool = False
    interim: list[int] = field(default_factory=list)

    def values(self, name: bytes) -> list[bytes]:
        """All values of a field, by its lower-case name."""
        return [value for key, value in self.fields if key == name]

    def value(self, name: bytes) -> bytes | None:
        """The value of a field that occurs once at most."""
        values = self.values(name)
        assert len(values) <= 1, values
        return values[0] if values else None

    @property
    def code(self) -> str:
        """The stable code of the gateway's own error."""
        return str(orjson.loads(self.body)["error"]["code"])


class Client:
    """One connection to the gateway."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self._rest = b""

    async def send(self, *pieces: bytes) -> None:
        """Send each piece as a segment of its own: the gateway has read one before the next is sent."""
        for piece in pieces:
            self.writer.write(piece)
            for _ in range(6):  # turns of the loop that the gateway is on as well
                await asyncio.sleep(0)

    async def response(self, method: bytes = b"GET", *, head_only: bool = False) -> Response:
        """Read one answer; a broken one comes back with `complete` false.

        Args:
            method: of the request it answers; of HEAD there is no body.
            head_only: return once the head is here; the rest is left to `raw`.
        """
        connection = h11.Connection(h11.CLIENT)
        connection.send(h11.Request(method=method, target="/", headers=[("host", "x")]))
        connection.send(h11.EndOfMessage())
        if self._rest:  # nothing would mean the end
            connection.receive_data(self._rest)
        self._rest = b""
        response = Response(0, [])
        async with asyncio.timeout(SECONDS):
            while True:
                try:
                    event = connection.next_event()
                except h11.RemoteProtocolError:
                    return response  # it ended within the message
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
        """Read the answer to an opening handshake; what comes behind a 101 is left to `raw`."""
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
        """Everything that still comes until the gateway closes. A reset is an end as well."""
        rest, self._rest = self._rest, b""
        async with asyncio.timeout(SECONDS):
            try:
                while data := await self.reader.read(65536):
                    rest += data
            except ConnectionError:
                pass
        return rest

    async def some(self) -> bytes:
        """What is here, or comes next."""
        rest, self._rest = self._rest, b""
        if rest:
            return rest
        async with asyncio.timeout(SECONDS):
            return await self.reader.read(65536)

    def close(self) -> None:
        """Close."""
        self.writer.close()

    def reset(self) -> None:
        """Drop the connection."""
        self.writer.transport.abort()


@dataclass
class Running:
    """A gateway in this process, on a real socket."""

    port: int
    server: HttpServer
    store: RouteStore
    upstream: Upstream
    metrics: Metrics
    log: io.StringIO
    journal: Journal
    _clients: list[Client]

    async def client(self, context: ssl.SSLContext | None = None) -> Client:
        """A new connection; closed with the gateway."""
        name = "localhost" if context is not None else None
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, ssl=context, server_hostname=name)
        client = Client(reader, writer)
        self._clients.append(client)
        return client

    async def ask(self, *pieces: bytes, method: bytes = b"GET") -> Response:
        """One request on a new connection."""
        client = await self.client()
        await client.send(*pieces)
        return await client.response(method)

    async def post(self, target: bytes, body: bytes, *fields: bytes) -> Response:
        """POST a JSON body to `target` of host `gateway`."""
        lines = (b"Host: gateway", b"Content-Type: application/json", b"Content-Length: %d" % len(body), *fields)
        return await self.ask(b"POST %b HTTP/1.1\r\n%b\r\n\r\n%b" % (target, b"\r\n".join(lines), body), method=b"POST")

    def load(self, *documents: RouteDocument, namespace: str = "default") -> None:
        """Bring documents into force, all others out of it."""
        self.store.loaded.clear()  # so that it is done at once
        self.store.apply(snapshot(documents, namespace))

    def lines(self) -> list[dict[str, Any]]:
        """The access log."""
        return [orjson.loads(line) for line in self.log.getvalue().splitlines()]

    def count(self, metric: str, **labels: str) -> float:
        """A metric's value; 0 where there is none."""
        return self.metrics.registry.get_sample_value(metric, labels) or 0.0


def snapshot(documents: Iterable[RouteDocument], namespace: str = "default") -> sources.Snapshot:
    """What a source would have read."""
    return sources.Snapshot(
        [
            sources.ConfigMap(
                namespace, f"{one.name}-route", "2026-01-01T00:00:00Z", one.canonical_json(), f"{one.name}.yaml"
            )
            for one in documents
        ]
    )


def local(weight: int = 100, **values: Any) -> Backend:
    """A backend in the cluster: the Service `demo-local`."""
    return Backend(id="local", service="demo-local", weight=weight, port=80, **values)


def remote(weight: int = 0, **values: Any) -> Backend:
    """A backend outside: host `remote.test`."""
    return Backend(id="remote", host="remote.test", weight=weight, port=80, **values)


def document(*backends: Backend, name: str = "demo", **values: Any) -> RouteDocument:
    """A route document; with one local backend unless told otherwise."""
    return RouteDocument(name=name, backends=backends or (local(),), **values)


class NoSecrets:
    """A reader that has none."""

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """There is none."""
        raise LookupError(name)

    async def inline(self, namespace: str, model_deployment: str) -> Mapping[str, str]:
        """There are none."""
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
) -> AsyncIterator[Running]:
    """A gateway with `documents` in force (one local backend without any).

    Args:
        documents: routes of the namespace `default`.
        local_port: where `demo-local` leads.
        remote_port: where `remote.test` leads.
        settings: as in config.yaml.
        context: for TLS towards clients.
        secrets: where credentials are.
        default: the credentials of the default remote backend.
    """
    loaded = Settings.load(None, environment={}, flags=None).model_validate(dict(settings or {}))
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
    }
    resolver = Resolver(AddressRules.parse(allowed=loaded.gateway.allowed_addresses), overrides=overrides)
    upstream = Upstream(resolver, strict_tls=loaded.tls.strict, sweep_seconds=0.1)
    credentials = Credentials(
        secrets or NoSecrets(), resolver, default=(lambda: default) if default is not None else None
    )
    journal = Journal(loaded.gateway.limits.decisions)
    proxy = Proxy(
        settings=loaded,
        store=store,
        upstream=upstream,
        credentials=credentials,
        metrics=metrics,
        access_log=access_log,
        journal=journal,
    )
    store.subscribe(proxy.refresh)
    server = HttpServer(proxy.handle, server_limits(loaded.gateway), metrics, access_log, sweep_seconds=0.1)
    listening = await asyncio.get_running_loop().create_server(server, "127.0.0.1", 0, ssl=context)
    clients: list[Client] = []
    running = Running(listening.sockets[0].getsockname()[1], server, store, upstream, metrics, log, journal, clients)
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


def reply(body: bytes = b"ok", status: bytes = b"200 OK", *fields: bytes) -> bytes:
    """A server's whole answer."""
    lines = (b"HTTP/1.1 " + status, b"content-length: %d" % len(body), *fields)
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


async def echo(side: ServerSide) -> None:
    """Answer every request with what was received of it."""
    while True:
        await side.send(reply(await side.request()))
