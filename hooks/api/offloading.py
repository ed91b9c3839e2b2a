"""Types of `spec.offloadingConfig`: when requests go to the remote backend, and how many."""

from enum import StrEnum
from typing import Annotated, Final

from pydantic import (
    Field,
    StringConstraints,
)

from hooks.api.common import LIST_ATOMIC, TIME_PATTERN, ApiModel, Percentage, Port, Time, schema_config
from hooks.api.metrics import MetricSpec
from hooks.api.remote_backend import RemoteBackend
from program.problems import MUST_BE, must_be

_PORT_NAME: Final = "^[a-z0-9-]*[a-z][a-z0-9-]*$"

PodPort = Annotated[
    Port | Annotated[str, StringConstraints(max_length=15, pattern=_PORT_NAME)],
    Field(
        json_schema_extra={
            "x-kubernetes-int-or-string": True,
            "pattern": _PORT_NAME,
            "minimum": 1,
            "maximum": 65535,
            MUST_BE: "the number of a port or the name that a container gives it, such as 8000 or http",
        }
    ),
]
"""Port of a pod, by its number or name."""

PagePath = Annotated[
    str,
    StringConstraints(max_length=1024, pattern=r"^/[A-Za-z0-9._~!$&'()*+,;=:@%/?-]*$"),
    must_be("a path, such as /metrics"),
]
"""Path of a page, percent-encoded, with its query."""


class OverrideMode(StrEnum):
    """Mode of an override."""

    NORMAL = "Normal"
    """The override gives way when no local replica is ready: then all requests go to the remote backend."""
    FORCE = "Force"
    """The override holds whether or not a local replica is ready."""
    DRILL = "Drill"
    """The override gives way as a Normal one does, and `status.offloading.drill` has its outcome."""


class Override(ApiModel):
    """Percentage that is set by hand until a moment in time. It takes the place of the metrics."""

    model_config = schema_config(x_must_be="an override, such as {percentage: 20, until: 2030-01-31T18:00:00Z}")

    percentage: Percentage
    """Percentage of the requests that go to the remote backend."""
    until: Annotated[Time, Field(json_schema_extra={"pattern": TIME_PATTERN, "maxLength": 40})]
    """Time at which the override ends, in RFC 3339 with its offset from UTC, for example 2030-01-31T18:00:00Z."""
    mode: OverrideMode = OverrideMode.NORMAL
    """Mode of the override. Normal: when no local replica is ready, all requests go to the remote backend nevertheless.
    Force: the percentage holds whether or not a local replica is ready; with 0 no request can reach the remote backend,
    with 100 none the local replicas. Drill: as Normal, and status.offloading.drill says whether the remote backend has
    served. Defaults to Normal."""


class OffloadingMode(StrEnum):
    """How the percentage of offloaded requests follows from the metrics."""

    FIXED = "fixed"
    PROPORTIONAL = "proportional"


class Signal(StrEnum):
    """How metrics react when requests go to the remote backend."""

    LOAD = "load"
    GAUGE = "gauge"


class OnMissingMetrics(StrEnum):
    """Effect of a metric that cannot be read."""

    HOLD = "hold"
    RELEASE = "release"
    OFFLOAD = "offload"


class Overflow(ApiModel):
    """Limit beyond which single requests go to the remote backend."""

    in_flight: Annotated[int, Field(ge=1, le=1000000)]
    """Maximum number of requests that the local replicas serve at the same time. Every gateway pod counts for itself,
    and a stream counts until its end. A request beyond it goes to the remote backend at once. While no remote backend
    takes it, it waits in gateway.queue; without a queue, or when the queue is full, it gets status 503."""
    first_token_seconds: Annotated[float, Field(ge=0.01, le=3600)] | None = None
    """Number of seconds within which the first event of a stream has to come. If set, every gateway pod finds by itself
    how many streams the local replicas can serve at the same time so that it does, inFlight at most, and treats a
    stream beyond that like a request beyond inFlight. A request that asks for no stream counts for inFlight only. If
    not set, only inFlight limits."""


