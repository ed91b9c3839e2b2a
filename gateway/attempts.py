"""Attempts of one request: it goes to one backend after another until a response is fit for the client.

Every attempt starts from the client's request as it came: target, header fields, model name and credentials are made
for its backend and contain nothing of an earlier attempt. Each backend gets one attempt, and one at each of its pods
where they are known: another pod comes before another backend. A second connection after an idle one turned out to be
closed, and a new token after a 401, belong to the same attempt. An event stream that may still be sent elsewhere is no
response until its first event is here, whatever comes before it. There is no further attempt once a byte of a response
may have gone to the client, and none after the client has gone: its task is cancelled, and nothing here catches that.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Coroutine, Mapping
from functools import partial
from ipaddress import ip_address
from math import inf
from typing import Any, Final, cast

import structlog

from gateway import errors, requested_model
from gateway.api.v1alpha1 import Backend
from gateway.api.vocabulary import FailureCause
from gateway.backends import failover
from gateway.backends.breaker import CircuitBreaker
from gateway.backends.pods import AVOID_SECONDS, Pod
from gateway.credentials import cache as credentials
from gateway.http import forwarding
from gateway.http.event_stream import is_event_stream
from gateway.http.exchange import Exchange, RequestHead, ResponseHead, field
from gateway.http.field_names import OF_CONTENT
from gateway.keep_alive import KeepAlive, KeepAlives
from gateway.model_names import body as bodies
from gateway.model_names import path
from gateway.model_names.streamed import StreamedName
from gateway.plan import BackendPlan, RoutePlan
from gateway.request_context import FailedAttempt, RequestContext
from gateway.routes.store import RouteStore
from gateway.settings import Settings
from gateway.telemetry import Metrics
from gateway.upstream import connection as upstream
from gateway.upstream.origin import Origin
from gateway.upstream.request import BodyChange
from gateway.upstream.response import UpstreamResponse
from program import retry_after
from program.addresses import AddressRules

_OF_CODED_CONTENT: Final = OF_CONTENT | {b"content-encoding"}
REFUSAL_SECONDS: Final = 60.0
"""Seconds between two log lines that say that one backend refuses the gateway's credentials."""
REFUSALS: Final = 4096
"""Largest number of backends whose last such line is remembered."""

log = structlog.get_logger(__name__)


