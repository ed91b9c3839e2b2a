"""`spec.offloadingConfig.remoteBackend`: the backend outside the cluster, and how the gateway authenticates to it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
)

from hooks.api.common import (
    LIST_ATOMIC,
    LIST_MAP_BY_NAME,
    ApiModel,
    SecretKeyReference,
    SecretReference,
    Text,
    cel_rule,
    schema_config,
)
from program.oauth.credentials import TokenAuth
from program.problems import must_be


class HeaderSource(ApiModel):
    """Where the value of a header is read from."""

    secret_key_ref: SecretKeyReference
    """A key of a Secret."""


HeaderName = Annotated[
    str,
    StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", min_length=1, max_length=128),
    must_be("the name of a header field, such as x-team"),
]

HeaderValue = Annotated[str, StringConstraints(max_length=4096)]


class Header(ApiModel):
    """A header field of the requests to the remote backend."""

    model_config = schema_config(
        cel_rule("has(self.value) != has(self.valueFrom)", "give the header either value or valueFrom, and not both")
    )

    name: HeaderName
    """Name of the header; upper and lower case are the same."""
    value: HeaderValue | None = None
    """Value, in the open. Use valueFrom for anything secret."""
    value_from: HeaderSource | None = None
    """Where the gateway reads the value when it needs it."""


class OAuthConfig(ApiModel):
    """OAuth 2.0 client credentials, either by reference to a Secret or, as in the original, inline."""

    model_config = schema_config(
        cel_rule(
            "has(self.clientSecretRef) || (has(self.clientId) && has(self.clientSecret) && has(self.tokenUrl))",
            "set clientSecretRef, or all of clientId, clientSecret and tokenUrl",
        ),
        cel_rule(
            "!has(self.clientSecretRef) || !(has(self.clientId) || has(self.clientSecret) || has(self.tokenUrl))",
            "with clientSecretRef leave out clientId, clientSecret and tokenUrl: the Secret holds them",
        ),
        cel_rule(
            "!has(self.clientSecretRef) || !(has(self.tokenAuth) || has(self.audience) || has(self.resource))",
            "with clientSecretRef leave out tokenAuth, audience and resource: they are keys of the Secret",
        ),
    )

    client_id: Text | None = None
    """Client id."""
    client_secret: Annotated[SecretStr, Field(max_length=4096)] | None = None
    """Client secret, in the open; whoever can read this object can read it. Prefer clientSecretRef."""
    token_url: (
        Annotated[
            str,
            StringConstraints(pattern=r"^https?://[^\s]+$", max_length=2048),
            must_be("an http or https URL, such as https://auth.example.com/oauth/token"),
        ]
        | None
    ) = None
    """URL of the token endpoint."""
    token_auth: TokenAuth | None = None
    """How the client id and secret are sent to the token endpoint: client_secret_basic (HTTP Basic, form-encoded first
    as RFC 6749 says), client_secret_basic_raw (HTTP Basic as they are) or client_secret_post (in the body). When left
    out, the gateway tries them in this order."""
    audience: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    """Service that the token is for, where the token endpoint asks for an audience."""
    resource: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    """URI of the service that the token is for (RFC 8707); several are separated by spaces."""
    client_secret_ref: SecretReference | None = None
    """Secret with the keys clientId, clientSecret, tokenUrl and hosts (where the token may be sent, separated by
    commas), and optionally scope, audience, resource, parameters, tokenAuth and ca.crt. The gateway reads it when it
    needs a token; it never passes through the controller."""


class AuthConfig(ApiModel):
    """How the gateway authenticates to the remote backend."""

    type: Literal["oauth"]
    """Kind of authentication."""
    oauth_config: OAuthConfig | None = None
    """OAuth 2.0 client credentials."""


class Scheme(StrEnum):
    """How the remote backend is spoken to."""

    HTTP = "http"
    HTTPS = "https"


class Location(ApiModel):
    """Where a backend runs. What is left out is not known, and a policy that asks for it is not satisfied."""

    model_config = schema_config(
        cel_rule(
            "!has(self.country) || !has(self.continent)",
            "with country leave continent out: a country is on one continent",
        ),
    )

    name: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Its name, such as that of a region of a cloud: eu-west-3. Compared whole, upper and lower case are the same; no
    country is read out of it."""
    country: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[A-Za-z]{2,3}$", max_length=3),
            must_be("a country code of ISO 3166-1 with two or three letters, such as fr or FRA"),
        ]
        | None
    ) = None
    """ISO 3166-1 code of the country, of two or three letters: fr or FRA. It tells the continent too."""
    continent: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Code or English name of the continent where the country is not known: AF (Africa), AN (Antarctica), AS (Asia), EU
    (Europe), NA (North America), OC (Oceania), SA (South America)."""


class Flavor(ApiModel):
    """A kind of hardware."""

    model_config = schema_config(x_must_be="a flavor, such as {type: gpu, name: t4}")

    type: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Type of the hardware, for instance cpu or gpu."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the hardware, for instance t4."""


