"""A stand-in for Metacontroller on one machine: objects are files, hooks and gateway are the real programs.

python -m metacontroller.local --state DIR --hooks http://127.0.0.1:8082

The user writes `DIR/manifests`; `DIR/objects` shows the objects that the API server of a cluster would hold. The
stand-in is for trying and for fast tests and is no cluster: one process per directory, no pods, no network.
"""

import argparse
import asyncio
import contextlib
import signal
import sys
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import httpx

from metacontroller.local import errors, manifests
from metacontroller.local import kubelet as workloads
from metacontroller.local.apiserver import cel
from metacontroller.local.apiserver import kinds as definitions
from metacontroller.local.apiserver.objects import Key, Object
from metacontroller.local.apiserver.server import ApiServer
from metacontroller.local.apiserver.store import Store
from metacontroller.local.controller.composite_controller import CompositeController
from metacontroller.local.controller.controller import Controller

_MANIFESTS: Final = Path(__file__).resolve().parents[1]
"""Folder of the manifests that register hooks."""
_CRDS: Final = _MANIFESTS.parent / "crds"


def _print(line: str) -> None:
    print(line, flush=True)


@dataclass(frozen=True, slots=True)
class Options:
    """Options of a stand-in."""

    state: Path
    """State directory. The user writes `manifests` in it, the stand-in everything else."""
    hooks: str | None = None
    """scheme://host:port that replaces that of the hooks' URLs; None to leave the URLs as they are."""
    workloads: Path | None = None
    """File that names the process behind each workload; None for `workloads.yaml` in the state directory."""
    pods: Path | None = None
    """File that gets the processes with an address as pods; None for `pods.yaml` in the state directory."""
    crds: Path = field(default=_CRDS)
    controllers: Path = field(default=_MANIFESTS)
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    make_uid: Callable[[], str] = lambda: str(uuid.uuid4())
    report: Callable[[str], None] = _print
    """Function that takes one line for each event."""


class StandIn:
    """A running stand-in: `async with StandIn(options) as stand_in`."""

    def __init__(self, options: Options) -> None:
        """Lock the directory and read all files in it; raise errors.SetupError where that fails."""
        self._options = options
        kinds = definitions.read_kinds(options.crds)
        registered = definitions.read_controllers(options.controllers)
        listed = workloads.read_workloads(options.workloads or options.state / "workloads.yaml")
        self._store = Store(options.state, options.report)
        try:
            self.api = ApiServer(self._store, kinds, now=options.now, make_uid=options.make_uid)
            self._client = httpx.AsyncClient(trust_env=False, limits=httpx.Limits(max_keepalive_connections=2))
            self._client.headers.clear()  # Go sends none but those of the request
            self._probes = httpx.AsyncClient(trust_env=False)
            registrations = [CompositeController.from_manifest(item, self.api, options.hooks) for item in registered]
        except errors.StandInError:
            self._store.close()
            raise
        self.controllers = [
            Controller(self.api, each, self._client, now=options.now, report=options.report, on_status=self._tell)
            for each in registrations
        ]
        pods = options.pods or options.state / "pods.yaml"
        self._kubelet = workloads.Kubelet(
            self.api, listed, self._probes, now=options.now, report=options.report, pods=pods
        )
        self._manifests = manifests.Manifests(self.api, options.state / "manifests", options.report)
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Apply the manifests, then sync until the end of the block."""
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and unlock the directory."""
        await self.stop()

    def start(self) -> None:
        """Start all tasks. This needs a running event loop."""
        if (missing := cel.missing_engine()) is not None:
            self._options.report(missing)
        self.api.collect_garbage()
        self._manifests.look()
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        """End all tasks. The files stay."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._client.aclose()
        await self._probes.aclose()
        self._store.close()

    async def wait(self) -> None:
        """Wait until a task ends, and raise its error."""
        if self._task is not None:
            await self._task

    @property
    def writes(self) -> Counter[Key]:
        """Return the number of effective writes per object since the start."""
        return self.api.writes

    @property
    def syncs(self) -> Counter[Key]:
        """Return the number of syncs per parent since the start."""
        return sum((controller.syncs for controller in self.controllers), Counter())

    @property
    def loops(self) -> set[Key]:
        """Return the parents that were synced over and over without coming to rest."""
        return {key for controller in self.controllers for key in controller.loops}

    async def quiesce(self, deadline: float = 10.0) -> None:
        """Wait until all manifests are applied and no sync waits, runs or is to be tried again.

        Raises TimeoutError after `deadline` seconds, naming what does not come to rest.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + deadline
        self._manifests.look()
        while not all(each.queue.idle and not each.queue.failing for each in self.controllers):
            if self._task is not None and self._task.done():
                await self._task
            if loop.time() > end:
                busy = ", ".join(str(key) for each in self.controllers for key in each.queue.failing)
                raise TimeoutError(f"not at rest after {deadline:g} s; failing: {busy or 'none'}; loops: {self.loops}")
            await asyncio.sleep(0.01)

    def sync_all(self) -> None:
        """Queue a sync of every parent, as a resync period does."""
        for controller in self.controllers:
            for key, _ in self.api.all_of(controller.registration.parent):
                controller.queue.add(key)

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            for controller in self.controllers:
                group.create_task(controller.run())
            group.create_task(self._kubelet.run())
            group.create_task(self._watch())

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(manifests.INTERVAL)
            self._manifests.look()

    def _tell(self, before: Object, after: Object) -> None:
        """Report each condition that changed in one line."""
        metadata = after["metadata"]
        for line in turned(before.get("status") or {}, after["status"]):
            self._options.report(f"{after['kind']} {metadata.get('namespace')}/{metadata['name']}: {line}")


