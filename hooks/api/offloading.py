"""`spec.offloadingConfig`: when requests go to the remote backend, and how many."""

from enum import StrEnum
from typing import Annotated

from pydantic import (
    Field,
)

from hooks.api.common import LIST_ATOMIC, TIME_PATTERN, ApiModel, Percentage, Time, schema_config
from hooks.api.metrics import MetricSpec
from hooks.api.remote_backend import RemoteBackend


class OverrideMode(StrEnum):
    """What an override may not displace."""

    NORMAL = "Normal"
    """Without a ready local replica all requests go to the remote all the same."""
    FORCE = "Force"
    """The percentage holds whatever the replicas do."""


class Override(ApiModel):
    """A percentage set by hand, for a time."""

    model_config = schema_config(x_must_be="an override, such as {percentage: 20, until: 2030-01-31T18:00:00Z}")

    percentage: Percentage
    """Share of the requests that go to the remote backend."""
    until: Annotated[Time, Field(json_schema_extra={"pattern": TIME_PATTERN, "maxLength": 40})]
    """When it ends, as an absolute time with its offset (RFC 3339), for instance 2030-01-31T18:00:00Z."""
    mode: OverrideMode = OverrideMode.NORMAL
    """Normal: without a ready local replica all requests still go to the remote. Force: the percentage holds
    whatever the replicas do; 0 takes the remote out entirely, 100 the local model."""


class OffloadingMode(StrEnum):
    """How the share follows from the metrics."""

    FIXED = "fixed"
    PROPORTIONAL = "proportional"


class Signal(StrEnum):
    """What metrics do when requests go elsewhere."""

    LOAD = "load"
    GAUGE = "gauge"


class OnMissingMetrics(StrEnum):
    """What a metric that cannot be read means."""

    HOLD = "hold"
    RELEASE = "release"
    OFFLOAD = "offload"


class Overflow(ApiModel):
    """When a single request goes to the remote backend because there is no room for it here."""

    in_flight: Annotated[int, Field(ge=1, le=1000000)]
    """Requests that the local replicas may have at the same time, counted by each gateway for itself, with streams
    until their end. One more goes to the remote backend at once; while there is none it waits in gateway.queue, and
    without a queue or with a full one the answer is 503."""


class OffloadingBehavior(ApiModel):
    """How much is offloaded, and how soon."""

    percentage: Percentage = 100
    """Share of the requests that go to the remote backend while a metric triggers, in percent; in mode proportional the
    largest."""
    mode: OffloadingMode = OffloadingMode.FIXED
    """fixed: percentage, as soon as a metric triggers. proportional: the share that brings the metrics back to their
    targets, changed with every new measurement."""
    signal: Signal = Signal.LOAD
    """load: metrics fall as requests go elsewhere, so what they would be with all requests here is estimated before the
    share goes down. gauge: they do not (memory, a temperature, a price), so the share goes down step by step."""
    trigger_window_seconds: Annotated[int, Field(ge=0, le=3600)] = 15
    """How long a metric must have been at its target before offloading begins, in seconds."""
    release_window_seconds: Annotated[int, Field(ge=0, le=3600)] = 300
    """How long the metrics must have allowed it before the share goes down, in seconds; for every step again."""
    tolerance: Annotated[float, Field(ge=0, le=0.99)] = 0.1
    """How far below their targets metrics must be before the share goes down: 0.1 is a tenth of the target."""
    step_percentage: Annotated[int, Field(ge=1, le=100)] = 25
    """Largest change of the share at once, in points of percent: of a way back in steps, and of mode proportional."""
    on_missing_metrics: OnMissingMetrics = OnMissingMetrics.HOLD
    """What a metric that cannot be read means. hold: the share does not go down, and does not go up either. release: it
    counts as below its target. offload: it counts as at its target."""
    not_ready_for_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    """How long the model must have had no ready replica before all requests go to the remote, in seconds."""
    return_seconds: Annotated[int, Field(ge=0, le=3600)] = 0
    """Over how long requests come back once a replica is ready again, in seconds, in steps of stepPercentage; 0: at
    once."""
    overflow: Overflow | None = None
    """A limit on the local replicas beyond which single requests go to the remote, whatever the percentage; no limit
    when left out."""
    override: Override | None = None
    """A percentage set by hand, for a time; it takes the place of the metrics."""


class OffloadingConfig(ApiModel):
    """Where, when and how much to offload."""

    remote_backend: RemoteBackend | None = None
    """Where offloaded requests go; the configured default backend when left out."""
    metrics: Annotated[tuple[MetricSpec, ...], Field(max_length=32, json_schema_extra=LIST_ATOMIC)] = Field(
        default=(), json_schema_extra={"default": [], "x-default": True}
    )
    """Metrics of which any one that reaches its target triggers offloading."""
    behavior: OffloadingBehavior = Field(
        default=OffloadingBehavior(), json_schema_extra={"default": {}, "x-default": True}
    )
    """How much is offloaded, and how soon."""
