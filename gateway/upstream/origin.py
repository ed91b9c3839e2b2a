"""Backends as the connection pool knows them, with the times and limits that they have."""

from dataclasses import dataclass
from math import inf
from typing import Final, NamedTuple

from program.addresses import Destination
from program.tls import ClientCertificate

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"})
"""Methods that may be sent twice (RFC 9110 9.2.2). TRACE never passes the gateway."""


class Origin(NamedTuple):
    """Backend as the connection pool knows it: requests with an equal origin share connections, others do not."""

    host: str
    """Host name or IP address of the backend."""
    port: int
    scheme: str = "http"
    """URL scheme of the backend: http or https."""
    server_name: str | None = None
    """Name for SNI and for the verification of the certificate; None means the host."""
    ca_bundle: str | None = None
    """PEM certificates of the authorities that replace those of the system."""
    certificate: ClientCertificate | None = None
    """Client certificate for a backend that asks for one."""
    destination: Destination = "remote"
    """Kind of the server, which says the addresses it may have."""
    others: tuple[str, ...] = ()
    """Further addresses of the same server, such as that of the other family of a pod."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Times that a backend has. Route documents and the settings `gateway.timeouts` have the defaults."""

    connect: float
    """Seconds for name resolution, TCP and the TLS handshake."""
    first_byte: float
    """Seconds from the end of connecting to the end of the response head."""
    idle: float
    """Seconds between two reads of the response body, from the first event of an event stream on. Time in which the
    client does not read does not count."""
    first_token: float = inf
    """Seconds from the end of connecting to the first event of an event stream."""


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """Limits on the responses of backends and on the pool of connections."""

    head_bytes: int = 65536
    """Bytes of all heads of one response, interim ones included."""
    fields: int = 200
    """Number of field lines in one head."""
    interim: int = 8
    """Number of 1xx responses before the final one."""
    overhead_bytes: int = 16384
    """Bytes of chunk extensions and trailers in a row, without a byte of the body between them."""
    buffer_bytes: int = 65536
    """Bytes of a response's body that wait in memory while it is not relayed, and the high-water mark of a request."""
    idle_seconds: float = 4.0
    """Seconds for which an idle connection may be used again; many model servers close it after 5."""
    life_seconds: float = 60.0
    """Seconds after which a connection is not used again, so that new replicas get their share of requests."""
    idle_per_origin: int = 256
    """Number of idle connections to one origin."""
    idle_total: int = 2048
    """Number of idle connections to all origins."""


@dataclass(slots=True)
class Stats:
    """Counts of connections to backends."""

    connects: int = 0
    """Connections opened since the start."""
    open: int = 0
    """Connections that are open now."""
    idle: int = 0
    """Open connections that wait in the pool."""
