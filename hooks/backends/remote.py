"""The remote backend of a specification, with all variables replaced, or the reason why there is none."""

import ipaddress
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Final, Literal, TypeVar
from urllib.parse import quote, unquote

from gateway.api.vocabulary import FORWARDED, NOT_SETTABLE, Forwarded
from hooks import names, reasons
from hooks.api.model_deployment import ModelDeploymentSpec
from hooks.api.remote_backend import AuthConfig, HealthCheck, RemoteBackend, RemoteTls, Scheme
from hooks.errors import NotAccepted
from hooks.kube.unstructured import text
from hooks.observation.observation import Observation, Unresolved
from program.authority import authority
from program.tls import holds_certificates

_FIELD: Final = "spec.offloadingConfig.remoteBackend"
_VARIABLE: Final = re.compile(r"\$(workspace|model)")
_SEGMENT_CHARACTERS: Final = "!$&'()*+,;=:@"
"""Characters besides letters, digits and `-._~` that a path segment holds without encoding (RFC 3986 section 3.3,
pchar)."""
_BAD_ESCAPE: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_HEADER_VALUE: Final = re.compile(r"[\x20-\x7e]*")
_HOST_NAME: Final = re.compile(r"(?=.{1,253}\Z)[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_-]+)*\.?")
_STANDARD_PORTS: Final[Mapping[str, int]] = {"http": 80, "https": 443}

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class SecretKey:
    """One key of a Secret."""

    name: str
    key: str


@dataclass(frozen=True, slots=True)
class Credentials:
    """A reference to the object that holds the OAuth 2.0 client credentials."""

    kind: Literal["Secret", "ModelDeployment"]
    """Kind of the object; ModelDeployment for credentials that stand in the specification itself."""
    name: str


@dataclass(frozen=True, slots=True)
class Tls:
    """The TLS parameters of the remote backend: how its certificate is verified, and which certificate the gateway
    presents."""

    server_name: str | None
    """Name in the server's certificate and in SNI; None for the host."""
    ca_bundle: str | None
    """Authorities in PEM; None for those of the gateway's system."""
    client_certificate: str | None
    """Name of the Secret with the client certificate."""


@dataclass(frozen=True, slots=True)
class Remote:
    """The backend that offloaded requests go to."""

    model: str
    """Name by which the remote knows the model."""
    path_prefix: str = ""
    """Percent-encoded path prefix, without a slash at its end."""
    host: str = ""
    """Host, an IPv6 address without brackets; empty for the default remote backend, of which the gateway knows the
    rest."""
    port: int | None = None
    """Port; None for the default of the scheme."""
    scheme: Literal["http", "https"] = "http"
    headers: Mapping[str, str] = field(default_factory=dict)
    """Header fields to set, names in lower case."""
    secret_headers: Mapping[str, SecretKey] = field(default_factory=dict)
    """Header fields to set from Secrets, names in lower case."""
    removed_headers: tuple[str, ...] = ()
    """Names of header fields of clients to remove, in lower case."""
    forward_headers: tuple[str, ...] = ()
    """Names of header fields and query parameters that pass on purpose, in lower case."""
    forwarded: Forwarded | None = None
    """Whether it gets forwarding fields; None where it gets none by default."""
    credentials: Credentials | None = None
    tls: Tls | None = None
    health_check: HealthCheck | None = None
    price: float | None = None
    """Price of a million tokens; None where it is not known."""
    prompt_price: float | None = None
    """Price of a million tokens of prompts, where it is another one."""

    @property
    def authority(self) -> str:
        """Host and port as a URL has them; empty for the default remote backend."""
        return authority(self.host, self.port)


def find_remote(spec: ModelDeploymentSpec, observation: Observation) -> Remote | Unresolved:
    """Return the remote backend, or the reason why there is none.

    Raises:
        NotAccepted: A value of the specification cannot be used.
    """
    offloading = spec.offloading_config
    if offloading is None:
        return Unresolved(reasons.NOT_CONFIGURED, "The specification has no offloadingConfig.")
    if offloading.remote_backend is None:
        return _default_remote(spec, observation)
    return _own_remote(spec, offloading.remote_backend, observation)


def _default_remote(spec: ModelDeploymentSpec, observation: Observation) -> Remote | Unresolved:
    default = observation.defaults.default_remote
    if default is None:
        return Unresolved(
            reasons.NO_REMOTE_BACKEND,
            f"Set {_FIELD}, or defaultRemoteBackend in the controller's configuration: there is no remote backend.",
        )
    # What the platform says comes first; a tenant cannot name a workspace for the backend that everybody shares.
    workspace = text(observation.parent.status, "workspace") or default.workspace
    prefix = _path_prefix(default.path_prefix, spec.model, workspace, "defaultRemoteBackend")
    return prefix if isinstance(prefix, Unresolved) else Remote(spec.model, prefix)


