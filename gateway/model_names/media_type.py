"""Media types of bodies: the notation in which a body may name a model (RFC 9110 8.3, RFC 7578)."""

import re
from enum import Enum
from functools import lru_cache
from typing import Final, NamedTuple

from gateway.model_names import scanner


class BodyKind(Enum):
    """Kind of a body, by its media type."""

    JSON = "json"
    """JSON, plain text, or a body without a type."""
    FORM = "form"
    """A form that is encoded as a query, or JSON that curl sends under that type."""
    MULTIPART = "multipart"
    """A form with files."""
    OTHER = "other"
    """Anything else; it may be JSON all the same."""


class MediaType(NamedTuple):
    """What the media type of a body says."""

    kind: BodyKind
    boundary: bytes = b""
    """Boundary between the parts of a form."""
    problem: str | None = None
    """Sentence that says why the body cannot be read."""


class Parameters(NamedTuple):
    """Value of a field with parameters, such as `form-data; name="a"`."""

    value: bytes
    """First part, in lower case."""
    parameters: tuple[tuple[bytes, bytes], ...]
    """Names in lower case, and values without their quotes but with their escapes."""

    def all(self, name: bytes) -> list[bytes]:
        """Return all values of the parameter `name`."""
        return [value for key, value in self.parameters if key == name]


NO_BOUNDARY: Final = "The media type multipart/form-data needs one boundary."
TWO_TYPES: Final = "The request must have one media type."

_PARAMETER: Final = re.compile(
    rb'[ \t]*;[ \t]*(?:([^=;,"\x00-\x20\x7f]+)[ \t]*=[ \t]*("(?:[^"\\]|\\.)*"|[^;"\x00-\x20\x7f]*)[ \t]*)?', re.DOTALL
)
_BOUNDARY: Final = re.compile(rb"[0-9A-Za-z'()+_,./:=? -]{0,69}[0-9A-Za-z'()+_,./:=?-]")  # RFC 2046 5.1.1
_CHARSETS: Final = frozenset(
    {b"utf-8", b"utf8", b"us-ascii", b"ascii", b"iso-8859-1", b"latin1", b"windows-1252"}
)  # fmt: skip
"""Charsets in which ASCII is ASCII."""


def parse(value: bytes) -> Parameters | None:
    """Return the parts of a value with parameters; None where its syntax is broken."""
    main, _, _ = value.partition(b";")
    position = len(main)
    parameters: list[tuple[bytes, bytes]] = []
    while position < len(value):
        match = _PARAMETER.match(value, position)
        if match is None or match.end() == position:
            return None
        position = match.end()
        name = match[1]
        if name is not None:
            text = match[2]
            parameters.append((name.lower(), text[1:-1] if text.startswith(b'"') else text))
    return Parameters(main.strip(b" \t").lower(), tuple(parameters))


def is_ascii_charset(charset: bytes) -> bool:
    """Return whether ASCII text is the same in `charset`."""
    return charset.lower() in _CHARSETS


@lru_cache(maxsize=256)
def of(value: bytes | None) -> MediaType:
    """Return what the value of a Content-Type field says; None stands for a request without one."""
    if not value:
        return MediaType(BodyKind.JSON)
    main = value.partition(b";")[0].strip(b" \t").lower()
    parsed = parse(value)
    if main == b"multipart/form-data":
        parameters = () if parsed is None else parsed.parameters
        boundaries = [text for name, text in parameters if name.startswith(b"boundary")]
        if len(boundaries) != 1 or (b"boundary", boundaries[0]) not in parameters:
            return MediaType(BodyKind.MULTIPART, problem=NO_BOUNDARY)
        if not _BOUNDARY.fullmatch(boundaries[0]):
            return MediaType(BodyKind.MULTIPART, problem=NO_BOUNDARY)
        if not all(is_ascii_charset(text) for name, text in parameters if name == b"charset"):
            return MediaType(BodyKind.MULTIPART, boundaries[0], scanner.NOT_UTF_8)
        return MediaType(BodyKind.MULTIPART, boundaries[0])
    if main == b"application/x-www-form-urlencoded":
        kind = BodyKind.FORM
    elif b"json" in main or main == b"text/plain":
        kind = BodyKind.JSON
    else:
        return MediaType(BodyKind.OTHER)
    charsets = [] if parsed is None else parsed.all(b"charset")
    if b"multipart/" in value.lower():
        return MediaType(kind, problem=TWO_TYPES)
    if not all(map(is_ascii_charset, charsets)):
        return MediaType(kind, problem=scanner.NOT_UTF_8)
    return MediaType(kind)
