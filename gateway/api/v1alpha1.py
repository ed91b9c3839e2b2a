"""The route document: what hooks writes for one ModelDeployment and the gateway serves from.

One ConfigMap holds one document, as canonical JSON under the key `route.json`. The writer is strict
(`RouteDocument.canonical_json`), the reader ignores what it does not know (`read`) and counts it; what
must not be ignored is named in `requires`. A document never holds a secret value, only where one is.
Its namespace is that of its ConfigMap and is therefore not in it.
"""

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
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

from gateway.api.vocabulary import FailureCause
from program.problems import Mistake, first_problem, joined, must_be

LABEL: Final = "gateway.beamlit.com/route"
LABEL_VALUE: Final = "v1alpha1"
KEY: Final = "route.json"
API_VERSION: Final = "gateway.beamlit.com/v1alpha1"
CREDENTIAL_LABEL: Final = "gateway.beamlit.com/credential"

FEATURES: Final[frozenset[str]] = frozenset()
"""The features this reader understands when a document names them under `requires`."""

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
Port = Annotated[int, Field(ge=1, le=65535)]
Percent = Annotated[int, Field(ge=0, le=100)]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class DocumentError(ValueError):
    """A route document that cannot be served. The message names the field, the value and what is allowed."""


class Use(StrEnum):
    """What a backend may be chosen for."""

    WEIGHTED = "weighted"
    """By the split, according to its weight."""
    FAILOVER = "failover"
    """When an attempt at another backend failed before its first byte."""
    OVERFLOW = "overflow"
    """When the local backend has reached its in-flight limit."""


def _in_order_of_cause(values: tuple[FailureCause, ...]) -> tuple[FailureCause, ...]:
    return tuple(cause for cause in FailureCause if cause in values)


def _sorted_unique(values: tuple[str, ...]) -> tuple[str, ...]:
    """For lists that are sets: equal meaning, equal bytes."""
    return tuple(sorted(set(values)))


def _in_order_of_use(values: tuple[Use, ...]) -> tuple[Use, ...]:
    return tuple(use for use in Use if use in values)


class _Part(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, frozen=True, extra="ignore", use_attribute_docstrings=True
    )


class SecretKey(_Part):
    """One key of a Secret in the document's namespace. The gateway reads it by name, and only when it carries
    the label `gateway.beamlit.com/credential`."""

    name: ObjectName
    """Name of the Secret."""
    key: str
    """Key in its data."""


class Headers(_Part):
    """What to change in a request's fields for one backend.

    Names compare case-insensitively (RFC 9110 5.1) and are written in lower case, so that equal meaning is equal bytes.
    """

    set: Mapping[HeaderName, HeaderValue] = {}
    """Replaces every field of that name."""
    set_from: Mapping[HeaderName, SecretKey] = {}
    """As `set`, with the value read from a Secret."""
    add: Mapping[HeaderName, HeaderValue] = {}
    """Adds a field beside those of the same name."""
    remove: tuple[HeaderName, ...] = ()
    """Removes every field of that name."""

    @field_validator("set", "set_from", "add")
    @classmethod
    def _distinct(cls, fields: Mapping[str, Any]) -> Mapping[str, Any]:
        if len({name.lower() for name in fields}) != len(fields):
            raise Mistake(f"names must differ by more than case, got {', '.join(sorted(fields))}")
        return fields


class Tls(_Part):
    """How the server's certificate is verified. It always is."""

    server_name: HostName | None = None
    """Name for SNI and verification; the backend's host when absent."""
    ca_bundle: str | None = None
    """PEM certificates that replace the system's roots."""
    client_certificate: ObjectName | None = None
    """Name of a labelled Secret of the document's namespace (keys tls.crt and tls.key) to be shown to the server."""


class OAuth2(_Part):
    """Client credentials (RFC 6749 4.4), by reference."""

    kind: Literal["Secret", "ModelDeployment"] = "Secret"
    """Where the credentials are: a labelled Secret (keys clientId, clientSecret, tokenUrl, hosts, optionally scope),
    or inline in the ModelDeployment itself, as the original allowed; those go to its own remote host only."""
    name: ObjectName
    """Name of that object, in the document's namespace."""


class Credentials(_Part):
    """How the gateway authenticates to the backend."""

    oauth2: OAuth2
    """By an OAuth 2.0 token."""


class HealthCheck(_Part):
    """Requests of the gateway's own by which it learns whether a backend answers."""

    path: Annotated[
        str,
        StringConstraints(pattern=r"^/[\x21-\x22\x24-\x7e]*$", max_length=1024),
        must_be("a path of ASCII characters that begins with / and has neither spaces nor #, such as /health"),
    ]
    """Target of a GET; a status from 200 to 299 is healthy."""
    interval: Seconds = 10
    """Between two checks, in seconds."""
    timeout: Seconds = 5
    """For one check, in seconds."""
    unhealthy: Annotated[int, Field(ge=1, le=100)] = 3
    """Failed checks in a row after which the backend gets no requests."""
    healthy: Annotated[int, Field(ge=1, le=100)] = 1
    """Passed checks in a row after which it gets them again."""


