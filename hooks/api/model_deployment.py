"""ModelDeployment and Policy: what users write, and what the controller answers in status.

Every field, type and default of the original API is here, so a manifest written for it applies unchanged. The
CustomResourceDefinitions are generated from these types (`hooks.api.schema`): constraints, defaults, CEL rules and the
attribute docstrings, which are the CRD reference and what `kubectl explain` prints.

Reading is lenient, for the API server has validated already: unknown fields are ignored. A value that cannot be used
raises `InvalidObject` with a sentence that names the field. Zero and false are values, never "not set".
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    StringConstraints,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic.config import JsonDict
from pydantic_core import ErrorDetails

DEPLOYMENT_GROUP: Final = "deployment.beamlit.com"
AUTHORIZATION_GROUP: Final = "authorization.beamlit.com"
VERSION: Final = "v1alpha1"
MODEL_DEPLOYMENT_API_VERSION: Final = f"{DEPLOYMENT_GROUP}/{VERSION}"
POLICY_API_VERSION: Final = f"{AUTHORIZATION_GROUP}/{VERSION}"

WORKLOAD_KINDS: Final = ("Deployment", "StatefulSet", "DaemonSet", "ReplicaSet")
"""What `spec.modelSourceRef` may point to, all of them in apps/v1."""


class InvalidObject(ValueError):
    """A value that cannot be used.

    `field` is its path ("spec.offloadingConfig.behavior.percentage"), `problem` says what is wrong with it; the
    message is both, as one sentence. Secret values are never repeated.
    """

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


def format_time(time: datetime) -> str:
    """The time in UTC and whole seconds, RFC 3339, as Kubernetes writes metav1.Time."""
    return f"{time.astimezone(UTC).isoformat(timespec='seconds')[:19]}Z"


def _rule(rule: str, message: str) -> dict[str, str]:
    """One CEL rule of the CRD; the message says what to change."""
    return {"rule": rule, "message": message}


def _object(*rules: dict[str, str], **extensions: Any) -> ConfigDict:
    """Model settings with the CEL rules and `x-kubernetes-…` extensions (dashes as underscores) of the object."""
    extra: dict[str, Any] = {key.replace("_", "-"): value for key, value in extensions.items()}
    if rules:
        extra["x-kubernetes-validations"] = list(rules)
    return ConfigDict(json_schema_extra=extra)


_NUMBER: Final = r"(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))"
_QUANTITY: Final = rf"^[+-]?{_NUMBER}(([KMGTPE]i)|[numkMGTPE]|([eE][+-]?{_NUMBER}))?$"
"""Syntax of resource.Quantity in apimachinery."""
_TIME: Final = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?([Zz]|[+-][0-9]{2}:[0-9]{2})$"
"""Syntax of an absolute time, RFC 3339 section 5.6."""

_MAP_BY_TYPE: Final[JsonDict] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
_MAP_BY_NAME: Final[JsonDict] = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
_ATOMIC: Final[JsonDict] = {"x-kubernetes-list-type": "atomic"}

Name = Annotated[str, StringConstraints(max_length=253)]
"""Name of an object. Its syntax is the business of the API server that holds the object."""
Text = Annotated[str, StringConstraints(max_length=1024)]
MetricName = Annotated[str, StringConstraints(max_length=4096)]
Port = Annotated[int, Field(ge=1, le=65535)]
Percentage = Annotated[int, Field(ge=0, le=100)]
Replicas = Annotated[int, Field(ge=0, le=2147483647)]
Generation = Annotated[int, Field(ge=0, json_schema_extra={"format": "int64"})]
"""A metadata.generation."""
Seconds = Annotated[float, Field(ge=0.01, le=86400)]
Time = Annotated[AwareDatetime, PlainSerializer(format_time, return_type=str, when_used="json")]
Quantity = Annotated[
    int | Annotated[str, StringConstraints(max_length=64)],
    Field(json_schema_extra={"x-kubernetes-int-or-string": True, "pattern": _QUANTITY}),
]
"""A Kubernetes quantity such as 10, 500m or 1Gi, as it is written."""


class _Part(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )


class ObjectReference(_Part):
    """A reference to an object, as core/v1 ObjectReference."""

    model_config = _object(x_kubernetes_map_type="atomic")

    api_version: Annotated[str, StringConstraints(max_length=253)] | None = None
    """API version of the object, for instance apps/v1."""
    kind: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Kind of the object."""
    name: Name | None = None
    """Name of the object."""
    namespace: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Namespace of the object. It must be that of this object, which is the default."""
    uid: Text | None = None
    """Part of every Kubernetes object reference; has no effect here."""
    resource_version: Text | None = None
    """Part of every Kubernetes object reference; has no effect here."""
    field_path: Text | None = None
    """Part of every Kubernetes object reference; has no effect here."""


class ModelSourceReference(ObjectReference):
    """The workload that serves the model."""

    model_config = _object(
        _rule(
            "has(self.name) && self.name != ''",
            "modelSourceRef.name is missing: name the workload that serves the model",
        ),
        _rule(
            "has(self.kind) && self.kind in ['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet']",
            "modelSourceRef.kind must be Deployment, StatefulSet, DaemonSet or ReplicaSet",
        ),
        x_kubernetes_map_type="atomic",
    )


class ServiceReference(ObjectReference):
    """A Service and one of its ports."""

    model_config = _object(
        _rule("has(self.name) && self.name != ''", "name is missing: name the Service"),
        x_kubernetes_map_type="atomic",
    )

    target_port: Port | None = None
    """Port of the Service that requests go to; may be left out where the Service has only one."""


class PolicyRefType(StrEnum):
    """Where a policy is."""

    REMOTE = "remotePolicy"
    LOCAL = "localPolicy"


class PolicyReference(ObjectReference):
    """A policy that the model must obey."""

    model_config = _object(
        _rule("has(self.name) && self.name != ''", "name is missing: name the policy"),
        x_kubernetes_map_type="atomic",
    )

    ref_type: PolicyRefType = PolicyRefType.REMOTE
    """localPolicy for a Policy object in this namespace. remotePolicy for one on the remote platform, which cannot be
    evaluated here: nothing is offloaded."""
    name: Name | None = None
    """Name of the policy."""


class ServerlessConfig(_Part):
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


class SecretReference(_Part):
    """A Secret in the namespace of this object, with the label gateway.beamlit.com/credential."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the Secret."""


