"""A server as the pool knows it, and how long and how much of it is put up with."""

from dataclasses import dataclass
from typing import Final, NamedTuple

from program.tls import ClientCertificate

IDEMPOTENT: Final = frozenset({b"GET", b"HEAD", b"PUT", b"DELETE", b"OPTIONS"})
"""Methods that may be sent twice (RFC 9110 9.2.2). TRACE never passes the gateway."""


class Origin(NamedTuple):
    """One server as the pool knows it. Connections are shared by requests with an equal origin and by no others."""

    host: str
    """Name or address to connect to."""
    port: int
    scheme: str = "http"
    """`http` or `https`."""
    server_name: str | None = None
    """Name for SNI and for the certificate; the host when None."""
    ca_bundle: str | None = None
    """PEM certificates that replace the system's roots."""
    certificate: ClientCertificate | None = None
    """What is shown to a server that asks for one."""
    trusted: bool = False
    """Whether every address is allowed: true for Services of the cluster, false for what a tenant may name."""


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds that a server has. Route document and the settings `gateway.timeouts` have the defaults."""

    connect: float
    """Seconds for name resolution, TCP and the TLS handshake."""
    first_byte: float
    """Seconds from the end of connecting to the end of the response head."""
    idle: float
    """Seconds between two reads of the response body. Time in which the client does not read does not count."""


@dataclass(frozen=True, slots=True)
class UpstreamLimits:
    """What a server may do to us, and how connections are kept."""

    head_bytes: int = 65536
    """All heads of one answer, interim ones included."""
    fields: int = 200
    interim: int = 8
    """1xx answers before the final one."""
    overhead_bytes: int = 16384
    """Chunk extensions and trailers in a row, without a byte of the body."""
    buffer_bytes: int = 65536
    """Of an answer's body while nobody takes it; also the high-water mark of the request's body."""
    idle_seconds: float = 4.0
    """A connection is reused only while it has been idle for less: many model servers close at 5 s."""
    life_seconds: float = 60.0
    """A connection is retired after this, so that new replicas get their share."""
    idle_per_origin: int = 256
    idle_total: int = 2048


@dataclass(slots=True)
class Stats:
    """Counters since the start."""

    connects: int = 0
    """Connections opened."""
    open: int = 0
    """Connections that exist now."""
    idle: int = 0
    """Those of them that wait in the pool."""