class Backend(_Part):
    """One place a request can be sent to. Exactly one of `service`, `host` and `default` says where."""

    id: Annotated[
        str,
        StringConstraints(pattern=r"^[a-z0-9-]+$", max_length=63),
        must_be("lower-case letters, digits and dashes, such as remote"),
    ]
    """Unlike any other in the document: `local` or `remote`. Clients see it in x-beamlit-backend."""
    weight: Percent = 0
    """Share of the requests, in percent; the weights of a document sum up to 100, or to 0 when no backend may be
    chosen by weight."""
    use: Annotated[tuple[Use, ...], AfterValidator(_in_order_of_use)] = (Use.WEIGHTED, Use.FAILOVER)
    """What the backend may be chosen for: weighted, failover, overflow. A value that a reader does not know rejects the
    document."""
    service: DnsLabel | None = None
    """A Service in the document's namespace."""
    host: HostName | None = None
    """A remote host name or address, without port."""
    default: bool = False
    """The install-wide default remote backend: host, scheme, TLS, credentials and headers come from the gateway's
    own settings."""
    port: Port | None = None
    """Port of the Service or host; the scheme's default when absent."""
    scheme: Literal["http", "https"] = "http"
    """How the backend is spoken to."""
    path_prefix: PathPrefix = ""
    """Put in front of the request's path, percent-encoded, all variables expanded."""
    headers: Headers = Headers()
    """What to change in the request's fields."""
    tls: Tls = Tls()
    """How the server is verified, for https."""
    credentials: Credentials | None = None
    """How the gateway authenticates; not at all when absent."""
    model: str | None = None
    """The model name this backend knows, put into the `model` value of a JSON body; unchanged when absent."""
    in_flight: Annotated[int, Field(ge=1, le=1000000)] | None = None
    """Requests at the same time, of each gateway, above which one goes to a backend for overflow; no limit when
    absent."""
    health: HealthCheck | None = None
    """How its health is checked; not at all when absent."""

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        places = [self.service is not None, self.host is not None, self.default]
        if sum(places) != 1:
            raise Mistake(f"backend {self.id!r} needs exactly one of service, host and default")
        return self


class Timeouts(_Part):
    """Seconds; absent means the gateway's own setting."""

    connect: Seconds | None = None
    """TCP and TLS handshake."""
    first_byte: Seconds | None = None
    """From the end of connecting to the answer's head."""
    idle: Seconds | None = None
    """Between two reads of an answer's body."""


class Retry(_Part):
    """When a request is tried again, at another backend that is for failover."""

    on: Annotated[tuple[FailureCause, ...], AfterValidator(_in_order_of_cause)] = tuple(
        cause for cause in FailureCause if cause is not FailureCause.FIRST_BYTE_TIMEOUT
    )
    """Causes that count as the backend's failure. A value that a reader does not know rejects the document."""
    body_bytes: Annotated[int, Field(ge=0)] | None = None
    """Largest body that is held to be sent again; absent means the gateway's own setting."""


class Breaker(_Part):
    """When a backend that fails gets no requests for a while, if another one can take them."""

    consecutive_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Failures in a row."""
    error_percentage: Annotated[int, Field(ge=1, le=100)] = 50
    """Share of failures within `window`, once there were `minimum` requests in it."""
    minimum: Annotated[int, Field(ge=1, le=1000000)] = 20
    """Requests from which on the share counts."""
    window: Seconds = 10
    """Seconds that the share is about."""
    open: Seconds = 10
    """Seconds until a single request tries the backend again."""


class Queue(_Part):
    """Where requests wait that no backend can take now."""

    size: Annotated[int, Field(ge=0, le=100000)] = 0
    """Requests that may wait, in each gateway; 0: none."""
    wait: Seconds = 5
    """Seconds that one may wait."""


class Limits(_Part):
    """Absent means the gateway's own setting."""

    body_bytes: Annotated[int, Field(ge=0)] | None = None
    """Largest request body; above it the answer is 413."""


class Split(_Part):
    """Why the weights are what they are. Opaque to the gateway: it repeats the reason to clients and logs."""

    percentage: Percent = 0
    """Share of the requests that go remote."""
    reason: Annotated[
        str, StringConstraints(pattern=r"^[A-Za-z]*$", max_length=64), must_be("one word of letters, such as Override")
    ] = "Local"
    """Why, as one word; clients see it in x-beamlit-reason."""


