"""Gauges on the page that a server has for Prometheus, which is read without one.

https://prometheus.io/docs/instrumenting/exposition_formats/ has the format. A page may be large and is written by a
tenant, so the lines of the wanted metrics are picked out first, and only so many of them are parsed.
"""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, SupportsFloat

from prometheus_client.parser import text_string_to_metric_families

from hooks import reasons
from hooks.api.metrics import LabelSelector
from hooks.kube.quantities import InvalidQuantity, Quantity, decimal
from hooks.metrics.promql import NAME
from hooks.observation.readings import Unread

PICKED_BYTES: Final = 32 << 10
"""Bytes of the lines on a page that are parsed at most. The parser takes some hundred nanoseconds for each."""
LINE_BYTES: Final = 4 << 10
"""Bytes of one line that is parsed. The parser's time rises with the square of its labels."""

_LATEST: Final = 250_000_000_000
"""Largest time in seconds since 1970 that Python has a date for, roughly."""
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    "counter": ("_total", "_created"),
    "histogram": ("_bucket", "_sum", "_count", "_created"),
    "summary": ("_sum", "_count", "_created"),
}
"""Types of metrics that are no gauges, with what the names of their series end with."""


@dataclass(frozen=True, slots=True)
class Series:
    """One series of a gauge."""

    labels: Mapping[str, str]
    value: Quantity | None
    """The value; None for NaN and the infinities."""
    time: datetime | None
    """Time that the page gives for the value; None where it gives none, as usual."""
    is_nan: bool = False
    """Whether the value is NaN, as that of a quotient without traffic is."""


Gauge = tuple[Series, ...] | Unread
"""The series of a gauge, or the reason why they cannot be used."""


def gauges(page: bytes, names: Iterable[str], *, seconds: bool = False) -> Mapping[str, Gauge]:
    """Return the gauges with these names that are on a page.

    Args:
        page: text in the exposition format.
        names: names that `is_name` accepts.
        seconds: whether the page gives times in seconds, as OpenMetrics does, and not in milliseconds.
    """
    wanted = tuple(sorted(set(names)))
    lines: dict[str, list[str]] = {}
    types: dict[str, str] = {}
    picked = 0
    for match in _pattern(wanted).finditer(b"\n" + page):
        typed, type_, name = (part.decode() for part in match.groups(b""))
        if not name:
            types[typed] = type_
            continue
        line = match[0].decode("utf-8", "replace").strip()
        picked += len(match[0])
        if picked > PICKED_BYTES or len(line) > LINE_BYTES:
            return dict.fromkeys(wanted, _TOO_MANY)
        lines.setdefault(name, []).append(line)
    return {name: _gauge(name, found, types, 1000 if seconds else 1) for name, found in lines.items()}


def is_name(name: str) -> bool:
    """Return whether a text is the name of a metric."""
    return NAME.fullmatch(name) is not None


def selected(series: Iterable[Series], selector: LabelSelector | None) -> tuple[Series, ...]:
    """Return the series that a selector matches. A label that is absent counts as empty, as in PromQL.

    Raises:
        SelectorUnusable: the selector cannot be used.
    """
    if selector is None:
        return tuple(series)
    conditions: list[tuple[str, str, tuple[str, ...]]] = [
        (key, "In", (value,)) for key, value in selector.match_labels.items()
    ]
    conditions += [(one.key, one.operator, one.values) for one in selector.match_expressions]
    for key, operator, values in conditions:
        if operator not in _OPERATORS:
            raise SelectorUnusable(f"the operator {operator!r} must be one of {', '.join(_OPERATORS)}")
        if (operator in ("In", "NotIn")) is not bool(values):
            raise SelectorUnusable(f"{operator} of {key!r} has {'no' if not values else 'unexpected'} values")
    return tuple(one for one in series if all(_meets(one.labels, *condition) for condition in conditions))


class SelectorUnusable(ValueError):
    """A selector cannot be used. The message says what is wrong with it."""


_OPERATORS: Final = ("In", "NotIn", "Exists", "DoesNotExist")


def _meets(labels: Mapping[str, str], key: str, operator: str, values: tuple[str, ...]) -> bool:
    value = labels.get(key, "")
    match operator:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value != ""
        case _:
            return value == ""


@lru_cache(maxsize=1024)
def _pattern(names: tuple[str, ...]) -> re.Pattern[bytes]:
    """Return the pattern of a line of one of these metrics, or of a line with a type that matters for it.

    A page is searched for line breaks, which is what the module `re` finds fastest.
    """
    of_series = "|".join(map(re.escape, names))
    of_types = "|".join(re.escape(one) for one in sorted({base for name in names for base in _families(name)}))
    pattern = rf"\n[ \t]*(?:#[ \t]*TYPE[ \t]+({of_types})[ \t]+([a-z]+)|({of_series})[ \t]*[{{ \t][^\n]*)"
    return re.compile(pattern.encode())


def _families(name: str) -> dict[str, str]:
    """Return the names that the family of a series may have, each with the type that it then must have."""
    found = {name.removesuffix(end): type_ for type_, ends in _PARTS.items() for end in ends if name.endswith(end)}
    return {**found, name: ""}


def _gauge(name: str, lines: list[str], types: Mapping[str, str], scale: int) -> Gauge:
    for base in _families(name):
        type_ = types.get(base, "")
        if type_ in _PARTS and (base == name or name.removeprefix(base) in _PARTS[type_]):
            words = f"The pods say that {name} is a {type_}: only a gauge has a value that can be compared."
            return Unread(reasons.REFUSED, words)
    series = []
    try:
        for family in text_string_to_metric_families("\n".join(lines)):
            series += [
                Series(
                    one.labels,
                    _amount(one.value),
                    None if one.timestamp is None else _time(one.timestamp, scale),
                    math.isnan(one.value),
                )
                for one in family.samples
                if one.name == name
            ]
    except (ValueError, IndexError, OverflowError):
        return Unread(reasons.REFUSED, f"The pods serve lines of {name} that cannot be read.")
    return tuple(series)


def _amount(value: float) -> Quantity | None:
    try:
        return decimal(repr(value))
    except InvalidQuantity:
        return None


def _time(timestamp: SupportsFloat, scale: int) -> datetime:
    """Return the time of a value, which the parser took for milliseconds.

    Raises:
        ValueError: there is no such time.
    """
    seconds = float(timestamp) * scale
    if not 0 <= seconds <= _LATEST:
        raise ValueError(f"{timestamp} is no time")
    return datetime.fromtimestamp(seconds, UTC)


_TOO_MANY: Final = Unread(
    reasons.REFUSED,
    f"The pods serve more than {PICKED_BYTES >> 10} KiB of series with these names, or a line of more than"
    f" {LINE_BYTES >> 10} KiB: choose a metric with fewer series.",
)