class SecretKeyReference(_Part):
    """One key of a Secret in the namespace of this object, with the label gateway.beamlit.com/credential."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the Secret."""
    key: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Key in the Secret's data."""


class HeaderSource(_Part):
    """Where the value of a header is read from."""

    secret_key_ref: SecretKeyReference
    """A key of a Secret."""


HeaderName = Annotated[str, StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", min_length=1, max_length=128)]
HeaderValue = Annotated[str, StringConstraints(max_length=4096)]


class Header(_Part):
    """A header field of the requests to the remote backend."""

    model_config = _object(
        _rule("has(self.value) != has(self.valueFrom)", "give the header either value or valueFrom, and not both")
    )

    name: HeaderName
    """Name of the header; upper and lower case are the same."""
    value: HeaderValue | None = None
    """Value, in the open. Use valueFrom for anything secret."""
    value_from: HeaderSource | None = None
    """Where the gateway reads the value when it needs it."""


class OAuthConfig(_Part):
    """OAuth 2.0 client credentials, either by reference to a Secret or, as in the original, inline."""

    model_config = _object(
        _rule(
            "has(self.clientSecretRef) || (has(self.clientId) && has(self.clientSecret) && has(self.tokenUrl))",
            "set clientSecretRef, or all of clientId, clientSecret and tokenUrl",
        ),
        _rule(
            "!has(self.clientSecretRef) || !(has(self.clientId) || has(self.clientSecret) || has(self.tokenUrl))",
            "with clientSecretRef leave out clientId, clientSecret and tokenUrl: the Secret holds them",
        ),
    )

    client_id: Text | None = None
    """Client id."""
    client_secret: Annotated[SecretStr, Field(max_length=4096)] | None = None
    """Client secret, in the open; whoever can read this object can read it. Prefer clientSecretRef."""
    token_url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2048)] | None = None
    """URL of the token endpoint."""
    client_secret_ref: SecretReference | None = None
    """Secret with the keys clientId, clientSecret, tokenUrl, hosts (where the token may be sent, separated by commas)
    and optionally scope. The gateway reads it when it needs a token; it never passes through the controller."""


class AuthConfig(_Part):
    """How the gateway authenticates to the remote backend."""

    type: Literal["oauth"]
    """Kind of authentication."""
    oauth_config: OAuthConfig | None = None
    """OAuth 2.0 client credentials."""


