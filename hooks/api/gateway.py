"""Types of `spec.gateway`: how the gateway treats the requests for one model."""

from typing import Annotated, Final, Literal

from pydantic import (
    Field,
    StringConstraints,
)

from gateway.api.vocabulary import (
    CAUSE_PATTERN,
    CAUSE_WORDS,
    CREDENTIALS_OF_ALL,
    DATA_CLASS,
    DATA_CLASS_IN_WORDS,
    ORIGIN,
    ORIGIN_IN_WORDS,
    AffinityType,
    DrillRequest,
    Endpoints,
    Forwarded,
    StatefulPaths,
    StreamUsage,
)
from hooks.api.common import (
    LIST_ATOMIC,
    LIST_MAP_BY_NAME,
    ApiModel,
    Seconds,
    SecretReference,
    Text,
    cel_rule,
    schema_config,
)
from hooks.api.remote_backend import HeaderName, HealthCheck
from program.problems import must_be

Cause = Annotated[str, StringConstraints(pattern=CAUSE_PATTERN, max_length=32), must_be(CAUSE_WORDS)]
"""Failure after which a request is sent to the other backend."""


class GatewayTimeouts(ApiModel):
    """Timeouts of the gateway towards backends. Defaults to those of the gateway's configuration."""

    connect_seconds: Seconds | None = None
    """Maximum number of seconds to connect to a backend, TLS handshake included."""
    first_byte_seconds: Seconds | None = None
    """Maximum number of seconds from the established connection to the header section of the response."""
    first_token_seconds: Seconds | None = None
    """Maximum number of seconds from the established connection to the first event of an event stream. A stream that
    cannot be sent to the other backend, such as a subscription, may be silent for so long, and comments in it begin the
    time anew. Defaults to gateway.timeouts.firstTokenSeconds of the gateway's configuration, and without that to
    firstByteSeconds."""
    idle_seconds: Seconds | None = None
    """Maximum number of seconds between two parts of the body of a response, from the first event of an event stream
    on. There is no limit on the whole response."""


class GatewayKeepAlive(ApiModel):
    """Comments that clients get in event streams while nothing else comes, so that load balancers keep the connection.
    Defaults to gateway.keepAlive of the gateway's configuration."""

    after_seconds: Annotated[float, Field(ge=0, le=86400)] | None = None
    """Number of seconds of silence before the first event of a stream after which a comment is sent. Others follow
    every ten seconds, or after as many seconds where that is less. 0 sends none."""
    before_head: bool | None = None
    """Whether comments are sent before a backend has responded, if the client asks for a stream. The status of the
    response is 200 then, and a failure is an error event, after which clients do not try again by themselves."""


class GatewayRetry(ApiModel):
    """Failover of single requests from one backend to the other."""

    model_config = schema_config(
        cel_rule(
            "self.failover || !has(self.causes)",
            "causes say when there is failover: set failover to true, or leave causes out",
        ),
    )

    failover: bool = True
    """Whether a request may be sent to the other backend when an attempt failed before anything of a response was sent
    to the client. Of an event stream nothing is sent before its first event. Defaults to true."""
    causes: (
        Annotated[
            tuple[Cause, ...],
            Field(min_length=1, max_length=64, json_schema_extra=LIST_ATOMIC),
        ]
        | None
    ) = None
    """Failures after which a request is sent to the other backend. connectFailure: there was no connection, so nothing
    was sent. reset: the connection broke before the response began, or before the first event of a stream.
    firstByteTimeout: the response did not begin in time; the backend may still be working on it. firstTokenTimeout: the
    first event of a stream did not come in time, with the same reservation. streamError: the first event of a stream is
    an error that is not the caller's fault. credentialsRefused: the remote backend responded with 401 or 403 to the
    gateway's own credentials. A number from 400 to 599, in quotes, is the status code of a response. Defaults to all
    names but firstByteTimeout and firstTokenTimeout, and the status codes 408, 429, 502, 503, 504 and 529."""
    body_bytes: Annotated[int, Field(ge=0, le=67108864)] | None = None
    """Maximum size in bytes of a request body that is kept in memory so that it can be sent again. Defaults to
    gateway.limits.replayBytes of the gateway's configuration."""


