"""Rows of the page: the state of routes, backends, pods and requests in the words in which a person reads them.

Everything here is computed from values that are given. The text is for people and no API: `/routes` and `/decisions`
have the same for programs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from gateway.api.v1alpha1 import Backend, RouteDocument, Use
from gateway.page.traffic import PlaceTraffic, RouteTraffic, Times, Traffic
from gateway.page.words import DIVERSIONS, LOCAL_MISSING, SPLITS

MOST_PODS: Final = 50
"""Pods of one backend that are shown at most; those in trouble come first."""

RECENT_SECONDS: Final = 60.0
"""Seconds for which failed requests are an alarm."""


class Level(StrEnum):
    """How much something needs a person, also as the class of its element."""

    BAD = "bad"
    """Clients notice it."""
    WARN = "warn"
    """Clients do not notice it yet."""
    INFO = "info"
    OK = "ok"

    @property
    def sign(self) -> str:
        """Sign that stands for the level, since colors alone say nothing to many."""
        return _SIGNS[self]

    @property
    def rank(self) -> int:
        """Number by which the worst level comes first."""
        return _RANKS[self]


_SIGNS: Final[Mapping[Level, str]] = {Level.BAD: "✕", Level.WARN: "!", Level.INFO: "→", Level.OK: "✓"}
_RANKS: Final[Mapping[Level, int]] = {level: rank for rank, level in enumerate(Level)}


@dataclass(frozen=True, slots=True)
class Note:
    """A sentence about something that a person may have to look at."""

    level: Level
    text: str
    route: str | None = None
    """Key of the route that it is about."""
    anchor: str | None = None
    """Namespace and ConfigMap of that route, by which its row is found."""


@dataclass(frozen=True, slots=True)
class PodRow:
    """One pod of a backend."""

    name: str
    level: Level
    state: str
    in_flight: int
    failed: int
    first_token: str


@dataclass(frozen=True, slots=True)
class DrillRow:
    """Last result of the drills at a remote backend."""

    level: Level
    reason: str
    text: str
    """What was tried or what to change, and when that was."""


@dataclass(frozen=True, slots=True)
class BackendRow:
    """One backend of a route."""

    id: str
    place: str
    weight: int
    use: str
    takes_over: bool
    """Whether requests go there when the backend whose turn it is does not take them."""
    level: Level
    state: str
    health: str
    in_flight: str
    queued: int
    streams: str
    """Limit of streams and why it moved last; empty without one."""
    responses: int
    failed: int
    first_token: str
    pods: Sequence[PodRow]
    pods_in_trouble: int
    more_pods: int
    """Pods that are not shown."""
    drill: DrillRow | None
    """Last result of its drills; None where it has none."""


@dataclass(frozen=True, slots=True)
class RouteRow:
    """One route."""

    key: str
    namespace: str
    name: str
    level: Level
    state: str
    notes: Sequence[Note]
    split: str
    """What the controller wants."""
    observed: str
    """Where responses came from in fact; empty without any."""
    reason: str
    meaning: str
    """Sentence that says what the reason means; empty for a reason that is not known here."""
    since: str
    """When its document came into force; empty where it is not."""
    is_known: bool
    """Whether the gateway has ever had a good document of it, so that its name is that of the ModelDeployment."""
    hash: str
    config_map: str
    origin: str
    requests: int
    backends: Sequence[BackendRow]
    offloaded: bool
    """Whether the split sends requests to the remote backend."""


@dataclass(frozen=True, slots=True)
class AttemptRow:
    """One attempt of a request."""

    level: Level
    place: str
    outcome: str
    seconds: str


@dataclass(frozen=True, slots=True)
class RequestRow:
    """One request."""

    level: Level
    time: str
    status: int
    method: str
    path: str
    route: str
    place: str
    reason: str
    meaning: str
    trouble: str
    """What else went wrong; empty where nothing did."""
    seconds: str
    first: str
    queued: str
    caller: str
    request_id: str
    attempts: Sequence[AttemptRow]
    eventful: bool
    """Whether there is more to say about its attempts than that the first one succeeded."""


def duration(seconds: float) -> str:
    """Return a time in the unit in which a person says it."""
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    for unit, size in (("s", 1), ("min", 60), ("h", 3600)):
        if seconds < 120 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds / 86400:.0f} d"


def plural(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def route_row(state: Mapping[str, Any], document: RouteDocument | None, traffic: Traffic, *, age: float) -> RouteRow:
    """Return the row of a route.

    Args:
        state: State of the route as `/routes` shows it.
        document: Document that is in force; None where there was never a good one.
        traffic: Traffic of the last minutes.
        age: Seconds for which the document has been in force, where it is.
    """
    namespace, name = state["namespace"], state["name"] or state["configMap"]
    key = f"{namespace}/{name}"
    backends = [
        _backend_row(key, one, known, traffic)
        for one, known in zip(document.backends if document else (), state["backends"], strict=True)
    ]
    counts = traffic.routes.get(key) or RouteTraffic()
    notes = _notes(state, backends, counts)
    level = min((one.level for one in notes), key=lambda one: one.rank, default=Level.OK)
    remote = [one for one in backends if one.weight and not _is_local(document, one.id)]
    offloaded = bool(remote)
    words = {Level.BAD: "in trouble", Level.WARN: "needs a look"}
    return RouteRow(
        key=key,
        namespace=namespace,
        name=name,
        level=level if level in words else Level.INFO if offloaded else Level.OK,
        state=words.get(level, "offloads" if offloaded else "serves"),
        notes=notes,
        split=", ".join(f"{one.id} {one.weight} %" for one in backends if one.weight) or "nowhere",
        observed=_shares(backends),
        reason=state["reason"] or "",
        meaning=SPLITS.get(state["reason"] or "", ""),
        since=f"{state['since']}, {duration(age)} ago" if state["inForce"] else "",
        is_known=state["name"] is not None,
        hash=state["hash"] or "",
        config_map=f"{namespace}/{state['configMap']}",
        origin=state["origin"],
        requests=counts.requests,
        backends=backends,
        offloaded=offloaded,
    )


def _shares(backends: Sequence[BackendRow]) -> str:
    """Return which part of the responses came from each backend; an empty string without any response."""
    total = sum(one.responses for one in backends)
    return ", ".join(f"{one.id} {_percent(one.responses, total)}" for one in backends if one.responses)


def _percent(part: int, total: int) -> str:
    """Return a part in percent, one that is not 0 or all of it never as 0 or 100."""
    number = round(100 * part / total)
    if part < total:
        number = min(max(number, 1), 99)
    return f"{number} %"


def _is_local(document: RouteDocument | None, backend: str) -> bool:
    """Return whether a backend is inside the cluster."""
    return document is not None and any(one.id == backend and one.service is not None for one in document.backends)


def _notes(state: Mapping[str, Any], backends: Sequence[BackendRow], counts: RouteTraffic) -> Sequence[Note]:
    """Return what a person may have to look at, the worst first."""
    notes: list[Note] = []

    def add(level: Level, text: str) -> None:
        notes.append(Note(level, text))

    if state["error"] is not None and state["inForce"]:
        add(Level.WARN, f"The newest route document is refused, the last good one stays in force: {state['error']}.")
    elif state["name"] is None:
        add(Level.BAD, f"The route document is refused, and requests get 404: {state['error']}.")
    elif not state["inForce"]:
        add(Level.BAD, f"The route document is not in force: {state['error']}.")
    sound = any(one.level is not Level.BAD and one.takes_over for one in backends)
    if state["inForce"] and not any(one.weight for one in backends):
        add(Level.BAD, "The split gives no backend any requests, so they get 503.")
    elif state["inForce"] and not sound:
        add(Level.BAD, "No backend takes requests as it should.")
    failed = sum(counts.failed.values())
    if failed:
        # What has stopped is no alarm any more.
        much = failed * 10 >= counts.requests and counts.failed_ago < RECENT_SECONDS
        how = f"{_listed(counts.failed)}, the last one {duration(counts.failed_ago)} ago"
        add(Level.BAD if much else Level.WARN, f"{failed:,} of {plural(counts.requests, 'request')} failed: {how}.")
    if state["reason"] in LOCAL_MISSING and any(one.weight for one in backends):
        add(Level.WARN, f"{SPLITS[state['reason']]} All requests are offloaded.")
    for one in backends:
        if one.level in (Level.BAD, Level.WARN):
            # Where another backend takes the requests, clients notice nothing.
            serves = sound or not one.weight
            add(Level.WARN if serves else one.level, f"{one.id}: {one.state}.")
        if one.queued:
            add(Level.WARN, f"{one.id}: {plural(one.queued, 'request')} in the queue.")
        if one.drill is not None and one.drill.level is Level.WARN:
            # It says what requests will find, not what they have found.
            add(Level.WARN, f"{one.id}: the drill found {one.drill.reason}. {one.drill.text}")
        if one.pods_in_trouble:
            add(Level.WARN, f"{one.id}: {one.pods_in_trouble} of {len(one.pods) + one.more_pods} pods in trouble.")
    diverted = sum(counts.diverted.values())
    if diverted:
        level = Level.WARN if set(counts.diverted) - {"Stateful"} else Level.INFO
        how = f"{_listed(counts.diverted)}, the last one {duration(counts.diverted_ago)} ago"
        add(level, f"{plural(diverted, 'request')} went elsewhere than the split says: {how}.")
    if state["unknownFields"]:
        add(Level.INFO, f"This gateway ignores {plural(state['unknownFields'], 'field')} of the route document that it"
                        " does not know; it may be older than the controller.")  # fmt: skip
    return sorted(notes, key=lambda one: one.level.rank)


def _listed(counts: Mapping[str, int]) -> str:
    """Return how often there was what, the most frequent first."""
    ordered = sorted(counts.items(), key=lambda one: -one[1])
    return ", ".join(f"{name} ×{number:,}" for name, number in ordered)


def _backend_row(route: str, backend: Backend, state: Mapping[str, Any], traffic: Traffic) -> BackendRow:
    in_flight, limit = state["inFlight"], backend.in_flight
    level, text = _availability(state)
    if level is Level.OK and limit is not None and in_flight >= limit:
        level, text = Level.WARN, "at its limit"
    if level is Level.OK and not backend.weight:
        text = "stands by" if Use.FAILOVER in backend.use or Use.OVERFLOW in backend.use else "gets no requests"
    counts = traffic.places.get((route, backend.id, None)) or PlaceTraffic()
    pods = [_pod_row(route, backend.id, one, traffic) for one in state.get("pods", ())]
    pods.sort(key=lambda one: one.level.rank)
    return BackendRow(
        id=backend.id,
        place=state["place"],
        weight=backend.weight,
        use=", ".join(one.value for one in backend.use),
        takes_over=Use.FAILOVER in backend.use,
        level=level,
        state=text,
        health="not checked" if backend.health is None else "passes" if state["healthy"] else "fails",
        in_flight=f"{in_flight:,}" if limit is None else f"{in_flight:,} of {limit:,}",
        queued=state["queued"],
        streams=_streams(state.get("streams")),
        responses=counts.responses,
        failed=counts.failed,
        first_token=_first(counts),
        pods=pods[:MOST_PODS],
        pods_in_trouble=sum(one.level is not Level.OK for one in pods),
        more_pods=max(0, len(pods) - MOST_PODS),
        drill=_drill_row(state.get("drill")),
    )


def _availability(state: Mapping[str, Any]) -> tuple[Level, str]:
    """Return whether a backend or a pod takes requests, in words."""
    if state["coolDownSeconds"]:
        return Level.WARN, f"cools down for another {duration(state['coolDownSeconds'])}, as it asked by Retry-After"
    if state["breaker"] == "open":
        return Level.BAD, "breaker open, it failed too often"
    if state["breaker"] == "halfOpen":
        return Level.BAD, "breaker half-open, the next request tries it"
    if not state.get("healthy", True):
        return Level.BAD, "fails its health checks"
    return Level.OK, "takes requests"


def _drill_row(result: Mapping[str, Any] | None) -> DrillRow | None:
    """Return the row of the last drill at a backend; None where it has no drills."""
    if result is None:
        return None
    level = {"Proven": Level.OK, "NotTried": Level.INFO}.get(result["reason"], Level.WARN)
    text = result["message"]
    if result["observedTime"] is not None:
        text += f" That was at {result['observedTime']}"
        if result["consecutiveFailures"]:
            success = result["lastSuccessTime"]
            text += f", after {plural(result['consecutiveFailures'], 'failure')} in a row"
            text += ", without any success before" if success is None else f"; the last success was at {success}"
        text += "."
    return DrillRow(level, result["reason"], text)


def _pod_row(route: str, backend: str, state: Mapping[str, Any], traffic: Traffic) -> PodRow:
    level, text = _availability(state)
    counts = traffic.places.get((route, backend, state["name"])) or PlaceTraffic()
    return PodRow(state["name"], level, text, state["inFlight"], counts.failed, _first(counts))


def _first(counts: PlaceTraffic) -> str:
    """Return how long the first tokens took, or the heads of responses where there were no streams."""
    if counts.first_tokens:
        return _times(counts.first_tokens)
    return f"no stream; head {_times(counts.first_bytes)}" if counts.first_bytes else ""


def _times(times: Times) -> str:
    median, most = duration(times.quantile(50)), duration(times.quantile(95))
    return median if len(times) == 1 else f"{median}, 95 % in {most}"


def _streams(state: Mapping[str, Any] | None) -> str:
    """Return the limit of streams in words; an empty string without one."""
    if state is None:
        return ""
    text = f"{state['inFlight']:,} of {state['limit']:,} streams"
    if state["limit"] != state["ceiling"]:
        text += f" ({state['ceiling']:,} at most)"
    text += f", for a first token in {duration(state['firstTokenSeconds'])}"
    last = state["last"]
    if last is not None:
        text += f"; {duration(last['secondsAgo'])} ago {last['from']:,} → {last['to']:,}: {last['message']}"
    return text


def request_row(decision: Mapping[str, Any], time: str) -> RequestRow:
    """Return the row of a request.

    Args:
        decision: The request as `/decisions` shows it.
        time: Time at which it began, as text.
    """
    attempts = [
        AttemptRow(
            level=Level.OK if one["cause"] is None else Level.BAD,
            place=_place(one["backend"], one.get("pod")),
            outcome=one["cause"] or "responded",
            seconds=duration(one["seconds"]),
        )
        for one in decision["attempts"]
    ]
    eventful = any(one.level is Level.BAD for one in attempts)
    status = decision["status"]
    words = [
        decision["code"] or "",
        f"broke off: {decision['broken']}" if decision["broken"] else "",
        f"not tried elsewhere: {decision['not_retryable']}" if decision.get("not_retryable") else "",
    ]
    if status >= 500 or decision["broken"]:
        level = Level.BAD
    elif eventful or status in (429, 499):
        level = Level.WARN
    else:
        level = Level.OK
    first = decision.get("first_event_seconds")
    reason = decision["reason"] or ""
    return RequestRow(
        level=level,
        time=time,
        status=status,
        method=decision["method"],
        path=decision["path"],
        route=decision["route"] or "",
        place=_place(decision["backend"], decision.get("pod")) if decision["backend"] else "",
        reason=reason,
        meaning=DIVERSIONS.get(reason) or SPLITS.get(reason, ""),
        trouble=", ".join(filter(None, words)),
        seconds=duration(decision["seconds"]),
        first="" if first is None else duration(first),
        queued=duration(decision["queued_seconds"]) if decision.get("queued_seconds") else "",
        caller=decision.get("caller") or "",
        request_id=decision["request_id"],
        attempts=attempts,
        eventful=eventful,
    )


def _place(backend: str, pod: str | None) -> str:
    return backend if pod is None else f"{backend} {pod}"
