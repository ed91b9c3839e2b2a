"""From a request to an answer: attempts at backends, one after the other, until one has an answer for the client.

Every attempt begins with the request as it came: target, fields, model name and credentials are made for its backend,
and nothing of an earlier attempt is in them. A backend is asked once; a connection that had died while it was idle and
a token that is renewed after a 401 belong to the same attempt. Once a byte of an answer may go to the client there is
no other attempt, and none begins after the client has gone: its task is cancelled, and nothing here catches that.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from ipaddress import ip_address
from typing import Any, Final

from gateway import errors
from gateway.api.v1alpha1 import Backend
from gateway.api.vocabulary import FailureCause
from gateway.backends import failover
from gateway.backends.breaker import CircuitBreaker
from gateway.credentials import cache as credentials
from gateway.http import forwarding
from gateway.http.exchange import Exchange, RequestHead, ResponseHead, field
from gateway.net.deadlines import Deadlines
from gateway.plan import BackendPlan, RoutePlan
from gateway.request_context import FailedAttempt, RequestContext
from gateway.routes.store import RouteStore
from gateway.settings import Settings
from gateway.telemetry import Metrics
from gateway.upstream import connection as upstream
from gateway.upstream.addresses import AddressRules
from gateway.upstream.origin import Origin

VIA: Final = b"beamlit-gateway"
"""This gateway's name in Via."""
HOLD_SECONDS: Final = 1.0
"""How long the beginning of a stream is held back to see whether it is an error."""


