"""Plan of a route: everything that is known before a request comes, computed once per document."""

import random
import time
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Final

from gateway import errors
from gateway.access.token_rule import TokenRule
from gateway.api.v1alpha1 import Backend, Cors, RouteDocument, Use
from gateway.api.vocabulary import AffinityType, Endpoints, FailureCause, StatefulPaths, StreamUsage
from gateway.backends import balancing, failover
from gateway.backends.affinity import ByConversation, ByPrefix, KeyedSplit
from gateway.backends.breaker import CircuitBreaker, UnavailableReason
from gateway.backends.concurrency import ConcurrencyLimit, make_room
from gateway.backends.endpoints import Endpoint, EndpointTable
from gateway.backends.pods import Choice, LeastBusyOfTwo, Pod, PodSet
from gateway.backends.runtime import RouteRuntime, Traffic
from gateway.backends.stream_slots import StreamSlots
from gateway.destination import find_destination
from gateway.http import forwarding
from gateway.http.cors import CorsRule
from gateway.http.local_only import LocalOnlyRule, confined
from gateway.request_series import Prices
from gateway.routes.table import Route
from gateway.settings import CorsSettings, Settings
from gateway.telemetry import Metrics, Series
from gateway.upstream.origin import Origin, Timeouts

_CHOICE: Final[Choice] = LeastBusyOfTwo(random.random)
"""Rule by which a pod is chosen."""
_BY_CONVERSATION: Final[Choice] = ByConversation(_CHOICE)
"""Rule by which the pod of a conversation is chosen."""
_OF_FIRST_EVENTS: Final = frozenset(
    {FailureCause.RESET.value, FailureCause.FIRST_TOKEN_TIMEOUT.value, FailureCause.STREAM_ERROR.value}
)
"""Causes that an event stream may have between its head and its first event."""


@dataclass(frozen=True, slots=True)
class BackendPlan:
    """Plan of one backend of a route, with all that sending a request there takes."""

    backend: Backend
    index: int
    """Index of the backend in the document."""
    origin: Origin
    target: forwarding.Target
    timeouts: Timeouts
    response_fields: tuple[tuple[bytes, bytes], ...]
    """Header fields that the gateway adds to every response of this backend."""
    breaker: CircuitBreaker
    concurrency: ConcurrencyLimit
    streams: StreamSlots | None
    """Slots for streams, where the times of first events limit these."""
    authenticated: bool
    """Whether requests get a token or header values from Secrets."""
    own_credentials: bool
    """Whether the backend is a remote one that the gateway authenticates to: by a token, a field or a certificate."""
    plain: bool
    """Whether requests are sent without credentials, client certificate and change of the model name."""
    certified: bool
    """Whether the gateway presents a client certificate."""
    resend: bool
    """Whether a request may be sent again on another connection, whatever its method."""
    alternatives: bool
    """Whether a request may go to another backend after it failed here."""
    keep: int
    """Bytes of a request body that are kept while it is sent, to be sent again."""
    names: dict[str, str]
    """Names of the model at this backend, by those in requests; any other is replaced by `backend.model`, if any."""
    traffic: Traffic | None
    """Record of requests, where these count as drills; None for a Service, and where there are no drills."""
    prices: Prices | None
    """Prices of tokens, where they are known."""
    pods: PodSet | None
    """Pods of the Service, each of which may get a request; None where requests are sent to the backend's name."""

    @property
    def waiting(self) -> int:
        """Number of requests that wait for a slot."""
        return self.concurrency.waiting + (0 if self.streams is None else self.streams.queue.waiting)

    def unavailable_reason(self, now: float) -> UnavailableReason | None:
        """Return why the backend should get no request at `now`; None when it is available.

        A pod that has come since has asked for no pause, and gets a request however often others have failed.
        """
        reason = self.breaker.unavailable_reason(now)
        if reason is None or self.pods is None:
            return reason
        if reason is UnavailableReason.COOL_DOWN and self.pods.has_available(now):
            reason = self.breaker.unavailable_reason(now, cools_down=False)
        if reason is UnavailableReason.BREAKER_OPEN and self.pods.has_new(now):
            self.breaker.try_again()
            reason = self.breaker.unavailable_reason(now, cools_down=False)
        return reason

    def has_place(self, places: int, *, high: bool) -> bool:
        """Return whether a request finds a place in the queue, which may be that of one with another priority.

        Args:
            places: Places of the queue.
            high: Whether the request has high priority.
        """
        if self.waiting < places:
            return True
        limits = (self.concurrency,) if self.streams is None else (self.concurrency, self.streams.queue)
        return make_room(limits, places, high=high)

    def fields_for(self, diversion: str | None) -> tuple[tuple[bytes, bytes], ...]:
        """Return the header fields that the gateway adds to a response: the backend and why the request went there.

        `diversion` is the reason of a request that went to another backend than the split says, otherwise None.
        """
        if diversion is None:
            return self.response_fields
        return self.response_fields[0], (b"x-beamlit-reason", diversion.encode())

    def broke_off(self, pod: Pod | None, now: float) -> None:
        """Note that a response of the backend, or of one of its pods, ended before it was complete."""
        if pod is not None:
            pod.breaker.failed(now)
            if self.pods is not None and self.pods.goes_on((pod,), now):
                return
        self.breaker.failed(now)

    def name_for(self, name: str) -> str | None:
        """Return what takes the place of the name of a model in a request; None where it stays."""
        other = self.names.get(name)
        if other is None:
            other = self.backend.model
        return None if other == name else other


