"""What hooks would see of a model now, read from the cluster with the rights of the kubeconfig.

The parent, its children and the related objects make the request that Metacontroller would send. Metrics are read as
hooks read them, but by way of the API server: pages of pods and a Prometheus in the cluster through its proxy.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from hooks import names, reasons
from hooks.clients.apiserver import Group
from hooks.clients.errors import CallFailed
from hooks.clients.gateways import DrillSource
from hooks.clients.http import RESPONSE_BYTES, Parameters
from hooks.clients.pods import Page
from hooks.gatherer import gather
from hooks.kube.objects import Object
from hooks.kube.pods import Pod
from hooks.kube.selectors import Selector
from hooks.kube.unstructured import mapping, objects, text
from hooks.kubectl import models
from hooks.kubectl.cluster import Cluster, ClusterFailed, Refused, get, get_if_there, path
from hooks.metrics import MetricSource, Sources, vectors
from hooks.metrics.cache import Cache
from hooks.metrics.kubernetes import KubernetesMetrics
from hooks.metrics.pod_metrics import PodMetrics
from hooks.metrics.podlists import PodLists
from hooks.metrics.prometheus import PrometheusMetrics
from hooks.metrics.prometheus_api import PATH, PrometheusServer
from hooks.metrics.vectors import Point
from hooks.observation.observation import Observation
from hooks.observation.readings import Unread
from hooks.protocol import CustomizeRequest, SyncRequest
from hooks.reconcile.related import customize
from hooks.settings import Prometheus, Settings
from hooks.telemetry import Metrics
from program.settings import SettingsError

DEADLINE_SECONDS: Final = 30.0
"""Seconds in which metrics are read: each call is a process."""
PRODUCT: Final = "app.kubernetes.io/part-of=beamlit-controller"
"""Label selector of the objects of an installation."""
_CHILDREN: Final = (("apis", "apps", "v1", "deployments"), ("api", "v1", "services"), ("api", "v1", "configmaps"))
_PORTS: Final = {"http": 80, "https": 443}

Report = Callable[[str], None]
"""Function that takes a sentence about what could not be read."""


async def model(cluster: Cluster, namespace: str, name: str) -> Object:
    """Return a ModelDeployment.

    Raises:
        ClusterFailed: there is none, or it cannot be read.
    """
    found = await get_if_there(cluster, models.collection(namespace) + path(name))
    if found is None:
        raise ClusterFailed(f"There is no ModelDeployment {name} in namespace {namespace}.")
    return found


async def settings(cluster: Cluster, system: str, report: Report) -> Settings:
    """Return the configuration of the installation in a namespace; the defaults, and a sentence, where it has none."""
    where = path("api", "v1", "namespaces", system, "configmaps")
    selector = f"{PRODUCT},app.kubernetes.io/component=config"
    try:
        listed = objects(await get(cluster, where, [("labelSelector", selector)]), "items")
    except Refused as exc:
        report(f"The configuration of hooks cannot be read, so defaults count for it. {exc}")
        return Settings.load(None, environment={}, flags={"namespaces": ""})
    content = next((text(mapping(one, "data"), "config.yaml") for one in listed), "")
    if not content:
        report(
            f"There is no configuration of hooks in namespace {system}, so defaults count for it: --system-namespace"
            " names that of the installation."
        )
        return Settings.load(None, environment={}, flags={"namespaces": ""})
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        try:
            return Settings.load(Path(file.name), environment={})
        except SettingsError as exc:
            raise ClusterFailed(
                f"The configuration of hooks in namespace {system} is of another version: {exc}"
            ) from None


async def request(cluster: Cluster, parent: Object, report: Report) -> SyncRequest:
    """Return the request that Metacontroller would send for a ModelDeployment now.

    Raises:
        ClusterFailed: an object that the model refers to cannot be read.
    """
    metadata = mapping(parent, "metadata")
    namespace, uid = text(metadata, "namespace"), text(metadata, "uid")
    rules = customize(CustomizeRequest({}, parent)).related_resources
    related = await asyncio.gather(
        *(_related(cluster, rule.api_version, rule.resource, namespace, name) for rule in rules for name in rule.names)
    )
    children = await asyncio.gather(*(_children(cluster, kind, namespace, uid, report) for kind in _CHILDREN))
    return SyncRequest.from_json(
        {
            "parent": parent,
            "related": {"found": {str(number): one for number, one in enumerate(related) if one is not None}},
            "children": {str(number): dict(enumerate(some)) for number, some in enumerate(children)},
        }
    )


async def _related(cluster: Cluster, api_version: str, resource: str, namespace: str, name: str) -> Object | None:
    start = ("apis", *api_version.split("/")) if "/" in api_version else ("api", api_version)
    return await get_if_there(cluster, path(*start, "namespaces", namespace, resource, name))


async def _children(
    cluster: Cluster, kind: tuple[str, ...], namespace: str, uid: str, report: Report
) -> Sequence[Object]:
    """Return the children of one kind; none, and a sentence, where they cannot be read: what explains needs few."""
    where = path(*kind[:-1], "namespaces", namespace, kind[-1])
    try:
        page = await get(cluster, where, [("labelSelector", f"{names.CONTROLLER_UID_LABEL}={uid}")])
    except Refused as exc:
        report(f"The {kind[-1]} of the model are left out. {exc}")
        return ()
    # A list does not repeat the kind in its items.
    version, named = text(page, "apiVersion"), text(page, "kind").removesuffix("List")
    return [{"apiVersion": version, "kind": named, **one} for one in objects(page, "items")]


async def observe(
    cluster: Cluster,
    parent: Object,
    configured: Settings,
    *,
    prometheus: str | None,
    report: Report,
    drill_source: DrillSource | None = None,
) -> Observation:
    """Return all that hooks would see of a ModelDeployment now.

    Args:
        cluster: the cluster.
        parent: the ModelDeployment.
        configured: the configuration of hooks.
        prometheus: address of the Prometheus server from here; None to ask that of the configuration through the API
            server.
        report: takes sentences about what could not be read.
        drill_source: the source of what gateways found in their drills; None where none is asked.

    Raises:
        ClusterFailed: an object that the model refers to cannot be read.
    """
    sync = await request(cluster, parent, report)
    sources, close = _sources(cluster, configured, prometheus)
    try:
        return await gather(
            sync, configured.install_defaults, sources, drill_source=drill_source, seconds=DEADLINE_SECONDS
        )
    finally:
        for one in close:
            await one()


def _sources(
    cluster: Cluster, configured: Settings, prometheus: str | None
) -> tuple[Sources, list[Callable[[], Awaitable[None]]]]:
    """Return the sources of the installation as they are read from here, and how they are closed."""
    informer, counted = configured.metric_informer, Metrics()
    cache = Cache(counted, seconds=DEADLINE_SECONDS, flight_seconds=DEADLINE_SECONDS)
    close: list[Callable[[], Awaitable[None]]] = [cache.close]
    api = ProxiedApi(cluster)
    lists = _Addresses(PodLists(api, cache))
    metrics: MetricSource = KubernetesMetrics(api, cache)
    if informer.type == "prometheus" or prometheus is not None:
        server: PrometheusServer | ProxiedPrometheus = ProxiedPrometheus(cluster, informer.prometheus.address)
        if prometheus is not None:
            server = PrometheusServer(Prometheus(address=prometheus), counted)
            close.append(server.close)
        metrics = PrometheusMetrics(
            server,
            cache,
            namespace_label=informer.prometheus.namespace_label,
            scrape_interval=timedelta(seconds=informer.prometheus.scrape_interval_seconds),
        )
    pages = PodMetrics(lists, ProxiedPods(cluster, lists), cache)
    return Sources(metrics, lists, pages, pages_by_default=informer.type == "pods"), close


class ProxiedApi:
    """The API server, asked by kubectl, in place of `hooks.clients.apiserver.ApiServer`."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    async def get(self, group: Group, where: str, query: Parameters, limit: int = RESPONSE_BYTES) -> Object | None:  # noqa: ARG002 - kubectl has no limit
        """Return the object at a path; None when there is none.

        Raises:
            CallFailed: the object cannot be had.
        """
        try:
            return await get(self._cluster, where, query)
        except Refused as exc:
            if exc.reason == "NotFound" and not exc.unserved:
                return None
            if exc.unserved:
                words = f"The cluster does not serve {group.name or 'this API'}: {group.provider} gives it."
                raise CallFailed(reasons.NOT_SERVED, words) from None
            raise _unread(exc) from None
        except ClusterFailed as exc:
            raise _unread(exc) from None