def turned(before: Object, after: Object) -> list[str]:
    """Return `Type=Status Reason: message` for each condition whose status or reason changed, and for new ones that
    matter."""
    known = {condition.get("type"): condition for condition in before.get("conditions") or ()}
    lines = []
    for condition in after.get("conditions") or ():
        old = known.get(condition.get("type"))
        if old is None:
            news = condition.get("status") == "False" or condition.get("type") in {"Accepted", "Ready"}
        else:
            news = any(condition.get(name) != old.get(name) for name in ("status", "reason"))
        if news:
            words = f"{condition.get('type')}={condition.get('status')} {condition.get('reason', '')}".rstrip()
            message = condition.get("message")
            lines.append(f"{words}: {message}" if message else words)
    return lines


def _options(arguments: list[str] | None) -> Options:
    parser = argparse.ArgumentParser(
        prog="python -m metacontroller.local",
        description="Play Metacontroller on one machine: apply DIR/manifests, call the hooks, keep DIR/objects.",
        epilog="DIR/manifests/*.yaml is yours: create, edit or remove files while it runs. "
        "DIR/objects/<namespace>/<resource>/<name>.yaml is its own. Ends at Ctrl-C.",
    )
    parser.add_argument("--state", type=Path, required=True, metavar="DIR", help="where manifests and objects are")
    parser.add_argument(
        "--hooks", metavar="URL", help="where hooks listens, e.g. http://127.0.0.1:8082; replaces the manifests' hosts"
    )
    parser.add_argument(
        "--workloads", type=Path, metavar="FILE", help="which process is behind which workload (DIR/workloads.yaml)"
    )
    defaults = {"crds": _CRDS, "controllers": _MANIFESTS}
    parser.add_argument(
        "--pods", type=Path, metavar="FILE", help="where the processes are written as pods, for hooks (DIR/pods.yaml)"
    )
    parser.add_argument("--crds", type=Path, metavar="DIR", default=defaults["crds"], help="CRDs (%(default)s)")
    parser.add_argument(
        "--controllers",
        type=Path,
        metavar="DIR",
        default=defaults["controllers"],
        help="CompositeControllers (%(default)s)",
    )
    given = parser.parse_args(arguments)
    if given.hooks is not None:
        url = httpx.URL(given.hooks)
        if url.scheme not in {"http", "https"} or not url.host or url.path not in {"", "/"}:
            parser.error(f"--hooks must be scheme://host:port, not {given.hooks}")
    if given.workloads is not None and not given.workloads.is_file():
        parser.error(f"--workloads {given.workloads}: there is no such file")
    return Options(given.state, given.hooks, given.workloads, given.pods, given.crds, given.controllers)


async def _main(options: Options) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    async with StandIn(options) as stand_in:
        options.report(f"metacontroller.local keeps {options.state}/objects in step with {options.state}/manifests")
        ending = asyncio.create_task(ended.wait())
        working = asyncio.create_task(stand_in.wait())
        await asyncio.wait({ending, working}, return_when=asyncio.FIRST_COMPLETED)
        ending.cancel()
        if working.done():
            working.result()
        working.cancel()


def main(arguments: list[str] | None = None) -> int:
    """Run until a signal. Return the exit status: 2 where the stand-in cannot start."""
    options = _options(arguments)
    try:
        asyncio.run(_main(options))
    except errors.SetupError as exc:
        print(f"metacontroller.local: {exc}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
