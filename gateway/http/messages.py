"""Rules of HTTP/1.1 messages (RFC 9112) that the parser leaves to its users: heads, targets, framing and limits.

Functions here take what was parsed, and return a checked head or raise an error of `gateway.errors`.
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
"""Field lines in the order of their arrival, with names in lower case and values without white space around them."""


class RequestHead(NamedTuple):
    """Head of a request after `check_request`. Trailers do not become part of it."""

    method: bytes
    target: bytes
    """Target in origin form as sent: path and query, not decoded (RFC 9112 3.2.1)."""
    host: str
    """Host in lower case, without port and trailing dot; empty where a client of HTTP/1.0 sends none."""
    authority: bytes
    """Value of the Host field as sent; empty without one."""
    fields: Fields
    http_minor: int
    """Minor version of the client's HTTP: 1 for HTTP/1.1, 0 for HTTP/1.0."""
    content_length: int | None
    """Bytes of the body; None where there is no body or it is chunked."""
    chunked: bool
    websocket: bool = False
    """Whether the client asks for a WebSocket (RFC 6455 4.2.1), the only upgrade that is not ignored."""

    @property
    def has_body(self) -> bool:
        """Whether the message has a body: with `Content-Length: 0` it has one of no bytes."""
        return self.chunked or self.content_length is not None


class ResponseHead(NamedTuple):
    """Head of a final response, or of a 101. `fields` has no framing fields: `response_head` adds its own."""

    status: int
    reason: bytes
    fields: Fields
    content_length: int | None
    """Bytes of the body where their number is known. With None an HTTP/1.1 client gets a chunked body, and for HTTP/1.0
    the end of the connection is the end of the body."""


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
    """Way in which the end of a body is found (RFC 9112 6.3)."""

    NONE = "none"
    LENGTH = "length"
    CHUNKED = "chunked"
    CLOSE = "close"


HOSTS: Final = "The request must have one Host field."
NO_HOST: Final = "The field Host must be a host name or an address, and maybe a port. Write other letters in Punycode."
LENGTHS: Final = "The request must have one Content-Length, a number of bytes."
CODINGS: Final = "The only transfer coding of a request is chunked, with HTTP/1.1."
FRAMINGS: Final = "The request must have Content-Length or Transfer-Encoding, and not both."
NO_TARGET: Final = "The request's URL must have spaces, # and letters beyond ASCII percent-encoded."
USER_IN_TARGET: Final = "The request's URL must not have a user name or a password."

METHODS: Final = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
"""Methods that are forwarded."""

_CHECKED: Final = frozenset({b"host", b"content-length", b"transfer-encoding", b"upgrade", b"expect"})
_TARGET: Final = re.compile(rb"/[!-\"$-~]*")
_ABSOLUTE: Final = re.compile(rb"(?i:https?)://([^/?#]*)([!-\"$-~]*)")
_HOST: Final = re.compile(rb"(\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,255})(?::([0-9]{0,5}))?")
_MAX_DIGITS: Final = 18
"""Digits of the largest Content-Length: its number fits 64 bits, and is converted in no time."""
_WEBSOCKET_KEY: Final = re.compile(rb"[A-Za-z0-9+/]{21}[AQgw]==")
_WEBSOCKET_GUID: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


@lru_cache(maxsize=1024)
def parse_host(value: bytes) -> str:
    """Return the host of a Host field, in lower case, without port and trailing dot (RFC 9110 7.2).

    Raises:
        errors.MalformedRequest: The value is no host with an optional port.
    """
    match = _HOST.fullmatch(value)
    if match is None or int(match[2] or 0) > 65535:
        raise errors.MalformedRequest(NO_HOST)
    host = match[1].decode("ascii").lower().removesuffix(".")
    if not host:
        raise errors.MalformedRequest(NO_HOST)
    return host


def content_length(value: bytes) -> int | None:
    """Return the value of a Content-Length field as a number, or None where it is none (RFC 9110 8.6)."""
    return int(value) if value.isdigit() and len(value) <= _MAX_DIGITS else None


def tokens(value: bytes) -> list[bytes]:
    """Return the members of a list in a field value, in lower case (RFC 9110 5.6.1)."""
    return [part.strip(b" \t") for part in value.lower().split(b",")]


def check_request(method: bytes, target: bytes, version: str, fields: Iterable[tuple[bytes, bytes]]) -> RequestHead:
    """Check the head of a request, and return it without the fields that have "_" in their names.

    An offer to upgrade to anything but a WebSocket is ignored (RFC 9110 7.8): the message is framed by its own fields.

    Args:
        method: Method as sent.
        target: Target as sent.
        version: Version of the client's HTTP, as `1.1`.
        fields: Field lines with names in lower case and values without white space around them.

    Raises:
        errors.RequestError: The head breaks RFC 9112, or asks for what a gateway does not do.
    """
    if version not in ("1.1", "1.0"):
        raise errors.VersionNotSupported
    host: bytes | None = None
    length: int | None = None
    chunked = False
    offered = False
    kept = tuple(fields)
    underscore = False
    for name, value in kept:
        if name in _CHECKED:
            if name == b"host":
                if host is not None:
                    raise errors.MalformedRequest(HOSTS)
                host = value
            elif name == b"content-length":
                if length is not None or (length := content_length(value)) is None:
                    raise errors.MalformedRequest(LENGTHS)
            elif name == b"transfer-encoding":
                if chunked or value.lower() != b"chunked" or version == "1.0":
                    raise errors.MalformedRequest(CODINGS)
                chunked = True
            elif name == b"expect":
                if value.lower() != b"100-continue":
                    raise errors.ExpectationFailed
            else:
                offered = True
        elif name.find(b"_") >= 0:  # `in` looks for a number first, and makes an error of it
            underscore = True
    if chunked and length is not None:
        raise errors.MalformedRequest(FRAMINGS)
    if method == b"TRACE":
        raise errors.MethodNotAllowed
    if method == b"CONNECT":
        raise errors.MethodNotAllowed
    if method not in METHODS:
        raise errors.NotImplementedMethod
    websocket = offered and _names_websocket(kept)
    if websocket:
        _check_websocket(method, version, kept, has_body=chunked or bool(length))
        length = None  # Java's client says of its handshake that it has no bytes
    if host is not None:
        name_of_host = parse_host(host)
    elif version == "1.0":  # which has no such field (RFC 9112 3.2); load balancers ask for /health so
        host, name_of_host = b"", ""
    else:
        raise errors.MalformedRequest(HOSTS)
    if _TARGET.fullmatch(target) is None:
        target = _other_target(method, target, host)
    if underscore:
        kept = tuple(line for line in kept if b"_" not in line[0])
    return RequestHead(method, target, name_of_host, host, kept, int(version[2]), length, chunked, websocket)


