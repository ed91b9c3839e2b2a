"""When certificates end, read from their DER encoding (RFC 5280 4.1, X.690).

Python's `ssl` tells the end of a certificate that a peer has shown and verified, and of no other.
"""

import base64
import binascii
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Final

_BLOCK: Final = re.compile(r"-----BEGIN CERTIFICATE-----([A-Za-z0-9+/=\s]*)-----END CERTIFICATE-----")
_SEQUENCE: Final = 0x30
_VERSION: Final = 0xA0
"""Tag of the version, which certificates of the first version do not have."""
_FORMATS: Final = {0x17: "%y%m%d%H%M%SZ", 0x18: "%Y%m%d%H%M%SZ"}
"""Formats of a time by the tags UTCTime and GeneralizedTime."""
_CENTURY: Final = 50
"""First year of two digits that is one of the last century (RFC 5280 4.1.2.5.1)."""


def end_of(certificate: bytes) -> float | None:
    """Return the time at which a certificate in DER ends, in seconds since 1970; None where it is no certificate."""
    try:
        start, _ = _inside(certificate, 0, _SEQUENCE)
        start, _ = _inside(certificate, start, _SEQUENCE)
        fields = 4 if certificate[start] == _VERSION else 3  # version, serial number, algorithm and issuer
        for _ in range(fields):
            start = _content(certificate, start)[1]
        start, _ = _inside(certificate, start, _SEQUENCE)
        start = _content(certificate, start)[1]
        begin, end = _content(certificate, start)
        text = certificate[begin:end].decode("ascii")
        moment = datetime.strptime(text, _FORMATS[certificate[start]]).replace(tzinfo=UTC)
    except (IndexError, KeyError, ValueError):
        return None
    if certificate[start] == 0x17:  # strptime has another pivot
        short = moment.year % 100
        moment = moment.replace(year=short + (1900 if short >= _CENTURY else 2000))
    return moment.timestamp()


def ends_of(pem: str) -> list[float]:
    """Return when each certificate in a text in PEM ends, in its order; those that are none are left out."""
    return [end for certificate in _certificates(pem) if (end := end_of(certificate)) is not None]


def _certificates(pem: str) -> Iterator[bytes]:
    for block in _BLOCK.findall(pem):
        try:
            yield base64.b64decode("".join(block.split()), validate=True)
        except binascii.Error:
            continue


def _inside(data: bytes, start: int, tag: int) -> tuple[int, int]:
    """Return begin and end of what is in the element at `start`, which must have this tag."""
    if data[start] != tag:
        raise ValueError(tag)
    return _content(data, start)


def _content(data: bytes, start: int) -> tuple[int, int]:
    """Return begin and end of the content of the element at `start`."""
    length, begin = data[start + 1], start + 2
    if length >= 0x80:
        size = length & 0x7F
        if not 1 <= size <= 4:
            raise ValueError(size)
        begin += size
        length = int.from_bytes(data[begin - size : begin], "big")
    if begin + length > len(data):
        raise ValueError(length)
    return begin, begin + length
