"""Drills: each remote backend is tried now and then, so that a mistake is found before requests need the backend.

A drill looks up the name, connects, checks the certificate and gets a token; where the route asks for it, it sends a
request, too. It uses the same connections, address checks, TLS and credentials as requests. It never changes a split, a
circuit breaker or the readiness of the gateway. Each backend has one drill at a time, each route and each namespace so
many, so that servers that do not respond make those of others wait for nothing.
"""

import asyncio
import hashlib
import random
import socket
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from itertools import islice
from typing import Any, Final

import orjson
import structlog

from gateway import errors
from gateway.api.v1alpha1 import Backend
from gateway.api.vocabulary import DrillRequest
from gateway.backends import failover
from gateway.backends.runtime import BackendRuntime
from gateway.credentials.cache import Credentials, Identity
from gateway.destination import Destination, find_destination
from gateway.drill import findings
from gateway.drill.findings import Finding, Place, Reason
from gateway.drill.peers import Peers
from gateway.drill.record import UNTRIED, DrillRecord
from gateway.http import forwarding
from gateway.http.exchange import RequestHead, ResponseHead, field
from gateway.routes.store import RouteStore
from gateway.routes.table import Route
from gateway.settings import Settings
from gateway.upstream.connection import Upstream
from gateway.upstream.origin import Timeouts
from gateway.upstream.response import UpstreamResponse
from program import retry_after
from program.authority import authority

AT_ONCE: Final = 4
"""Drills of one route that run at the same time."""
NAMESPACE_AT_ONCE: Final = 32
"""Drills of one namespace that run at the same time."""
LEAST_SECONDS: Final = 10.0
"""Shortest interval between two drills at one backend, whatever a route asks for."""
ROUTES_AT_A_TIME: Final = 64
"""Changed routes that are followed in one turn of the loop, which takes less than a millisecond."""
SPREAD_SECONDS: Final = 0.02
"""Seconds between two drills, on average, where many backends are new at the same time."""
CONNECT_SECONDS: Final = 10.0
"""Seconds of the longest time to connect."""
RESPONSE_SECONDS: Final = 10.0
"""Seconds that a list of models may take."""
COMPLETION_SECONDS: Final = 60.0
"""Seconds that a completion of one token may take."""
MARGIN_SECONDS: Final = 20.0
"""Seconds that a drill may take besides its request: to read Secrets, to get a token and to connect."""
RETRY_SECONDS: Final = 10.0
"""Seconds after the first failure until the next drill; twice as long after each further one, up to the interval."""
_BUSY_SECONDS: Final = 1.0
"""Seconds after which a drill is tried again whose route or namespace has as many as it may."""
WATCH_SECONDS: Final = 30.0
"""Seconds in which all objects that hold credentials are read once, to notice a change."""
WATCH_PAUSE_SECONDS: Final = 0.2
"""Seconds between two such reads at least, so that many objects put little load on the API server."""
TOKEN_PAUSE_SECONDS: Final = 4.0
"""Seconds after a failure to get a token until another one is asked for: the caches of tokens pause for no longer."""
SECRET_PAUSE_SECONDS: Final = 1.5
"""Seconds after a refused key until its Secret is read again: the cache of Secrets pauses for no longer."""
BY_HAND_SECONDS: Final = 10.0
"""Seconds between two completions at one backend that a person has asked for."""
_LARGEST_DOUBLING: Final = 20
_BODY_BYTES: Final = 65536
"""Bytes of a response to a completion that are read."""
_SERVER_FIELDS: Final = tuple(
    name
    for name in Backend.model_fields
    if name not in ("weight", "use", "health", "in_flight", "first_token_target", "price", "prompt_price")
)
"""Fields of a backend on which the result of a drill may depend."""
_OFF: Final = Finding(Reason.NOT_TRIED, "Drills are off: set gateway.drill.intervalSeconds to a number above 0.")
_COOLS_DOWN: Final = Finding(Reason.NOT_TRIED, "The remote backend has asked for a pause, and is tried after it.")
_BUSY: Final = Finding(Reason.NOT_TRIED, "Other drills run at the moment, so nothing was sent: ask again.")
_JUST_ASKED: Final = Finding(
    Reason.NOT_TRIED, f"A completion was sent less than {BY_HAND_SECONDS:g} seconds ago, so none was sent now."
)
_AT_A_LIMIT: Final = Finding(Reason.NOT_TRIED, "The gateway is at a limit of its own, so nothing was sent.")

