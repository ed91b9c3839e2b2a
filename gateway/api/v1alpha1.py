"""The route document: hooks write one for each ModelDeployment, and the gateway routes requests by it.

One ConfigMap contains one document, as canonical JSON under the key `route.json`. The writer is strict
(`RouteDocument.canonical_json`). The reader (`read`) ignores and counts fields that it does not know; a meaning that
must not be ignored is named in `requires`. A document never contains a secret value, only the name of the object that
has it. The document has no namespace of its own: its ConfigMap's is used.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import ip_address
from typing import Annotated, Any, Final, Literal, Self

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from gateway.api.vocabulary import (
    CAUSE_PATTERN,
    CAUSE_WORDS,
    CREDENTIALS_OF_ALL,
    DATA_CLASS,
    DATA_CLASS_IN_WORDS,
    DEFAULT_CAUSES,
    NAMED_CAUSES,
    ORIGIN,
    ORIGIN_IN_WORDS,
    AffinityType,
    DrillRequest,
    Endpoints,
    Forwarded,
    StatefulPaths,
    StreamUsage,
)
from program.excerpts import cut
from program.problems import MOST_VALUES, Mistake, first_problem, has_too_many_values, joined, must_be, shown

LABEL: Final = "gateway.beamlit.com/route"
"""Label of the ConfigMaps that contain a route document."""
LABEL_VALUE: Final = "v1alpha1"
"""Value of that label: the version of the document."""
KEY: Final = "route.json"
"""Key of the document in its ConfigMap's data."""
API_VERSION: Final = "gateway.beamlit.com/v1alpha1"
"""Value of `apiVersion` in a document."""
CREDENTIAL_LABEL: Final = "gateway.beamlit.com/credential"
"""Label of the Secrets that the gateway may read."""

MODELS: Final = "models"
"""Feature of documents with `models`: a gateway that does not know it would serve any name."""
LOCAL_ONLY: Final = "localOnly"
"""Feature of documents with `localOnly`: a gateway that does not know it would send such requests to a remote
backend."""
ACCESS: Final = "access"
"""Feature of documents with `access`: a gateway that does not know it would serve everyone."""
ACCESS_JWT: Final = "accessJwt"
"""Feature of documents with `access.jwt`: a gateway that does not know it would ask for no token."""
FEATURES: Final[frozenset[str]] = frozenset({ACCESS, ACCESS_JWT, LOCAL_ONLY, MODELS})
"""Features that this reader supports when a document names them under `requires`."""

DnsLabel = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63),
    must_be("a name of lower-case letters, digits and dashes, such as demo-local"),
]
ObjectName = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$", max_length=253),
    must_be("the name of an object: lower-case letters, digits, dashes and dots, such as demo"),
]
HostName = Annotated[
    str,
    StringConstraints(pattern=r"^[A-Za-z0-9._:\[\]-]+$", max_length=253),
    must_be("a host name or address, such as models.example.com"),
]
HeaderName = Annotated[
    str,
    StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=128),
    must_be("the name of a header field, such as x-team"),
]
HeaderValue = Annotated[
    str, StringConstraints(pattern=r"^[\x20-\x7e]*$", max_length=4096), must_be("printable ASCII characters")
]
PathPrefix = Annotated[
    str,
    StringConstraints(pattern=r"^(/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)*$", max_length=1024),
    must_be("a path whose segments begin with / and are percent-encoded where needed, such as /v1/my%20model"),
]
Origin = Annotated[str, StringConstraints(pattern=ORIGIN, max_length=320), must_be(ORIGIN_IN_WORDS)]
Method = Annotated[
    str, StringConstraints(pattern=r"^[A-Z]+$", max_length=32), must_be("a method in capital letters, such as POST")
]
ModelName = Annotated[
    str,
    StringConstraints(pattern=r"^[!-~]+$", max_length=256),
    must_be("printable ASCII characters without spaces, such as lora-a"),
]
Port = Annotated[int, Field(ge=1, le=65535)]
Percent = Annotated[int, Field(ge=0, le=100)]
DataClass = Annotated[str, StringConstraints(pattern=DATA_CLASS, max_length=256), must_be(DATA_CLASS_IN_WORDS)]
Price = Annotated[float, Field(ge=0, le=1000000)]
Seconds = Annotated[float, Field(gt=0, le=86400)]
Cause = Annotated[str, StringConstraints(pattern=CAUSE_PATTERN), must_be(CAUSE_WORDS)]


