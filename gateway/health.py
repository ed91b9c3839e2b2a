"""Health checks of backends: one task per backend of a route that asks for them.

Checks use the same connections, address checks and TLS as requests. Each route has slots of its own, so that a check
that gets no response is late for its own route only.
"""

import asyncio
import random
import time
from collections.abc import Iterable
from typing import Final

import structlog

from gateway import errors
from gateway.api.v1alpha1 import HealthCheck, Tls
from gateway.credentials.cache import Credentials
from gateway.http.exchange import RequestHead
from gateway.plan import BackendPlan
from gateway.routes.table import Route
from gateway.upstream.connection import Upstream
from gateway.upstream.origin import Timeouts

AT_ONCE: Final = 4
"""Health checks of one route that run at the same time."""
LEAST_SECONDS: Final = 1.0
"""Seconds that a check may take, where its interval is shorter than that."""
_BODY_BYTES: Final = 65536
"""Bytes of a response to a health check that are read so that its connection can be used again."""

log = structlog.get_logger(__name__)

_Key = tuple[str, str, object, Tls, HealthCheck]


class HealthChecks:
    """Health checks of all routes."""

    def __init__(self, upstream: Upstream, credentials: Credentials) -> None:
        self._upstream = upstream
        self._credentials = credentials
        self._slots: dict[str, asyncio.Semaphore] = {}
        """Slots for checks, by the key of the route."""
        self._tasks: dict[_Key, tuple[BackendPlan, asyncio.Task[None]]] = {}

    def apply(self, desired: Iterable[tuple[Route, BackendPlan]]) -> None:
        """Check the `desired` backends of routes from now on, and no others.

        Checks continue where the server and the rules are the same as before. A backend that is no longer checked
        counts as healthy.
        """
        keys: dict[_Key, tuple[Route, BackendPlan]] = {}
        for route, one in desired:
            if one.backend.health is not None:
                keys[route.key, one.backend.id, one.origin, one.backend.tls, one.backend.health] = route, one
        for key in [key for key in self._tasks if key not in keys]:
            plan, task = self._tasks.pop(key)
            task.cancel()
            plan.breaker.report(healthy=True, now=time.perf_counter())
        checked = {route.key for route, _ in keys.values()}
        self._slots = {key: self._slots.get(key) or asyncio.Semaphore(AT_ONCE) for key in checked}
        for key, (route, one) in keys.items():
            if key not in self._tasks:
                self._tasks[key] = one, asyncio.get_running_loop().create_task(self._run(route, one, key[4]))

    def close(self) -> None:
        """Stop all checks."""
        for _, task in self._tasks.values():
            task.cancel()
        self._tasks.clear()

    async def _run(self, route: Route, one: BackendPlan, rules: HealthCheck) -> None:
        passed = failed = 0
        slots = self._slots[route.key]
        await asyncio.sleep(random.random() * rules.interval)  # noqa: S311 - spreads checks, keeps no secret
        while True:
            async with slots:
                why = await self._check(route, one, rules)
            passed, failed = (passed + 1, 0) if why is None else (0, failed + 1)
            healthy = one.breaker.healthy
            if healthy and failed >= rules.unhealthy:
                log.warning("backend_unhealthy", route=route.key, backend=one.backend.id, why=why)
                one.breaker.report(healthy=False, now=time.perf_counter())
            elif not healthy and passed >= rules.healthy:
                log.info("backend_healthy", route=route.key, backend=one.backend.id)
                one.breaker.report(healthy=True, now=time.perf_counter())
            await asyncio.sleep(rules.interval * (0.9 + 0.2 * random.random()))  # noqa: S311

    async def _check(self, route: Route, one: BackendPlan, rules: HealthCheck) -> str | None:
        """Check a backend once; return why it is unhealthy, or None when it is healthy."""
        authority = one.target.authority
        head = RequestHead(
            method=b"GET",
            target=rules.path.encode("ascii"),
            host=authority.decode(),
            authority=authority,
            fields=((b"host", authority), (b"user-agent", b"beamlit-gateway"), (b"accept", b"*/*")),
            http_minor=1,
            content_length=None,
            chunked=False,
        )
        seconds = min(rules.timeout, max(rules.interval, LEAST_SECONDS))
        times = Timeouts(connect=min(one.timeouts.connect, seconds), first_byte=seconds, idle=seconds)
        try:
            async with asyncio.timeout(seconds):
                origin = one.origin
                if one.certified:
                    origin = origin._replace(certificate=await self._credentials.certificate(route, one.backend))
                response = await self._upstream.send(origin, head, b"", times, owner=route.key)
                await response.read(_BODY_BYTES)
        except TimeoutError:
            return "timeout"
        except errors.UpstreamError as exc:
            return exc.code
        except errors.GatewayError:
            return None  # the gateway failed, not the backend
        status = response.head.status
        return None if 200 <= status < 300 else str(status)
