"""Changes of messages that are forwarded: fields and target (RFC 9110 7.6).

Every function makes its result from the message as it came, so that nothing of one attempt reaches the next.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from gateway import errors
from gateway.api import vocabulary
from gateway.api.v1alpha1 import Headers
from gateway.http.exchange import Fields, RequestHead


def _as_bytes(names: Collection[str]) -> frozenset[bytes]:
    return frozenset(name.encode() for name in names)


HOP_BY_HOP: Final = _as_bytes(vocabulary.HOP_BY_HOP)
FRAMING: Final = _as_bytes(vocabulary.FRAMING)
FORWARDED: Final = _as_bytes(vocabulary.FORWARDED)
"""Fields that only a proxy may write. Those of trusted peers are believed: Forwarded, X-Forwarded-For, -Host and -Proto
and X-Real-IP; all others are dropped."""

IDENTITY: Final = frozenset(
    {
        b"x-user",
        b"x-user-id",
        b"x-user-email",
        b"x-tenant",
        b"x-tenant-id",
        b"x-remote-user",
        b"remote-user",
        b"x-forwarded-user",
        b"x-forwarded-email",
        b"x-forwarded-groups",
        b"x-forwarded-preferred-username",
        b"x-forwarded-access-token",
        b"x-auth-request-user",
        b"x-auth-request-email",
        b"x-auth-request-groups",
        b"x-webauth-user",
        b"x-authenticated-user",
        b"x-ssl-client-cert",
        b"x-forwarded-client-cert",
        b"kubeflow-userid",
        b"kubeflow-groups",
    }
)
"""Fields by which a server behind a proxy identifies the caller: only the gateway may set them."""

CALLER_SECRETS: Final = frozenset(
    {b"authorization", b"cookie", b"api-key", b"x-api-key", b"x-goog-api-key", b"x-auth-token", b"x-amz-security-token"}
)
"""Fields with the caller's own credentials, which are for this cluster and never go to a remote backend."""

_NEVER_FORWARDED: Final = HOP_BY_HOP | FRAMING | FORWARDED | IDENTITY | {b"host", b"expect", b"via", b"max-forwards"}
_NEVER_TO_REMOTES: Final = _NEVER_FORWARDED | CALLER_SECRETS

NOT_SETTABLE: Final = _as_bytes(vocabulary.NOT_SETTABLE)
"""Fields that a route document can neither set, add nor remove."""

