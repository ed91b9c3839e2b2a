"""Types of `spec.offloadingConfig.remoteBackend`: the backend outside the cluster, and how the gateway reaches it."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import (
    Field,
    SecretStr,
    StringConstraints,
)

from gateway.api.vocabulary import Forwarded
from hooks.api.common import (
    LIST_ATOMIC,
    LIST_MAP_BY_NAME,
    ApiModel,
    Price,
    SecretKeyReference,
    SecretReference,
    Text,
    cel_rule,
    schema_config,
)
from program.oauth.credentials import TokenAuth
from program.problems import must_be


class HeaderSource(ApiModel):
    """Source of the value of a header field."""

    secret_key_ref: SecretKeyReference
    """Key of a Secret that holds the value."""


HeaderName = Annotated[
    str,
    StringConstraints(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", min_length=1, max_length=128),
    must_be("the name of a header field, such as x-team"),
]

HeaderValue = Annotated[str, StringConstraints(max_length=4096)]


class Header(ApiModel):
    """Header field that the gateway sets in requests to the remote backend."""

    model_config = schema_config(
        cel_rule("has(self.value) != has(self.valueFrom)", "give the header either value or valueFrom, and not both")
    )

    name: HeaderName
    """Name of the header field. Upper and lower case are not distinguished."""
    value: HeaderValue | None = None
    """Value of the header field in plain text. Use valueFrom for anything secret. Must not be set together with
    valueFrom."""
    value_from: HeaderSource | None = None
    """Source that the gateway reads the value from when it needs it. Must not be set together with value."""


class OAuthConfig(ApiModel):
    """OAuth 2.0 client credentials (RFC 6749 section 4.4), in a Secret or, as in the original, inline."""

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
    """Client identifier. Must not be set together with clientSecretRef."""
    client_secret: Annotated[SecretStr, Field(max_length=4096)] | None = None
    """Client secret in plain text, which everyone can read who can read this object. Prefer clientSecretRef."""
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
    """Method by which the client authenticates to the token endpoint. client_secret_basic: HTTP Basic with id and
    secret form-encoded (RFC 6749 section 2.3.1). client_secret_basic_raw: HTTP Basic with id and secret as they are.
    client_secret_post: id and secret in the body. If not set, the gateway tries them in this order."""
    audience: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    """Audience of the token, if the token endpoint asks for one."""
    resource: Annotated[str, StringConstraints(min_length=1, max_length=2048)] | None = None
    """URI of the service that the token is for (RFC 8707). Several are separated by spaces."""
    client_secret_ref: SecretReference | None = None
    """Secret with the keys clientId, clientSecret, tokenUrl and hosts (host names that the token may be sent to,
    separated by commas), and optionally scope, audience, resource, parameters, tokenAuth and ca.crt. The gateway reads
    it when it needs a token. It never passes through the controller."""


class AuthConfig(ApiModel):
    """Authentication of the gateway to the remote backend."""

    type: Literal["oauth"]
    """Type of the authentication. Must be oauth."""
    oauth_config: OAuthConfig | None = None
    """OAuth 2.0 client credentials. Required for type oauth."""


class Scheme(StrEnum):
    """URL scheme of the remote backend."""

    HTTP = "http"
    HTTPS = "https"


class Location(ApiModel):
    """Location of a backend. A policy that asks for a field which is not set is not satisfied."""

    model_config = schema_config(
        cel_rule(
            "!has(self.country) || !has(self.continent)",
            "with country leave continent out: a country is on one continent",
        ),
    )

    name: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Name of the location, such as the region of a cloud: eu-west-3. A policy compares the whole name, without
    distinguishing upper and lower case. No country is derived from it."""
    country: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[A-Za-z]{2,3}$", max_length=3),
            must_be("a country code of ISO 3166-1 with two or three letters, such as fr or FRA"),
        ]
        | None
    ) = None
    """ISO 3166-1 code of the country, with two or three letters: fr or FRA. The continent is derived from it."""
    continent: Annotated[str, StringConstraints(max_length=63)] | None = None
    """Code or English name of the continent, if the country is not known: AF (Africa), AN (Antarctica), AS (Asia), EU
    (Europe), NA (North America), OC (Oceania) or SA (South America)."""