def _names_websocket(fields: Fields) -> bool:
    """Return whether WebSocket is the only protocol that a request offers, in whatever version and however often.

    A client that offers others beside it may get none of them (RFC 9110 7.8).
    """
    offered = [one for name, value in fields if name == b"upgrade" for one in tokens(value) if one]
    return bool(offered) and all(one.partition(b"/")[0] == b"websocket" for one in offered)


def _check_websocket(method: bytes, version: str, fields: Fields, *, has_body: bool) -> None:
    """Check that a request which asks for a WebSocket is the opening handshake of RFC 6455 4.2.1, without a body.

    Raises:
        errors.UpgradeRefused: The handshake is not complete, or is more than one.
        errors.WebSocketVersionRefused: It is for another version of WebSocket.
    """
    if method != b"GET" or version != "1.1" or has_body:
        raise errors.UpgradeRefused
    handshake: dict[bytes, bytes] = {}
    connection: list[bytes] = []
    for name, value in fields:
        if name in _HANDSHAKE:
            if name in handshake:
                raise errors.UpgradeRefused
            handshake[name] = value
        elif name == b"connection":
            connection += tokens(value)
        elif name in (b"expect", b"http2-settings"):
            raise errors.UpgradeRefused
    if (
        b"upgrade" not in connection
        # What a Connection field lists ends here (RFC 9110 7.6.1), and a backend would get half a handshake.
        or any(one.startswith(b"sec-websocket-") for one in connection)
        or handshake.get(b"upgrade", b"").lower() != b"websocket"
        or not _WEBSOCKET_KEY.fullmatch(handshake.get(b"sec-websocket-key", b""))
    ):
        raise errors.UpgradeRefused
    if handshake.get(b"sec-websocket-version") != errors.WebSocketVersionRefused.version:
        raise errors.WebSocketVersionRefused


_HANDSHAKE: Final = frozenset({b"upgrade", b"sec-websocket-version", b"sec-websocket-key"})
"""Fields that an opening handshake has exactly once."""


def websocket_accept(key: bytes) -> bytes:
    """Return the Sec-WebSocket-Accept that belongs to a Sec-WebSocket-Key (RFC 6455 4.2.2)."""
    digest = hashlib.sha1(key + _WEBSOCKET_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest)


def check_upgrade(
    reason: bytes, version: str, fields: Iterable[tuple[bytes, bytes]], key: bytes | None
) -> ResponseHead:
    """Check the head of a 101 (RFC 6455 4.1).

    Args:
        reason: Reason phrase of the response.
        version: Version of the backend's HTTP, as `1.1`.
        fields: Field lines with names in lower case and values without white space around them.
        key: Sec-WebSocket-Key of the request; None where the request was no opening handshake.

    Raises:
        errors.BadResponse: The response does not accept the handshake, or there was none.
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


def upgrade_head(fields: Fields, date: bytes) -> bytes:
    """Return the bytes of a 101 that opens a WebSocket; `fields` has no hop-by-hop fields.

    Raises:
        errors.BadResponse: A field has a line break or a NUL in it.
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
    if match is None:
        raise errors.MalformedRequest(NO_TARGET)
    if b"@" in match[1]:
        raise errors.MalformedRequest(USER_IN_TARGET)
    if match[1].lower() != host.lower():
        raise errors.MisdirectedRequest
    rest = match[2]
    return rest if rest.startswith(b"/") else b"/" + rest


def check_response(
    status: int, reason: bytes, version: str, fields: Iterable[tuple[bytes, bytes]], request_method: bytes
) -> tuple[ResponseHead, Framing]:
    """Check the head of a final response, and return it with the way in which its body ends (RFC 9112 6.3).

    Raises:
        errors.BadResponse: The head breaks RFC 9112.
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
    """Return the bytes of the head of a final response, with the gateway's own framing fields.

    A body of unknown length is chunked for HTTP/1.1; for HTTP/1.0 the caller closes the connection.

    Args:
        head: Head without framing fields.
        method: Method of the request.
        http_minor: Minor version of the client's HTTP.
        close: Whether the head says `Connection: close`.
        date: Value of the Date field where `head` has none (RFC 9110 6.6.1).

    Raises:
        errors.BadResponse: The status is not final, or a field or the reason has a line break or a NUL in it.
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
