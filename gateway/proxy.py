"""The story of one request: match, choose, forward, relay.

What can be known before a request comes is worked out once per route and kept in a `_Plan`; a request takes the
routing table once and ends on it, whatever changes meanwhile.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

import orjson
import structlog

from gateway import balancing, credentials, errors, forwarding, http1, routing, upstream
from gateway.addresses import AddressRules
from gateway.api.v1alpha1 import Backend, Headers, Use
from gateway.exchange import Exchange, Fields, RequestHead, ResponseHead, field
from gateway.routing import Route, RoutingTable
from gateway.settings import Settings
from gateway.store import Runtime, Store
from gateway.telemetry import AccessLog, Metrics, RequestIds, Series

VIA: Final = b"beamlit-gateway"
"""This gateway's name in Via."""
_REQUEST_ID: Final = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
_LOGGED: Final = 256
"""Characters of a client's value that get into a log line."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _BackendPlan:
    """One backend of a route, ready to be sent to."""

    backend: Backend
    origin: upstream.Origin
    target: forwarding.Target
    timeouts: upstream.Timeouts
    answers: tuple[tuple[bytes, bytes], ...]
    """Fields of ours on every answer from here."""
    authenticated: bool


class _Plan:
    """Everything about a route that does not depend on the request."""

    def __init__(self, route: Route, settings: Settings, metrics: Metrics, runtime: Runtime) -> None:
        document = route.document
        self.route = route
        self.runtime = runtime
        self.reason = document.split.reason
        body = document.limits.body_bytes
        self.body_limit = settings.gateway.limits.body_bytes if body is None else body
        self.backends = tuple(_backend_plan(route, backend, settings) for backend in document.backends)
        self.turns = balancing.pattern([backend.weight for backend in document.backends])
        self._metrics = metrics
        self._series: dict[str, Series] = {}
        metrics.in_flight.labels(route.namespace, route.name).set_function(lambda: runtime.in_flight)

    def choose(self) -> _BackendPlan:
        """The backend whose turn it is.

        Raises:
            errors.NoBackend: no backend may be chosen by weight.
        """
        turn = self.runtime.turn
        self.runtime.turn = (turn + 1) % balancing.CYCLE
        index = balancing.choose(self.turns, turn)
        if index is None:
            raise errors.NoBackend
        return self.backends[index]

    def series(self, backend: str) -> Series:
        """Where answers of `backend` are counted."""
        found = self._series.get(backend)
        if found is None:
            found = self._series[backend] = self._metrics.series(self.route.namespace, self.route.name, backend)
        return found


class _Story:
    """What is known about one request by now, for its metrics and its line in the access log."""

    __slots__ = ("at", "backend", "broken", "code", "first_byte", "plan", "request_id", "started", "status")

    def __init__(self, request_id: bytes) -> None:
        self.at = time.time()
        self.started = time.perf_counter()
        self.first_byte = 0.0
        self.request_id = request_id
        self.plan: _Plan | None = None
        self.backend: _BackendPlan | None = None
        self.status = 499
        """Until there is an answer: the client was gone before (as nginx counts it)."""
        self.code: str | None = None
        """Code of the gateway's own error answer."""
        self.broken: str | None = None
        """Why an answer broke off."""


