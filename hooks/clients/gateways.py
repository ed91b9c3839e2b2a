"""A client for the gateways' ports for administrators, which says what their drills found.

The address is a name of which every address is a gateway, as a headless Service has it. All of them are asked at once,
for all models together, once in an interval, whatever number of syncs needs it. No redirect is followed, no proxy of
the environment is used, and of each gateway a bounded response is read.
"""

import asyncio
import socket
import time
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final, Protocol

import httpx
import structlog

from hooks import reasons
from hooks.clients.errors import Api, CallFailed, TooLarge
from hooks.clients.http import in_words, read_body
from hooks.clients.measured import measured
from hooks.observation.drills import NoReport, Reading, Report, Round, Route, read_report
from hooks.observation.readings import Unread
from hooks.telemetry import Metrics
from program.authority import authority

API: Final = Api("gateway_drills", "A gateway")
PATH: Final = "/drills"
INTERVAL_SECONDS: Final = 10.0
"""Seconds for which a round of reports is used. A condition is written after two equal rounds."""
GATEWAY_SECONDS: Final = 2.0
"""Seconds that a round may take; less than the deadline of all reads of a sync together."""
GATEWAYS: Final = 64
"""Gateways that are asked, the first by address. What they report stands for the others."""
REPORT_BYTES: Final = 8 << 20
"""Bytes that a report may have."""
_LARGE: Final = 1 << 18
"""Bytes from which on a report is read in a thread, so that other requests need not wait."""

log = structlog.get_logger(__name__)


async def lookup(host: str, port: int) -> list[str]:
    """Return the addresses of a name; raise OSError when it has none."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    return [str(entry[4][0]) for entry in found]


class DrillSource(Protocol):
    """A source of what gateways report of their drills."""

    async def readings(self, route: Route) -> tuple[Reading, ...]:
        """Return the last two readings of a route, the newest first; fewer where there were no more."""


class Gateways:
    """The gateways at an address."""

    def __init__(
        self,
        address: str,
        metrics: Metrics,
        *,
        interval: float = INTERVAL_SECONDS,
        seconds: float = GATEWAY_SECONDS,
        resolve: Callable[[str, int], Awaitable[Iterable[str]]] = lookup,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Ask nothing yet.

        Args:
            address: host and port, as `host:port` or `[address]:port`.
            metrics: counts the requests.
            interval: seconds for which a round of reports is used.
            seconds: seconds that a round may take.
            resolve: returns the addresses of a name; raises OSError when it has none.
            clock: returns the present time.
            monotonic: returns seconds that only rise.
        """
        host, _, port = address.rpartition(":")
        self._host, self._port = host.strip("[]"), int(port)
        self._metrics = metrics
        self._interval, self._seconds = interval, seconds
        self._resolve = resolve
        self._clock, self._monotonic = clock, monotonic
        self._rounds: tuple[Round, ...] = ()
        self._until = 0.0
        self._flight: asyncio.Task[None] | None = None
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(None),  # a round as a whole has a deadline
            limits=httpx.Limits(max_connections=GATEWAYS, keepalive_expiry=3 * interval),
        )

    async def readings(self, route: Route) -> tuple[Reading, ...]:
        """Return the last two readings of a route, the newest first; fewer where there were no more.

        The gateways are asked where the last round is older than the interval. Callers that come meanwhile wait for the
        same round, which goes on when one of them gives up.
        """
        if self._monotonic() >= self._until:
            if self._flight is None:
                self._flight = asyncio.create_task(self._fly())
            await asyncio.shield(self._flight)
        return tuple(one.of(route) for one in self._rounds)

    async def close(self) -> None:
        """Cancel a round that is under way, and close all connections."""
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.gather(self._flight, return_exceptions=True)
        await self._client.aclose()

    async def _fly(self) -> None:
        started = self._monotonic()
        try:
            self._rounds = (await self._round(), *self._rounds[:1])
        except Exception:
            log.exception("gateway_drills_failed")
        finally:
            # Also after a failure of our own, or every sync would try again.
            self._until, self._flight = started + self._interval, None

    async def _round(self) -> Round:
        """Ask all gateways, and return what those reported that responded in time."""
        taken = self._clock()
        addresses: tuple[str, ...] = ()
        tasks: list[asyncio.Task[Report]] = []
        try:
            async with asyncio.timeout(self._seconds):
                addresses = await self._addresses()
                tasks = [asyncio.create_task(self._report(one)) for one in addresses]
                if tasks:
                    await asyncio.wait(tasks)
        except TimeoutError:
            pass  # who did not respond has reported nothing
        except CallFailed as exc:
            return Round(taken, unread=exc.unread)
        finally:
            for task in tasks:
                task.cancel()
            results = await asyncio.gather(*tasks, return_exceptions=True)
        reports = tuple(one for one in results if isinstance(one, Report))
        failures = [one.unread for one in results if isinstance(one, CallFailed)]
        for one in results:
            if isinstance(one, Exception) and not isinstance(one, CallFailed):
                raise one
        if reports:
            return Round(taken, reports)
        if failures:
            return Round(taken, unread=failures[0])
        words = (
            "No gateway reports in time what its drills found: see that hooks may reach its port for administrators."
        )
        return Round(taken, unread=Unread(reasons.UNREACHABLE, words))

    async def _addresses(self) -> tuple[str, ...]:
        """Return the addresses of gateways.

        Raises:
            CallFailed: the name has none.
        """
        try:
            found = await self._resolve(self._host, self._port)
        except OSError:
            words = (
                "No gateway runs, or the name of their port for administrators cannot be resolved:"
                " proxyService.adminAddress in the controller's configuration."
            )
            raise CallFailed(reasons.UNREACHABLE, words) from None
        return tuple(sorted(set(found)))[:GATEWAYS]

    async def _report(self, address: str) -> Report:
        """Return what one gateway reports.

        Raises:
            CallFailed: it reports nothing.
        """
        url = f"http://{authority(address, self._port)}{PATH}"
        headers = {"accept": "application/json", "accept-encoding": "identity"}
        try:
            with measured(self._metrics, API) as call:
                async with self._client.stream("GET", url, headers=headers) as response:
                    if response.status_code != 200:
                        call.code = str(response.status_code)
                        words = f"{API.words} responds with status {call.code} when it is asked what its drills found."
                        raise CallFailed(reasons.UNREACHABLE, words)
                    content = await read_body(API, response, REPORT_BYTES)
                    report = (
                        read_report(content) if len(content) < _LARGE else await asyncio.to_thread(read_report, content)
                    )
                    call.code = "200"
        except TooLarge:
            words = f"{API.words} reports more than {REPORT_BYTES >> 20} MiB, which is more than hooks read."
            raise CallFailed(reasons.UNREACHABLE, words) from None
        except NoReport as exc:
            raise CallFailed(reasons.UNREACHABLE, f"{API.words} {exc}.") from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as exc:
            raise CallFailed(reasons.UNREACHABLE, f"{API.words} cannot be asked: {in_words(exc)}.") from None
        return report