class GatewayBreaker(ApiModel):
    """Circuit breaker: a backend that fails gets no requests for a while, as long as another backend can take them.
    Every gateway pod counts for itself."""

    consecutive_failures: Annotated[int, Field(ge=1, le=1000)] = 5
    """Number of failures in a row after which the backend gets no requests. Defaults to 5."""
    error_percentage: Annotated[int, Field(ge=1, le=100)] = 50
    """Percentage of requests within windowSeconds that must fail for the backend to get no requests. Has an effect once
    there were minimumRequests. Defaults to 50."""
    minimum_requests: Annotated[int, Field(ge=1, le=1000000)] = 20
    """Minimum number of requests within windowSeconds for errorPercentage to have an effect. Defaults to 20."""
    window_seconds: Seconds = 10
    """Number of seconds over which errorPercentage is counted. Defaults to 10."""
    open_seconds: Seconds = 10
    """Number of seconds for which the backend gets no requests. After it a single request tries the backend. Defaults
    to 10."""


class GatewayQueue(ApiModel):
    """Queue for requests that find the local replicas at their limit and no remote backend that takes them."""

    size: Annotated[int, Field(ge=1, le=100000)]
    """Maximum number of requests that wait in each gateway pod. A request beyond it gets status 503 at once."""
    wait_seconds: Seconds = 5
    """Maximum number of seconds that a request waits before it gets status 503. Defaults to 5."""


_FieldName = Annotated[
    str,
    StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", max_length=128),
    must_be("the name of a header field, such as x-team"),
]
_FieldNames = Annotated[tuple[_FieldName, ...], Field(max_length=64, json_schema_extra=LIST_ATOMIC)]


ACCESS_TO_NOBODY: Final = "access needs secretRefs or jwt: say which API keys or tokens the model asks for"
"""What an access lacks that asks for nothing, in words."""


class GatewayCors(ApiModel):
    """Websites that may read the responses in a browser (CORS). The gateway answers preflights itself, and its header
    fields replace those of a backend."""

    model_config = schema_config(
        cel_rule(
            "!has(self.credentials) || !self.credentials || !('*' in self.origins)",
            f"cors {CREDENTIALS_OF_ALL}",
        ),
    )

    origins: Annotated[
        tuple[
            Annotated[str, StringConstraints(pattern=ORIGIN, max_length=320), must_be(ORIGIN_IN_WORDS)],
            ...,
        ],
        Field(min_length=1, max_length=64, json_schema_extra=LIST_ATOMIC),
    ]
    """Origins of these websites, such as https://chat.example.com. They are compared as a whole: each scheme, host and
    port is an origin of its own. * allows all of them."""
    methods: (
        Annotated[
            tuple[
                Annotated[
                    str,
                    StringConstraints(pattern=r"^[A-Z]+$", max_length=32),
                    must_be("a method in capital letters, such as POST"),
                ],
                ...,
            ],
            Field(min_length=1, max_length=16, json_schema_extra=LIST_ATOMIC),
        ]
        | None
    ) = None
    """Methods that these websites may use. Defaults to DELETE, GET and POST."""
    headers: _FieldNames | None = None
    """Names of the header fields that these websites may send. * allows all of them. Defaults to *."""
    exposed_headers: _FieldNames | None = None
    """Names of header fields of responses that these websites may read, in addition to x-beamlit-backend,
    x-beamlit-reason, x-request-id, request-id, retry-after and x-should-retry."""
    credentials: bool = False
    """Whether browsers may send cookies and client certificates with the requests. Cannot be used with the origin *.
    Defaults to false. An API key in a header field is sent in any case."""
    max_age_seconds: Annotated[int, Field(ge=0, le=86400)] = 600
    """Number of seconds for which a browser may keep the response to a preflight. Defaults to 600."""


_Words = Annotated[
    tuple[Annotated[str, StringConstraints(min_length=1, max_length=253)], ...],
    Field(min_length=1, max_length=64, json_schema_extra=LIST_ATOMIC),
]


class GatewayAccessJwt(ApiModel):
    """Tokens with which the model may be used, of those that the gateway takes by its configuration
    (gateway.access.jwt). What is asked for here is asked for besides."""

    audiences: _Words | None = None
    """Audiences of which a token must have one, beside one of the gateway's. Defaults to any."""
    groups: _Words | None = None
    """Groups of which a token must name one. Defaults to any."""


class GatewayAccess(ApiModel):
    """Who may use the model. It can ask for more than gateway.access of the gateway's configuration does, never for
    less. With both secretRefs and jwt, a request needs an API key or a token."""

    model_config = schema_config(
        cel_rule("has(self.secretRefs) || has(self.jwt)", ACCESS_TO_NOBODY),
        x_must_be="references to Secrets, such as {secretRefs: [{name: demo-keys}]}, or rules for tokens, such as {jwt:"
        " {groups: [team-a]}}",
    )

    secret_refs: (
        Annotated[tuple[SecretReference, ...], Field(min_length=1, max_length=16, json_schema_extra=LIST_MAP_BY_NAME)]
        | None
    ) = None
    """Secrets whose values are API keys, and whose keys are the names of callers. A request needs one of these API
    keys, and a credential of the gateway's as well where one is needed. The gateway reads them again after 30
    seconds."""
    jwt: GatewayAccessJwt | None = None
    """Tokens with which the model may be used, besides the API keys. An empty object asks for any token that the
    gateway takes."""


