"""Targets: which may be set for which metric, and the messages about any other."""

from fractions import Fraction
from itertools import product
from typing import Any

import pytest

from hooks.api.metrics import MetricSpec, MetricType
from hooks.offloading.targets import (
    MEASURED,
    TABLE,
    Declared,
    Misdeclared,
    TargetType,
    declared,
    metric_name,
    utilization,
)
from tests.builders import Json

FIELDS: dict[MetricType, tuple[str, Json]] = {
    MetricType.RESOURCE: ("resource", {"name": "cpu"}),
    MetricType.CONTAINER_RESOURCE: ("containerResource", {"name": "cpu", "container": "server"}),
    MetricType.PODS: ("pods", {"metric": {"name": "queue"}}),
    MetricType.OBJECT: (
        "object",
        {"metric": {"name": "queue"}, "describedObject": {"kind": "Service", "name": "demo"}},
    ),
    MetricType.EXTERNAL: ("external", {"metric": {"name": "queue"}}),
}
AMOUNTS: dict[TargetType, Json] = {
    TargetType.UTILIZATION: {"averageUtilization": 80},
    TargetType.VALUE: {"value": "1500m"},
    TargetType.AVERAGE_VALUE: {"averageValue": "1500m"},
}


def metric(type_: MetricType, target: Json, **others: Any) -> MetricSpec:
    """Return a metric of this type with this target."""
    field, source = FIELDS[type_]
    return MetricSpec.model_validate({"type": type_, field: source | {"target": target}} | others)


def problem(spec: MetricSpec) -> str:
    """Return the message about a metric that is misdeclared."""
    with pytest.raises(Misdeclared) as caught:
        declared(spec)
    return str(caught.value)


@pytest.mark.parametrize(("type_", "target"), list(product(MetricType, TargetType)))
def test_the_table_decides_which_targets_fit(type_: MetricType, target: TargetType) -> None:
    """A combination in the table is accepted with its amount; any other is refused with those that fit."""
    spec = metric(type_, {"type": target} | AMOUNTS[target])
    formula = TABLE.get((type_, target))
    if formula is None:
        assert problem(spec).startswith(f"{FIELDS[type_][0]}.target.type of a metric of type {type_} must be ")
    else:
        result = declared(spec)
        assert (result.formula, result.target) == (
            formula,
            Fraction(4, 5) if formula is utilization else Fraction(3, 2),
        )


def test_the_samples_that_a_metric_needs() -> None:
    """The resource, the container and the described object are each taken from their own field."""

    def declare(type_: MetricType, target: TargetType) -> Declared:
        return declared(metric(type_, {"type": target} | AMOUNTS[target]))

    resource = declare(MetricType.RESOURCE, TargetType.UTILIZATION)
    container = declare(MetricType.CONTAINER_RESOURCE, TargetType.UTILIZATION)
    described = declare(MetricType.OBJECT, TargetType.VALUE)
    external = declare(MetricType.EXTERNAL, TargetType.VALUE)
    assert (resource.resource, resource.container) == ("cpu", None)
    assert (container.resource, container.container) == ("cpu", "server")
    assert (described.resource, described.described) == ("", "demo")
    assert (external.resource, external.described) == ("", "")


def test_every_type_has_a_row() -> None:
    """Every type of metric has a target that fits it, and a sentence that says what is measured."""
    assert {type_ for type_, _ in TABLE} == set(MetricType) == set(MEASURED)


@pytest.mark.parametrize("amount", ["0", "-1", 0, -5, "0Mi", "-1Gi", "-0", "-5n"])
@pytest.mark.parametrize(("type_", "target"), [key for key in TABLE if key[1] is not TargetType.UTILIZATION])
def test_a_target_is_more_than_zero(type_: MetricType, target: TargetType, amount: str | int) -> None:
    """A target of zero or less is refused."""
    field = next(iter(AMOUNTS[target]))
    message = problem(metric(type_, {"type": target, field: amount}))
    assert message == f"{FIELDS[type_][0]}.target.{field} must be more than zero."


