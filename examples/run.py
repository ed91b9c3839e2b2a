"""The whole product on this machine: three model servers, hooks, the stand-in for Metacontroller, and the gateway.

    make run            or   python -m examples.run

Everything runs on loopback as processes of this one, and ends with it.
"""

from __future__ import annotations

import argparse
import signal
import socket
import sys
import time
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import httpx
import yaml

from examples.processes import Child, Children
from examples.state import HERE, StateError, StateFolder, prepare

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

HOST: Final = "127.0.0.1"
READY_SECONDS: Final = 60.0
"""Seconds the programs may take to start. They are many, because the machine may be busy."""
ROUTES_SECONDS: Final = 10.0
"""Seconds to wait for the first routes before a message that there are none."""
RESTART_SECONDS: Final = 3.0
"""Seconds after which a local model server that has ended is started again, as the container of a pod is."""
_POLL_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of all programs."""

    gateway: int = 8080
    admin: int = 8081
    hooks: int = 8082
    operations: int = 8083
    local: int = 9101
    remote: int = 9102
    second: int = 9103


_WANTED_BY: Final = {
    "gateway": "the gateway",
    "admin": "the gateway's admin page",
    "hooks": "hooks",
    "operations": "the health and metrics of hooks",
    "local": "the local model server",
    "remote": "the remote model server",
    "second": "the second local model server",
}


class RunError(Exception):
    """The demo cannot continue. The message says why and what to do."""


class Stop:
    """The request to end, by SIGINT, SIGTERM or SIGHUP."""

    def __init__(self) -> None:
        """Install the signal handlers."""
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup means it
                signal.signal(number, self._heard)

    def _heard(self, _number: int, _frame: FrameType | None) -> None:
        self.count += 1

    @property
    def wanted(self) -> bool:
        """Once is enough."""
        return self.count > 0

    @property
    def urgent(self) -> bool:
        """Somebody asked again."""
        return self.count > 1


def check_ports(ports: Ports) -> None:
    """Refuse ports that are taken, before anything is started.

    Raises:
        RunError: naming the first such port, what wants it and the flag.
    """
    seen: dict[int, str] = {}
    for item in fields(ports):
        port, who, flag = getattr(ports, item.name), _WANTED_BY[item.name], f"--{item.name}-port"
        if port in seen:
            raise RunError(f"Port {port} is wanted by {seen[port]} and by {who}: give one of them another ({flag}).")
        seen[port] = who
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
                probe.listen(1)
            except OSError as error:
                reason = error.strerror or str(error)
                raise RunError(
                    f"Port {port} on {HOST}, which {who} wants, is not free ({reason}): end what uses it, or choose"
                    f" another with {flag}."
                ) from error


class Demo:
    """The running programs."""

    def __init__(self, folder: StateFolder, ports: Ports, stop: Stop) -> None:
        """Prepare the demo without starting anything."""
        self._folder, self._ports, self._stop = folder, ports, stop
        self._children = Children(HERE.parent, folder.logs)
        self._client = httpx.Client(trust_env=False, timeout=1.0)
        self._stand_in: Child | None = None
        self._shown = 0
        self._servers: dict[Child, tuple[str, ...]] = {}
        """Local model servers, which stand for pods, with the words to start them again."""
        self._due: list[tuple[float, str, tuple[str, ...]]] = []
        """Local model servers that are to be started again, each with the time for it and its name."""
        self._started = False

    def start(self) -> bool:
        """Start everything in order. Return False if it shall end before that.

        Raises:
            RunError: a program ended or is not ready in time.
        """
        ports, folder, config = self._ports, self._folder, str(self._folder.config)
        resolve = [word for entry in folder.resolve() for word in ("--resolve", entry)]
        server = "examples.model_server"
        credentials = ("--oauth-client-id", "demo", "--oauth-client-secret", "demo-secret")
        local = ("--listen", f"{HOST}:{ports.local}", "--model", "tiny-local")
        second = ("--listen", f"{HOST}:{ports.second}", "--model", "tiny-local")
        remote = ("--listen", f"{HOST}:{ports.remote}", "--model", "tiny-remote", *credentials)
        files = ("--metrics-file", str(folder.metrics), "--pods-file", str(folder.pods))
        hooks = ("--listen", f"{HOST}:{ports.hooks}", "--operations", f"{HOST}:{ports.operations}")
        gateway = ("--listen", f"{HOST}:{ports.gateway}", "--admin", f"{HOST}:{ports.admin}")
        self._servers = {
            self._children.start("local model", server, *local): local,
            self._children.start("second local model", server, *second): second,
        }
        waits = {
            **{child: f"http://{words[1]}/health" for child, words in self._servers.items()},
            self._children.start("remote model", server, *remote): f"http://{HOST}:{ports.remote}/health",
            self._children.start("hooks", "hooks", "--config", config, *files, *hooks): (
                f"http://{HOST}:{ports.operations}/readyz"
            ),
            self._children.start(
                "gateway", "gateway", "--config", config, "--routes", str(folder.objects), *gateway, *resolve
            ): f"http://{HOST}:{ports.admin}/readyz",
        }
        if not all(self._wait(child, url) for child, url in waits.items()):
            return False
        self._stand_in = self._children.start(
            "metacontroller",
            "metacontroller.local",
            *("--state", str(folder.path), "--hooks", f"http://{HOST}:{ports.hooks}"),
            *("--workloads", str(folder.workloads), "--pods", str(folder.pods)),
        )
        self._started = True
        return self._wait_for_routes()

    def watch(self) -> None:
        """Print the messages of the stand-in until the demo shall end.

        Raises:
            RunError: a program ended.
        """
        while self._goes_on():
            self._pass_on()
            time.sleep(_POLL_SECONDS)
        self._pass_on()

    def end(self) -> None:
        """End all programs."""
        self._client.close()
        self._children.stop(lambda: self._stop.urgent)

    def _goes_on(self) -> bool:
        child = self._children.dead()
        if child is not None and not self._stop.wanted:
            if child not in self._servers or not self._started:
                raise RunError(f"{child.name} {child.how_it_ended()}. The end of {child.log}:\n{child.tail()}")
            self._restart(child)
        now = time.monotonic()
        for one in [one for one in self._due if one[0] <= now]:
            self._due.remove(one)
            _, name, words = one
            self._servers[self._children.start(name, "examples.model_server", *words)] = words
        return not self._stop.wanted

    def _restart(self, child: Child) -> None:
        """Take a local model server that has ended for the container of a pod, which is started again in a moment."""
        print(f"{child.name} {child.how_it_ended()}. It starts again in {RESTART_SECONDS:g} s.", flush=True)
        self._children.forget(child)
        self._due.append((time.monotonic() + RESTART_SECONDS, child.name, self._servers.pop(child)))

    def _wait(self, child: Child, url: str) -> bool:
        deadline = time.monotonic() + READY_SECONDS
        while self._goes_on():
            if self._responds(url):
                return True
            if time.monotonic() > deadline:
                raise RunError(
                    f"{child.name} is not ready after {READY_SECONDS:g} s ({url}). The end of {child.log}:\n"
                    f"{child.tail()}"
                )
            time.sleep(_POLL_SECONDS)
        return False

    def _responds(self, url: str) -> bool:
        try:
            return self._client.get(url).status_code == 200
        except httpx.HTTPError:
            return False

    def _wait_for_routes(self) -> bool:
        """Wait until every ModelDeployment has settled. That may never happen, because the user writes the
        manifests."""
        deadline = time.monotonic() + ROUTES_SECONDS
        while self._goes_on():
            self._pass_on()
            waiting = self._unsettled()
            if waiting is None:
                return True
            if time.monotonic() > deadline:
                print(f"Not ready yet: {waiting}", flush=True)
                return True
            time.sleep(_POLL_SECONDS)
        return False

    def _unsettled(self) -> str | None:
        """Return a sentence that names what is not ready."""
        try:
            listed = self._listed()
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            return "the gateway does not list its models."
        found = False
        for path, item in _model_deployments(self._folder.objects):
            found = True
            name = item["metadata"]["name"]
            conditions = (item.get("status") or {}).get("conditions") or ()
            ready: dict[str, Any] = next((one for one in conditions if one.get("type") == "Ready"), {})
            if ready.get("status") != "True":
                return f"{name}: {ready.get('message') or 'it has no status'} See {path}."
            if not {name, f"{item['metadata'].get('namespace', 'default')}/{name}"} & listed:
                return f"{name}: the gateway has no route for it."
        return None if found or not any(self._folder.manifests.iterdir()) else "no ModelDeployment exists."

    def _listed(self) -> set[str]:
        """Return the names of the models that the gateway serves."""
        response = self._client.get(f"http://{HOST}:{self._ports.gateway}/v1/models")
        if response.status_code == 401:  # it wants an API key, and its port for administrators does not
            routes = self._client.get(f"http://{HOST}:{self._ports.admin}/routes").json()["routes"]
            return {f"{one['namespace']}/{one['name']}" for one in routes if one["inForce"]}
        return {one["id"] for one in response.json()["data"]}

    def _pass_on(self) -> None:
        """Print the new lines of the stand-in."""
        if self._stand_in is None:
            return
        with self._stand_in.log.open("rb") as log:
            log.seek(self._shown)
            content = log.read()
        whole = content[: content.rfind(b"\n") + 1]
        self._shown += len(whole)
        if whole:
            print(whole.decode("utf-8", "replace"), end="", flush=True)


def _model_deployments(objects: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in sorted(objects.glob("*/modeldeployments.*/*.yaml")):
        try:
            item = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (OSError, yaml.YAMLError):
            continue
        if isinstance(item, dict) and isinstance(item.get("metadata"), dict):
            yield path, item


def screen(folder: Path, ports: Ports) -> str:
    """Return the text that says what runs where and what to try, on one screen."""
    body = """'{"model": "demo", "messages": [{"role": "user", "content": "hello"}]}'"""
    stream = body.replace('"messages"', '"stream": true, "messages"')
    gateway, local, second = (f"localhost:{port}" for port in (ports.gateway, ports.local, ports.second))
    hooks = Path(sys.executable).with_name("beamlit-hooks")
    return f"""