class Proxy:
    """Answers requests from the routing table."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        upstream: upstream.Upstream,
        credentials: credentials.Credentials,
        metrics: Metrics,
        access_log: AccessLog,
    ) -> None:
        self._settings = settings
        self._store = store
        self._upstream = upstream
        self._credentials = credentials
        self._metrics = metrics
        self._access_log = access_log
        self._trusted = AddressRules.parse(allowed=settings.gateway.trusted_proxies)
        self._trusts_somebody = bool(settings.gateway.trusted_proxies)
        self._plans: dict[str, _Plan] = {}
        self._plans_of = -1
        self._new_id = RequestIds()

    async def handle(self, exchange: Exchange) -> None:
        """Answer one request. Whatever fails before the answer's head becomes an error answer."""
        story = _Story(self._request_id(exchange.head))
        try:
            await self._tell(exchange, story)
        except errors.GatewayError as exc:
            if exchange.responded:
                story.broken = exc.code
                exchange.fail(exc)
            else:
                self._refuse(exchange, exc, story)
        except BaseException as exc:
            story.broken = "client_gone" if not isinstance(exc, Exception) else "internal_error"
            if not isinstance(exc, Exception):
                raise
            log.exception("request_failed", request_id=story.request_id.decode())
            if exchange.responded:
                exchange.fail(exc)
            else:
                self._refuse(exchange, errors.GatewayError(), story)
        finally:
            self._finish(exchange, story)

    async def _tell(self, exchange: Exchange, story: "_Story") -> None:
        head = exchange.head
        if self._answered_here(exchange, story):
            return
        matched = await self._match(exchange, self._store.table, story)
        if matched is None:
            return
        route, rest = matched
        plan = self._plan(route)
        story.plan = plan
        plan.runtime.in_flight += 1
        chosen = plan.choose()
        story.backend = chosen
        if head.content_length is not None and head.content_length > plan.body_limit:
            raise errors.BodyTooLarge
        body = await self._body(exchange, plan, chosen)
        answer = await self._send(exchange, chosen, plan, rest, body, story)
        try:
            fields = forwarding.response_fields(
                answer.head.fields, extra=(*chosen.answers, (b"x-request-id", story.request_id))
            )
            story.status = answer.head.status
            story.first_byte = time.perf_counter()
            outgoing = ResponseHead(answer.head.status, answer.head.reason, fields, answer.head.content_length)
            body = answer.whole()
            if body is not None:
                exchange.reply(outgoing, body)
            else:
                exchange.respond(outgoing)
                await answer.relay(exchange)
        finally:
            answer.abort()

    async def _match(self, exchange: Exchange, table: RoutingTable, story: "_Story") -> tuple[Route, bytes] | None:
        """By host, by path, by model: the route and the target without what selected it. None: answered here.

        Raises:
            errors.RoutingError: it leads nowhere.
        """
        head = exchange.head
        target = head.target
        routing.check_path(target)
        ambiguous: errors.AmbiguousHost | None = None
        try:
            route = table.match_host(head.host)
        except errors.AmbiguousHost as exc:
            # A path or a model name may still say what is meant.
            route, ambiguous = None, exc
        if route is not None:
            return route, target
        if (matched := table.match_path(target)) is not None:
            return matched
        path = target.partition(b"?")[0]
        if path.startswith(b"/v1/"):
            if path == b"/v1/models" or path.startswith(b"/v1/models/"):
                self._list_models(exchange, table, path, story)
                return None
            if ambiguous is None or head.has_body:
                content = await exchange.read_body(self._settings.gateway.limits.body_bytes)
                return table.match_model(forwarding.model_of(content)), target
        raise ambiguous or errors.RouteNotFound()

    async def _body(self, exchange: Exchange, plan: _Plan, chosen: _BackendPlan) -> bytes | None:
        """The body where it has to be in memory: to change its model name, or to send it twice. None: it streams."""
        head = exchange.head
        if not head.has_body:
            return b""
        name = chosen.backend.model
        if name is not None and _is_json(head):
            content = await exchange.read_body(plan.body_limit)
            try:
                return forwarding.replace_model(content, name)
            except errors.ModelMissing:
                return content
        if chosen.authenticated and 0 <= (head.content_length or -1) <= self._settings.gateway.limits.replay_bytes:
            return await exchange.read_body(plan.body_limit)
        return None

    async def _send(
        self, exchange: Exchange, chosen: _BackendPlan, plan: _Plan, rest: bytes, body: bytes | None, story: "_Story"
    ) -> upstream.ServerAnswer:
        """One attempt at a backend, with a second go when its token was refused (401).

        Raises:
            errors.GatewayError: there is no answer.
        """
        extra = {b"x-request-id": story.request_id}
        refused: bytes | None = None
        while True:
            if chosen.authenticated:
                extra |= await self._credentials.headers(plan.route, chosen.backend, refresh=refused is not None)
                token = await self._credentials.authorization(plan.route, chosen.backend, refresh=refused or False)
                if token is not None:
                    extra[b"authorization"] = token
            head = self._outgoing(exchange, chosen, rest, body, extra)
            try:
                answer = await self._upstream.send(
                    chosen.origin,
                    head,
                    exchange if body is None else body,
                    chosen.timeouts,
                    body_limit=plan.body_limit,
                    resend=Use.FAILOVER in chosen.backend.use,
                )
            except errors.UpstreamError as exc:
                self._metrics.upstream_errors.labels(
                    plan.route.namespace, plan.route.name, chosen.backend.id, exc.code
                ).inc()
                raise
            if answer.head.status != 401 or not chosen.authenticated or body is None or refused is not None:
                return answer
            answer.abort()
            refused = extra.get(b"authorization", b"")

    def _outgoing(
        self, exchange: Exchange, chosen: _BackendPlan, rest: bytes, body: bytes | None, extra: Mapping[bytes, bytes]
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
            method=head.method,
            target=forwarding.request_target(rest, chosen.target.prefix),
            host=head.host,
            authority=head.authority,
            fields=fields,
            http_minor=1,
            content_length=len(body) if body is not None and in_memory else head.content_length,
            chunked=head.chunked and not in_memory,
        )

    def _is_trusted(self, peer: str) -> bool:
        return any(ip_address(peer) in network for network in self._trusted.allowed)

    def _plan(self, route: Route) -> _Plan:
        if self._plans_of != self._store.generation:
            current = self._store.table.routes
            for key, plan in tuple(self._plans.items()):
                if plan.route != current.get(key):
                    del self._plans[key]
                if key not in current:
                    self._metrics.forget(plan.route.namespace, plan.route.name)
            self._plans_of = self._store.generation
        found = self._plans.get(route.key)
        if found is None:
            found = _Plan(route, self._settings, self._metrics, self._store.runtime(route.key))
            self._plans[route.key] = found
        return found

    def _answered_here(self, exchange: Exchange, story: "_Story") -> bool:
        """Answer what is addressed to the gateway itself (RFC 9110 7.6.2, 9.3.7, 9.3.8).

        Raises:
            errors.MethodNotAllowed: TRACE.
        """
        head = exchange.head
        if head.method == b"TRACE":
            raise errors.MethodNotAllowed
        if head.method != b"OPTIONS":
            return False
        if head.target != b"*" and field(head.fields, b"max-forwards") != b"0":
            return False
        allowed = (b"allow", http1.ALLOW)
        self._answer(exchange, story, 204, b"No Content", (allowed,), b"")
        return True

    def _list_models(self, exchange: Exchange, table: RoutingTable, path: bytes, story: "_Story") -> None:
        """The models as OpenAI's list, or one of them.

        Raises:
            errors.MethodNotAllowed: neither GET nor HEAD.
            errors.ModelNotFound: there is no such model.
        """
        if exchange.head.method not in (b"GET", b"HEAD"):
            raise errors.MethodNotAllowed
        name = path.removeprefix(b"/v1/models").removeprefix(b"/").decode("ascii", "replace")
        if name:
            content: object = _model(name, table.match_model(name))
        else:
            content = {"object": "list", "data": [_model(name, route) for name, route in table.models()]}
        self._answer(exchange, story, 200, b"OK", ((b"content-type", b"application/json"),), orjson.dumps(content))

    def _answer(
        self,
        exchange: Exchange,
        story: "_Story",
        status: int,
        reason: bytes,
        fields: Fields,
        body: bytes,
        *,
        close: bool = False,
    ) -> None:
        story.status = status
        story.first_byte = time.perf_counter()
        own = (b"x-request-id", story.request_id)
        exchange.reply(ResponseHead(status, reason, (*fields, own), len(body)), body, close=close)

    def _refuse(self, exchange: Exchange, error: errors.GatewayError, story: "_Story") -> None:
        """Answer with an error as OpenAI clients know it."""
        story.code = error.code
        fields: list[tuple[bytes, bytes]] = [(b"content-type", b"application/json")]
        if story.plan is not None:
            fields.append((b"x-beamlit-reason", story.plan.reason.encode()))
        if story.backend is not None:
            fields.append((b"x-beamlit-backend", story.backend.backend.id.encode()))
        if error.status == 405:
            fields.append((b"allow", http1.ALLOW))
        if error.retry_after is not None:
            fields.append((b"retry-after", str(error.retry_after).encode()))
        body = errors.body(error, story.request_id.decode())
        phrase = HTTPStatus(error.status).phrase.encode("ascii")
        self._answer(exchange, story, error.status, phrase, tuple(fields), body, close=error.close)

    def _finish(self, exchange: Exchange, story: "_Story") -> None:
        """Count the request and log it."""
        now = time.perf_counter()
        plan, backend = story.plan, story.backend
        if plan is None:
            self._metrics.refused.labels(story.code or "none").inc()
        else:
            plan.runtime.in_flight -= 1
            plan.series(backend.backend.id if backend and not story.code else "none").observe(
                story.status, now - story.started, story.first_byte - story.started if story.first_byte else None
            )
        if self._access_log.enabled:
            head = exchange.head
            self._access_log.write(
                {
                    "event": "request",
                    "time": story.at,
                    "request_id": story.request_id.decode(),
                    "peer": exchange.peer,
                    "method": head.method[:32].decode("latin-1"),
                    "path": head.target.partition(b"?")[0][:_LOGGED].decode("latin-1"),
                    "host": head.host[:_LOGGED],
                    "route": plan.route.key if plan else None,
                    "backend": backend.backend.id if backend else None,
                    "reason": plan.reason if plan else None,
                    "status": story.status,
                    "code": story.code,
                    "broken": story.broken,
                    "seconds": round(now - story.started, 6),
                    "first_byte_seconds": round(story.first_byte - story.started, 6) if story.first_byte else None,
                }
            )

    def _request_id(self, head: RequestHead) -> bytes:
        given = field(head.fields, b"x-request-id")
        if given is not None and _REQUEST_ID.fullmatch(given):
            return given
        return self._new_id()