log = structlog.get_logger(__name__)


class _Entry:
    """One remote backend of a route, and when it is tried."""

    __slots__ = ("asked", "asked_at", "backend", "ended", "handle", "identity", "interval", "number", "pause_until",
                 "record", "refused_at", "renews", "request", "route", "since", "succeeded_at", "task", "tells",
                 "token_seconds")  # fmt: skip

    def __init__(
        self, route: Route, backend: Backend, identity: object, interval: float, request: DrillRequest
    ) -> None:
        self.route = route
        self.backend = backend
        self.identity = identity
        """All that the result of a drill may depend on."""
        self.interval = interval
        """Seconds between two drills; 0 where there are none."""
        self.request = request
        self.since = time.perf_counter()
        """Time from which on successes of requests count."""
        self.succeeded_at = self.refused_at = self.since
        """Times of the last success of a request, and of the last refusal of one, that were counted."""
        self.record = DrillRecord(UNTRIED if interval else _OFF)
        self.number = 0
        """Number of drills so far."""
        self.tells = False
        """Whether the drill that runs, or ran last, shows that the credentials are accepted, or has new ones."""
        self.asked = DrillRequest.NONE
        """Request of that drill that was served or refused; a response that says neither, such as 404, is as none."""
        self.token_seconds: float | None = None
        """Seconds that the completion of that drill took; None where it has served none."""
        self.pause_until = float("-inf")
        """Time until which a response to a drill has asked for a pause."""
        self.asked_at = float("-inf")
        """Time at which a person last asked for a completion."""
        self.ended = float("-inf")
        """Time at which the last drill ended."""
        self.renews = False
        """Whether the next drill reads the credentials again and gets a new token: they have changed."""
        self.handle: asyncio.TimerHandle | None = None
        self.task: asyncio.Task[Finding | None] | None = None

    def stop(self) -> None:
        """End the drill that runs, and have no other."""
        if self.handle is not None:
            self.handle.cancel()
        if self.task is not None:
            self.task.cancel()


