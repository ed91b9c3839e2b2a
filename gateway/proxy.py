"""Path of one request: match a route, choose a backend, forward the request, relay the response.

What is known before a request comes is computed once per route and kept in a `RoutePlan`. A request takes the routing
table once and ends with it, whatever changes meanwhile.
"""

import asyncio
import re
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast
from urllib.parse import unquote_to_bytes

import orjson
import structlog

from gateway import conversation, errors, requested_model, stateful
from gateway.access.caller import NOTHING as NO_GROUPS
from gateway.access.caller import Caller
from gateway.access.callers import Callers
from gateway.access.directory import KeyDirectory
from gateway.access.model_keys import ModelKeys
from gateway.access.rules import CallerRules
from gateway.attempts import Attempts
from gateway.backends import failover
from gateway.backends.concurrency import ConcurrencyLimit
from gateway.backends.endpoints import EndpointTable
from gateway.backends.response_pods import BEGINNING_BYTES, id_in
from gateway.backends.stream_slots import StreamSlot
from gateway.credentials import cache as credentials
from gateway.downstream.budget import MemoryBudget, namespace_share
from gateway.drill.drills import Drills
from gateway.drill.metrics import DrillMetrics
from gateway.health import HealthChecks
from gateway.http import forwarding
from gateway.http.cors import OFF, is_preflight
from gateway.http.event_stream import can_go_on, is_event_stream
from gateway.http.exchange import Exchange, Fields, RequestHead, ResponseHead, field
from gateway.http.stream_request import asks_for_stream
from gateway.http.token_usage import may_have_usage, usage_in
from gateway.http.usage_filter import UsageFilter
from gateway.journal import PATH_CHARACTERS, Journal, RequestRecord
from gateway.keep_alive import SWEEP_SECONDS, KeepAlive, KeepAlives
from gateway.model_names import body as bodies
from gateway.model_names import form
from gateway.model_names.path import PLACELESS
from gateway.plan import BackendPlan, RoutePlan, cors_rule
from gateway.request_context import RequestContext
from gateway.requested_model import RequestedModel
from gateway.response_tap import IdTap
from gateway.routes.store import RouteStore
from gateway.routes.table import Route, RoutingTable, check_path
from gateway.settings import Settings, via_pseudonym
from gateway.stream_options import ask_for_usage, may_ask
from gateway.telemetry import AccessLog, Metrics, RequestIds, Series
from gateway.tracing.spans import Tracer
from gateway.upstream import connection as upstream

if TYPE_CHECKING:
    from gateway.access.tokens import Tokens
    from gateway.upstream.origin import Origin
    from gateway.upstream.response import UpstreamResponse

