"""Names in forms and queries: `name=value` pairs that are separated by `&` (application/x-www-form-urlencoded)."""

from typing import Final
from urllib.parse import quote, unquote_to_bytes

from gateway.model_names import scanner
from gateway.model_names.scanner import FoundName, NameScanner, Notation
from gateway.model_names.spelling import KEY, is_lookalike

MOST_FIELDS: Final = 1000
"""Fields that a form may have."""


class FormScanner(NameScanner):
    """Scanner of a form, or of a query."""

    def __init__(self, offset: int = 0, most: int = MOST_FIELDS) -> None:
        super().__init__()
        self._offset = offset
        """Position of the form in what contains it."""
        self._most = most
        """Fields that it may have."""
        self._pieces: list[bytes] = []

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        self._pieces.append(data)

    def finish(self) -> None:
        """Take the end of the body."""
        text = b"".join(self._pieces)
        self._pieces = []
        self.complete = True
        if text.count(b"&") + text.count(b";") >= self._most:
            self.problem = scanner.TOO_MANY_FIELDS
            return
        position = self._offset
        for field in text.split(b"&"):
            self._field(field, position)
            if b";" in field and self.problem is None and any(map(_is_named, field.split(b";"))):
                self.problem = scanner.SEPARATORS
            position += len(field) + 1

    def _field(self, field: bytes, position: int) -> None:
        key, _, value = field.partition(b"=")
        if not _is_named(field):
            return
        if self.seen:
            self.problem = self.problem or scanner.DUPLICATE
        self.seen = True
        if _decoded(key) != KEY:
            self.problem = self.problem or scanner.LOOKALIKE
            return
        if len(value) > scanner.LONGEST:
            self.problem = self.problem or scanner.TOO_LONG
            return
        try:
            name = unquote_to_bytes(value.replace(b"+", b" ")).decode()
        except UnicodeDecodeError:
            self.problem = self.problem or scanner.NOT_A_FIELD
            return
        start = position + len(key)
        self.found = FoundName(name, Notation.FORM, start, position + len(field))


def in_target(target: bytes) -> FoundName | str | None:
    """Return the name in the query of a target, a sentence that says why it is not clear, or None without one."""
    start = target.find(b"?") + 1
    if not start:
        return None
    query = target[start:]
    form = FormScanner(start, len(target))
    form.feed(query)
    form.finish()
    return form.problem or form.found


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
    text = _decoded(key[:1024]).strip()
    return text == KEY or is_lookalike(text)
