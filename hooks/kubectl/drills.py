"""What the gateways of an installation found in their drills, read through the API server."""

import asyncio
from datetime import UTC, datetime

from hooks import reasons
from hooks.kubectl import requests
from hooks.kubectl.cluster import Cluster, ClusterFailed, Refused
from hooks.observation.drills import NoReport, Reading, Report, Round, Route, read_report
from hooks.observation.readings import Unread


class ProxiedGateways:
    """The gateways of an installation, in place of `hooks.clients.gateways.Gateways`."""

    def __init__(self, cluster: Cluster, system: str) -> None:
        """Ask nothing yet.

        Args:
            cluster: the cluster.
            system: namespace of the installation.
        """
        self._cluster = cluster
        self._system = system

    async def readings(self, route: Route) -> tuple[Reading, ...]:
        """Return the present reading of a route, twice: here nothing waits for a second one."""
        reading = (await self.round()).of(route)
        return reading, reading

    async def round(self) -> Round:
        """Ask all gateways, and return what those reported that can be asked."""
        taken = datetime.now(UTC)
        try:
            paths = await requests.gateways(self._cluster, self._system)
        except ClusterFailed as exc:
            return Round(taken, unread=_unread(exc))
        results = await asyncio.gather(*(self._report(path) for path in paths))
        reports = tuple(one for one in results if isinstance(one, Report))
        if reports:
            return Round(taken, reports)
        return Round(taken, unread=next(one for one in results if isinstance(one, Unread)))

    async def _report(self, path: str) -> Report | Unread:
        try:
            return read_report(await self._cluster.raw(f"{path}/drills"))
        except ClusterFailed as exc:
            return _unread(exc)
        except NoReport as exc:
            return Unread(reasons.UNREACHABLE, f"A gateway {exc}.")


def _unread(exc: ClusterFailed) -> Unread:
    is_forbidden = isinstance(exc, Refused) and exc.reason in ("Forbidden", "Unauthorized")
    return Unread(reasons.FORBIDDEN if is_forbidden else reasons.UNREACHABLE, str(exc))