class DocumentError(ValueError):
    """A route document that cannot be served. The message names the field, the value and what is allowed."""


class Use(StrEnum):
    """What a backend may be chosen for."""

    WEIGHTED = "weighted"
    """Requests go there by the split, according to the backend's weight."""
    FAILOVER = "failover"
    """Requests go there when an attempt at another backend failed before the client got anything of a response."""
    OVERFLOW = "overflow"
    """Requests go there when the local backend has reached its limit of requests in flight."""


def _in_order_of_cause(values: tuple[str, ...]) -> tuple[str, ...]:
    """Return causes in one order, so that equal meaning is written as equal bytes: those with a name, then statuses."""
    return (*(name for name in NAMED_CAUSES if name in values), *sorted(set(values).difference(NAMED_CAUSES)))


def _sorted_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """Sort a list that is a set, so that equal meaning is written as equal bytes."""
    return tuple(sorted(set(values)))


def _sorted_names(values: tuple[str, ...]) -> tuple[str, ...]:
    """Sort a set of names or values that are compared without regard to case, and write them in lower case."""
    return _sorted_unique(tuple(value.lower() for value in values))


def _in_order_of_use(values: tuple[Use, ...]) -> tuple[Use, ...]:
    return tuple(use for use in Use if use in values)


class _Part(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )


class SecretKey(_Part):
    """One key of a Secret in the document's namespace.

    The gateway reads the Secret by name, and only when it carries the label `gateway.beamlit.com/credential`.
    """

    name: ObjectName
    """Name of the Secret."""
    key: str
    """Key in the Secret's data."""