class HealthCheck(ApiModel):
    """Requests of the gateway's own by which it learns whether a backend answers. Every gateway makes its own."""

    path: Annotated[
        str,
        StringConstraints(pattern=r'^/[!-"$-~]*$', min_length=1, max_length=1024),
        must_be("a path of ASCII characters that begins with / and has neither spaces nor #, such as /health"),
    ]
    """Target of a GET to the backend itself, without its path prefix; a status from 200 to 299 is healthy."""
    interval_seconds: Annotated[float, Field(ge=1, le=3600)] = 10
    """Between two checks."""
    timeout_seconds: Annotated[float, Field(ge=0.01, le=3600)] = 5
    """For one check."""
    unhealthy_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """Failed checks in a row after which the backend gets no requests, as long as another one can take them."""
    healthy_threshold: Annotated[int, Field(ge=1, le=100)] = 1
    """Passed checks in a row after which it gets them again."""


class RemoteTls(ApiModel):
    """How the certificate of the remote backend is verified, and what is shown to it. It is verified always."""

    server_name: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[A-Za-z0-9._:-]+$", min_length=1, max_length=253),
            must_be("a host name, such as models.example.com"),
        ]
        | None
    ) = None
    """Name that is asked for (SNI) and that the certificate must have; that of host when left out."""
    ca_bundle: Annotated[str, StringConstraints(min_length=1, max_length=65536)] | None = None
    """Certificates in PEM that may have issued it, instead of those of the gateway's system. With an inline
    clientSecret they may have issued the certificate of the token endpoint too."""
    client_certificate_ref: SecretReference | None = None
    """Secret with the keys tls.crt and tls.key, which the gateway shows to the backend."""


class RemoteBackend(ApiModel):
    """Where offloaded requests go."""

    model_config = schema_config(
        cel_rule(
            "!has(self.tls) || self.scheme == 'https'",
            "tls is for scheme https: set scheme to https, or leave tls out",
        ),
    )

    host: Annotated[
        str,
        StringConstraints(pattern=r"^[A-Za-z0-9._:\[\]-]+$", min_length=1, max_length=260),
        must_be("a host name or address without scheme and path, such as models.example.com or 192.0.2.1:8443"),
    ]
    """Host name or address, with a port where it is not the scheme's own: models.example.com:8443."""
    scheme: Scheme = Scheme.HTTP
    """http or https."""
    path_prefix: Text = ""
    """Put in front of the path of every request. $model and $workspace stand for spec.model and the workspace."""
    workspace: Annotated[str, StringConstraints(max_length=253)] | None = None
    """What $workspace stands for in pathPrefix; the platform's own answer when left out."""
    headers_to_add: Annotated[Mapping[HeaderName, HeaderValue], Field(max_length=64)] = Field(default_factory=dict)
    """Header fields that every request gets; they replace those of the same name."""
    headers: Annotated[tuple[Header, ...], Field(max_length=64, json_schema_extra=LIST_MAP_BY_NAME)] = ()
    """As headersToAdd, with values that may come from a Secret."""
    auth_config: AuthConfig | None = None
    """How the gateway authenticates; no authentication when left out."""
    tls: RemoteTls | None = None
    """How it is verified, for scheme https."""
    health_check: HealthCheck | None = None
    """How its health is checked; not at all when left out."""
    location: Location | None = None
    """Where the backend runs, for policies. It is believed."""
    flavors: Annotated[tuple[Flavor, ...], Field(max_length=64, json_schema_extra=LIST_ATOMIC)] = ()
    """All hardware that the backend may run the model on, for policies. It is believed."""
