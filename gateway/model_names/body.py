"""Bodies: which model a request's body names, whatever its media type and content coding, and its name replaced."""

import json
import re
from collections.abc import Iterator
from typing import Final, NamedTuple

import orjson

from gateway import errors
from gateway.http.messages import Fields
from gateway.model_names import content_coding, form, json_scanner, media_type, scanner
from gateway.model_names.form import FormScanner
from gateway.model_names.json_scanner import JsonScanner
from gateway.model_names.media_type import BodyKind, MediaType
from gateway.model_names.multipart import MultipartScanner
from gateway.model_names.scanner import FoundName, NameScanner, Notation
from gateway.model_names.spelling import KEY, OTHER_CASES, is_lookalike

STEP_BYTES: Final = 65536
"""Bytes of a body that one step looks at."""
START_BYTES: Final = 256
"""Bytes that tell in which encoding of Unicode a body may be JSON."""

MISSING: Final = (
    'The request names no model: put its name into the body as "model" (JSON or a form), into the query as ?model=, or'
    " use the path /{namespace}/{name}/..."
)
BOUNDARY_IN_NAME: Final = "The boundary of the form is the beginning of a model's name; use another one."

_VALUE: Final = re.compile(rb'"model"[ \t\r\n]*:[ \t\r\n]*("[^"\\]*(?:\\.[^"\\]*)*")', re.DOTALL)

PLAIN: Final = FoundName("", Notation.JSON, -1, -1)
"""Place of a name that `plain_name` has found: it is looked for where the name is replaced."""


class Description(NamedTuple):
    """What the header fields of a request say about its body."""

    media: MediaType
    coding: bytes
    """Value of the Content-Encoding fields, as sent."""


def describe(fields: Fields) -> Description:
    """Return what the header fields say about the body."""
    kind: bytes | None = None
    coding = b""
    for name, value in fields:
        if name == b"content-type":
            if kind is not None and kind != value:
                return Description(MediaType(BodyKind.JSON, problem=media_type.TWO_TYPES), coding)
            kind = value
        elif name == b"content-encoding":
            coding = coding + b"," + value if coding else value
    return Description(media_type.of(kind), coding)


def plain_name(fields: Fields, content: bytes) -> str | None:
    """Return the name in a body by the shortest way; None where only `BodyReader` can say it.

    This way is for a small body of plain JSON in which nothing else looks like the key: nearly all requests.
    """
    if len(content) > STEP_BYTES or content.count(b'"model"') != 1:
        return None
    kind: bytes | None = None
    for name, value in fields:
        if name == b"content-type":
            if kind is not None:
                return None
            kind = value
        elif name == b"content-encoding":
            return None
    if kind != b"application/json":
        media = media_type.of(kind)
        if media.kind is not BodyKind.JSON or media.problem is not None:
            return None
    # `in` raises a TypeError for itself first, and a single byte is found fastest.
    escaped = content.find(b"\\") >= 0 and content.find(b"\\u") >= 0
    if escaped and (content.find(b"\\u006") >= 0 or content.find(b"\\u004") >= 0 or content.find(b"\\u0000") >= 0):
        return None
    try:
        parsed = orjson.loads(content)
    except orjson.JSONDecodeError:
        return None
    if not isinstance(parsed, dict):
        return None
    model = parsed.get(KEY)
    if not isinstance(model, str) or len(model) > scanner.LONGEST // 8:
        return None
    if not escaped and content.isascii():
        return model if OTHER_CASES.isdisjoint(parsed) else None
    for key in parsed:
        if (len(key) == 5 or not key.isascii()) and is_lookalike(key):
            return None
    return model


def is_readable(description: Description) -> bool:
    """Return whether the content coding of a body can be read."""
    try:
        content_coding.coding_of(description.coding)
    except errors.UnsupportedCoding:
        return False
    return True


