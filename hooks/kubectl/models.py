"""ModelDeployments as the commands show and change them: pure functions from objects to rows, and to patches."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import zip_longest
from typing import Any, Final

from hooks.api.common import DEPLOYMENT_GROUP, VERSION, format_time
from hooks.explain.metrics import span
from hooks.kube.objects import Object
from hooks.kube.unstructured import integer, mapping, objects, text, time
from hooks.kubectl.cluster import path

RESOURCE: Final = f"modeldeployments.{DEPLOYMENT_GROUP}"
LONGEST: Final = timedelta(days=366)
"""Longest time of an override."""
_DURATION: Final = re.compile(
    r"(?:(?P<d>[0-9]{1,4})d)?(?:(?P<h>[0-9]{1,5})h)?(?:(?P<m>[0-9]{1,6})m)?(?:(?P<s>[0-9]{1,8})s)?"
)
_NEVER: Final = "-"
"""What a table has where there is nothing."""


@dataclass(frozen=True, slots=True)
class Override:
    """An override that is in force."""

    percentage: int
    until: datetime
    mode: str
    """Mode of the override: Normal, Force or Drill."""


@dataclass(frozen=True, slots=True)
class Model:
    """What a ModelDeployment says of itself."""

    namespace: str
    name: str
    ready: str
    """Status of the condition Ready; empty where no status was written yet."""
    percentage: int | None
    """Share of the requests that go to the remote backend; None while it is not known."""
    reason: str
    message: str
    since: datetime | None
    override: Override | None
    problem: str
    """What is wrong, in the words of the condition Ready; empty where nothing is."""
    offload_ready: str = ""
    """Status of the condition OffloadReady; empty where no status was written yet."""
    remote_problem: str = ""
    """What is wrong with the remote backend, in the words of that condition; empty where nothing is, or there is no
    backend."""

    @classmethod
    def of(cls, item: Object, now: datetime) -> "Model":
        """Read a ModelDeployment."""
        metadata, status = mapping(item, "metadata"), mapping(item, "status")
        offloading = mapping(status, "offloading")
        conditions = {text(one, "type"): one for one in objects(status, "conditions")}
        ready: Mapping[str, Any] = conditions.get("Ready", {})
        proven: Mapping[str, Any] = conditions.get("OffloadReady", {})
        # Without a remote backend the reason is that of the split, and nothing is wrong.
        fails = text(proven, "status") == "False" and text(proven, "reason") != text(offloading, "reason")
        return cls(
            text(metadata, "namespace"),
            text(metadata, "name"),
            text(ready, "status"),
            integer(offloading, "percentage"),
            text(offloading, "reason"),
            text(offloading, "message"),
            time(offloading, "since"),
            override_of(item, now),
            text(ready, "message") if text(ready, "status") == "False" else "",
            text(proven, "status"),
            text(proven, "message") if fails else "",
        )

    def as_json(self) -> Object:
        """Return the model as a JSON object. What is not known is null."""
        override = self.override
        return {
            "namespace": self.namespace,
            "name": self.name,
            "ready": self.ready or None,
            "percentage": self.percentage,
            "reason": self.reason or None,
            "message": self.message or None,
            "since": None if self.since is None else format_time(self.since),
            "override": None
            if override is None
            else {
                "percentage": override.percentage,
                "until": format_time(override.until),
                "mode": override.mode,
            },
            "problem": self.problem or None,
            "offloadReady": self.offload_ready or None,
            "remoteProblem": self.remote_problem or None,
        }


def override_of(item: Object, now: datetime) -> Override | None:
    """Return the override of a ModelDeployment; None where it has none, or one that has ended."""
    behavior = mapping(mapping(mapping(item, "spec"), "offloadingConfig"), "behavior")
    given = mapping(behavior, "override")
    percentage, until = integer(given, "percentage"), time(given, "until")
    if percentage is None or until is None or until <= now:
        return None
    return Override(percentage, until, text(given, "mode") or "Normal")


def status_table(models: Sequence[Model], now: datetime, *, namespaces: bool) -> str:
    """Return models as a table, and below it what is wrong with one.

    Args:
        models: the models, in the order of the table.
        now: the present.
        namespaces: whether the table has their namespaces.
    """
    head = ("NAMESPACE", "NAME", "READY", "REMOTE", "REASON", "SINCE", "OVERRIDE", "OFFLOADREADY")
    rows = [
        (
            one.namespace,
            one.name,
            one.ready or _NEVER,
            _NEVER if one.percentage is None else f"{one.percentage} %",
            one.reason or _NEVER,
            _NEVER if one.since is None else span(max(now - one.since, timedelta(0))),
            _NEVER if one.override is None else f"{one.override.percentage} % for {span(one.override.until - now)}",
            one.offload_ready or _NEVER,
        )
        for one in models
    ]
    first = 0 if namespaces else 1
    problems = "".join(
        f"{one.namespace}/{one.name}: {problem}\n"
        for one in models
        for problem in (one.problem, "" if one.remote_problem in one.problem else one.remote_problem)
        if problem
    )
    return table([head[first:], *(row[first:] for row in rows)]) + (f"\n{problems}" if problems else "")


def table(rows: Iterable[Sequence[str]], least: Sequence[int] = ()) -> str:
    """Return rows as a table with three spaces between columns, as kubectl prints tables.

    Args:
        rows: rows, of which the first is the head.
        least: least widths of the first columns.
    """
    lines = [[_printable(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    widths = [max(pair) for pair in zip_longest(widths, least[: len(widths)], fillvalue=0)]
    padded = ("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def _printable(cell: str) -> str:
    """Return a cell without what would move a terminal's cursor: names in requests are chosen by clients."""
    return "".join(character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in cell)


