"""Samples from the responses of the metrics APIs of Kubernetes.

These are metrics.k8s.io/v1beta1 PodMetrics, custom.metrics.k8s.io v1beta1 and v1beta2 MetricValue, and
external.metrics.k8s.io/v1beta1 ExternalMetricValue: https://github.com/kubernetes/metrics. A value that cannot be read
counts as absent.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from decimal import Decimal
from typing import Any, Final

from hooks.kube.objects import Object
from hooks.kube.quantities import InvalidQuantity, Quantity, parse
from hooks.kube.unstructured import mapping, objects, text, time
from hooks.observation.readings import Sample
from hooks.offloading.targets import RESOURCES

DEFAULT_WINDOW: Final = timedelta(seconds=60)
"""Window of custom metrics that name none, as the HorizontalPodAutoscaler assumes."""

_DURATION: Final = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(h|ms|m|s|us|µs|μs|ns)")
_MICROSECONDS: Final[Mapping[str, Decimal]] = {
    "h": Decimal(3_600_000_000),
    "m": Decimal(60_000_000),
    "s": Decimal(1_000_000),
    "ms": Decimal(1000),
    "ns": Decimal("0.001"),
}


def pod_usage(items: Iterable[Mapping[str, Any]]) -> tuple[tuple[Sample, ...], ...]:
    """Return the samples of all containers in the items of a PodMetricsList, for each of `RESOURCES`."""
    samples: dict[str, list[Sample]] = {resource: [] for resource in RESOURCES}
    for item in items:
        pod, moment = text(mapping(item, "metadata"), "name"), time(item, "timestamp")
        if moment is None:
            continue
        window = duration(text(item, "window"))
        for container in objects(item, "containers"):
            usage = mapping(container, "usage")
            for resource, known in samples.items():
                value = _quantity(usage, resource)
                if value is not None:
                    known.append(Sample(pod, value, moment, window, text(container, "name")))
    return tuple(tuple(known) for known in samples.values())


def of_objects(content: Object) -> tuple[Sample, ...]:
    """Return the samples in a MetricValueList, whatever objects it describes."""
    return tuple(
        Sample(text(mapping(item, "describedObject"), "name"), *facts)
        for item in objects(content, "items")
        if (facts := _facts(item, DEFAULT_WINDOW)) is not None
    )


def of_series(content: Object) -> tuple[Sample, ...]:
    """Return the samples in an ExternalMetricValueList, named by the labels of their series."""
    return tuple(
        Sample(_series(item), *facts)
        for item in objects(content, "items")
        if (facts := _facts(item, DEFAULT_WINDOW)) is not None
    )


def duration(length: str) -> timedelta:
    """Return the length of a Go duration such as `1m30.5s`; zero when the text is none."""
    if "".join(match.group() for match in _DURATION.finditer(length)) != length:
        return timedelta(0)
    amounts = [Decimal(number) * _MICROSECONDS.get(unit, Decimal(1)) for number, unit in _DURATION.findall(length)]
    return timedelta(microseconds=int(sum(amounts)))


def _facts(item: Mapping[str, Any], default: timedelta) -> tuple[Quantity, Any, timedelta] | None:
    moment, value = time(item, "timestamp"), _quantity(item, "value")
    if moment is None or value is None:
        return None
    seconds = item.get("windowSeconds", item.get("window"))
    known = isinstance(seconds, int) and not isinstance(seconds, bool)
    return value, moment, timedelta(seconds=seconds) if known else default


def _series(item: Mapping[str, Any]) -> str:
    labels = mapping(item, "metricLabels")
    return ",".join(f"{name}={labels[name]}" for name in sorted(labels)) or text(item, "metricName")


def _quantity(item: Mapping[str, Any], key: str) -> Quantity | None:
    value = item.get(key)
    try:
        return parse(value) if isinstance(value, str | int | float) else None
    except InvalidQuantity:
        return None
