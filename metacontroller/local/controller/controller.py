"""The loop of one CompositeController: triggers of a sync, workers, retries and the loop detector."""

import asyncio
from collections import Counter, deque
from collections.abc import Callable
from datetime import datetime
from typing import Final

import httpx

from metacontroller.local import errors
from metacontroller.local.apiserver import selectors
from metacontroller.local.apiserver.objects import Key, Object, controller_of, equal
from metacontroller.local.apiserver.server import ApiServer, Change
from metacontroller.local.controller import customize
from metacontroller.local.controller.composite_controller import CompositeController
from metacontroller.local.controller.sync import StatusWatcher, Syncer
from metacontroller.local.controller.workqueue import WorkQueue

WORKERS: Final = 5
"""Number of parents that are synced at the same time (--workers)."""

LOOP_SYNCS: Final = 40
"""Number of syncs of one parent within LOOP_SECONDS that count as a loop."""
LOOP_SECONDS: Final = 5.0
"""Seconds in which LOOP_SYNCS syncs count as a loop. A looping parent then waits a fifth of it before each sync."""


class Controller:
    """The controller that keeps the parents of one CompositeController in sync."""

    def __init__(
        self,
        api: ApiServer,
        registration: CompositeController,
        client: httpx.AsyncClient,
        *,
        now: Callable[[], datetime],
        report: Callable[[str], None],
        on_status: StatusWatcher,
    ) -> None:
        """Subscribe to changes. `run` does the work."""
        self._api, self.registration, self._report = api, registration, report
        self._syncer = Syncer(api, registration, client, now=now, report=report, on_status=on_status)
        self.queue: WorkQueue[Key] = WorkQueue()
        self.syncs: Counter[Key] = Counter()
        """Number of syncs per parent since the start."""
        self.loops: set[Key] = set()
        """Parents that were synced over and over without coming to rest."""
        self._recent: dict[Key, deque[float]] = {}
        self._complaints: dict[Key, str] = {}
        api.watch(self._notice)

    async def run(self) -> None:
        """Work until cancelled."""
        self._add_all()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._work())
                if self.registration.resync_period:
                    group.create_task(self._resync())
        finally:
            self.queue.close()

    # Triggers

    def _notice(self, change: Change) -> None:
        registration = self.registration
        if change.kind == registration.parent and not self._is_noise(change):
            self.queue.add(change.key)
        if any(kind == change.kind for kind, _ in registration.children):
            self._notice_child(change)
        if registration.customize is not None:
            self._notice_related(change, registration.customize.version)

    def _is_noise(self, change: Change) -> bool:
        """Return whether ignoreStatusChanges hides the change: generation, labels and annotations are the same, and the
        parent is not being deleted."""
        if not self.registration.ignore_status_changes or change.type != "MODIFIED" or change.old is None:
            return False
        after, before = change.item["metadata"], change.old["metadata"]
        same = all(equal(after.get(name), before.get(name)) for name in ("generation", "labels", "annotations"))
        return same and "deletionTimestamp" not in after

    def _notice_child(self, change: Change) -> None:
        """Queue the parents that a change of a child concerns: its controller, or for an orphan all parents that could
        adopt it."""
        going = change.type == "DELETED" or "deletionTimestamp" in change.item["metadata"]
        if controller_of(change.item) is not None:
            owner = self._parent_key(change.item, change.key)
            if owner is not None:
                self.queue.add(owner)
        elif not going:
            labels = change.item["metadata"].get("labels")
            for key, parent in self._api.all_of(self.registration.parent, change.key.namespace):
                if self.registration.generate_selector:
                    fits = (labels or {}).get("controller-uid") == parent["metadata"]["uid"]
                else:
                    selector = parent.get("spec", {}).get("selector") or {}
                    fits = bool(selector) and selectors.matches(selector, labels)
                if fits:
                    self.queue.add(key)

    def _parent_key(self, item: Object, child: Key) -> Key | None:
        owner = controller_of(item)
        kind = self.registration.parent
        group = str((owner or {}).get("apiVersion")).rpartition("/")[0]
        if owner is None or (group, owner.get("kind")) != (kind.group, kind.name):
            return None
        key = Key(kind.resource, child.namespace if kind.namespaced else "", owner["name"])
        parent = self._api.find(key)
        return key if parent is not None and parent["metadata"]["uid"] == owner.get("uid") else None

    def _notice_related(self, change: Change, version: str) -> None:
        for key, parent in self._api.all_of(self.registration.parent):
            rules = self._syncer.rules.known(parent)
            if rules is None:
                continue  # its first sync is still to come, or to be tried again
            for rule in rules:
                versions = (change.item, change.old)
                if any(
                    item is not None and customize.selects(rule, change.kind, change.key, item, key.namespace, version)
                    for item in versions
                ):
                    self.queue.add(key)

    def _add_all(self) -> None:
        for key, _ in self._api.all_of(self.registration.parent):
            self.queue.add(key)

    async def _resync(self) -> None:
        while True:
            await asyncio.sleep(self.registration.resync_period)
            self._add_all()

    # Work

    async def _work(self) -> None:
        while True:
            key = await self.queue.get()
            try:
                if self._is_looping(key):
                    self.queue.add_after(key, LOOP_SECONDS / 5)
                else:
                    await self._sync(key)
            finally:
                self.queue.done(key)

    async def _sync(self, key: Key) -> None:
        self.syncs[key] += 1
        try:
            await self._syncer.sync(key, lambda seconds: self.queue.add_after(key, seconds))
        except errors.TooManyRequests as patience:
            self.queue.add_after(key, patience.retry_after)
        except errors.StandInError as exc:
            self.queue.add_rate_limited(key)
            if self._complaints.get(key) != str(exc):
                self._complaints[key] = str(exc)
                self._report(f"{key}: sync failed and is tried again, ever later: {exc}")
        else:
            self.queue.forget(key)
            if self._complaints.pop(key, None) is not None:
                self._report(f"{key}: sync works again")

    def _is_looping(self, key: Key) -> bool:
        """Return whether this parent is synced over and over, and report it once."""
        now = asyncio.get_running_loop().time()
        recent = self._recent.setdefault(key, deque(maxlen=LOOP_SYNCS))
        if len(recent) == LOOP_SYNCS and now - recent[0] < LOOP_SECONDS:
            if key not in self.loops:
                self.loops.add(key)
                self._report(
                    f"{key}: synced {LOOP_SYNCS} times in {now - recent[0]:.1f} s without coming to rest; "
                    "something in the response changes every time"
                )
            return True
        recent.append(now)
        return False
