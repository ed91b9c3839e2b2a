"""The commands of `beamlit-hooks`, or `python -m hooks`.

`serve` (the default) answers Metacontroller, `render` prints what a manifest becomes, `explain` prints why a model is
offloaded as it is, and `release-finalizers` prepares an uninstallation.

Exit status of `serve`: 0 after a signal, 1 when an address cannot be listened on, 2 when the configuration cannot be
used.
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
from program import allocator, certificates, invocation, logs, web
from program.invocation import paragraphs
from program.problems import TIME
from program.settings import SettingsError
from program.signals import Signals
from program.sockets import ListenError, bind
from program.watched_file import FileUnusable

GRACE_SECONDS: Final = 10
"""Seconds that running requests get to end when the process is told to stop."""

log = structlog.get_logger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    name, typed = invocation.command("hooks"), invocation.typed("hooks")
    result = argparse.ArgumentParser(
        prog=name,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=paragraphs(
            "The controller of ModelDeployments. It decides what should exist for each of them and how many of its"
            " requests go to the remote backend, and tells Metacontroller, which applies it."
        ),
        epilog=paragraphs(f"Without a command it serves. `{name} COMMAND --help` lists the flags of a command."),
    )
    commands = result.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument(
        "--config", type=Path, metavar="FILE", help="config.yaml (default: none, and every setting has its default)"
    )
    shared.add_argument(
        "--namespaces", metavar="A,B", help="namespaces to manage, '' for all of them (default: default)"
    )
    serve = commands.add_parser(
        "serve",
        parents=[shared],
        help="answer Metacontroller over HTTP (the default)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=paragraphs(
            "Answer the requests of Metacontroller over HTTP until a signal. Exit status 0: it was stopped by a signal."
            " 1: an address or a certificate cannot be used. 2: the configuration cannot be used."
        ),
        epilog=paragraphs(
            "A flag wins over a BEAMLIT_… environment variable, the variable over the file. docs/configuration.md lists"
            " every setting."
        ),
    )
    serve.add_argument(
        "--listen", metavar="HOST:PORT", help=f"address where Metacontroller asks (default: {Hooks().listen})"
    )
    serve.add_argument(
        "--operations",
        metavar="HOST:PORT",
        help=f"address for administrators: /healthz, /readyz, /metrics and /docs (default: {Hooks().operations})",
    )
    serve.add_argument(
        "--tls-cert-file", metavar="FILE", help="certificate for --listen, PEM (default: none, and no TLS)"
    )
    serve.add_argument("--tls-key-file", metavar="FILE", help="private key of the certificate, PEM")
    serve.add_argument(
        "--metrics-file",
        metavar="FILE",
        help="file that metrics are read from where the configuration says metricInformer.type: file",
    )
    serve.add_argument(
        "--bearer-file",
        metavar="FILE",
        help="file with the token that Metacontroller must send (default: none, and every request is answered)",
    )
    offline = commands.add_parser(
        "render",
        parents=[shared],
        help="print what manifests become, without a cluster",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=paragraphs(
            "Print the children of every ModelDeployment in the files as YAML: its route, Services and, with"
            " spec.server, its Deployment. Workloads, Services and Policies in the files count as what is in the"
            " cluster. Standard error names the fields that the API server would not know, and the conditions that are"
            " False. Exit status 0: all are accepted. 1: one is not, or there is none. 2: a file cannot be read."
        ),
        epilog=paragraphs(
            "For example, in a clone:", f"  {typed} render --config examples/config.yaml examples/manifests/*.yaml"
        ),
    )
    offline.add_argument("files", nargs="+", type=Path, metavar="FILE", help="manifest, as for kubectl apply -f")
    why = commands.add_parser(
        "explain",
        parents=[shared],
        help="print why models are offloaded as they are, and what would change it, without a cluster",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=paragraphs(
            "Print for every ModelDeployment in the files how much is offloaded, which rule decides it, the arithmetic"
            " of its metrics, and what would change the decision. Exit status 0: all are accepted. 1: one is not, or"
            " there is none. 2: a file cannot be read."
        ),
        epilog=paragraphs(
            "For example, in a clone:",
            f"  {typed} explain examples/explain/demo.yaml \\\n"
            "    --observed examples/explain/observed.yaml --now 2026-03-01T12:00:00Z",
            "docs/offloading.md, Why is it so?, explains the output.",
        ),
    )
    why.add_argument("files", nargs="+", type=Path, metavar="FILE", help="manifest, as for kubectl apply -f")
    why.add_argument(
        "--observed",
        action="append",
        default=[],
        type=Path,
        metavar="FILE",
        help="file with what is in the cluster, as `kubectl get -o yaml` and `kubectl get --raw` print it, or a folder"
        " of such files; may be repeated",
    )
    why.add_argument(
        "--now",
        type=_time,
        metavar="TIME",
        help="time that the decision is for, such as 2026-03-01T12:00:00Z (default: the present)",
    )
    why.add_argument("-o", "--output", choices=("text", "json"), default="text", help="form (default: text)")
    uninstall.add_parser(commands)
    return result


def _time(written: str) -> datetime:
    """Return a time that is written with its offset from UTC (RFC 3339)."""
    try:
        moment = datetime.fromisoformat(written)
    except ValueError:
        moment = datetime.min  # noqa: DTZ901 - refused below
    if moment.tzinfo is None:
        raise argparse.ArgumentTypeError(f"must be {TIME}, not {written!r}")
    return moment


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] not in ("serve", "render", "explain", uninstall.COMMAND, "-h", "--help"):
        words.insert(0, "serve")
    given = parser().parse_args(words)
    if given.command == uninstall.COMMAND:
        return _release(given)
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
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
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


def _release(given: argparse.Namespace) -> int:
    """Release finalizers, by the settings of the environment; return the exit status."""
    try:
        settings = Settings.load(None)
    except SettingsError as exc:
        print(f"hooks: {exc}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 2
    return uninstall.run(given.controllers, grace=given.grace, wait=given.wait, strict_tls=settings.tls.strict)


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


if __name__ == "__main__":
    sys.exit(main())
