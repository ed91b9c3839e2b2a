"""The last requests of a model, as every gateway of the installation remembers them."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final

from hooks.kube.objects import Object
from hooks.kube.unstructured import integer, mapping, objects, text
from hooks.kubectl.cluster import Cluster, ClusterFailed, Query, Refused, get, path
from hooks.kubectl.live import PRODUCT, Report, proxied

PAUSE_SECONDS: Final = 1.0
"""Seconds between two looks at the gateways."""
MOST: Final = 1000
"""Requests that are asked for at a time, of each gateway."""
_REMEMBERED: Final = 16 * MOST
"""Requests that are remembered as shown, at most."""
ADMIN: Final = "admin"
"""Name of the port of a gateway's container for administrators."""
HTTP: Final = "http"
"""Name of its port for clients."""


async def gateways(cluster: Cluster, system: str) -> Sequence[str]:
    """Return the paths by which the API server passes requests on to the gateways of an installation.

    Raises:
        ClusterFailed: there are none, or they cannot be listed.
    """
    return [gateway_path(system, pod) for pod in await gateway_pods(cluster, system)]


async def gateway_pods(cluster: Cluster, system: str) -> Sequence[Mapping[str, Any]]:
    """Return the pods of the gateways of an installation that run.

    Raises:
        ClusterFailed: there are none, or they cannot be listed.
    """
    selector = f"{PRODUCT},app.kubernetes.io/component=gateway"
    found = await get(cluster, path("api", "v1", "namespaces", system, "pods"), [("labelSelector", selector)])
    pods = [
        one
        for one in objects(found, "items")
        if text(mapping(one, "status"), "phase") == "Running" and port_of(one, ADMIN) is not None
    ]
    if not pods:
        raise ClusterFailed(
            f"No gateway runs in namespace {system}: --system-namespace names that of the installation."
        )
    return pods


def gateway_path(system: str, pod: Mapping[str, Any]) -> str:
    """Return the path by which the API server passes requests on to a gateway's port for administrators."""
    return proxied(system, "pods", f"{text(mapping(pod, 'metadata'), 'name')}:{port_of(pod, ADMIN)}")


def port_of(pod: Mapping[str, Any], name: str) -> int | None:
    """Return the port of a pod with this name; None without one."""
    for container in objects(mapping(pod, "spec"), "containers"):
        for port in objects(container, "ports"):
            if text(port, "name") == name:
                return integer(port, "containerPort")
    return None


async def decisions(cluster: Cluster, paths: Sequence[str], route: str, limit: int, report: Report) -> list[Object]:
    """Return the last requests of a route, of all gateways together, the newest last.

    A gateway that cannot be asked, such as one that ends now, is left out with a sentence to `report`.

    Raises:
        ClusterFailed: no gateway can be asked, or the right to do so is missing.
    """
    query = [("route", route), ("limit", str(limit))]
    looks = await asyncio.gather(*(_look(cluster, f"{one}/decisions", query) for one in paths))
    failed = [one for one in looks if isinstance(one, ClusterFailed)]
    for one in failed:
        if len(failed) == len(looks) or (isinstance(one, Refused) and one.reason in ("Forbidden", "Unauthorized")):
            raise one
    if failed:
        report(f"{len(failed)} of {len(looks)} gateways cannot be asked and are left out: {failed[0]}")
    pages = [one for one in looks if not isinstance(one, ClusterFailed)]
    found = [dict(one) for page in pages for one in objects(page, "decisions")]
    return sorted(found, key=_time)[-limit:]


async def _look(cluster: Cluster, where: str, query: Query) -> Object | ClusterFailed:
    """Return the page of a gateway, or why there is none."""
    try:
        return await get(cluster, where, query)
    except ClusterFailed as exc:
        return exc


async def follow(
    cluster: Cluster, system: str, route: str, limit: int, report: Report, *, pause: float = PAUSE_SECONDS
) -> AsyncIterator[list[Object]]:
    """Yield the last requests of a route, and then again and again those that came since; never end.

    A gateway that has gone, or that came later, is noticed at the next look. What fails then is a sentence to `report`,
    once as long as it stays the same, and is tried again.

    Raises:
        ClusterFailed: the gateways cannot be asked at the first look.
    """
    shown: dict[tuple[str, float], None] = {}
    first = True
    said = ""
    while True:
        problems: list[str] = []
        listed: list[Object] = []
        try:
            listed = await decisions(cluster, await gateways(cluster, system), route, MOST, problems.append)
        except ClusterFailed as exc:
            if first:
                raise
            problems.append(str(exc))
        now = " ".join(problems)
        if now and now != said:
            report(now)
        said = now
        fresh = []
        for one in listed:
            key = (text(one, "request_id"), _time(one))
            if key not in shown:
                shown[key] = None
                fresh.append(one)
        while len(shown) > _REMEMBERED:
            del shown[next(iter(shown))]
        yield fresh[-limit:] if first else fresh
        first = False
        await asyncio.sleep(pause)


def _time(one: Object) -> float:
    value = one.get("time")
    return float(value) if isinstance(value, int | float) else 0.0
