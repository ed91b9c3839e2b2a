"""What can be known about a route before a request comes, worked out once per document."""

import time
from dataclasses import dataclass
from math import ceil

from gateway import errors
from gateway.api.v1alpha1 import Backend, Headers, Use
from gateway.api.vocabulary import FailureCause
from gateway.backends import balancing, failover
from gateway.backends.breaker import CircuitBreaker, UnavailableReason
from gateway.backends.concurrency import ConcurrencyLimit
from gateway.backends.runtime import RouteRuntime
from gateway.http import forwarding
from gateway.routes.table import Route
from gateway.settings import Settings
from gateway.telemetry import Metrics, Series
from gateway.upstream.origin import Origin, Timeouts


@dataclass(frozen=True, slots=True)
class BackendPlan:
    """One backend of a route, ready to be sent to."""

    backend: Backend
    index: int
    """In the document."""
    origin: Origin
    target: forwarding.Target
    timeouts: Timeouts
    response_fields: tuple[tuple[bytes, bytes], ...]
    """Fields of ours on every answer from here."""
    breaker: CircuitBreaker
    concurrency: ConcurrencyLimit
    authenticated: bool
    plain: bool
    """Whether a request is sent as it comes: it needs neither credentials, a certificate nor another model name."""
    certified: bool
    """Whether the server is shown a certificate."""
    resend: bool
    """Whether a request may be sent a second time on another connection, whatever its method."""
    alternatives: bool
    """Whether a request may go elsewhere when it has failed here."""
    keep: int
    """Bytes of a request's body that are kept while it is sent here, to be sent again."""


class RoutePlan:
    """Everything about a route that does not depend on the request."""

    def __init__(self, route: Route, settings: Settings, metrics: Metrics, runtime: RouteRuntime) -> None:
        document = route.document
        limits = settings.gateway.limits
        self.route = route
        self.runtime = runtime
        self.reason = document.split.reason
        body = document.limits.body_bytes
        self.body_limit = limits.body_bytes if body is None else body
        replay = document.retry.body_bytes
        self.replay = limits.replay_bytes if replay is None else replay
        """Bytes of the largest body that is sent a second time."""
        ids = {backend.id for backend in document.backends}
        for identity in [one for one in runtime.backends if one not in ids]:
            del runtime.backends[identity]
            metrics.forget_backend(route.namespace, route.name, identity)
        self.order = tuple(index for index, backend in enumerate(document.backends) if Use.FAILOVER in backend.use)
        """Those that a request goes to when another has failed."""
        self.overflow = tuple(index for index, one in enumerate(document.backends) if Use.OVERFLOW in one.use)
        """Those that a request goes to when another is at its limit."""
        self.queue = document.queue
        self.backends = tuple(_backend_plan(route, index, settings, self) for index in range(len(document.backends)))
        self.causes = frozenset(document.retry.on)
        self.statuses = failover.statuses(document.retry.on)
        """The statuses that count as failures."""
        self.holds_streams = FailureCause.STREAM_ERROR in self.causes
        """Whether the first event of a stream is looked at."""
        self.turns = balancing.pattern([backend.weight for backend in document.backends])
        self._metrics = metrics
        self._series: dict[str, Series] = {}
        for one in self.backends:
            self._expose(one)
        metrics.in_flight.labels(route.namespace, route.name).set_function(lambda: runtime.in_flight)

    def _expose(self, one: BackendPlan) -> None:
        """Show the state of a backend in the metrics."""
        labels = (self.route.namespace, self.route.name, one.backend.id)
        breaker, concurrency, metrics = one.breaker, one.concurrency, self._metrics
        metrics.breaker_state.labels(*labels).set_function(lambda: breaker.state(time.perf_counter()))
        metrics.cool_down.labels(*labels).set_function(lambda: max(0.0, breaker.cool_until - time.perf_counter()))
        metrics.healthy.labels(*labels).set_function(lambda: breaker.healthy)
        metrics.backend_in_flight.labels(*labels).set_function(lambda: concurrency.taken)
        metrics.queued.labels(*labels).set_function(lambda: concurrency.waiting)

    def choose(self, now: float) -> tuple[BackendPlan, str | None]:
        """The backend whose turn it is, or another one and what speaks against the first.

        Raises:
            errors.NoBackend: no backend may be chosen by weight, or all of them have asked for a pause.
        """
        turn = self.runtime.turn
        self.runtime.turn = (turn + 1) % balancing.CYCLE
        index = balancing.choose(self.turns, turn)
        if index is None:
            raise errors.NoBackend
        chosen = self.backends[index]
        if chosen.breaker.usable or (reason := chosen.breaker.unavailable_reason(now)) is None:
            return chosen, None
        other = self.other(frozenset((index,)), now, full=True)
        cools_down = reason is UnavailableReason.COOL_DOWN
        if other is not None and (cools_down or other.breaker.unavailable_reason(now) is None):
            return other, reason.value
        if not cools_down:
            return chosen, None  # no other backend is in a better state
        end = min(self.backends[one].breaker.cool_until for one in {index, *self.order})
        raise errors.NoBackend(retry_after=max(1, ceil(end - now)))

    def other(self, tried: frozenset[int], now: float, *, full: bool = False) -> BackendPlan | None:
        """The first backend for failover, in the document's order, that is not in `tried` and may be asked.

        One that has failed too often is better than none; one that has asked for a pause gets it. One that is at its
        limit counts only with `full`.
        """
        doubtful: BackendPlan | None = None
        for index in self.order:
            if index not in tried:
                other = self.backends[index]
                if other.concurrency.taken >= other.concurrency.limit and not full:
                    continue
                reason = other.breaker.unavailable_reason(now)
                if reason is None:
                    return other
                if doubtful is None and reason is not UnavailableReason.COOL_DOWN:
                    doubtful = other
        return doubtful

    def spill(self, now: float) -> BackendPlan | None:
        """Who takes a request at once whose backend is at its limit: the first for overflow that may be asked."""
        for index in self.overflow:
            other = self.backends[index]
            if other.concurrency.taken < other.concurrency.limit and other.breaker.unavailable_reason(now) is None:
                return other
        return None

    def series(self, backend: str) -> Series:
        """Where answers of `backend` are counted."""
        found = self._series.get(backend)
        if found is None:
            found = self._series[backend] = self._metrics.series(self.route.namespace, self.route.name, backend)
        return found

    def said(self, chosen: BackendPlan, why: str) -> tuple[tuple[bytes, bytes], ...]:
        """Fields of ours on an answer of `chosen` where it is not the split that led to it: whose it is, and why."""
        return (chosen.response_fields[0], (b"x-beamlit-reason", why.encode()))


