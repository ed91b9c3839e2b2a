"""Admin port of the gateway: readiness, metrics, the routes in force and the last requests.

It is an app of its own on a port of its own, on loopback by default. It shows no secret, and changes nothing: all that
can be asked of it is a drill with a completion of one token, now and then.
"""

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import chain
from typing import Annotated, Any, Final, Protocol

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse

from gateway.api.v1alpha1 import Backend
from gateway.api.vocabulary import Endpoints
from gateway.backends.breaker import BreakerState, CircuitBreaker
from gateway.backends.endpoints import EndpointTable
from gateway.backends.stream_slots import StreamSlots
from gateway.journal import Journal
from gateway.page.serving import StatusPage
from gateway.routes.store import DocumentState, RouteStore
from gateway.telemetry import Metrics
from program import web
from program.authority import authority
from program.pages import Pages

_BREAKER: Final = {BreakerState.CLOSED: "closed", BreakerState.HALF_OPEN: "halfOpen", BreakerState.OPEN: "open"}

_UNUSED: Final = {"breaker": "closed", "coolDownSeconds": 0.0}
"""State of what has had no request yet."""
_JSON: Final = "application/json"
_MOST_DECISIONS: Final = 100000
_PARAMETERS: Final = (
    f"limit must be a whole number from 1 to {_MOST_DECISIONS}, and route a namespace and a name: ?route=default/demo"
)
_DRILL_PARAMETERS: Final = "namespace and name must be those of a ModelDeployment: ?namespace=default&name=demo"
_NOT_JSON: Final = "content-type must be application/json, which no website can have a browser send here"


class DrillResults(Protocol):
    """Last results of the drills at remote backends."""

    gateway: str
    """Name of this gateway."""

    def of(self, route: str, backend: str) -> dict[str, Any] | None:
        """Return the result at a remote backend of a route `namespace/name`; None for another backend."""
        ...

    def listed(self, namespace: str | None = None, name: str | None = None) -> Iterator[dict[str, Any]]:
        """Yield the results at all remote backends, or at those of a namespace, or of models of a name."""
        ...

    async def by_hand(self, namespace: str, name: str) -> list[dict[str, Any]]:
        """Send a completion of one token to each remote backend of a model; return what that found as JSON."""
        ...


def create_app(
    store: RouteStore,
    metrics: Metrics,
    journal: Journal,
    *,
    draining: Callable[[], bool],
    endpoints: EndpointTable | None = None,
    stopped: asyncio.Event | None = None,
    drills: DrillResults | None = None,
    access: bool = False,
) -> FastAPI:
    """Create the admin app.

    Args:
        store: Routes to show.
        metrics: Metrics to expose.
        journal: Records of the last requests.
        draining: Returns whether the process has been asked to stop.
        endpoints: Pods of Services; None where requests are sent to the names of Services.
        stopped: Event that ends responses without an end, because the port closes.
        drills: Last results of the drills; None without any.
        access: Whether requests need a credential of the installation.
    """
    rendering = Pages()
    app = web.operations_app(
        "Beamlit gateway: admin",
        not_ready=lambda: store.why_not_ready(draining=draining()),
        registry=metrics.registry,
        rendering=rendering,
    )

    @app.exception_handler(RequestValidationError)
    async def refused(request: Request, _exc: RequestValidationError) -> JSONResponse:
        """Say what the parameters of a query may be, which only /decisions and /drills have."""
        allowed = _DRILL_PARAMETERS if request.url.path == "/drills" else _PARAMETERS
        return JSONResponse({"error": allowed}, status_code=422)

    @app.get("/routes")
    async def routes(request: Request) -> Response:
        """Return the routes in force with their source and age, and the errors of documents that are not in force."""
        return await rendering.respond(request, routes_page(store, endpoints, drills), _JSON)

    @app.get("/drills")
    async def drill_results(
        request: Request,
        namespace: Annotated[str | None, Query(max_length=253)] = None,
        name: Annotated[str | None, Query(max_length=253)] = None,
    ) -> Response:
        """Return what this gateway's drills found at remote backends: at all, or at those of one model."""
        gateway = b"null" if drills is None else orjson.dumps(drills.gateway)
        found = _listed(() if drills is None else drills.listed(namespace, name))
        return await rendering.respond(
            request, chain((b'{"gateway":' + gateway + b',"drills":[',), found, (b"]}",)), _JSON
        )

    @app.post("/drills")
    async def drill_by_hand(
        request: Request,
        namespace: Annotated[str, Query(max_length=253)],
        name: Annotated[str, Query(max_length=253)],
    ) -> JSONResponse:
        """Send a completion of one token to the remote backends of a model, and return what that found."""
        if request.headers.get("content-type") != _JSON:
            return JSONResponse({"error": _NOT_JSON}, status_code=415)
        found = [] if drills is None else await drills.by_hand(namespace, name)
        if not found:
            words = f"this gateway knows no remote backend of a model {namespace}/{name}"
            return JSONResponse({"error": words}, status_code=404)
        return JSONResponse({"gateway": None if drills is None else drills.gateway, "drills": found})

    @app.get("/decisions")
    async def decisions(
        request: Request,
        route: Annotated[str | None, Query(max_length=512)] = None,
        limit: Annotated[int, Query(ge=1, le=_MOST_DECISIONS)] = 100,
    ) -> Response:
        """Return the last requests, the newest first: of all routes, or of the route `namespace/name`."""
        found = _listed(journal.decisions(route=route, limit=limit))
        return await rendering.respond(request, chain((b'{"decisions":[',), found, (b"]}",)), _JSON)

    StatusPage(
        store,
        journal,
        describe=lambda document: _route(store, document, endpoints, drills),
        why_not_ready=lambda: store.why_not_ready(draining=draining()),
        endpoints=endpoints,
        rendering=rendering,
        stopped=stopped or asyncio.Event(),
        access=access,
    ).add_to(app)
    return app


