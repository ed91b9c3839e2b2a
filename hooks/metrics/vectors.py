"""What a Prometheus server answers to an instant query, as samples.

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
"""Seconds since 1970, of a time within the years that there are dates for."""


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a result."""

    labels: Mapping[str, str]
    """Of its series; none for a scalar."""
    value: Quantity | None
    """None for NaN and the infinities."""
    time: datetime


class Unreadable(ValueError):
    """An answer that is no instant vector and no scalar; the message is a sentence."""


def points(answer: Object) -> tuple[Point, ...]:
    """The values in the answer to an instant query.

    Raises:
        Unreadable: it has none of a kind that can be measured.
    """
    data = mapping(answer, "data")
    match text(data, "resultType"):
        case "vector":
            series = objects(data, "result")
            return tuple(_point(texts(one, "metric"), one.get("value"), one) for one in series)
        case "scalar":
            return (_point({}, data.get("result"), data),)
        case "matrix":
            raise Unreadable("The expression is a range: make it one value for each series, with rate() for instance.")
        case "string":
            raise Unreadable("The expression is a string: it must be a number.")
    raise Unreadable("The answer to the expression is of a kind that hooks do not know.")


def _point(labels: Mapping[str, str], value: Any, owner: Mapping[str, Any]) -> Point:
    """One `[time, "value"]`.

    Raises:
        Unreadable: it is none.
    """
    if value is None and "histogram" in owner:
        raise Unreadable("The expression is a histogram: make it a number, with histogram_quantile() for instance.")
    match value:
        case [int() | float() as seconds, str() as written] if 0 <= seconds <= _LATEST:
            return Point(labels, _amount(written), datetime.fromtimestamp(seconds, UTC))
    raise Unreadable("The answer to the expression has a value that hooks cannot read.")


def _amount(written: str) -> Quantity | None:
    try:
        return decimal(written)
    except InvalidQuantity:
        return None


def of_one(found: Iterable[Point], window: timedelta, name: str) -> Reading:
    """All values, as those of one object."""
    return _all([(name, point) for point in found], window)


def of_series(found: Iterable[Point], window: timedelta) -> Reading:
    """All values, named by the labels of their series."""
    return _all([(",".join(f"{key}={one.labels[key]}" for key in sorted(one.labels)), one) for one in found], window)


def of_pods(
    found: Iterable[Point], window: timedelta, *, namespace_label: str, namespace: str, containers: bool = False
) -> Reading:
    """The values of the pods of a namespace, which are named by the label `pod`.

    A series of another namespace does not count, nor does one without a number while others have one: what is divided
    by the load of an idle pod is NaN.

    Args:
        found: the values.
        window: that they are about.
        namespace_label: what holds the namespace of a series, where a series has it.
        namespace: the one that counts.
        containers: whether the values are those of containers, named by the label `container`.
    """
    samples, unread = [], None
    for point in found:
        if point.labels.get(namespace_label, namespace) != namespace:
            continue
        pod = point.labels.get("pod", "")
        if not pod:
            unread = unread or _WITHOUT_POD
        elif point.value is None:
            unread = _NOT_A_NUMBER
        else:
            container = point.labels.get("container", "") if containers else ""
            samples.append(Sample(pod, point.value, point.time, window, container))
    return Reading(tuple(samples), None if samples else unread)


def _all(found: Iterable[tuple[str, Point]], window: timedelta) -> Reading:
    """All of them, or none when one is not a number: a part of the series is not the whole."""
    samples = []
    for name, point in found:
        if point.value is None:
            return Reading(unread=_NOT_A_NUMBER)
        samples.append(Sample(name, point.value, point.time, window))
    return Reading(tuple(samples))


_NOT_A_NUMBER: Final = Unread(
    reasons.NOT_A_NUMBER, "The expression gives NaN or an infinity: guard the division in it, with `> 0` for instance."
)
_WITHOUT_POD: Final = Unread(
    reasons.REFUSED, "The series of the expression have no label pod: keep it, with `by (pod)` for instance."
)
