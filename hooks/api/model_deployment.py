"""The kind ModelDeployment: a model that is served in the cluster and, when needed, by a remote backend.

It has every field of the original API with its name, type and default, so that a manifest written for the original
applies unchanged.
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
    MOST_CONDITIONS,
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
"""Kinds that `spec.modelSourceRef` may refer to, all of them in apps/v1."""


MOST_POLICIES: Final = 64
"""Policies that a specification names, at most."""


class ModelSourceReference(ObjectReference):
    """Reference to the workload that serves the model in this namespace."""

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
    """Reference to a Service and to one of its ports."""

    model_config = schema_config(
        cel_rule("has(self.name) && self.name != ''", "name is missing: name the Service"),
        x_kubernetes_map_type="atomic",
        x_must_be="a reference, such as {name: demo, targetPort: 8000}",
    )

    target_port: Port | None = None
    """Number of the port of the Service. Defaults to the only port of the Service; required if it has several."""


class PolicyRefType(StrEnum):
    """Where a policy is defined."""

    REMOTE = "remotePolicy"
    LOCAL = "localPolicy"


class PolicyReference(ObjectReference):
    """Reference to a policy that the model must obey."""

    model_config = schema_config(
        cel_rule("has(self.name) && self.name != ''", "name is missing: name the policy"),
        x_kubernetes_map_type="atomic",
        x_must_be="a reference, such as {name: eu, refType: localPolicy}",
    )

    ref_type: PolicyRefType = PolicyRefType.REMOTE
    """Where the policy is defined. localPolicy: a Policy object in this namespace. remotePolicy: a policy on the remote
    platform; it cannot be evaluated here, so nothing is offloaded. Defaults to remotePolicy."""
    name: Name | None = None
    """Name of the policy."""


class ServerlessConfig(ApiModel):
    """Scaling of the model on the remote platform. The values are passed to the platform as they are."""

    min_num_replicas: Replicas = 0
    """Minimum number of replicas. Defaults to 0."""
    max_num_replicas: Replicas = 10
    """Maximum number of replicas. Defaults to 10."""
    metric: Text | None = None
    """Metric that the platform scales by."""
    target: Text | None = None
    """Target value of the metric."""
    scale_up_minimum: Annotated[int, Field(ge=2, le=2147483647)] | None = None
    """Minimum number of replicas after scaling up from 0."""
    scale_down_delay: Text | None = None
    """Duration to wait before scaling down, for example 5m."""
    stable_window: Text | None = None
    """Duration over which the metric is averaged, for example 1m."""
    last_pod_retention_period: Text | None = None
    """Duration for which the last replica is kept without requests, for example 10m."""


class Server(ApiModel):
    """Deployment that the controller creates to serve the model."""

    model_config = schema_config(
        cel_rule(
            "has(self.replicas) == has(oldSelf.replicas)",
            "server.replicas cannot be added or removed later, for then two writers would own the number of replicas:"
            " keep it as it was, or create a new ModelDeployment",
        )
    )

    replicas: Replicas | None = None
    """Number of desired pods. Must not be set if a HorizontalPodAutoscaler sets the number of pods. Can be changed
    later, but neither added nor removed."""
    port: Port
    """Number of the port on which the container serves the model."""
    template: Annotated[
        Mapping[str, Any],
        Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True}),
        must_be("a pod template, as in a Deployment: {metadata: …, spec: …}"),
    ]
    """Template of the pods, as in a Deployment, with metadata and spec."""


class ModelDeploymentSpec(ApiModel):
    """Desired state of a ModelDeployment."""

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
    """Name of the model on the remote platform. Replaces $model in path prefixes."""
    enabled: bool = True
    """Whether requests may be offloaded and the model is registered on the platform. If false, all requests go to the
    local replicas. Defaults to true."""
    model_source_ref: ModelSourceReference | None = None
    """Workload that serves the model: a Deployment, StatefulSet, DaemonSet or ReplicaSet in this namespace. Exactly one
    of modelSourceRef and server must be set."""
    server: Server | None = None
    """Deployment that the controller creates to serve the model. Exactly one of modelSourceRef and server must be
    set."""
    service_ref: ServiceReference | None = None
    """Service in front of the workload, if there is one. Clients can go on using its name at the gateway."""
    metric_service_ref: ServiceReference | None = None
    """Service that exposes the metrics of the model."""
    environment: Annotated[str, StringConstraints(max_length=63)] = "production"
    """Environment of the model on the platform: production or development. Defaults to production."""
    policies: Annotated[tuple[PolicyReference, ...], Field(max_length=MOST_POLICIES, json_schema_extra=LIST_ATOMIC)] = (
        Field(default=(), json_schema_extra={"default": [], "x-default": True})
    )
    """Policies on where requests may go. All of them must allow the location and the flavors of the remote backend. If
    one does not, or does not exist, nothing is offloaded, and the condition PolicySatisfied says why."""
    serverless_config: ServerlessConfig | None = None
    """Scaling of the model on the remote platform."""
    offloading_config: OffloadingConfig | None = None
    """Where requests are offloaded to, when, and how many. If not set, nothing is offloaded."""
    gateway: Gateway | None = None
    """How the gateway treats the requests for the model."""

    @model_validator(mode="after")
    def _one_workload(self) -> Self:
        if (self.model_source_ref is None) == (self.server is None):
            raise Mistake("set exactly one of modelSourceRef and server")
        return self


MOST_METRIC_STATES: Final = 64
"""States of metrics that a status has, at most."""


class MetricState(ApiModel):
    """State of one metric."""

    name: MetricName
    """Name of the metric."""
    type: Annotated[str, StringConstraints(max_length=32)]
    """Type of the metric, as in spec."""
    state: Annotated[str, StringConstraints(max_length=64)]
    """State of the metric as one word. Reached: it is at its target. Below: it is so far below its target that requests
    may come back. Between: it is below its target, but not that far. Noise does not change this word while requests are
    offloaded. Any other word is the reason why the metric cannot be read."""


class FailedAttempts(ApiModel):
    """Numbers of failed attempts to lower the percentage of offloaded requests, counted up to 3."""

    supported: Annotated[int, Field(ge=0, le=3)] = 0
    """Failed attempts that an estimate supported."""
    blind: Annotated[int, Field(ge=0, le=3)] = 0
    """Failed attempts that no estimate supported."""


class DrillState(ApiModel):
    """Drill by hand: an override of mode Drill, and what came of it."""

    percentage: Percentage
    """Percentage of the requests that the override sent to the remote backend."""
    since: Time
    """Time at which it began."""
    until: Time
    """Time at which the override ends."""
    outcome: Annotated[str, StringConstraints(max_length=32)]
    """Outcome as one word. Running: it lasts. Passed: the remote backend has served since it began. Failed: the remote
    backend was found not to serve. Unproven: nothing is known of a success. Interrupted: the override was changed or
    taken away."""
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Message for people about the outcome."""


