"""Content codings: compressed bodies are read through in small steps, with a bound on what comes out."""

import gzip
import zlib
from collections.abc import Callable

import brotli
import pytest
from backports import zstd
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.model_names.content_coding import STEP_BYTES, Decoder, coding_of


def _raw(data: bytes) -> bytes:
    return zlib.compress(data, wbits=-15)


def _members(compress: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda data: compress(data[: len(data) // 2]) + compress(data[len(data) // 2 :])


ENCODERS: list[tuple[bytes, Callable[[bytes], bytes]]] = [
    (b"gzip", gzip.compress),
    (b"gzip", _members(gzip.compress)),
    (b"deflate", zlib.compress),
    (b"deflate", _raw),
    (b"br", brotli.compress),
    (b"zstd", zstd.compress),
    (b"zstd", _members(zstd.compress)),
]
NAMES = ["gzip", "gzip-members", "zlib", "raw-deflate", "br", "zstd", "zstd-frames"]


def decoded(coding: bytes, data: bytes, *, limit: int = 1 << 30, size: int = 1 << 30) -> bytes:
    """Return decoded data that is fed in pieces of `size` bytes."""
    decoder = Decoder(coding, limit)
    pieces = [piece for start in range(0, len(data), size) for piece in decoder.steps(data[start : start + size])]
    decoder.finish()
    assert all(len(piece) <= 2 * STEP_BYTES for piece in pieces)
    return b"".join(pieces)


@pytest.mark.parametrize(("coding", "encode"), ENCODERS, ids=NAMES)
@given(data=st.binary(max_size=500), times=st.integers(1, 500), size=st.integers(1, 100))
def test_what_was_encoded_is_decoded(
    coding: bytes, encode: Callable[[bytes], bytes], data: bytes, times: int, size: int
) -> None:
    """Whatever was encoded is decoded, in whatever pieces it comes."""
    assert decoded(coding, encode(data * times), size=size) == data * times


@pytest.mark.parametrize(("coding", "encode"), ENCODERS, ids=NAMES)
def test_what_comes_out_is_bounded(coding: bytes, encode: Callable[[bytes], bytes]) -> None:
    """A small body of many zeros is refused as too large before it is in memory; the limit itself is allowed."""
    bomb = encode(bytes(1 << 24))
    assert len(decoded(coding, bomb, limit=1 << 24)) == 1 << 24
    with pytest.raises(errors.BodyTooLarge):
        decoded(coding, bomb, limit=(1 << 24) - 1)


@pytest.mark.parametrize(("coding", "encode"), ENCODERS, ids=NAMES)
def test_a_body_without_its_coding_is_refused(coding: bytes, encode: Callable[[bytes], bytes]) -> None:
    """A body that is cut, damaged, followed by something else or not compressed at all is refused."""
    whole = encode(b'{"model":"a"}' * 9)
    bad = [whole[:-1], whole[:1], whole + b"}", b'{"model":"a"}', b"", b"\x08\x1d"]
    if coding != b"deflate":
        bad.append(whole[:5] + bytes([whole[5] ^ 255]) * 9 + whole[14:])
    for body in bad:
        with pytest.raises(errors.MalformedCoding):
            decoded(coding, body, size=3)


def test_a_window_that_is_too_large_is_refused() -> None:
    """A zstd frame that asks for more than 8 MiB of memory is refused (RFC 9659)."""
    options: dict[int, int] = {zstd.CompressionParameter.window_log: 27}
    compressor = zstd.ZstdCompressor(options=options)
    body = compressor.compress(bytes(1 << 20)) + compressor.flush()
    with pytest.raises(errors.MalformedCoding):
        decoded(b"zstd", body)


@pytest.mark.parametrize(
    ("value", "coding"),
    [
        (b"", b""),
        (b"identity", b""),
        (b"GZIP", b"gzip"),
        (b"x-gzip", b"gzip"),
        (b" br ,identity, ", b"br"),
        (b"zstd", b"zstd"),
        (b"deflate", b"deflate"),
    ],
)
def test_codings_by_name(value: bytes, coding: bytes) -> None:
    """Names of codings are compared without regard to case, and identity is none."""
    assert coding_of(value) == coding


@pytest.mark.parametrize("value", [b"compress", b"gzip, br", b"gzip,gzip", b"dcz", b"x-br", b"gzip;q=1"])
def test_codings_that_are_not_read(value: bytes) -> None:
    """Another coding, and several in a row, are refused."""
    with pytest.raises(errors.UnsupportedCoding):
        coding_of(value)


@pytest.mark.parametrize(("coding", "encode"), [(b"gzip", gzip.compress), (b"zstd", zstd.compress)])
@given(pieces=st.lists(st.binary(max_size=40), min_size=1, max_size=4), size=st.integers(1, 50))
def test_members_and_frames_concatenate(
    coding: bytes, encode: Callable[[bytes], bytes], pieces: list[bytes], size: int
) -> None:
    """Members of gzip (RFC 1952 2.2) and frames of zstd are read as one body; several are noted."""
    decoder = Decoder(coding, 1000)
    body = b"".join(map(encode, pieces))
    out = b"".join(one for start in range(0, len(body), size) for one in decoder.steps(body[start : start + size]))
    decoder.finish()
    assert out == b"".join(pieces)
    assert decoder.several is (len(pieces) > 1)