class Attempts:
    """Sends requests to backends."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: RouteStore,
        upstream: upstream.Upstream,
        credentials: credentials.Credentials,
        metrics: Metrics,
    ) -> None:
        self._store = store
        self._upstream = upstream
        self._credentials = credentials
        self._metrics = metrics
        self._longest_pause = settings.gateway.retry.cool_down_seconds
        self._trusted = AddressRules.parse(allowed=settings.gateway.trusted_proxies)
        self._trusts_somebody = bool(settings.gateway.trusted_proxies)
        self._deadlines = Deadlines(asyncio.get_running_loop(), HOLD_SECONDS)

    def close(self) -> None:
        """Stop what runs by itself."""
        self._deadlines.close()

    async def response(
        self, exchange: Exchange, plan: RoutePlan, chosen: BackendPlan, rest: bytes, context: RequestContext
    ) -> tuple[upstream.ServerResponse, BackendPlan]:
        """An answer for the client, and whose it is: the first that is fit for it, or the last one.

        Args:
            exchange: the client's request.
            plan: of its route.
            chosen: who is asked first.
            rest: the target, without what selected the route.
            story: gets the attempts that failed, and the backend that is being asked.

        Raises:
            errors.GatewayError: the last attempt had no answer.
        """
        began = context.started + context.queued
        tried: frozenset[int] = frozenset()
        while True:
            context.backend = chosen
            if context.concurrency is not chosen.concurrency:
                if context.concurrency is not None:
                    context.concurrency.release()
                chosen.concurrency.taken += 1
                context.concurrency = chosen.concurrency
            probe = not chosen.breaker.usable and chosen.breaker.begin(began)
            outcome: upstream.ServerResponse | errors.UpstreamError
            try:
                outcome = await self._attempt(exchange, plan, chosen, rest, context)
                status = outcome.head.status
                cause = plan.statuses.get(status)
                if cause is None and plan.holds_streams and outcome.head.content_length is None:
                    cause = await self._beginning(outcome, exchange, plan, tried | {chosen.index})
                now = time.perf_counter()
                if cause is None and status not in failover.FAILURE_STATUSES:
                    chosen.breaker.succeeded(began, now)
                    context.first_byte = now
                    return outcome, chosen
            except errors.UpstreamError as exc:
                outcome, cause = exc, failover.cause_of(exc)
                now = time.perf_counter()
            except BaseException:
                if probe:
                    chosen.breaker.abandoned()
                raise
            self._judge(chosen.breaker, outcome, cause, began, now, probe=probe)
            tried |= {chosen.index}
            self._note(context, plan, chosen, _word(outcome, cause), now - began)
            free = isinstance(outcome, errors.UpstreamError) and not outcome.sent
            following = self._following(exchange, plan, cause, tried, now, context, free=free)
            if not isinstance(outcome, errors.UpstreamError):
                if following is None:
                    context.first_byte = now
                    return outcome, chosen
                outcome.abort()
            elif following is None:
                raise outcome
            chosen = following
            context.why = failover.FAILOVER
            began = now

    def _following(
        self,
        exchange: Exchange,
        plan: RoutePlan,
        cause: FailureCause | None,
        tried: frozenset[int],
        now: float,
        context: RequestContext,
        *,
        free: bool,
    ) -> BackendPlan | None:
        """The backend for the next attempt; None when the last one's outcome is the client's.

        An attempt by which nothing was sent (`free`) has cost no backend anything: it needs neither budget nor a body
        that was kept.
        """
        if cause not in plan.causes:
            return None
        following = self._other(plan, tried, now)
        if following is None:
            return None
        if not _repeatable(exchange, plan, free=free):
            self._refuse(context, plan, "body")
        elif not free and not plan.runtime.budget.take(now):
            self._refuse(context, plan, "budget")
        else:
            return following
        return None

    def _refuse(self, context: RequestContext, plan: RoutePlan, why: str) -> None:
        context.not_retried = why
        self._metrics.retries_refused.labels(plan.route.namespace, plan.route.name, why).inc()

    def _other(self, plan: RoutePlan, tried: frozenset[int], now: float) -> BackendPlan | None:
        """The backend for failover that was not tried and is still in force.

        A request ends on the table it began with, but is not sent to a place that was taken out meanwhile.
        """
        route = self._store.table.routes.get(plan.route.key)
        if route is None:
            return None
        if route.document is not plan.route.document:
            tried |= {
                one.index
                for one in plan.backends
                if not any(_same_place(one.backend, other) for other in route.document.backends)
            }
        return plan.other(tried, now)

    def _judge(
        self,
        breaker: CircuitBreaker,
        outcome: upstream.ServerResponse | errors.UpstreamError,
        cause: FailureCause | None,
        began: float,
        now: float,
        *,
        probe: bool,
    ) -> None:
        """Tell the breaker how an attempt went.

        A backend that asks for a pause gets it, and that is no failure. Without a pause 429 is one: whoever answers
        nothing else for long is left alone too.
        """
        if isinstance(outcome, errors.UpstreamError) or cause is FailureCause.STREAM_ERROR:
            breaker.failed(now, probe=probe)
        elif outcome.head.status not in failover.FAILURE_STATUSES:
            breaker.succeeded(began, now)
        elif not self._cools_down(breaker, outcome.head, now):
            breaker.failed(now, probe=probe)
        elif probe:
            breaker.abandoned()

    def _cools_down(self, breaker: CircuitBreaker, head: ResponseHead, now: float) -> bool:
        """Whether the answer asks for a pause (Retry-After on 429 or 503); the backend gets it."""
        if head.status not in (429, 503) or (value := field(head.fields, b"retry-after")) is None:
            return False
        seconds = min(failover.retry_after(value, time.time()) or 0.0, self._longest_pause)
        if seconds:
            breaker.cool_down(now + seconds)
        return bool(seconds)

    def _note(self, context: RequestContext, plan: RoutePlan, chosen: BackendPlan, cause: str, seconds: float) -> None:
        """Remember and count an attempt that failed."""
        if context.failures is None:
            context.failures = []
        context.failures.append(FailedAttempt(chosen.backend.id, cause, seconds))
        route = plan.route
        self._metrics.upstream_errors.labels(route.namespace, route.name, chosen.backend.id, cause).inc()

    async def _beginning(
        self, response: upstream.ServerResponse, exchange: Exchange, plan: RoutePlan, tried: frozenset[int]
    ) -> FailureCause | None:
        """The cause, if the first event of a stream is an error. Not asked where there is nobody else to ask.

        Raises:
            errors.UpstreamError: the stream broke off before it.
        """
        if not is_stream(response.head) or not _repeatable(exchange, plan, free=False):
            return None
        if self._other(plan, tried, time.perf_counter()) is None:
            return None
        try:
            data = await response.beginning(_is_enough, self._deadlines)
        except BaseException:
            response.abort()
            raise
        return FailureCause.STREAM_ERROR if failover.is_error(failover.first_event(data) or b"") else None

    def _attempt(
        self, exchange: Exchange, plan: RoutePlan, chosen: BackendPlan, rest: bytes, context: RequestContext
    ) -> Coroutine[Any, Any, upstream.ServerResponse]:
        """One attempt at a backend.

        Raises (when awaited):
            errors.GatewayError: there is no answer.
        """
        extra = {b"x-request-id": context.request_id}
        if chosen.plain:
            body = None if exchange.head.has_body else b""
            return self._send(exchange, plan, chosen, chosen.origin, rest, body, extra)
        return self._prepared(exchange, plan, chosen, rest, extra)

    async def _prepared(
        self, exchange: Exchange, plan: RoutePlan, chosen: BackendPlan, rest: bytes, extra: dict[bytes, bytes]
    ) -> upstream.ServerResponse:
        """An attempt with the backend's model name and credentials; it has a second go when they were refused (401)."""
        body = await _body(exchange, plan, chosen)
        refused: bytes | None = None
        while True:
            if chosen.authenticated:
                extra |= await self._credentials.headers(plan.route, chosen.backend, refresh=refused is not None)
                token = await self._credentials.authorization(plan.route, chosen.backend, refresh=refused or False)
                if token is not None:
                    extra[b"authorization"] = token
            origin = chosen.origin
            if chosen.certified:
                origin = origin._replace(certificate=await self._credentials.certificate(plan.route, chosen.backend))
            response = await self._send(exchange, plan, chosen, origin, rest, body, extra)
            if response.head.status != 401 or not chosen.authenticated or refused is not None:
                return response
            if not _repeatable(exchange, plan, free=False):
                return response
            response.abort()
            refused = extra.get(b"authorization", b"")

    def _send(
        self,
        exchange: Exchange,
        plan: RoutePlan,
        chosen: BackendPlan,
        origin: Origin,
        rest: bytes,
        body: bytes | None,
        extra: Mapping[bytes, bytes],
    ) -> Coroutine[Any, Any, upstream.ServerResponse]:
        """Send a request; `body` is None where it comes from the exchange."""
        return self._upstream.send(
            origin,
            self._outgoing(exchange, chosen, rest, body, extra),
            exchange if body is None else body,
            chosen.timeouts,
            body_limit=plan.body_limit,
            keep=chosen.keep,
            resend=chosen.resend,
        )

    def _outgoing(
        self, exchange: Exchange, chosen: BackendPlan, rest: bytes, body: bytes | None, extra: Mapping[bytes, bytes]
    ) -> RequestHead:
        head = exchange.head
        fields = forwarding.request_fields(
            head,
            chosen.target,
            peer=exchange.peer,
            tls=exchange.tls,
            via=VIA,
            trusted_peer=self._trusts_somebody and self._is_trusted(exchange.peer),
            extra=extra,
        )
        in_memory = body is not None and head.has_body
        return RequestHead(
            head.method,
            forwarding.request_target(rest, chosen.target.prefix),
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


def _word(outcome: upstream.ServerResponse | errors.UpstreamError, cause: FailureCause | None) -> str:
    """How an attempt failed, in a word: the code of an error, `streamError`, or the status."""
    if isinstance(outcome, errors.UpstreamError):
        return outcome.code
    return cause.value if cause is not None else str(outcome.head.status)


async def _body(exchange: Exchange, plan: RoutePlan, chosen: BackendPlan) -> bytes | None:
    """The body where it has to be in memory, to change its model name. None: it streams."""
    head = exchange.head
    if not head.has_body:
        return b""
    name = chosen.backend.model
    if name is None or not _is_json(head):
        return None
    content = await exchange.read_body(plan.body_limit)
    try:
        return forwarding.replace_model(content, name)
    except errors.ModelMissing:
        return content


def _repeatable(exchange: Exchange, plan: RoutePlan, *, free: bool) -> bool:
    """Whether the request can be sent once more: its body is here, and no larger than what is sent twice.

    Where nothing was sent (`free`) its size does not matter.
    """
    return exchange.intact and (free or exchange.size <= plan.replay)


def _same_place(one: Backend, other: Backend) -> bool:
    """Whether requests for either go to the same server."""
    return (one.id, one.service, one.host, one.default, one.port, one.scheme) == (
        other.id, other.service, other.host, other.default, other.port, other.scheme,
    )  # fmt: skip


def _is_enough(data: bytes) -> bool:
    return failover.first_event(data) is not None


def is_stream(head: ResponseHead) -> bool:
    """Whether an answer is an event stream that can be read here."""
    if head.status != 200 or head.content_length is not None:
        return False
    kind = field(head.fields, b"content-type")
    return (
        kind is not None and kind[:17].lower() == b"text/event-stream" and not field(head.fields, b"content-encoding")
    )


def _is_json(head: RequestHead) -> bool:
    kind = field(head.fields, b"content-type")
    return kind is None or b"json" in kind.lower() or kind.lower().startswith(b"application/x-www-form-urlencoded")
