"""Related objects: the rules of the customize hook, their cache, and what they select."""

import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from metacontroller.local import errors
from metacontroller.local.apiserver import selectors
from metacontroller.local.apiserver.objects import Key, Kind, Object
from metacontroller.local.apiserver.server import ApiServer
from metacontroller.local.controller.responses import Rule

CACHE_SECONDS = 20 * 60
"""Seconds for which Metacontroller caches the rules of one generation of a parent."""


@dataclass(frozen=True, slots=True)
class _Cached:
    rules: tuple[Rule, ...]
    until: float


class RuleCache:
    """A cache of rules by the parent's uid and generation: labels and status do not change them. Errors are not
    cached."""

    def __init__(self, ask: Callable[[Object], Awaitable[tuple[Rule, ...]]]) -> None:
        """Create an empty cache. `ask` calls the customize hook."""
        self._ask = ask
        self._cached: dict[tuple[str, int], _Cached] = {}

    async def rules(self, parent: Object) -> tuple[Rule, ...]:
        """Return the parent's rules, from the cache or the hook."""
        if (known := self.known(parent)) is not None:
            return known
        rules = await self._ask(parent)
        now = time.monotonic()
        self._cached = {key: entry for key, entry in self._cached.items() if entry.until > now}
        self._cached[_identity(parent)] = _Cached(rules, now + CACHE_SECONDS)
        return rules

    def known(self, parent: Object) -> tuple[Rule, ...] | None:
        """Return the parent's rules if they are in the cache."""
        entry = self._cached.get(_identity(parent))
        return entry.rules if entry is not None and entry.until > time.monotonic() else None


def _identity(parent: Object) -> tuple[str, int]:
    return parent["metadata"]["uid"], parent["metadata"].get("generation", 0)


def check(rule: Rule, kind: Kind, parent_namespace: str, version: str) -> None:
    """Raise errors.SyncError for a rule that Metacontroller refuses."""
    for selector in (rule.label_selector, rule.namespace_selector):
        selectors.check(selector or {})
    if rule.names and (rule.label_selector is not None or rule.namespace_selector is not None):
        raise errors.SyncError("a related rule has names and a selector: only one of them is allowed")
    if rule.namespace and rule.namespace_selector is not None:
        raise errors.SyncError("a related rule has namespace and namespaceSelector: only one of them is allowed")
    if rule.namespace_selector is not None and not kind.namespaced:
        raise errors.SyncError(f"a related rule has namespaceSelector for {kind.plural}, which have no namespace")
    if version == "v1" and parent_namespace and kind.namespaced:
        if rule.namespace_selector is not None:
            raise errors.SyncError("a related rule has namespaceSelector, which hook version v1 does not know")
        if rule.namespace and rule.namespace != parent_namespace:
            raise errors.SyncError(f"a related rule names the namespace {rule.namespace}, not {parent_namespace}")


def gather(api: ApiServer, rules: tuple[Rule, ...], parent_namespace: str, version: str) -> list[tuple[Kind, Object]]:
    """Return the kind of every rule with each object it selects. A kind without objects comes once, with an empty
    object.

    Raises:
        errors.SyncError: A rule is invalid, or its kind is not installed.
    """
    found: list[tuple[Kind, Object]] = []
    for rule in rules:
        kind = api.resource(rule.api_version, rule.resource)
        if kind is None:
            raise errors.SyncError(
                f"a related rule names {rule.resource} in {rule.api_version}, which is not installed"
            )
        check(rule, kind, parent_namespace, version)
        found.append((kind, {}))
        selected = (item for key, item in api.all_of(kind) if selects(rule, kind, key, item, parent_namespace, version))
        found.extend((kind, item) for item in selected)
    return found


def selects(rule: Rule, kind: Kind, key: Key, item: Object, parent_namespace: str, version: str) -> bool:
    """Return whether a rule selects an object of its kind. An empty rule selects all objects."""
    if (kind.api_version, kind.plural) != (rule.api_version, rule.resource):
        return False
    if version == "v1" and parent_namespace and key.namespace != parent_namespace:
        return False
    if kind.namespaced and rule.namespace and key.namespace != rule.namespace:
        return False
    if rule.namespace_selector is not None:
        # Here a namespace has no labels but the one that every namespace has.
        labels = {"kubernetes.io/metadata.name": key.namespace}
        if not kind.namespaced or not selectors.matches(rule.namespace_selector, labels):
            return False
    if rule.names and key.name not in rule.names:
        return False
    return rule.label_selector is None or selectors.matches(rule.label_selector, item["metadata"].get("labels"))
