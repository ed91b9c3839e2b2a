"""Metrics, as in a HorizontalPodAutoscaler of autoscaling/v2."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

from pydantic import (
    Field,
    StringConstraints,
)

from hooks.api.common import LIST_ATOMIC, ApiModel, Name, Quantity, cel_rule, schema_config

MetricName = Annotated[str, StringConstraints(max_length=4096)]


class LabelSelectorRequirement(ApiModel):
    """One requirement of a label selector."""

    key: Annotated[str, StringConstraints(max_length=317)]
    """Label key."""
    operator: Annotated[str, StringConstraints(max_length=16)]
    """In, NotIn, Exists or DoesNotExist."""
    values: Annotated[tuple[Annotated[str, StringConstraints(max_length=63)], ...], Field(max_length=64)] = Field(
        default=(), json_schema_extra=LIST_ATOMIC
    )
    """Label values."""


class LabelSelector(ApiModel):
    """A label selector, as meta/v1 LabelSelector."""

    model_config = schema_config(x_kubernetes_map_type="atomic")

    match_labels: Annotated[
        Mapping[str, Annotated[str, StringConstraints(max_length=63)]],
        Field(max_length=64),
    ] = Field(default_factory=dict)
    """Labels with their values."""
    match_expressions: Annotated[
        tuple[LabelSelectorRequirement, ...], Field(max_length=32, json_schema_extra=LIST_ATOMIC)
    ] = ()
    """Requirements, all of which must hold."""


class MetricIdentifier(ApiModel):
    """A metric by name and labels."""

    name: MetricName
    """Name of the metric. With a Prometheus-compatible server, PromQL."""
    selector: LabelSelector | None = None
    """Labels that the metric's series must have."""


class MetricTarget(ApiModel):
    """The value at which the metric triggers, as autoscaling/v2 MetricTarget."""

    model_config = schema_config(x_must_be="a target, such as {type: AverageValue, averageValue: 10}")

    type: Annotated[str, StringConstraints(max_length=32)]
    """Utilization, Value or AverageValue."""
    value: Quantity | None = None
    """Target of the metric itself."""
    average_value: Quantity | None = None
    """Target of the metric's average over the pods."""
    average_utilization: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    """Target of the average use, in percent of the requested amount."""


class ResourceMetric(ApiModel):
    """Use of cpu or memory by the pods."""

    name: Name
    """cpu or memory."""
    target: MetricTarget
    """The value at which the metric triggers."""


class ContainerResourceMetric(ApiModel):
    """Use of cpu or memory by one container of the pods."""

    name: Name
    """cpu or memory."""
    container: Annotated[str, StringConstraints(max_length=63)]
    """Name of the container."""
    target: MetricTarget
    """The value at which the metric triggers."""


class PodsMetric(ApiModel):
    """A metric of every pod, averaged."""

    metric: MetricIdentifier
    """The metric."""
    target: MetricTarget
    """The value at which the metric triggers."""


class CrossVersionObjectReference(ApiModel):
    """An object in this namespace."""

    api_version: Annotated[str, StringConstraints(max_length=253)] | None = None
    """API version of the object."""
    kind: Annotated[str, StringConstraints(max_length=63)]
    """Kind of the object."""
    name: Name
    """Name of the object."""


class ObjectMetric(ApiModel):
    """A metric of one Kubernetes object."""

    described_object: CrossVersionObjectReference
    """The object."""
    metric: MetricIdentifier
    """The metric."""
    target: MetricTarget
    """The value at which the metric triggers."""


class ExternalMetric(ApiModel):
    """A metric of something outside the cluster."""

    metric: MetricIdentifier
    """The metric."""
    target: MetricTarget
    """The value at which the metric triggers."""


class MetricType(StrEnum):
    """Where a metric comes from, as in autoscaling/v2."""

    RESOURCE = "Resource"
    CONTAINER_RESOURCE = "ContainerResource"
    PODS = "Pods"
    OBJECT = "Object"
    EXTERNAL = "External"


class MetricSpec(ApiModel):
    """One metric, as autoscaling/v2 MetricSpec."""

    model_config = schema_config(
        cel_rule(
            "self.type == 'Resource' ? has(self.resource)"
            " : self.type == 'ContainerResource' ? has(self.containerResource)"
            " : self.type == 'Pods' ? has(self.pods)"
            " : self.type == 'Object' ? has(self.object)"
            " : has(self.external)",
            "describe the metric in the field named by type: resource, containerResource, pods, object or external",
        ),
    )

    type: MetricType
    """Where the metric comes from; the field of that name describes it."""
    resource: ResourceMetric | None = None
    """For type Resource."""
    container_resource: ContainerResourceMetric | None = None
    """For type ContainerResource."""
    pods: PodsMetric | None = None
    """For type Pods."""
    object: ObjectMetric | None = None
    """For type Object."""
    external: ExternalMetric | None = None
    """For type External."""