class Attempts:
    """Attempts of requests at backends, with failover."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: RouteStore,
        upstream: upstream.Upstream,
        credentials: credentials.Credentials,
        metrics: Metrics,
        keep_alives: KeepAlives,
        via: bytes,
    ) -> None:
        self._via = via
        """Name of the gateway in Via fields (RFC 9110 7.6.3)."""
        self._store = store
        self._upstream = upstream
        self._credentials = credentials
        self._metrics = metrics
        self._keep_alives = keep_alives
        self._longest_cool_down = settings.gateway.retry.cool_down_seconds
        self._trusted = AddressRules.parse(allowed=settings.gateway.trusted_proxies)
        self._has_trusted_proxies = bool(settings.gateway.trusted_proxies)
        self._refusals: dict[tuple[str, str], float] = {}
        """Times of the last log lines about refused credentials, by route and backend."""

    async def response(
        self, exchange: Exchange, plan: RoutePlan, chosen: BackendPlan, target: bytes, context: RequestContext
    ) -> tuple[UpstreamResponse, BackendPlan]:
        """Send a request to backends; return the response for the client and the backend it comes from.

        This is the first response that is no failure, or that of the last attempt. A 403 counts for more than no
        response at all: it goes to the client when later attempts had none.

        Args:
            exchange: Exchange with the client's request.
            plan: Plan of the request's route.
            chosen: Backend of the first attempt.
            target: Request target without the part that selected the route.
            context: Context of the request, in which failed attempts and the current backend are noted.

        Raises:
            errors.GatewayError: The last attempt had no response.
        """
        began = context.started + context.queued
        tried: frozenset[int] = frozenset()
        tried_pods: list[Pod | None] = []
        """Pods that had an attempt; None among them is the name of a Service."""
        while True:
            context.backend = chosen
            if chosen.pods is not None or context.pod is not None:
                context.go_to(_pod(chosen, context, tried_pods, began))
            pod = context.pod
            if context.concurrency is not chosen.concurrency:
                if context.concurrency is not None:
                    context.concurrency.release()
                chosen.concurrency.taken += 1
                context.concurrency = chosen.concurrency
            if context.streams:
                alone = (chosen.concurrency.taken if pod is None else pod.in_flight) == 1
                context.send_stream(chosen.streams, time.perf_counter(), alone=alone)
            if context.trace is not None:
                origin = _origin(chosen, context)
                name = None if pod is None else pod.name
                context.trace.begin_attempt(chosen.backend.id, name, origin.host, origin.port, time.perf_counter())
            probe = not chosen.breaker.usable and chosen.breaker.begin(began)
            pod_probe = pod is not None and not pod.breaker.usable and pod.breaker.begin(began)
            outcome: UpstreamResponse | errors.UpstreamError
            try:
                outcome = response = await self._attempt(exchange, plan, chosen, target, context)
                status = response.head.status
                cause: str | None = None
                if status >= 400:
                    cause = plan.statuses.get(status)
                    if (status == 401 or status == 403) and _refuses_the_gateway(exchange, chosen):
                        cause = cause or FailureCause.CREDENTIALS_REFUSED
                        if status == 401:
                            response.abort()
                            outcome = errors.CredentialsRefused()
                            if chosen.traffic is not None:
                                chosen.traffic.refused_at = time.perf_counter()
                            self._log_refusal(plan, chosen)
                elif response.head.content_length is None and is_event_stream(response.head):
                    cause = await self._begin_stream(
                        response, exchange, plan, chosen, tried | {chosen.index}, [*tried_pods, pod], context
                    )
                now = time.perf_counter()
                if cause is None and status not in plan.failures:
                    chosen.breaker.succeeded(began, now)
                    if pod is not None:
                        pod.breaker.succeeded(began, now)
                    if chosen.traffic is not None and status < 300 and exchange.head.method == b"POST":
                        chosen.traffic.succeeded_at = now
                    context.first_byte = now
                    if context.trace is not None:
                        context.trace.end_attempt(_model_for(chosen, context), status, None, now)
                    return response, chosen
            except errors.UpstreamError as exc:
                outcome, cause = exc, failover.cause_of(exc)
                now = time.perf_counter()
            except BaseException:
                if probe:
                    chosen.breaker.abandoned()
                if pod is not None and pod_probe:
                    pod.breaker.abandoned()
                raise
            free = isinstance(outcome, errors.UpstreamError) and not outcome.sent
            if chosen.pods is not None:
                tried_pods.append(pod)
            if pod is not None:
                self._record_outcome(exchange, plan, chosen, pod.breaker, outcome, cause, began, now, probe=pod_probe)
                if free:
                    pod.avoid_until = now + AVOID_SECONDS
            if pod is None or chosen.pods is None or not chosen.pods.goes_on(tried_pods, now):
                until = inf if pod is None or chosen.pods is None else max(now, chosen.pods.cool_until())
                self._record_outcome(
                    exchange, plan, chosen, chosen.breaker, outcome, cause, began, now, probe=probe, longest=until
                )
            elif probe:
                chosen.breaker.abandoned()  # its other pods may be sound
            self._record_failure(context, plan, chosen, _cause_word(outcome, cause), now - began)
            if context.trace is not None:
                status = 0 if isinstance(outcome, errors.UpstreamError) else outcome.head.status
                context.trace.end_attempt(_model_for(chosen, context), status, _cause_word(outcome, cause), now)
            successor = self._next_backend(exchange, plan, chosen, cause, tried, tried_pods, now, context, free=free)
            if successor is not chosen:
                tried |= {chosen.index}
            if not isinstance(outcome, errors.UpstreamError):
                if successor is None:
                    context.first_byte = now
                    return outcome, chosen
                if outcome.head.status == 403 and context.refusal is None:
                    context.refusal = outcome, chosen, context.diversion
                else:
                    outcome.abort()
            elif successor is None:
                if context.refusal is None:
                    raise outcome
                response, chosen, context.diversion = context.refusal
                context.backend = chosen
                context.go_to(None)  # only remote backends are kept like this
                context.first_byte = now
                return response, chosen
            if successor is not chosen:
                chosen = successor
                context.diversion = failover.FAILOVER
            began = now

    def _next_backend(
        self,
        exchange: Exchange,
        plan: RoutePlan,
        chosen: BackendPlan,
        cause: str | None,
        tried: frozenset[int],
        tried_pods: Collection[Pod | None],
        now: float,
        context: RequestContext,
        *,
        free: bool,
    ) -> BackendPlan | None:
        """Return the backend for the next attempt; None when the client gets the outcome of the last one.

        It is the one that was `chosen` last while another of its pods is available. The last attempt that a request has
        goes to another backend where one is available.

        A retry after an attempt that sent nothing (`free`) puts no load on the backends, so it needs no retry budget,
        and the request body is still complete.
        """
        if cause not in plan.causes:
            return None
        successor: BackendPlan | None = None
        made = len(context.failures or ())
        if chosen.pods is not None and (free or chosen.resend) and chosen.pods.goes_on(tried_pods, now):
            successor = chosen
        if successor is None or made == failover.ATTEMPTS - 1:
            other = self._other(plan, tried | {chosen.index}, now)
            if successor is None or (other is not None and other.unavailable_reason(now) is None):
                successor = other
        if successor is None:
            return None
        if context.pinned:
            self._refuse(context, plan, "stateful")
        elif made >= failover.ATTEMPTS:
            self._refuse(context, plan, "attempts")
        elif not _repeatable(exchange, plan, free=free):
            self._refuse(context, plan, "body")
        elif not free and not plan.runtime.budget.take(now):
            self._refuse(context, plan, "budget")
        else:
            return successor
        return None

    def _refuse(self, context: RequestContext, plan: RoutePlan, why: str) -> None:
        context.not_retried = why
        self._metrics.retries_refused.labels(plan.route.namespace, plan.route.name, why).inc()

    def _other(self, plan: RoutePlan, tried: frozenset[int], now: float) -> BackendPlan | None:
        """Return a backend for failover that was not tried yet and is still in force; None when there is none.

        A request ends with the table it began with, but it is not sent to a backend that was removed meanwhile.
        """
        route = self._store.table.routes.get(plan.route.key)
        if route is None:
            return None
        if route.document is not plan.route.document:
            tried |= {
                one.index
                for one in plan.backends
                if not any(_same_server(one.backend, other) for other in route.document.backends)
            }
        return plan.other(tried, now)

    def _record_outcome(
        self,
        exchange: Exchange,
        plan: RoutePlan,
        chosen: BackendPlan,
        breaker: CircuitBreaker,
        outcome: UpstreamResponse | errors.UpstreamError,
        cause: str | None,
        began: float,
        now: float,
        *,
        probe: bool,
        longest: float = inf,
    ) -> None:
        """Report the outcome of an attempt to the circuit breaker of the backend, or to that of the pod.

        A cool-down ends at `longest` at the latest, where other pods of the backend end theirs.

        A 429, 503 or 529 with Retry-After starts a cool-down and is no failure. It starts none where the backend has
        seen credentials of the caller: then a 429 may be about this caller alone and says nothing about the backend.
        Without Retry-After a 429 is a failure, so a backend that sends nothing else gets no requests for a while, too.
        """
        if isinstance(outcome, errors.UpstreamError) or cause == FailureCause.STREAM_ERROR:
            breaker.failed(now, probe=probe)
        elif outcome.head.status not in plan.failures:
            breaker.succeeded(began, now)
        elif not (pause := self._pause(outcome.head)):
            breaker.failed(now, probe=probe)
        elif not forwarding.passes_credentials(exchange.head, chosen.target):
            breaker.cool_down(min(now + pause, longest))
            if probe:
                breaker.abandoned()
        elif outcome.head.status != 429:
            breaker.failed(now, probe=probe)
        elif probe:
            breaker.abandoned()

    def _pause(self, head: ResponseHead) -> float:
        """Return the seconds for which a response asks to send nothing, as far as the settings allow; 0 for none."""
        if head.status not in failover.PAUSE_STATUSES:
            return 0.0
        value, milliseconds = field(head.fields, b"retry-after"), field(head.fields, b"retry-after-ms")
        return min(retry_after.asked(value, milliseconds, time.time()) or 0.0, self._longest_cool_down)

    def _log_refusal(self, plan: RoutePlan, chosen: BackendPlan) -> None:
        """Log that a backend refuses the gateway's credentials, unless it was logged a moment ago."""
        key = (plan.route.key, chosen.backend.id)
        now = time.monotonic()
        if now - self._refusals.get(key, float("-inf")) < REFUSAL_SECONDS:
            return
        if len(self._refusals) >= REFUSALS:
            self._refusals.clear()
        self._refusals[key] = now
        log.warning(
            "credentials_refused",
            namespace=plan.route.namespace,
            name=plan.route.name,
            backend=chosen.backend.id,
            host=chosen.origin.host,
            status=401,
        )

    def _record_failure(
        self, context: RequestContext, plan: RoutePlan, chosen: BackendPlan, cause: str, seconds: float
    ) -> None:
        """Note a failed attempt in the context and count it."""
        if context.failures is None:
            context.failures = []
        pod = None if context.pod is None else context.pod.name
        context.failures.append(FailedAttempt(chosen.backend.id, cause, seconds, pod))
        route = plan.route
        self._metrics.upstream_errors.labels(route.namespace, route.name, chosen.backend.id, cause).inc()

    async def _begin_stream(
        self,
        response: UpstreamResponse,
        exchange: Exchange,
        plan: RoutePlan,
        chosen: BackendPlan,
        tried: frozenset[int],
        tried_pods: Collection[Pod | None],
        context: RequestContext,
    ) -> str | None:
        """Wait for the first event of an event stream where the request may still go elsewhere.

        Returns the failure cause where the event is an error that speaks against the backend.

        Raises:
            errors.UpstreamError: The stream ended before its first event, or was silent for too long.
        """
        if not (
            plan.holds_streams
            and not context.pinned
            and exchange.head.method == b"POST"
            and len(context.failures or ()) + 1 < failover.ATTEMPTS
            and _repeatable(exchange, plan, free=False)
            and (plan.goes_on(tried) or _has_other_pods(chosen, tried_pods))
        ):
            response.expect_event(context)
            if plan.keep_alive_after:
                self._keep_alive(response, exchange, plan, context)
            return None
        response.expect_event(None)
        keep_alive = self._keep_alive(response, exchange, plan, context) if plan.keep_alive_after else None
        if keep_alive is not None:
            keep_alive.held = response
        try:
            event = await response.first_event()
        except BaseException:
            response.abort()
            raise
        finally:
            if keep_alive is not None:
                keep_alive.held = None
        cause = failover.stream_cause(failover.error_status(event), plan.statuses) if plan.examines_streams else None
        if cause is None and not response.awaits_event:
            context.first_event_arrived()
        return cause

    def _keep_alive(
        self, response: UpstreamResponse, exchange: Exchange, plan: RoutePlan, context: RequestContext
    ) -> KeepAlive | None:
        """Return what keeps the client's connection alive until the first event; None where nothing can or need be."""
        if not response.readable or not response.awaits_event or response.bodiless:
            return None
        if context.keep_alive is None:
            waited = time.perf_counter() - context.started
            context.keep_alive = self._keep_alives.start(exchange, context, waited, plan.keep_alive_after)
        return context.keep_alive

    def _attempt(
        self, exchange: Exchange, plan: RoutePlan, chosen: BackendPlan, target: bytes, context: RequestContext
    ) -> Coroutine[Any, Any, UpstreamResponse]:
        """Start one attempt at a backend.

        Raises (when awaited):
            errors.GatewayError: There is no response.
        """
        extra = {b"x-request-id": context.request_id}
        if context.trace is not None:
            context.trace.put_into(extra, chosen.target.dropped)
        if context.keep_alive is not None and context.keep_alive.needs_plain:
            extra[b"accept-encoding"] = b"identity"
        model = context.model
        if chosen.plain and (model is None or (model.is_settled and chosen.name_for(model.name) is None)):
            head = exchange.head
            body = None if head.has_body else b""
            return self._send(exchange, plan, chosen, _origin(chosen, context), head, target, body, extra, None)
        return self._attempt_with_changes(exchange, plan, chosen, target, context, extra)

    async def _attempt_with_changes(
        self,
        exchange: Exchange,
        plan: RoutePlan,
        chosen: BackendPlan,
        target: bytes,
        context: RequestContext,
        extra: dict[bytes, bytes],
    ) -> UpstreamResponse:
        """Attempt a request with the backend's model name and credentials, twice when they are refused with a 401."""
        head, target, body, change = await _renamed(exchange, plan, chosen, target, context)
        refused: bytes | None = None
        while True:
            if chosen.authenticated:
                extra |= await self._credentials.headers(plan.route, chosen.backend, refresh=refused is not None)
                token = await self._credentials.authorization(plan.route, chosen.backend, refresh=refused or False)
                if token is not None:
                    extra[b"authorization"] = token
            origin = _origin(chosen, context)
            if chosen.certified:
                origin = origin._replace(certificate=await self._credentials.certificate(plan.route, chosen.backend))
            response = await self._send(exchange, plan, chosen, origin, head, target, body, extra, change)
            if response.head.status != 401 or not chosen.authenticated or refused is not None:
                return response
            refused = extra.get(b"authorization", b"")
            if not _repeatable(exchange, plan, free=False):
                await self._renew(plan, chosen, refused)
                return response
            response.abort()

    async def _renew(self, plan: RoutePlan, chosen: BackendPlan, refused: bytes) -> None:
        """Renew the credentials for a backend, for the next request: the one that was refused cannot be sent again."""
        with contextlib.suppress(errors.CredentialsFailed):
            await self._credentials.headers(plan.route, chosen.backend, refresh=True)
            await self._credentials.authorization(plan.route, chosen.backend, refresh=refused)

    def _send(
        self,
        exchange: Exchange,
        plan: RoutePlan,
        chosen: BackendPlan,
        origin: Origin,
        head: RequestHead,
        target: bytes,
        body: bytes | None,
        extra: Mapping[bytes, bytes],
        change: Callable[[], BodyChange] | None,
    ) -> Coroutine[Any, Any, UpstreamResponse]:
        """Send a request; `body` is None when it is streamed from the exchange, with a `change`."""
        return self._upstream.send(
            origin,
            self._outgoing(exchange, chosen, head, target, body, extra),
            exchange if body is None else body,
            chosen.timeouts,
            owner=plan.route.key,
            body_limit=plan.body_limit,
            keep=chosen.keep,
            resend=chosen.resend,
            change=change,
        )

    def _outgoing(
        self,
        exchange: Exchange,
        chosen: BackendPlan,
        head: RequestHead,
        target: bytes,
        body: bytes | None,
        extra: Mapping[bytes, bytes],
    ) -> RequestHead:
        fields = forwarding.request_fields(
            head,
            chosen.target,
            peer=exchange.peer,
            tls=exchange.tls,
            via=self._via,
            trusted_peer=self._has_trusted_proxies and self._is_trusted(exchange.peer),
            extra=extra,
        )
        in_memory = body is not None and head.has_body
        return RequestHead(
            head.method,
            forwarding.request_target(forwarding.query_for(target, chosen.target), chosen.target.prefix),
            head.host,
            head.authority,
            fields,
            1,
            len(body) if body is not None and in_memory else head.content_length,
            head.chunked and not in_memory,
            head.websocket,
        )

    def _is_trusted(self, peer: str) -> bool:
        return any(ip_address(peer) in network for network in self._trusted.allowed)