class RoutePlan:
    """Plan of a route: its backends, limits and rules, which do not depend on the request."""

    def __init__(
        self,
        route: Route,
        settings: Settings,
        metrics: Metrics,
        runtime: RouteRuntime,
        cors: CorsRule | None = None,
        *,
        is_confined: bool = False,
        endpoints: EndpointTable | None = None,
    ) -> None:
        document = route.document
        limits = settings.gateway.limits
        self.route = route
        self.runtime = runtime
        self.reason = document.split.reason
        """Reason of requests that go where the split says."""
        body = document.limits.body_bytes
        self.body_limit = limits.body_bytes if body is None else body
        replay = document.retry.body_bytes
        self.replay = limits.replay_bytes if replay is None else replay
        """Bytes of the largest request body that is sent again."""
        keep_alive = settings.gateway.keep_alive
        after, before_head = document.keep_alive.after, document.keep_alive.before_head
        self.keep_alive_after = keep_alive.after_seconds if after is None else after
        """Seconds of silence after which a client gets a comment of an event stream; 0 for never."""
        before_head = keep_alive.before_head if before_head is None else before_head
        self.keeps_early = before_head and self.keep_alive_after > 0
        """Whether it may get one before any backend has sent a head."""
        self.secrets = () if document.access is None else document.access.secrets
        """Names of the Secrets with the model's own API keys."""
        jwt = None if document.access is None else document.access.jwt
        self.tokens = None if jwt is None else TokenRule(jwt.audiences, jwt.groups)
        """Rule for the tokens with which the model may be used; None where none are asked for."""
        self.guarded = document.access is not None
        """Whether the model asks for API keys or tokens of its own."""
        self.is_confined = is_confined
        """Whether this is the plan for requests that never go to a remote backend: it has none."""
        ids = {backend.id for backend in document.backends}
        for identity in [one for one in runtime.backends if one not in ids and not is_confined]:
            del runtime.backends[identity]
            metrics.forget_backend(route.namespace, route.name, identity)
        self.order = tuple(index for index, backend in enumerate(document.backends) if Use.FAILOVER in backend.use)
        """Indexes of the backends for failover."""
        self.overflow = tuple(index for index, one in enumerate(document.backends) if Use.OVERFLOW in one.use)
        """Indexes of the backends for overflow."""
        own = (document.client_model, *(one.name for one in document.models))
        self.own_names = frozenset((*own, *(f"{route.namespace}/{name}" for name in own)))
        """Names of the model for clients."""
        self.asks_for_usage = (document.usage or settings.gateway.usage) is StreamUsage.ALWAYS
        """Whether streams are asked for the tokens they take, also where the client does not ask."""
        self.names = self.own_names if document.models else None
        """Names of models that requests may have; None for any."""
        self.queue = document.queue
        self.keeper = _keeper(document)
        """Index of the backend that has the earlier responses which requests refer to; None without one."""
        self.refuses_state = document.stateful_paths is StatefulPaths.REFUSE
        """Whether requests that refer to an earlier response are refused."""
        self.endpoints = endpoints
        """Pods of all Services; None where requests are sent to the names of Services."""
        self.cors = cors if document.cors is None else cors_rule(document.cors)
        """Rule for websites that use the model by host or path; None without one."""
        self.backends = tuple(_backend_plan(route, index, settings, self) for index in range(len(document.backends)))
        self.limits_streams = any(one.streams is not None for one in self.backends)
        """Whether a backend has slots for streams, so that it has to be known which requests ask for one."""
        self.causes: frozenset[str] = frozenset(document.retry.on)
        self.statuses = failover.statuses(document.retry.on)
        """Causes by status, for the statuses after which another backend is tried."""
        self.failures = failover.failure_statuses(document.retry.on)
        """Statuses that count as failures of a backend."""
        self.holds_streams = not self.causes.isdisjoint(_OF_FIRST_EVENTS)
        """Whether a request may go to another backend until the first event of an event stream is here."""
        self.examines_streams = FailureCause.STREAM_ERROR in self.causes
        """Whether the first event of an event stream is examined."""
        self.prefixes = tuple(dict.fromkeys(one.target.prefix for one in self.backends))
        """Paths that backends have in front of targets."""
        self.bare_targets = not any(self.prefixes)
        """Whether no backend has a path in front of targets."""
        behind_version = any(one.removesuffix(b"/").endswith(b"/v1") for one in self.prefixes)
        self.lists = frozenset((b"/v1/models", b"/models") if behind_version else (b"/v1/models",))
        """Paths of targets by which a backend lists its models."""
        weights = [backend.weight for backend in document.backends]
        self.turns = balancing.pattern(weights)
        header = document.affinity.header
        self.affinity_header = None if header is None else header.encode("ascii")
        """Name of the header field that says to which conversation a request belongs; None without one."""
        mixed = any(0 < weight < balancing.CYCLE for weight in weights)
        self.keyed = KeyedSplit(weights) if mixed and document.affinity.type is not AffinityType.NONE else None
        """Division of requests by the conversations that they belong to; None where it does not matter."""
        self.has_pods = has_pods = any(one.pods is not None for one in self.backends)
        """Whether requests go to single pods of a backend."""
        self.pins = len(document.backends) > 1 or self.keeper is None or has_pods
        """Whether it matters that a request refers to an earlier response."""
        self.takes_keys = self.keyed is not None or (has_pods and document.affinity.type is not AffinityType.NONE)
        """Whether it matters to which conversation a request belongs."""
        self.takes_blocks = has_pods and document.affinity.type is AffinityType.PREFIX
        """Whether it matters how the prompt of a request begins."""
        self._metrics = metrics
        self._series: dict[str, Series] = {}
        for one in self.backends:
            self._expose(one)
        metrics.in_flight.labels(route.namespace, route.name).set_function(lambda: runtime.in_flight)
        self.local_only: LocalOnlyRule | None = None
        """Rule for requests that never go to a remote backend; None without one."""
        self.confined: RoutePlan = self
        """Plan for these requests, and for those of callers that may not burst."""
        if not is_confined and (document.local_only is not None or settings.gateway.access.rules_file is not None):
            if document.local_only is not None:
                self.local_only = LocalOnlyRule(document.local_only)
            inside = Route(route.namespace, confined(document), route.created, route.config_map)
            self.confined = RoutePlan(inside, settings, metrics, runtime, cors, is_confined=True, endpoints=endpoints)

    def _expose(self, one: BackendPlan) -> None:
        """Expose the state of a backend as metrics."""
        labels = (self.route.namespace, self.route.name, one.backend.id)
        breaker, concurrency, metrics = one.breaker, one.concurrency, self._metrics
        metrics.breaker_state.labels(*labels).set_function(lambda: breaker.state(time.perf_counter()))
        metrics.cool_down.labels(*labels).set_function(lambda: max(0.0, breaker.cool_until - time.perf_counter()))
        metrics.healthy.labels(*labels).set_function(lambda: breaker.healthy)
        metrics.backend_in_flight.labels(*labels).set_function(lambda: concurrency.taken)
        metrics.queued.labels(*labels).set_function(lambda: one.waiting)
        slots = one.streams
        if slots is None:
            metrics.forget_streams(*labels)
        else:
            metrics.stream_limit.labels(*labels).set_function(lambda: slots.limit.limit)
            metrics.streams_in_flight.labels(*labels).set_function(lambda: slots.queue.taken)
            metrics.stream_limit_moves[labels] = lambda: (slots.limit.cuts, slots.limit.raises)

    def choose(self, now: float, key: bytes | None = None) -> tuple[BackendPlan, str | None]:
        """Return the backend whose turn it is; or another one, and the reason why the first is unavailable.

        Args:
            now: Time of the monotonic clock.
            key: Key of the conversation that the request belongs to; None where it does not matter or is not known.

        Raises:
            errors.NoBackend: No backend may be chosen by weight, or all of them are in a cool-down.
        """
        if self.keyed is not None:
            index: int | None = self.keyed.choose(key)
        else:
            turn = self.runtime.turn
            if not self.is_confined:  # requests that have no choice take no turn from the others
                self.runtime.turn = (turn + 1) % balancing.CYCLE
            index = balancing.choose(self.turns, turn)
        if index is None:
            raise errors.NoBackend
        chosen = self.backends[index]
        if chosen.breaker.usable or (reason := chosen.unavailable_reason(now)) is None:
            return chosen, None
        other = self.other(frozenset((index,)), now, full=True)
        cools_down = reason is UnavailableReason.COOL_DOWN
        if other is not None and (cools_down or other.unavailable_reason(now) is None):
            return other, reason.value
        if not cools_down:
            return chosen, None  # no other backend is in a better state
        end = min(self.backends[one].breaker.cool_until for one in {index, *self.order})
        raise errors.NoBackend(retry_after=max(1, ceil(end - now)))

    def keep(self, now: float) -> tuple[BackendPlan, str | None]:
        """Return the backend for a request that refers to an earlier response, and the reason where the split is mixed.

        Raises:
            errors.StateRefused: The route refuses such requests.
            errors.NoBackend: The backend is in a cool-down, or the route does not have it now.
        """
        if self.refuses_state:
            raise errors.StateRefused
        if self.keeper is None:
            raise errors.NoBackend
        chosen = self.backends[self.keeper]
        if chosen.unavailable_reason(now) is UnavailableReason.COOL_DOWN:
            raise errors.NoBackend(retry_after=max(1, ceil(chosen.breaker.cool_until - now)))
        return chosen, failover.STATEFUL if chosen.backend.weight < balancing.CYCLE else None

    def other(self, tried: frozenset[int], now: float, *, full: bool = False) -> BackendPlan | None:
        """Return the first backend for failover, in the document's order, that is not in `tried` and is available.

        When there is none, return one whose breaker is open or that is unhealthy, but none in a cool-down. A backend at
        its limit of requests in flight is returned only with `full`.
        """
        last_resort: BackendPlan | None = None
        for index in self.order:
            if index not in tried:
                other = self.backends[index]
                if other.concurrency.taken >= other.concurrency.limit and not full:
                    continue
                reason = other.unavailable_reason(now)
                if reason is None:
                    return other
                if last_resort is None and reason is not UnavailableReason.COOL_DOWN:
                    last_resort = other
        return last_resort

    def goes_on(self, tried: frozenset[int]) -> bool:
        """Return whether there is a backend for failover that is not in `tried`, in whatever state."""
        return any(index not in tried for index in self.order)

    def spill(self, now: float) -> BackendPlan | None:
        """Return the first backend for overflow that is available and has a free slot; None when there is none."""
        for index in self.overflow:
            other = self.backends[index]
            if other.concurrency.taken < other.concurrency.limit and other.unavailable_reason(now) is None:
                return other
        return None

    def series(self, backend: str) -> Series:
        """Return the counts of the responses of `backend`."""
        series = self._series.get(backend)
        if series is None:
            series = self._series[backend] = self._metrics.series(self.route.namespace, self.route.name, backend)
        return series