def test_a_utilization_is_more_than_zero() -> None:
    """A utilization of zero percent is refused, and does not count as absent."""
    spec = metric(MetricType.RESOURCE, {"type": "Utilization", "averageUtilization": 0})
    assert problem(spec) == "resource.target.averageUtilization must be more than zero."


@pytest.mark.parametrize(
    ("type_", "target", "sentence"),
    [
        (
            MetricType.RESOURCE,
            {"type": "Utilization", "averageValue": "1"},
            "resource.target.averageValue does not belong to type Utilization: remove it.",
        ),
        (
            MetricType.OBJECT,
            {"type": "Value", "value": "1", "averageValue": "1"},
            "object.target.averageValue does not belong to type Value: remove it.",
        ),
        (MetricType.PODS, {"type": "AverageValue"}, "pods.target.averageValue is missing."),
        (
            MetricType.EXTERNAL,
            {"type": "value", "value": "1"},
            "external.target.type of a metric of type External must be Value or AverageValue.",
        ),
        (
            MetricType.PODS,
            {"type": "AverageValue", "averageValue": "ten"},
            "pods.target.averageValue: 'ten' has no digits.",
        ),
    ],
)
def test_a_target_is_exactly_what_its_type_says(type_: MetricType, target: Json, sentence: str) -> None:
    """The amount of a target must be in the field of its type and in no other, and the message says what to change."""
    assert problem(metric(type_, target)) == sentence


@pytest.mark.parametrize("type_", [MetricType.RESOURCE, MetricType.CONTAINER_RESOURCE])
@pytest.mark.parametrize("name", ["nvidia.com/gpu", "", "CPU"])
def test_only_cpu_and_memory_are_resources(type_: MetricType, name: str) -> None:
    """A resource other than cpu and memory is refused, and the message leads to the type Pods."""
    field, source = FIELDS[type_]
    target = {"type": "AverageValue", "averageValue": 1}
    spec = MetricSpec.model_validate({"type": type_, field: source | {"name": name, "target": target}})
    assert problem(spec) == f"{field}.name must be cpu or memory; other metrics of pods are of type Pods."


@pytest.mark.parametrize("type_", [MetricType.PODS, MetricType.OBJECT, MetricType.EXTERNAL])
def test_a_metric_has_a_name(type_: MetricType) -> None:
    """A metric without a name is refused."""
    field, source = FIELDS[type_]
    target = {"type": "AverageValue", "averageValue": 1}
    spec = MetricSpec.model_validate({"type": type_, field: source | {"metric": {"name": ""}, "target": target}})
    assert problem(spec) == f"{field}.metric.name is missing."


@pytest.mark.parametrize("type_", MetricType)
def test_a_metric_is_described_in_the_field_of_its_type(type_: MetricType) -> None:
    """A metric without the field of its type is refused."""
    field, _ = FIELDS[type_]
    assert problem(MetricSpec(type=type_)) == f"{field} is missing: it describes a metric of type {type_}."


def test_a_metric_is_described_once() -> None:
    """A metric with the field of another type beside its own is refused, because it would be ignored."""
    pods = {"metric": {"name": "queue"}, "target": {"type": "AverageValue", "averageValue": 1}}
    spec = metric(MetricType.RESOURCE, {"type": "Utilization", "averageUtilization": 80}, pods=pods)
    assert problem(spec) == "pods does not belong to a metric of type Resource: remove it."


@pytest.mark.parametrize(
    ("type_", "name"),
    [
        (MetricType.RESOURCE, "cpu"),
        (MetricType.CONTAINER_RESOURCE, "server/cpu"),
        (MetricType.PODS, "queue"),
        (MetricType.OBJECT, "queue"),
        (MetricType.EXTERNAL, "queue"),
    ],
)
def test_the_name_of_a_metric(type_: MetricType, name: str) -> None:
    """A metric has the name that its user gave, or that of its type where the field that describes it is missing."""
    assert metric_name(metric(type_, {"type": "Value"})) == name
    assert metric_name(MetricSpec.model_validate({"type": type_})) == type_