_NOWHERE: Final = (errors.ModelMissing, errors.RouteNotFound, errors.ReadOnly, errors.Unauthorized)
"""Errors of a preflight that leads nowhere because there is no rule for websites."""
_NOT_HERE: Final = (errors.NoBackend, errors.AtCapacity, errors.UpstreamError)
"""Errors that say that local backends did not serve a request, which no other may serve."""
_CREDENTIALS: Final = (b"authorization", b"x-api-key", b"api-key")
"""Fields in which clients of OpenAI's, Anthropic's and Azure's APIs send their credentials."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")

log = structlog.get_logger(__name__)


class Proxy:
    """Proxy that serves requests by the routing table in force."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: RouteStore,
        upstream: upstream.Upstream,
        credentials: credentials.Credentials,
        metrics: Metrics,
        access_log: AccessLog,
        memory: MemoryBudget,
        journal: Journal | None = None,
        draining: Callable[[], bool] = lambda: False,
        authority: bytes = b"",
        connections: int | None = None,
        access: KeyDirectory | None = None,
        endpoints: EndpointTable | None = None,
        model_keys: ModelKeys | None = None,
        rules: CallerRules | None = None,
        tracer: Tracer | None = None,
        sweep_seconds: float = SWEEP_SECONDS,
        tokens: "Tokens | None" = None,
    ) -> None:
        """Serve nothing yet.

        Args:
            settings: Settings of the gateway.
            store: Routing table in force.
            upstream: Connections to backends.
            credentials: Credentials for backends.
            metrics: Metrics of the gateway.
            access_log: Log of requests.
            memory: Budget for what is held of requests, which is told whether there are several routes.
            journal: Last requests; None to keep none.
            draining: Function that returns whether the process has been asked to stop.
            authority: Certificate authority of the cluster that the gateway runs in; empty outside of one.
            connections: Connections of clients that there may be; None for as many as the settings say.
            access: API keys of callers; None without any. Without tokens, too, everyone is served.
            endpoints: Pods of Services; None to send requests to the names of Services.
            model_keys: API keys of single models; None where no model with keys of its own is served.
            rules: Rules for callers; None without any.
            tracer: Source of traces; None where these are off.
            sweep_seconds: Seconds between two looks at streams whose clients may need a comment.
            tokens: Tokens of an issuer by which callers are known; None without one.
        """
        self._endpoints = endpoints
        self._settings = settings
        self._body_limit = settings.gateway.limits.body_bytes
        self._store = store
        self._upstream = upstream
        self._health = HealthChecks(upstream, credentials)
        self.drills = Drills(settings, store, upstream, credentials)
        metrics.registry.register(DrillMetrics(self.drills.records))
        self._metrics = metrics
        self._access_log = access_log
        self._journal = Journal(0) if journal is None else journal
        self._draining = draining
        self._keep_alives = KeepAlives(asyncio.get_running_loop(), sweep_seconds)
        self._attempts = Attempts(
            settings=settings,
            store=store,
            upstream=upstream,
            credentials=credentials,
            metrics=metrics,
            keep_alives=self._keep_alives,
            via=via_pseudonym(settings.gateway, authority).encode("ascii"),
        )
        self._cors = cors_rule(settings.gateway.cors)
        """Rule for websites where a model has none of its own."""
        self._plans: dict[str, RoutePlan] = {}
        self._memory = memory
        self._connections = settings.gateway.limits.connections if connections is None else connections
        self._share = self._connections
        """Requests in flight that one route may have: not all connections, while there are other routes."""
        self._tenant_share = self._connections
        """Requests in flight that all routes of one namespace may have: not all connections, while there are others."""
        self._access = None if access is None and tokens is None else Callers(access, tokens)
        self._model_keys = model_keys
        self._rules = rules
        self._tracer = tracer
        self._new_id = RequestIds()

    async def handle(self, exchange: Exchange) -> None:
        """Serve one request. A failure before the head of the response becomes an error response."""
        context = RequestContext(self._request_id(exchange.head), self._cors)
        if self._tracer is not None:
            context.trace = self._tracer.begin(exchange, context.started)
        try:
            await self._serve(exchange, context)
        except errors.GatewayError as exc:
            self._fail(exchange, exc, context)
        except asyncio.CancelledError:
            if exchange.interrupted is None:
                context.broken = "client_gone"
                raise
            self._fail(exchange, exchange.interrupted, context)
        except Exception:
            log.exception("request_failed", request_id=context.request_id.decode())
            self._fail(exchange, errors.GatewayError(), context)
        finally:
            self._finish(exchange, context)

    async def _serve(self, exchange: Exchange, context: RequestContext) -> None:
        head = exchange.head
        if head.method == b"OPTIONS" and self._responds_itself(exchange, context):
            return
        table = self._store.table
        matched = self._find(head, table)
        if matched is not None:
            plan = self._plan(matched[0])
            context.cors = plan.cors
            if self._access is not None:
                context.identify(self._access.known(head.fields) or await self._access.verified(head.fields))
            if plan.guarded:
                context.caller = await self._check_caller(plan, head, context)
            if not self._is_allowed(plan.route, context):
                raise errors.ModelForbidden
            if plan.names is not None and self._lists_names(exchange, plan, matched[1], context):
                return
        else:
            if head.target.startswith(b"/health") and self._shows_health(exchange, table, context):
                return
            if self._access is not None:  # before the body is read and names of models are told
                context.identify(self._access.known(head.fields) or await self._access.verified(head.fields))
            matched = self._find_at_once(exchange, head, table, context)
            if matched is None:
                matched = await self._find_by_model(exchange, table, context)
            if matched is None:
                return
            plan = self._plan(matched[0])
            if plan.guarded:
                context.caller = await self._check_caller(plan, head, context)
        target = matched[1]
        if self._rules is not None and context.caller is not None:
            plan = self._ruled(self._rules, context.caller, plan, context)
        if plan.local_only is not None and plan.local_only.applies(head.fields):
            plan = plan.confined
        context.plan = plan
        exchange.owner = plan.route.key
        plan.runtime.arrived += 1
        plan.runtime.in_flight += 1
        plan.runtime.tenant.in_flight += 1
        if plan.runtime.in_flight > self._share or plan.runtime.tenant.in_flight > self._tenant_share:
            raise errors.Overloaded(retry_after=1)
        plan.runtime.budget.count(context.started)
        if plan.names is not None:
            await self._check_name(exchange, plan, target, context)
        if (plan.names is not None or context.model is not None) and not (plan.bare_targets and target in PLACELESS):
            context.model = requested_model.with_path(
                context.model, target, plan.own_names, plan.route.namespace, plan.prefixes
            )
        if plan.pins and stateful.may_be(target) and await self._refers(exchange, plan, target, context):
            context.pinned = True
            chosen, context.diversion = plan.keep(context.started)
        elif plan.takes_keys:
            key = await self._key(exchange, plan, context)
            chosen, context.diversion = plan.choose(context.started, key)
        else:
            chosen, context.diversion = plan.choose(context.started)
        context.backend = chosen
        if head.content_length is not None and head.content_length > plan.body_limit:
            raise errors.BodyTooLarge
        if context.model is not None:
            decoded = context.model.decoded
            if decoded is not None and len(decoded) > plan.body_limit:
                raise errors.BodyTooLarge
        if plan.keeps_early and head.method == b"POST":
            after = plan.keep_alive_after
            context.keep_alive = self._keep_alives.start(exchange, context, 0.0, after, before_head=True)
        if plan.limits_streams:
            context.streams = _asks_for_stream(exchange, context)
            streams = chosen.streams
            if context.streams and streams is not None and streams.is_full(time.perf_counter()):
                chosen = await self._admit(plan, chosen, streams.queue, context)
        if chosen.concurrency.taken >= chosen.concurrency.limit:
            chosen = await self._admit(plan, chosen, chosen.concurrency, context)
        adds_usage = False
        if plan.asks_for_usage and may_ask(head, target):
            adds_usage = await ask_for_usage(exchange, context.model, plan.body_limit)
        context.sent = time.perf_counter()
        response, chosen = await self._attempts.response(exchange, plan, chosen, target, context)
        if context.trace is not None and context.model is not None:
            context.trace.model = context.model.name
        context.model = None  # it may hold a decoded body, and the response may take long
        try:
            context.meter = response.meter
            if adds_usage:
                _take_usage_out(response, context)
            if context.keep_alive is not None and context.keep_alive.begun:
                await self._go_on(exchange, plan, context.keep_alive, response, context)
                return
            fields = forwarding.response_fields(
                response.head.fields,
                extra=(*chosen.fields_for(context.diversion), (b"x-request-id", context.request_id)),
            )
            context.status = response.head.status
            if response.head.status == 101:
                if field(fields, b"sec-websocket-protocol") is None:
                    subprotocol = forwarding.selected_subprotocol(head, chosen.target)
                    if subprotocol is not None:
                        fields += ((b"sec-websocket-protocol", subprotocol),)
                context.broken = await exchange.tunnel(fields, response.upgraded())
                return
            if context.cors is not None:
                fields = context.cors.applied(fields, head)
            outgoing = ResponseHead(response.head.status, response.head.reason, fields, response.head.content_length)
            body = response.whole()
            if body is not None:
                if context.meter is None and head.method == b"POST":
                    context.usage = usage_in(body)
                makes_response = context.makes_response and context.pod is not None and response.head.status == 200
                if makes_response and (made := id_in(body[:BEGINNING_BYTES])) is not None:
                    self._remember(exchange, plan, context, made)
                exchange.reply(outgoing, body)
            else:
                context.events = response.readable
                if context.meter is None and may_have_usage(head, response.head):
                    context.meter = response.measure()
                if context.stream is not None and not is_event_stream(response.head):
                    context.leave_streams()
                exchange.respond(outgoing)
                if context.keep_alive is not None:
                    context.keep_alive.relay(response)
                await response.relay(self._tapped(exchange, plan, context))
        finally:
            response.abort()

    def _tapped(self, exchange: Exchange, plan: RoutePlan, context: RequestContext) -> Exchange:
        """Return the receiver of a response: one that looks for its id first, where later requests may refer to it."""
        if context.makes_response and context.pod is not None and context.status == 200:
            return cast("Exchange", IdTap(exchange, partial(self._remember, exchange, plan, context)))
        return exchange

    async def _go_on(
        self,
        exchange: Exchange,
        plan: RoutePlan,
        keep_alive: KeepAlive,
        response: "UpstreamResponse",
        context: RequestContext,
    ) -> None:
        """Let the event stream that the client has already go on with a response; one that cannot becomes its error.

        Raises:
            errors.UpstreamError: The stream broke off.
        """
        if can_go_on(response.head):
            keep_alive.go_on(response)
            await response.relay(self._tapped(exchange, plan, context))
            return
        context.leave_streams()
        status = response.head.status
        try:
            content = await response.read(errors.LATE_BYTES)
        except errors.UpstreamError:
            content = b""
        context.broken = str(status)
        exchange.end_with(errors.late_body(status, content, context.request_id.decode(), exchange.head.target))

    async def _check_caller(self, plan: RoutePlan, head: RequestHead, context: RequestContext) -> str | None:
        """Check that a request has a token that the model takes, or one of its own API keys; return its caller's name.

        Raises:
            errors.Unauthorized: It has none.
            errors.Forbidden: It has none, and its caller is known by another credential.
            errors.AccessUnavailable: The keys cannot be read.
        """
        if plan.tokens is not None:
            if plan.tokens.permits(await self._by_token(head, context)):
                return context.caller
            if not plan.secrets:
                raise errors.TokenNeeded
        if self._model_keys is None:
            raise errors.AccessUnavailable
        try:
            caller = await self._model_keys.caller(plan.route.namespace, plan.secrets, head.fields)
        except errors.Unauthorized:
            if context.caller is not None:
                raise errors.Forbidden from None
            raise
        return context.caller or caller

    async def _by_token(self, head: RequestHead, context: RequestContext) -> Caller | None:
        """Return the caller of a request by its token, also where it is known by an API key already."""
        caller = context.identity
        if caller is None or caller.by_token or self._access is None:
            return caller
        try:
            return await self._access.verified(head.fields)
        except errors.RequestError:
            return None

    def _ruled(self, rules: CallerRules, caller: str, plan: RoutePlan, context: RequestContext) -> RoutePlan:
        """Apply the rules for a caller, if there are any; return the plan for its request.

        Raises:
            errors.ModelForbidden: The caller may not use the model.
            errors.TooManyRequests: The caller, or a group of it, has as many requests in flight as it may have.
        """
        allowance = rules.allowance(caller, _groups(context))
        if allowance is None:
            return plan
        if not allowance.allows(plan.route.key):
            raise errors.ModelForbidden
        if allowance.limits:
            rules.enter(allowance.limits)
            context.limits = allowance.limits
        context.high = allowance.high
        return plan.confined if allowance.stays_inside else plan

    def _is_allowed(self, route: Route, context: RequestContext) -> bool:
        """Return whether the rules for the caller of a request let it use a model."""
        if self._rules is None or context.caller is None:
            return True
        allowance = self._rules.allowance(context.caller, _groups(context))
        return allowance is None or allowance.allows(route.key)

    async def _may_use(self, route: Route, head: RequestHead, context: RequestContext) -> bool:
        """Return whether the caller of a request may use a model."""
        plan = self._plan(route)
        if plan.guarded:
            try:
                await self._check_caller(plan, head, context)
            except (errors.Unauthorized, errors.Forbidden, errors.AccessUnavailable):
                return False
        return True

    async def _check_name(self, exchange: Exchange, plan: RoutePlan, target: bytes, context: RequestContext) -> None:
        """Find the model that a request asks for, and refuse one that the route does not have.

        Raises:
            errors.ModelNotFound: The route has no model of this name.
            errors.GatewayError: The request does not name its model clearly, or its body cannot be read.
        """
        if context.model is None:
            context.model = await requested_model.find(exchange, target, plan.body_limit, required=False)
            context.sought = True
        if context.model is not None and context.model.name not in plan.own_names:
            raise errors.ModelNotFound

    async def _refers(self, exchange: Exchange, plan: RoutePlan, target: bytes, context: RequestContext) -> bool:
        """Return whether a request refers to an earlier response, by its path or its body.

        Raises:
            errors.GatewayError: The body cannot be read.
        """
        place = stateful.place(target, plan.prefixes)
        if place is None:
            return False
        referred: bytes | None = None
        if place is stateful.Place.RESPONSE:
            referred = stateful.id_in_path(target)
        elif exchange.head.method == b"POST":
            context.makes_response = plan.has_pods
            decoded = None if context.model is None else context.model.decoded
            referred = await stateful.reference(exchange, decoded, plan.body_limit)
        if referred and plan.has_pods:
            context.home = plan.runtime.responses.pod_of(_caller(exchange, context), referred)
        return referred is not None

    def _remember(self, exchange: Exchange, plan: RoutePlan, context: RequestContext, response: bytes) -> None:
        """Remember the pod that makes a response to which later requests may refer."""
        if context.pod is not None:
            plan.runtime.responses.remember(_caller(exchange, context), response, context.pod.name)

    async def _key(self, exchange: Exchange, plan: RoutePlan, context: RequestContext) -> bytes | None:
        """Return the key of the conversation that a request belongs to, None where it shows none; note that for pods.

        Raises:
            errors.GatewayError: The body cannot be read.
        """
        decoded = None if context.model is None else context.model.decoded
        header, limit = plan.affinity_header, plan.body_limit
        if plan.takes_blocks:
            key, context.key = await conversation.keys_of(exchange, header, decoded, limit)
        else:
            key = context.key = await conversation.key_of(exchange, header, decoded, limit)
        return key

    async def _admit(
        self, plan: RoutePlan, chosen: BackendPlan, limit: ConcurrencyLimit, context: RequestContext
    ) -> BackendPlan:
        """Return the backend for a request whose chosen one is at its limit; wait in the queue if there is one.

        `limit` is that of the chosen backend which is reached: for all requests or for streams.

        Raises:
            errors.AtCapacity: No backend takes the request and the queue is full, or the wait took too long.
        """
        other = None if context.pinned else plan.spill(context.started)
        if other is not None:
            context.diversion = failover.OVERFLOW
            return other
        if not chosen.has_place(plan.queue.size, high=context.high):
            raise errors.AtCapacity(retry_after=1)
        if context.trace is not None:
            context.trace.begin_wait(chosen.backend.id, time.perf_counter())
        try:
            other = await limit.wait(
                plan.queue.wait,
                partial(self._spill, plan) if plan.overflow and not context.pinned else None,
                high=context.high,
            )
        finally:
            context.queued = time.perf_counter() - context.started
        if other is not None:
            context.diversion = failover.OVERFLOW
            return other
        if limit is chosen.concurrency:
            context.concurrency = limit
        elif chosen.streams is not None:
            context.stream = StreamSlot(chosen.streams, from_queue=True)
        return chosen

    def _spill(self, plan: RoutePlan) -> BackendPlan | None:
        """Return a backend that takes a waiting request now; None also when another document has come into force."""
        route = self._store.table.routes.get(plan.route.key)
        if route is None or route.document is not plan.route.document:
            return None
        return plan.spill(time.perf_counter())

    def _find(self, head: RequestHead, table: RoutingTable) -> tuple[Route, bytes] | None:
        """Find the route by host, then by path; return it and the target without the part that selected it.

        Raises:
            errors.MalformedRequest: The path is ambiguous.
        """
        target = head.target
        try:
            route = table.match_host(head.host)
        except errors.AmbiguousHost:
            route = None  # a path or a model name may still select a route
        matched = table.match_path(target) if route is None else (route, target)
        if matched is not None:
            check_path(matched[1])  # which is what the backend gets
        elif target not in PLACELESS:  # these have nothing in them to check
            check_path(target)
        return matched

    def _find_at_once(
        self, exchange: Exchange, head: RequestHead, table: RoutingTable, context: RequestContext
    ) -> tuple[Route, bytes] | None:
        """Find the route by a small plain body that is in memory already, as of most requests by model; else None.

        Raises:
            errors.RoutingError: No route has this model.
        """
        target = head.target
        if target not in PLACELESS and (
            not target.startswith(b"/v1/") or target.startswith(b"/v1/models") or target.find(b"?") >= 0
        ):
            return None  # `in` raises a TypeError for itself first
        content = exchange.whole_body()
        if not content or len(content) > self._body_limit:
            return None
        name = bodies.plain_name(head.fields, content)
        if name is None:
            return None
        context.model = RequestedModel(name, bodies.PLAIN)
        return table.match_model(name), target

    async def _find_by_model(
        self, exchange: Exchange, table: RoutingTable, context: RequestContext
    ) -> tuple[Route, bytes] | None:
        """Find the route by the model in the body or query; return None after responding with the list of models.

        Raises:
            errors.RoutingError: No route has this model, or the request does not name one clearly.
            errors.RequestError: The body cannot be read.
        """
        head = exchange.head
        target = head.target
        path = target.partition(b"?")[0]
        if path.startswith(b"/v1/"):
            if path == b"/v1/models" or path.startswith(b"/v1/models/"):
                await self._list_models(exchange, table, path, context)
                return None
            if head.has_body or head.host not in table.ambiguous or form.in_target(target) is not None:
                model = await requested_model.find(exchange, target, self._body_limit, required=True)
                if model is None:
                    raise errors.ModelMissing(bodies.MISSING)
                context.model = model
                return table.match_model(model.name), target
        table.match_host(head.host)  # raises an error that names the full spellings
        raise errors.RouteNotFound

    def refresh(self) -> None:
        """Bring plans, health checks and drills in line with the table in force.

        Connections to backends that no route leads to any more are closed. `RouteStore` calls it after each swap.
        """
        current = self._store.table.routes
        several = len(current) > 1
        divided = len({route.namespace for route in current.values()}) > 1
        connections = self._connections
        self._share = max(1, connections // 2) if several else connections
        self._tenant_share = namespace_share(connections) if divided else connections
        self._memory.shared = several
        self._memory.divided = divided
        gone: set[Origin] = set()
        for key, plan in tuple(self._plans.items()):
            route = current.get(key)
            if plan.route == route:
                continue
            del self._plans[key]
            gone.update(one.origin for one in plan.backends)
            if route is None:
                self._metrics.forget(plan.route.namespace, plan.route.name)
            else:
                self._plan(route)
        if gone:
            self._upstream.forget(gone.difference(one.origin for plan in self._plans.values() for one in plan.backends))
        checked = self._store.table.checked
        self._health.apply((route, one) for route in checked for one in self._plan(route).backends)
        self.drills.apply(current)

    def close(self) -> None:
        """Stop health checks, drills, and the look at streams whose clients may need a comment."""
        self._health.close()
        self.drills.close()
        self._keep_alives.close()

    def _plan(self, route: Route) -> RoutePlan:
        plan = self._plans.get(route.key)
        if plan is None:
            runtime = self._store.runtime(route.key)
            plan = RoutePlan(route, self._settings, self._metrics, runtime, self._cors, endpoints=self._endpoints)
            self._plans[route.key] = plan
        return plan

    def _responds_itself(self, exchange: Exchange, context: RequestContext) -> bool:
        """Respond to an OPTIONS request for the gateway itself; return whether it is one (RFC 9110 7.6.2, 9.3.7)."""
        head = exchange.head
        if is_preflight(head) and self._permits(exchange, context):
            return True
        if head.target != b"*" and field(head.fields, b"max-forwards") != b"0":
            return False
        allowed = (b"allow", errors.MethodNotAllowed.allow)
        self._respond(exchange, context, 204, b"No Content", (allowed,), b"")
        return True

    def _permits(self, exchange: Exchange, context: RequestContext) -> bool:
        """Respond to a preflight where there is a rule for websites; return whether there is one.

        A preflight has no body that could name a model, so without a match by host or path the installation's counts.
        """
        head = exchange.head
        matched = self._find(head, self._store.table)
        rule = self._cors if matched is None else self._plan(matched[0]).cors
        context.cors = None  # its fields are in the response already
        if rule is None:
            return False
        self._respond(exchange, context, 204, b"No Content", rule.preflight(head), b"")
        return True

    def _shows_health(self, exchange: Exchange, table: RoutingTable, context: RequestContext) -> bool:
        """Respond to `/health` of the gateway itself as its admin port does to /readyz; return whether that was asked.

        Raises:
            errors.ReadOnly: The method is neither GET nor HEAD.
        """
        head = exchange.head
        if head.target.partition(b"?")[0] != b"/health" or head.host in table.ambiguous:
            return False
        if head.method not in (b"GET", b"HEAD"):
            raise errors.ReadOnly
        context.health = True
        why = self._store.why_not_ready(draining=self._draining())
        status, reason = (200, b"OK") if why is None else (503, b"Service Unavailable")
        fields = ((b"content-type", b"application/json"), (b"cache-control", b"no-store"))
        self._respond(exchange, context, status, reason, fields, orjson.dumps({"status": why or "ok"}))
        return True

    async def _list_models(self, exchange: Exchange, table: RoutingTable, path: bytes, context: RequestContext) -> None:
        """Respond with the models that the caller may use as OpenAI's list, or with one of them.

        Raises:
            errors.ReadOnly: The method is neither GET nor HEAD.
            errors.ModelNotFound: There is no such model.
        """
        if exchange.head.method not in (b"GET", b"HEAD"):
            raise errors.ReadOnly
        name = unquote_to_bytes(path.removeprefix(b"/v1/models").removeprefix(b"/")).decode("utf-8", "replace")
        if name:
            route = table.match_model(name)
            if not self._is_allowed(route, context) or not await self._may_use(route, exchange.head, context):
                raise errors.ModelNotFound
            content: object = _model(name, route)
        else:
            models = [item for item in table.models() if self._is_allowed(item[1], context)]
            keyed = {route.key: route for _, route in models if route.document.access is not None}
            usable = await asyncio.gather(*(self._may_use(route, exchange.head, context) for route in keyed.values()))
            hidden = {key for key, may in zip(keyed, usable, strict=True) if not may}
            content = {
                "object": "list",
                "data": [_model(name, route) for name, route in models if route.key not in hidden],
            }
        self._respond(exchange, context, 200, b"OK", ((b"content-type", b"application/json"),), orjson.dumps(content))

    def _lists_names(self, exchange: Exchange, plan: RoutePlan, target: bytes, context: RequestContext) -> bool:
        """Respond by path or host with the names that a route has, where it has several; return whether that was asked.

        The list of the model's own server has the names that it knows, and requests by these are 404.
        """
        if exchange.head.method not in (b"GET", b"HEAD"):
            return False
        if target.partition(b"?")[0].removesuffix(b"/") not in plan.lists:
            return False
        document = plan.route.document
        names = sorted({document.client_model, *(one.name for one in document.models)})
        content = {"object": "list", "data": [_model(name, plan.route) for name in names]}
        self._respond(exchange, context, 200, b"OK", ((b"content-type", b"application/json"),), orjson.dumps(content))
        return True

    def _respond(
        self,
        exchange: Exchange,
        context: RequestContext,
        status: int,
        reason: bytes,
        fields: Fields,
        body: bytes,
        *,
        close: bool = False,
    ) -> None:
        context.status = status
        context.first_byte = time.perf_counter()
        fields = (*fields, (b"x-request-id", context.request_id))
        if context.cors is not None:
            fields += context.cors.fields(exchange.head)
        exchange.reply(ResponseHead(status, reason, fields, len(body)), body, close=close)

    def _refuse(self, exchange: Exchange, error: errors.GatewayError, context: RequestContext) -> None:
        """Respond with an error in the form that the client of this path understands."""
        if self._cors is None and isinstance(error, _NOWHERE) and is_preflight(exchange.head):
            error.message = OFF
        error = _for_client(error, context)
        context.code = error.code
        request_id, target = context.request_id.decode(), exchange.head.target
        fields = errors.fields(error, request_id, target)
        if context.plan is not None:
            fields.append((b"x-beamlit-reason", (context.diversion or context.plan.reason).encode()))
        if context.backend is not None:
            fields.append((b"x-beamlit-backend", context.backend.backend.id.encode()))
        body = errors.body(error, request_id, target)
        phrase = HTTPStatus(error.status).phrase.encode("ascii")
        self._respond(exchange, context, error.status, phrase, tuple(fields), body, close=error.close)

    def _fail(self, exchange: Exchange, error: errors.GatewayError, context: RequestContext) -> None:
        """Respond with an error, or end a response that has begun so that no client takes it for complete.

        An event stream ends with an error event.
        """
        if not exchange.responded:
            self._refuse(exchange, error, context)
            return
        keep_alive = context.keep_alive if context.keep_alive is not None and context.keep_alive.begun else None
        if keep_alive is not None and not keep_alive.relayed:
            error = _for_client(error, context)  # attempts that failed are known already
        elif context.backend is not None and isinstance(error, errors.UpstreamError):
            context.backend.broke_off(context.pod, time.perf_counter())
        context.broken = error.code
        if not context.events:
            exchange.fail(error)
            return
        body = errors.body(error, context.request_id.decode(), exchange.head.target)
        if keep_alive is not None and keep_alive.waits:
            exchange.end_with(body)  # comments are all that the client has got
        else:
            exchange.cut(body)

    def _finish(self, exchange: Exchange, context: RequestContext) -> None:
        """Count the request and log it."""
        if context.health:
            return
        series: Series | None = None
        now = time.perf_counter()
        plan, backend = context.plan, context.backend
        if context.refusal is not None:
            context.refusal[0].abort()
        if context.keep_alive is not None:
            context.keep_alive.stop()
            context.keep_alive = None  # it refers to the context
        if context.caller is not None:
            self._metrics.caller_request(context.caller)
            if context.limits and self._rules is not None:
                self._rules.leave(context.limits)
        if plan is None and context.code is None:
            self._metrics.unrouted.labels(str(context.status)).inc()
        elif plan is None:
            self._metrics.refused.labels(context.code).inc()
        else:
            plan.runtime.in_flight -= 1
            plan.runtime.tenant.in_flight -= 1
            if context.concurrency is not None:
                context.concurrency.release()
            if context.pod is not None:
                context.pod.in_flight -= 1
            if context.stream is not None:
                context.leave_streams()
            if context.diversion is not None:
                self._metrics.diverted.labels(plan.route.namespace, plan.route.name, context.diversion).inc()
            series = plan.series(backend.backend.id if backend and not context.code else "none")
            series.observe(
                context.status,
                now - context.started,
                context.first_byte - context.started if context.first_byte else None,
            )
        meter, usage = context.meter, context.usage
        head = exchange.head
        if meter is not None and head.method == b"POST":  # by GET a response is read that was counted before
            usage = meter.usage()
        target = head.target
        not_retryable = context.not_retried
        if not_retryable is None and plan and exchange.size > plan.replay and backend and backend.alternatives:
            not_retryable = "body"
        record = RequestRecord(
            at=context.at,
            request_id=context.request_id,
            peer=exchange.peer,
            method=head.method,
            target=target if len(target) <= PATH_CHARACTERS else target[:PATH_CHARACTERS],
            host=head.host,
            route=plan.route.key if plan else None,
            backend=backend.backend.id if backend else None,
            pod=context.pod.name if context.pod is not None else None,
            weight=backend.backend.weight if backend else None,
            reason=context.diversion or (plan.reason if plan else None),
            status=context.status,
            code=context.code,
            broken=context.broken,
            seconds=now - context.started,
            first_byte=context.first_byte - context.started if context.first_byte else None,
            first_event=context.first_event - context.started if context.first_event else None,
            failures=context.failures,
            not_retryable=not_retryable,
            queued=context.queued,
            caller=context.caller,
            between_events=meter.mean if meter is not None and context.first_event else None,
            longest_between_events=meter.longest if meter is not None and context.first_event and meter.gaps else None,
            prompt_tokens=usage.prompt if usage is not None else None,
            completion_tokens=usage.completion if usage is not None else None,
        )
        if series is not None:
            sent = context.sent - context.started if context.sent else None
            series.requests.count(record, sent, backend.prices if backend and not context.code else None)
        self._journal.append(record)
        if self._access_log.enabled:
            self._access_log.write(record)
        if context.trace is not None and self._tracer is not None:
            if context.model is not None:
                context.trace.model = context.model.name
            self._tracer.end(context.trace, record, now)

    def _request_id(self, head: RequestHead) -> bytes:
        value = field(head.fields, b"x-request-id")
        if value is not None and _REQUEST_ID.fullmatch(value):
            return value
        return self._new_id()


def _take_usage_out(response: "UpstreamResponse", context: RequestContext) -> None:
    """Take the event with the tokens, which the client has not asked for, out of a response that is an event stream."""
    if response.readable:
        response.filter = UsageFilter()
    elif can_go_on(response.head):  # a stream in one piece: its length is known, and changes
        context.meter = response.measure()
        response.filter = UsageFilter()
        response.head = response.head._replace(content_length=None)


def _for_client(error: errors.GatewayError, context: RequestContext) -> errors.GatewayError:
    """Return what a client is told of an error: that only local backends could have served its request, if so."""
    if context.plan is not None and context.plan.is_confined and isinstance(error, _NOT_HERE):
        return errors.LocalOnly(retry_after=error.retry_after)
    return error


def _groups(context: RequestContext) -> frozenset[str]:
    """Return the groups of the caller of a request."""
    return NO_GROUPS if context.identity is None else context.identity.groups


def _caller(exchange: Exchange, context: RequestContext) -> bytes:
    """Return what tells the caller of a request from others: the name, or else the credentials as they are sent."""
    if context.caller is not None:
        return context.caller.encode()
    return b"\0".join((b"", *(field(exchange.head.fields, name) or b"" for name in _CREDENTIALS)))


def _asks_for_stream(exchange: Exchange, context: RequestContext) -> bool:
    """Return whether a request asks for a stream, by what is in memory of its body."""
    head, model = exchange.head, context.model
    if model is not None and model.decoded is not None:
        return asks_for_stream(head, model.decoded)
    coded = field(head.fields, b"content-encoding") is not None
    return asks_for_stream(head, None if coded else exchange.whole_body())


def _model(name: str, route: Route) -> dict[str, object]:
    try:
        created = int(datetime.fromisoformat(route.created).timestamp())
    except ValueError:
        created = 0
    return {"id": name, "object": "model", "created": created, "owned_by": route.namespace}
