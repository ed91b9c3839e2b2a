"""The commands of `beamlit-hooks`, or `python -m hooks`.

`serve` (the default) responds to Metacontroller, `render` prints what a manifest becomes, `explain` prints why a model
is offloaded as it is, `simulate` tries its offloading on a load, and `release-finalizers` prepares an uninstallation.

Exit status of `serve`: 0 after a signal, 1 when an address cannot be listened on, 2 when the configuration cannot be
used.
"""

import sys

from program import early_signals

if __name__ == "__main__" and sys.argv[1:2] not in (["render"], ["explain"], ["simulate"]):
    early_signals.remember()  # before the imports, which take most of the start

import argparse
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from hooks import uninstall
from hooks.settings import Hooks, Settings
from hooks.simulation import arguments as simulation
from program import allocator, invocation
from program.invocation import paragraphs
from program.problems import TIME
from program.settings import SettingsError
from program.sockets import ListenError

_COMMANDS = ("serve", "render", "explain", simulation.COMMAND, uninstall.COMMAND)


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
        help="serve the requests of Metacontroller over HTTP (the default)",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=paragraphs(
            "Serve the requests of Metacontroller over HTTP until a signal. Exit status 0: it was stopped by a signal."
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
        "--pods-file",
        metavar="FILE",
        help="file that pods are read from with metricInformer.type: file (default: the file of the metrics)",
    )
    serve.add_argument(
        "--bearer-file",
        metavar="FILE",
        help="file with the token that Metacontroller must send (default: none, and every request is served)",
    )
    offline = commands.add_parser(
        "render",
        parents=[shared],
        help="print what manifests become, without a cluster",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=paragraphs(
            "Print the children of every ModelDeployment in the files as YAML: its route, Services and, with"
            " spec.server, its Deployment. Workloads, Services and Policies in the files count as what is in the"
            " cluster. Standard error names the fields that the API server would not know, what it would refuse, and"
            " the conditions that are False, without those that only a cluster could tell. Exit status 0: all are"
            " accepted. 1: one is not, or there is none. 2: a file cannot be read."
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
    simulation.add_parser(commands)
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
    if not words or words[0] not in (*_COMMANDS, "-h", "--help"):
        words.insert(0, "serve")
    given = parser().parse_args(words)
    if given.command == uninstall.COMMAND:
        return _release(given)
    flags = {} if given.command == simulation.COMMAND else {"namespaces": given.namespaces}
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
            "metricInformer.file.podsPath": given.pods_file,
        }
    try:
        settings = Settings.load(given.config, flags=flags)
        # Each command imports what it needs: FastAPI, httpx and uvloop take a second that only the server has to spend.
        if given.command == "serve":
            from hooks.serving import serve

            serve(settings)
            return 0
        now = datetime.now(UTC)
        if given.command == simulation.COMMAND:
            from hooks.simulation.command import run

            return run(given, settings, now=now)
        from hooks.cli import explain_files, render

        if given.command == "render":
            return render(given.files, settings.install_defaults, now=now)
        return explain_files(given.files, given.observed, settings, now=given.now or now, form=given.output)
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SettingsError as exc:
        print(f"hooks: {exc}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 2
    except ListenError as exc:
        print(f"hooks: {exc}", file=sys.stderr)  # noqa: T201
        return 1


def _release(given: argparse.Namespace) -> int:
    """Release finalizers, by the settings of the environment; return the exit status."""
    try:
        settings = Settings.load(None)
    except SettingsError as exc:
        print(f"hooks: {exc}", file=sys.stderr)  # noqa: T201 - for the person who started it
        return 2
    return uninstall.run(given.controllers, grace=given.grace, wait=given.wait, strict_tls=settings.tls.strict)


if __name__ == "__main__":
    sys.exit(main())
