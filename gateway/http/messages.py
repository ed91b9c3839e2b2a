"""The rules of HTTP/1.1 messages (RFC 9112) that the parser leaves to its users: heads, targets, framing, limits.

Pure: `edge.py` and `upstream.py` hand in what was parsed, and get a checked head or an error of `errors`.
"""

import base64
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from operator import itemgetter
from typing import Final, NamedTuple

from gateway import errors

Fields = tuple[tuple[bytes, bytes], ...]
"""Field lines in the order received, names in lower case, values without surrounding white space."""


class RequestHead(NamedTuple):
    """A request's head, checked by `check_request` (RFC 9112) and frozen before any trailer arrives."""

    method: bytes
    target: bytes
    """Origin-form target as sent (RFC 9112 3.2.1): path and query, not decoded, no fragment."""
    host: str
    """Host in lower case, without port and trailing dot."""
    authority: bytes
    """The Host field as sent."""
    fields: Fields
    http_minor: int
    """1 for HTTP/1.1, 0 for HTTP/1.0."""
    content_length: int | None
    """None when there is no body or it is chunked."""
    chunked: bool
    websocket: bool = False
    """Whether it asks for a WebSocket (RFC 6455 4.2.1): the only upgrade there is."""

    @property
    def has_body(self) -> bool:
        """Whether the message has a body section: `Content-Length: 0` is one, of no bytes."""
        return self.chunked or self.content_length is not None


class ResponseHead(NamedTuple):
    """A final response's head. Framing fields are not in `fields`: the edge writes its own."""

    status: int
    reason: bytes
    fields: Fields
    content_length: int | None
    """Length of the body where it is known; None: chunked towards HTTP/1.1 clients, close-delimited for 1.0."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits on one request. The settings `gateway.limits` have the defaults of the first three."""

    head_bytes: int
    """Bytes of the request line and the header fields."""
    fields: int
    """Number of header fields."""
    url_bytes: int
    """Bytes of the request target."""
    overhead_bytes: int = 8192
    """Bytes of the trailers of a chunked body."""
    chunk_line_bytes: int = 256
    """Bytes of a chunk's line, extensions included, on average over the chunks of the body."""


