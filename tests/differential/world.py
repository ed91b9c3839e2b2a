"""A place where scenarios run: objects, a Metacontroller and the hook that it calls. There are two: `stand_in` and
`tests/e2e/real_world.py`."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import Any, Final

from metacontroller.local.apiserver.objects import BUILT_IN, Kind
from tests.differential import snapshots
from tests.differential.snapshots import NUDGE, Json, Names, Point, Record
from tests.hook_server import HookServer, Response

ELSEWHERE: Final = "-elsewhere"
"""Suffix of the scenario's second namespace."""
SEEN: Final = ("ConfigMap", "Service", "Secret", "Deployment", "StatefulSet", "DaemonSet")
"""Kinds whose objects are all part of a point of rest, beside those of the parent's kind."""

_LOOKS: Final = 6
"""Number of observations without a change that count as rest."""


class Refused(Exception):
    """The API server refused a write of the scenario itself."""


class NotAtRest(AssertionError):
    """The world did not come to rest in time."""


class World(ABC):
    """One scenario's part of a cluster: its namespaces, and a hook of its own."""

    quiet: float
    """Seconds without a hook request and without a change that count as rest."""
    patience: float
    """Seconds within which the world has to come to rest."""

    def __init__(self, namespace: str, parent: Kind, hook: HookServer) -> None:
        self.namespace, self.parent, self.hook = namespace, parent, hook
        self.record = Record()
        self.names = Names()
        self.kinds = {kind.name: kind for kind in (*BUILT_IN, parent)}
        self._mark = 0
        self._nudges = 0

    # What a scenario does

    def respond(self, *children: Json, status: Json | None = None, **more: Any) -> None:
        """Have every hook respond with these children and this status from now on."""
        content = {"status": status or {}, "children": list(children)} | more
        self.hook.script = lambda _: Response(content)

    async def start(self, *, metadata: Json | None = None, parent: Json | None = None, **spec: Any) -> None:
        """Install the CompositeController, with these fields of its specification, and create the parent `one`."""
        await self.install(composite_controller(self.parent, self.hook.url, **spec))
        await self.create(self.parent_object(metadata=metadata, spec=parent or {}))

    def parent_object(self, name: str = "one", *, metadata: Json | None = None, spec: Json) -> Json:
        """Return a parent with this specification."""
        head = {"apiVersion": self.parent.api_version, "kind": self.parent.name}
        return {**head, "metadata": {"name": name, **(metadata or {})}, "spec": spec}

    async def create(self, item: Json) -> Json:
        """Create an object as a user does, in the scenario's namespace unless it names another one."""
        namespaced = {**item, "metadata": {"namespace": self.namespace, **item["metadata"]}}
        self._mark = len(self.hook.requests)
        return await self.post(namespaced)

    async def patch(self, kind: str, name: str, change: Json, *, status: bool = False) -> None:
        """Change an object as a user does, by a merge patch; with `status`, only its status."""
        self._mark = len(self.hook.requests)
        await self.merge(self.kinds[kind], name, change, status=status)

    async def delete(self, kind: str, name: str) -> None:
        """Delete an object as a user does."""
        self._mark = len(self.hook.requests)
        await self.remove(self.kinds[kind], name)

    async def nudge(self) -> None:
        """Have the parent `one` synced again, by an annotation."""
        self._nudges += 1
        await self.patch(self.parent.name, "one", {"metadata": {"annotations": {NUDGE: str(self._nudges)}}})

    async def get(self, kind: str, name: str) -> Json:
        """Return an object as it is; raise KeyError when there is none."""
        return (await self.objects())[self._key(kind, name, self.namespace)]

    async def rest(self, point: str, *, requests: int = 1) -> None:
        """Wait for at least `requests` hook requests since the scenario's last own write, and for rest; then record the
        point.

        Raise NotAtRest when it does not come in time.
        """
        await self.until(lambda: len(self.hook.requests) - self._mark >= requests, f"{requests} hook requests")
        await self.calm(point)
        await self.keep(point)

    async def calm(self, point: str) -> None:
        """Wait for rest; raise NotAtRest when it does not come in time."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.patience
        before, calm = None, 0
        # Observations are counted, not seconds: while this process gets no CPU, nothing else in it can happen either.
        while calm < _LOOKS:
            await asyncio.sleep(self.quiet / _LOOKS)
            now = (len(self.hook.requests), await self.state())
            calm = calm + 1 if now == before and not self.busy() else 0
            before = now
            if loop.time() > end:
                raise NotAtRest(f"{self.namespace}: not at rest at {point!r}, {len(self.hook.requests)} requests")

    async def keep(self, point: str) -> None:
        """Record the present objects as a point."""
        objects = await self.objects()
        for key, item in objects.items():
            self.names.see(key, item)
        parents, children = {}, {}
        for key, item in objects.items():
            if item["kind"] == self.parent.name:
                parents[item["metadata"]["name"]] = snapshots.stripped(item)
            else:
                children[key] = snapshots.stripped(item)
        made = Point(point, parents, children, {}, [], self._shown())
        for section in ("parents", "children", "shown"):
            setattr(made, section, self.names.replace(getattr(made, section)))
        self.record.points.append(made)
        self.rested()

    async def until(self, condition: Callable[[], bool | Awaitable[bool]], what: str) -> None:
        """Wait until the condition holds; raise NotAtRest after the world's patience."""
        loop = asyncio.get_running_loop()
        end = loop.time() + self.patience
        while True:
            holds = condition()
            if holds is True or (not isinstance(holds, bool) and await holds):
                return
            if loop.time() > end:
                raise NotAtRest(f"{self.namespace}: not within {self.patience:g} s: {what}")
            await asyncio.sleep(0.02)

    async def gone(self, kind: str, name: str) -> None:
        """Wait until an object no longer exists."""
        key = self._key(kind, name, self.namespace)

        async def absent() -> bool:
            return key not in await self.objects()

        await self.until(absent, f"{key} is gone")

    def note(self, fact: str, value: Any) -> None:
        """Record a fact that has to be the same in every world."""
        self.record.notes[fact] = self.names.replace(value)

    def asked(self, path: str) -> list[Json]:
        """Return the bodies of all requests to a hook so far."""
        return self.hook.of(path)

    # What a world is

    @abstractmethod
    async def install(self, controller: Json) -> None:
        """Register a CompositeController."""

    @abstractmethod
    async def post(self, item: Json) -> Json:
        """Create an object; raise Refused when the API server does not accept it."""

    @abstractmethod
    async def merge(self, kind: Kind, name: str, change: Json, *, status: bool) -> None:
        """Apply a JSON merge patch; raise Refused when the API server does not accept it."""

    @abstractmethod
    async def remove(self, kind: Kind, name: str) -> None:
        """Delete an object in the background; raise Refused when the API server does not accept it."""

    @abstractmethod
    async def objects(self) -> dict[str, Json]:
        """Return every object of the scenario by its key in a record."""

    @abstractmethod
    async def make_ready(self, name: str) -> None:
        """Make all pods of a Deployment ready, and its status accordingly."""

    @abstractmethod
    def rested(self) -> None:
        """Take note that a point was recorded: later writes belong to the next one."""

    @property
    def delays(self) -> list[float] | None:
        """Return the seconds after which the Metacontroller decided to sync again, in order; None when not known."""
        return None

    def busy(self) -> bool:
        """Return whether the Metacontroller is known to work on something."""
        return False

    async def state(self) -> object:
        """Return a value that differs after any change."""
        return {key: item["metadata"]["resourceVersion"] for key, item in (await self.objects()).items()}

    def _key(self, kind: str, name: str, namespace: str) -> str:
        return f"{kind}/{name}" if namespace == self.namespace else f"{kind}/{namespace}/{name}"

    def _shown(self) -> Json:
        for request in reversed(self.hook.requests):
            path = request.target.partition("?")[0]
            if request.body and path.rpartition("/")[2] in ("sync", "finalize"):
                return snapshots.shown(path, request.content)
        return {}


