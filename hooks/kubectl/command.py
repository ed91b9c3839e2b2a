"""The commands of `kubectl beamlit`.

Exit status: 0 when it was done; 1 when the cluster refuses, has no such model, or does not accept the model that
`explain` is about; 2 when an argument cannot be used.
"""

import argparse
import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final

import orjson

from hooks.api.common import format_time
from hooks.clients import urls
from hooks.kube.objects import Object
from hooks.kube.unstructured import objects
from hooks.kubectl import models, requests
from hooks.kubectl.cluster import ClusterFailed, Kubectl, get
from program.invocation import paragraphs

NAME: Final = "kubectl beamlit"
SYSTEM: Final = "beamlit-system"
"""Namespace that an installation by the book is in."""
COMMANDS: Final = ("status", "explain", "decisions", "split", "drill")
DRILL_PERCENTAGE: Final = 20
"""Share of a drill that names none."""
_GLOBAL: Final = ("kubeconfig", "context", "as")
"""Flags that go to kubectl with each call."""


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    result = argparse.ArgumentParser(
        prog=NAME,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=paragraphs(
            "See and steer models in a cluster, with the rights of the kubeconfig: where their requests go, why, and"
            " what would change it."
        ),
        epilog=paragraphs(f"`{NAME} COMMAND --help` lists the flags of a command."),
    )
    commands = result.add_subparsers(title="commands", dest="command", metavar="COMMAND", required=True)
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("-n", "--namespace", metavar="NAMESPACE", help="namespace (default: that of the context)")
    shared.add_argument("--kubeconfig", metavar="FILE", help="kubeconfig (default: as kubectl finds it)")
    shared.add_argument("--context", metavar="NAME", help="context of the kubeconfig (default: the current one)")
    shared.add_argument("--as", metavar="USER", help="user to impersonate")
    system = argparse.ArgumentParser(add_help=False)
    system.add_argument(
        "--system-namespace",
        default=SYSTEM,
        metavar="NAMESPACE",
        help=f"namespace of hooks and the gateway (default: {SYSTEM})",
    )
    status = commands.add_parser(
        "status", parents=[shared], help="show where the requests of models go", description="Show models as a table."
    )
    status.add_argument("name", nargs="?", metavar="NAME", help="ModelDeployment (default: all of the namespace)")
    status.add_argument("-A", "--all-namespaces", action="store_true", help="show the models of all namespaces")
    _add_output(status, "table")
    explain = commands.add_parser(
        "explain",
        parents=[shared, system],
        help="show why a model is offloaded as it is, and what would change it",
        description="Read the model, what it refers to, its metrics and the drills of the gateways from the cluster,"
        " and explain what hooks decide from them now. Gateways, metrics of pods and a Prometheus in the cluster are"
        " asked through the API server.",
    )
    explain.add_argument("name", metavar="NAME", help="ModelDeployment")
    explain.add_argument(
        "--prometheus",
        type=_server,
        metavar="URL",
        help="address of the Prometheus server from here, such as that of a port-forward",
    )
    _add_output(explain, "text")
    decisions = commands.add_parser(
        "decisions",
        parents=[shared, system],
        help="show the last requests for a model, with backend and reason",
        description="Show the last requests for a model, of all gateways together, the newest last. With -o json each"
        " request is a line.",
    )
    decisions.add_argument("name", metavar="NAME", help="ModelDeployment")
    decisions.add_argument("-f", "--follow", action="store_true", help="go on with the requests that come")
    decisions.add_argument("--limit", type=_limit, default=20, metavar="N", help="number of requests (default: 20)")
    _add_output(decisions, "table")
    split = commands.add_parser(
        "split",
        parents=[shared],
        help="set the share of the requests that go to the remote backend, for some time",
        description="Set an override of the share, which ends by itself, or take it away with --clear.",
    )
    split.add_argument("name", metavar="NAME", help="ModelDeployment")
    split.add_argument("percentage", nargs="?", type=_percentage, metavar="PERCENTAGE", help="share, from 0 to 100")
    split.add_argument("--for", dest="length", metavar="TIME", help="time until it ends: 90s, 10m, 2h30m, 3d")
    split.add_argument("--force", action="store_true", help="hold it even while no local replica is ready")
    split.add_argument("--clear", action="store_true", help="take the override away")
    drill = commands.add_parser(
        "drill",
        parents=[shared, system],
        help="show what would happen if all local replicas of a model were gone now, or try it",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description=paragraphs(
            "Show whether the remote backend would serve if all local replicas were gone now, by what the gateways'"
            " drills found, and what would not: policies, credentials, the model's name there, callers whose requests"
            " may not leave the cluster, and how long it takes to the first token.",
            "With --probe, a gateway sends the remote backend a completion of one token before that, which the provider"
            " may charge for: it shows whether the credentials are accepted, whether the model is served, and how long"
            " its token takes.",
            "With --for, a share of the real requests goes to the remote backend for that time, by an override that"
            " ends by itself. A few requests of one token are sent too. It waits for the end and says what came of it.",
            "Exit status 1: requests would fail, or the drill did not pass.",
        ),
    )
    drill.add_argument("name", metavar="NAME", help="ModelDeployment")
    drill.add_argument(
        "--probe", action="store_true", help="have a gateway send a completion of one token, which may cost"
    )
    drill.add_argument("--for", dest="length", metavar="TIME", help="try it with requests for that time: 90s, 2m, 1h")
    drill.add_argument(
        "--percentage",
        type=_percentage,
        metavar="PERCENTAGE",
        help=f"share of the requests to try it with, from 1 to 100 (default: {DRILL_PERCENTAGE}); with --for",
    )
    _add_output(drill, "text")
    return result


