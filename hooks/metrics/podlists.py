"""The pods of namespaces, from the API server's cache: one list for all workloads of a namespace."""

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any, Final

from hooks import reasons
from hooks.fields import mapping, objects, text, texts
from hooks.metrics.apiserver import ApiServer, Group, path
from hooks.metrics.cache import Api, Cache, Query
from hooks.metrics.failures import Failed
from hooks.pods import Pod
from hooks.readings import Unread
from hooks.selectors import Selector

PAGE: Final = 1000
"""Pods in one answer, where the API server obeys it; from its cache it may give all of them."""
PAGES: Final = 20
PAGE_BYTES: Final = 128 << 20

PODS: Final = Group(Api("pods", "The API server's list of pods"), "pods", "", "the API server")

_Labelled = tuple[Mapping[str, str], Pod]


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
        return tuple(pod for labels, pod in found if selector.matches(labels))

    async def _list(self, namespace: str) -> tuple[_Labelled, ...]:
        where = path("api", "v1", "namespaces", namespace, "pods")
        query = [("limit", str(PAGE)), ("resourceVersion", "0")]
        found: list[_Labelled] = []
        for _ in range(PAGES):
            page = await self._api.get(PODS, where, query, PAGE_BYTES) or {}
            items = objects(page, "items")
            found += _read(items) if len(items) <= PAGE // 10 else await asyncio.to_thread(_read, items)
            token = text(mapping(page, "metadata"), "continue")
            if not token:
                return tuple(found)
            query = [("limit", str(PAGE)), ("continue", token)]
        raise Failed(reasons.REFUSED, "The namespace has more pods than hooks list.")


def _read(items: Iterable[Mapping[str, Any]]) -> list[_Labelled]:
    return [(texts(mapping(item, "metadata"), "labels"), Pod.of(dict(item))) for item in items]