def composite_controller(parent: Kind, url: str, **spec: Any) -> Json:
    """Return a CompositeController with ConfigMap, Service and Deployment children; `hooks` is a list of their
    names."""
    hooks = {name: webhook(url, name) for name in spec.pop("hooks", ["sync"])} | spec.pop("webhooks", {})
    return {
        "apiVersion": "metacontroller.k8s.io/v1alpha1",
        "kind": "CompositeController",
        "metadata": {"name": parent.plural},
        "spec": {
            "generateSelector": True,
            "parentResource": {
                "apiVersion": parent.api_version,
                "resource": parent.plural,
                "ignoreStatusChanges": True,
            },
            "childResources": [
                rule("v1", "configmaps"),
                rule("v1", "services"),
                rule("apps/v1", "deployments"),
            ],
            "hooks": hooks,
            **spec,
        },
    }


def rule(api_version: str, resource: str, method: str | None = "InPlace") -> Json:
    """Return a child resource, with no update strategy when there is no method."""
    strategy = {"updateStrategy": {"method": method}} if method else {}
    return {"apiVersion": api_version, "resource": resource, **strategy}


def webhook(url: str, name: str, *, version: str = "v1", **more: Any) -> Json:
    """Return a strict hook at the path of its name."""
    return {"version": version, "webhook": {"url": f"{url}/{name}", "responseUnMarshallMode": "strict", **more}}
