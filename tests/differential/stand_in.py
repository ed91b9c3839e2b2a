"""The stand-in as a world: it runs in this process, and its API server is called directly."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import yaml

from metacontroller.local import errors, kubelet
from metacontroller.local.__main__ import Options, StandIn
from metacontroller.local.apiserver.builtin import WORKLOADS
from metacontroller.local.apiserver.objects import Key, Kind, controller_of, equal
from metacontroller.local.apiserver.server import ApiServer, Change
from metacontroller.local.controller.workqueue import WorkQueue
from tests.deadlines import NEVER
from tests.differential.snapshots import Json
from tests.differential.world import ELSEWHERE, SEEN, Refused, World
from tests.hook_server import HookServer, Response


class _Watched(WorkQueue[Key]):
    """Queue that records the delay of each key that comes later."""

    def __init__(self, delays: list[float]) -> None:
        super().__init__()
        self._delays = delays

    def add_after(self, key: Key, seconds: float) -> None:
        """Record the delay, and queue the key."""
        self._delays.append(seconds)
        super().add_after(key, seconds)


class StandInWorld(World):
    """A world on a stand-in with a folder of its own."""

    quiet = 0.15
    patience = NEVER

    def __init__(self, namespace: str, parent: Kind, hook: HookServer, folder: Path, crds: Path) -> None:
        super().__init__(namespace, parent, hook)
        self._folder, self._crds = folder, crds
        self._stand_in: StandIn | None = None
        self._ours = False
        self._order: list[str] = []
        self._delays: list[float] = []
        self.reports: list[str] = []

    async def install(self, controller: Json) -> None:
        """Start the stand-in with this CompositeController registered."""
        assert self._stand_in is None, "one CompositeController for each world"
        installed = self._folder / "installed"
        installed.mkdir(parents=True)
        (installed / "controller.yaml").write_text(yaml.safe_dump(controller))
        options = Options(self._folder / "state", crds=self._crds, controllers=installed, report=self.reports.append)
        self._stand_in = StandIn(options)
        self._api.watch(self._count)
        for each in self._stand_in.controllers:
            each.queue = _Watched(self._delays)
        self._stand_in.start()
        for _ in range(3):
            # The kubelet reads the workloads that exist when it begins, so let it begin before any are created.
            await asyncio.sleep(0)

    async def stop(self) -> None:
        """Stop the stand-in, if it was started."""
        if self._stand_in is not None:
            await self._stand_in.stop()

    async def post(self, item: Json) -> Json:
        """Create an object."""
        with self._own():
            return self._api.create(item)

    async def merge(self, kind: Kind, name: str, change: Json, *, status: bool) -> None:
        """Apply a merge patch and write the result."""
        with self._own():
            before = self._api.find(self._place(kind, name))
            assert before is not None, f"there is no {kind.name} {name}"
            (self._api.update_status if status else self._api.update)(_merged(before, change))

    async def remove(self, kind: Kind, name: str) -> None:
        """Delete an object."""
        with self._own():
            self._api.delete(self._place(kind, name))

    async def objects(self) -> dict[str, Json]:
        """Return every stored object of the scenario by its key in a record."""
        objects = {}
        for kind in (self.parent, *(self.kinds[name] for name in SEEN)):
            for namespace in (self.namespace, self.namespace + ELSEWHERE):
                for key, item in self._api.all_of(kind, namespace):
                    objects[self._key(kind.name, key.name, namespace)] = item
        return objects

    async def make_ready(self, name: str) -> None:
        """Write the status that the controllers of a cluster would write for a ready Deployment."""
        self._mark = len(self.hook.requests)
        kind = self.kinds["Deployment"]
        item = self._api.find(self._place(kind, name))
        assert item is not None
        item["status"] = kubelet.make_status(kind, item, ready=kubelet.ALL, now=self._now())
        with self._own():
            self._api.update_status(item)

    def rested(self) -> None:
        """Assign the writes counted since the last point to the new one."""
        for line in self._order:
            self.record.points[-1].wrote(line)
        self._order = []

    @property
    def delays(self) -> list[float] | None:
        """Return the delays of keys in the work queue."""
        return self._delays

    def busy(self) -> bool:
        """Return whether a sync waits or runs."""
        return self._stand_in is not None and not all(each.queue.idle for each in self._stand_in.controllers)

    @property
    def _api(self) -> ApiServer:
        assert self._stand_in is not None, "install a CompositeController first"
        return self._stand_in.api

    def _now(self) -> Any:
        return Options(self._folder).now()

    def _place(self, kind: Kind, name: str) -> Key:
        return Key(kind.resource, self.namespace, name)

    @contextmanager
    def _own(self) -> Iterator[None]:
        """Count the writes inside, and the garbage that they leave, as the scenario's own."""
        self._ours = True
        try:
            yield
        except errors.Refused as error:
            raise Refused(str(error)) from error
        finally:
            self._ours = False

    def _count(self, change: Change) -> None:
        if self._ours or self._is_collected(change) or self._is_kubelet(change):
            return
        verb = {"ADDED": "create", "MODIFIED": "update", "DELETED": "delete"}[change.type]
        name = self._key(change.kind.name, change.key.name, change.key.namespace)
        if change.old is not None and "deletionTimestamp" in change.item["metadata"].keys() - change.old["metadata"]:
            verb = "delete"
        if change.type == "DELETED" and change.kind == self.parent:
            verb = "update"  # Metacontroller deletes no parent: it removed the last finalizer
        if change.old is not None and change.kind == self.parent and _only_status(change):
            name += "/status"
        self._order.append(f"{verb} {name}")

    def _is_collected(self, change: Change) -> bool:
        """Return whether the garbage collector made the change: the owner is gone."""
        owner = controller_of(change.item)
        if change.type != "DELETED" or owner is None or change.kind == self.parent:
            return False
        parent = self._api.find(Key(self.parent.resource, change.key.namespace, owner["name"]))
        return parent is None or parent["metadata"]["uid"] != owner["uid"]

    def _is_kubelet(self, change: Change) -> bool:
        return change.type == "MODIFIED" and change.kind.name in WORKLOADS and _only_status(change)


def _only_status(change: Change) -> bool:
    def rest(item: Json) -> Json:
        metadata = {name: value for name, value in item["metadata"].items() if name != "resourceVersion"}
        return {**{name: value for name, value in item.items() if name != "status"}, "metadata": metadata}

    assert change.old is not None
    return equal(rest(change.item), rest(change.old))


def _merged(target: Any, change: Any) -> Any:
    """Return the target with an RFC 7386 merge patch applied."""
    if not isinstance(change, dict):
        return change
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in change.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = _merged(result.get(name), value)
    return result


@asynccontextmanager
async def stand_in_world(namespace: str, parent: Kind, folder: Path, crds: Path) -> AsyncIterator[StandInWorld]:
    """Yield a world on a stand-in, with a hook for it."""
    async with HookServer(lambda _: Response()) as hook:
        world = StandInWorld(namespace, parent, hook, folder, crds)
        try:
            yield world
        finally:
            await world.stop()
