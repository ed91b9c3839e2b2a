"""Settings of the gateway: `config.yaml`, environment and flags, read once into a frozen `Settings`.

Hooks read the same file. The gateway uses `namespaces`, `clusterDomain`, `defaultRemoteBackend` and its own section
`gateway`; it ignores the keys of hooks.
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Final, Literal, Self, get_args

from pydantic import Field, StringConstraints, field_validator, model_validator

from gateway.api.v1alpha1 import HeaderName, HeaderValue, Method, Origin
from gateway.api.vocabulary import CREDENTIALS_OF_ALL, DrillRequest, StreamUsage
from program import addresses, settings
from program.problems import Mistake, must_be, shown
from program.settings import Listen, LogLevel, Section, Tls

CONTROLLER_KEYS: Final = frozenset(
    {
        "enableHTTP2",
        "secureMetrics",
        "enableLeaderElection",
        "metricsAddr",
        "probeAddr",
        "metricInformer",
        "platform",
        "proxyService",
        "hooks",
    }
)
"""Keys of the file that only hooks use."""

PSEUDONYM: Final = "beamlit-gateway"
"""Name in Via fields of a gateway that runs in no cluster and has no name of its own; others begin with it."""

_BASE_URL: Final = re.compile(r"https?://[^\s/@?#]+(/[^\s?#]*)?")

Seconds = Annotated[float, Field(gt=0, le=86400)]


class DefaultRemoteBackend(settings.DefaultRemote):
    """Remote backend of every ModelDeployment that names none of its own."""

    headers_to_add: Mapping[HeaderName, HeaderValue] = Field(default_factory=dict)
    headers_to_remove: tuple[HeaderName, ...] = ()
    forward_headers: tuple[HeaderName, ...] = ()


class TimeoutSettings(Section):
    """Seconds that the gateway waits for clients and backends."""

    connect_seconds: Seconds = 5.0
    """Seconds that a connection to a remote backend may take: name resolution, TCP and TLS."""
    local_connect_seconds: Seconds = 2.0
    """Seconds that a connection to a Service of the cluster may take."""
    first_byte_seconds: Seconds = 600.0
    """Seconds that a backend may take to send the response head: long, because a generation may take long."""
    first_token_seconds: Seconds | None = None
    """Seconds that a backend may take to send the first event of an event stream; as for the head when None."""
    idle_seconds: Seconds = 120.0
    """Seconds that may pass between two parts of a response body, from the first event of an event stream on."""
    head_seconds: Seconds = 10.0
    """Seconds that a client may take to send a whole request head."""
    body_seconds: Seconds = 30.0
    """Seconds that may pass between two parts of a request body."""
    keep_alive_seconds: Seconds = 75.0
    """Seconds that an unused client connection stays open; longer than that of the load balancer in front."""
    write_stall_seconds: Seconds = 30.0
    """Seconds that a client may go without reading the response."""
    tunnel_idle_seconds: Seconds = 3600.0
    """Seconds that a WebSocket stays open while neither side sends anything."""


class KeepAliveSettings(Section):
    """Comments that clients get in event streams while nothing else comes, where the route says nothing about them."""

    after_seconds: Annotated[float, Field(ge=0, le=86400)] = 25.0
    """Seconds of silence before the first event of a stream after which a comment is sent; 0 for never."""
    before_head: bool = False
    """Whether comments are sent before a backend has responded, where the client asks for a stream."""


class LimitSettings(Section):
    """Limits on sizes and counts."""

    head_bytes: Annotated[int, Field(ge=1024, le=1 << 20)] = 32768
    """Bytes of the largest request head."""
    fields: Annotated[int, Field(ge=10, le=10000)] = 100
    """Header fields that a request may have."""
    url_bytes: Annotated[int, Field(ge=256, le=65000)] = 8192
    """Bytes of the longest request target."""
    body_bytes: Annotated[int, Field(ge=0)] = 33554432
    """Bytes of the largest request body, unless the route has a limit of its own."""
    replay_bytes: Annotated[int, Field(ge=0, le=1 << 26)] = 1048576
    """Bytes of the largest request body that is kept to be sent again: to another backend, or with a new token."""
    memory_bytes: Annotated[int, Field(ge=1 << 20)] = 268435456
    """Bytes of memory for what waits: request bodies that are held, and responses whose clients read slowly."""
    body_bytes_per_second: Annotated[int, Field(ge=0)] = 512
    """Bytes per second that a client sends of a request body at least, on average, once `timeouts.bodySeconds` have
    passed; 0 for any rate."""
    connections: Annotated[int, Field(ge=1, le=1000000)] = 8000
    """Client connections that may be open at the same time."""
    decisions: Annotated[int, Field(ge=0, le=100000)] = 1000
    """Requests that `/decisions` on the admin port lists at most."""


class RetrySettings(Section):
    """Bounds on retries, per route and gateway. The route document says when a request is retried."""

    budget_percentage: Annotated[int, Field(ge=0, le=100)] = 20
    """Retries within ten seconds, in percent of the requests. One after an attempt that sent nothing does not count."""
    budget_per_second: Annotated[int, Field(ge=0, le=100000)] = 10
    """Retries per second, on average over ten seconds, that are allowed at any rate of requests."""
    cool_down_seconds: Annotated[float, Field(ge=0, le=3600)] = 60.0
    """Seconds of the longest cool-down that a backend gets which asks for one by Retry-After."""


class DrillSettings(Section):
    """How remote backends are tried before requests need them, where the route document says nothing about it."""

    interval_seconds: Annotated[float, Field(ge=0, le=86400)] = 300.0
    """Seconds between two drills at a remote backend; 0 turns them off, and another number below 10 counts as 10."""
    request: DrillRequest = DrillRequest.NONE
    """Request that a drill sends: none, the list of models, or a completion of one token, which costs."""
    replicas: Annotated[int, Field(ge=1, le=1000)] = 1
    """Number of gateways that share the completions where they do not know each other: each sends one with every so
    many drills."""
    peers: Annotated[str, Field(max_length=253)] = ""
    """Host name of which every address is a gateway, by which these know each other: then one of them sends the
    completions of a remote backend."""


class CorsSettings(Section):
    """Websites that may read responses in a browser, where the route document says nothing about them."""

    origins: tuple[Origin, ...] = ()
    """Origins of these websites; `*` allows all of them, and an empty list turns CORS off."""
    methods: tuple[Method, ...] = ("DELETE", "GET", "POST")
    """Methods that they may use. GET, HEAD and some POST requests need no permission."""
    headers: tuple[HeaderName, ...] = ("*",)
    """Header fields that they may send; `*` allows all of them."""
    exposed_headers: tuple[HeaderName, ...] = ()
    """Header fields of responses that they may read, beside those of the gateway, which they may always read."""
    credentials: bool = False
    """Whether browsers may send cookies and client certificates. Not with the origin `*`."""
    max_age_seconds: Annotated[int, Field(ge=0, le=86400)] = 600
    """Seconds for which a browser may keep the response to a preflight."""

    @model_validator(mode="after")
    def _named_origins(self) -> Self:
        if self.credentials and "*" in self.origins:
            raise Mistake(CREDENTIALS_OF_ALL)
        return self


IssuerUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s@/?#]+(/[^\s?#]*)?$", max_length=2048),
    must_be("an http or https URL, such as https://login.example.com/realms/main"),
]
KeysUrl = Annotated[
    str,
    StringConstraints(pattern=r"^https?://[^\s@/?#]+([/?][^\s#]*)?$", max_length=2048),
    must_be("an http or https URL, such as https://login.example.com/realms/main/certs"),
]
ClaimName = Annotated[
    str,
    StringConstraints(pattern=r"^([^.\\]|\\[.\\])+(\.([^.\\]|\\[.\\])+)*$", max_length=1024),
    must_be("the name of a claim, such as groups, or a path to one, such as realm_access.roles"),
]
Word = Annotated[str, StringConstraints(min_length=1, max_length=253)]
Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519", "Ed448"
]
"""Algorithm by which a token is signed with a key pair (RFC 7518 3.1, RFC 9864)."""


class JwtSettings(Section):
    """Tokens (JWT) of one issuer, by which callers are known."""

    issuer: IssuerUrl
    """Issuer of the tokens, exactly as their claim `iss` has it."""
    audiences: Annotated[tuple[Word, ...], Field(min_length=1, max_length=64)]
    """Audiences of which a token must have one in its claim `aud`."""
    jwks_url: KeysUrl | None = None
    """URL of the issuer's keys; the one that OpenID Connect discovers when None."""
    ca_file: Path | None = None
    """File with certificate authorities in PEM that the issuer's certificate is verified with, instead of the
    system's. It is read again for each load of the keys."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = get_args(Algorithm)
    """Algorithms by which tokens may be signed."""
    name_claim: ClaimName = "sub"
    """Claim with the name of the caller."""
    groups_claim: ClaimName = "groups"
    """Claim with the groups of the caller: a text, or a list of them."""
    groups: Annotated[tuple[Word, ...], Field(max_length=1024)] = ()
    """Groups of which a caller must have one; empty where it needs none."""
    clock_skew_seconds: Annotated[int, Field(ge=0, le=600)] = 60
    """Seconds by which the clocks of issuer and gateway may differ."""


class AccessSettings(Section):
    """Who may use the gateway. Without keys and tokens everyone may who can reach it."""

    keys_directory: Path | None = None
    """Directory with a file for each caller, named after it, that contains the caller's API keys."""
    jwt: JwtSettings | None = None
    """Tokens by which callers are known, beside or instead of API keys; none when None."""
    rules_file: Path | None = None
    """File with rules for callers and groups: their models, whether they may burst, their priority, and their limit of
    requests in flight."""

    @property
    def is_on(self) -> bool:
        """Whether requests need a credential of the installation."""
        return self.keys_directory is not None or self.jwt is not None


