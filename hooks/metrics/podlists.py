"""The pods of namespaces, from the API server's cache: one list for all workloads of a namespace."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from hooks import reasons
from hooks.clients.apiserver import ApiServer, Group, path
from hooks.clients.errors import Api, CallFailed, TooLarge
from hooks.kube.objects import Object
from hooks.kube.pods import Pod
from hooks.kube.selectors import Selector
from hooks.kube.unstructured import mapping, objects, text, texts
from hooks.metrics.cache import Cache, Query
from hooks.observation.readings import Unread

PAGE: Final = 500
"""Pods in one answer, where the API server obeys it; from its cache it gives all of them at once."""
PAGES: Final = 40
PAGE_BYTES: Final = 32 << 20
"""Above it, some thousand pods, the list is read from behind the cache, in pages."""

PODS: Final = Group(Api("pods", "The API server's list of pods"), "pods", "", "the API server")


class Listed:
    """The pods of a namespace at one time. What a selector selects is found once."""

    def __init__(self, pods: tuple[tuple[Mapping[str, str], Pod], ...]) -> None:
        """`pods` with their labels."""
        self._pods = pods
        self._selected: dict[Selector, tuple[Pod, ...]] = {}

    def __len__(self) -> int:
        return len(self._pods)

    def selected(self, selector: Selector) -> tuple[Pod, ...]:
        """Those with labels that it selects."""
        found = self._selected.get(selector)
        if found is None:
            found = tuple(pod for labels, pod in self._pods if selector.matches(labels))
            self._selected[selector] = found
        return found


class PodLists:
    """Lists pods once for each namespace and interval, and keeps of them what is needed."""

    def __init__(self, api: ApiServer, cache: Cache) -> None:
        """`api` is asked, `cache` keeps."""
        self._api = api
        self._cache = cache

    async def pods(self, namespace: str, selector: Selector) -> tuple[Pod, ...] | Unread:
        """The pods of a namespace that are selected, or why they are not known."""
        found = await self._cache.get(Query(PODS.api, namespace, namespace), lambda: self._list(namespace))
        if isinstance(found, Unread):
            return found
        return found.selected(selector)

    async def _list(self, namespace: str) -> Listed:
        where = path("api", "v1", "namespaces", namespace, "pods")
        found: list[tuple[Mapping[str, str], Pod]] = []
        token = ""
        for _ in range(PAGES):
            page = await self._page(where, token)
            items = objects(page, "items")
            found += _read(items) if len(items) <= PAGE // 10 else await asyncio.to_thread(_read, items)
            token = text(mapping(page, "metadata"), "continue")
            if not token:
                return Listed(tuple(found))
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
