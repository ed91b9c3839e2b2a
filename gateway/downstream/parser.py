"""Parser of the requests on a client's connection: heads and bodies out of bytes, within limits (RFC 9112).

It does no I/O: bytes go in, and a checked head, pieces of the body and the end of the message come out.
"""

import re
from typing import Final, cast

import httptools

from gateway import errors
from gateway.http.exchange import field
from gateway.http.messages import Limits, RequestHead, check_request

_ORIGIN: Final = re.compile(rb"\r\norigin:[ \t]*([!-~]+)[ \t]*\r\n", re.IGNORECASE)
"""Field line that names the website of a request."""


class RequestParser:
    """Parser of one connection, for one message at a time: bytes behind a message are fed when its response is sent."""

    __slots__ = (
        "_body_bytes", "_chunks", "_fed", "_fields", "_in_chunk_line", "_limits", "_parser", "_pieces", "_reframing",
        "_tail", "_unread", "_url", "complete", "head", "head_bytes", "keep_alive",
    )  # fmt: skip

    def __init__(self, limits: Limits) -> None:
        self.head: RequestHead | None = None
        """Head of the present message once it is complete."""
        self.head_bytes = 0
        """Bytes of a head that is not complete."""
        self.keep_alive = False
        """Whether the client leaves the connection open for another request (RFC 9112 9.3)."""
        self.complete = False
        """Whether the present message is complete."""
        self._limits = limits
        self._parser: httptools.HttpRequestParser | None = httptools.HttpRequestParser(self)
        self._tail = b""
        """The last three bytes of an incomplete head, where the head's end may have begun."""
        self._unread = b""
        """Bytes of the head that came with those for which it was refused, and maybe were not parsed."""
        self._url = b""
        self._fields: list[tuple[bytes, bytes]] = []
        self._pieces: list[bytes] = []
        self._body_bytes = 0
        self._fed = 0
        """Bytes of the present chunked body, framing included."""
        self._chunks = 0
        self._in_chunk_line = False
        self._reframing = False
        """Whether a parser of its own is told the framing of the present message."""

    def close(self) -> None:
        """Drop the parser below, which refers back to this one; nothing can be fed any more."""
        self._parser = None

    @property
    def target(self) -> bytes:
        """Target of the present message as far as it has arrived, unchecked."""
        return self._url

    @property
    def origin(self) -> bytes | None:
        """Website that has sent the present message, as far as its head has arrived; None where none is named."""
        origin = field(self._fields, b"origin")
        if origin is None and (line := _ORIGIN.search(self._unread)) is not None:
            return line[1]
        return origin

    def feed_head(self, data: bytes) -> bytes:
        """Parse up to the end of a head, and return the bytes behind it; `head` is set when it is complete.

        Raises:
            errors.RequestError: The head breaks a rule or a limit.
            httptools.HttpParserError: It is no HTTP, or a callback has raised the exception in `__context__`.
        """
        parser = cast("httptools.HttpRequestParser", self._parser)
        if not self.head_bytes:
            self.head = None
        # The end of the head is found before it is parsed: what follows may not be for the parser yet.
        tail = self._tail
        window = tail + data if tail else data
        found = window.find(b"\r\n\r\n")
        end = len(data) if found < 0 else found + 4 - len(tail)
        room = self._limits.head_bytes - self.head_bytes
        whole = data if end == len(data) else data[:end]
        try:
            if end > room:
                parser.feed_data(data[:room])
                raise errors.HeadTooLarge
            self.head_bytes += end
            parser.feed_data(whole)
        except httptools.HttpParserUpgrade:
            if not self._is_websocket:
                self._reframe()
        except Exception:
            self._unread = whole
            raise
        if self._has_head:
            self._tail = b""
            self.head_bytes = 0
        else:
            self._tail = window[-3:] if found < 0 else b""
        return data[end:]

    def _reframe(self) -> None:
        """Go on with another parser, which expects the body that the checked head says.

        For the old one the message ends with its head, and the bytes behind it are the next request: it takes every
        offer of an upgrade for granted. The new one gets none of the client's bytes for a head, only the framing.
        """
        self.complete = False
        self._reframing = True
        parser = self._parser = httptools.HttpRequestParser(self)
        parser.feed_data(_framing(cast("RequestHead", self.head)))

    def feed_body(self, data: bytes) -> None:
        """Parse a part of the body, which `take_body` returns then, also where an error was raised.

        Raises:
            errors.RequestError: The framing of the body is too large.
            httptools.HttpParserError: The framing is broken, or a callback has raised the exception in `__context__`.
        """
        self._fed += len(data)
        cast("httptools.HttpRequestParser", self._parser).feed_data(data)
        if not self.complete:
            self._check_overhead()

    def take_body(self) -> list[bytes]:
        """Return the pieces of the body that have been parsed since the last call."""
        pieces, self._pieces = self._pieces, []
        return pieces

    @property
    def _has_head(self) -> bool:
        return self.head is not None

    @property
    def _is_websocket(self) -> bool:
        return self.head is not None and self.head.websocket

    def _check_overhead(self) -> None:
        """Raise an error where a chunked body has more framing than its chunks and trailers may take."""
        if self._fed == self._body_bytes:
            return
        allowed = self._limits.chunk_line_bytes * (self._chunks + 1)
        if self._in_chunk_line:
            allowed += self._limits.overhead_bytes  # it may be the last one, with trailers behind it
        if self._fed - self._body_bytes > allowed:
            raise errors.HeadTooLarge if self._in_chunk_line else errors.MalformedRequest

    # Callbacks of the parser below

    def on_message_begin(self) -> None:
        """Start a head; a message behind a chunked body, in the same read, is refused."""
        self._url = b""
        if self._reframing:
            return
        if self.head is not None:
            raise errors.MalformedRequest
        self._fields = []

    def on_url(self, url: bytes) -> None:
        """Collect a piece of the target."""
        self._url += url
        if len(self._url) > self._limits.url_bytes:
            raise errors.TargetTooLong

    def on_header(self, name: bytes, value: bytes) -> None:
        """Collect a field line; drop a trailer, which is a field line after the head (RFC 9110 6.5.1)."""
        if self.head is not None:
            return
        if len(self._fields) >= self._limits.fields:
            raise errors.HeadTooLarge
        self._fields.append((name.lower(), value.strip(b" \t")))

    def on_headers_complete(self) -> None:
        """Check the complete head."""
        if self._reframing:
            self._reframing = False
            return
        parser = cast("httptools.HttpRequestParser", self._parser)
        head = check_request(parser.get_method(), self._url, parser.get_http_version(), self._fields)
        # The parser forgets this after the callback.
        self.keep_alive = bool(head.http_minor) and not head.websocket and parser.should_keep_alive()
        self.head = head
        self.complete = False
        self._body_bytes = self._fed = self._chunks = 0

    def on_body(self, data: bytes) -> None:
        """Collect a piece of the body."""
        self._in_chunk_line = False
        self._body_bytes += len(data)
        self._pieces.append(data)

    def on_chunk_header(self) -> None:
        """Count a chunk whose size is known; the last one has none."""
        self._chunks += 1
        self._in_chunk_line = True

    def on_chunk_complete(self) -> None:
        """Note the end of a chunk."""
        self._in_chunk_line = False

    def on_message_complete(self) -> None:
        """Note the end of the message, where its framing is not too large."""
        self._check_overhead()
        self.complete = True


def _framing(head: RequestHead) -> bytes:
    """Return the head of a request that has the same body as `head`, and nothing else of it."""
    if head.chunked:
        return b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n"
    if head.content_length is not None:
        return b"POST / HTTP/1.1\r\ncontent-length: %d\r\n\r\n" % head.content_length
    return b"GET / HTTP/1.1\r\n\r\n"