def _own_remote(spec: ModelDeploymentSpec, backend: RemoteBackend, observation: Observation) -> Remote | Unresolved:
    workspace = backend.workspace or text(observation.parent.status, "workspace")
    if not workspace and observation.defaults.default_remote is not None:
        workspace = observation.defaults.default_remote.workspace
    host, port = _authority(backend.host)
    settable = FORWARDED if backend.forwarded is not Forwarded.APPEND else frozenset[str]()
    headers, secret_headers = _headers(backend, settable)
    credentials = _credentials(backend.auth_config, observation.parent.name)
    prefix = _path_prefix(backend.path_prefix, spec.model, workspace, _FIELD)
    if isinstance(prefix, Unresolved):
        return prefix
    return Remote(
        model=spec.model,
        path_prefix=prefix,
        host=host,
        port=None if port == _STANDARD_PORTS[backend.scheme.value] else port,
        scheme=backend.scheme.value,
        headers=headers,
        secret_headers=secret_headers,
        removed_headers=check_names(backend.headers_to_remove, f"{_FIELD}.headersToRemove", settable),
        forward_headers=check_names(backend.forward_headers, f"{_FIELD}.forwardHeaders"),
        forwarded=None if backend.forwarded is Forwarded.NONE else backend.forwarded,
        credentials=credentials,
        tls=None if backend.tls is None else _tls(backend.tls, backend.scheme),
        health_check=backend.health_check,
        price=backend.price,
        prompt_price=backend.prompt_price,
    )


def _tls(tls: RemoteTls, scheme: Scheme) -> Tls:
    if scheme is not Scheme.HTTPS:
        raise NotAccepted(
            reasons.INVALID_TLS, f"{_FIELD}.tls is for scheme https: set {_FIELD}.scheme to https, or leave tls out."
        )
    name = tls.server_name
    if name is not None and not _HOST_NAME.fullmatch(name) and not _is_address(name):
        raise NotAccepted(
            reasons.INVALID_TLS, f"{_FIELD}.tls.serverName must be a host name or address without port, not {name!r}."
        )
    if tls.ca_bundle is not None:
        _check_bundle(tls.ca_bundle)
    certificate = tls.client_certificate_ref
    if certificate is not None:
        _check_secret_name(certificate.name, "tls.clientCertificateRef.name")
    return Tls(name, tls.ca_bundle, None if certificate is None else certificate.name)


def _check_bundle(pem: str) -> None:
    """Refuse a bundle that the gateway could not load, and one with a private key, which must not get into a
    ConfigMap."""
    field_name = f"{_FIELD}.tls.caBundle"
    if "PRIVATE KEY" in pem:
        raise NotAccepted(
            reasons.INVALID_TLS, f"{field_name} holds a private key: leave it out, certificates alone belong there."
        )
    if not _holds_certificates(pem):
        raise NotAccepted(
            reasons.INVALID_TLS,
            f"{field_name} must be certificates in PEM, each between -----BEGIN CERTIFICATE----- and"
            " -----END CERTIFICATE-----.",
        )


_holds_certificates = lru_cache(maxsize=64)(holds_certificates)


def _authority(value: str) -> tuple[str, int | None]:
    """Return host and port of `name`, `name:port`, `[v6]`, `[v6]:port` or a bare IPv6 address."""
    match = re.fullmatch(r"\[(?P<v6>[^\[\]]*)\](?::(?P<v6port>.*))?|(?P<host>[^:\[\]]+)(?::(?P<port>[^:]*))?", value)
    host = value if match is None else match["v6"] or match["host"] or ""
    digits = None if match is None else match["v6port"] if match["v6"] is not None else match["port"]
    is_host = _is_address(host) if match is None or match["v6"] is not None else _HOST_NAME.fullmatch(host) is not None
    if not is_host:
        raise NotAccepted(
            reasons.INVALID_HOST,
            f"{_FIELD}.host must be a host name or address, with :port where needed, not {value!r}.",
        )
    if digits is None:
        return host, None
    if not re.fullmatch(r"[0-9]{1,5}", digits) or not 1 <= int(digits) <= 65535:
        raise NotAccepted(
            reasons.INVALID_HOST, f"{_FIELD}.host must end in a port from 1 to 65535 after the colon, not {digits!r}."
        )
    return host, int(digits)


def _is_address(value: str) -> bool:
    try:
        return ipaddress.ip_address(value).version == 6
    except ValueError:
        return False


def _path_prefix(template: str, model: str, workspace: str, owner: str) -> str | Unresolved:
    """Return the path prefix: the template with its variables replaced, each encoded as one segment (RFC 3986 section
    2.1)."""
    field_name = f"{owner}.pathPrefix"
    if "$workspace" in template and not workspace:
        return Unresolved(
            reasons.WORKSPACE_UNKNOWN,
            f"{field_name} needs a workspace and there is none: set {owner}.workspace.",
        )
    for forbidden in ("?", "#", "\\"):
        if forbidden in template:
            raise NotAccepted(reasons.INVALID_PATH_PREFIX, f"{field_name} must be a path, without {forbidden!r}.")
    if _BAD_ESCAPE.search(template):
        raise NotAccepted(
            reasons.INVALID_PATH_PREFIX, f"{field_name} has a % that begins no escape: write a literal one as %25."
        )
    values = {"workspace": workspace, "model": model}
    stripped = template.strip("/")
    if not stripped:
        return ""
    prefix = ""
    for segment in stripped.split("/"):
        expanded = quote(segment, safe=_SEGMENT_CHARACTERS + "%")
        expanded = _VARIABLE.sub(lambda variable: quote(values[variable[1]], safe=""), expanded)
        # A server that decodes %2F before it resolves dot segments must find none either.
        if not expanded or {".", ".."} & set(re.split(r"[/\\]", unquote(expanded))):
            raise NotAccepted(
                reasons.INVALID_PATH_PREFIX,
                f"{field_name} must not have empty segments or the segments . and .., which {template!r} has"
                " once $workspace and $model are put in.",
            )
        prefix += f"/{expanded}"
    return prefix