def cors_rule(cors: Cors | CorsSettings) -> CorsRule | None:
    """Return the rule for websites of a route document, or of the settings; None where no website is named."""
    if not cors.origins:
        return None
    return CorsRule(
        origins=cors.origins,
        methods=cors.methods,
        headers=cors.headers,
        exposed_headers=cors.exposed_headers,
        credentials=cors.credentials,
        max_age=cors.max_age_seconds if isinstance(cors, CorsSettings) else cors.max_age,
    )


def _keeper(document: RouteDocument) -> int | None:
    """Return the index of the backend that has the earlier responses which requests refer to; None without one."""
    if document.stateful_paths is StatefulPaths.REFUSE:
        return None
    in_cluster = document.stateful_paths is StatefulPaths.LOCAL
    for index, backend in enumerate(document.backends):
        if (backend.service is not None) is in_cluster:
            return index
    return None


def _backend_plan(route: Route, index: int, settings: Settings, plan: RoutePlan) -> BackendPlan:
    """Return the plan of a backend: a Service, a remote host, or the default remote backend."""
    document = route.document
    backend = document.backends[index]
    timeouts = settings.gateway.timeouts
    first_byte = document.timeouts.first_byte or timeouts.first_byte_seconds
    resend = index in plan.order
    alternatives = any(other != index for other in plan.order)
    place = find_destination(route, backend, settings)
    origin, target, authenticated, certified = place.origin, place.target, place.authenticated, place.certified
    state = plan.runtime.backend(backend, origin, document.breaker)
    endpoints = None
    if backend.service is not None and plan.endpoints is not None and backend.endpoints is Endpoints.PODS:
        endpoints = plan.endpoints.follow(route.namespace, backend.service, origin.host, origin.port)
    state.follow(endpoints, partial(_pod_origin, origin), document.breaker, _choice(document.affinity.type, state.pods))
    return BackendPlan(
        backend=backend,
        index=index,
        origin=origin,
        target=target,
        timeouts=Timeouts(
            connect=place.connect,
            first_byte=first_byte,
            idle=document.timeouts.idle or timeouts.idle_seconds,
            first_token=document.timeouts.first_token or timeouts.first_token_seconds or first_byte,
        ),
        response_fields=(
            (b"x-beamlit-backend", backend.id.encode()),
            (b"x-beamlit-reason", document.split.reason.encode()),
        ),
        breaker=state.breaker,
        concurrency=state.concurrency,
        streams=state.streams,
        authenticated=authenticated,
        own_credentials=backend.service is None and (authenticated or certified or target.sets_credentials),
        plain=not authenticated and not certified and backend.model is None,
        certified=certified,
        resend=resend,
        alternatives=alternatives,
        keep=plan.replay if alternatives or authenticated or resend or plan.keeps_early else 0,
        names=_names(route, backend),
        traffic=state.traffic if backend.service is None and _has_drills(document, settings) else None,
        prices=_prices(backend, settings),
        pods=state.pods,
    )