class RouteDocument(_Part):
    """How the requests for one ModelDeployment are routed."""

    api_version: Literal["gateway.beamlit.com/v1alpha1"] = API_VERSION
    """Of the document; one version only."""
    name: ObjectName
    """Name of the ModelDeployment."""
    service_names: Annotated[tuple[DnsLabel, ...], AfterValidator(_sorted_unique)] = ()
    """Service names a client may put into Host; the gateway adds the namespace's spellings. Empty: `name`."""
    cluster_ips: Annotated[tuple[str, ...], AfterValidator(_sorted_unique)] = ()
    """Addresses of those Services that a client may put into Host."""
    path: str | None = None
    """Second segment of the path `/{namespace}/{path}/…`; `name` when absent."""
    model: str | None = None
    """What clients put into the `model` value of a request; `name` when absent."""
    backends: Annotated[tuple[Backend, ...], Field(max_length=16)] = ()
    """Where requests may go, in the order in which failover tries them."""
    timeouts: Timeouts = Timeouts()
    """How long the gateway waits for backends."""
    limits: Limits = Limits()
    """What the gateway accepts from clients."""
    retry: Retry = Retry()
    """When a request is tried again."""
    breaker: Breaker = Breaker()
    """When a backend that fails gets no requests."""
    queue: Queue = Queue()
    """Where requests wait while the local backend is at its limit and nothing takes the overflow."""
    split: Split = Split()
    """Why the weights are what they are."""
    requires: Annotated[tuple[str, ...], AfterValidator(_sorted_unique)] = ()
    """Features a reader must know to serve this document; one it does not know rejects the document."""
    hash: str = ""
    """SHA-256 over the canonical JSON without this field, first 16 hex digits; set by the writer."""

    @model_validator(mode="after")
    def _weights(self) -> Self:
        ids = [backend.id for backend in self.backends]
        if len(set(ids)) != len(ids):
            raise Mistake(f"backend ids must differ, got {', '.join(ids)}")
        total = sum(backend.weight for backend in self.backends)
        if total not in (0, 100):
            raise Mistake(f"the weights of the backends must sum up to 100 or 0, got {total}")
        for backend in self.backends:
            if backend.weight and Use.WEIGHTED not in backend.use:
                raise Mistake(f"backend {backend.id!r} has a weight but is not for weighted use")
        return self

    @property
    def client_model(self) -> str:
        """The name that clients ask for in a `model` value."""
        return self.model or self.name

    @property
    def path_segment(self) -> str:
        """The second segment of the path clients may use."""
        return self.path or self.name

    def canonical_json(self) -> str:
        """The document as it is written: sorted keys, no white space, defaults left out, with its hash.

        Equal meaning gives equal bytes.
        """
        body = self.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"hash"})
        body["apiVersion"] = API_VERSION
        for backend in body.get("backends", ()):
            if "headers" in backend:
                backend["headers"] = _lower_case(backend["headers"])
        for name in ("path", "model"):
            if body.get(name) == self.name:  # what an absent field means
                del body[name]
        body["hash"] = hashlib.sha256(_canonical(body).encode()).hexdigest()[:16]
        return _canonical(body)


def _lower_case(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The changes to header fields with all names in lower case."""
    return {
        change: sorted({name.lower() for name in fields})
        if isinstance(fields, list)
        else {name.lower(): value for name, value in fields.items()}
        for change, fields in headers.items()
    }


def _canonical(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def read(text: str | bytes) -> tuple[RouteDocument, int]:
    """Read a document leniently.

    Returns the document and the number of fields it has that this reader does not know.

    Raises:
        DocumentError: it is not JSON, a field is wrong, or it requires a feature this reader does not have.
    """
    try:
        raw = orjson.loads(text)  # refuses NaN and lone surrogates, which json.loads lets through
    except orjson.JSONDecodeError as exc:
        where = f"see line {exc.lineno}, column {exc.colno}" if exc.doc else "it must be text in UTF-8"
        raise DocumentError(f"{KEY} is not JSON: {where if text else 'it is empty'}") from exc
    if not isinstance(raw, dict):
        raise DocumentError(f'{KEY} must be a JSON object, such as {{"name": "demo"}}')
    # Before all else: a document that requires more than this reader has may well look wrong to it.
    required = raw.get("requires", [])
    if not isinstance(required, list):
        raise DocumentError("requires must be a list of names")
    unknown_features = sorted(set(map(str, required)) - FEATURES)
    if unknown_features:
        raise DocumentError(
            f"requires {', '.join(unknown_features)}, which this gateway does not have; upgrade the gateway"
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
    """Count the keys of `raw` that `model` has no field for, at every level that is a model of its own."""
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
    """The objects of a model's own that a field holds: one, a list, or the values of a mapping."""
    if isinstance(value, list):
        return value
    if field == (Headers, "set_from"):
        return list(value.values())
    return [] if value is None else [value]


_NESTED: Final[Mapping[tuple[type[BaseModel], str], type[BaseModel]]] = {
    (RouteDocument, "backends"): Backend,
    (RouteDocument, "timeouts"): Timeouts,
    (RouteDocument, "limits"): Limits,
    (RouteDocument, "retry"): Retry,
    (RouteDocument, "breaker"): Breaker,
    (RouteDocument, "queue"): Queue,
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