def _backend_plan(route: Route, backend: Backend, settings: Settings) -> _BackendPlan:
    """Where a backend is, by the one of its three forms it has."""
    document, tls = route.document, backend.tls
    timeouts = settings.gateway.timeouts
    local = backend.service is not None
    connect = timeouts.local_connect_seconds if local else timeouts.connect_seconds
    headers = backend.headers
    scheme = backend.scheme
    port = backend.port
    authenticated = backend.credentials is not None or bool(headers.set_from)
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
    return _BackendPlan(
        backend=backend,
        origin=upstream.Origin(host, port, scheme, tls.server_name, tls.ca_bundle, trusted=local or backend.default),
        target=forwarding.Target.of(
            name if port == standard else f"{name}:{port}", local=local, prefix=backend.path_prefix, headers=headers
        ),
        timeouts=upstream.Timeouts(
            connect=document.timeouts.connect or connect,
            first_byte=document.timeouts.first_byte or timeouts.first_byte_seconds,
            idle=document.timeouts.idle or timeouts.idle_seconds,
        ),
        answers=(
            (b"x-beamlit-backend", backend.id.encode()),
            (b"x-beamlit-reason", document.split.reason.encode()),
        ),
        authenticated=authenticated,
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


def _is_json(head: RequestHead) -> bool:
    kind = field(head.fields, b"content-type")
    return kind is None or b"json" in kind.lower() or kind.lower().startswith(b"application/x-www-form-urlencoded")


def _model(name: str, route: Route) -> dict[str, object]:
    try:
        created = int(datetime.fromisoformat(route.created).timestamp())
    except ValueError:
        created = 0
    return {"id": name, "object": "model", "created": created, "owned_by": route.namespace}
