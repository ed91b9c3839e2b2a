"""Command line of the gateway, and the place where its parts are put together.

Exit codes: 0 after a signal, 1 when an address cannot be listened on, 2 when the configuration cannot be used.
"""

from program import early_signals

if __name__ == "__main__":
    early_signals.remember()  # before the imports, which take most of the start

import argparse
import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Final, TypeVar

import structlog
import uvloop

from gateway import admin, listener
from gateway.access.directory import KeyDirectory
from gateway.access.model_keys import ModelKeys
from gateway.access.rules import CallerRules
from gateway.backends.endpoints import EndpointTable
from gateway.credentials.cache import Credentials, from_settings
from gateway.downstream.budget import MemoryBudget
from gateway.downstream.server import HttpServer, ServerLimits
from gateway.http import messages
from gateway.journal import Journal
from gateway.plan import cors_rule
from gateway.proxy import Proxy
from gateway.routes.sources import RouteSource, supervision
from gateway.routes.sources.configmaps import READS, ConfigMapSource
from gateway.routes.sources.directory import DirectorySource
from gateway.routes.sources.secrets import Secrets
from gateway.routes.store import RouteStore
from gateway.settings import GatewaySettings, JwtSettings, Settings
from gateway.telemetry import AccessLog, Metrics
from gateway.tracing import configuration as tracing
from gateway.upstream.connection import Upstream
from gateway.upstream.resolver import AddressResolver, Endpoint, Resolver, parse_overrides
from program import allocator, certificates, invocation, logs, web
from program.addresses import AddressRules
from program.kubernetes.connection import CONNECTIONS, connect
from program.kubernetes.errors import ClusterError
from program.settings import SettingsError
from program.signals import Signals
from program.sockets import ListenError, bind, listen

if TYPE_CHECKING:
    from gateway.access.issuer import Issuer
    from gateway.access.tokens import TokenRules, Tokens

_T = TypeVar("_T")

CLUSTER_AUTHORITY: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount/ca.crt")
"""File in which Kubernetes gives a pod the certificate authority of its cluster."""

ROUTES_SECONDS: Final = 5.0
"""Seconds for which the gateway waits for its first routes before it serves clients without them."""

