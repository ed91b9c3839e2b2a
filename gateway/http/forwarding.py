"""Changes of messages that are forwarded: fields and target (RFC 9110 7.6).

Every function makes its result from the message as it came, so that nothing of one attempt reaches the next.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from dataclasses import field as attribute
from functools import lru_cache
from typing import Final

from gateway import errors
from gateway.api import vocabulary
from gateway.api.v1alpha1 import Headers
from gateway.http.exchange import Fields, RequestHead
from gateway.http.field_names import (
    credential_parameters,
    is_account,
    is_context,
    is_credential,
    is_identity,
    without_credential_protocols,
    without_credentials,
)


def _as_bytes(names: Collection[str]) -> frozenset[bytes]:
    return frozenset(name.encode() for name in names)


HOP_BY_HOP: Final = _as_bytes(vocabulary.HOP_BY_HOP)
FRAMING: Final = _as_bytes(vocabulary.FRAMING)
FORWARDED: Final = _as_bytes(vocabulary.FORWARDED)
"""Fields that only a proxy may write. Those of trusted peers are believed: Forwarded, X-Forwarded-For, -Host and -Proto
and X-Real-IP; all others are dropped."""

_NEVER_FORWARDED: Final = HOP_BY_HOP | FRAMING | {b"host", b"expect"}
_READ: Final = frozenset({b"connection", b"via", b"max-forwards"})
"""Fields that are not forwarded as they are, and say how the request is."""

NOT_SETTABLE: Final = _as_bytes(vocabulary.NOT_SETTABLE)
"""Fields that a route document can neither set, add nor remove where the gateway writes forwarding fields."""


def is_settable(name: bytes, *, appends: bool) -> bool:
    """Return whether a route document can set a field of this name (in lower case).

    Args:
        name: Name of the field.
        appends: Whether the gateway writes forwarding fields for the backend, which only it may set then.
    """
    return name not in NOT_SETTABLE or (name in FORWARDED and not appends)


_UNKNOWN: Final = 0
_PASS: Final = 1
_DROP: Final = 2
_TO_READ: Final = 3
"""Verdict on a field that is not forwarded as it is, and says something about the request."""
_FROM_PROXIES: Final = 4
"""Verdict on a field that passes when it comes from a trusted proxy."""

_PROTOCOLS: Final = 5
"""Verdict on the subprotocols of a WebSocket, of which those pass that are no credentials."""

_VERDICTS: Final = 1024
"""Largest number of names whose verdict a target remembers; clients send few different ones."""

_NEVER_RETURNED: Final = HOP_BY_HOP | FRAMING | {b"x-request-id"}
_OWN_PREFIX: Final = b"x-beamlit-"
_TCHAR: Final = re.compile(rb"[!#$%&'*+.^`|~0-9A-Za-z-]+")  # RFC 9110 5.6.2, without the underscore
_DATE: Final = b"date"
_SUBPROTOCOLS: Final = b"sec-websocket-protocol"
_OF_CALLERS: Final = frozenset({b"authorization", b"x-api-key", b"api-key"})
"""Fields in which callers send the keys that the gateway gave them."""


@dataclass(frozen=True, slots=True)
class Target:
    """Rules for requests to one backend. They are made once per backend, not per request."""

    authority: bytes
    """Value of the Host field, with the port where it is not the default of the scheme."""
    local: bool
    """Whether the backend is a Service of the cluster, which gets the client's own credentials."""
    appends: bool
    """Whether the gateway writes forwarding fields, which describe the client."""
    prefix: bytes = b""
    """Percent-encoded path in front of the request's path."""
    set: tuple[tuple[bytes, bytes], ...] = ()
    """Fields that replace all fields of their names."""
    add: tuple[tuple[bytes, bytes], ...] = ()
    """Fields that are added to those of their names."""
    dropped: frozenset[bytes] = _NEVER_FORWARDED
    """Names of fields that are never forwarded: the fixed ones, those to remove and those to replace."""
    forwards: frozenset[bytes] = frozenset()
    """Names of fields and query parameters that pass although their names are those of credentials or identities."""
    withholds: bool = False
    """Whether a local backend gets no field in which the gateway takes the caller's key, as a remote one never does."""
    verdicts: dict[bytes, int] = attribute(default_factory=dict, compare=False, repr=False)
    """Verdicts on the names that have come so far."""

    @classmethod
    def of(
        cls,
        authority: str,
        *,
        local: bool,
        appends: bool | None = None,
        prefix: str = "",
        headers: Headers | None = None,
        forwards: Collection[str] = (),
        token: bool = False,
        withholds: bool = False,
    ) -> "Target":
        """Return the target for a backend of a route document, without changes to fields that cannot be set.

        Args:
            authority: Value of the Host field.
            local: Whether the backend is a Service of the cluster.
            appends: Whether the gateway writes forwarding fields; None for local backends only.
            prefix: Percent-encoded path in front of the request's path.
            headers: Changes to the fields of requests.
            forwards: Names of fields and query parameters that pass on purpose.
            token: Whether the gateway's own token replaces Authorization.
            withholds: Whether the fields in which the gateway takes the caller's key are dropped.
        """
        changes = headers or Headers()
        writes = local if appends is None else appends
        replaced = _settable(changes.set, writes)
        removed = {name for name in map(_name, changes.remove) if is_settable(name, appends=writes)}
        return cls(
            authority=authority.encode("ascii"),
            local=local,
            appends=writes,
            prefix=prefix.encode("ascii"),
            set=replaced,
            add=_settable(changes.add, writes),
            dropped=_NEVER_FORWARDED
            | removed
            | {name for name, _ in replaced}
            | {_name(name) for name in changes.set_from}
            | frozenset((b"authorization",) if token else ()),
            forwards=frozenset(map(_name, forwards)),
            withholds=withholds,
        )

    @property
    def sets_credentials(self) -> bool:
        """Whether one of the fields with fixed values is a credential."""
        return any(is_credential(name) for name, _ in (*self.set, *self.add))

    def verdict(self, name: bytes) -> int:
        """Return the verdict on fields of this name, which is in lower case, and remember it."""
        verdict = self._judge(name)
        if len(self.verdicts) >= _VERDICTS:
            self.verdicts.clear()
        self.verdicts[name] = verdict
        return verdict

    def _judge(self, name: bytes) -> int:
        if name in _READ or (name in FORWARDED and self.appends):
            return _TO_READ
        if name in self.dropped or name in FORWARDED or b"_" in name:
            return _DROP
        if name in self.forwards:
            return _PASS
        if name == _SUBPROTOCOLS and b"authorization" not in self.forwards and (self.withholds or not self.local):
            return _PROTOCOLS
        if self.withholds and name in _OF_CALLERS:
            return _DROP
        if is_identity(name):
            return _FROM_PROXIES if self.local else _DROP
        if is_account(name) and not self.local:
            # It goes with the caller's key: with the gateway's own, a server refuses it or bills that account.
            return _PASS if b"authorization" in self.forwards else _DROP
        if is_context(name) and not self.local:
            return _DROP
        return _PASS if self.local or not is_credential(name) else _DROP


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
    verdicts = target.verdicts
    listed: frozenset[bytes] | None = None
    via_before = b""
    protocols = b""
    received: dict[bytes, bytes] = {}
    fields: list[tuple[bytes, bytes]] = [(b"host", target.authority)]
    for field in head.fields:
        name, value = field
        verdict = verdicts.get(name, _UNKNOWN)
        if verdict == _UNKNOWN:
            verdict = target.verdict(name)
        if verdict == _PASS:
            if name not in own:
                fields.append(field)
        elif verdict == _TO_READ:
            if name == b"connection":
                names = _listed(value)
                listed = names if listed is None else listed | names
            elif name == b"via":
                via_before = via_before + b", " + value if via_before else value
            elif name == b"max-forwards":
                if head.method == b"OPTIONS":
                    fields.append((name, _decremented(value)))
            elif trusted_peer:
                received[name] = received[name] + b", " + value if name in received else value
        elif verdict == _PROTOCOLS:
            protocols = protocols + b", " + value if protocols else value
        elif verdict == _FROM_PROXIES and trusted_peer and name not in own:
            fields.append(field)
    if protocols and (protocols := without_credential_protocols(protocols)) and _SUBPROTOCOLS not in own:
        fields.append((_SUBPROTOCOLS, protocols))
    if listed:
        fields = [field for field in fields if field[0] not in listed or field[0] in _NEVER_LISTED]
    if via_before and _has_hop(via_before, via):
        raise errors.LoopDetected
    if target.appends:
        _add_forwarding_fields(fields, head, received, peer, tls)
    mine = b"1.1 " + via if head.http_minor else b"1.0 " + via
    fields.append((b"via", via_before + b", " + mine if via_before else mine))
    fields += [field for field in target.set if field[0] not in own]
    fields += [field for field in target.add if field[0] not in own]
    fields += own.items()
    return tuple(fields)