def routes_page(
    store: RouteStore, endpoints: EndpointTable | None = None, drills: DrillResults | None = None
) -> Iterator[bytes]:
    """Yield the state of the routing table as JSON, in small pieces."""
    state = {
        "loaded": store.loaded.is_set(),
        "generation": store.generation,
        "refreshedAt": _timestamp(store.refreshed_at),
        "ageSeconds": _age_seconds(store),
    }
    yield orjson.dumps(state)[:-1] + b',"routes":['
    yield from _listed(_routes(store, endpoints, drills))
    yield b'],"conflicts":['
    yield from _listed({"claim": one.claim, "winner": one.winner, "loser": one.loser} for one in store.table.conflicts)
    yield b'],"sourceErrors":' + orjson.dumps(dict(store.source_errors))
    if endpoints is not None:
        yield b',"endpointErrors":' + orjson.dumps(endpoints.errors)
        yield b',"endpointsLeftOut":' + orjson.dumps(endpoints.left_out)
    yield b"}"


def _listed(entries: Iterable[dict[str, Any]]) -> Iterator[bytes]:
    """Yield the entries of a list as JSON, each in a piece of its own."""
    comma = b""
    for entry in entries:
        yield comma + orjson.dumps(entry)
        comma = b","


def _routes(
    store: RouteStore, endpoints: EndpointTable | None = None, drills: DrillResults | None = None
) -> Iterator[dict[str, Any]]:
    return (_route(store, one, endpoints, drills) for _, one in sorted(store.documents.items()))


def _age_seconds(store: RouteStore) -> float | None:
    return round(max(0.0, time.time() - store.refreshed_at), 1) if store.refreshed_at else None


def _route(
    store: RouteStore,
    document: DocumentState,
    endpoints: EndpointTable | None = None,
    drills: DrillResults | None = None,
) -> dict[str, Any]:
    good = document.good
    in_force, error = _standing(store, document)
    key = f"{document.config_map.namespace}/{good.name}" if good is not None and in_force else ""
    return {
        "namespace": document.config_map.namespace,
        "configMap": document.config_map.name,
        "origin": document.config_map.origin,
        "error": error,
        "unknownFields": document.unknown_fields,
        "since": _timestamp(document.applied_at),
        "inForce": in_force,
        "name": good.name if good else None,
        "hash": good.hash if good else None,
        "reason": good.split.reason if good else None,
        "backends": [
            {
                "id": backend.id,
                "weight": backend.weight,
                "use": [use.value for use in backend.use],
                "place": _place(backend),
                **_backend_state(store, key, backend, endpoints),
                **_drill(drills, key, backend.id),
            }
            for backend in (good.backends if good else ())
        ],
    }