def _backend_plan(route: Route, index: int, settings: Settings, plan: RoutePlan) -> BackendPlan:
    """Where a backend is, by the one of its three forms it has."""
    document = route.document
    backend = document.backends[index]
    tls = backend.tls
    timeouts = settings.gateway.timeouts
    local = backend.service is not None
    connect = timeouts.local_connect_seconds if local else timeouts.connect_seconds
    headers = backend.headers
    scheme = backend.scheme
    port = backend.port
    authenticated = backend.credentials is not None or bool(headers.set_from)
    resend = index in plan.order
    alternatives = any(other != index for other in plan.order)
    if backend.service is not None:
        host = f"{backend.service}.{route.namespace}.svc.{settings.cluster_domain}"
    elif backend.host is not None:
        host = backend.host
    else:
        default = settings.default_remote_backend
        host, port = split_authority(default.host)
        scheme = default.scheme
        headers = Headers(set=default.headers_to_add)
        authenticated = default.auth_config is not None
    standard = 443 if scheme == "https" else 80
    port = port or standard
    name = f"[{host}]" if ":" in host else host
    origin = Origin(host, port, scheme, tls.server_name, tls.ca_bundle, trusted=local or backend.default)
    certified = scheme == "https" and tls.client_certificate is not None
    state = plan.runtime.backend(backend, origin, document.breaker)
    return BackendPlan(
        backend=backend,
        index=index,
        origin=origin,
        target=forwarding.Target.of(
            name if port == standard else f"{name}:{port}", local=local, prefix=backend.path_prefix, headers=headers
        ),
        timeouts=Timeouts(
            connect=document.timeouts.connect or connect,
            first_byte=document.timeouts.first_byte or timeouts.first_byte_seconds,
            idle=document.timeouts.idle or timeouts.idle_seconds,
        ),
        response_fields=(
            (b"x-beamlit-backend", backend.id.encode()),
            (b"x-beamlit-reason", document.split.reason.encode()),
        ),
        breaker=state.breaker,
        concurrency=state.concurrency,
        authenticated=authenticated,
        plain=not authenticated and not certified and backend.model is None,
        certified=certified,
        resend=resend,
        alternatives=alternatives,
        keep=plan.replay if alternatives or authenticated or resend else 0,
    )


def split_authority(authority: str) -> tuple[str, int | None]:
    """Host and port of `host`, `host:port` or `[address]:port`; None where no port is given."""
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        port = port.removeprefix(":")
    elif authority.count(":") == 1:
        host, _, port = authority.partition(":")
    else:
        host, port = authority, ""
    return host, int(port) if port.isascii() and port.isdigit() else None
