"""A CompositeController, read from its manifest."""

from dataclasses import dataclass
from typing import Literal, Self, cast

from metacontroller.local import errors
from metacontroller.local.apiserver.objects import Kind, Object, copy
from metacontroller.local.apiserver.server import ApiServer
from metacontroller.local.controller.webhook import Webhook

Method = Literal["OnDelete", "Recreate", "InPlace"]
_METHODS = ("OnDelete", "Recreate", "InPlace")

CACHE_FLUSH_SECONDS = 30 * 60
"""Seconds above which a resyncPeriodSeconds is ignored (--cache-flush-interval)."""


@dataclass(frozen=True, slots=True)
class CompositeController:
    """A CompositeController: its parents, children and hooks."""

    name: str
    manifest: Object
    """Whole object, as every hook request carries it."""
    parent: Kind
    parent_selector: Object
    """`parentResource.labelSelector`; empty for all."""
    ignore_status_changes: bool
    children: tuple[tuple[Kind, Method], ...]
    generate_selector: bool
    resync_period: float
    """Seconds between resyncs; 0 for none."""
    sync: Webhook
    finalize: Webhook | None
    customize: Webhook | None

    @property
    def finalizer(self) -> str:
        """Return the finalizer that this controller sets on its parents if it has a finalize hook."""
        return f"metacontroller.io/compositecontroller-{self.name}"

    @classmethod
    def from_manifest(cls, manifest: Object, api: ApiServer, base: str | None) -> Self:
        """Read the manifest as Metacontroller does at its start. `base` replaces scheme, host and port of the hooks.

        Raises:
            errors.SetupError: Metacontroller would report CreateError.
        """
        name, spec = manifest["metadata"]["name"], manifest["spec"]
        parent_rule = spec["parentResource"]
        parent = _kind(api, parent_rule, name)
        if parent.schema is None or not parent.status:
            raise errors.SetupError(
                f"CompositeController {name}: {parent.resource} has no CRD with a status subresource"
            )
        hooks = spec.get("hooks") or {}
        if "sync" not in hooks:
            raise errors.SetupError(f"CompositeController {name} has no sync hook")
        webhooks = {hook: Webhook.from_spec(hooks[hook], base) for hook in hooks if hooks[hook] is not None}
        period = float(spec.get("resyncPeriodSeconds") or 0)
        whole = {"status": {}, **copy(manifest)}
        for rule in whole["spec"].get("childResources") or ():
            if isinstance(rule.get("updateStrategy"), dict):
                rule["updateStrategy"].setdefault("statusChecks", {})  # as its Go type prints it
        return cls(
            name=name,
            manifest=whole,
            parent=parent,
            parent_selector=parent_rule.get("labelSelector") or {},
            ignore_status_changes=bool(parent_rule.get("ignoreStatusChanges")),
            children=tuple((_kind(api, rule, name), _method(rule, name)) for rule in spec.get("childResources") or ()),
            generate_selector=bool(spec.get("generateSelector")),
            resync_period=period if 1 <= period < CACHE_FLUSH_SECONDS else 0.0,
            sync=webhooks["sync"],
            finalize=webhooks.get("finalize"),
            customize=webhooks.get("customize"),
        )


def _kind(api: ApiServer, rule: Object, name: str) -> Kind:
    kind = api.resource(rule["apiVersion"], rule["resource"])
    if kind is None:
        raise errors.SetupError(
            f"CompositeController {name} names {rule['resource']} in {rule['apiVersion']}, which is not installed"
        )
    return kind


def _method(rule: Object, name: str) -> Method:
    method = (rule.get("updateStrategy") or {}).get("method") or "OnDelete"
    if method not in _METHODS:
        allowed = ", ".join(_METHODS)
        raise errors.SetupError(f"CompositeController {name}: the update method {method!r} is none of {allowed}")
    return cast("Method", method)