def _place(backend: Backend) -> str:
    """Return where a backend is: the name of its Service, or its host, with its port where the document has one."""
    if backend.service is not None:
        return backend.service
    if backend.host is None:
        return "default remote backend"
    return authority(backend.host, backend.port)


def _standing(store: RouteStore, document: DocumentState) -> tuple[bool, str | None]:
    """Return whether a route is made of a document, and why not; or why the version last read is not in force."""
    good = document.good
    if good is None:
        return False, document.error
    namespace = document.config_map.namespace
    route = store.table.routes.get(f"{namespace}/{good.name}")
    if route is not None and route.document is good:
        return True, document.error
    if document.error is not None:
        return False, document.error
    if route is None:
        return False, f"this gateway does not serve the namespace {namespace}"
    return False, (
        f"ConfigMap {namespace}/{route.config_map} has a document of the name {good.name}, too, and comes first: it is"
        " older, or of the same age and before this one in the alphabet"
    )


def _drill(drills: DrillResults | None, key: str, backend: str) -> dict[str, Any]:
    """Return what the drills found at a backend as JSON; nothing at one that is not tried."""
    result = None if drills is None else drills.of(key, backend)
    return {} if result is None else {"drill": result}


def _backend_state(store: RouteStore, key: str, backend: Backend, endpoints: EndpointTable | None) -> dict[str, Any]:
    """Return the runtime state of a backend in this gateway as JSON; that of a new one before its first request."""
    runtime = store.find_runtime(key)
    state = runtime.backends.get(backend.id) if runtime is not None else None
    if state is None:
        return {**_UNUSED, "healthy": True, "inFlight": 0, "queued": 0, **_unused_pods(store, key, backend, endpoints)}
    now = time.perf_counter()
    streams = state.streams
    result = {
        **_breaker_state(state.breaker, now),
        "healthy": state.breaker.healthy,
        "inFlight": state.concurrency.taken,
        "queued": state.concurrency.waiting + (0 if streams is None else streams.queue.waiting),
    }
    if streams is not None:
        result["streams"] = _stream_limit(streams, now)
    if state.pods is not None:
        result["pods"] = [
            {"name": pod.name, "inFlight": pod.in_flight, **_breaker_state(pod.breaker, now)} for pod in state.pods.pods
        ]
    return result


def _unused_pods(store: RouteStore, key: str, backend: Backend, endpoints: EndpointTable | None) -> dict[str, Any]:
    """Return the pods to which requests for a backend would go as JSON; nothing where they go to the Service's name."""
    if endpoints is None or backend.service is None or backend.endpoints is not Endpoints.PODS:
        return {}
    namespace = key.partition("/")[0]
    port = backend.port or (443 if backend.scheme == "https" else 80)
    pods = endpoints.pods(namespace, backend.service, store.host_of(namespace, backend.service), port)
    return {} if pods is None else {"pods": [{"name": pod.name, "inFlight": 0, **_UNUSED} for pod in pods]}


def _stream_limit(slots: StreamSlots, now: float) -> dict[str, Any]:
    """Return the limit of streams at a backend as JSON, and why it moved last."""
    limit, move = slots.limit, slots.limit.last
    last = None
    if move is not None:
        last = {
            "secondsAgo": round(now - move.at, 1),
            "from": move.before,
            "to": move.after,
            "reason": "late" if move.after < move.before else "inTime",
            "message": f"{move.late} of {move.events} first events were late.",
        }
    return {
        "firstTokenSeconds": limit.target,
        "limit": limit.limit,
        "ceiling": limit.ceiling,
        "inFlight": slots.queue.taken,
        "cuts": limit.cuts,
        "raises": limit.raises,
        "last": last,
    }


def _breaker_state(breaker: CircuitBreaker, now: float) -> dict[str, Any]:
    """Return the state of a circuit breaker and the rest of its cool-down as JSON."""
    return {
        "breaker": _BREAKER[breaker.state(now)],
        "coolDownSeconds": round(max(0.0, breaker.cool_until - now), 1),
    }


def _timestamp(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
