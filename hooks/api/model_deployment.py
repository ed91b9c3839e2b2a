"""ModelDeployment: a model that is served here and, when capacity is not enough, by a remote backend.

Every field, type and default of the original API is here, so a manifest written for it applies unchanged.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    Field,
    StringConstraints,
    model_validator,
)

from hooks.api.common import (
    LIST_ATOMIC,
    LIST_MAP_BY_TYPE,
    ApiModel,
    ApiObject,
    Condition,
    Generation,
    Name,
    ObjectMeta,
    ObjectReference,
    Percentage,
    PlatformState,
    Port,
    Replicas,
    Text,
    Time,
    cel_rule,
    schema_config,
)
from hooks.api.gateway import Gateway
from hooks.api.metrics import MetricName
from hooks.api.offloading import OffloadingConfig
from program.problems import Mistake, must_be

WORKLOAD_KINDS: Final = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
"""What `spec.modelSourceRef` may point to, all of them in apps/v1."""


class ModelSourceReference(ObjectReference):
    """The workload that serves the model."""

    model_config = schema_config(
        cel_rule(
            "has(self.name) && self.name != ''",
            "modelSourceRef.name is missing: name the workload that serves the model",
        ),
        cel_rule(
            "has(self.kind) && self.kind in ['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet']",
            "modelSourceRef.kind must be Deployment, StatefulSet, DaemonSet or ReplicaSet",
        ),
        x_kubernetes_map_type="atomic",
        x_must_be="a reference, such as {kind: Deployment, name: demo}",
    )


class ServiceReference(ObjectReference):
    """A Service and one of its ports."""

    model_config = schema_config(
        cel_rule("has(self.name) && self.name != ''", "name is missing: name the Service"),
        x_kubernetes_map_type="atomic",
        x_must_be="a reference, such as {name: demo, targetPort: 8000}",
    )

    target_port: Port | None = None
    """Port of the Service that requests go to; may be left out where the Service has only one."""


class PolicyRefType(StrEnum):
    """Where a policy is."""

    REMOTE = "remotePolicy"
    LOCAL = "localPolicy"


class PolicyReference(ObjectReference):
    """A policy that the model must obey."""

    model_config = schema_config(
        cel_rule("has(self.name) && self.name != ''", "name is missing: name the policy"),
        x_kubernetes_map_type="atomic",
        x_must_be="a reference, such as {name: eu, refType: localPolicy}",
    )

    ref_type: PolicyRefType = PolicyRefType.REMOTE
    """localPolicy for a Policy object in this namespace. remotePolicy for one on the remote platform, which cannot be
    evaluated here: nothing is offloaded."""
    name: Name | None = None
    """Name of the policy."""


class ServerlessConfig(ApiModel):
    """How the remote platform scales the model. Passed to the platform as it is."""

    min_num_replicas: Replicas = 0
    """Fewest replicas."""
    max_num_replicas: Replicas = 10
    """Most replicas."""
    metric: Text | None = None
    """Metric that the platform scales by."""
    target: Text | None = None
    """Target value of the metric."""
    scale_up_minimum: Annotated[int, Field(ge=2, le=2147483647)] | None = None
    """Fewest replicas after scaling up from none."""
    scale_down_delay: Text | None = None
    """How long to wait before scaling down, for instance 5m."""
    stable_window: Text | None = None
    """The time over which the metric is averaged, for instance 1m."""
    last_pod_retention_period: Text | None = None
    """How long the last replica is kept without requests, for instance 10m."""


class Server(ApiModel):
    """A Deployment that the controller creates to serve the model."""

    model_config = schema_config(
        cel_rule(
            "has(self.replicas) == has(oldSelf.replicas)",
            "server.replicas cannot be added or removed later, for then two writers would own the number of replicas:"
            " keep it as it was, or create a new ModelDeployment",
        )
    )

    replicas: Replicas | None = None
    """Number of pods. Leave it out where a HorizontalPodAutoscaler sets it. May be changed, not added or removed."""
    port: Port
    """Port of the container that serves the model."""
    template: Annotated[
        Mapping[str, Any],
        Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}),
        must_be("a pod template, as in a Deployment: {metadata: …, spec: …}"),
    ]
    """Pod template, as in a Deployment: metadata and spec."""


class ModelDeploymentSpec(ApiModel):
    """What is wanted: a model, the workload that serves it here, and when its requests go elsewhere."""

    model_config = schema_config(
        cel_rule(
            "has(self.modelSourceRef) != has(self.server)",
            "set exactly one of modelSourceRef (a workload that exists) and server (one that the controller creates)",
        ),
        cel_rule(
            "!has(self.gateway) || !has(self.gateway.serviceName) || !has(self.serviceRef)"
            " || !has(self.serviceRef.name) || self.gateway.serviceName != self.serviceRef.name",
            "gateway.serviceName must not be the Service of serviceRef: choose a new name, which leads to the gateway",
        ),
        cel_rule(
            "!has(self.gateway) || !has(self.gateway.queue)"
            " || (has(self.offloadingConfig) && has(self.offloadingConfig.behavior)"
            " && has(self.offloadingConfig.behavior.overflow))",
            "gateway.queue is for requests beyond a limit: set offloadingConfig.behavior.overflow.inFlight",
        ),
    )

    model: Annotated[
        str,
        StringConstraints(min_length=1, max_length=1024),
        must_be("the name of the model on the remote platform, such as llama-3-8b"),
    ]
    """Name of the model on the remote platform; $model in path prefixes."""
    enabled: bool = True
    """Whether the model may be offloaded and is registered with the platform. When false, every request stays here."""
    model_source_ref: ModelSourceReference | None = None
    """The workload that serves the model: a Deployment, StatefulSet, DaemonSet or ReplicaSet in this namespace."""
    server: Server | None = None
    """A workload to create, instead of modelSourceRef."""
    service_ref: ServiceReference | None = None
    """The Service in front of the workload, if there is one; its names keep working through the gateway."""
    metric_service_ref: ServiceReference | None = None
    """The Service that exposes the model's metrics."""
    environment: Annotated[str, StringConstraints(max_length=63)] = "production"
    """Environment on the platform: production or development."""
    policies: Annotated[tuple[PolicyReference, ...], Field(max_length=64, json_schema_extra=LIST_ATOMIC)] = Field(
        default=(), json_schema_extra={"default": [], "x-default": True}
    )
    """Policies on where requests may go, all of which must allow the remote backend: by its location and flavors. With
    one that does not, or is not there, nothing is offloaded, and the condition PolicySatisfied says why."""
    serverless_config: ServerlessConfig | None = None
    """How the remote platform scales the model."""
    offloading_config: OffloadingConfig | None = None
    """Where, when and how much to offload; without it nothing is ever offloaded."""
    gateway: Gateway | None = None
    """How the gateway serves this model."""

    @model_validator(mode="after")
    def _one_workload(self) -> Self:
        if (self.model_source_ref is None) == (self.server is None):
            raise Mistake("set exactly one of modelSourceRef and server")
        return self