_NEVER_RETURNED: Final = HOP_BY_HOP | FRAMING | {b"x-request-id"}
_OWN_PREFIX: Final = b"x-beamlit-"
_TCHAR: Final = re.compile(rb"[!#$%&'*+.^`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2, without the underscore
_DATE: Final = b"date"


@dataclass(frozen=True, slots=True)
class Target:
    """Rules for requests to one backend. They are made once per backend, not per request."""

    authority: bytes
    """Value of the Host field, with the port where it is not the default of the scheme."""
    local: bool
    """Whether the backend is a Service of the cluster, which gets the client's own credentials."""
    prefix: bytes = b""
    """Percent-encoded path in front of the request's path."""
    set: tuple[tuple[bytes, bytes], ...] = ()
    """Fields that replace all fields of their names."""
    add: tuple[tuple[bytes, bytes], ...] = ()
    """Fields that are added to those of their names."""
    dropped: frozenset[bytes] = _NEVER_FORWARDED
    """Names of fields that are not forwarded: the fixed ones, those to remove and those to replace."""

    @classmethod
    def of(
        cls, authority: str, *, local: bool, prefix: str = "", headers: Headers | None = None, token: bool = False
    ) -> "Target":
        """Return the target for a backend of a route document, without changes to fields that cannot be set.

        Args:
            authority: Value of the Host field.
            local: Whether the backend is a Service of the cluster.
            prefix: Percent-encoded path in front of the request's path.
            headers: Changes to the fields of requests.
            token: Whether the gateway's own token replaces Authorization.
        """
        changes = headers or Headers()
        replaced = _settable(changes.set)
        removed = {_name(name) for name in changes.remove} - NOT_SETTABLE
        fixed = _NEVER_FORWARDED if local else _NEVER_TO_REMOTES
        return cls(
            authority=authority.encode("ascii"),
            local=local,
            prefix=prefix.encode("ascii"),
            set=replaced,
            add=_settable(changes.add),
            dropped=fixed
            | removed
            | {name for name, _ in replaced}
            | {_name(name) for name in changes.set_from}
            | ({b"authorization"} if token else set()),
        )

    @property
    def sets_credentials(self) -> bool:
        """Whether one of the fields with fixed values is a credential."""
        return any(name in CALLER_SECRETS for name, _ in (*self.set, *self.add))


def request_fields(
    head: RequestHead,
    target: Target,
    *,
    peer: str,
    tls: bool,
    via: bytes,
    trusted_peer: bool = False,
    extra: Mapping[bytes, bytes] | None = None,
) -> Fields:
    """Return the fields to send to a backend.

    Args:
        head: Head of the client's request.
        target: Rules for the backend.
        peer: IP address of the client.
        tls: Whether the client's connection is encrypted.
        via: Name of this gateway in Via fields; a request that has passed here before carries it.
        trusted_peer: Whether the peer is a proxy whose forwarding fields are believed.
        extra: Fields of the gateway's own, with names in lower case: x-request-id, authorization, values from Secrets.
            They replace all other fields of their names.

    Raises:
        errors.LoopDetected: The Via field has the name `via` already (RFC 9110 7.6.3).
    """
    own = extra or {}
    dropped = target.dropped
    listed: frozenset[bytes] | None = None
    via_before = b""
    received: dict[bytes, bytes] = {}
    fields: list[tuple[bytes, bytes]] = [(b"host", target.authority)]
    for field in head.fields:
        name, value = field
        if name in dropped:
            if name == b"connection":
                names = _listed(value)
                listed = names if listed is None else listed | names
            elif name == b"via":
                via_before = via_before + b", " + value if via_before else value
            elif name == b"max-forwards" and head.method in (b"OPTIONS", b"TRACE"):
                fields.append((name, _decremented(value)))
            elif trusted_peer and name in FORWARDED:
                received[name] = received[name] + b", " + value if name in received else value
        elif name.find(b"_") < 0 and name not in own:
            fields.append(field)
    if listed:
        fields = [field for field in fields if field[0] not in listed or field[0] in _NEVER_LISTED]
    if via_before and _has_hop(via_before, via):
        raise errors.LoopDetected
    _add_forwarding_fields(fields, head, received, peer, tls)
    mine = b"1.1 " + via if head.http_minor else b"1.0 " + via
    fields.append((b"via", via_before + b", " + mine if via_before else mine))
    fields += [field for field in target.set if field[0] not in own]
    fields += [field for field in target.add if field[0] not in own]
    fields += own.items()
    return tuple(fields)


def passes_credentials(head: RequestHead, target: Target) -> bool:
    """Return whether a request reaches a backend with credentials of the caller, so that the backend may judge it."""
    return any(name in CALLER_SECRETS and name not in target.dropped for name, _ in head.fields)


_NEVER_LISTED: Final = frozenset({b"host", b"max-forwards"})
"""Fields of the gateway that stay although the client's Connection field lists them."""


def request_target(rest: bytes, prefix: bytes) -> bytes:
    """Return the target to send: `prefix` in front of `rest`, whose bytes do not change.

    `rest` is in origin form, or `*` for OPTIONS (RFC 9112 3.2).
    """
    if not prefix or rest == b"*":
        return rest
    prefix = prefix.removesuffix(b"/")
    return prefix + rest if rest.startswith(b"/") else prefix + b"/" + rest


def response_fields(fields: Fields, *, extra: tuple[tuple[bytes, bytes], ...] = ()) -> Fields:
    """Return the fields to send to the client.

    Args:
        fields: Fields of the backend's response; those named `x-beamlit-…` and x-request-id are dropped.
        extra: Fields of the gateway's own.
    """
    kept: list[tuple[bytes, bytes]] = []
    listed: frozenset[bytes] | None = None
    dated = False
    for field in fields:
        name = field[0]
        if name in _NEVER_RETURNED:
            if name == b"connection":
                names = _listed(field[1])
                listed = names if listed is None else listed | names
        elif name == _DATE:
            if not dated:
                dated = True
                kept.append(field)
        elif not name.startswith(_OWN_PREFIX):
            kept.append(field)
    if listed:
        kept = [field for field in kept if field[0] not in listed or field[0] == _DATE]
    kept += extra
    return tuple(kept)


def _settable(changes: Mapping[str, str]) -> tuple[tuple[bytes, bytes], ...]:
    fields = ((_name(name), value.encode("ascii")) for name, value in changes.items())
    return tuple((name, value) for name, value in fields if name not in NOT_SETTABLE)


def _name(name: str) -> bytes:
    return name.lower().encode("ascii")


@lru_cache(maxsize=1024)
def _forwarding_fields(peer: str, authority: bytes, tls: bool) -> Fields:
    """Return the forwarding fields of a client that no other proxy has written about."""
    address = peer.encode("ascii", "replace")
    proto = b"https" if tls else b"http"
    element = b"for=%b;host=%b;proto=%b" % (
        b'"[%b]"' % address if b":" in address else address,
        authority if _TCHAR.fullmatch(authority) else b'"%b"' % authority.replace(b'"', b""),
        proto,
    )
    return (
        (b"x-forwarded-for", address),
        (b"x-forwarded-host", authority),
        (b"x-forwarded-proto", proto),
        (b"x-real-ip", address),
        (b"forwarded", element),
    )


@lru_cache(maxsize=256)
def _listed(connection: bytes) -> frozenset[bytes]:
    """Return the names that a Connection field lists."""
    return frozenset(part.strip(b" \t") for part in connection.lower().split(b","))


def _has_hop(via: bytes, name: bytes) -> bool:
    """Return whether one of the hops in `via` has the name `name` (RFC 9110 7.6.3: protocol, received-by, comment)."""
    hops = (hop.split() for hop in via.lower().split(b","))
    return any(len(hop) > 1 and hop[1] == name.lower() for hop in hops)


def _decremented(value: bytes) -> bytes:
    return b"%d" % max(int(value) - 1, 0) if value.isdigit() and len(value) < 10 else b"0"


def _add_forwarding_fields(
    fields: list[tuple[bytes, bytes]], head: RequestHead, received: Mapping[bytes, bytes], peer: str, tls: bool
) -> None:
    """Add the forwarding fields: the usual ones, and the standard one (RFC 7239)."""
    if not received:
        fields += _forwarding_fields(peer, head.authority, tls)
        return
    (_, address), (_, authority), (_, proto), _, (_, element) = _forwarding_fields(peer, head.authority, tls)
    before = received.get(b"x-forwarded-for")
    fields.append((b"x-forwarded-for", before + b", " + address if before else address))
    fields.append((b"x-forwarded-host", received.get(b"x-forwarded-host", authority)))
    fields.append((b"x-forwarded-proto", received.get(b"x-forwarded-proto", proto)))
    fields.append((b"x-real-ip", received.get(b"x-real-ip", address)))
    standard = received.get(b"forwarded")
    fields.append((b"forwarded", standard + b", " + element if standard else element))