Beamlit runs on this machine. Ctrl-C ends it.

  gateway       http://{gateway}    what it does now: http://localhost:{ports.admin}
  hooks         http://localhost:{ports.hooks}    API: http://localhost:{ports.operations}/docs
  local models  http://{local}    tiny-local, the pod of demo and one of the two of demo-server
                http://{second}    tiny-local, the other pod of demo-server
  remote model  http://localhost:{ports.remote}    tiny-remote, wants an OAuth2 token
  manifests     {folder}/manifests    yours to edit; logs are in ../logs, objects in ../objects

Try in another terminal; x-beamlit-backend and x-beamlit-reason say which backend responded and why:

  curl -i {gateway}/default/demo/v1/chat/completions -d {body}
  curl -i {gateway}/v1/chat/completions -H 'Host: demo.default.svc.cluster.local' -d {body}
  curl -N {gateway}/v1/chat/completions -d {stream}
  curl {gateway}/v1/models
  curl -X POST {local}/_demo/unready     # every response of demo comes from the remote now
  curl -X POST {local}/_demo/ready       # and here again
  curl -X POST {second}/_demo/crash      # demo-server goes on at its other pod, without the remote and an error
  edit {folder}/manifests/demo.yaml     # an override, enabled: false, other headersToAdd; or a wrong
    # clientSecret: within a minute the page and the condition OffloadReady say what to change
  edit {folder}/metrics.yaml     # value: 12, and within half a minute half of the requests go to the remote; 4: back
  {hooks} explain --config {folder}/config.yaml {folder}/manifests/demo.yaml \\
    --observed {folder}/metrics.yaml --observed {folder}/objects \\
    --observed {folder}/pods.yaml     # why is it so, and what would change it