class GatewayLocalOnly(ApiModel):
    """Requests that never leave the cluster, identified by a header field. When the local replicas cannot serve such a
    request, it gets status 503 with the code local_only, and no remote backend learns of it."""

    model_config = schema_config(
        x_must_be="a header field with values, such as {header: x-data-class, values: [restricted]}"
    )

    header: _FieldName
    """Name of the header field, such as x-data-class."""
    values: Annotated[
        tuple[
            Annotated[str, StringConstraints(pattern=DATA_CLASS, max_length=256), must_be(DATA_CLASS_IN_WORDS)],
            ...,
        ],
        Field(min_length=1, max_length=64, json_schema_extra=LIST_ATOMIC),
    ]
    """Values with which a request never leaves the cluster, such as restricted. A header field may have several values,
    separated by commas, and one of them is enough. They are compared without regard to case."""
    missing: Literal["anywhere", "local"] = "anywhere"
    """Where a request without the header field may be served: anywhere, or local, which is inside the cluster only.
    Defaults to anywhere."""


class GatewayDrill(ApiModel):
    """Drill: every gateway pod tries the remote backend now and then, so that a wrong credential, name or certificate
    is found before requests need it. A drill changes nothing about where requests go."""

    model_config = schema_config(x_must_be="a drill, such as {intervalSeconds: 300, request: models}")

    interval_seconds: Annotated[float, Field(ge=0, le=86400)] | None = None
    """Number of seconds between two drills; 0 turns them off, and another number below 10 counts as 10. After a failed
    one the next comes sooner, and there is none while requests succeed. Defaults to gateway.drill.intervalSeconds of
    the gateway's configuration, which is 300 unless it is set."""
    request: DrillRequest | None = None
    """What a drill sends. none: no request; it looks up the name, connects, checks the certificate and gets a token.
    models: GET /v1/models as well, which should list the model. completion: a chat completion of one token as well,
    which the provider may charge for; of several gateway pods one sends it, where they know each other. Defaults to
    gateway.drill.request of the gateway's configuration, which is none unless it is set."""


class GatewayModel(ApiModel):
    """Name besides the own one under which clients may ask for the model, such as that of a LoRA adapter."""

    model_config = schema_config(x_must_be="a name, such as {name: lora-a, localModel: adapter-a}")

    name: Annotated[
        str,
        StringConstraints(pattern=r"^[!-~]+$", min_length=1, max_length=256),
        must_be("printable ASCII characters without spaces, such as lora-a"),
    ]
    """Name that clients send as the `model` value of a request, also with the namespace and a slash in front of it. A
    name that has a slash itself needs the namespace where neither host nor path says which model is meant."""
    local_model: Text | None = None
    """Name by which the local server knows it. Defaults to name."""
    remote_model: Text | None = None
    """Name by which the remote backend knows it. Defaults to name."""


class GatewayAffinity(ApiModel):
    """What requests have in common that should go to the same backend, whose cache then has their beginning."""

    model_config = schema_config(
        cel_rule(
            "!has(self.header) || self.type != 'none'",
            "header says which requests belong together: set type to conversation or prefix, or leave header out",
        ),
        x_must_be="an affinity, such as {type: conversation}",
    )

    type: AffinityType
    """What the requests have in common. none: nothing, every request is divided on its own, exactly by the percentage.
    conversation: requests of one conversation go to the same backend while the percentage is the same, and to the same
    pod of it; when the percentage changes by some points, the conversations of so many points move. prefix: the same,
    but to the pod that has got most of the beginning of the prompt, as far as each gateway remembers. A pod that has a
    quarter more requests than the mean gets no other. Pods count where gateway.endpoints is pods."""
    header: _FieldName | None = None
    """Name of a header field whose value says to which conversation a request belongs, such as x-session. If not set,
    and for requests without it, prompt_cache_key in the body says it, or else the messages up to the first one of the
    user."""


