"""Samples from the results of instant queries to a Prometheus server.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from hooks import reasons
from hooks.kube.objects import Object
from hooks.kube.quantities import InvalidQuantity, Quantity, decimal
from hooks.kube.unstructured import mapping, objects, text, texts
from hooks.observation.readings import Reading, Sample, Unread

_LATEST: Final = 250_000_000_000
"""Largest time in seconds since 1970 that Python has a date for, roughly."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of the result of a query."""

    labels: Mapping[str, str]
    """Labels of the series; none for a scalar."""
    value: Quantity | None
    """The value; None for NaN and the infinities."""
    time: datetime
    is_nan: bool = False
    """Whether the value is NaN, as that of a quotient without traffic is."""


class ResultUnusable(ValueError):
    """A result is neither an instant vector nor a scalar. The message is a sentence."""


def points(content: Object) -> tuple[Point, ...]:
    """Return the values in the response to an instant query.

    Raises:
        ResultUnusable: the result is of a kind that cannot be measured.
    """
    data = mapping(content, "data")
    match text(data, "resultType"):
        case "vector":
            series = objects(data, "result")
            return tuple(_point(texts(one, "metric"), one.get("value"), one) for one in series)
        case "scalar":
            return (_point({}, data.get("result"), data),)
        case "matrix":
            raise ResultUnusable(
                "The expression is a range: make it one value for each series, with rate() for instance."
            )
        case "string":
            raise ResultUnusable("The expression is a string: it must be a number.")
    raise ResultUnusable("The result of the expression is of a kind that hooks do not know.")


def _point(labels: Mapping[str, str], value: Any, owner: Mapping[str, Any]) -> Point:
    """Return the point in `[time, "value"]`.

    Raises:
        ResultUnusable: the value is something else.
    """
    if value is None and "histogram" in owner:
        raise ResultUnusable("The expression is a histogram: make it a number, with histogram_quantile() for instance.")
    match value:
        case [int() | float() as seconds, str() as number] if 0 <= seconds <= _LATEST:
            return Point(labels, _amount(number), datetime.fromtimestamp(seconds, UTC), number == "NaN")
    raise ResultUnusable("The result of the expression has a value that hooks cannot read.")


def _amount(number: str) -> Quantity | None:
    try:
        return decimal(number)
    except InvalidQuantity:
        return None


def of_one(points: Iterable[Point], window: timedelta, name: str) -> Reading:
    """Return all values as samples of the object with a name."""
    return _all([(name, point) for point in points], window)


def of_series(points: Iterable[Point], window: timedelta) -> Reading:
    """Return all values as samples that are named by the labels of their series."""
    return _all([(",".join(f"{key}={one.labels[key]}" for key in sorted(one.labels)), one) for one in points], window)


def of_pods(
    points: Iterable[Point], window: timedelta, *, namespace_label: str, namespace: str, containers: bool = False
) -> Reading:
    """Return the values as samples of pods, which the label `pod` names.

    A series of another namespace does not count, nor does NaN while another series has a number: a quotient is NaN for
    an idle pod whose load it is divided by.

    Args:
        points: values of the result.
        window: time that the values cover.
        namespace_label: label for the namespace of a series, where a series has it.
        namespace: namespace of the pods.
        containers: whether the values are those of containers, which the label `container` names.
    """
    samples, idle, unread = [], [], None
    for point in points:
        if point.labels.get(namespace_label, namespace) != namespace:
            continue
        pod = point.labels.get("pod", "")
        if not pod:
            unread = unread or _WITHOUT_POD
            continue
        container = point.labels.get("container", "") if containers else ""
        if point.value is None:
            unread = _NOT_A_NUMBER
            idle.append(Sample(pod, _ZERO, point.time, window, container) if point.is_nan else None)
        else:
            samples.append(Sample(pod, point.value, point.time, window, container))
    if samples:
        return Reading(tuple(samples))
    return Reading(unread=unread, without_traffic=_all_of(idle))


def _all(named: Iterable[tuple[str, Point]], window: timedelta) -> Reading:
    """Return all values, or none when one is not a number: a part of the series is not the whole."""
    samples, idle = [], []
    for name, point in named:
        if point.value is not None:
            samples.append(Sample(name, point.value, point.time, window))
        value = _ZERO if point.is_nan else point.value
        idle.append(None if value is None else Sample(name, value, point.time, window))
    if len(samples) == len(idle):
        return Reading(tuple(samples))
    return Reading(unread=_NOT_A_NUMBER, without_traffic=_all_of(idle))


def _all_of(samples: list[Sample | None]) -> tuple[Sample, ...]:
    """Return the samples, or none of them where one is missing."""
    found = [sample for sample in samples if sample is not None]
    return tuple(found) if len(found) == len(samples) else ()


_ZERO: Final = Quantity(0)
_NOT_A_NUMBER: Final = Unread(
    reasons.NOT_A_NUMBER, "The expression gives NaN or an infinity: guard the division in it, with `> 0` for instance."
)
_WITHOUT_POD: Final = Unread(
    reasons.REFUSED, "The series of the expression have no label pod: keep it, with `by (pod)` for instance."
)