class Flavor(ApiModel):
    """Hardware that a model runs on."""

    model_config = schema_config(x_must_be="a flavor, such as {type: gpu, name: t4}")

    type: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Type of the hardware, for example cpu or gpu."""
    name: Annotated[str, StringConstraints(min_length=1, max_length=253)]
    """Name of the hardware, for example t4."""


class HealthCheck(ApiModel):
    """Health check: requests that every gateway pod sends to a backend to find out whether it responds."""

    path: Annotated[
        str,
        StringConstraints(pattern=r'^/[!-"$-~]*$', min_length=1, max_length=1024),
        must_be("a path of ASCII characters that begins with / and has neither spaces nor #, such as /health"),
    ]
    """Path of the GET request of a check. pathPrefix of the backend is not added. A status from 200 to 299 is a
    success."""
    interval_seconds: Annotated[float, Field(ge=1, le=3600)] = 10
    """Number of seconds between two checks. Defaults to 10."""
    timeout_seconds: Annotated[float, Field(ge=0.01, le=3600)] = 5
    """Number of seconds after which a check fails, at most intervalSeconds. Defaults to 5."""
    unhealthy_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of failed checks in a row after which the backend gets no requests, as long as another backend can take
    them. Defaults to 3."""
    healthy_threshold: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of successful checks in a row after which the backend gets requests again. Defaults to 1."""


class RemoteTls(ApiModel):
    """TLS towards the remote backend. Its certificate is always verified."""

    server_name: (
        Annotated[
            str,
            StringConstraints(pattern=r"^[A-Za-z0-9._:-]+$", min_length=1, max_length=253),
            must_be("a host name, such as models.example.com"),
        ]
        | None
    ) = None
    """Name that the gateway sends as server name (SNI) and that the certificate must be valid for. Defaults to the name
    in host."""
    ca_bundle: Annotated[str, StringConstraints(min_length=1, max_length=65536)] | None = None
    """PEM certificates of the authorities that the certificate is verified with. With an inline clientSecret they also
    verify the certificate of the token endpoint. Defaults to the authorities that the gateway's system trusts."""
    client_certificate_ref: SecretReference | None = None
    """Secret with the client certificate that the gateway presents, under the keys tls.crt and tls.key."""


class RemoteBackend(ApiModel):
    """Backend outside the cluster that offloaded requests go to."""

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
    """Host name or address of the backend, with a port if it is not the default port of the scheme, for example
    models.example.com:8443."""
    scheme: Scheme = Scheme.HTTP
    """URL scheme of the backend: http or https. Defaults to http."""
    path_prefix: Text = ""
    """Prefix that the gateway adds to the path of every request. $model is replaced by spec.model and $workspace by the
    workspace. Defaults to no prefix."""
    workspace: Annotated[str, StringConstraints(max_length=253)] | None = None
    """Workspace that replaces $workspace in pathPrefix. Defaults to status.workspace, which the platform sets, and then
    to the workspace in the controller's configuration."""
    headers_to_add: Annotated[Mapping[HeaderName, HeaderValue], Field(max_length=64)] = Field(default_factory=dict)
    """Header fields, by name, that the gateway sets in every request. Each replaces the fields of the same name."""
    headers: Annotated[tuple[Header, ...], Field(max_length=64, json_schema_extra=LIST_MAP_BY_NAME)] = ()
    """Header fields that the gateway sets in every request, in addition to headersToAdd. Their values may come from
    Secrets."""
    headers_to_remove: Annotated[tuple[HeaderName, ...], Field(max_length=64, json_schema_extra=LIST_ATOMIC)] = ()
    """Names of header fields of clients that the gateway does not send to the backend, in addition to those of
    credentials and identities."""
    forward_headers: Annotated[tuple[HeaderName, ...], Field(max_length=64, json_schema_extra=LIST_ATOMIC)] = ()
    """Names of header fields and query parameters that the gateway sends to the backend although they look like
    credentials of the client or like claims about its identity."""
    forwarded: Forwarded | None = None
    """Whether the backend gets forwarding fields, such as X-Forwarded-For, which tell the client's address and the Host
    and scheme that the client used. none: it gets no such fields, and headersToAdd and headers may set them. append: it
    gets them. Defaults to none."""
    auth_config: AuthConfig | None = None
    """Authentication of the gateway to the backend. If not set, requests are not authenticated."""
    tls: RemoteTls | None = None
    """TLS towards the backend, for scheme https."""
    health_check: HealthCheck | None = None
    """Health check of the backend. If not set, there is none."""
    location: Location | None = None
    """Location of the backend, which policies are compared with. It is a declaration that nothing verifies."""
    flavors: Annotated[tuple[Flavor, ...], Field(max_length=64, json_schema_extra=LIST_ATOMIC)] = ()
    """All hardware that the backend may run the model on, which policies are compared with. It is a declaration that
    nothing verifies."""
    price: Price | None = None
    """Price of a million tokens at the backend, in any currency. From it the gateway estimates what requests cost, for
    its metric beamlit_gateway_estimated_cost_total. If not set, there is no estimate."""
    prompt_price: Price | None = None
    """Price of a million tokens of prompts, where it is another one. Defaults to price."""
