"""Pods from the cluster: the EndpointSlices of the models' Services, as Kubernetes keeps them.

Trouble with them ends no route: the pods that are known stay, and without any the name of the Service is used.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway.backends.endpoints import SELECTOR, EndpointTable, read
from gateway.routes.sources.objects import identity
from gateway.routes.sources.scope import Kind, Scope

if TYPE_CHECKING:
    from program.kubernetes.client import KubernetesClient

_KIND: Final = Kind(
    group="/apis/discovery.k8s.io/v1",
    plural="endpointslices",
    selector=SELECTOR,
    unreadable="endpoints_cannot_be_read",
    readable="endpoints_are_followed_again",
    failed="endpoints_following_failed",
)


class EndpointSlices(Scope):
    """The EndpointSlices of one namespace, or of the whole cluster."""

    def __init__(self, namespace: str, client: "KubernetesClient", table: EndpointTable, relist_seconds: float) -> None:
        super().__init__(namespace, client, _KIND, self, relist_seconds)
        self._table = table
        self._names: dict[str, set[str]] = {}
        """Names of the slices of a list that is being read, by namespace."""

    async def follow_all(self) -> None:
        """Keep the table as the cluster has it, until cancelled."""
        await self.follow(lambda _changed, _fresh: self._show())

    def begin(self) -> None:
        """Begin with a new list."""
        self._names = {}

    def add(self, item: Mapping[str, Any]) -> None:
        """Take a slice of the list."""
        one = read(item)
        if one is not None:
            self._names.setdefault(one.namespace, set()).add(one.name)
            self._table.put(one)

    def end(self) -> bool:
        """Keep what the list has and nothing else; return whether that is a change."""
        names, self._names = self._names, {}
        return self._table.keep_only(names, self.namespace or None)

    def change(self, item: Mapping[str, Any], *, deleted: bool) -> bool:
        """Take a slice that was added, changed or deleted; return whether that is a change."""
        one = read(item)
        if one is None or deleted:
            metadata = item.get("metadata")
            known = identity(metadata) if isinstance(metadata, dict) else None
            return known is not None and self._table.remove(*known)
        return self._table.put(one)

    def _show(self) -> None:
        """Show in the table whether its slices are followed."""
        if self.error is None:
            self._table.errors.pop(self.place, None)
        else:
            self._table.errors[self.place] = self.error
