"""`python -m hooks`: answer Metacontroller (`serve`, the default), print what a manifest becomes (`render`), or why a
model is offloaded as it is (`explain`), or get ready to be uninstalled (`release-finalizers`).

Exit codes: 0 after a signal, 1 when an address cannot be listened on, 2 when the configuration cannot be used.
"""

import sys

from program import early_signals

if __name__ == "__main__" and sys.argv[1:2] not in (["render"], ["explain"]):
    early_signals.remember()  # before the imports, which take most of the start

import argparse
import asyncio
import os
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from socket import socket
from typing import Final

import structlog
import uvloop

from hooks import uninstall
from hooks.app import create_app, create_operations_app
from hooks.authentication import Bearer
from hooks.cli import explain_files, render
from hooks.clients.apiserver import ApiServer
from hooks.metrics.installed import open_sources
from hooks.platform.beamlit import credentials
from hooks.platform.beamlit.client import Beamlit
from hooks.platform.beamlit.credentials import Accounts
from hooks.platform.beamlit.registrar import CALL_SECONDS, Registrar
from hooks.settings import Hooks, Settings
from hooks.telemetry import Metrics
from program import allocator, certificates, logs, web
from program.settings import SettingsError
from program.signals import Signals
from program.sockets import ListenError, bind

GRACE_SECONDS: Final = 10
"""For requests that run when the process is told to stop."""

log = structlog.get_logger(__name__)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m hooks",
        description="Answer Metacontroller's hooks: what should exist for a ModelDeployment, and what is its status?",
        epilog="Without a command: serve. Flags win over BEAMLIT_… environment variables, those over the file. "
        "See docs/configuration.md.",
    )
    commands = result.add_subparsers(dest="command", metavar="COMMAND", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--config", type=Path, metavar="FILE", help="config.yaml; all settings have defaults")
    shared.add_argument("--namespaces", metavar="A,B", help="namespaces to manage; empty: all (default: default)")
    serve = commands.add_parser("serve", parents=[shared], help="answer Metacontroller over HTTP (the default)")
    serve.add_argument("--listen", metavar="HOST:PORT", help=f"for Metacontroller (default {Hooks().listen})")
    serve.add_argument(
        "--operations", metavar="HOST:PORT", help=f"health, metrics, docs (default {Hooks().operations})"
    )
    serve.add_argument("--tls-cert-file", metavar="FILE", help="certificate of the port for Metacontroller")
    serve.add_argument("--tls-key-file", metavar="FILE", help="its key")
    serve.add_argument("--metrics-file", metavar="FILE", help="for metricInformer.type file, on one machine")
    serve.add_argument("--bearer-file", metavar="FILE", help="token that Metacontroller has to show")
    offline = commands.add_parser(
        "render",
        parents=[shared],
        help="print the children of manifests as YAML, offline",
        description="Print the children of every ModelDeployment in the files as YAML. Workloads, Services and "
        "Policies in the files count as observed. Exit status 1: one is not accepted, and standard error says why.",
    )
    offline.add_argument("files", nargs="+", type=Path, metavar="FILE")
    why = commands.add_parser(
        "explain",
        parents=[shared],
        help="print why models are offloaded as they are, and what would change it, offline",
        description="Print for every ModelDeployment in the files how much is offloaded, which rule says so, the"
        " arithmetic of its metrics, and what would change the answer. Exit status 1: one is not accepted.",
        epilog="See docs/offloading.md, Why is it so?",
    )
    why.add_argument("files", nargs="+", type=Path, metavar="FILE", help="manifests, as for render")
    why.add_argument(
        "--observed",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="what was observed, as kubectl get -o yaml and kubectl get --raw print it, or a folder of it; may be given"
        " several times",
    )
    why.add_argument(
        "--now", type=_time, metavar="TIME", help="instead of the present, for instance when it was observed"
    )
    why.add_argument("-o", "--output", choices=("text", "json"), default="text", help="(default text)")
    uninstall.add_parser(commands)
    return result


def _time(written: str) -> datetime:
    """A time with its offset (RFC 3339)."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        moment = datetime.min  # noqa: DTZ901 - refused below
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{written!r} is not a time with its offset, as 2030-01-31T18:00:00Z")
    return moment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in ("serve", "render", "explain", uninstall.COMMAND, "-h", "--help"):
        words.insert(0, "serve")
    given = parser().parse_args(words)
    if given.command == uninstall.COMMAND:
        return uninstall.run(given.controllers, grace=given.grace, wait=given.wait)
    flags = {"namespaces": given.namespaces}
    if given.command == "serve":
        early_signals.remember()
        allocator.hold()
        flags |= {
            "hooks.listen": given.listen,
            "hooks.operations": given.operations,
            "hooks.tls.certFile": given.tls_cert_file,
            "hooks.tls.keyFile": given.tls_key_file,
            "hooks.bearerFile": given.bearer_file,
            "metricInformer.file.path": given.metrics_file,
        }
    sockets: list[socket] = []
    try:
        settings = Settings.load(given.config, flags=flags)
        if given.command == "render":
            return render(given.files, settings.install_defaults, now=datetime.now(UTC))
        if given.command == "explain":
            now = given.now or datetime.now(UTC)
            return explain_files(given.files, given.observed, settings, now=now, form=given.output)
        logs.configure(settings.hooks.log_level)
        bearer = _bearer(settings.hooks.bearer_file)
        accounts = credentials.configured(settings.platform, os.environ)
        sockets += (bind(settings.hooks.listen, "--listen"), bind(settings.hooks.operations, "--operations"))
        uvloop.run(run(settings, bearer, accounts, *sockets))
    except BrokenPipeError:  # whoever read the output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SettingsError as exc:
        print(f"hooks: {exc}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 2
    except ListenError as exc:
        print(f"hooks: {exc}", file=sys.stderr)  # noqa: T201
        return 1
    finally:
        for sock in sockets:
            sock.close()
    return 0


def _bearer(path: Path | None) -> Bearer | None:
    try:
        return None if path is None else Bearer(path)
    except (OSError, ValueError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "it is empty"
        raise SettingsError(f"hooks.bearerFile {path} cannot be used: {reason}.") from exc


async def run(
    settings: Settings,
    bearer: Bearer | None,
    accounts: Accounts | None,
    hooks_socket: socket,
    operations_socket: socket,
) -> None:
    """Serve on both sockets until a signal; a second one ends at once.

    Raises:
        ListenError: the certificate cannot be used.
        SettingsError: a file for the source of metrics cannot be used.
    """
    tls = settings.hooks.tls
    context = certificates.server_context(tls, "hooks.tls") if tls is not None else None
    signals = Signals(asyncio.get_running_loop())
    metrics = Metrics()
    async with (
        open_sources(settings.metric_informer, metrics, strict_tls=settings.tls.strict) as sources,
        _registrar(settings, accounts, metrics) as registrar,
    ):
        app = create_app(settings, metrics, sources=sources, bearer=bearer, registrar=registrar)
        operations = create_operations_app(app, metrics, draining=signals.stop.is_set)
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
async def _registrar(
    settings: Settings, accounts: Accounts | None, metrics: Metrics
) -> AsyncIterator[Registrar | None]:
    """What is done on the platform, until the end of the block; nothing without an account."""
    if accounts is None:
        yield None
        return
    api = ApiServer.connect(metrics, CALL_SECONDS, strict_tls=settings.tls.strict)
    beamlit = Beamlit(settings.platform.base_url, accounts, metrics)
    try:
        yield Registrar(beamlit, api)
    finally:
        await beamlit.close()
        await api.close()


if __name__ == "__main__":
    sys.exit(main())
