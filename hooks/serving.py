"""Serves the webhooks and the operations port of hooks until a signal."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from socket import socket
from typing import Final

import structlog
import uvloop

from hooks.app import create_app, create_operations_app
from hooks.authentication import Bearer
from hooks.clients.apiserver import ApiServer
from hooks.clients.gateways import Gateways
from hooks.metrics.installed import open_sources
from hooks.platform.beamlit import credentials
from hooks.platform.beamlit.client import Beamlit
from hooks.platform.beamlit.credentials import Accounts
from hooks.platform.beamlit.registrar import CALL_SECONDS, Registrar
from hooks.settings import Settings
from hooks.telemetry import Metrics
from program import allocator, certificates, logs, web
from program.settings import SettingsError
from program.signals import Signals
from program.sockets import bind, listen
from program.watched_file import FileUnusable

GRACE_SECONDS: Final = 10
"""Seconds that running requests get to end when the process is told to stop."""

log = structlog.get_logger(__name__)


def serve(settings: Settings) -> None:
    """Serve until a signal.

    Raises:
        ListenError: an address or the certificate cannot be used.
        SettingsError: a file that the settings name cannot be used.
    """
    logs.configure(settings.hooks.log_level)
    bearer = _bearer(settings.hooks.bearer_file)
    accounts = credentials.configured(settings.platform, os.environ)
    with (
        bind(settings.hooks.listen, "--listen", listening=False) as hooks,
        bind(settings.hooks.operations, "--operations", listening=False) as operations,
    ):
        uvloop.run(run(settings, bearer, accounts, hooks, operations))


def _bearer(path: Path | None) -> Bearer | None:
    try:
        return None if path is None else Bearer(path)
    except FileUnusable as exc:
        raise SettingsError(f"hooks.bearerFile {path} {exc}.") from exc


async def run(
    settings: Settings,
    bearer: Bearer | None,
    accounts: Accounts | None,
    hooks_socket: socket,
    operations_socket: socket,
) -> None:
    """Serve on both sockets until a signal. A second signal ends the process at once.

    Raises:
        ListenError: the certificate or an address cannot be used.
        SettingsError: a file for the source of metrics cannot be used.
    """
    tls = settings.hooks.tls
    context = certificates.server_context(tls, "hooks.tls") if tls is not None else None
    signals = Signals(asyncio.get_running_loop())
    metrics = Metrics()
    metrics.certificates.listener = None if tls is None else tls.cert_file
    async with (
        open_sources(settings.metric_informer, metrics, strict_tls=settings.tls.strict) as sources,
        _gateways(settings.proxy_service.admin_address, metrics) as gateways,
        _registrar(settings, accounts, metrics) as registrar,
    ):
        app = create_app(settings, metrics, sources=sources, drill_source=gateways, bearer=bearer, registrar=registrar)
        operations = create_operations_app(app, metrics, draining=signals.stop.is_set)
        # Not sooner: a client that is accepted would wait until the apps are there.
        listen(operations_socket, "--operations")
        listen(hooks_socket, "--listen")
        stopped = asyncio.Event()
        beside = asyncio.create_task(web.serve(operations, operations_socket, stopped))
        allocator.settle()
        log.info("listening", hooks=settings.hooks.listen, operations=settings.hooks.operations)
        try:
            serving = web.serve(app, hooks_socket, signals.stop, grace_seconds=GRACE_SECONDS, context=context)
            await signals.unless_now(serving)
        finally:
            stopped.set()
            await beside
            log.info("stopped")
            signals.close()


@asynccontextmanager
async def _gateways(address: str, metrics: Metrics) -> AsyncIterator[Gateways | None]:
    """Give the gateways at an address, until the end of the block; None without an address."""
    if not address:
        yield None
        return
    gateways = Gateways(address, metrics)
    try:
        yield gateways
    finally:
        await gateways.close()


@asynccontextmanager
async def _registrar(
    settings: Settings, accounts: Accounts | None, metrics: Metrics
) -> AsyncIterator[Registrar | None]:
    """Give what registers objects on the platform, until the end of the block; None without an account."""
    if accounts is None:
        yield None
        return
    api = await ApiServer.connect(metrics, CALL_SECONDS, strict_tls=settings.tls.strict)
    beamlit = Beamlit(settings.platform.base_url, accounts, metrics, strict_tls=settings.tls.strict)
    try:
        yield Registrar(beamlit, api)
    finally:
        await beamlit.close()
        await api.close()