class Scheme(StrEnum):
    """How the remote backend is spoken to."""

    HTTP = "http"
    HTTPS = "https"


class Location(_Part):
    """Where a backend runs. What is left out is not known, and a policy that asks for it is not satisfied."""

    model_config = _object(
        _rule(
            "!has(self.country) || !has(self.continent)",
            "with country leave continent out: a country is on one continent",
        ),
    )

    name: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Its name, such as that of a region of a cloud: eu-west-3. Compared whole, upper and lower case are the same; no
    country is read out of it."""
    country: Annotated[str, StringConstraints(pattern=r"^[A-Za-z]{2,3}$", max_length=3)] | None = None
    """ISO 3166-1 code of the country, of two or three letters: fr or FRA. It tells the continent too."""
    continent: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Code or English name of the continent where the country is not known: AF (Africa), AN (Antarctica), AS (Asia), EU
    (Europe), NA (North America), OC (Oceania), SA (South America)."""


class Flavor(_Part):
    """A kind of hardware."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Type of the hardware, for instance cpu or gpu."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the hardware, for instance t4."""


class HealthCheck(_Part):
    """Requests of the gateway's own by which it learns whether a backend answers. Every gateway makes its own."""

    path: Annotated[str, StringConstraints(pattern=r'^/[!-"$-~]*$', min_length=1, max_length=1024)]
    """Target of a GET to the backend itself, without its path prefix; a status from 200 to 299 is healthy."""
    interval_seconds: Annotated[float, Field(ge=1, le=3600)] = 10
    """Between two checks."""
    timeout_seconds: Annotated[float, Field(ge=0.01, le=3600)] = 5
    """For one check."""
    unhealthy_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """Failed checks in a row after which the backend gets no requests, as long as another one can take them."""
    healthy_threshold: Annotated[int, Field(ge=1, le=100)] = 1
    """Passed checks in a row after which it gets them again."""


class RemoteTls(_Part):
    """How the certificate of the remote backend is verified, and what is shown to it. It is verified always."""

    server_name: (
        Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:-]+$", min_length=1, max_length=253)] | None
    ) = None
    """Name that is asked for (SNI) and that the certificate must have; that of host when left out."""
    ca_bundle: Annotated[str, StringConstraints(min_length=1, max_length=65536)] | None = None
    """Certificates in PEM that may have issued it, instead of those of the gateway's system."""
    client_certificate_ref: SecretReference | None = None
    """Secret with the keys tls.crt and tls.key, which the gateway shows to the backend."""


class RemoteBackend(_Part):
    """Where offloaded requests go."""

    model_config = _object(
        _rule(
            "!has(self.tls) || self.scheme == 'https'",
            "tls is for scheme https: set scheme to https, or leave tls out",
        ),
    )

    host: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:\[\]-]+$", min_length=1, max_length=260)]
    """Host name or address, with a port where it is not the scheme's own: models.example.com:8443."""
    scheme: Scheme = Scheme.HTTP
    """http or https."""
    path_prefix: Text = ""
    """Put in front of the path of every request. $model and $workspace stand for spec.model and the workspace."""
    workspace: Annotated[str, StringConstraints(max_length=253)] | None = None
    """What $workspace stands for in pathPrefix; the platform's own answer when left out."""
    headers_to_add: Annotated[Mapping[HeaderName, HeaderValue], Field(max_length=64)] = Field(default_factory=dict)
    """Header fields that every request gets; they replace those of the same name."""
    headers: Annotated[tuple[Header, ...], Field(max_length=64, json_schema_extra=_MAP_BY_NAME)] = ()
    """As headersToAdd, with values that may come from a Secret."""
    auth_config: AuthConfig | None = None
    """How the gateway authenticates; no authentication when left out."""
    tls: RemoteTls | None = None
    """How it is verified, for scheme https."""
    health_check: HealthCheck | None = None
    """How its health is checked; not at all when left out."""
    location: Location | None = None
    """Where the backend runs, for policies. It is believed."""
    flavors: Annotated[tuple[Flavor, ...], Field(max_length=64, json_schema_extra=_ATOMIC)] = ()
    """All hardware that the backend may run the model on, for policies. It is believed."""