class Headers(_Part):
    """Changes to the header fields of requests for one backend.

    Names are compared without regard to case (RFC 9110 5.1) and written in lower case, so that equal meaning is written
    as equal bytes.
    """

    set: Mapping[HeaderName, HeaderValue] = {}
    """Fields that replace all fields of the same name."""
    set_from: Mapping[HeaderName, SecretKey] = {}
    """Fields that replace all fields of the same name, with values from Secrets."""
    add: Mapping[HeaderName, HeaderValue] = {}
    """Fields that are added to those of the same name."""
    remove: tuple[HeaderName, ...] = ()
    """Names of the fields that are removed."""

    @field_validator("set", "set_from", "add")
    @classmethod
    def _distinct(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        if len({name.lower() for name in fields}) != len(fields):
            raise Mistake(f"names must differ by more than case, got {', '.join(sorted(fields))}")
        return fields


class Tls(_Part):
    """How the gateway verifies the backend's certificate, which it always does."""

    server_name: HostName | None = None
    """Name that the gateway sends as SNI and verifies; the backend's host when absent."""
    ca_bundle: str | None = None
    """Certificate authorities in PEM that replace the system's."""
    client_certificate: ObjectName | None = None
    """Name of a labeled Secret in the document's namespace with the client certificate (keys tls.crt and tls.key) that
    the gateway presents to the backend."""


class OAuth2(_Part):
    """Reference to the client credentials that the gateway exchanges for tokens (RFC 6749 4.4)."""

    kind: Literal["Secret", "ModelDeployment"] = "Secret"
    """Kind of the object that contains the credentials: a labeled Secret (keys clientId, clientSecret, tokenUrl and
    hosts, optionally scope), or the ModelDeployment itself, whose inline credentials are used for the host of its own
    remoteBackend only."""
    name: ObjectName
    """Name of that object, in the document's namespace."""


class Credentials(_Part):
    """How the gateway authenticates to the backend."""

    oauth2: OAuth2
    """OAuth 2.0 client credentials; the gateway sends the token it gets for them."""


class HealthCheck(_Part):
    """Requests that the gateway sends to learn whether a backend is healthy."""

    path: Annotated[
        str,
        StringConstraints(pattern=r"^/[\x21-\x22\x24-\x7e]*$", max_length=1024),
        must_be("a path of ASCII characters that begins with / and has neither spaces nor #, such as /health"),
    ]
    """Path of the GET request; the check passes with a status from 200 to 299."""
    interval: Seconds = 10
    """Seconds between two checks."""
    timeout: Seconds = 5
    """Seconds that one check may take, at most `interval`, or 1 where that is shorter."""
    unhealthy: Annotated[int, Field(ge=1, le=100)] = 3
    """Failed checks in a row after which the backend gets no requests."""
    healthy: Annotated[int, Field(ge=1, le=100)] = 1
    """Passed checks in a row after which the backend gets requests again."""


class Backend(_Part):
    """One server that requests can be sent to. Exactly one of `service`, `host` and `default` says where it is."""

    id: Annotated[
        str,
        StringConstraints(pattern=r"^[a-z0-9-]+$", max_length=63),
        must_be("lower-case letters, digits and dashes, such as remote"),
    ]
    """Name of the backend, unique in the document: `local` or `remote`. Clients see it in x-beamlit-backend."""
    weight: Percent = 0
    """Share of the requests in percent. The weights of a document sum up to 100, or to 0 when no backend may be chosen
    by weight."""
    use: Annotated[tuple[Use, ...], AfterValidator(_in_order_of_use)] = (Use.WEIGHTED, Use.FAILOVER)
    """What the backend may be chosen for: weighted, failover or overflow. A gateway that does not know a value rejects
    the document."""
    service: DnsLabel | None = None
    """Name of a Service in the document's namespace."""
    endpoints: Endpoints = Endpoints.PODS
    """Where requests for the Service go: pods, where the gateway knows them by EndpointSlices, or service, by its name.
    The gateway's setting `service` counts for all documents."""
    host: HostName | None = None
    """Remote host name or address, without port."""
    default: bool = False
    """Whether this is the default remote backend of the installation, whose host, scheme, TLS, credentials and header
    fields come from the gateway's settings."""
    port: Port | None = None
    """Port of the Service or host; the default port of the scheme when absent."""
    scheme: Literal["http", "https"] = "http"
    """URL scheme of the backend: http or https."""
    path_prefix: PathPrefix = ""
    """Prefix that is put before the path of each request, percent-encoded, with all variables expanded."""
    headers: Headers = Headers()
    """Changes to the header fields of each request."""
    forward_headers: Annotated[tuple[HeaderName, ...], AfterValidator(_sorted_names)] = ()
    """Names of header fields and query parameters that pass although they are taken for credentials of the caller,
    which go to no remote backend, or for claims about the caller's identity, which only trusted proxies may make."""
    forwarded: Forwarded | None = None
    """Whether the backend gets forwarding fields (Forwarded, X-Forwarded-For and the like), which describe the client:
    none or append. When absent, a Service gets them and a remote backend does not. What the default remote backend gets
    is in the gateway's settings."""
    tls: Tls = Tls()
    """How the backend's certificate is verified when the scheme is https."""
    credentials: Credentials | None = None
    """Credentials that the gateway sends to the backend; none when absent."""
    model: str | None = None
    """Name under which this backend knows the model. It replaces the `model` value of a JSON body, which stays as it is
    when this field is absent."""
    in_flight: Annotated[int, Field(ge=1, le=1000000)] | None = None
    """Requests that each gateway sends to this backend at the same time. Further requests go to a backend for overflow
    or wait in the queue. No limit when absent."""
    first_token_target: Seconds | None = None
    """Seconds within which the first event of a stream has to come. Each gateway limits the streams that it sends to
    this backend at the same time so that this holds, by a number that is never above `inFlight`, without which this
    field has no effect. No such limit when absent, and in a gateway that does not know the field."""
    health: HealthCheck | None = None
    """Health check of the backend; none when absent."""
    price: Price | None = None
    """Price of a million tokens at this backend, from which the costs of requests are estimated; no estimate when
    absent. That of the default remote backend is in the gateway's settings."""
    prompt_price: Price | None = None
    """Price of a million tokens of prompts; `price` when absent."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = [self.service is not None, self.host is not None, self.default]
        if sum(places) != 1:
            raise Mistake(f"backend {self.id!r} needs exactly one of service, host and default")
        if self.default:
            # The token of the installation goes there, so nothing in a document says where that is or who it is.
            own = {
                "port": self.port is not None,
                "tls": self.tls != Tls(),
                "credentials": self.credentials is not None,
            }
            if any(own.values()):
                names = " and ".join(name for name, given in own.items() if given)
                raise Mistake(
                    f"backend {self.id!r} must not have {names}: those of the default remote backend are in the"
                    " gateway's settings"
                )
        return self

    @property
    def gets_forwarded(self) -> bool:
        """Whether the gateway writes forwarding fields for this backend, as far as the document says it."""
        return self.service is not None if self.forwarded is None else self.forwarded is Forwarded.APPEND


class Timeouts(_Part):
    """Seconds that the gateway waits for backends. The gateway's setting counts where a field is absent."""

    connect: Seconds | None = None
    """Seconds that the TCP and TLS handshakes may take together."""
    first_byte: Seconds | None = None
    """Seconds that a connected backend may take to send the head of the response."""
    first_token: Seconds | None = None
    """Seconds that a connected backend may take to send the first event of an event stream; where neither this nor the
    gateway's setting is there, those for the head. A stream that cannot be sent to another backend may be silent for so
    long, and comments begin the time anew."""
    idle: Seconds | None = None
    """Seconds that may pass between two parts of the response body, from the first event of an event stream on."""


class KeepAlive(_Part):
    """Comments that a client gets in an event stream while nothing else comes for it. The gateway's setting counts
    where a field is absent, and a gateway that does not know the field sends none."""

    after: Annotated[float, Field(ge=0, le=86400)] | None = None
    """Seconds of silence before the first event after which a comment is sent; 0 for never."""
    before_head: bool | None = None
    """Whether comments are sent before a backend has responded, where the client asks for a stream. A failure is an
    error event then."""


class Retry(_Part):
    """When a request that failed is sent to another backend for failover."""

    on: Annotated[tuple[Cause, ...], AfterValidator(_in_order_of_cause)] = DEFAULT_CAUSES
    """Causes for which a request is tried at another backend: connectFailure, reset, firstByteTimeout,
    firstTokenTimeout, streamError, credentialsRefused, or a status from 400 to 599. A gateway that does not know a
    value rejects the document."""
    body_bytes: Annotated[int, Field(ge=0)] | None = None
    """Bytes of the largest request body that is kept to be sent again. The gateway's setting counts when absent."""


class Breaker(_Part):
    """When a backend that fails gets no requests for a while, as long as another backend can take them."""

    consecutive_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Failed requests in a row after which the breaker opens."""
    error_percentage: Annotated[int, Field(ge=1, le=100)] = 50
    """Percentage of failed requests within `window` at which the breaker opens."""
    minimum: Annotated[int, Field(ge=1, le=1000000)] = 20
    """Requests within `window` that are needed before the percentage counts."""
    window: Seconds = 10
    """Seconds over which the percentage is measured."""
    open: Seconds = 10
    """Seconds that the breaker stays open before one request tries the backend again."""


class Queue(_Part):
    """Queue of requests that no backend can take now."""

    size: Annotated[int, Field(ge=0, le=100000)] = 0
    """Requests that may wait in each gateway; 0 means that none waits."""
    wait: Seconds = 5
    """Seconds that a request may wait."""


class Drill(_Part):
    """How the remote backends are tried before requests need them. The gateway's setting counts where a field is
    absent."""

    interval: Annotated[float, Field(ge=0, le=86400)] | None = None
    """Seconds between two drills at a remote backend; 0 means that there are none, and another number below 10 counts
    as 10."""
    request: DrillRequest | None = None
    """Request that a drill sends: none, models or completion. A gateway that does not know a value rejects the
    document."""


class Limits(_Part):
    """Limits on requests. The gateway's setting counts where a field is absent."""

    body_bytes: Annotated[int, Field(ge=0)] | None = None
    """Bytes of the largest request body; a larger one gets the response 413."""


class Cors(_Part):
    """Websites that may read the responses in a browser (CORS). The gateway answers preflights itself, and its fields
    replace those of a backend."""

    origins: Annotated[tuple[Origin, ...], AfterValidator(_sorted_unique), Field(min_length=1, max_length=64)]
    """Origins of these websites, compared as a whole; `*` allows all of them."""
    methods: Annotated[tuple[Method, ...], AfterValidator(_sorted_unique), Field(min_length=1, max_length=16)] = (
        "DELETE",
        "GET",
        "POST",
    )
    """Methods that they may use. GET, HEAD and some POST requests need no permission."""
    headers: Annotated[tuple[HeaderName, ...], AfterValidator(_sorted_names), Field(max_length=64)] = ("*",)
    """Header fields that they may send; `*` allows all of them."""
    exposed_headers: Annotated[tuple[HeaderName, ...], AfterValidator(_sorted_names), Field(max_length=64)] = ()
    """Header fields of responses that they may read, beside those of the gateway, which they may always read."""
    credentials: bool = False
    """Whether browsers may send cookies and client certificates. Not with the origin `*`."""
    max_age: Annotated[int, Field(ge=0, le=86400)] = 600
    """Seconds for which a browser may keep the response to a preflight."""

    @model_validator(mode="after")
    def _named_origins(self) -> Self:
        if self.credentials and "*" in self.origins:
            raise Mistake(CREDENTIALS_OF_ALL)
        return self


class Affinity(_Part):
    """What requests have in common that should go to the same backend."""

    type: AffinityType = AffinityType.NONE
    """none; conversation: requests of one conversation go to the same backend while the weights are the same, and to
    the same pod of it; or prefix: the same, but to the pod that has most of the beginning of the prompt. A gateway that
    does not know a value rejects the document."""
    header: Annotated[HeaderName, AfterValidator(str.lower)] | None = None
    """Name of a header field of requests whose value says to which conversation they belong. Without the field, and
    where a request does not have it, `prompt_cache_key` in the body says it, or else the messages up to the first one
    of the user."""


class AccessJwt(_Part):
    """Tokens with which the model may be used, of those that the gateway takes."""

    audiences: Annotated[tuple[str, ...], AfterValidator(_sorted_unique), Field(max_length=64)] = ()
    """Audiences of which a token must have one, beside one of the gateway's; any when empty."""
    groups: Annotated[tuple[str, ...], AfterValidator(_sorted_unique), Field(max_length=256)] = ()
    """Groups of which a token must name one, beside one of the gateway's where that asks for some; any when empty."""


class Access(_Part):
    """Who may use the model, besides what the gateway's settings ask of everyone. A request needs one of the API keys
    or, where there is `jwt`, one of the tokens."""

    secrets: Annotated[tuple[ObjectName, ...], AfterValidator(_sorted_unique), Field(max_length=16)] = ()
    """Names of labeled Secrets in the document's namespace, whose values are API keys; the keys of their data are names
    of callers."""
    jwt: AccessJwt | None = None
    """Tokens with which the model may be used; none when absent. A document that has it requires `accessJwt`."""

    @model_validator(mode="after")
    def _not_open(self) -> Self:
        if not self.secrets and self.jwt is None:
            raise Mistake("set secrets or jwt: without them no caller could use the model")
        return self


class LocalOnly(_Part):
    """Requests that never go to a remote backend, identified by a header field."""

    header: HeaderName
    """Name of the header field."""
    values: Annotated[tuple[DataClass, ...], AfterValidator(_sorted_names), Field(min_length=1, max_length=64)]
    """Values with which a request never goes to a remote backend. A field may have several, separated by commas, and
    one of them is enough. They are compared without regard to case."""
    missing: Literal["anywhere", "local"] = "anywhere"
    """Where a request without the field may be served: anywhere, or by local backends only."""


class Split(_Part):
    """Why the backends have their weights. The gateway only shows the reason to clients and in logs."""

    percentage: Percent = 0
    """Percentage of the requests that go to the remote backend."""
    reason: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z]*$", max_length=64), must_be("one word of letters, such as Override")
    ] = "Local"
    """Reason for the weights, as one word. Clients see it in x-beamlit-reason."""


