"""The verdict on a campaign: the errors that clients saw, the excuses for cut streams, and the goals that were met."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from faults.records import Outcome, Record
from faults.scenarios import STALLED, Fault, Stop

SLACK_SECONDS: Final = 0.3
"""Seconds between a fault and its effect for a client on a busy machine."""
RSS_GROWTH_MIB: Final = 8.0
LATEST_SECONDS: Final = 2.0
"""Seconds of delay with which a request of the open loop would hide a stall."""
NOT_RETRYABLE: Final = "upload"
"""Kind of request whose body is not kept to be sent again."""
SPENT: Final = {
    "warm-up": "credentials_refused",  # it may still be under way when the tokens are revoked
    "throttle": "throttled",
    "silent": "first_byte_timeout",
    "black hole": "first_byte_timeout",
    "tokens revoked": "credentials_refused",
}
"""Error code, by fault, with which a request that is not retryable may end: it was sent to the failing backend. (In a
black hole: on a connection from before. Tokens are revoked after the gateway got them.)"""


@dataclass
class Tally:
    """The tally of the requests of one phase, or of all."""

    requests: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    """Number of errors that clients must not see, by `kind outcome status code`."""
    cut: int = 0
    """Number of responses that had begun when their backend or gateway ended, and that show it."""
    spent: int = 0
    """Number of requests that are not retryable and failed with their backend."""
    repeated: int = 0
    missing: int = 0
    crossed: int = 0
    seconds: list[float] = field(default_factory=list)
    """Durations of chats with a response, in seconds."""
    examples: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        """Return a percentile of the durations of chats; 0 without any."""
        ordered = sorted(self.seconds)
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def is_stream(record: Record) -> bool:
    """Return whether the response to a request is an event stream."""
    return "stream" in record.kind


def excuse(record: Record, kills: Sequence[float], stops: Sequence[Stop]) -> str | None:
    """Return why a response may be incomplete: `cut`, visibly, or `spent`; None where it may not."""
    killed = record.backend == "local" and any(
        record.begun - SLACK_SECONDS <= at <= record.ended + SLACK_SECONDS for at in kills
    )
    if is_stream(record):
        if record.outcome is not Outcome.TOLD:
            return None
        if record.code == "upstream_reset":
            return "cut" if killed and record.phase != STALLED else None
        stopped = any(
            record.via == stop.name and record.begun <= stop.at + stop.limit <= record.ended + SLACK_SECONDS
            for stop in stops
        )
        return "cut" if record.code == "gateway_stopping" and stopped else None
    if record.outcome is Outcome.TRUNCATED and killed:
        return "cut"
    if record.kind == NOT_RETRYABLE and record.outcome is Outcome.STATUS:
        with_it = killed and record.code == "upstream_reset"
        return "spent" if with_it or record.code == SPENT.get(record.phase) else None
    return None


def tally(records: Iterable[Record], kills: Sequence[float], stops: Sequence[Stop]) -> dict[str, Tally]:
    """Return the tallies by phase, and that of all under the empty name."""
    found: dict[str, Tally] = {"": Tally()}
    for record in records:
        why = None if record.outcome is Outcome.OK else excuse(record, kills, stops)
        for one in (found[""], found.setdefault(record.phase, Tally())):
            one.requests += 1
            one.repeated += record.repeated
            one.crossed += record.outcome in (Outcome.CROSSED, Outcome.WRONG_BODY)
            if record.outcome is Outcome.OK:
                if record.kind == "chat":
                    one.seconds.append(record.ended - record.begun)
            elif why is not None:
                one.cut += why == "cut"
                one.spent += why == "spent"
            else:
                one.errors[" ".join(filter(None, (record.kind, record.outcome, str(record.status), record.code)))] += 1
                one.missing += record.missing
                if len(one.examples) < 10:
                    one.examples.append(record.line())
    return found


def executed_twice(ledgers: Iterable[str]) -> tuple[list[str], int]:
    """Return the requests that were executed again after a byte of a response had been sent, and all that were executed
    more than once."""
    lines: dict[str, list[tuple[float, str]]] = {}
    for ledger in ledgers:
        for line in ledger.splitlines():
            what, user, at = line.split()
            if user != "probe":
                lines.setdefault(user, []).append((float(at), what))
    duplicates, twice = [], 0
    for user, events in lines.items():
        if sum(what == "E" for _, what in events) < 2:
            continue
        twice += 1
        order = "".join(what for _, what in sorted(events))
        if "E" in order[order.index("A") :] if "A" in order else False:
            duplicates.append(user)
    return duplicates, twice


@dataclass(frozen=True)
class Goal:
    """A goal: one line of the verdict."""

    name: str
    measured: float
    allowed: float
    meaning: str

    @property
    def met(self) -> bool:
        """Return whether the goal was met."""
        return self.measured <= self.allowed


@dataclass(frozen=True)
class Rest:
    """The facts beside the records and the faults."""

    duplicates: int
    growth_mib: float
    latest: float
    tracebacks: int
    leaks: int


def goals(
    total: Tally, openai: Tally, faults: Mapping[str, Fault], stops: Sequence[Stop], rest: Rest, *, slack: float = 0.0
) -> list[Goal]:
    """Return all goals, in the order of the table; `slack` is what a busy machine may add to a time, in seconds."""
    idle = [name for name, one in faults.items() if not all(one.evidence.get(want) for want in one.wanted)]
    problems = sum(len(one.problems) for one in faults.values())
    found = [
        Goal("client_errors", total.errors.total(), 0, "errors that clients saw of retryable requests"),
        Goal("duplicated", total.repeated + rest.duplicates, 0, "events sent twice; requests done again after a byte"),
        Goal("lost", total.missing, 0, "events that are missing in streams nobody had to cut"),
        Goal("crossed", total.crossed, 0, "wrong bodies, and bytes of the response to another client"),
        Goal("openai_errors", openai.errors.total(), 0, "of these, errors that the openai client saw"),
        Goal("rss_growth_mib", round(rest.growth_mib, 1), RSS_GROWTH_MIB, "memory of the gateway since warm-up"),
        Goal("not_recovered", problems, 0, "faults after which something did not come back in time"),
        Goal("idle_faults", len(idle), 0, f"faults that no attempt noticed{': ' + ', '.join(idle) if idle else ''}"),
        Goal("tracebacks", rest.tracebacks, 0, "lines of a gateway's log about an error of its own"),
        Goal("leaks", rest.leaks, 0, "secrets in what the gateways write"),
        Goal("latest_s", round(rest.latest, 2), LATEST_SECONDS + slack, "delay of the request that began latest"),
    ]
    if stops:
        bad = sum(stop.code != 0 for stop in stops)
        found.insert(7, Goal("bad_exits", bad, 0, "gateways that did not leave with exit code 0"))
    return found


def as_json(tallies: Mapping[str, Tally], faults: Mapping[str, Fault]) -> dict[str, Any]:
    """Return the tallies of each phase as JSON."""
    return {
        name: {
            "requests": one.requests,
            "client_errors": dict(one.errors),
            "cut": one.cut,
            "spent": one.spent,
            "p50_ms": round(one.percentile(0.5) * 1000),
            "p99_ms": round(one.percentile(0.99) * 1000),
            **_fault(faults.get(name)),
            "examples": one.examples,
        }
        for name, one in tallies.items()
        if name
    }


def _fault(fault: Fault | None) -> dict[str, Any]:
    if fault is None:
        return {}
    recovery = round(max(fault.recoveries), 2) if fault.recoveries else None
    return {
        "seconds": round(fault.seconds, 1),
        "rss_mib": round(fault.resident_mib, 1),
        "evidence": fault.evidence,
        "recovery_s": recovery,
        "problems": fault.problems,
    }
