"""One sync of one parent, in Metacontroller's order.

Finalizer, claim, customize, hook, resync, finalized, labels, children, status. A hook's failure ends it before
children and status are touched; children that could not be applied do not keep the status from being written.
"""

from collections.abc import Callable, Iterable
from datetime import datetime

import httpx

from metacontroller.local import errors
from metacontroller.local.apiserver import selectors
from metacontroller.local.apiserver.objects import Key, Kind, Object, copy, equal, key_of
from metacontroller.local.apiserver.server import ApiServer
from metacontroller.local.controller import customize, responses, webhook
from metacontroller.local.controller.children import Children
from metacontroller.local.controller.composite_controller import CompositeController
from metacontroller.local.controller.webhook import Webhook

StatusWatcher = Callable[[Object, Object], None]
"""A function that is called with the parent before and after an effective write of its status."""


class Syncer:
    """The part of a CompositeController that syncs one parent."""

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
        """Create a syncer. `report` takes a line for each change of a child; `on_status` is called after changes of
        parents' status."""
        self._api, self._registration, self._client = api, registration, client
        self._now, self._on_status = now, on_status
        self._children = Children(api, registration, report)
        self.rules = customize.RuleCache(self._ask_for_rules)

    async def sync(self, key: Key, resync_after: Callable[[float], None]) -> None:
        """Bring one parent and its children to the desired state; raise errors.StandInError where that fails."""
        parent = self._api.find(key)
        if parent is None:
            return
        matches = selectors.matches(self._registration.parent_selector, parent["metadata"].get("labels"))
        if not matches and not self._has_finalizer(parent):
            return
        parent = self._with_finalizer(parent, wanted=matches)
        selector = self._selector(parent)
        observed = self._children.claim(parent, selector)
        related = await self._related(parent)
        finalizing = self._registration.finalize is not None and (
            "deletionTimestamp" in parent["metadata"] or not matches
        )
        response = await self._ask(parent, observed, related, finalizing=finalizing)
        if response.resync_after_seconds > 0:
            resync_after(response.resync_after_seconds)
        if response.finalized:
            self._without_finalizer(key)
        desired = self._children.desired(parent, selector, response.children)
        failures: list[str] = []
        if self._may_manage(parent, finalized=response.finalized):
            failures = self._children.manage(parent, [item for _, item in observed], desired)
        self._write_status(parent, response.status)
        if failures:
            raise errors.SyncError("; ".join(failures))

    # Finalizers

    def _has_finalizer(self, parent: Object) -> bool:
        return self._registration.finalizer in (parent["metadata"].get("finalizers") or ())

    def _with_finalizer(self, parent: Object, *, wanted: bool) -> Object:
        """Return the parent with the finalizer, or without it where the CompositeController has no finalize hook any
        more."""
        has = self._has_finalizer(parent)
        if self._registration.finalize is None:
            return self._without_finalizer(key_of(self._registration.parent, parent)) or parent if has else parent
        if has or not wanted or "deletionTimestamp" in parent["metadata"]:
            return parent
        marked = copy(parent)
        marked["metadata"].setdefault("finalizers", []).append(self._registration.finalizer)
        return self._api.update(marked)

    def _without_finalizer(self, key: Key) -> Object | None:
        fresh = self._api.find(key)
        if fresh is None or not self._has_finalizer(fresh):
            return fresh
        fresh["metadata"]["finalizers"].remove(self._registration.finalizer)
        return self._api.update(fresh)

    def _may_manage(self, parent: Object, *, finalized: bool) -> bool:
        """Return whether children may be managed: a parent that is being deleted is left to the garbage collector,
        unless the finalizer still holds it."""
        metadata = parent["metadata"]
        if "deletionTimestamp" not in metadata:
            return True
        cascade = {"foregroundDeletion", "orphan"} & set(metadata.get("finalizers") or ())
        return self._has_finalizer(parent) and not cascade and not finalized

    # The request

    def _selector(self, parent: Object) -> Object:
        if self._registration.generate_selector:
            return {"matchLabels": {"controller-uid": parent["metadata"]["uid"]}}
        selector: Object = parent.get("spec", {}).get("selector") or {}
        if not selector:
            raise errors.SyncError("the parent has no spec.selector, and the controller does not generate one")
        selectors.check(selector)
        return selector

    async def _ask_for_rules(self, parent: Object) -> tuple[responses.Rule, ...]:
        hook = self._registration.customize
        if hook is None:
            return ()
        request = {"controller": self._registration.manifest, "parent": parent}
        body = await webhook.call(self._client, hook, request, self._now())
        return responses.decode_customize(body, strict=hook.strict)

    async def _related(self, parent: Object) -> list[tuple[Kind, Object]]:
        hook = self._registration.customize
        if hook is None:
            return []
        rules = await self.rules.rules(parent)
        return customize.gather(self._api, rules, parent["metadata"].get("namespace", ""), hook.version)

    async def _ask(
        self,
        parent: Object,
        observed: list[tuple[Kind, Object]],
        related: list[tuple[Kind, Object]],
        *,
        finalizing: bool,
    ) -> responses.SyncResponse:
        hook = self._registration.finalize if finalizing else self._registration.sync
        if hook is None:
            raise AssertionError("finalizing without a finalize hook")
        kinds: list[tuple[Kind, Object]] = [(kind, {}) for kind, _ in self._registration.children]
        request = {
            "controller": self._registration.manifest,
            "parent": parent,
            "children": _grouped([*kinds, *observed], parent, hook),
            "related": _grouped(related, parent, hook),
            "finalizing": finalizing,
        }
        body = await webhook.call(self._client, hook, request, self._now())
        return responses.decode_sync(body, strict=hook.strict)

    # The status

    def _write_status(self, parent: Object, status: Object) -> None:
        """Replace the status where it differs, with metadata.generation of the parent that was sent."""
        fresh = self._api.find(key_of(self._registration.parent, parent))
        if fresh is None or fresh["metadata"]["uid"] != parent["metadata"]["uid"]:
            return
        wanted = {**status, "observedGeneration": parent["metadata"].get("generation", 0)}
        if equal(fresh.get("status"), wanted):
            return
        before = copy(fresh)
        fresh["status"] = wanted
        after = self._api.update_status(fresh)
        if after["metadata"]["resourceVersion"] != before["metadata"]["resourceVersion"]:
            self._on_status(before, after)


def _grouped(items: Iterable[tuple[Kind, Object]], parent: Object, hook: Webhook) -> Object:
    """Return objects by kind and name. Version v1 has bare names and drops objects outside the parent's namespace."""
    groups: Object = {}
    home = parent["metadata"].get("namespace")
    for kind, item in items:
        group = groups.setdefault(kind.hook_key, {})
        if not item:
            continue
        name, namespace = item["metadata"]["name"], item["metadata"].get("namespace")
        if hook.version == "v1" and home is not None:
            if namespace == home:
                group[name] = item
        else:
            group[f"{namespace}/{name}" if namespace else name] = item
    return groups