class LabelSelectorRequirement(_Part):
    """One requirement of a label selector."""

    key: Annotated[str, StringConstraints(max_length=317)]
    """Label key."""
    operator: Annotated[str, StringConstraints(max_length=16)]
    """In, NotIn, Exists or DoesNotExist."""
    values: Annotated[tuple[Annotated[str, StringConstraints(max_length=63)], ...], Field(max_length=64)] = Field(
        default=(), json_schema_extra=_ATOMIC
    )
    """Label values."""


class LabelSelector(_Part):
    """A label selector, as meta/v1 LabelSelector."""

    model_config = _object(x_kubernetes_map_type="atomic")

    match_labels: Annotated[
        Mapping[str, Annotated[str, StringConstraints(max_length=63)]],
        Field(max_length=64),
    ] = Field(default_factory=dict)
    """Labels with their values."""
    match_expressions: Annotated[
        tuple[LabelSelectorRequirement, ...], Field(max_length=32, json_schema_extra=_ATOMIC)
    ] = ()
    """Requirements, all of which must hold."""


class MetricIdentifier(_Part):
    """A metric by name and labels."""

    name: MetricName
    """Name of the metric. With a Prometheus-compatible server, PromQL."""
    selector: LabelSelector | None = None
    """Labels that the metric's series must have."""


class MetricTarget(_Part):
    """The value at which the metric triggers, as autoscaling/v2 MetricTarget."""

    type: Annotated[str, StringConstraints(max_length=32)]
    """Utilization, Value or AverageValue."""
    value: Quantity | None = None
    """Target of the metric itself."""
    average_value: Quantity | None = None
    """Target of the metric's average over the pods."""
    average_utilization: Annotated[int, Field(ge=0, le=2147483647)] | None = None
    """Target of the average use, in percent of the requested amount."""


class ResourceMetric(_Part):
    """Use of cpu or memory by the pods."""

    name: Name
    """cpu or memory."""
    target: MetricTarget
    """The value at which the metric triggers."""


class ContainerResourceMetric(_Part):
    """Use of cpu or memory by one container of the pods."""

    name: Name
    """cpu or memory."""
    container: Annotated[str, StringConstraints(max_length=63)]
    """Name of the container."""
    target: MetricTarget
    """The value at which the metric triggers."""


class PodsMetric(_Part):
    """A metric of every pod, averaged."""

    metric: MetricIdentifier
    """The metric."""
    target: MetricTarget
    """The value at which the metric triggers."""


class CrossVersionObjectReference(_Part):
    """An object in this namespace."""

    api_version: Annotated[str, StringConstraints(max_length=253)] | None = None
    """API version of the object."""
    kind: Annotated[str, StringConstraints(max_length=63)]
    """Kind of the object."""
    name: Name
    """Name of the object."""


class ObjectMetric(_Part):
    """A metric of one Kubernetes object."""

    described_object: CrossVersionObjectReference
    """The object."""
    metric: MetricIdentifier
    """The metric."""
    target: MetricTarget
    """The value at which the metric triggers."""


class ExternalMetric(_Part):
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