def _add_output(command: argparse.ArgumentParser, default: str) -> None:
    command.add_argument(
        "-o", "--output", choices=(default, "json"), default=default, help=f"form (default: {default})"
    )


def _percentage(written: str) -> int:
    """Return a share in percent."""
    if not written.isascii() or not written.isdigit() or len(written) > 3 or int(written) > 100:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to 100, not {written!r}")
    return int(written)


def _server(written: str) -> str:
    """Return the address of a Prometheus server."""
    if problem := urls.problem(written):
        raise argparse.ArgumentTypeError(f"{written!r} {problem}")
    return written


def _limit(written: str) -> int:
    """Return a number of requests."""
    if not written.isascii() or not written.isdigit() or len(written) > 4 or not 1 <= int(written) <= requests.MOST:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {requests.MOST}, not {written!r}")
    return int(written)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status."""
    commands = parser()
    given = commands.parse_args(arguments)
    if given.command == "split":
        _check_split(commands, given)
    if given.command == "drill":
        _check_drill(commands, given)
    try:
        return asyncio.run(_run(given))
    except ClusterFailed as exc:
        _complain(str(exc))
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _check_split(commands: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End the process where the arguments of `split` do not belong together."""
    if given.clear and (given.percentage is not None or given.length is not None or given.force):
        commands.error("split: --clear takes the override away: leave the percentage, --for and --force out")
    if not given.clear and (given.percentage is None or given.length is None):
        commands.error("split: give a percentage and --for, such as `split NAME 30 --for 10m`, or --clear")
    if given.length is not None:
        try:
            given.length = models.duration(given.length)
        except ValueError as exc:
            commands.error(f"split: --for {given.length!r} {exc}")