def check_names(headers: Collection[str], field_name: str, settable: Collection[str] = ()) -> tuple[str, ...]:
    """Return names of header fields in lower case.

    Args:
        headers: Names as they are written.
        field_name: Path of the field that has them.
        settable: Names that are allowed although the gateway writes such fields elsewhere.

    Raises:
        NotAccepted: One of them is that of a field that only the gateway may write.
    """
    lower = tuple(name.lower() for name in headers)
    for name in lower:
        if name in NOT_SETTABLE and name not in settable:
            raise NotAccepted(
                reasons.INVALID_HEADER, f"{field_name} names the header {name}, which only the gateway may set."
            )
    return lower


def _headers(backend: RemoteBackend, settable: Collection[str]) -> tuple[dict[str, str], dict[str, SecretKey]]:
    """Return the header fields with fixed values, and those with values from Secrets."""
    fixed: dict[str, str] = {}
    secret: dict[str, SecretKey] = {}
    for name, value in backend.headers_to_add.items():
        _add(fixed, name, value, taken=fixed.keys(), settable=settable)
    for header in backend.headers:
        if header.value_from is not None and header.value is None:
            reference = header.value_from.secret_key_ref
            _check_secret_name(reference.name, f"headers[{header.name}].valueFrom.secretKeyRef.name")
            key = SecretKey(reference.name, reference.key)
            _add(secret, header.name, key, taken=fixed.keys() | secret.keys(), settable=settable)
        elif header.value is not None and header.value_from is None:
            _add(fixed, header.name, header.value, taken=fixed.keys() | secret.keys(), settable=settable)
        else:
            raise NotAccepted(
                reasons.INVALID_HEADER, f"Give the header {header.name} in {_FIELD}.headers either value or valueFrom."
            )
    return fixed, secret


def _add(fields: dict[str, _T], name: str, value: _T, *, taken: Collection[str], settable: Collection[str]) -> None:
    lower = name.lower()
    if lower in taken:
        raise NotAccepted(
            reasons.INVALID_HEADER, f"{_FIELD} has the header {lower} twice; upper and lower case are the same."
        )
    if lower in NOT_SETTABLE and lower not in settable:
        raise NotAccepted(reasons.INVALID_HEADER, f"{_FIELD} sets the header {lower}, which only the gateway may set.")
    if isinstance(value, str) and not _HEADER_VALUE.fullmatch(value):
        raise NotAccepted(
            reasons.INVALID_HEADER, f"The value of the header {lower} in {_FIELD} must be printable ASCII."
        )
    fields[lower] = value


def _credentials(auth: AuthConfig | None, parent: str) -> Credentials | None:
    if auth is None:
        return None
    oauth = auth.oauth_config
    if oauth is None:
        raise NotAccepted(
            reasons.INVALID_CREDENTIALS, f"{_FIELD}.authConfig needs oauthConfig, or leave authConfig out."
        )
    inline = (oauth.client_id, oauth.client_secret, oauth.token_url)
    if oauth.client_secret_ref is not None and any(
        value is not None for value in (oauth.token_auth, oauth.audience, oauth.resource)
    ):
        raise NotAccepted(
            reasons.INVALID_CREDENTIALS,
            f"{_FIELD}.authConfig.oauthConfig has clientSecretRef: leave tokenAuth, audience and resource out, they are"
            " keys of the Secret.",
        )
    if oauth.client_secret_ref is not None and not any(value is not None for value in inline):
        _check_secret_name(oauth.client_secret_ref.name, "authConfig.oauthConfig.clientSecretRef.name")
        return Credentials("Secret", oauth.client_secret_ref.name)
    if oauth.client_secret_ref is None and all(value is not None for value in inline):
        return Credentials("ModelDeployment", parent)
    raise NotAccepted(
        reasons.INVALID_CREDENTIALS,
        f"{_FIELD}.authConfig.oauthConfig needs either clientSecretRef or all of clientId, clientSecret and tokenUrl.",
    )


def _check_secret_name(name: str, field_name: str) -> None:
    if not names.is_object_name(name):
        raise NotAccepted(
            reasons.INVALID_NAME,
            f"{_FIELD}.{field_name} must be the name of a Secret, of lower-case letters, digits, dashes and dots, not"
            f" {name!r}.",
        )