def _pod(chosen: BackendPlan, context: RequestContext, tried: Collection[Pod | None], now: float) -> Pod | None:
    """Return the pod for an attempt; None where it goes to the backend's name.

    A pod that has what the request refers to gets it whatever its state, since no other one has it.
    """
    if chosen.pods is None:
        return None
    home = None if context.home is None else chosen.pods.named(context.home)
    return chosen.pods.next(context.key, tried, now) if home is None else home


def _origin(chosen: BackendPlan, context: RequestContext) -> Origin:
    """Return the server that an attempt goes to: the pod that was chosen, or the backend by its name."""
    return chosen.origin if context.pod is None else cast("Origin", context.pod.origin)


def _model_for(chosen: BackendPlan, context: RequestContext) -> str | None:
    """Return the name of the model that a backend gets; None where it is not known."""
    model = context.model
    return chosen.backend.model if model is None else chosen.name_for(model.name) or model.name


def _has_other_pods(chosen: BackendPlan, tried: Collection[Pod | None]) -> bool:
    """Return whether a request that failed at a pod may go to another pod of the same backend."""
    return chosen.pods is not None and chosen.resend and chosen.pods.goes_on(tried, time.perf_counter())


def _refuses_the_gateway(exchange: Exchange, chosen: BackendPlan) -> bool:
    """Return whether a backend that refuses a request can only mean the gateway's own credentials."""
    return chosen.own_credentials and not forwarding.passes_credentials(exchange.head, chosen.target)