class MetricSpec(_Part):
    """One metric, as autoscaling/v2 MetricSpec."""

    model_config = _object(
        _rule(
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


class OverrideMode(StrEnum):
    """What an override may not displace."""

    NORMAL = "Normal"
    """Without a ready local replica all requests go to the remote all the same."""
    FORCE = "Force"
    """The percentage holds whatever the replicas do."""


class Override(_Part):
    """A percentage set by hand, for a time."""

    percentage: Percentage
    """Share of the requests that go to the remote backend."""
    until: Annotated[Time, Field(json_schema_extra={"pattern": _TIME, "maxLength": 40})]
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


class Overflow(_Part):
    """When a single request goes to the remote backend because there is no room for it here."""

    in_flight: Annotated[int, Field(ge=1, le=1000000)]
    """Requests that the local replicas may have at the same time, counted by each gateway for itself, with streams
    until their end. One more goes to the remote backend at once; while there is none it waits in gateway.queue, and
    without a queue or with a full one the answer is 503."""


class OffloadingBehavior(_Part):
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


class OffloadingConfig(_Part):
    """Where, when and how much to offload."""

    remote_backend: RemoteBackend | None = None
    """Where offloaded requests go; the configured default backend when left out."""
    metrics: Annotated[tuple[MetricSpec, ...], Field(max_length=32, json_schema_extra=_ATOMIC)] = Field(
        default=(), json_schema_extra={"default": [], "x-default": True}
    )
    """Metrics of which any one that reaches its target triggers offloading."""
    behavior: OffloadingBehavior = Field(
        default=OffloadingBehavior(), json_schema_extra={"default": {}, "x-default": True}
    )
    """How much is offloaded, and how soon."""


class Server(_Part):
    """A Deployment that the controller creates to serve the model."""

    model_config = _object(
        _rule(
            "has(self.replicas) == has(oldSelf.replicas)",
            "server.replicas cannot be added or removed later, for then two writers would own the number of replicas:"
            " keep it as it was, or create a new ModelDeployment",
        )
    )

    replicas: Replicas | None = None
    """Number of pods. Leave it out where a HorizontalPodAutoscaler sets it. May be changed, not added or removed."""
    port: Port
    """Port of the container that serves the model."""
    template: Annotated[Mapping[str, Any], Field(json_schema_extra={"x-kubernetes-preserve-unknown-fields": True})]
    """Pod template, as in a Deployment: metadata and spec."""


class GatewayTimeouts(_Part):
    """Seconds; the gateway's own settings where left out."""

    connect_seconds: Seconds | None = None
    """For the connection to a backend, with its TLS handshake."""
    first_byte_seconds: Seconds | None = None
    """From then to the head of the answer."""
    idle_seconds: Seconds | None = None
    """Between two parts of an answer's body. There is no limit on the whole answer."""


class RetryCause(StrEnum):
    """Why an attempt at a backend failed, before the first byte of an answer went to the client."""

    CONNECT_FAILURE = "connectFailure"
    RESET = "reset"
    FIRST_BYTE_TIMEOUT = "firstByteTimeout"
    STREAM_ERROR = "streamError"
    REQUEST_TIMEOUT = "408"
    TOO_MANY_REQUESTS = "429"
    BAD_GATEWAY = "502"
    SERVICE_UNAVAILABLE = "503"
    GATEWAY_TIMEOUT = "504"


class GatewayRetry(_Part):
    """When the gateway tries another backend."""

    model_config = _object(
        _rule(
            "self.failover || !has(self.causes)",
            "causes say when there is failover: set failover to true, or leave causes out",
        ),
    )

    failover: bool = True
    """Whether a request whose backend failed before the first byte of the answer may go to the other one."""
    causes: (
        Annotated[
            tuple[RetryCause, ...],
            Field(min_length=1, max_length=9, json_schema_extra=_ATOMIC),
        ]
        | None
    ) = None
    """Which failures count. connectFailure: nothing was sent. reset: the connection broke before the answer's head.
    firstByteTimeout: no head in time; the backend may still be working. streamError: the first event of a stream is an
    error. A status, in quotes, is what the backend answered. All but firstByteTimeout when left out."""
    body_bytes: Annotated[int, Field(ge=0, le=67108864)] | None = None
    """Largest body that is held to be sent again, in bytes; the gateway's own setting when left out."""


class GatewayBreaker(_Part):
    """When a backend that fails gets no requests for a while, as long as another one can take them. Every gateway
    counts for itself."""

    consecutive_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Failures in a row."""
    error_percentage: Annotated[int, Field(ge=1, le=100)] = 50
    """Share of failures within windowSeconds, once there were minimumRequests in it."""
    minimum_requests: Annotated[int, Field(ge=1, le=1000000)] = 20
    """Requests from which on the share counts."""
    window_seconds: Seconds = 10
    """The time that the share is about."""
    open_seconds: Seconds = 10
    """How long, until a single request tries the backend again."""


class GatewayQueue(_Part):
    """Where requests wait for room at the local replicas while nothing takes what overflows."""

    size: Annotated[int, Field(ge=1, le=100000)]
    """Requests that may wait, in each gateway; beyond them the answer is 503 at once."""
    wait_seconds: Seconds = 5
    """How long one may wait, until the answer is 503."""


class Gateway(_Part):
    """How the gateway serves this model."""

    service_name: (
        Annotated[str, StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63)] | None
    ) = None
    """Name of a Service to create in this namespace that leads to the gateway, for clients to use."""
    local_model: Text | None = None
    """Name by which the local server knows the model, put into the `model` value of requests to it; unchanged when
    left out."""
    timeouts: GatewayTimeouts | None = None
    """How long the gateway waits for backends."""
    retry: GatewayRetry = Field(default=GatewayRetry(), json_schema_extra={"default": {}, "x-default": True})
    """When the gateway tries another backend."""
    breaker: GatewayBreaker | None = None
    """When a backend that fails gets no requests; the gateway's own defaults, which are the same, when left out."""
    queue: GatewayQueue | None = None
    """Where requests wait beyond behavior.overflow.inFlight while nothing takes them; nowhere when left out."""
    health_check: HealthCheck | None = None
    """How the health of the local replicas is checked through their Service, besides their own probes; not at all when
    left out."""
    body_limit_bytes: Annotated[int, Field(ge=0, le=1099511627776)] | None = None
    """Largest body of a request, in bytes; the gateway's own setting when left out."""


class ModelDeploymentSpec(_Part):
    """What is wanted: a model, the workload that serves it here, and when its requests go elsewhere."""

    model_config = _object(
        _rule(
            "has(self.modelSourceRef) != has(self.server)",
            "set exactly one of modelSourceRef (a workload that exists) and server (one that the controller creates)",
        ),
        _rule(
            "!has(self.gateway) || !has(self.gateway.serviceName) || !has(self.serviceRef)"
            " || !has(self.serviceRef.name) || self.gateway.serviceName != self.serviceRef.name",
            "gateway.serviceName must not be the Service of serviceRef: choose a new name, which leads to the gateway",
        ),
        _rule(
            "!has(self.gateway) || !has(self.gateway.queue)"
            " || (has(self.offloadingConfig) && has(self.offloadingConfig.behavior)"
            " && has(self.offloadingConfig.behavior.overflow))",
            "gateway.queue is for requests beyond a limit: set offloadingConfig.behavior.overflow.inFlight",
        ),
    )

    model: Annotated[str, StringConstraints(min_length=1, max_length=1024)]
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
    policies: Annotated[tuple[PolicyReference, ...], Field(max_length=64, json_schema_extra=_ATOMIC)] = Field(
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
            raise ValueError("set exactly one of modelSourceRef and server")
        return self


class ConditionStatus(StrEnum):
    """Whether a condition holds."""

    TRUE = "True"
    FALSE = "False"
    UNKNOWN = "Unknown"


class Condition(_Part):
    """One aspect of the state, as meta/v1 Condition."""

    type: Annotated[str, StringConstraints(max_length=316)]
    """Name of the condition."""
    status: ConditionStatus
    """True, False or Unknown."""
    reason: Annotated[str, StringConstraints(max_length=1024)]
    """Why, as one word for programs."""
    message: Annotated[str, StringConstraints(max_length=32768)] = ""
    """Why, as a sentence for people, with what to change where something is wrong."""
    last_transition_time: Time
    """When status last changed."""
    observed_generation: Generation | None = None
    """The metadata.generation that the condition is about."""


class MetricState(_Part):
    """What is known of one metric."""

    name: MetricName
    """Name of the metric."""
    type: Annotated[str, StringConstraints(max_length=32)]
    """Type of the metric, as in spec."""
    state: Annotated[str, StringConstraints(max_length=64)]
    """Reached, Below, Between (below its target, and not far enough to release), or why it cannot be read, as one
    word."""


class OffloadingState(_Part):
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
    metrics: Annotated[tuple[MetricState, ...], Field(max_length=64, json_schema_extra=_ATOMIC)] = ()
    """What is known of each metric."""


class PlatformState(_Part):
    """What is remembered of the platform between two syncs."""

    name: Text | None = None
    """Name under which the object is registered there, or may be where an answer was lost."""
    environment: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Environment in which it is; none for a policy."""
    hash: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Of what the platform took last."""
    tried: Annotated[str, StringConstraints(max_length=64)] | None = None
    """Of what was tried last and failed."""
    attempts: Annotated[int, Field(ge=0, le=1000000)] | None = None
    """How often in a row it failed."""
    since: Time | None = None
    """When it failed last."""


class ModelDeploymentStatus(_Part):
    """What is observed."""

    observed_generation: Generation | None = None
    """The metadata.generation that this status is about."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=_MAP_BY_TYPE)] = ()
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


class ObjectMeta(_Part):
    """The metadata the controller reads."""

    name: str
    namespace: str = "default"
    uid: str = ""
    generation: int = 0
    labels: Mapping[str, str] = Field(default_factory=dict)
    annotations: Mapping[str, str] = Field(default_factory=dict)
    creation_timestamp: AwareDatetime | None = None
    deletion_timestamp: AwareDatetime | None = None


class _Object(_Part):
    @classmethod
    def read(cls, raw: object) -> Self:
        """Read an object as the API server gives it.

        Raises:
            InvalidObject: a value that cannot be used; the message says which and why.
        """
        try:
            return cls.model_validate(raw)
        except ValidationError as exc:
            # Not chained: the original would repeat the input, which may hold a secret.
            raise _invalid(exc.errors(include_url=False, include_input=False)[0]) from None


def _invalid(error: ErrorDetails) -> InvalidObject:
    """What pydantic found, in the words of someone who writes YAML."""
    *parents, last = error["loc"] or ("object",)
    if last == "[key]":  # pydantic's way to say that it is the key of a mapping which is wrong
        *parents, key = parents
        return InvalidObject(_path(parents), f"{key!r} is not a name that can be used here")
    problem = error["msg"].removeprefix("Value error, ").removeprefix("Input ")
    if error["type"] == "missing":
        problem = "is required"
    return InvalidObject(_path([*parents, last]), problem[:1].lower() + problem[1:])


def _path(location: Sequence[int | str]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location).lstrip(".")


class ModelDeployment(_Object):
    """A model that is served in this cluster and, when capacity here is not enough, by a remote backend."""

    api_version: Literal["deployment.beamlit.com/v1alpha1"] = "deployment.beamlit.com/v1alpha1"
    kind: Literal["ModelDeployment"] = "ModelDeployment"
    metadata: ObjectMeta
    spec: ModelDeploymentSpec
    """What is wanted."""
    status: ModelDeploymentStatus = ModelDeploymentStatus()
    """What is observed. Written by the controller."""


class PolicyType(StrEnum):
    """What a policy is about."""

    LOCATION = "location"
    FLAVOR = "flavor"


class PolicyLocationType(StrEnum):
    """How a place is named."""

    LOCATION = "location"
    COUNTRY = "country"
    CONTINENT = "continent"


class PolicyLocation(_Part):
    """A place where models may run."""

    type: PolicyLocationType
    """Whether name is that of a location, a country or a continent."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the location, ISO 3166-1 code of the country (fr or FRA), or code or English name of the continent (eu or
    Europe, which is more than the European Union). Upper and lower case are the same."""


class PolicySpec(_Part):
    """Where models that refer to this policy may run."""

    model_config = _object(
        _rule(
            "self.type != 'location' || (has(self.locations) && self.locations.size() > 0)",
            "a policy of type location needs at least one entry in locations",
        ),
    )

    display_name: Text | None = None
    """Name for people."""
    type: PolicyType
    """location: requests may go only to backends in locations. flavor: only to those on flavors. A list that is there
    counts whatever the type."""
    locations: Annotated[tuple[PolicyLocation, ...], Field(max_length=256, json_schema_extra=_ATOMIC)] = ()
    """Places that are allowed; needed for type location."""
    flavors: Annotated[tuple[Flavor, ...], Field(max_length=256, json_schema_extra=_ATOMIC)] = ()
    """Hardware that is allowed, and no other; all of it when left out."""


class PolicyStatus(_Part):
    """What is observed."""

    observed_generation: Generation | None = None
    """The metadata.generation that this status is about."""
    conditions: Annotated[tuple[Condition, ...], Field(max_length=32, json_schema_extra=_MAP_BY_TYPE)] = ()
    """Accepted, Registered, Ready."""
    workspace: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Workspace of the policy on the platform."""
    created_at_on_beamlit: Time | None = None
    """When the policy was created on the platform."""
    updated_at_on_beamlit: Time | None = None
    """When the policy was last changed on the platform."""
    platform: PlatformState | None = None
    """What is remembered of the platform."""


class Policy(_Object):
    """Where models may run: in which places, or on which hardware."""

    api_version: Literal["authorization.beamlit.com/v1alpha1"] = "authorization.beamlit.com/v1alpha1"
    kind: Literal["Policy"] = "Policy"
    metadata: ObjectMeta
    spec: PolicySpec
    """What is allowed."""
    status: PolicyStatus = PolicyStatus()
    """What is observed. Written by the controller."""