class OffloadingBehavior(ApiModel):
    """How many requests are offloaded, and how soon."""

    percentage: Percentage = 100
    """Percentage of the requests that go to the remote backend while a metric is at its target. In mode proportional it
    is the maximum. Defaults to 100."""
    mode: OffloadingMode = OffloadingMode.FIXED
    """How the percentage of offloaded requests follows from the metrics. fixed: it is `percentage` as soon as a metric
    has been at its target for triggerWindowSeconds. proportional: it is what brings the metrics back to their targets,
    and changes with every new measurement. Defaults to fixed."""
    signal: Signal = Signal.LOAD
    """How the metrics react when requests go to the remote backend. load: they fall, so their values with all requests
    served locally are estimated before requests come back. gauge: they do not, as memory, a temperature or a price, so
    requests come back in steps. Defaults to load."""
    trigger_window_seconds: Annotated[int, Field(ge=0, le=3600)] = 15
    """Minimum number of seconds for which a metric must be at its target before requests are offloaded. Defaults to
    15."""
    release_window_seconds: Annotated[int, Field(ge=0, le=3600)] = 300
    """Minimum number of seconds for which all metrics must allow it before requests come back; less than 60, or than
    triggerWindowSeconds, counts as that. It begins again with every step. Defaults to 300."""
    tolerance: Annotated[float, Field(ge=0, le=0.99)] = 0.1
    """Fraction of the target by which every metric must be below its target before requests come back: 0.1 is a tenth
    of the target. Defaults to 0.1."""
    step_percentage: Annotated[int, Field(ge=1, le=100)] = 25
    """Maximum change of the percentage of offloaded requests in one step, in percentage points. Applies to requests
    that come back in steps, and to mode proportional. Defaults to 25."""
    on_missing_metrics: OnMissingMetrics = OnMissingMetrics.HOLD
    """Effect of a metric that cannot be read. hold: the percentage of offloaded requests stays as it is. release: the
    metric counts as below its target. offload: the metric counts as at its target. Defaults to hold."""
    not_ready_for_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    """Minimum number of seconds for which no local replica must be ready before all requests go to the remote backend.
    Defaults to 0, which is at once."""
    return_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    """Number of seconds over which requests come back, in steps of stepPercentage, when a local replica is ready again.
    Defaults to 0, which is at once."""
    overflow: Overflow | None = None
    """Limit on the local replicas beyond which single requests go to the remote backend, whatever the percentage is. If
    not set, there is no limit."""
    override: Override | None = None
    """Percentage that is set by hand until a moment in time. It takes the place of the metrics."""


class MetricSourceType(StrEnum):
    """Kind of the source that a model's metrics are read from."""

    PODS = "pods"


class MetricSource(ApiModel):
    """Source of the metrics of type Pods, instead of the one that the controller is configured with."""

    model_config = schema_config(x_must_be="a source, such as {type: pods, port: 8000}")

    type: MetricSourceType
    """Type of the source. pods: the gauges on the metrics page of each ready pod, as an engine such as vLLM has it for
    Prometheus."""
    port: PodPort | None = None
    """Port of the page, by its number or name. A container of the pods must declare it. Defaults to the port behind
    metricServiceRef, or else to the port that serves the model."""
    path: PagePath = "/metrics"
    """Path of the page, with its query if it has one. Defaults to /metrics."""


class OffloadingConfig(ApiModel):
    """Where requests are offloaded to, when, and how many."""

    remote_backend: RemoteBackend | None = None
    """Backend that offloaded requests go to. Defaults to the defaultRemoteBackend of the controller's configuration."""
    metrics: Annotated[tuple[MetricSpec, ...], Field(max_length=32, json_schema_extra=LIST_ATOMIC)] = Field(
        default=(), json_schema_extra={"default": [], "x-default": True}
    )
    """Metrics that trigger offloading. Requests are offloaded as soon as any one of them has been at its target for
    triggerWindowSeconds. If empty, requests are offloaded only when no local replica is ready or an override says
    so."""
    metric_source: MetricSource | None = None
    """Source of the metrics of type Pods. If not set, they are read from where the controller's configuration says. Of
    metrics of other types that decides in any case."""
    behavior: OffloadingBehavior = Field(
        default=OffloadingBehavior(), json_schema_extra={"default": {}, "x-default": True}
    )
    """How many requests are offloaded, and how soon."""
