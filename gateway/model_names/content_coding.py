"""Content codings of requests: what a compressed body says, read with a bound (RFC 9110 8.4)."""

import sys
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, Final

import brotli

from gateway import errors

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

STEP_BYTES: Final = 65536
"""Bytes that one step of decoding gives at most; brotli gives up to twice as much."""

_ZSTD_WINDOW: Final[Mapping[int, int]] = {zstd.DecompressionParameter.window_log_max: 23}  # 8 MiB (RFC 9659)
_GZIP: Final = 31
_ZLIB: Final = 15
_RAW_DEFLATE: Final = -15


def coding_of(value: bytes) -> bytes:
    """Return the coding that the value of a Content-Encoding field names, in lower case; empty for none.

    Raises:
        errors.UnsupportedCoding: It names several codings, or one that is not known.
    """
    codings = [name for part in value.split(b",") if (name := part.strip(b" \t").lower()) not in (b"", b"identity")]
    if not codings:
        return b""
    if len(codings) > 1:
        raise errors.UnsupportedCoding("The request's body has several content codings; send it with one or none.")
    coding = codings[0].removeprefix(b"x-") if codings[0] == b"x-gzip" else codings[0]
    if coding not in (b"gzip", b"deflate", b"br", b"zstd"):
        raise errors.UnsupportedCoding
    return coding


class Decoder:
    """Decoder of one coding, whose output has a limit."""

    def __init__(self, coding: bytes, limit: int) -> None:
        self._coding = coding
        self._left = limit
        """Bytes that may still come out."""
        self._stream: Any = None
        """Decoder of the present stream; None before the first and between two of them."""
        self._rest = b""
        """Input of which more is needed before it can be read."""
        self._ended = False
        """Whether a stream is complete and no other has begun."""
        self.several = False
        """Whether there was more than one stream: members of gzip (RFC 1952 2.2), frames of zstd (RFC 8878 3.1)."""

    def steps(self, data: bytes) -> Iterator[bytes]:
        """Decode the next piece of the body; yield what comes out, in small pieces.

        Raises:
            errors.BodyTooLarge: More comes out than the limit.
            errors.MalformedCoding: The body does not have this coding.
        """
        if self._rest:
            data = self._rest + data
            self._rest = b""
        while data or self._stream is not None:
            if self._stream is None:
                if self._ended and self._coding not in (b"gzip", b"zstd"):
                    raise errors.MalformedCoding
                self.several = self.several or self._ended
                if self._coding == b"deflate" and len(data) < 2:
                    self._rest = data
                    return
                self._stream = self._new_stream(data)
                self._ended = False
            try:
                piece, data, more = self._decode(data)
            except (zlib.error, brotli.error, zstd.ZstdError) as exc:
                raise errors.MalformedCoding from exc
            self._left -= len(piece)
            if self._left < 0:
                raise errors.BodyTooLarge
            if piece:
                yield piece
            if not more and not data:
                return

    def finish(self) -> None:
        """Take the end of the body.

        Raises:
            errors.MalformedCoding: The body is not complete.
        """
        if not self._ended:
            raise errors.MalformedCoding

    def _decode(self, data: bytes) -> tuple[bytes, bytes, bool]:
        """Return what the next step gives, the input that is left, and whether there is more of it inside."""
        stream = self._stream
        if self._coding == b"br":
            piece: bytes = stream.process(data, output_buffer_limit=STEP_BYTES)
            if stream.is_finished():
                self._stream, self._ended = None, True
                return piece, b"", False
            # Output may be left although it says that it can accept more data.
            return piece, b"", len(piece) >= STEP_BYTES or not stream.can_accept_more_data()
        if self._coding == b"zstd":
            piece = stream.decompress(data, STEP_BYTES)
            left, more = b"", not stream.needs_input
        else:
            piece = stream.decompress(data, STEP_BYTES)
            left = stream.unconsumed_tail
            more = len(piece) == STEP_BYTES
        if stream.eof:
            left = stream.unused_data
            self._stream, self._ended, more = None, True, False
        return piece, left, more

    def _new_stream(self, data: bytes) -> Any:
        if self._coding == b"br":
            return brotli.Decompressor()
        if self._coding == b"zstd":
            return zstd.ZstdDecompressor(options=_ZSTD_WINDOW)
        if self._coding == b"gzip":
            return zlib.decompressobj(_GZIP)
        # RFC 9110 8.4.1.2 means the zlib format; some clients leave its two bytes of header away.
        has_header = data[0] & 15 == 8 and (data[0] * 256 + data[1]) % 31 == 0
        return zlib.decompressobj(_ZLIB if has_header else _RAW_DEFLATE)