class OffloadingState(ApiModel):
    """State of offloading. The controller also reads it back at its next decision."""

    percentage: Percentage = 0
    """Percentage of the requests that go to the remote backend."""
    reason: Annotated[str, StringConstraints(max_length=64)] = ""
    """Reason for the percentage, as one word for programs."""
    message: Annotated[str, StringConstraints(max_length=4096)] = ""
    """Message for people about the reason."""
    since: Time | None = None
    """Time since which the percentage has been what it is."""
    reached_since: Time | None = None
    """Time since which a metric has been at its target. Not set while none is."""
    below_since: Time | None = None
    """Time since which all metrics have allowed requests to come back. Not set while one does not."""
    step: Percentage | None = None
    """Difference between behavior.percentage and the percentage that the metrics ask for, in percentage points. Not set
    while the metrics ask for none."""
    held_share: Percentage | None = None
    """Percentage that comes back. With claim: the one from before the last step down, when a metric reaches its target
    again. Without claim: the one that the metrics ask for, when an override or an outage ends. Not set otherwise."""
    claim: Annotated[str, StringConstraints(max_length=32)] | None = None
    """Ground of the last step down, while it is on trial. Supported: an estimate with more requests here was below the
    targets. Blind: only the metrics as they were. Not set while no step is on trial."""
    attempts: FailedAttempts | None = None
    """Failed attempts to lower the percentage. Each doubles the wait before the next one. Not set while none has failed
    since every request was last served locally for eight windows."""
    metrics: Annotated[
        tuple[MetricState, ...], Field(max_length=MOST_METRIC_STATES, json_schema_extra=LIST_ATOMIC)
    ] = ()
    """State of each metric, in the order of spec."""
    drill: DrillState | None = None
    """Last drill by hand. Not set before the first one."""


class ModelDeploymentStatus(ApiModel):
    """Observed state of a ModelDeployment."""

    observed_generation: Generation | None = None
    """The metadata.generation that this status was computed for."""
    conditions: Annotated[
        tuple[Condition, ...], Field(max_length=MOST_CONDITIONS, json_schema_extra=LIST_MAP_BY_TYPE)
    ] = ()
    """Conditions of the ModelDeployment. Their types are Accepted, RefsResolved, LocalReady, MetricsAvailable,
    Offloading, OffloadReady, PolicySatisfied, Registered, Synced and Ready."""
    offloading_status: bool | None = None
    """Whether requests are being offloaded."""
    offloading: OffloadingState | None = None
    """Percentage of the requests that are offloaded, with the reason."""
    serving_port: Port | None = None
    """Number of the port on which the pods serve the model."""
    metric_port: Port | None = None
    """Number of the port on which the pods expose metrics."""
    workspace: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Workspace of the model on the platform."""
    created_at_on_beamlit: Time | None = None
    """Time at which the model was created on the platform."""
    updated_at_on_beamlit: Time | None = None
    """Time at which the model was last changed on the platform."""
    platform: PlatformState | None = None
    """State of the registration on the platform."""

    def condition(self, type_: str) -> Condition | None:
        """Return the condition of a type, or None if there is none."""
        return next((condition for condition in self.conditions if condition.type == type_), None)


class ModelDeployment(ApiObject):
    """Model that is served in this cluster and, when the capacity here is not enough, by a remote backend."""

    api_version: Literal["deployment.beamlit.com/v1alpha1"] = "deployment.beamlit.com/v1alpha1"
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: ObjectMeta
    spec: ModelDeploymentSpec
    """Desired state of the ModelDeployment."""
    status: ModelDeploymentStatus = ModelDeploymentStatus()
    """Observed state of the ModelDeployment. Written by the controller."""