class Framing(Enum):
    """How the end of a body is told (RFC 9112 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
"""Methods that are passed on."""
ALLOW: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
"""The same for an Allow field (RFC 9110 10.2.1)."""

_CHECKED: Final = frozenset(
    {b"host", b"content-length", b"transfer-encoding", b"upgrade", b"connection", b"expect", b"http2-settings"}
)
_TARGET: Final = re.compile(rb"/[!-\"$-~]*")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*)([!-\"$-~]*)")
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::([0-9]{0,5}))?")
_MAX_DIGITS: Final = 18
_WEBSOCKET_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
_WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@lru_cache(maxsize=1024)
def parse_host(value: bytes) -> str:
    """The host of a Host field, in lower case, without port and trailing dot (RFC 9110 7.2).

    Raises:
        errors.MalformedRequest: it is no host with an optional port.
    """
    match = _HOST.fullmatch(value)
    if match is None or int(match[2] or 0) > 65535:
        raise errors.MalformedRequest
    host = match[1].decode("ascii").lower().removesuffix(".")
    if not host:
        raise errors.MalformedRequest
    return host


def content_length(value: bytes) -> int | None:
    """A Content-Length value as a number, or None when it is not one (RFC 9110 8.6)."""
    return int(value) if value.isdigit() and len(value) <= _MAX_DIGITS else None


def tokens(value: bytes) -> list[bytes]:
    """The members of a list-valued field in lower case (RFC 9110 5.6.1)."""
    return [part.strip(b" \t") for part in value.lower().split(b",")]


def check_request(method: bytes, target: bytes, version: str, fields: Iterable[tuple[bytes, bytes]]) -> RequestHead:
    """Check one request's head. Field names are in lower case, values stripped; names with "_" are dropped.

    Raises:
        errors.RequestError: the head breaks RFC 9112, or asks for what a gateway does not do.
    """
    if version not in ("1.1", "1.0"):
        raise errors.VersionNotSupported
    host: bytes | None = None
    length: int | None = None
    chunked = False
    upgrade = False
    kept = tuple(fields)
    underscore = False
    for name, value in kept:
        if name in _CHECKED:
            if name == b"host":
                if host is not None:
                    raise errors.MalformedRequest
                host = value
            elif name == b"content-length":
                if length is not None or (length := content_length(value)) is None:
                    raise errors.MalformedRequest
            elif name == b"transfer-encoding":
                if chunked or value.lower() != b"chunked" or version == "1.0":
                    raise errors.MalformedRequest
                chunked = True
            elif name == b"connection":
                upgrade = upgrade or b"upgrade" in tokens(value)
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    raise errors.ExpectationFailed
            else:
                upgrade = True
        elif name.find(b"_") >= 0:  # `in` looks for a number first, and makes an error of it
            underscore = True
    if chunked and length is not None:
        raise errors.MalformedRequest
    if method == b"TRACE":
        raise errors.MethodNotAllowed
    if method == b"CONNECT":
        raise errors.MethodNotAllowed
    if method not in METHODS:
        raise errors.NotImplementedMethod
    if upgrade:
        _check_websocket(method, version, kept, has_body=chunked or length is not None)
    if host is None:
        raise errors.MalformedRequest
    name_of_host = parse_host(host)
    if _TARGET.fullmatch(target) is None:
        target = _other_target(method, target, host)
    if underscore:
        kept = tuple(line for line in kept if b"_" not in line[0])
    return RequestHead(method, target, name_of_host, host, kept, int(version[2]), length, chunked, upgrade)


def _check_websocket(method: bytes, version: str, fields: Fields, *, has_body: bool) -> None:
    """Let only the opening handshake of RFC 6455 4.2.1 pass, without a body: of any other upgrade it is not known where
    the message ends.

    Raises:
        errors.UpgradeRefused: it is something else.
    """
    if method != b"GET" or version != "1.1" or has_body:
        raise errors.UpgradeRefused
    found: dict[bytes, bytes] = {}
    connection: list[bytes] = []
    for name, value in fields:
        if name in _HANDSHAKE:
            if name in found:
                raise errors.UpgradeRefused
            found[name] = value
        elif name == b"connection":
            connection += tokens(value)
        elif name in (b"expect", b"http2-settings"):
            raise errors.UpgradeRefused
    if (
        b"upgrade" not in connection
        or found.get(b"upgrade", b"").lower() != b"websocket"
        or found.get(b"sec-websocket-version") != b"13"
        or not _WEBSOCKET_KEY.fullmatch(found.get(b"sec-websocket-key", b""))
    ):
        raise errors.UpgradeRefused


_HANDSHAKE: Final = frozenset({b"upgrade", b"sec-websocket-version", b"sec-websocket-key"})


def websocket_accept(key: bytes) -> bytes:
    """The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key (RFC 6455 4.2.2)."""
    digest = hashlib.sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest)


def check_switch(reason: bytes, version: str, fields: Iterable[tuple[bytes, bytes]], key: bytes | None) -> ResponseHead:
    """Check the head of a 101 to an opening handshake with `key` (RFC 6455 4.1); None: none was asked for.

    Raises:
        errors.BadResponse: it is no WebSocket that was agreed on.
    """
    kept = tuple(fields)
    upgrade = [value.lower() for name, value in kept if name == b"upgrade"]
    connection = [one for name, value in kept if name == b"connection" for one in tokens(value)]
    accept = [value for name, value in kept if name == b"sec-websocket-accept"]
    if (
        key is None
        or version != "1.1"
        or _CONTROL.search(reason)
        or upgrade != [b"websocket"]
        or b"upgrade" not in connection
        or accept != [websocket_accept(key)]
        or any(name in (b"content-length", b"transfer-encoding") for name, _ in kept)
    ):
        raise errors.BadResponse
    return ResponseHead(101, reason, kept, None)


def switch_head(fields: Fields, date: bytes) -> bytes:
    """The bytes of a 101 that opens a WebSocket; `fields` hold no hop-by-hop fields.

    Raises:
        errors.BadResponse: a part would break the head apart.
    """
    lines = [b"HTTP/1.1 101 Switching Protocols", *map(b": ".join, fields)]
    if b"date" not in map(itemgetter(0), fields):
        lines.append(b"date: " + date)
    lines += (b"connection: Upgrade", b"upgrade: websocket", b"", b"")
    return _joined(lines)


def _other_target(method: bytes, target: bytes, host: bytes) -> bytes:
    if target == b"*" and method == b"OPTIONS":
        return target
    match = _ABSOLUTE.fullmatch(target)
    if match is None or b"@" in match[1]:
        raise errors.MalformedRequest
    if match[1].lower() != host.lower():
        raise errors.MisdirectedRequest
    rest = match[2]
    return rest if rest.startswith(b"/") else b"/" + rest


def check_response(
    status: int, reason: bytes, version: str, fields: Iterable[tuple[bytes, bytes]], request_method: bytes
) -> tuple[ResponseHead, Framing]:
    """Check one final response's head and tell how its body ends (RFC 9112 6.3).

    Raises:
        errors.BadResponse: the head breaks RFC 9112.
    """
    if version not in ("1.1", "1.0") or not 200 <= status <= 599 or _CONTROL.search(reason):
        raise errors.BadResponse
    length: int | None = None
    chunked = False
    kept = []
    for line in fields:
        name, value = line
        if name == b"content-length":
            if length is not None or (length := content_length(value)) is None:
                raise errors.BadResponse
        elif name == b"transfer-encoding":
            if chunked or value.lower() != b"chunked" or version == "1.0":
                raise errors.BadResponse
            chunked = True
        else:
            kept.append(line)
    if chunked and length is not None:
        raise errors.BadResponse
    if status in (204, 304):
        return ResponseHead(status, reason, tuple(kept), None), Framing.NONE
    head = ResponseHead(status, reason, tuple(kept), length)
    if request_method == b"HEAD":
        return head, Framing.NONE
    if chunked:
        return head, Framing.CHUNKED
    return head, Framing.CLOSE if length is None else Framing.LENGTH


def response_head(head: ResponseHead, method: bytes, http_minor: int, *, close: bool, date: bytes) -> bytes:
    """The bytes of an answer's head, with our own framing fields.

    `head.fields` hold no framing fields. A Date is added where there is none (RFC 9110 6.6.1). `close` adds
    Connection: close. A body of unknown length is chunked for HTTP/1.1; for HTTP/1.0 the caller closes the connection.

    Raises:
        errors.BadResponse: a part would break the head apart.
    """
    status, reason, fields, length = head
    if not 200 <= status <= 599:
        raise errors.BadResponse
    lines = [b"HTTP/1.1 %d %b" % (status, reason), *map(b": ".join, fields)]
    if b"date" not in map(itemgetter(0), fields):
        lines.append(b"date: " + date)
    if status not in (204, 304):
        if length is not None:
            lines.append(b"content-length: %d" % length)
        elif method != b"HEAD" and http_minor:
            lines.append(b"transfer-encoding: chunked")
    if close:
        lines.append(b"connection: close")
    lines += (b"", b"")
    return _joined(lines)


def _joined(lines: list[bytes]) -> bytes:
    text = b"\r\n".join(lines)
    breaks = len(lines) - 1
    if text.count(b"\n") != breaks or text.count(b"\r") != breaks or text.find(b"\0") >= 0:
        raise errors.BadResponse
    return text