def _check_drill(commands: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    """End the process where the arguments of `drill` do not belong together."""
    if given.probe and given.length is not None:
        commands.error("drill: with --for requests are sent in any case: leave --probe out")
    if given.length is None:
        if given.percentage is not None:
            commands.error("drill: --percentage is for a drill with requests: give --for too, such as --for 2m")
        return
    if given.percentage == 0:
        commands.error("drill: --percentage must be from 1 to 100, for with 0 nothing is tried")
    try:
        given.length = models.duration(given.length)
    except ValueError as exc:
        commands.error(f"drill: --for {given.length!r} {exc}")
    given.percentage = DRILL_PERCENTAGE if given.percentage is None else given.percentage


async def _run(given: argparse.Namespace) -> int:
    flags = [f"--{name}={value}" for name in _GLOBAL if (value := getattr(given, name))]
    cluster = Kubectl.found(flags)
    everywhere = given.command == "status" and given.all_namespaces
    namespace = None if everywhere else given.namespace or await cluster.namespace()
    if namespace is None or given.command == "status":
        return await _status(cluster, namespace, given)
    if given.command == "explain":
        return await _explain(cluster, namespace, given)
    if given.command == "decisions":
        return await _decisions(cluster, namespace, given)
    if given.command == "drill":
        return await _drill(cluster, namespace, given)
    return await _split(cluster, namespace, given)


async def _status(cluster: Kubectl, namespace: str | None, given: argparse.Namespace) -> int:
    now = datetime.now(UTC)
    if given.name is not None and namespace is not None:
        from hooks.kubectl.live import model

        items: Iterable[Object] = [await model(cluster, namespace, given.name)]
    else:
        page = await get(cluster, models.collection(namespace))
        items = [dict(one) for one in objects(page, "items")]
    found = [models.Model.of(item, now) for item in items]
    if given.name is not None:
        found = [one for one in found if one.name == given.name]
    if given.output == "json":
        _print_json([one.as_json() for one in found])
    elif found:
        _print(models.status_table(found, now, namespaces=namespace is None))
    else:
        _complain("There are no ModelDeployments" + (f" in namespace {namespace}." if namespace else "."))
    return 0


async def _explain(cluster: Kubectl, namespace: str, given: argparse.Namespace) -> int:
    # What decides takes a while to import, and the other commands need none of it.
    from hooks.errors import HookError
    from hooks.explain import explain
    from hooks.explain.document import as_document
    from hooks.explain.text import as_text
    from hooks.kubectl import live
    from hooks.kubectl.drills import ProxiedGateways

    parent = await live.model(cluster, namespace, given.name)
    configured = await live.settings(cluster, given.system_namespace, _complain)
    observation = await live.observe(
        cluster,
        parent,
        configured,
        prometheus=given.prometheus,
        report=_complain,
        drill_source=ProxiedGateways(cluster, given.system_namespace),
    )
    try:
        explanation = explain(observation, now=datetime.now(UTC))
    except HookError as exc:
        raise ClusterFailed(f"{namespace}/{given.name}: {exc}") from None
    if given.output == "json":
        _print_json(as_document(explanation))
    else:
        _print(as_text(explanation))
    return 0 if explanation.accepted else 1


async def _decisions(cluster: Kubectl, namespace: str, given: argparse.Namespace) -> int:
    route = f"{namespace}/{given.name}"
    if not given.follow:
        paths = await requests.gateways(cluster, given.system_namespace)
        found = await requests.decisions(cluster, paths, route, given.limit, _complain)
        if not found and given.output == "table":
            _complain(f"The gateways remember no request for {route}.")
            return 0
        _print_decisions(found, given.output, head=True)
        return 0
    head = True
    async for fresh in requests.follow(cluster, given.system_namespace, route, given.limit, _complain):
        if fresh:
            _print_decisions(fresh, given.output, head=head)
            head = False
    return 0


def _print_decisions(found: Sequence[Object], form: str, *, head: bool) -> None:
    if form == "json":
        _print("".join(f"{orjson.dumps(one).decode()}\n" for one in found))
    else:
        _print(models.decision_table(found, head=head))


async def _split(cluster: Kubectl, namespace: str, given: argparse.Namespace) -> int:
    from hooks.kubectl.live import model

    item = await model(cluster, namespace, given.name)
    name = f"{namespace}/{given.name}"
    if given.clear:
        if not models.has_override(item):
            _complain(f"{name} has no override.")
            return 0
        await cluster.patch(models.RESOURCE, given.name, namespace, models.CLEARED)
        _print(f"{name}: the override is gone, and the metrics decide again.\n")
        return 0
    until = (datetime.now(UTC) + given.length).replace(microsecond=0)
    change = models.override_patch(given.percentage, until, "Force" if given.force else "Normal")
    await cluster.patch(models.RESOURCE, given.name, namespace, change)
    _print(f"{name}: {models.announced(given.percentage, until, given.length, force=given.force)}\n")
    return 0


async def _drill(cluster: Kubectl, namespace: str, given: argparse.Namespace) -> int:
    from hooks.api.common import InvalidObject
    from hooks.errors import HookError, NotAccepted
    from hooks.explain.outage import State, as_document, as_lines
    from hooks.kubectl import live
    from hooks.kubectl.outage import Drill, look

    parent = await live.model(cluster, namespace, given.name)
    configured = await live.settings(cluster, given.system_namespace, _complain)
    try:
        found = await look(cluster, parent, configured, given.system_namespace, _complain, probe=given.probe)
    except (InvalidObject, NotAccepted, HookError) as exc:
        raise ClusterFailed(f"{namespace}/{given.name} is not accepted: {str(exc).rstrip('.')}.") from None
    if given.length is None:
        if given.output == "json":
            _print_json(as_document(found))
        else:
            _print("".join(f"{line}\n" for line in as_lines(found)))
        return 1 if found.state is State.BAD else 0
    name = f"{namespace}/{given.name}"
    if not found.split.remote:
        raise ClusterFailed(f"{name} cannot be tried: {found.split.message}")
    present = models.override_of(parent, datetime.now(UTC))
    if present is not None:
        raise ClusterFailed(
            f"{name} has an override until {format_time(present.until)}: `{NAME} split {given.name} --clear` takes"
            " it away."
        )
    until = (datetime.now(UTC) + given.length).replace(microsecond=0)
    await cluster.patch(models.RESOURCE, given.name, namespace, models.override_patch(given.percentage, until, "Drill"))
    if given.output == "text":
        _print("".join(f"{line}\n" for line in as_lines(found)))
        _print(f"{name}: {models.announced(given.percentage, until, given.length, force=False)}\n")
    drill = Drill(cluster, given.system_namespace, namespace, given.name, given.percentage, until)
    check = await drill.probe()
    record = await drill.outcome()
    outcome = "Unproven" if record is None else str(record.get("outcome"))
    message = "Hooks did not write in time what came of it." if record is None else str(record.get("message", ""))
    if given.output == "json":
        document = as_document(found.with_checks(check))
        _print_json(document | {"drill": None if record is None else dict(record)})
    else:
        _print(f"{check.name}: {check.message}\n{name}: {outcome}. {message}\n")
    return 0 if outcome == "Passed" else 1


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _print_json(document: object) -> None:
    _print(f"{orjson.dumps(document, option=orjson.OPT_INDENT_2).decode()}\n")


def _complain(sentence: str) -> None:
    print(f"{NAME}: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