class BodyReader:
    """Reader of one body, which finds the name of the model in it."""

    def __init__(self, description: Description, limit: int) -> None:
        """Prepare for a body that may have `limit` bytes when it is decoded.

        Raises:
            errors.UnsupportedCoding: The body has a content coding that cannot be read.
        """
        self._media = description.media
        coding = content_coding.coding_of(description.coding) if description.coding else b""
        self._scanner = self._scanner_for(self._media)
        self._decoder = content_coding.Decoder(coding, limit) if coding else None
        self._also: NameScanner | None = None
        """Scanner of JSON for a body that says that it is a form and begins like JSON, as that of curl."""
        self._begun = False
        """Whether the first character that is no white space has arrived."""
        self._start = b""
        """Beginning of a body that may be JSON in spite of its media type."""
        self._sent = b""
        """Beginning of a compressed body as it is sent."""
        self._is_wide = False
        """Whether the body begins like JSON in UTF-16 or UTF-32."""
        self._size = 0
        self._small: list[bytes] = []
        """All of the body while it is small."""
        self._decoded: list[bytes] = []
        self.fed = 0
        """Bytes of the body that were read, as it is sent."""
        self.ended = False
        """Whether the end of the body was read."""

    @property
    def decoded(self) -> bytes | None:
        """The body without its content coding; None where it has none."""
        if self._decoder is None:
            return None
        if len(self._decoded) > 1:
            self._decoded = [b"".join(self._decoded)]
        return self._decoded[0] if self._decoded else b""

    @property
    def decoded_bytes(self) -> int:
        """Size of what was decoded so far."""
        return 0 if self._decoder is None else self._size

    @property
    def is_packed_form(self) -> bool:
        """Whether the body is a compressed form.

        A server that ignores content codings may find other fields in its bytes: gzip has comments, and zstd has
        frames that are skipped.
        """
        return self._decoder is not None and self._media.kind in (BodyKind.FORM, BodyKind.MULTIPART)

    @property
    def is_certain(self) -> bool:
        """Whether the name is known, where nothing but a second one could still change what the body means."""
        found = self._scanner
        return (
            found.found is not None
            and found.problem is None
            and self._media.problem is None
            and self._decoder is None
            and self._also is None
        )

    @property
    def found(self) -> FoundName | None:
        """The name that was found so far."""
        return self._scanner.found

    @property
    def problem(self) -> str | None:
        """Sentence that says why the name is not clear; None while it is."""
        return self._media.problem or self._scanner.problem

    def steps(self, content: bytes) -> Iterator[None]:
        """Read a whole body in small steps, after each of which something else may be done.

        Raises:
            errors.BodyTooLarge: The decoded body is larger than the limit.
            errors.MalformedCoding: The body does not have its content coding.
        """
        yield from self.feed(content)
        self.finish()

    def feed(self, data: bytes) -> Iterator[None]:
        """Read the next piece of the body in small steps, after each of which something else may be done.

        Raises:
            errors.BodyTooLarge: The decoded body is larger than the limit.
            errors.MalformedCoding: The body does not have its content coding.
        """
        self.fed += len(data)
        if self._decoder is not None and len(self._sent) < START_BYTES:
            self._sent += data[:START_BYTES]
        for start in range(0, len(data), STEP_BYTES):
            piece = data if len(data) <= STEP_BYTES else data[start : start + STEP_BYTES]
            if self._decoder is None:
                self._take(piece)
                if len(data) > STEP_BYTES:
                    yield
                continue
            for plain in self._decoder.steps(piece):
                self._decoded.append(plain)
                self._take(plain)
                yield

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= STEP_BYTES:
            self._small.append(data)
        else:
            self._small = []
        if len(self._start) < START_BYTES and self._media.kind in (BodyKind.FORM, BodyKind.OTHER):
            self._start += data[:START_BYTES]
        if not self._begun and self._media.kind is BodyKind.FORM:
            text = data.lstrip(json_scanner.BLANK)
            if text:
                self._begun = True
                if text.startswith(b"{"):
                    self._also = JsonScanner()
        if self._also is not None:
            self._also.feed(data)
        self._scanner.feed(data)

    def finish(self) -> None:
        """Take the end of the body.

        Raises:
            errors.MalformedCoding: The body is not complete.
        """
        self.ended = True
        if self._decoder is not None:
            self._decoder.finish()
        self._scanner.finish()
        if self._also is not None:
            # JSON under the media type that curl uses where none is given: it must be no form at the same time.
            form_fields, self._scanner = self._scanner, self._also
            self._scanner.finish()
            if form_fields.seen and self._scanner.problem is None:
                self._scanner.problem = scanner.DUPLICATE
        if json_scanner.is_wide_object(self._start):
            self._is_wide = True
            self._scanner.problem = scanner.NOT_UTF_8
        if self._decoder is not None and json_scanner.may_be_object(self._sent):
            self._scanner.problem = scanner.TWO_TEXTS
        if self._scanner.problem is None and self._is_cut_form:
            self._scanner.problem = scanner.SEVERAL_STREAMS
        if self._scanner.problem is None and isinstance(self._scanner, JsonScanner) and self._size <= STEP_BYTES:
            self._check(b"".join(self._small))
        self._small = []

    @property
    def _is_cut_form(self) -> bool:
        """Whether the body is a form that names another model to a reader of the first compressed stream alone.

        The beginning of a JSON object is none.
        """
        decoder = self._decoder
        return (
            decoder is not None
            and decoder.several
            and self._scanner.seen
            and not isinstance(self._scanner, JsonScanner)
        )

    def _check(self, content: bytes) -> None:
        """Check all of a small JSON body: its sender gets the same response whatever the backend thinks of it."""
        try:
            json.loads(content)
        except UnicodeDecodeError:
            self._scanner.problem = scanner.NOT_UTF_8
        except ValueError:
            self._scanner.problem = scanner.NOT_JSON
        except RecursionError:
            pass  # the scanner has seen its end

    def name(self, *, required: bool) -> FoundName | None:
        """Return the name in the body that was read; None where it names no model.

        Args:
            required: Whether a body that cannot be read is at fault. Otherwise it may be one that names no model.

        Raises:
            errors.ModelMissing: The body names its model in a way that servers may read differently, or cannot be read.
        """
        found = self._scanner
        problem = self._media.problem or found.problem
        if problem is None:
            return found.found
        if not required and self._media.problem is None and not found.seen and not self._is_wide:
            if problem == scanner.NOT_AN_OBJECT or (
                problem in (scanner.NOT_JSON, scanner.NOT_UTF_8) and found.complete
            ):
                return None
            if self._media.kind is BodyKind.OTHER and problem in (scanner.NOT_JSON, scanner.NOT_UTF_8):
                return None
        no_text = problem in (scanner.NOT_AN_OBJECT, scanner.NOT_UTF_8) and not self._is_wide
        raise errors.ModelMissing(MISSING if no_text and self._media.kind is BodyKind.OTHER else problem)

    def _scanner_for(self, media: MediaType) -> NameScanner:
        if media.kind is BodyKind.MULTIPART:
            return MultipartScanner(media.boundary)
        if media.kind is BodyKind.FORM:
            return FormScanner()
        return JsonScanner()