class ServedModel(_Part):
    """Name besides the deployment's own that clients may send, such as that of a LoRA adapter."""

    name: ModelName
    """Name that clients send as the `model` value of a request. One with a slash needs the namespace in front of it
    where it alone selects the route."""
    local_model: str | None = None
    """Name under which backends in the cluster know it; `name` when absent."""
    remote_model: str | None = None
    """Name under which remote backends know it; `name` when absent."""


def _in_order_of_name(values: tuple[ServedModel, ...]) -> tuple[ServedModel, ...]:
    return tuple(sorted(values, key=lambda one: one.name))


class RouteDocument(_Part):
    """Routing of the requests for one ModelDeployment."""

    api_version: Literal["gateway.beamlit.com/v1alpha1"] = API_VERSION
    """API version of the document."""
    name: ObjectName
    """Name of the ModelDeployment."""
    service_names: Annotated[tuple[DnsLabel, ...], AfterValidator(_sorted_unique)] = ()
    """Service names that clients may use as host. The gateway adds the spellings with the namespace. When the list is
    empty, `name` is used."""
    cluster_ips: Annotated[tuple[str, ...], AfterValidator(_sorted_unique)] = ()
    """IP addresses of those Services that clients may use as host."""
    path: str | None = None
    """Second segment of the path `/{namespace}/{path}/…` by which clients reach the model; `name` when absent."""
    model: str | None = None
    """Name that clients send as the `model` value of a request; `name` when absent. One with a slash needs the
    namespace in front of it where it alone selects the route."""
    models: Annotated[tuple[ServedModel, ...], Field(max_length=64), AfterValidator(_in_order_of_name)] = ()
    """Names that clients may send besides. Where there are any, a request with another name gets the response 404, also
    by host and path. A document that has them requires `models`."""
    backends: Annotated[tuple[Backend, ...], Field(max_length=16)] = ()
    """Backends that requests may go to, in the order in which failover tries them."""
    timeouts: Timeouts = Timeouts()
    """Seconds that the gateway waits for backends."""
    keep_alive: KeepAlive = KeepAlive()
    """Comments that keep the connections of clients open which wait for the first event of a stream."""
    limits: Limits = Limits()
    """Limits on the requests of clients."""
    retry: Retry = Retry()
    """When a request that failed is tried at another backend."""
    breaker: Breaker = Breaker()
    """When a backend that fails gets no requests for a while."""
    queue: Queue = Queue()
    """Queue in which requests wait while the local backend is at its limit and no backend takes the overflow."""
    drill: Drill = Drill()
    """How the remote backends are tried before requests need them."""
    cors: Cors | None = None
    """Websites that may read responses to requests by host and by path. The gateway's setting counts when absent."""
    affinity: Affinity = Affinity()
    """Rule by which requests belong together, so that they go to the same backend, and to the same pod."""
    stateful_paths: StatefulPaths = StatefulPaths.LOCAL
    """Where requests go that refer to an earlier response: POST /v1/responses with `previous_response_id`, and
    /v1/responses/{id}. local or remote is the backend that gets them, whatever the weights are, and no other is tried;
    refuse means that they get the response 400."""
    usage: StreamUsage | None = None
    """Whether servers are asked for the tokens of each stream of completions: always, or asAsked for where the client
    asks. The gateway's setting counts when absent."""
    access: Access | None = None
    """Who may use the model; everyone whom the gateway serves when absent. A document that has it requires `access`."""
    local_only: LocalOnly | None = None
    """Requests that never go to a remote backend; none when absent. A document that has it requires `localOnly`."""
    split: Split = Split()
    """Why the weights are what they are."""
    requires: Annotated[tuple[str, ...], AfterValidator(_sorted_unique)] = ()
    """Names of features that this document needs. A gateway that does not know one of them rejects the document."""
    hash: str = ""
    """First 16 hexadecimal digits of the SHA-256 digest of the document's canonical JSON without this field, set by the
    controller."""

    @field_validator("cluster_ips")
    @classmethod
    def _addresses(cls, values: tuple[str, ...]) -> tuple[str, ...]:
        for value in values:
            # Any other text could be the host name of another namespace. A zone has its meaning on one host only.
            if "%" in value or not _is_address(value):
                raise Mistake(f"must be IP addresses such as 10.96.0.7, not {shown(value)}")
        return values

    @model_validator(mode="after")
    def _weights(self) -> Self:
        ids = [backend.id for backend in self.backends]
        if len(set(ids)) != len(ids):
            raise Mistake(f"backend ids must differ, got {', '.join(ids)}")
        total = sum(backend.weight for backend in self.backends)
        if total not in (0, 100):
            raise Mistake(f"the weights of the backends must sum up to 100 or 0, got {total}")
        names = [self.client_model, *(one.name for one in self.models)]
        if len(set(names)) != len(names):
            raise Mistake(f"names of models must differ, got {', '.join(names)}")
        if self.stateful_paths is StatefulPaths.REMOTE and any(backend.default for backend in self.backends):
            raise Mistake(
                "statefulPaths must not be remote with the default remote backend, whose account all models share"
            )
        for backend in self.backends:
            if backend.weight and Use.WEIGHTED not in backend.use:
                raise Mistake(f"backend {backend.id!r} has a weight but is not for weighted use")
        return self

    @property
    def client_model(self) -> str:
        """Name that clients send as the `model` value of a request."""
        return self.model or self.name

    @property
    def path_segment(self) -> str:
        """Second segment of the path by which clients reach the model."""
        return self.path or self.name

    def canonical_json(self) -> str:
        """Return the document as it is written: keys sorted, no white space, no field that has its default, with hash.

        Documents of equal meaning give equal bytes.
        """
        body = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"hash"})
        body["apiVersion"] = API_VERSION
        for backend in body.get("backends", ()):
            if "headers" in backend:
                backend["headers"] = _lower_case(backend["headers"])
        for name in ("path", "model"):
            if body.get(name) == self.name:  # the same as an absent field
                del body[name]
        body["hash"] = hashlib.sha256(_canonical(body).encode()).hexdigest()[:16]
        return _canonical(body)