def passes_credentials(head: RequestHead, target: Target) -> bool:
    """Return whether a request reaches a backend with credentials of the caller, so that the backend may judge it."""
    for name, value in head.fields:
        credential = is_credential(name) or (name == _SUBPROTOCOLS and without_credential_protocols(value) != value)
        if credential and target.verdict(name) == _PASS:
            return True
    return any(target.local or name in target.forwards for name in credential_parameters(head.target))


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


def query_for(rest: bytes, target: Target) -> bytes:
    """Return the target without the query parameters that are the caller's credentials, where the backend gets none."""
    return rest if target.local or b"?" not in rest else without_credentials(rest, target.forwards)


def selected_subprotocol(head: RequestHead, target: Target) -> bytes | None:
    """Return the subprotocol that the gateway selects in place of a backend; None where that is for the backend to do.

    Where a client offers nothing but credentials, a remote backend gets no list and selects nothing. Browsers end a
    connection whose server selects none of the list, so the gateway selects its first item. That is only the name of
    the credential where it has an item of its own.
    """
    offered = b", ".join(value for name, value in head.fields if name == _SUBPROTOCOLS)
    if not offered or target.verdict(_SUBPROTOCOLS) != _PROTOCOLS or without_credential_protocols(offered):
        return None
    return next(filter(None, (item.strip(b" \t") for item in offered.split(b","))), None)


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