log = structlog.get_logger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog=invocation.command("gateway"),
        description="The proxy in front of models. It sends each request to the local replicas or to the remote"
        " backend, as the routes say that the controller writes. Exit status 0: it was stopped by a signal. 1: an"
        " address or a certificate cannot be used. 2: the configuration cannot be used.",
        epilog="A flag wins over a BEAMLIT_… environment variable, the variable over the file. docs/configuration.md"
        " lists every setting.",
    )
    result.add_argument(
        "--config", type=Path, metavar="FILE", help="config.yaml (default: none, and every setting has its default)"
    )
    result.add_argument(
        "--routes",
        metavar="DIR",
        help="directory of YAML files with route ConfigMaps, Secrets and ModelDeployments, instead of a cluster",
    )
    result.add_argument(
        "--kubeconfig",
        metavar="FILE",
        help="kubeconfig of the cluster to read routes from (default: KUBECONFIG, or the cluster that this runs in)",
    )
    result.add_argument(
        "--listen", metavar="HOST:PORT", help=f"address for clients (default: {GatewaySettings().listen})"
    )
    result.add_argument(
        "--admin",
        metavar="HOST:PORT",
        help="address for administrators: a page at /, /healthz, /readyz, /metrics, /routes, /drills and /decisions"
        f" (default: {GatewaySettings().admin})",
    )
    result.add_argument(
        "--resolve",
        action="append",
        metavar="HOST:PORT=ADDRESS:PORT",
        help="address that a host name and port lead to, instead of what the name server says; may be repeated",
    )
    return result


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the gateway until a signal; return the exit code."""
    early_signals.remember()
    options = parser().parse_args(arguments)
    flags = {name: getattr(options, name) for name in ("routes", "kubeconfig", "listen", "admin", "resolve")}
    sockets: list[socket] = []
    try:
        settings = Settings.load(options.config, flags=flags)
        try:
            overrides = parse_overrides(settings.gateway.resolve)
        except ValueError as exc:
            raise SettingsError(f"gateway.resolve: {exc}.") from None
        logs.configure(settings.gateway.log_level)
        allocator.hold()
        sockets.append(bind(settings.gateway.listen, "--listen", send_buffer_bytes=listener.SEND_BUFFER_BYTES))
        sockets.append(bind(settings.gateway.admin, "--admin", listening=False))
        uvloop.run(run(settings, overrides, *sockets))
    except SettingsError as exc:
        print(f"gateway: {exc}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 2
    except ListenError as exc:
        print(f"gateway: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        for sock in sockets:
            sock.close()
    return 0


@contextlib.asynccontextmanager
async def _source(settings: Settings, endpoints: EndpointTable | None) -> AsyncIterator[RouteSource]:
    """Open the source of the routes, and of the pods of Services where there is a table for them, for the block.

    Raises:
        SettingsError: There is neither a directory nor a cluster to read from.
    """
    directory = settings.gateway.routes
    if directory is not None:
        if not directory.is_dir():
            raise SettingsError(f"--routes {directory} is not a directory.")
        yield DirectorySource(directory, endpoints=endpoints)
        return
    namespaces = settings.served_namespaces
    watches = len(namespaces or ("",)) * (1 if endpoints is None else 2)
    try:
        client = await connect(
            settings.gateway.kubeconfig,
            connections=max(CONNECTIONS, watches + READS),
            strict_tls=settings.tls.strict,
        )
    except ClusterError as exc:
        raise SettingsError(str(exc)) from exc
    if client is None:
        raise SettingsError(
            "there is no source of routes: set --routes to a directory, or --kubeconfig, or run in a cluster."
        )
    async with client:
        yield ConfigMapSource(client, namespaces, endpoints=endpoints)


async def run(
    settings: Settings, overrides: Mapping[Endpoint, Endpoint], traffic: socket, admin_socket: socket
) -> None:
    """Serve on both sockets until a signal.

    Raises:
        ListenError: the certificate of the traffic port cannot be used.
        SettingsError: there is no source of routes.
    """
    gateway = settings.gateway
    rules = AddressRules.parse(cluster=gateway.cluster_ranges, allowed=gateway.allowed_addresses)
    endpoints = None
    if gateway.endpoints == "pods":
        endpoints = EndpointTable(overrides, partial(rules.permit, destination="service"))
    async with _source(settings, endpoints) as source:
        await _serve(settings, source, endpoints, rules, overrides, traffic, admin_socket)


async def _serve(
    settings: Settings,
    source: RouteSource,
    endpoints: EndpointTable | None,
    rules: AddressRules,
    overrides: Mapping[Endpoint, Endpoint],
    traffic: socket,
    admin_socket: socket,
) -> None:
    """Put the parts together and serve on both sockets until a signal.

    Raises:
        ListenError: The certificate for clients or the address for administrators cannot be used.
        SettingsError: Keys, rules or traces that the settings ask for cannot be had.
    """
    loop = asyncio.get_running_loop()
    signals = Signals(loop)
    gateway = settings.gateway
    context = certificates.server_context(gateway.tls, "gateway.tls") if gateway.tls is not None else None
    access = _read("gateway.access.keysDirectory", gateway.access.keys_directory, KeyDirectory)
    caller_rules = _read("gateway.access.rulesFile", gateway.access.rules_file, CallerRules)
    traces = tracing.start(gateway.tracing, os.environ)
    metrics = Metrics()
    access_log = AccessLog(sys.stdout if gateway.access_log else None, metrics.access_log_dropped)
    store = RouteStore(
        namespaces=settings.served_namespaces,
        cluster_domain=settings.cluster_domain,
        bare_hostnames=gateway.bare_hostnames,
        metrics=metrics,
        clock=time.time,
        retry=gateway.retry,
    )
    resolver = Resolver(rules, overrides=overrides)
    seen = metrics.certificates.see
    upstream = Upstream(resolver, strict_tls=settings.tls.strict, certificate_seen=partial(seen, "server"))
    default = settings.default_remote_backend.auth_config
    credentials = Credentials(
        Secrets(source),
        resolver,
        default=None if default is None else lambda: from_settings(default.oauth_config),
        strict_tls=settings.tls.strict,
        token_request=metrics.token_request,
        certificate_seen=partial(seen, "client"),
    )
    model_keys = ModelKeys(Secrets(source))
    jwt = gateway.access.jwt
    tokens = None if jwt is None else tokens_of(jwt, resolver, strict_tls=settings.tls.strict)
    journal = Journal(gateway.limits.decisions)
    memory = MemoryBudget(gateway.limits.memory_bytes)
    limits = server_limits(gateway)
    proxy = Proxy(
        settings=settings,
        store=store,
        upstream=upstream,
        credentials=credentials,
        metrics=metrics,
        access_log=access_log,
        journal=journal,
        draining=signals.stop.is_set,
        authority=cluster_authority(),
        memory=memory,
        connections=limits.connections,
        access=access,
        endpoints=endpoints,
        model_keys=model_keys,
        rules=caller_rules,
        tracer=None if traces is None else traces[0],
        tokens=None if tokens is None else tokens[0],
    )
    store.subscribe(proxy.refresh)
    server = HttpServer(proxy.handle, limits, metrics, access_log, cors=cors_rule(gateway.cors), memory=memory)

    stats = upstream.stats
    metrics.client_connections.set_function(lambda: server.connections)
    metrics.memory.labels("used").set_function(lambda: memory.used)
    metrics.memory.labels("limit").set_function(lambda: memory.limit)
    metrics.memory_waiting.set_function(lambda: memory.waiting)
    metrics.memory_refused.count = lambda: memory.refused
    if traces is not None:
        exporter = traces[1]
        metrics.traces_dropped.count = lambda: exporter.dropped
    metrics.upstream_connections.labels("idle").set_function(lambda: stats.idle)
    metrics.upstream_connections.labels("open").set_function(lambda: stats.open)
    metrics.upstream_connects.count = lambda: stats.connects
    metrics.certificates.listener = None if gateway.tls is None else gateway.tls.cert_file
    metrics.certificates.authorities = store.authorities
    metrics.table_age.set_function(lambda: max(0.0, time.time() - store.refreshed_at) if store.refreshed_at else 0.0)

    if tokens is not None:
        issuer = tokens[1]
        metrics.issuer_keys_age.labels(issuer.name).set_function(lambda: issuer.age)

    stopped = asyncio.Event()
    app = admin.create_app(
        store,
        metrics,
        journal,
        draining=signals.stop.is_set,
        endpoints=endpoints,
        stopped=stopped,
        access=gateway.access.is_on,
        drills=proxy.drills,
    )
    listen(admin_socket, "--admin")  # not sooner: a client that is accepted would wait until the app is there
    tasks = [
        loop.create_task(supervision.keep_running(source, store)),
        loop.create_task(web.serve(app, admin_socket, stopped)),
    ]
    if access is not None:
        tasks.append(loop.create_task(access.watch()))
    if caller_rules is not None:
        tasks.append(loop.create_task(caller_rules.watch()))
    if tokens is not None:
        tasks.append(loop.create_task(tokens[1].watch()))
    allocator.settle()
    settling = loop.create_task(_settle(store))
    try:
        await _first_routes(store, signals)
        log.info("listening", traffic=gateway.listen, admin=gateway.admin)
        await listener.serve(
            server,
            traffic,
            signals,
            context=context,
            lame_duck_seconds=gateway.lame_duck_seconds,
            drain_seconds=gateway.drain_seconds,
        )
    finally:
        stopped.set()
        settling.cancel()
        for task in (tasks[0], *tasks[2:]):
            task.cancel()
        for task in tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        proxy.close()
        await model_keys.close()
        await credentials.close()
        upstream.close()
        resolver.close()
        store.close()
        access_log.close()
        if traces is not None:
            traces[1].close()
        log.info("stopped")
        signals.close()


def _read(setting: str, path: Path | None, read: Callable[[Path], _T]) -> _T | None:
    """Return what a file or a directory has that a setting names; None where it names none.

    Raises:
        SettingsError: It cannot be read, or has a mistake.
    """
    if path is None:
        return None
    try:
        return read(path)
    except OSError as exc:
        reason = exc.strerror or type(exc).__name__
        raise SettingsError(f"{setting}: {path} cannot be read: {reason}.") from None
    except ValueError as exc:
        raise SettingsError(f"{setting}: {path}: {exc}.") from None


def tokens_of(jwt: JwtSettings, resolver: AddressResolver, *, strict_tls: bool) -> "tuple[Tokens, Issuer]":
    """Return the tokens that the settings ask for and their issuer, whose keys are not loaded yet."""
    # What verifies signatures takes ten megabytes, which a gateway without tokens does not need.
    from gateway.access.issuer import Issuer
    from gateway.access.issuer_client import IssuerClient
    from gateway.access.tokens import Tokens

    client = IssuerClient(
        resolver, issuer=jwt.issuer, jwks_url=jwt.jwks_url, ca_file=jwt.ca_file, strict_tls=strict_tls
    )
    issuer = Issuer(jwt.issuer, client.load)
    return Tokens(token_rules(jwt), issuer), issuer


def token_rules(jwt: JwtSettings) -> "TokenRules":
    """Return what tokens must have by the settings."""
    from gateway.access.tokens import TokenRules

    return TokenRules(
        issuer=jwt.issuer,
        audiences=jwt.audiences,
        algorithms=jwt.algorithms,
        name_claim=jwt.name_claim,
        groups_claim=jwt.groups_claim,
        groups=frozenset(jwt.groups),
        skew_seconds=jwt.clock_skew_seconds,
    )


def cluster_authority() -> bytes:
    """Return the certificate authority of the cluster that this process runs in; empty outside of one."""
    try:
        return CLUSTER_AUTHORITY.read_bytes()
    except OSError:
        return b""


async def _first_routes(store: RouteStore, signals: Signals) -> None:
    """Wait for the first routes, for a moment and no longer than until a signal to stop.

    The kernel has taken connections since the start, as those of a load balancer that knows no readiness: without
    routes they would get 404.
    """
    waits = [asyncio.ensure_future(event.wait()) for event in (store.loaded, signals.stop)]
    await asyncio.wait(waits, timeout=ROUTES_SECONDS, return_when=asyncio.FIRST_COMPLETED)
    for wait in waits:
        wait.cancel()


async def _settle(store: RouteStore) -> None:
    """Exempt the first routes from garbage collection, which would look through thousands of documents for nothing."""
    await store.loaded.wait()
    allocator.keep()


def server_limits(gateway: GatewaySettings) -> ServerLimits:
    """Return the limits on clients from the settings."""
    return ServerLimits(
        message=messages.Limits(
            head_bytes=gateway.limits.head_bytes, fields=gateway.limits.fields, url_bytes=gateway.limits.url_bytes
        ),
        connections=listener.connections_allowed(gateway.limits.connections),
        head_seconds=gateway.timeouts.head_seconds,
        body_seconds=gateway.timeouts.body_seconds,
        keep_alive_seconds=gateway.timeouts.keep_alive_seconds,
        write_stall_seconds=gateway.timeouts.write_stall_seconds,
        tunnel_idle_seconds=gateway.timeouts.tunnel_idle_seconds,
        body_rate=gateway.limits.body_bytes_per_second,
    )


if __name__ == "__main__":
    sys.exit(main())