def _has_drills(document: RouteDocument, settings: Settings) -> bool:
    """Return whether remote backends of a route are tried before requests need them."""
    interval = document.drill.interval
    return bool(settings.gateway.drill.interval_seconds if interval is None else interval)


def _prices(backend: Backend, settings: Settings) -> Prices | None:
    """Return the prices of tokens at a backend; None where they are not known."""
    price, prompt_price = backend.price, backend.prompt_price
    if backend.default:
        default = settings.default_remote_backend
        price, prompt_price = default.price or None, default.prompt_price or None
    if price is None and prompt_price is None:
        return None
    return Prices(price or 0.0 if prompt_price is None else prompt_price, price or 0.0)


def _choice(affinity: AffinityType, before: PodSet | None) -> Choice:
    """Return the rule by which a pod is chosen; what was learned of prefixes stays as long as they matter."""
    if affinity is AffinityType.CONVERSATION:
        return _BY_CONVERSATION
    if affinity is AffinityType.PREFIX:
        return before.choice if before is not None and isinstance(before.choice, ByPrefix) else ByPrefix(_CHOICE)
    return _CHOICE


def _pod_origin(service: Origin, pod: Endpoint) -> Origin:
    """Return a pod of a Service as a server: at its own address and port, with the certificate of the Service."""
    name = service.server_name or (service.host if service.scheme == "https" else None)
    return service._replace(host=pod.addresses[0], port=pod.port, server_name=name, others=pod.addresses[1:])


def _names(route: Route, backend: Backend) -> dict[str, str]:
    """Return the names of the model at a backend, by those that requests may have."""
    document = route.document
    names = {document.client_model: backend.model or document.client_model}
    for one in document.models:
        names[one.name] = (one.remote_model if backend.service is None else one.local_model) or one.name
    return names | {f"{route.namespace}/{name}": here for name, here in names.items()}
