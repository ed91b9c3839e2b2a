"""The pods of namespaces, from the cache of the API server: one list serves all workloads of a namespace."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from hooks import reasons
from hooks.clients.apiserver import Group, ObjectSource, path
from hooks.clients.errors import Api, CallFailed, TooLarge
from hooks.kube.objects import Object
from hooks.kube.pods import Pod
from hooks.kube.selectors import Selector
from hooks.kube.unstructured import mapping, objects, text, texts
from hooks.metrics.cache import Cache, Query
from hooks.observation.readings import Unread

PAGE: Final = 500
"""Pods in one response. From its cache the API server returns all of them, whatever the limit."""
PAGES: Final = 40
"""Responses in which a namespace is listed at most."""
PAGE_BYTES: Final = 32 << 20
"""Bytes that one response may have. A larger list, of some thousand pods, is read from etcd in pages instead."""

PODS: Final = Group(Api("pods", "The API server's list of pods"), "pods", "", "the API server")


class PodList:
    """The pods of a namespace at one time. The pods for a selector are found once."""

    def __init__(self, pods: tuple[tuple[Mapping[str, str], Pod], ...]) -> None:
        """Hold pods, each with its labels."""
        self._pods = pods
        self._selected: dict[Selector, tuple[Pod, ...]] = {}

    def __len__(self) -> int:
        return len(self._pods)

    def selected(self, selector: Selector) -> tuple[Pod, ...]:
        """Return the pods whose labels a selector matches."""
        pods = self._selected.get(selector)
        if pods is None:
            pods = tuple(pod for labels, pod in self._pods if selector.matches(labels))
            self._selected[selector] = pods
        return pods


class PodLists:
    """The source of pods that lists them once for each namespace and interval, and keeps the facts that are needed."""

    def __init__(self, api: ObjectSource, cache: Cache) -> None:
        """Read by `api`, and keep in `cache` what it responds."""
        self._api = api
        self._cache = cache

    async def pods(self, namespace: str, selector: Selector) -> tuple[Pod, ...] | Unread:
        """Return the pods in a namespace that a selector matches, or the reason why they are not known."""
        pods = await self._cache.get(Query(PODS.api, namespace, namespace), lambda: self._list(namespace))
        return pods if isinstance(pods, Unread) else pods.selected(selector)

    async def _list(self, namespace: str) -> PodList:
        where = path("api", "v1", "namespaces", namespace, "pods")
        pods: list[tuple[Mapping[str, str], Pod]] = []
        token = ""
        for _ in range(PAGES):
            page = await self._page(where, token)
            items = objects(page, "items")
            pods += _read(items) if len(items) <= PAGE // 10 else await asyncio.to_thread(_read, items)
            token = text(mapping(page, "metadata"), "continue")
            if not token:
                return PodList(tuple(pods))
        raise CallFailed(reasons.REFUSED, "The namespace has more pods than hooks list.")

    async def _page(self, where: str, token: str) -> Object:
        limit = ("limit", str(PAGE))
        if token:
            return await self._api.get(PODS, where, [limit, ("continue", token)], PAGE_BYTES) or {}
        try:
            return await self._api.get(PODS, where, [limit, ("resourceVersion", "0")], PAGE_BYTES) or {}
        except TooLarge:
            return await self._api.get(PODS, where, [limit], PAGE_BYTES) or {}


def _read(items: Iterable[Mapping[str, Any]]) -> list[tuple[Mapping[str, str], Pod]]:
    return [(texts(mapping(item, "metadata"), "labels"), Pod.of(dict(item))) for item in items]