class TracingSettings(Section):
    """Traces of requests, sent over OTLP/HTTP. Environment variables of OpenTelemetry have all that is not here."""

    endpoint: str | None = None
    """Base URL of a collector, to which /v1/traces is added; None for OTEL_EXPORTER_OTLP_ENDPOINT, if that is set."""
    ratio: Annotated[float, Field(ge=0, le=1)] | None = None
    """Part of the traces that begin here which is kept, from 0 to 1; None for what OTEL_TRACES_SAMPLER says, or all."""

    @field_validator("endpoint")
    @classmethod
    def _url(cls, value: str | None) -> str | None:
        if value is not None and not _BASE_URL.fullmatch(value):
            # The value may have a password, so it is not shown.
            raise Mistake("name an http or https URL without user and query, such as http://collector.example:4318")
        return value


class GatewaySettings(Section):
    """Section `gateway` of the file."""

    listen: Listen = "[::]:8080"
    """Address on which the gateway serves clients."""
    admin: Listen = "127.0.0.1:8081"
    """Address of health, metrics, routes and decisions."""
    routes: Path | None = None
    """Directory of YAML files with ConfigMaps, Secrets and ModelDeployments, read instead of a cluster."""
    kubeconfig: Path | None = None
    """Kubeconfig of the cluster to read from; the cluster the gateway runs in when None."""
    lame_duck_seconds: Annotated[float, Field(ge=0, le=3600)] = 5.0
    """Seconds after SIGTERM in which new requests are still served while `/readyz` fails."""
    drain_seconds: Annotated[float, Field(ge=0, le=86400)] = 25.0
    """Seconds that requests in flight may take after that."""
    timeouts: TimeoutSettings = TimeoutSettings()
    keep_alive: KeepAliveSettings = KeepAliveSettings()
    limits: LimitSettings = LimitSettings()
    retry: RetrySettings = RetrySettings()
    drill: DrillSettings = DrillSettings()
    cors: CorsSettings = CorsSettings()
    access: AccessSettings = AccessSettings()
    tracing: TracingSettings = TracingSettings()
    resolve: tuple[str, ...] = ()
    """Entries `host:port=address:port`: addresses that are used for a name instead of asking the name server."""
    allowed_addresses: tuple[str, ...] = ()
    """CIDR ranges that remote backends may have although the address rules refuse them."""
    cluster_ranges: tuple[str, ...] = ()
    """CIDR ranges of pods, Services and nodes: no remote backend is there and, where any are set, all Services are."""
    bare_hostnames: Literal["namespace", "unique"] = "namespace"
    """When host names without namespace count: in a gateway of one namespace only, or while one route claims them."""
    tls: Tls | None = None
    """Certificate of the gateway; it serves clients without TLS when None."""
    endpoints: Literal["pods", "service"] = "pods"
    """Where requests for local replicas go: to the pods that EndpointSlices name, or to the name of their Service."""
    usage: StreamUsage = StreamUsage.AS_ASKED
    """Whether servers are asked for the tokens of each stream of completions, or only where the client asks."""
    trusted_proxies: tuple[str, ...] = ()
    """CIDR ranges of the proxies in front whose forwarding fields, and what they say about callers, are trusted."""
    install: Annotated[str, StringConstraints(max_length=253)] = ""
    """Name of this installation in its cluster, such as namespace/release: all its replicas have the same."""
    via_pseudonym: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]{1,64}$"),
            must_be("a word of letters, digits and hyphens, such as gateway-paris"),
        ]
        | None
    ) = None
    """Name of the gateway in the Via fields of requests, by which it finds loops. All its replicas have the same, and
    no other installation has it. None for one that is made from the cluster's certificate authority and `install`."""
    log_level: LogLevel = "info"
    """Lowest level of the log lines that are written."""
    access_log: bool = True
    """Whether a log line is written for each request."""

    @field_validator("allowed_addresses", "cluster_ranges", "trusted_proxies")
    @classmethod
    def _ranges(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for one in value:
            try:
                addresses.AddressRules.parse(allowed=(one,))
            except ValueError:
                raise Mistake(f"must be ranges of addresses such as 10.0.0.0/8, not {shown(one)}") from None
        return value


def via_pseudonym(gateway: GatewaySettings, authority: bytes) -> str:
    """Return the name of the gateway in Via fields (RFC 9110 7.6.3).

    Gateways of one installation have the same, so that they find a loop through any of them. Those of other clusters
    and installations have others, so that one may send requests to another.

    Args:
        gateway: Settings of the gateway.
        authority: Certificate authority of the cluster that the gateway runs in; empty outside of one.
    """
    if gateway.via_pseudonym is not None:
        return gateway.via_pseudonym
    if not authority and not gateway.install:
        return PSEUDONYM
    digest = hashlib.sha256(b"%b\0%b" % (authority, gateway.install.encode())).hexdigest()
    return f"{PSEUDONYM}-{digest[:12]}"


class Settings(settings.Shared):
    """Everything that is configured when the gateway starts."""

    default_remote_backend: DefaultRemoteBackend = DefaultRemoteBackend()
    gateway: GatewaySettings = GatewaySettings()

    @classmethod
    def load(
        cls,
        config: Path | None,
        *,
        environment: Mapping[str, str] | None = None,
        flags: Mapping[str, object] | None = None,
    ) -> Self:
        """Read the file, then the environment, then the flags; the later value wins.

        Args:
            config: YAML file; None when there is none.
            environment: Variables to use instead of the process's own.
            flags: Values of the section `gateway` by their camelCase name; None means that a flag was not given.

        Raises:
            SettingsError: The configuration cannot be used; the message names the key, the value and what is allowed.
        """
        given = {f"gateway.{key}": value for key, value in (flags or {}).items()}
        return settings.load(cls, config, environment=environment, flags=given, foreign=CONTROLLER_KEYS)