def duration(written: str) -> timedelta:
    """Return a time such as 10m, 2h30m or 3d.

    Raises:
        ValueError: it is none, zero, or longer than `LONGEST`. The message follows the value.
    """
    found = _DURATION.fullmatch(written)
    if found is None or not written:
        raise ValueError("is not a time such as 90s, 10m, 2h30m or 3d")
    days, hours, minutes, seconds = (int(found[unit] or 0) for unit in "dhms")
    length = timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    if not timedelta(0) < length <= LONGEST:
        raise ValueError(f"is not a time between one second and {LONGEST.days} days")
    return length


def override_patch(percentage: int, until: datetime, mode: str) -> Object:
    """Return the JSON Merge Patch that sets an override; the mode is set too, since an earlier one may have had one."""
    override = {"percentage": percentage, "until": format_time(until), "mode": mode}
    return {"spec": {"offloadingConfig": {"behavior": {"override": override}}}}


def announced(percentage: int, until: datetime, length: timedelta, *, force: bool) -> str:
    """Return what an override does, as a sentence."""
    held = ", also while no local replica is ready" if force else ""
    return f"{percentage} % of the requests go to the remote backend until {format_time(until)} ({span(length)}){held}."


CLEARED: Final[Object] = {"spec": {"offloadingConfig": {"behavior": {"override": None}}}}
"""JSON Merge Patch that takes an override away."""


def has_override(item: Object) -> bool:
    """Return whether a ModelDeployment has an override, in force or ended."""
    return "override" in mapping(mapping(mapping(item, "spec"), "offloadingConfig"), "behavior")


def collection(namespace: str | None) -> str:
    """Return the path of the ModelDeployments of a namespace; of all where it is None."""
    place = () if namespace is None else ("namespaces", namespace)
    return path("apis", DEPLOYMENT_GROUP, VERSION, *place, "modeldeployments")


_HEAD: Final = (
    "TIME",
    "STATUS",
    "BACKEND",
    "POD",
    "REASON",
    "FIRST BYTE",
    "WHOLE",
    "ATTEMPTS",
    "PROBLEM",
    "REQUEST ID",
)
"""Head of the table of requests."""


_WIDTHS: Final = (13, 6, 8, 24, 16, 10, 9, 8, 16)
"""Least widths of the columns of that table, so that rows that come later stand below the first ones."""


def decision_table(decisions: Iterable[Object], *, head: bool) -> str:
    """Return requests as a table, with its head where it is the beginning of one."""
    rows = [list(_HEAD)] if head else []
    rows += [_decision(one) for one in decisions]
    return table(rows, _WIDTHS)


def _decision(one: Object) -> list[str]:
    attempts = one.get("attempts")
    return [
        _moment(one.get("time")),
        str(one.get("status", _NEVER)),
        text(one, "backend") or _NEVER,
        text(one, "pod") or _NEVER,
        text(one, "reason") or _NEVER,
        _seconds(one.get("first_byte_seconds")),
        _seconds(one.get("seconds")),
        str(len(attempts)) if isinstance(attempts, list) else _NEVER,
        text(one, "code") or text(one, "broken") or _NEVER,
        text(one, "request_id") or _NEVER,
    ]


def _moment(seconds: object) -> str:
    """Return seconds since 1970 as a time of the day in UTC."""
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e11:
        return _NEVER
    whole, thousandths = divmod(round(seconds * 1000), 1000)
    hours, rest = divmod(whole % 86400, 3600)
    return f"{hours:02}:{rest // 60:02}:{rest % 60:02}.{thousandths:03}Z"


def _seconds(value: object) -> str:
    return f"{value:.3f} s" if isinstance(value, int | float) else _NEVER