class MetricState(ApiModel):
    """What is known of one metric."""

    name: MetricName
    """Name of the metric."""
    type: Annotated[str, StringConstraints(max_length=32)]
    """Type of the metric, as in spec."""
    state: Annotated[str, StringConstraints(max_length=64)]
    """Reached, Below, Between (below its target, and not far enough to release), or why it cannot be read, as one
    word."""


class OffloadingState(ApiModel):
    """The present split and why. It is also the controller's memory between two syncs."""

    percentage: Percentage = 0
    """Share of the requests that go to the remote backend."""
    reason: Annotated[str, StringConstraints(max_length=64)] = ""
    """Why, as one word."""
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Why, as a sentence."""
    since: Time | None = None
    """Since when percentage has been what it is."""
    reached_since: Time | None = None
    """Since when a metric has been at its target."""
    below_since: Time | None = None
    """Since when the metrics have allowed the share to go down."""
    step: Percentage | None = None
    """How far the share that the metrics ask for is below behavior.percentage, in points of percent. Absent while they
    ask for none."""
    metrics: Annotated[tuple[MetricState, ...], Field(max_length=64, json_schema_extra=LIST_ATOMIC)] = ()
    """What is known of each metric."""


class ModelDeploymentStatus(ApiModel):
    """What is observed."""

    observed_generation: Generation | None = None
    """The metadata.generation that this status is about."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=LIST_MAP_BY_TYPE)] = ()
    """Accepted, RefsResolved, LocalReady, MetricsAvailable, Offloading, PolicySatisfied, Registered, Synced, Ready."""
    offloading_status: bool | None = None
    """Whether requests are being offloaded."""
    offloading: OffloadingState | None = None
    """The present split and why."""
    serving_port: Port | None = None
    """Port inside the pod that serves the model."""
    metric_port: Port | None = None
    """Port inside the pod that exposes metrics."""
    workspace: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Workspace of the model on the platform."""
    created_at_on_beamlit: Time | None = None
    """When the model was created on the platform."""
    updated_at_on_beamlit: Time | None = None
    """When the model was last changed on the platform."""
    platform: PlatformState | None = None
    """What is remembered of the platform."""

    def condition(self, type_: str) -> Condition | None:
        """The condition of that type, or None."""
        return next((condition for condition in self.conditions if condition.type == type_), None)


class ModelDeployment(ApiObject):
    """A model that is served in this cluster and, when capacity here is not enough, by a remote backend."""

    api_version: Literal["deployment.beamlit.com/v1alpha1"] = "deployment.beamlit.com/v1alpha1"
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: ObjectMeta
    spec: ModelDeploymentSpec
    """What is wanted."""
    status: ModelDeploymentStatus = ModelDeploymentStatus()
    """What is observed. Written by the controller."""