class Gateway(ApiModel):
    """How the gateway treats the requests for a model."""

    service_name: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[a-z]([-a-z0-9]*[a-z0-9])?$", min_length=1, max_length=63),
            must_be(
                "the name of a Service: lower-case letters, digits and dashes, beginning with a letter, such as"
                " demo-gateway"
            ),
        ]
        | None
    ) = None
    """Name of a Service that the controller creates in this namespace. It leads to the gateway, so that clients can use
    a name in their own namespace."""
    local_model: Text | None = None
    """Name by which the local server knows the model. If set, the gateway writes it into the `model` value of requests
    that go to the local replicas. If not set, they get the name that the client sent, without the namespace where the
    gateway reads it."""
    models: (
        Annotated[
            tuple[GatewayModel, ...],
            Field(min_length=1, max_length=64, json_schema_extra=LIST_MAP_BY_NAME),
        ]
        | None
    ) = None
    """Names under which clients may ask for the model besides its own, which is that of this object. If set, a request
    with any other name gets status 404, also by host or path. If not set, requests by host or path may have any name.
    Upgrade all gateways before hooks and before the field is used: an older gateway rejects the route."""
    forward_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64, json_schema_extra=LIST_ATOMIC)] = ()
    """Names of header fields that the gateway sends to the local replicas although they look like claims about the
    client's identity, which otherwise only the proxies in gateway.trustedProxies may make."""
    forwarded: Forwarded | None = None
    """Whether the local replicas get forwarding fields, such as X-Forwarded-For, which tell the client's address and
    the Host and scheme that the client used: none or append. Defaults to append."""
    endpoints: Endpoints | None = None
    """Where the gateway sends requests for the local replicas. pods: to single pods, the less busy one first, and to
    another pod before another backend. service: to the name of their Service, as a mesh with strict mTLS needs it; so
    they do without this field, too, where gateway.endpoints of the gateway's configuration is service. Defaults to
    pods."""
    usage: StreamUsage | None = None
    """Whether the gateway asks the model's servers for the tokens of each stream of completions, for its metrics and
    its log. always: it sets stream_options.include_usage in requests for a stream, and takes the event with the tokens
    out of the stream for clients that have not asked for it. asAsked: only clients ask. Defaults to gateway.usage of
    the gateway's configuration."""
    timeouts: GatewayTimeouts | None = None
    """Timeouts of the gateway towards backends. Defaults to those of the gateway's configuration."""
    keep_alive: GatewayKeepAlive | None = None
    """Comments that clients get in event streams while nothing else comes. Defaults to those of the gateway's
    configuration."""
    retry: GatewayRetry = Field(default=GatewayRetry(), json_schema_extra={"default": {}, "x-default": True})
    """Failover of single requests from one backend to the other."""
    breaker: GatewayBreaker | None = None
    """Circuit breaker for backends that fail. Defaults to a breaker in which every field has its default."""
    queue: GatewayQueue | None = None
    """Queue for requests beyond a limit of behavior.overflow that no remote backend takes. If not set, such a request
    gets status 503 at once."""
    health_check: HealthCheck | None = None
    """Health check of the local replicas through their Service, in addition to their own probes. If not set, there is
    none."""
    drill: GatewayDrill | None = None
    """How the gateway tries the remote backend before requests need it. Defaults to gateway.drill of the gateway's
    configuration."""
    body_limit_bytes: Annotated[int, Field(ge=0, le=1099511627776)] | None = None
    """Maximum size of a request body in bytes. A larger one gets status 413. Defaults to gateway.limits.bodyBytes of
    the gateway's configuration."""
    affinity: GatewayAffinity | None = None
    """What requests have in common that should go to the same backend. Defaults to nothing."""
    stateful_paths: StatefulPaths | None = None
    """Where requests go that refer to an earlier response, which only the server that made it has: POST /v1/responses
    with previous_response_id, and /v1/responses/{id} by host or by path. local: to the local replicas. remote: to
    offloadingConfig.remoteBackend; not for the default remote backend, whose account all models share. refuse: they get
    status 400. No other backend is tried, and the percentage does not count. Defaults to local."""
    cors: GatewayCors | None = None
    """Websites that may use the model in a browser, by host or by path. Requests by the model's name obey gateway.cors
    of the gateway's configuration, since a preflight does not have the name. Defaults to gateway.cors of the gateway's
    configuration."""
    access: GatewayAccess | None = None
    """API keys that requests for this model need. If not set, everyone whom the gateway serves may use it. Upgrade all
    gateways before hooks and before the field is used: an older gateway rejects the route."""
    local_only: GatewayLocalOnly | None = None
    """Requests that never leave the cluster, identified by a header field: not by the split, failover, overflow or
    while no local replica is ready. If not set, there are none. Upgrade all gateways before hooks and before the field
    is used: an older gateway rejects the route."""
