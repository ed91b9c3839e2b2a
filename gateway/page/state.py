"""State of the page at one moment, gathered from all of the gateway in small steps."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import islice
from typing import Any, Final

from gateway.backends.endpoints import EndpointTable
from gateway.journal import Journal, decision
from gateway.page.filtering import Filter
from gateway.page.traffic import Traffic
from gateway.page.view import Level, Note, RequestRow, RouteRow, duration, plural, request_row, route_row
from gateway.routes.store import DocumentState, RouteStore

MOST_ROUTES: Final = 200
"""Routes that are shown at most; those in trouble come before all others."""
MOST_REQUESTS: Final = 50
"""Requests that are shown at most."""
MOST_NOTES: Final = 12
"""Sentences at the top of the page at most, the worst ones."""
MOST_ERRORS: Final = 50
"""Errors and conflicts of each kind that are shown at most."""
OLD_SECONDS: Final = 180.0
"""Age at which the routing table is called old. An API server confirms it once a minute or so."""


@dataclass(frozen=True, slots=True)
class Gateway:
    """What the page is made of."""

    store: RouteStore
    journal: Journal
    describe: Callable[[DocumentState], Mapping[str, Any]]
    """Function that returns the state of a route as `/routes` shows it."""
    why_not_ready: Callable[[], str | None]
    endpoints: EndpointTable | None
    access: bool
    """Whether requests need a credential of the installation."""
    host: str
    """Name of the machine or pod."""
    started: float
    """Time at which the gateway started, in seconds since 1970."""


@dataclass(slots=True)
class _Routes:
    """What all routes have, whatever the filter says."""

    notes: list[Note] = field(default_factory=list)
    bad: int = 0
    """Number of routes whose clients notice something."""
    troubled: int = 0
    """Number of routes that a person has to look at, those among them."""
    offloaded: int = 0


@dataclass(slots=True)
class PageState:
    """State of the page at one moment."""

    host: str
    started: str
    now: str
    filter: Filter
    problem: str | None
    """What is wrong with the filter."""
    why_not_ready: str | None
    access: bool
    """Whether requests need a credential of the installation."""
    level: Level = Level.OK
    headline: str = ""
    notes: Sequence[Note] = ()
    more_notes: int = 0
    routes: Sequence[RouteRow] = ()
    all_routes: int = 0
    """Number of all routes, whatever the filter says."""
    matching_routes: int = 0
    """Number of routes that the filter asks for."""
    in_flight: int = 0
    queued: int = 0
    requests: Sequence[RequestRow] = ()
    more_requests: bool = False
    """Whether there are further requests that the filter asks for."""
    remembered: int = 0
    """Number of requests that the gateway remembers."""
    remembers: bool = True
    """Whether it remembers any."""
    window: str = ""
    """Length of time that counts are about."""
    counted: int = 0
    failed: int = 0
    refreshed: str = "never"
    age: float | None = None
    source_errors: Sequence[tuple[str, str]] = ()
    endpoint_errors: Sequence[tuple[str, str]] = ()
    left_out: Sequence[tuple[str, int]] = ()
    conflicts: Sequence[str] = ()
    cut: Mapping[str, int] = field(default_factory=dict)
    """Numbers of errors that are not shown, by kind."""

    @property
    def age_text(self) -> str:
        """Age of the routing table in words."""
        return "no routes yet" if self.age is None else duration(self.age)

    @property
    def title(self) -> str:
        """Title of the page, which a browser shows in its tab."""
        return f"{self.level.sign} {self.headline}"


def gather(gateway: Gateway, wanted: Filter, problem: str | None) -> Generator[None, None, PageState]:
    """Return the state of the page, in small steps.

    Args:
        gateway: What the page is made of.
        wanted: Routes and requests that are asked for.
        problem: What is wrong with the filter.
    """
    now, store = time.time(), gateway.store
    state = PageState(
        host=gateway.host,
        started=f"{_timestamp(gateway.started)}, {duration(now - gateway.started)} ago",
        now=_timestamp(now),
        filter=wanted,
        problem=problem,
        why_not_ready=gateway.why_not_ready(),
        access=gateway.access,
    )
    traffic = Traffic()
    yield from traffic.count(gateway.journal.records(), now, whole=not gateway.journal.is_full)
    state.window, state.counted, state.failed = duration(traffic.seconds), traffic.requests, traffic.failed
    routes = yield from _gather_routes(gateway, state, traffic, now)
    yield from _gather_requests(gateway.journal, state)
    state.age = max(0.0, now - store.refreshed_at) if store.refreshed_at else None
    state.refreshed = _timestamp(store.refreshed_at) if store.refreshed_at else "never"
    state.source_errors = list(islice(store.source_errors.items(), MOST_ERRORS))
    state.conflicts = [f"{one.claim}: {one.winner} keeps it, {one.loser} does not get it"
                       for one in islice(store.table.conflicts, MOST_ERRORS)]  # fmt: skip
    cut = {"sources": len(store.source_errors), "conflicts": len(store.table.conflicts)}
    if gateway.endpoints is not None:
        state.endpoint_errors = list(islice(gateway.endpoints.errors.items(), MOST_ERRORS))
        state.left_out = list(islice(gateway.endpoints.left_out.items(), MOST_ERRORS))
        cut |= {"endpoints": len(gateway.endpoints.errors), "left_out": len(gateway.endpoints.left_out)}
    state.cut = {kind: max(0, number - MOST_ERRORS) for kind, number in cut.items()}
    yield
    _judge(state, routes)
    return state


def _gather_routes(gateway: Gateway, state: PageState, traffic: Traffic, now: float) -> Generator[None, None, _Routes]:
    """Gather the routes, and return what all of them have.

    When there are too many to show, those in trouble are shown rather than others.
    """
    found = _Routes()
    notes = found.notes
    rows: list[RouteRow] = []
    sound: list[RouteRow] = []
    for _, document in sorted(gateway.store.documents.items()):
        yield
        described, good = gateway.describe(document), document.good
        row = route_row(described, good, traffic, age=max(0.0, now - document.applied_at))
        runtime = gateway.store.find_runtime(row.key)
        state.in_flight += 0 if runtime is None else runtime.in_flight
        state.queued += sum(one.queued for one in row.backends)
        state.all_routes += 1
        is_troubled = row.level in (Level.BAD, Level.WARN)
        found.bad += row.level is Level.BAD
        found.troubled += is_troubled
        found.offloaded += row.offloaded
        texts = [one.text for one in row.notes if one.level in (Level.BAD, Level.WARN)]
        if texts:
            notes.append(Note(row.level, " ".join(texts), row.key, row.config_map))
        if len(notes) > 8 * MOST_NOTES:
            state.more_notes += _keep_worst(notes)
        if state.filter.has_route(row.key):
            state.matching_routes += 1
            kept = rows if is_troubled else sound
            if len(kept) < MOST_ROUTES:
                kept.append(row)
    rows += sound[: max(0, MOST_ROUTES - len(rows))]
    rows.sort(key=lambda one: one.key)
    state.routes = rows
    return found


def _keep_worst(notes: list[Note]) -> int:
    """Leave only as many notes as are shown, the worst ones; return how many went."""
    before = len(notes)
    notes.sort(key=lambda one: one.level.rank)
    del notes[MOST_NOTES:]
    return before - len(notes)


def _gather_requests(journal: Journal, state: PageState) -> Generator[None, None, None]:
    """Gather the last requests that the filter asks for."""
    state.remembered = len(journal)
    state.remembers = bool(state.remembered) or not journal.is_full
    rows: list[RequestRow] = []
    for record in journal.records():
        yield
        if not state.filter.has(record):
            continue
        if len(rows) == MOST_REQUESTS:
            state.more_requests = True
            break
        rows.append(request_row(decision(record), _timestamp(record.at)))
    state.requests = rows


def _judge(state: PageState, routes: _Routes) -> None:
    """Say in a sentence how the gateway is, and list what a person may have to look at."""
    bad, troubled, offloaded = routes.bad, routes.troubled, routes.offloaded
    own: list[Note] = []
    if state.why_not_ready is not None:
        own.append(Note(Level.BAD, f"This gateway is not ready: {state.why_not_ready}."))
    own += [Note(Level.BAD, f"{place}: {error}.") for place, error in state.source_errors]
    if state.age is not None and state.age > OLD_SECONDS:
        own.append(Note(Level.BAD, f"The routes may be out of date: they were last confirmed {state.age_text} ago."))
    own += [Note(Level.WARN, f"Pods of {place} are not known: {error}.") for place, error in state.endpoint_errors]
    own += [Note(Level.WARN, f"EndpointSlices of {place} had no room {number:,} times.")
            for place, number in state.left_out]  # fmt: skip
    own += [Note(Level.WARN, f"Two models claim the same: {one}.") for one in state.conflicts]
    notes = own + routes.notes
    state.more_notes += _keep_worst(notes) + sum(state.cut.values())
    state.notes = notes
    worst = notes[0].level if notes else Level.OK
    state.level = worst
    models = plural(state.all_routes, "model")
    if state.why_not_ready is not None:
        state.headline = f"Not ready: {state.why_not_ready}"
    elif not state.all_routes:
        state.headline = "There are no models"
        state.level = min(worst, Level.INFO, key=lambda one: one.rank)
    elif bad:
        state.headline = f"{bad:,} of {models} {'is' if bad == 1 else 'are'} in trouble"
        if more := troubled - bad:
            state.headline += f", {more:,} more {'needs' if more == 1 else 'need'} a look"
    elif troubled:
        state.headline = f"{troubled:,} of {models} {'needs' if troubled == 1 else 'need'} a look"
    elif own:
        state.headline = "The models serve, the gateway needs a look"
    else:
        state.headline = "The model serves" if state.all_routes == 1 else f"All {models} serve"
    if offloaded and not troubled and state.why_not_ready is None:
        many = "all" if offloaded == state.all_routes else f"{offloaded:,}"
        state.headline += f", {many} of them offloaded" if state.all_routes > 1 else ", offloaded"
        state.level = min(state.level, Level.INFO, key=lambda one: one.rank)


def _timestamp(seconds: float) -> str:
    """Return a time as the log writes it, in UTC."""
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")
