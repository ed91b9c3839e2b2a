"""Names in forms and queries: `name=value` pairs that are separated by `&` (application/x-www-form-urlencoded)."""

from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from gateway.model_names import scanner
from gateway.model_names.scanner import FoundName, NameScanner, Notation
from gateway.model_names.spelling import KEY, is_lookalike

MOST_FIELDS: Final = 1000
"""Fields that a form may have."""
_IN_QUERY: Final[Mapping[str, str]] = {
    scanner.DUPLICATE: 'The query has more than one value for "model".',
    scanner.LOOKALIKE: 'The query has a name that some servers read as "model". Write "model".',
    scanner.TOO_LONG: 'The value of "model" in the query is too long.',
    scanner.NOT_A_FIELD: 'The value of "model" in the query must be plain text in UTF-8.',
    scanner.SEPARATORS: 'The value of "model" in the query must not depend on whether ; separates fields.',
}
"""What is wrong with a query, by what would be wrong with a form."""
_KEY_BYTES: Final = 1024
"""Bytes of a key that are compared with `model`."""
_FIELD_BYTES: Final = _KEY_BYTES + scanner.LONGEST + 1
"""Bytes of a field that are kept: its key, as far as it counts, the equals sign, and the longest value."""


class FormScanner(NameScanner):
    """Scanner of a form, or of a query. It keeps the beginning of one field."""

    def __init__(self, offset: int = 0, most: int = MOST_FIELDS) -> None:
        super().__init__()
        self._position = offset
        """Position of the present field in what contains the form."""
        self._left = most
        """Fields that there may still be."""
        self._field = b""
        """The present field, as much of it as is needed."""
        self._size = 0
        """Bytes of the present field."""
        self._part = b""
        """Beginning of the present field for readers to whom a semicolon ends one."""
        self._in_parts = False
        """Whether the present field has a semicolon."""
        self._part_is_named = False
        """Whether a part of the present field that a semicolon ends is named `model`."""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        self._left -= data.count(b"&") + data.count(b";")
        if self._left <= 0:
            self.problem = scanner.TOO_MANY_FIELDS
            self.found = None
            self.seen = False
            return
        start = 0
        while (end := data.find(b"&", start)) >= 0:
            self._continue(data[start:end])
            self._end_field()
            start = end + 1
        self._continue(data[start:] if start else data)

    def finish(self) -> None:
        """Take the end of the body."""
        self.complete = True
        if self._left > 0:
            self._end_field()

    def _continue(self, data: bytes) -> None:
        """Take a piece of the present field."""
        self._size += len(data)
        if len(self._field) < _FIELD_BYTES:
            self._field += data[: _FIELD_BYTES - len(self._field)]
        start = 0
        while (end := data.find(b";", start)) >= 0:
            self._continue_part(data, start, end)
            self._end_part()
            self._in_parts = True
            start = end + 1
        self._continue_part(data, start, len(data))

    def _continue_part(self, data: bytes, start: int, end: int) -> None:
        if len(self._part) < _KEY_BYTES:
            self._part += data[start : min(end, start + _KEY_BYTES - len(self._part))]

    def _end_part(self) -> None:
        self._part_is_named = self._part_is_named or _is_named(self._part)
        self._part = b""

    def _end_field(self) -> None:
        """Take the end of the present field, and expect the next one."""
        self._take(self._field, self._size)
        if self._in_parts:
            self._end_part()
            if self._part_is_named and self.problem is None:
                self.problem = scanner.SEPARATORS
        self._position += self._size + 1
        self._field = self._part = b""
        self._size = 0
        self._in_parts = self._part_is_named = False

    def _take(self, field: bytes, size: int) -> None:
        """Take a field of this size by its beginning, which is all of it where it can be one that is used."""
        key, _, value = field.partition(b"=")
        if not _is_named(field):
            return
        if self.seen:
            self.problem = self.problem or scanner.DUPLICATE
        self.seen = True
        if len(key) >= _KEY_BYTES or _decoded(key) != KEY:
            self.problem = self.problem or scanner.LOOKALIKE
            return
        if size - len(key) - 1 > scanner.LONGEST:
            self.problem = self.problem or scanner.TOO_LONG
            return
        try:
            name = unquote_to_bytes(value.replace(b"+", b" ")).decode()
        except UnicodeDecodeError:
            self.problem = self.problem or scanner.NOT_A_FIELD
            return
        self.found = FoundName(name, Notation.FORM, self._position + len(key), self._position + size)


def in_target(target: bytes) -> FoundName | str | None:
    """Return the name in the query of a target, a sentence that says why it is not clear, or None without one."""
    start = target.find(b"?") + 1
    if not start:
        return None
    query = target[start:]
    form = FormScanner(start, len(target))
    form.feed(query)
    form.finish()
    if form.problem is not None:
        return _IN_QUERY.get(form.problem, form.problem)
    return form.found


def encoded(name: str) -> bytes:
    """Return the end of a field, from its equals sign on, with `name` as its value."""
    return b"=" + quote(name, safe="").encode("ascii")


def _decoded(key: bytes) -> str:
    return unquote_to_bytes(key.replace(b"+", b" ")).decode("utf-8", "replace")


def _is_named(field: bytes) -> bool:
    """Return whether the key of a field is `model`, or what some readers take for it."""
    key = field.partition(b"=")[0]
    if len(key) < 5:
        return False
    text = _decoded(key[:_KEY_BYTES]).strip()
    return text == KEY or is_lookalike(text)