def renamed(content: bytes, found: FoundName, name: str) -> bytes:
    """Return a body with `name` in the place of the found one; all other bytes do not change.

    Raises:
        errors.ModelMissing: The body is a form whose boundary would end the name.
    """
    start, end = found.start, found.end
    if start < 0:  # found by `plain_name`, so the bytes of the key are there once
        value = next(_VALUE.finditer(content, content.index(b'"model"')))
        start, end = value.span(1)
    return b"".join((content[:start], written(found, name), content[end:]))


def renamed_target(target: bytes, found: FoundName, name: str) -> bytes:
    """Return a target with `name` in the place of the one in its query."""
    return target[: found.start] + form.encoded(name) + target[found.end :]


def written(found: FoundName, name: str) -> bytes:
    """Return a name in the notation of the one that was found, with the number of its bytes where one stands before it.

    Raises:
        errors.ModelMissing: The body is a form whose boundary would end the name.
    """
    if found.notation is Notation.JSON:
        return orjson.dumps(name)
    if found.notation is Notation.FORM:
        return form.encoded(name)
    plain = name.encode()
    if found.guard in plain or b"\r" in plain or b"\n" in plain:
        raise errors.ModelMissing(BOUNDARY_IN_NAME)
    return b"%d%b%b" % (len(plain), found.between, plain) if found.between else plain