def _settable(changes: Mapping[str, str], appends: bool) -> tuple[tuple[bytes, bytes], ...]:
    fields = ((_name(name), value.encode("ascii")) for name, value in changes.items())
    return tuple((name, value) for name, value in fields if is_settable(name, appends=appends))


def _name(name: str) -> bytes:
    return name.lower().encode("ascii")


@lru_cache(maxsize=1024)
def _forwarding_fields(peer: str, authority: bytes, tls: bool) -> Fields:
    """Return the forwarding fields of a client that no other proxy has written about."""
    address = peer.encode("ascii", "replace")
    proto = b"https" if tls else b"http"
    node = b'"[%b]"' % address if b":" in address else address
    of_host: Fields = ()
    host = b""
    if authority:  # which a client of HTTP/1.0 may leave out
        of_host = ((b"x-forwarded-host", authority),)
        host = b";host=" + (authority if _TCHAR.fullmatch(authority) else b'"%b"' % authority.replace(b'"', b""))
    return (
        (b"x-forwarded-for", address),
        *of_host,
        (b"x-forwarded-proto", proto),
        (b"x-real-ip", address),
        (b"forwarded", b"for=%b%b;proto=%b" % (node, host, proto)),
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
    own = _forwarding_fields(peer, head.authority, tls)
    if not received:
        fields += own
        return
    address, element = own[0][1], own[-1][1]
    before = received.get(b"x-forwarded-for")
    fields.append((b"x-forwarded-for", before + b", " + address if before else address))
    host = received.get(b"x-forwarded-host", head.authority)
    if host:
        fields.append((b"x-forwarded-host", host))
    fields.append((b"x-forwarded-proto", received.get(b"x-forwarded-proto", b"https" if tls else b"http")))
    fields.append((b"x-real-ip", received.get(b"x-real-ip", address)))
    standard = received.get(b"forwarded")
    fields.append((b"forwarded", standard + b", " + element if standard else element))
