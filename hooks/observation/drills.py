"""What gateways report of their drills: whether a remote backend would serve a request if it got one now.

A drill tries what a request to the remote backend needs: its name, a connection, its certificate, a token, and the name
of the model there. Each gateway reports what it found last, for each remote backend of each route. What it reports
comes over a network from another program, so it is read leniently: an entry that cannot be read counts as absent.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import orjson

from hooks import reasons
from hooks.kube.unstructured import integer, mapping, objects, text, time
from hooks.observation.readings import Unread

Route = tuple[str, str]
"""Namespace and name of a ModelDeployment."""

MOST_DRILLS: Final = 20_000
"""Entries of one report that are read, the first ones."""
MOST_MARKS: Final = 32 * MOST_DRILLS
"""Commas and brackets of one report, which bound the number of its values and so the memory that they take."""
MOST_CHARACTERS: Final = 1024
"""Characters of a gateway's message that are read."""

_MOST_SECONDS: Final = 86400.0
"""Seconds of a completion from which on it counts as none."""

_RESULTS: Final = frozenset(
    {
        reasons.PROVEN,
        reasons.NAME_UNKNOWN,
        reasons.CONNECT_FAILED,
        reasons.CERTIFICATE_REFUSED,
        reasons.TOKEN_REFUSED,
        reasons.CREDENTIAL_MISSING,
        reasons.MODEL_UNKNOWN,
        reasons.FORBIDDEN,
    }
)
"""Reasons that are the result of a drill. With any other the gateway has not tried the backend."""


@dataclass(frozen=True, slots=True)
class Drill:
    """What one gateway found when it tried a remote backend last, in a drill or with a request of a client."""

    reason: str
    """One of `hooks.reasons`: Proven, or what was wrong."""
    message: str
    """Sentence of the gateway that says what to change; empty where it has none."""
    failures: int
    """Drills that have failed in a row."""
    observed: datetime | None = None
    """Time of the result; None where the gateway does not say it."""
    succeeded: datetime | None = None
    """Time of the last success; None where there was none."""
    by_traffic: bool = False
    """Whether the result is a success of a client's request."""
    request: str = ""
    """Request whose response the result rests on: none, models, completion or client; empty where the gateway does not
    say it."""
    served: datetime | None = None
    """Time of the last completion that the backend served, for a drill or for a client; None without one."""
    token_seconds: float | None = None
    """Seconds that the last completion of one token took in a drill; None without one."""
    token_time: datetime | None = None
    """Time of that completion."""
    gateway: str = ""
    """Name of the gateway's pod or host; empty where it is not known."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that one gateway reports."""

    gateway: str
    """Name of the gateway's pod or host."""
    drills: Mapping[Route, Drill]


@dataclass(frozen=True, slots=True)
class Reading:
    """What all gateways reported of one route at one time."""

    taken: datetime
    drills: tuple[Drill, ...] = ()
    """Results, one for each gateway that has tried the backend."""
    unread: Unread | None = None
    """Reason why no gateway reported anything; None where one did."""


@dataclass(frozen=True, slots=True)
class Round:
    """What all gateways reported of all routes at one time."""

    taken: datetime
    reports: tuple[Report, ...] = ()
    unread: Unread | None = None
    """Reason why there is no report; None where there is one."""

    def of(self, route: Route) -> Reading:
        """Return what was reported of one route."""
        drills = tuple(report.drills[route] for report in self.reports if route in report.drills)
        return Reading(self.taken, drills, self.unread)


class NoReport(ValueError):
    """A response that is no report. The message is a clause that follows the name of the gateway."""


def read_report(content: bytes) -> Report:
    """Return the report in the body of a gateway's response.

    Raises:
        NoReport: It is none.
    """
    if sum(map(content.count, (b",", b"{", b"["))) > MOST_MARKS:
        raise NoReport("reports more values than hooks read")
    try:
        document: Any = orjson.loads(content)  # it refuses JSON that is nested deeper than 1024 levels
    except orjson.JSONDecodeError:
        raise NoReport("responds with something that is not JSON") from None
    if not is_report(document):
        raise NoReport("responds with JSON that has no drills in it")
    return report_of(document)


def is_report(document: object) -> bool:
    """Return whether a JSON document is a gateway's report."""
    return isinstance(document, dict) and isinstance(document.get("drills"), list)


def report_of(document: Mapping[str, Any]) -> Report:
    """Return the report in a JSON document.

    Of several entries for one route, that which failed counts: all of its backends are needed.
    """
    gateway = _printable(text(document, "gateway"))
    drills: dict[Route, Drill] = {}
    for entry in objects(document, "drills", MOST_DRILLS):
        route, drill = (text(entry, "namespace"), text(entry, "name")), _drill(entry, gateway)
        if drill is not None and (route not in drills or drills[route].reason == reasons.PROVEN):
            drills[route] = drill
    return Report(gateway, drills)


def _drill(entry: Mapping[str, Any], gateway: str) -> Drill | None:
    """Return an entry of a report; None where the gateway has not tried the backend."""
    reason = text(entry, "reason")
    if reason not in _RESULTS:
        return None
    succeeded, is_traffic = time(entry, "lastSuccessTime"), text(entry, "by") == "traffic"
    completion = mapping(entry, "completion")
    seconds = completion.get("seconds")
    return Drill(
        reason,
        _printable(text(entry, "message")),
        max(0, integer(entry, "consecutiveFailures") or 0),
        time(entry, "observedTime"),
        succeeded,
        # It is about the last success, and only drills fail.
        reason == reasons.PROVEN and is_traffic,
        text(entry, "request"),
        # Gateways of an older version say it of the last success alone.
        time(entry, "lastServedTime") or (succeeded if is_traffic else None),
        float(seconds) if isinstance(seconds, float | int) and 0 <= seconds < _MOST_SECONDS else None,
        time(completion, "time"),
        gateway,
    )


def _printable(words: str) -> str:
    """Return a text as one line of printable characters."""
    line = " ".join(words[:MOST_CHARACTERS].split())
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in line)