class _Addresses:
    """Pods, with the name of each by its address."""

    def __init__(self, lists: PodLists) -> None:
        self._lists = lists
        self.names: dict[str, str] = {}

    async def pods(self, namespace: str, selector: Selector) -> tuple[Pod, ...] | Unread:
        """Return the pods in a namespace that a selector matches, or the reason why they are not known."""
        pods = await self._lists.pods(namespace, selector)
        if not isinstance(pods, Unread):
            self.names |= {pod.address: pod.name for pod in pods}
        return pods


@dataclass(frozen=True, slots=True)
class ProxiedPods:
    """The pages of pods, read through the API server, in place of `hooks.clients.pods.PodClient`."""

    cluster: Cluster
    pods: _Addresses

    async def page(self, namespace: str, address: str, port: int, where: str) -> Page:
        """Return the page at a path of a pod.

        Raises:
            CallFailed: there is no page.
        """
        try:
            content = await self.cluster.raw(proxied(namespace, "pods", f"{self.pods.names[address]}:{port}") + where)
        except ClusterFailed as exc:
            raise _unread(exc) from None
        return Page(content, is_open_metrics=content.rstrip().endswith(b"# EOF"))


class ProxiedPrometheus:
    """A Prometheus server in the cluster, asked through the API server, in place of `PrometheusServer`."""

    def __init__(self, cluster: Cluster, address: str) -> None:
        self._cluster = cluster
        self._path = service_path(address)

    async def query(self, expression: str) -> tuple[Point, ...]:
        """Return the values that an expression has now.

        Raises:
            CallFailed: the server returns none that hooks can use.
        """
        if self._path is None:
            words = "The Prometheus server is no Service of the cluster: give its address from here as --prometheus."
            raise CallFailed(reasons.UNREACHABLE, words)
        try:
            return tuple(vectors.points(await get(self._cluster, self._path + PATH, [("query", expression)])))
        except vectors.ResultUnusable as exc:
            raise CallFailed(reasons.REFUSED, str(exc)) from None
        except ClusterFailed as exc:
            raise _unread(exc) from None


def _unread(exc: ClusterFailed) -> CallFailed:
    """Return a failed call to the cluster as hooks know one."""
    is_forbidden = isinstance(exc, Refused) and exc.reason in ("Forbidden", "Unauthorized")
    return CallFailed(reasons.FORBIDDEN if is_forbidden else reasons.UNREACHABLE, str(exc))


def proxied(namespace: str, resource: str, target: str) -> str:
    """Return the path by which the API server passes requests on to a pod or a Service, such as `https:demo:443`."""
    return path("api", "v1", "namespaces", namespace, resource, target, "proxy")


def service_path(address: str) -> str | None:
    """Return the path by which the API server passes requests on to a Service with an address such as
    `prometheus.monitoring:9090` or `http://prometheus.monitoring.svc.cluster.local`; None where it is no Service's."""
    url = urlsplit(address if "://" in address else f"http://{address}")
    labels = (url.hostname or "").split(".")
    if len(labels) < 2 or (len(labels) > 2 and labels[2] != "svc"):
        return None
    scheme = "https:" if url.scheme == "https" else ""
    return proxied(labels[1], "services", f"{scheme}{labels[0]}:{url.port or _PORTS[url.scheme]}") + url.path.rstrip(
        "/"
    )
