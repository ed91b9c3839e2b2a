"""What an administrator asks: is it well, what is in force, and where from?

Its own app on its own port, loopback unless told otherwise. Nothing here changes anything or is secret.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from html import escape
from typing import Annotated, Any, Final

from fastapi import FastAPI, Query
from fastapi.responses import HTMLResponse

from gateway.backends.breaker import BreakerState
from gateway.journal import Journal
from gateway.routes.store import DocumentState, RouteStore
from gateway.telemetry import Metrics
from program import web

_BREAKER: Final = {BreakerState.CLOSED: "closed", BreakerState.HALF_OPEN: "halfOpen", BreakerState.OPEN: "open"}


def create_app(store: RouteStore, metrics: Metrics, journal: Journal, *, draining: Callable[[], bool]) -> FastAPI:
    """The admin app.

    Args:
        store: what is in force.
        metrics: what to expose.
        journal: what happened to the last requests.
        draining: whether the process has been told to stop.
    """

    def not_ready() -> str | None:
        if draining():
            return "draining"
        return None if store.loaded.is_set() else "routes are not loaded yet"

    app = web.operations_app("Beamlit gateway: admin", not_ready=not_ready, registry=metrics.registry)

    @app.get("/routes")
    async def routes() -> dict[str, Any]:
        """What is in force, where it is from, since when, and what is wrong with what is not."""
        return describe(store)

    @app.get("/decisions")
    async def decisions(
        route: Annotated[str | None, Query(max_length=512)] = None,
        limit: Annotated[int, Query(ge=1, le=100000)] = 100,
    ) -> dict[str, Any]:
        """What happened to the last requests, the newest first, as the access log says it; of one `namespace/name`."""
        return {"decisions": journal.decisions(route=route, limit=limit)}

    @app.get("/", response_class=HTMLResponse, include_in_schema=False)
    async def page() -> str:
        """The same for a browser."""
        return _page(describe(store))

    return app


def describe(store: RouteStore) -> dict[str, Any]:
    """The state of the routing table, as JSON."""
    return {
        "loaded": store.loaded.is_set(),
        "generation": store.generation,
        "refreshedAt": _timestamp(store.refreshed_at),
        "ageSeconds": round(max(0.0, time.time() - store.refreshed_at), 1) if store.refreshed_at else None,
        "routes": [_route(store, one) for _, one in sorted(store.documents.items())],
        "conflicts": [{"claim": one.claim, "winner": one.winner, "loser": one.loser} for one in store.table.conflicts],
        "sourceErrors": dict(store.source_errors),
    }


def _route(store: RouteStore, known: DocumentState) -> dict[str, Any]:
    good = known.good
    key = f"{known.config_map.namespace}/{good.name}" if good is not None else ""
    return {
        "namespace": known.config_map.namespace,
        "configMap": known.config_map.name,
        "origin": known.config_map.origin,
        "error": known.error,
        "unknownFields": known.unknown_fields,
        "since": _timestamp(known.applied_at),
        "inForce": good is not None and key in store.table.routes,
        "name": good.name if good else None,
        "hash": good.hash if good else None,
        "reason": good.split.reason if good else None,
        "backends": [
            {
                "id": backend.id,
                "weight": backend.weight,
                "use": [use.value for use in backend.use],
                "place": backend.service or backend.host or "default remote backend",
                **_condition(store, key, backend.id),
            }
            for backend in (good.backends if good else ())
        ],
    }


def _condition(store: RouteStore, key: str, backend: str) -> dict[str, Any]:
    """What speaks for and against a backend now, in this gateway."""
    runtime = store.known(key)
    known = runtime.backends.get(backend) if runtime is not None else None
    if known is None:
        return {"breaker": "closed", "coolDownSeconds": 0.0, "healthy": True, "inFlight": 0, "queued": 0}
    now = time.perf_counter()
    return {
        "breaker": _BREAKER[known.breaker.state(now)],
        "coolDownSeconds": round(max(0.0, known.breaker.cool_until - now), 1),
        "healthy": known.breaker.healthy,
        "inFlight": known.concurrency.taken,
        "queued": known.concurrency.waiting,
    }


def _timestamp(seconds: float) -> str | None:
    if not seconds:
        return None
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _age(state: dict[str, Any]) -> str:
    return "never" if state["refreshedAt"] is None else f"{state['refreshedAt']}, {state['ageSeconds']:.0f} s ago"


def _page(state: dict[str, Any]) -> str:
    rows = []
    for route in state["routes"]:
        split = ", ".join(f"{one['id']} {one['weight']} %" for one in route["backends"])
        cells = (
            route["namespace"],
            route["name"],
            split,
            route["reason"],
            route["since"],
            route["hash"],
            route["error"],
        )
        rows.append("<tr>" + "".join(f"<td>{escape(str(cell or ''))}</td>" for cell in cells) + "</tr>")
    problems = [f"{place}: {error}" for place, error in state["sourceErrors"].items()]
    problems += [f"{one['claim']}: {one['winner']} keeps it, {one['loser']} lost" for one in state["conflicts"]]
    listed = "".join(f"<li>{escape(problem)}</li>" for problem in problems)
    return (
        "<!doctype html><html lang=en><meta charset=utf-8><title>Beamlit gateway</title>"
        "<style>body{font:15px system-ui;margin:2rem}td,th{padding:.3rem .8rem;text-align:left;"
        "border-bottom:1px solid #ddd}</style><h1>Beamlit gateway</h1>"
        "<table><tr><th>Namespace<th>Model<th>Split<th>Reason<th>Since<th>Hash<th>Error</tr>"
        f"{''.join(rows)}</table><ul>{listed}</ul>"
        f"<p>Last known to be up to date: {_age(state)}.</p>"
        "<p><a href=/routes>routes</a> · <a href=/decisions>decisions</a>"
        " · <a href=/metrics>metrics</a> · <a href=/readyz>ready</a></p></html>"
    )