def _is_address(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def _lower_case(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the changes to header fields with all names in lower case."""
    return {
        change: sorted({name.lower() for name in fields})
        if isinstance(fields, list)
        else {name.lower(): value for name, value in fields.items()}
        for change, fields in headers.items()
    }


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def read(text: str | bytes) -> tuple[RouteDocument, int]:
    """Read a document; return it and the number of its fields that this reader does not know.

    Raises:
        DocumentError: The text is not JSON, a field is wrong, or a required feature is not supported.
    """
    try:
        raw = orjson.loads(text)  # refuses NaN and lone surrogates, which json.loads lets through
    except orjson.JSONDecodeError as exc:
        where = f"see line {exc.lineno}, column {exc.colno}" if exc.doc else "it must be text in UTF-8"
        raise DocumentError(f"{KEY} is not JSON: {where if text else 'it is empty'}") from exc
    if not isinstance(raw, dict):
        raise DocumentError(f'{KEY} must be a JSON object, such as {{"name": "demo"}}')
    if has_too_many_values(raw):
        raise DocumentError(f"{KEY} has more than {MOST_VALUES} values")
    # Before all else: a document that requires more than this reader has may well look wrong to it.
    required = raw.get("requires", [])
    if not isinstance(required, list) or not all(isinstance(one, str) for one in required):
        raise DocumentError("requires must be a list of names")
    unknown_features = sorted(set(required) - FEATURES)
    if unknown_features:
        raise DocumentError(
            f"requires {cut(', '.join(unknown_features))}, which this gateway does not have; upgrade the gateway"
        )
    try:
        document = RouteDocument.model_validate(raw)
    except ValidationError as exc:
        raise DocumentError(problem_in(exc)) from None
    return document, _unknown_fields(raw, RouteDocument)


def problem_in(exc: ValidationError) -> str:
    """Return what is wrong with a document, or with a part of one, as a sentence without its full stop."""
    problem = first_problem(exc, _MODELS.get(exc.title, RouteDocument), strings=True)
    return joined(problem.path or KEY, problem.instead)


def _unknown_fields(raw: Mapping[str, Any], model: type[BaseModel]) -> int:
    """Count the keys of `raw` that `model` has no field for, also in the objects within it."""
    fields = {field.alias or name: name for name, field in model.model_fields.items()}
    unknown = 0
    for key, value in raw.items():
        if key not in fields:
            unknown += 1
            continue
        nested = _NESTED.get((model, fields[key]))
        if nested is None:
            continue
        unknown += sum(_unknown_fields(item, nested) for item in _parts(value, (model, fields[key])))
    return unknown


def _parts(value: Any, field: tuple[type[BaseModel], str]) -> list[Mapping[str, Any]]:
    """Return the objects in the value of a field: one, those of a list, or the values of a mapping."""
    if isinstance(value, list):
        return value
    if field == (Headers, "set_from"):
        return list(value.values())
    return [] if value is None else [value]


_NESTED: Final[Mapping[tuple[type[BaseModel], str], type[BaseModel]]] = {
    (RouteDocument, "backends"): Backend,
    (RouteDocument, "models"): ServedModel,
    (RouteDocument, "timeouts"): Timeouts,
    (RouteDocument, "keep_alive"): KeepAlive,
    (RouteDocument, "limits"): Limits,
    (RouteDocument, "retry"): Retry,
    (RouteDocument, "breaker"): Breaker,
    (RouteDocument, "queue"): Queue,
    (RouteDocument, "drill"): Drill,
    (RouteDocument, "cors"): Cors,
    (RouteDocument, "affinity"): Affinity,
    (RouteDocument, "access"): Access,
    (Access, "jwt"): AccessJwt,
    (RouteDocument, "local_only"): LocalOnly,
    (RouteDocument, "split"): Split,
    (Backend, "health"): HealthCheck,
    (Backend, "headers"): Headers,
    (Backend, "tls"): Tls,
    (Backend, "credentials"): Credentials,
    (Headers, "set_from"): SecretKey,
    (Credentials, "oauth2"): OAuth2,
}
_MODELS: Final[Mapping[str, type[BaseModel]]] = {
    RouteDocument.__name__: RouteDocument,
    **{model.__name__: model for model in _NESTED.values()},
}