def _cause_word(outcome: UpstreamResponse | errors.UpstreamError, cause: str | None) -> str:
    """Return how an attempt failed, in a word: the code of an error, `streamError`, or the status."""
    if isinstance(outcome, errors.UpstreamError):
        return outcome.code
    if cause is None or cause == FailureCause.CREDENTIALS_REFUSED:
        return str(outcome.head.status)
    return str(cause)


async def _renamed(
    exchange: Exchange, plan: RoutePlan, chosen: BackendPlan, target: bytes, context: RequestContext
) -> tuple[RequestHead, bytes, bytes | None, Callable[[], BodyChange] | None]:
    """Return head, target and body with the backend's name for the model; without a body it is streamed, and changed.

    Raises:
        errors.GatewayError: The request may name different models to different servers, or its body cannot be read.
    """
    head = exchange.head
    unchanged = None if head.has_body else b""
    if chosen.backend.model is not None and context.model is None and not context.sought:
        context.model = await requested_model.find(exchange, target, plan.body_limit, required=False)
        context.sought = True
    model = context.model
    name = None if model is None else chosen.name_for(model.name)
    if name is not None and model is not None and model.in_query is not None:
        target = bodies.renamed_target(target, model.in_query, name)  # behind the path, so first
    in_path = None
    if chosen.backend.model is not None or (model is not None and model.has_path):
        in_path = path.in_target(target, plan.own_names, chosen.target.prefix)
    # A name that is none of the route's may be one of the server's: where there may be others, it was refused before.
    if in_path is not None and in_path.name in plan.own_names:
        other = chosen.name_for(in_path.name)
        if other is not None:
            target = path.renamed(target, in_path, other)
    if model is None:
        return head, target, unchanged, None
    in_body = model.in_body
    if model.unpacked:
        content = model.decoded or b""
        if name is not None and in_body is not None:
            content = bodies.renamed(content, in_body, name)
        return _without(head, _OF_CODED_CONTENT), target, content, None
    if in_body is None or (name is None and model.reader is None):
        return head, target, unchanged, None
    if model.decoded is None and (model.reader is not None or exchange.size > bodies.STEP_BYTES):
        growth = StreamedName(in_body, name, None).growth
        length = head.content_length
        if length is not None:
            head = head._replace(content_length=length + growth)
        if name is not None:
            head = _without(head, OF_CONTENT)
        return head, target, None, partial(StreamedName, in_body, name, model.reader)
    if name is None:
        return head, target, unchanged, None
    decoded = model.decoded
    stale = OF_CONTENT if decoded is None else _OF_CODED_CONTENT
    content = await exchange.read_body(plan.body_limit) if decoded is None else decoded
    return _without(head, stale), target, bodies.renamed(content, in_body, name), None


def _without(head: RequestHead, names: Collection[bytes]) -> RequestHead:
    """Return a head without the fields of these names."""
    return head._replace(fields=tuple(field for field in head.fields if field[0] not in names))


def _repeatable(exchange: Exchange, plan: RoutePlan, *, free: bool) -> bool:
    """Return whether the request can be sent again: its body was kept, and it is within the limit for that.

    After an attempt that sent nothing (`free`) its size does not matter.
    """
    return exchange.intact and (free or exchange.size <= plan.replay)


def _same_server(one: Backend, other: Backend) -> bool:
    """Return whether both backends are the same server."""
    return (one.id, one.service, one.host, one.default, one.port, one.scheme) == (
        other.id, other.service, other.host, other.default, other.port, other.scheme,
    )  # fmt: skip