class Drills:
    """Drills at the remote backends of all routes."""

    def __init__(self, settings: Settings, store: RouteStore, upstream: Upstream, credentials: Credentials) -> None:
        self.gateway = socket.gethostname()
        """Name of this gateway: in a cluster, that of its pod."""
        self._peers = Peers(settings.gateway.drill.peers, self.gateway)
        self._settings = settings
        self._store = store
        self._upstream = upstream
        self._credentials = credentials
        self._entries: dict[str, dict[str, _Entry]] = {}
        """Remote backends by route and id."""
        self._documents: dict[str, object] = {}
        """Documents that are in force, by route."""
        self._changed: dict[str, Route] = {}
        """Routes whose documents have changed and are not followed yet."""
        self._turn: asyncio.Handle | None = None
        """Turn of the loop in which some of these are followed."""
        self._spread = 0.0
        """Seconds over which the first drills of these are spread."""
        self._watch: asyncio.Task[None] | None = None
        self._fingerprints: dict[Identity, bytes] = {}
        """Fingerprints of what holds credentials."""
        self._running: dict[str, int] = {}
        """Drills that run, by route and by namespace."""

    def apply(self, routes: Mapping[str, Route]) -> None:
        """Try the remote backends of `routes` from now on, and no others; those that are new or changed at once.

        What is known of the others stays.
        """
        for key in self._documents.keys() - routes.keys():
            del self._documents[key]
            self._changed.pop(key, None)
            for entry in self._entries.pop(key, {}).values():
                entry.stop()
        for key, route in routes.items():
            if self._documents.get(key) is not route.document:
                self._documents[key] = route.document
                self._changed[key] = route
        self._spread = SPREAD_SECONDS * len(self._changed)
        if self._turn is None:
            self._take_changed()

    def _take_changed(self) -> None:
        """Follow some of the routes that have changed, and the others in later turns of the loop."""
        self._turn = None
        loop = asyncio.get_running_loop()
        for key in list(islice(self._changed, ROUTES_AT_A_TIME)):
            for entry in self._follow(self._changed.pop(key)):
                self._schedule(entry, min(entry.interval, self._spread) * random.random())  # noqa: S311 - no secret
                if self._watch is None:
                    self._watch = loop.create_task(self._watch_credentials())
        if self._changed:
            self._turn = loop.call_soon(self._take_changed)

    def close(self) -> None:
        """End all drills."""
        if self._turn is not None:
            self._turn.cancel()
        if self._watch is not None:
            self._watch.cancel()
        for entry in self._all():
            entry.stop()
        self._entries.clear()
        self._documents.clear()

    def of(self, route: str, backend: str) -> dict[str, Any] | None:
        """Return the last result at a remote backend of a route `namespace/name` as JSON; None for another backend."""
        entry = self._entries.get(route, {}).get(backend)
        return None if entry is None else self._result(entry)

    def listed(self, namespace: str | None = None, name: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the last results at all remote backends as JSON, or at those of a namespace, or of models of a name."""
        for entry in self._all():
            route = entry.route
            if namespace in (None, route.namespace) and name in (None, route.name):
                place = {"namespace": route.namespace, "name": route.name, "backend": entry.backend.id}
                # A route document does not say of which generation it is.
                yield {**place, **self._result(entry), "generation": None}

    def records(self) -> Iterator[tuple[tuple[str, str, str], DrillRecord]]:
        """Yield the records of all remote backends with namespace, model and backend."""
        for entry in self._all():
            self._count_traffic(entry)
            yield (entry.route.namespace, entry.route.name, entry.backend.id), entry.record

    def _all(self) -> list[_Entry]:
        return [entry for entries in self._entries.values() for entry in entries.values()]

    def _result(self, entry: _Entry) -> dict[str, Any]:
        self._count_traffic(entry)
        record = entry.record
        return {
            "reason": record.reason.value,
            "message": record.finding.message,
            "observedTime": _timestamp(record.observed_at),
            "consecutiveFailures": record.failures,
            "lastSuccessTime": _timestamp(record.success_at),
            "by": record.by,
            "request": record.request,
            "lastServedTime": _timestamp(record.served_at),
            "completion": None
            if record.token_seconds is None
            else {"seconds": round(record.token_seconds, 6), "time": _timestamp(record.token_at)},
        }

    def _follow(self, route: Route) -> list[_Entry]:
        """Follow the remote backends of a new or changed document; return those that are to be tried at once."""
        document = route.document
        before = self._entries.pop(route.key, {})
        entries: dict[str, _Entry] = {}
        fresh: list[_Entry] = []
        drill, settings = document.drill, self._settings.gateway.drill
        interval = settings.interval_seconds if drill.interval is None else drill.interval
        interval = max(interval, LEAST_SECONDS) if interval else 0.0
        request = settings.request if drill.request is None else drill.request
        for backend in document.backends:
            if backend.service is not None:
                continue
            server = tuple(getattr(backend, name) for name in _SERVER_FIELDS)
            identity = server, document.timeouts.connect, document.client_model, document.models, interval, request
            entry = before.get(backend.id)
            if entry is not None and entry.identity == identity:
                del before[backend.id]
                entry.route, entry.backend = route, backend
            else:
                older = entry
                entry = _Entry(route, backend, identity, interval, request)
                if older is not None:
                    entry.record.counts = older.record.counts
                    if _server(older.backend) == _server(backend):
                        entry.pause_until = older.pause_until
                fresh.append(entry)
            entries[backend.id] = entry
        for entry in before.values():
            entry.stop()
        if entries:
            self._entries[route.key] = entries
        return fresh

    def _schedule(self, entry: _Entry, seconds: float) -> None:
        if entry.interval:
            entry.handle = asyncio.get_running_loop().call_later(seconds, self._due, entry)

    def _due(self, entry: _Entry) -> None:
        """Start a drill, unless a request has just succeeded, the backend cools down, or too many run."""
        entry.handle = None
        now = time.perf_counter()
        state = self._state(entry)
        at = float("-inf") if state is None else state.traffic.succeeded_at
        self._count_traffic(entry)
        if entry.since < at and now < at + entry.interval and not entry.record.failing and not entry.renews:
            self._schedule(entry, at + entry.interval - now)
            return
        cool_until = self._cool_until(entry)
        if now < cool_until:
            if entry.record.reason is Reason.NOT_TRIED:
                entry.record.finding = _COOLS_DOWN
            self._schedule(entry, cool_until - now + random.random())  # noqa: S311
            return
        if self._start(entry) is None:
            self._schedule(entry, _BUSY_SECONDS * (0.5 + random.random()))  # noqa: S311

    def _cool_until(self, entry: _Entry) -> float:
        """Return the time until which a backend has asked for a pause, in a response to a request or to a drill."""
        state = self._state(entry)
        return entry.pause_until if state is None else max(state.breaker.cool_until, entry.pause_until)

    def _start(self, entry: _Entry, request: DrillRequest | None = None) -> "asyncio.Task[Finding | None] | None":
        """Start a drill, with a request that a person asks for or else its own; return None where too many run."""
        route = entry.route
        slots = (route.key, AT_ONCE), (route.namespace, NAMESPACE_AT_ONCE)
        if any(self._running.get(key, 0) >= most for key, most in slots):
            return None
        for key, _ in slots:
            self._running[key] = self._running.get(key, 0) + 1
        task = entry.task = asyncio.get_running_loop().create_task(self._run(entry, request))
        task.add_done_callback(partial(self._leave, [key for key, _ in slots]))
        return task

    async def by_hand(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """Send a completion of one token to each remote backend of a model now; return what that found as JSON.

        It is a drill like others, also where the route has none: then nothing but this response has what it found.
        Nothing is sent during a cool-down, nor twice within a few seconds.
        """
        entries = list(self._entries.get(f"{namespace}/{name}", {}).values())
        found = await asyncio.gather(*(self._ask(entry) for entry in entries))
        return [
            {
                "namespace": namespace,
                "name": name,
                "backend": entry.backend.id,
                "reason": finding.reason.value,
                "message": finding.message,
                "seconds": None if seconds is None else round(seconds, 6),
            }
            for entry, (finding, seconds) in zip(entries, found, strict=True)
        ]

    async def _ask(self, entry: _Entry) -> tuple[Finding, float | None]:
        """Send a completion now; return what that found, and the seconds that it took where it was served."""
        now = time.perf_counter()
        if now < entry.asked_at + BY_HAND_SECONDS:
            return _JUST_ASKED, None
        if now < self._cool_until(entry):
            return _COOLS_DOWN, None
        task = None if entry.task is not None else self._start(entry, DrillRequest.COMPLETION)
        if task is None:
            return _BUSY, None
        entry.asked_at = now
        if entry.handle is not None:
            entry.handle.cancel()
            entry.handle = None
        await asyncio.wait({task})  # the drill of the route, which ends with it and not with who asks
        if task.cancelled():  # the route has changed meanwhile
            return _BUSY, None
        finding = task.result()
        return (_AT_A_LIMIT, None) if finding is None else (finding, entry.token_seconds)

    def _leave(self, slots: list[str], _: asyncio.Task[None]) -> None:
        """Give back what a drill has taken, also of one that was canceled before its first step."""
        for key in slots:
            self._running[key] -= 1
            if not self._running[key]:
                del self._running[key]

    async def _run(self, entry: _Entry, request: DrillRequest | None) -> Finding | None:
        """Try a remote backend once, note the result and have the next drill later; return the result.

        There is none where the gateway is at a limit of its own.
        """
        finding: Finding | None = None
        try:
            finding = await self._drill(entry, await self._request(entry) if request is None else request)
        except errors.GatewayError:
            pass  # the gateway is at a limit of its own, which says nothing about the backend
        except Exception:
            log.exception("drill_broken", route=entry.route.key, backend=entry.backend.id)
        finally:
            entry.task = None
            entry.ended = time.perf_counter()
        if self._entries.get(entry.route.key, {}).get(entry.backend.id) is not entry or not entry.interval:
            return finding
        if request is None:
            entry.number += 1
        if finding is not None:
            self._note(entry, finding)
        record = entry.record
        seconds = entry.interval
        if entry.renews:  # changed meanwhile
            seconds = _pause(entry)
        elif record.failing or finding is None:
            doublings = min(max(record.failures - 1, 0), _LARGEST_DOUBLING)
            seconds = min(seconds, RETRY_SECONDS * 2**doublings)
        self._schedule(entry, seconds * (0.9 + 0.2 * random.random()))  # noqa: S311
        return finding

    async def _watch_credentials(self) -> None:
        """Read what holds credentials again and again, and try at once the backends whose credentials have changed."""
        while True:
            users: dict[Identity, list[_Entry]] = {}
            for entry in self._all():
                if entry.interval:
                    for source in self._credentials.sources(entry.route, entry.backend):
                        users.setdefault(source, []).append(entry)
            self._fingerprints = {key: one for key, one in self._fingerprints.items() if key in users}
            pause = max(WATCH_PAUSE_SECONDS, WATCH_SECONDS / max(1, len(users)))
            for source, entries in users.items():
                await asyncio.sleep(pause * (0.5 + random.random()))  # noqa: S311
                try:
                    if await self._has_changed(source):
                        self._renew(entries)
                except Exception:  # one object must not end the watch of all others
                    log.exception("credentials_unwatched", kind=source[0], namespace=source[1], name=source[2])
            if not users:
                await asyncio.sleep(pause)

    async def _has_changed(self, source: Identity) -> bool:
        """Return whether a source of credentials is another than when it was read before."""
        fingerprint = await self._credentials.fingerprint(source)
        if fingerprint is None:
            return False
        before = self._fingerprints.get(source)
        self._fingerprints[source] = fingerprint
        return before is not None and before != fingerprint

    def _renew(self, entries: list[_Entry]) -> None:
        """Try backends at once, with their credentials as they are now."""
        for entry in entries:
            if self._entries.get(entry.route.key, {}).get(entry.backend.id) is entry:
                entry.renews = True
                entry.record.served_at = None  # with other credentials than those of now
                if entry.handle is not None:  # else a drill runs, which is followed by another one
                    entry.handle.cancel()
                    spread = SPREAD_SECONDS * len(entries) * random.random()  # noqa: S311
                    self._schedule(entry, max(spread, _pause(entry)))

    def _note(self, entry: _Entry, finding: Finding) -> None:
        """Note a result, and log it where it is another one than before."""
        self._count_traffic(entry)  # which came before the end of the drill
        record = entry.record
        was, failed = record.reason, record.failing
        record.note(
            finding,
            time.time(),
            request=entry.asked,
            tells_of_credentials=entry.tells,
            token_seconds=entry.token_seconds,
        )
        fields = {"route": entry.route.key, "backend": entry.backend.id}
        if record.failing and record.reason is not was:
            log.warning("drill_failed", **fields, reason=finding.reason.value, message=finding.message)
        elif failed and not record.failing:
            log.info("drill_succeeded", **fields)

    def _state(self, entry: _Entry) -> BackendRuntime | None:
        """Return what requests know of a backend; None where there was none."""
        runtime = self._store.find_runtime(entry.route.key)
        return None if runtime is None else runtime.backends.get(entry.backend.id)

    def _count_traffic(self, entry: _Entry) -> None:
        """Count what requests have found at a backend since it is followed."""
        state = self._state(entry)
        if state is None or not entry.interval:
            return
        now, clock = time.time(), time.perf_counter()
        traffic = state.traffic
        # Each of them counts once: after the clock was set, its time would be another one.
        if traffic.succeeded_at > entry.succeeded_at:
            entry.succeeded_at = traffic.succeeded_at
            entry.record.note_traffic(now - (clock - traffic.succeeded_at))
        if traffic.refused_at > max(entry.refused_at, traffic.succeeded_at):
            entry.refused_at = traffic.refused_at
            destination = find_destination(entry.route, entry.backend, self._settings)
            refusal = findings.refused_requests(_place(entry, destination))
            entry.record.note_refusal(refusal, now - (clock - traffic.refused_at))

    async def _drill(self, entry: _Entry, request: DrillRequest) -> Finding:
        """Try a remote backend once.

        Raises:
            errors.GatewayError: The gateway is at a limit of its own.
        """
        destination = find_destination(entry.route, entry.backend, self._settings)
        place = _place(entry, destination)
        entry.tells, entry.asked, entry.token_seconds = entry.renews, DrillRequest.NONE, None
        seconds = COMPLETION_SECONDS if request is DrillRequest.COMPLETION else RESPONSE_SECONDS
        connect = min(destination.connect, CONNECT_SECONDS)
        times = Timeouts(connect=connect, first_byte=seconds, idle=seconds)
        try:
            async with asyncio.timeout(seconds + MARGIN_SECONDS):
                return await self._try(entry, destination, place, request, times)
        except TimeoutError:
            late = errors.FirstByteTimeout()
            return findings.of_connection(late, place, seconds + MARGIN_SECONDS)
        except errors.CredentialsFailed as exc:
            return findings.of_credentials(exc, place)
        except errors.UpstreamError as exc:
            before = isinstance(exc, errors.ConnectTimeout)
            return findings.of_connection(exc, place, connect if before else seconds)

    async def _request(self, entry: _Entry) -> DrillRequest:
        """Return the request of the next drill: of several gateways one sends the completions.

        Where they do not know each other, each sends one with every so many drills. After a completion that failed each
        drill has one, so that the failure ends as soon as it is over.
        """
        if entry.request is not DrillRequest.COMPLETION:
            return entry.request
        if entry.record.failing and entry.record.request in (DrillRequest.COMPLETION, "client"):
            return entry.request
        is_chosen = await self._peers.choose_this(f"{entry.route.key}/{entry.backend.id}")
        if is_chosen is not None:
            return DrillRequest.COMPLETION if is_chosen else DrillRequest.NONE
        replicas = self._settings.gateway.drill.replicas
        if replicas == 1 or entry.record.failing:
            return entry.request
        name = f"{self.gateway}\0{entry.route.key}\0{entry.backend.id}".encode()
        turn = int.from_bytes(hashlib.sha256(name).digest()[:8]) % replicas
        return DrillRequest.COMPLETION if entry.number % replicas == turn else DrillRequest.NONE

    async def _try(
        self, entry: _Entry, destination: Destination, place: Place, request: DrillRequest, times: Timeouts
    ) -> Finding:
        """Connect, get the credentials, and send the request where there is one.

        Raises:
            errors.GatewayError: Something of that has failed.
        """
        route, backend, origin = entry.route, entry.backend, destination.origin
        for source in self._credentials.sources(route, backend) - self._fingerprints.keys():
            await self._has_changed(source)
        # Until a new token can be had, an older one proves nothing: the one that counts could not be fetched.
        renews, entry.renews = entry.renews or entry.record.finding.of_token, False
        if destination.certified:
            certificate = await self._credentials.certificate(route, backend, refresh=renews)
            origin = origin._replace(certificate=certificate)
        if request is DrillRequest.NONE:
            await self._upstream.probe(origin, times.connect, owner=route.key)
        extra = await self._extra(entry, renews=renews)
        credentials = destination.authenticated or destination.certified or destination.target.sets_credentials
        also, accepted = "", False
        if request is not DrillRequest.NONE:
            name = backend.model or route.document.client_model
            head, body = _message(destination, request, name)

            async def send() -> UpstreamResponse:
                fields = _fields(destination.target, extra, bool(body))
                complete = head._replace(fields=fields)
                return await self._upstream.send(origin, complete, body, times, owner=route.key, fresh=True)

            began = time.perf_counter()
            response = await send()
            if response.head.status == 401 and destination.authenticated:
                response.abort()
                extra = await self._extra(entry, renews=True, refused=extra.get(b"authorization", b""))
                began = time.perf_counter()
                response = await send()
            limit = findings.LIST_BYTES if request is DrillRequest.MODELS else _BODY_BYTES
            content = await response.read(limit)
            status, entry.asked = response.head.status, request
            accepted = 200 <= status < 300
            entry.tells = entry.tells or accepted
            if accepted and request is DrillRequest.COMPLETION:
                entry.token_seconds = time.perf_counter() - began
            entry.pause_until = time.perf_counter() + self._pause_in(response.head)
            if status in (401, 402, 403):
                if credentials:
                    return findings.of_refusal(status, place)
                also = f"it responded with {status}, as the gateway has no credentials of its own for it"
            elif request is DrillRequest.MODELS:
                verdict = _models(status, content, entry, place)
                if isinstance(verdict, Finding):
                    return verdict
                also = verdict
            else:
                verdict = findings.of_completion(status, content, name, place)
                if isinstance(verdict, Finding):
                    return verdict
                also = verdict
            if not accepted:
                entry.asked = DrillRequest.NONE
        return findings.proven(
            encrypted=origin.scheme == "https",
            token=b"authorization" in extra and b"authorization" not in _key_names(backend),
            credentials=credentials,
            accepted=accepted,
            asked=request is not DrillRequest.NONE,
            also=also,
        )

    def _pause_in(self, head: ResponseHead) -> float:
        """Return the seconds for which a response asks to send nothing, as far as the settings allow; 0 for none."""
        if head.status not in failover.PAUSE_STATUSES:
            return 0.0
        value, milliseconds = field(head.fields, b"retry-after"), field(head.fields, b"retry-after-ms")
        asked = retry_after.asked(value, milliseconds, time.time()) or 0.0
        return min(asked, self._settings.gateway.retry.cool_down_seconds)

    async def _extra(self, entry: _Entry, *, renews: bool, refused: bytes = b"") -> dict[bytes, bytes]:
        """Return the fields with credentials, read and got anew where they have changed or were refused.

        Raises:
            errors.CredentialsFailed: There are none.
        """
        extra = await self._credentials.headers(entry.route, entry.backend, refresh=renews)
        token = await self._credentials.authorization(entry.route, entry.backend, refresh=refused or renews)
        if token is not None:
            extra[b"authorization"] = token
        return extra


def _place(entry: _Entry, destination: Destination) -> Place:
    """Return the remote backend in the words of a sentence."""
    origin = destination.origin
    return Place(authority(origin.host, origin.port), entry.backend.default)


def _server(backend: Backend) -> tuple[bool, str, str | None, int | None]:
    """Return where a remote backend is."""
    return backend.default, backend.scheme, backend.host, backend.port


def _key_names(backend: Backend) -> frozenset[bytes]:
    """Return the names of the fields whose values are in Secrets, in lower case."""
    return frozenset(name.lower().encode() for name in backend.headers.set_from)


def _pause(entry: _Entry) -> float:
    """Return the seconds until credentials can be had anew, after a drill that may have asked for new ones in vain."""
    if not entry.record.failing:
        return 0.0
    pause = TOKEN_PAUSE_SECONDS if entry.record.finding.of_token else SECRET_PAUSE_SECONDS
    return max(0.0, entry.ended + pause - time.perf_counter())


def _models(status: int, body: bytes, entry: _Entry, place: Place) -> Finding | str:
    """Return what the response to `GET /v1/models` means; a clause where it is a success, or tells nothing."""
    document, backend = entry.route.document, entry.backend
    if not 200 <= status < 300:
        return f"it responded with {status} to GET /v1/models, so it was not looked for the name of the model"
    names = [backend.model or document.client_model, *(one.remote_model or one.name for one in document.models)]
    result = findings.unknown_models(body, names)
    if isinstance(result, str):
        return result
    missing, listed = result
    if missing:
        return findings.model_unknown(missing, listed, place)
    return f"it lists {', '.join(names[:3])}" if len(names) < 4 else f"it lists all {len(names)} names of the model"


def _message(destination: Destination, request: DrillRequest, name: str) -> tuple[RequestHead, bytes]:
    """Return the head of the request of a drill, without its fields, and the body."""
    target, body = destination.target, b""
    method, path = b"GET", b"/models"
    if request is DrillRequest.COMPLETION:
        method, path = b"POST", b"/chat/completions"
        messages = [{"role": "user", "content": "Say ok."}]
        body = orjson.dumps({"model": name, "messages": messages, "max_tokens": 1})
    if not target.prefix.removesuffix(b"/").endswith(b"/v1"):
        path = b"/v1" + path
    head = RequestHead(
        method=method,
        target=forwarding.request_target(path, target.prefix),
        host=target.authority.decode(),
        authority=target.authority,
        fields=(),
        http_minor=1,
        content_length=len(body) if body else None,
        chunked=False,
    )
    return head, body


def _fields(target: forwarding.Target, extra: Mapping[bytes, bytes], has_body: bool) -> tuple[tuple[bytes, bytes], ...]:
    """Return the fields of the request of a drill: those that the route sets win over those of the gateway."""
    fields = {b"user-agent": b"beamlit-gateway", b"accept": b"application/json", b"accept-encoding": b"identity"}
    if has_body:
        fields[b"content-type"] = b"application/json"
    fields |= dict(target.set) | dict(target.add) | dict(extra)
    return ((b"host", target.authority), *fields.items())


def _timestamp(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