"""


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m examples.run", description="Run the whole product on this machine, without a cluster."
    )
    parser.add_argument(
        "--state", type=Path, default=HERE.parent / ".beamlit", metavar="DIR", help="state folder (%(default)s)"
    )
    parser.add_argument("--reset", action="store_true", help="start over: drop the state folder's edits and objects")
    for item in fields(Ports):
        parser.add_argument(
            f"--{item.name}-port",
            type=int,
            default=item.default,
            metavar="PORT",
            help=f"port of {_WANTED_BY[item.name]} (%(default)s)",
        )
    given = parser.parse_args(arguments)
    for item in fields(Ports):
        if not 0 < getattr(given, f"{item.name}_port") < 65536:
            parser.error(f"--{item.name}-port must be from 1 to 65535")
    return given


def main(arguments: Sequence[str] | None = None) -> int:
    """Run until a signal. Return 1 if something cannot start or ends by itself."""
    given = _arguments(arguments)
    ports = Ports(**{item.name: getattr(given, f"{item.name}_port") for item in fields(Ports)})
    stop = Stop()
    try:
        check_ports(ports)
        folder = prepare(
            given.state.absolute(),
            local=ports.local,
            remote=ports.remote,
            admin=ports.admin,
            second=ports.second,
            reset=given.reset,
        )
        return _run(Demo(folder, ports, stop), lambda: screen(folder.path, ports))
    except (RunError, StateError) as error:
        print(error, file=sys.stderr, flush=True)
        return 1


def _run(demo: Demo, text: Callable[[], str]) -> int:
    try:
        if demo.start():
            print(text(), flush=True)
            demo.watch()
    finally:
        demo.end()
    print("Ended.", flush=True)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
