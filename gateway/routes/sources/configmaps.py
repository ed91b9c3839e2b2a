"""Routes from the cluster: ConfigMaps with the route label, listed once and watched from there.

One task for each namespace follows it, and another one its EndpointSlices, where pods are asked for. While the API
server is away everything read before stays in force. A list every few minutes repairs whatever a watch might have
missed.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from gateway.api import v1alpha1
from gateway.backends.endpoints import EndpointTable
from gateway.routes import sources
from gateway.routes.sources.endpoints import EndpointSlices
from gateway.routes.sources.objects import identity
from gateway.routes.sources.scope import Kind, Scope, segment
from program.kubernetes.errors import ApiRefusal

if TYPE_CHECKING:
    from program.kubernetes.client import KubernetesClient

RELIST_SECONDS: Final = 300.0
"""Seconds from a list to the next, give or take a tenth."""
GATHER_SECONDS: Final = 0.01
"""Seconds for which a change waits for more of them: a snapshot is of all objects."""
GET_SECONDS: Final = 10.0
"""Seconds without a byte of a single object."""
BUSY_SECONDS: Final = 1.0
"""Seconds before an API server that is busy is asked again, as API servers say in Retry-After."""
UNUSABLE: Final = "a ConfigMap without a name of its own was left out"
"""Error of a place where something is no object that can be stored."""
READS: Final = 4
"""Single Secrets and ModelDeployments that are read at the same time."""

_KIND: Final = Kind(
    group="/api/v1",
    plural="configmaps",
    selector=f"{v1alpha1.LABEL}={v1alpha1.LABEL_VALUE}",
    unreadable="routes_cannot_be_read",
    readable="routes_are_followed_again",
    failed="routes_following_failed",
)


class ConfigMapSource:
    """The route ConfigMaps of a cluster."""

    def __init__(
        self,
        client: "KubernetesClient",
        namespaces: frozenset[str] | None,
        *,
        endpoints: EndpointTable | None = None,
        relist_seconds: float = RELIST_SECONDS,
    ) -> None:
        """Follow `namespaces`, or all of them when None. The caller closes the client.

        Args:
            client: API server.
            namespaces: Namespaces to follow; None for all.
            endpoints: Table in which the pods of Services are kept; None to read no EndpointSlices.
            relist_seconds: Seconds from a list to the next.
        """
        self._client = client
        self._reading = asyncio.Semaphore(READS)
        places = sorted(namespaces or {""})
        self._scopes = [_ConfigMaps(name, client, relist_seconds) for name in places]
        self._slices = (
            [] if endpoints is None else [EndpointSlices(name, client, endpoints, relist_seconds) for name in places]
        )

    async def run(self, apply: Callable[[sources.Snapshot], None], confirm: Callable[[], None]) -> None:
        """Apply the ConfigMaps that are there, then each change, until cancelled.

        Complete once one namespace was listed and every other one was, too, or is known not to be readable.
        """
        loop = asyncio.get_running_loop()
        gathered: list[bool] = []
        """Whether each change since the last snapshot was news of the API server."""
        timer: asyncio.TimerHandle | None = None

        def learn(changed: bool, fresh: bool) -> None:
            nonlocal timer
            fresh = fresh and self._followed
            if changed:
                if not gathered:
                    timer = loop.call_later(GATHER_SECONDS, take_snapshot)
                gathered.append(fresh)
            elif fresh and self._complete:
                confirm()

        def take_snapshot() -> None:
            fresh = any(gathered)
            gathered.clear()
            apply(self._snapshot(fresh))

        try:
            async with asyncio.TaskGroup() as tasks:
                for scope in self._scopes:
                    tasks.create_task(scope.follow(learn), name=f"configmaps-{scope.namespace or 'all'}")
                for slices in self._slices:
                    tasks.create_task(slices.follow_all(), name=f"endpointslices-{slices.namespace or 'all'}")
        finally:
            if timer is not None:
                timer.cancel()

    async def secret(self, namespace: str, name: str) -> Mapping[str, str] | None:
        """Return the labels (as `label:<name>`) and decoded data of a Secret; None when there is none.

        Raises:
            OSError: it cannot be read now.
        """
        item = await self._read(f"/api/v1/namespaces/{segment(namespace)}/secrets/{segment(name)}")
        return None if item is None else sources.secret_content(item)

    async def model_deployment(self, namespace: str, name: str) -> Mapping[str, Any] | None:
        """Return a ModelDeployment as stored; None when there is none.

        Raises:
            OSError: it cannot be read now.
        """
        group = "deployment.beamlit.com/v1alpha1"
        return await self._read(f"/apis/{group}/namespaces/{segment(namespace)}/modeldeployments/{segment(name)}")

    async def _read(self, path: str) -> Mapping[str, Any] | None:
        """Return the object at a path; None when there is none.

        An API server that is busy, or has just started and prepares a kind, says 429: then it is asked once more.
        """
        async with self._reading:
            try:
                try:
                    return await self._client.get(path, read_seconds=GET_SECONDS)
                except ApiRefusal as exc:
                    if exc.status != 429:
                        raise
                    await asyncio.sleep(BUSY_SECONDS)
                    return await self._client.get(path, read_seconds=GET_SECONDS)
            except ApiRefusal as exc:
                if exc.status == 404:
                    return None
                raise

    @property
    def _complete(self) -> bool:
        scopes = self._scopes
        return any(one.listed for one in scopes) and all(one.listed or one.refused for one in scopes)

    @property
    def _followed(self) -> bool:
        """Whether nothing is in trouble: the table is as young as the news only when all of it is followed."""
        return all(one.error is None or one.refused for one in self._scopes)

    def _snapshot(self, fresh: bool) -> sources.Snapshot:
        return sources.Snapshot(
            [one for scope in self._scopes for one in scope.objects.values()],
            {scope.place: scope.problem for scope in self._scopes if scope.problem is not None},
            fresh=fresh,
            complete=self._complete,
        )


class _ConfigMaps(Scope):
    """The route ConfigMaps of one namespace, or of the whole cluster."""

    def __init__(self, namespace: str, client: "KubernetesClient", relist_seconds: float) -> None:
        super().__init__(namespace, client, _KIND, self, relist_seconds)
        self.objects: dict[str, sources.ConfigMap] = {}
        """ConfigMaps by `namespace/name`."""
        self.unusable: str | None = None
        """What is wrong with a ConfigMap that was left out since the last list; None when there was none."""
        self._listed: dict[str, sources.ConfigMap] = {}
        """ConfigMaps of a list that is being read."""
        self._left_out: str | None = None
        """What is wrong with a ConfigMap of that list."""

    @property
    def problem(self) -> str | None:
        """Error to show; None when all ConfigMaps are followed."""
        return self.error or self.unusable

    def begin(self) -> None:
        """Begin with a new list."""
        self._listed, self._left_out = {}, None

    def add(self, item: Mapping[str, Any]) -> None:
        """Take a ConfigMap of the list."""
        one = _config_map(item)
        if one is None:
            self._left_out = UNUSABLE
        else:
            self._listed[one.key] = one

    def end(self) -> bool:
        """Keep what the list has and nothing else; return whether that is a change."""
        changed = self._listed != self.objects or self._left_out != self.unusable
        self.objects, self.unusable = self._listed, self._left_out
        self._listed = {}
        return changed

    def change(self, item: Mapping[str, Any], *, deleted: bool) -> bool:
        """Take a ConfigMap that was added, changed or deleted; return whether that is a change."""
        one = _config_map(item)
        if one is None:
            changed, self.unusable = self.unusable is None, UNUSABLE
            return changed
        before = self.objects.get(one.key)
        if deleted:
            self.objects.pop(one.key, None)
            return before is not None
        self.objects[one.key] = one
        return before != one


def _config_map(item: Mapping[str, Any]) -> sources.ConfigMap | None:
    """Return a ConfigMap as the API server sent it; None when it has no namespace and name, which one always has."""
    metadata, data = item.get("metadata"), item.get("data")
    if not isinstance(metadata, dict) or "namespace" not in metadata:
        return None
    known = identity(metadata)
    if known is None:
        return None
    namespace, name = known
    text = data.get(v1alpha1.KEY) if isinstance(data, dict) else None
    created = metadata.get("creationTimestamp")
    return sources.ConfigMap(
        namespace=namespace,
        name=name,
        created=created if isinstance(created, str) else "",
        text=text if isinstance(text, str) else None,
        origin=f"{namespace}/{name}",
    )
