"""Targets of metrics: which target each type of metric may have, and the amount at which it is reached.

The formulas are those of the HorizontalPodAutoscaler. A ratio of 1 means that the target is reached.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Final

from hooks.api.metrics import (
    ContainerResourceMetric,
    ExternalMetric,
    MetricSpec,
    MetricTarget,
    MetricType,
    ObjectMetric,
    PodsMetric,
    ResourceMetric,
)
from hooks.kube.quantities import NANO, InvalidQuantity, parse

RESOURCES: Final = ("cpu", "memory")
"""Resources that Kubernetes measures for every container."""


class TargetType(StrEnum):
    """The type of a target, as in autoscaling/v2."""

    UTILIZATION = "Utilization"
    VALUE = "Value"
    AVERAGE_VALUE = "AverageValue"


@dataclass(frozen=True, slots=True)
class Scale:
    """The factors that a target may be multiplied by."""

    requested: Fraction
    """Requests of the counted pods for the resource, in its unit."""
    pods: int
    """Number of counted pods."""
    replicas: int
    """Number of ready replicas."""


Formula = Callable[[Scale], Fraction]
"""A function that selects the factor of a target."""


def utilization(scale: Scale) -> Fraction:
    """What is measured, over averageUtilization percent of what the counted pods request."""
    return scale.requested


def per_pod(scale: Scale) -> Fraction:
    """What is measured, over averageValue times the number of counted pods."""
    return Fraction(scale.pods)


def per_replica(scale: Scale) -> Fraction:
    """What is measured, over averageValue times the number of ready replicas."""
    return Fraction(scale.replicas)


def whole(scale: Scale) -> Fraction:  # noqa: ARG001
    """What is measured, over value."""
    return Fraction(1)


MEASURED: Final[Mapping[MetricType, str]] = {
    MetricType.RESOURCE: "Use of cpu or memory, added up over all containers of the counted pods.",
    MetricType.CONTAINER_RESOURCE: "Use of cpu or memory by the named container, added up over the counted pods.",
    MetricType.PODS: "The metric, added up over the counted pods.",
    MetricType.OBJECT: "The metric of the described object.",
    MetricType.EXTERNAL: "The metric, added up over all its series.",
}
"""Description of what is measured, for each type of metric."""

TABLE: Final[Mapping[tuple[MetricType, TargetType], Formula]] = {
    (MetricType.RESOURCE, TargetType.UTILIZATION): utilization,
    (MetricType.RESOURCE, TargetType.AVERAGE_VALUE): per_pod,
    (MetricType.CONTAINER_RESOURCE, TargetType.UTILIZATION): utilization,
    (MetricType.CONTAINER_RESOURCE, TargetType.AVERAGE_VALUE): per_pod,
    (MetricType.PODS, TargetType.AVERAGE_VALUE): per_pod,
    (MetricType.OBJECT, TargetType.VALUE): whole,
    (MetricType.OBJECT, TargetType.AVERAGE_VALUE): per_replica,
    (MetricType.EXTERNAL, TargetType.VALUE): whole,
    (MetricType.EXTERNAL, TargetType.AVERAGE_VALUE): per_replica,
}
"""Formula for each type of metric with each type of target. A combination that is absent is Misdeclared."""


@dataclass(frozen=True, slots=True)
class Declared:
    """A metric with a valid declaration."""

    type: MetricType
    formula: Formula
    target: Fraction
    """Positive target: a fraction of the requests for Utilization (80 % is 4/5), else an amount."""
    resource: str = ""
    """Name of the resource, for Resource and ContainerResource."""
    container: str | None = None
    """Name of the container, for ContainerResource."""
    described: str = ""
    """Name of the described object, for Object."""
    amount: str = ""
    """Target as it is written, such as 1500Mi."""


class Misdeclared(ValueError):
    """The metric cannot be measured as it is specified. The message is a sentence that says what to change."""


_Source = ResourceMetric | ContainerResourceMetric | PodsMetric | ObjectMetric | ExternalMetric
_FIELDS: Final[Mapping[MetricType, str]] = {
    MetricType.RESOURCE: "resource",
    MetricType.CONTAINER_RESOURCE: "containerResource",
    MetricType.PODS: "pods",
    MetricType.OBJECT: "object",
    MetricType.EXTERNAL: "external",
}
_AMOUNTS: Final[Mapping[Formula, str]] = {
    utilization: "averageUtilization",
    per_pod: "averageValue",
    per_replica: "averageValue",
    whole: "value",
}


def declared(metric: MetricSpec) -> Declared:
    """Return the declaration of a metric.

    Raises:
        Misdeclared: it asks for nothing that can be measured.
    """
    field = _FIELDS[metric.type]
    source = _source(metric, field)
    formula, target, amount = _target(metric.type, source.target, f"{field}.target")
    match source:
        case ResourceMetric() | ContainerResourceMetric():
            if source.name not in RESOURCES:
                raise Misdeclared(f"{field}.name must be cpu or memory; other metrics of pods are of type Pods.")
            container = source.container if isinstance(source, ContainerResourceMetric) else None
            return Declared(metric.type, formula, target, resource=source.name, container=container, amount=amount)
        case _:
            if not source.metric.name:
                raise Misdeclared(f"{field}.metric.name is missing.")
            described = source.described_object.name if isinstance(source, ObjectMetric) else ""
            return Declared(metric.type, formula, target, described=described, amount=amount)


def metric_name(metric: MetricSpec) -> str:
    """Return the name of the metric in status and messages: its type where the specification does not name it."""
    match metric.type:
        case MetricType.RESOURCE if metric.resource is not None:
            name = metric.resource.name
        case MetricType.CONTAINER_RESOURCE if metric.container_resource is not None:
            name = f"{metric.container_resource.container}/{metric.container_resource.name}"
        case MetricType.PODS if metric.pods is not None:
            name = metric.pods.metric.name
        case MetricType.OBJECT if metric.object is not None:
            name = metric.object.metric.name
        case MetricType.EXTERNAL if metric.external is not None:
            name = metric.external.metric.name
        case _:
            name = ""
    return name or metric.type


def _source(metric: MetricSpec, field: str) -> _Source:
    """Return the one field that describes the metric."""
    fields: dict[str, _Source | None] = {
        "resource": metric.resource,
        "containerResource": metric.container_resource,
        "pods": metric.pods,
        "object": metric.object,
        "external": metric.external,
    }
    source = fields.pop(field)
    if source is None:
        raise Misdeclared(f"{field} is missing: it describes a metric of type {metric.type}.")
    for name, other in fields.items():
        if other is not None:
            raise Misdeclared(f"{name} does not belong to a metric of type {metric.type}: remove it.")
    return source


def _target(type_: MetricType, target: MetricTarget, path: str) -> tuple[Formula, Fraction, str]:
    """Return the formula that target.type selects, and the amount in the field of that type, also as it is written."""
    formulas = {known: formula for (of, known), formula in TABLE.items() if of is type_}
    formula = next((formula for known, formula in formulas.items() if known == target.type), None)
    if formula is None:
        raise Misdeclared(f"{path}.type of a metric of type {type_} must be {' or '.join(formulas)}.")
    amounts = {
        "averageUtilization": target.average_utilization,
        "value": target.value,
        "averageValue": target.average_value,
    }
    field = _AMOUNTS[formula]
    amount, where = amounts.pop(field), f"{path}.{field}"
    for name, other in amounts.items():
        if other is not None:
            raise Misdeclared(f"{path}.{name} does not belong to type {target.type}: remove it.")
    if amount is None:
        raise Misdeclared(f"{where} is missing.")
    try:
        value = Fraction(parse(amount).nanos, NANO)
    except InvalidQuantity as exc:
        raise Misdeclared(f"{where}: {exc}.") from None
    if value <= 0:
        raise Misdeclared(f"{where} must be more than zero.")
    return formula, Fraction(value, 100) if formula is utilization else value, str(amount)
