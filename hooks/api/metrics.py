"""Types of `spec.offloadingConfig.metrics`, in the form of a HorizontalPodAutoscaler of autoscaling/v2."""

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
    """Requirement of a label selector."""

    key: Annotated[str, StringConstraints(max_length=1024)]
    """Key of the label."""
    operator: Annotated[str, StringConstraints(max_length=16)]
    """Relation of the label to the values: In, NotIn, Exists or DoesNotExist."""
    values: Annotated[tuple[Annotated[str, StringConstraints(max_length=1024)], ...], Field(max_length=64)] = Field(
        default=(), json_schema_extra=LIST_ATOMIC
    )
    """Values of the label. Must not be empty for In and NotIn, and must be empty for Exists and DoesNotExist."""


class LabelSelector(ApiModel):
    """Label selector, in the form of meta/v1 LabelSelector."""

    model_config = schema_config(x_kubernetes_map_type="atomic")

    match_labels: Annotated[
        Mapping[str, Annotated[str, StringConstraints(max_length=1024)]],
        Field(max_length=64),
    ] = Field(default_factory=dict)
    """Labels with the value that each must have."""
    match_expressions: Annotated[
        tuple[LabelSelectorRequirement, ...], Field(max_length=32, json_schema_extra=LIST_ATOMIC)
    ] = ()
    """Requirements on labels, all of which must be met."""


class MetricIdentifier(ApiModel):
    """Metric by its name and labels."""

    name: MetricName
    """Name of the metric. Where the controller reads metrics from a Prometheus-compatible server, a PromQL
    expression."""
    selector: LabelSelector | None = None
    """Selector for the labels of the metric's series."""


class MetricTarget(ApiModel):
    """Target of a metric, in the form of autoscaling/v2 MetricTarget."""

    model_config = schema_config(x_must_be="a target, such as {type: AverageValue, averageValue: 10}")

    type: Annotated[str, StringConstraints(max_length=32)]
    """Type of the target: Utilization, Value or AverageValue."""
    value: Quantity | None = None
    """Target value of the metric, as a quantity. For type Value."""
    average_value: Quantity | None = None
    """Target value of the average of the metric over all ready pods, as a quantity. For type AverageValue."""
    average_utilization: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    """Target value of the average of the resource metric over all ready pods, in percent of what the pods request. For
    type Utilization."""


class ResourceMetric(ApiModel):
    """Usage of a resource by the pods of the workload."""

    name: Name
    """Name of the resource: cpu or memory."""
    target: MetricTarget
    """Target of the metric."""


class ContainerResourceMetric(ApiModel):
    """Usage of a resource by one container of each pod of the workload."""

    name: Name
    """Name of the resource: cpu or memory."""
    container: Annotated[str, StringConstraints(max_length=63)]
    """Name of the container in the pods of the workload."""
    target: MetricTarget
    """Target of the metric."""


class PodsMetric(ApiModel):
    """Metric of each pod of the workload, of which the average is compared with the target."""

    metric: MetricIdentifier
    """Name and labels of the metric."""
    target: MetricTarget
    """Target of the metric."""


class CrossVersionObjectReference(ApiModel):
    """Reference to an object in the namespace of this object."""

    api_version: Annotated[str, StringConstraints(max_length=253)] | None = None
    """API version of the referent."""
    kind: Annotated[str, StringConstraints(max_length=63)]
    """Kind of the referent."""
    name: Name
    """Name of the referent."""


class ObjectMetric(ApiModel):
    """Metric of one Kubernetes object, such as requests per second of an Ingress."""

    described_object: CrossVersionObjectReference
    """Object that the metric describes."""
    metric: MetricIdentifier
    """Name and labels of the metric."""
    target: MetricTarget
    """Target of the metric."""


class ExternalMetric(ApiModel):
    """Metric of something outside the cluster, such as the length of a queue."""

    metric: MetricIdentifier
    """Name and labels of the metric."""
    target: MetricTarget
    """Target of the metric."""


class MetricType(StrEnum):
    """Source of a metric, as in autoscaling/v2."""

    RESOURCE = "Resource"
    CONTAINER_RESOURCE = "ContainerResource"
    PODS = "Pods"
    OBJECT = "Object"
    EXTERNAL = "External"


class MetricSpec(ApiModel):
    """Metric and its target, in the form of autoscaling/v2 MetricSpec."""

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
    """Type of the metric source. The field of the same name must be set: resource for Resource, containerResource for
    ContainerResource, and so on."""
    resource: ResourceMetric | None = None
    """Usage of a resource by the pods of the workload. For type Resource."""
    container_resource: ContainerResourceMetric | None = None
    """Usage of a resource by one container of each pod of the workload. For type ContainerResource."""
    pods: PodsMetric | None = None
    """Metric of each pod of the workload. For type Pods."""
    object: ObjectMetric | None = None
    """Metric of one Kubernetes object. For type Object."""
    external: ExternalMetric | None = None
    """Metric of something outside the cluster. For type External."""
