"""Server that a backend of a route leads to: its origin, and what requests to it are made of."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from gateway.api.v1alpha1 import Backend, Headers, RouteDocument, Tls
from gateway.http import forwarding
from gateway.routes.table import Route
from gateway.settings import Settings
from gateway.upstream.origin import Origin
from program.authority import authority

if TYPE_CHECKING:
    from program.addresses import Destination as Kind


@dataclass(frozen=True, slots=True)
class Destination:
    """Server that a backend leads to: a Service, a remote host, or the default remote backend."""

    origin: Origin
    target: forwarding.Target
    connect: float
    """Seconds that a connection may take."""
    authenticated: bool
    """Whether requests get a token or header values from Secrets."""
    certified: bool
    """Whether the gateway presents a client certificate."""


def find_destination(route: Route, backend: Backend, settings: Settings) -> Destination:
    """Return the server that a backend of a route leads to."""
    document = route.document
    # Of the default remote backend the settings say everything: its token must not go anywhere else.
    tls = Tls() if backend.default else backend.tls
    timeouts = settings.gateway.timeouts
    local = backend.service is not None
    headers = backend.headers
    scheme = backend.scheme
    port = backend.port
    authenticated = backend.credentials is not None or bool(headers.set_from)
    appends, forwards = backend.gets_forwarded, backend.forward_headers
    if backend.service is not None:
        host = f"{backend.service}.{route.namespace}.svc.{settings.cluster_domain}"
    elif backend.host is not None:
        host = backend.host
    else:
        default = settings.default_remote_backend
        host, port = split_authority(default.host)
        scheme = default.scheme
        headers = Headers(set=default.headers_to_add, remove=default.headers_to_remove)
        appends, forwards = default.forwarded == "append", default.forward_headers
        authenticated = default.auth_config is not None
    standard = 443 if scheme == "https" else 80
    port = port or standard
    kind: Kind = "service" if local else "configured" if backend.default else "remote"
    return Destination(
        origin=Origin(host, port, scheme, tls.server_name, tls.ca_bundle, destination=kind),
        target=forwarding.Target.of(
            authority(host, None if port == standard else port),
            local=local,
            appends=appends,
            prefix=backend.path_prefix,
            headers=headers,
            forwards=forwards,
            token=backend.credentials is not None or (backend.default and authenticated),
            withholds=settings.gateway.access.is_on or _has_keys(document),
        ),
        connect=document.timeouts.connect or (timeouts.local_connect_seconds if local else timeouts.connect_seconds),
        authenticated=authenticated,
        certified=scheme == "https" and tls.client_certificate is not None,
    )


def _has_keys(document: RouteDocument) -> bool:
    """Return whether the model has API keys of its own."""
    return document.access is not None and bool(document.access.secrets)


def split_authority(authority: str) -> tuple[str, int | None]:
    """Split `host`, `host:port` or `[address]:port` into host and port; the port is None when there is none."""
    if authority.startswith("["):
        host, _, port = authority[1:].partition("]")
        port = port.removeprefix(":")
    elif authority.count(":") == 1:
        host, _, port = authority.partition(":")
    else:
        host, port = authority, ""
    return host, int(port) if port.isascii() and port.isdigit() else None
