"""Incremental scanner of multipart/form-data for the field `model` (RFC 7578, RFC 2046 5.1).

It is strict where readers differ: line ends, text before the first and after the last part, names that are written in
more than one way. A body that needs leniency is refused, since another reader may find another name in it.
"""

import re
from typing import Final
from urllib.parse import unquote_to_bytes

from gateway.model_names import media_type, scanner
from gateway.model_names.scanner import LONGEST, FoundName, NameScanner, Notation
from gateway.model_names.spelling import KEY, is_lookalike

MOST_PARTS: Final = 1000
"""Parts that a form may have."""
_MOST_DIGITS: Final = 18
"""Digits of the largest Content-Length of a part."""
HEAD_BYTES: Final = 16384
"""Bytes of the header fields of a part."""

_LINE_END: Final = re.compile(rb"--|[ \t]{0,64}(?=\r\n)")
_FIELD: Final = re.compile(rb"([^:\x00-\x20\x7f]+):([^\x00\r\n]*)")
_BLANK: Final = b" \t\r\n"
_PLAIN_ENCODINGS: Final = frozenset({b"7bit", b"8bit", b"binary"})

# States: what comes next.
_FIRST_DELIMITER: Final = 0
_LINE: Final = 1
_HEAD: Final = 2
_BODY: Final = 3
_END: Final = 4


class MultipartScanner(NameScanner):
    """Scanner of a form with parts."""

    def __init__(self, boundary: bytes) -> None:
        super().__init__()
        self._delimiter = b"--" + boundary
        self._state = _FIRST_DELIMITER
        self._offset = 0
        """Position in the body of what comes next, `_rest` included."""
        self._rest = b""
        self._parts = 0
        self._is_model = False
        """Whether the present part is the field `model`."""
        self._value: list[bytes] = []
        self._value_bytes = 0
        self._begin = 0
        """Position in the body of the present part's value."""
        self._stated = -1
        """Size of the value by the Content-Length of the present part; negative without one."""
        self._stated_at = 0
        """Position in the body of that number."""
        self._between = b""
        """Bytes between that number and the value."""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        if self.problem is not None:
            return
        if self._rest:
            data = self._rest + data
        used = self._read(data)
        self._offset += used
        self._rest = data[used:]

    def finish(self) -> None:
        """Take the end of the body."""
        self.complete = self._state == _END
        if self.problem is None and not self.complete:
            self.problem = scanner.NOT_A_FORM

    def _read(self, data: bytes) -> int:
        """Read as far as the data can be understood; return how many bytes these were."""
        position = 0
        while self.problem is None:
            if self._state == _BODY:
                after = self._body(data, position)
            elif self._state == _HEAD:
                after = self._head(data, position)
            elif self._state == _LINE:
                after = self._line(data, position)
            elif self._state == _FIRST_DELIMITER:
                after = self._first_delimiter(data)
            else:
                if data[position:].strip(_BLANK):
                    self.problem = scanner.NOT_A_FORM
                return len(data)
            if after < 0:
                return -after - 1
            position = after
        return position

    # Each step returns the position behind what it has read, or -1 - position where it needs more data from there on.

    def _first_delimiter(self, data: bytes) -> int:
        start = 2 if data.startswith(b"\r\n") else 0
        if len(data) < start + len(self._delimiter):
            return -1
        if not data.startswith(self._delimiter, start):
            self.problem = scanner.NOT_A_FORM
        self._state = _LINE
        return start + len(self._delimiter)

    def _line(self, data: bytes, position: int) -> int:
        """Read what follows a delimiter: the two dashes of the last one, or the end of the line."""
        match = _LINE_END.match(data, position)
        if match is None:
            if len(data) - position > 66:
                self.problem = scanner.NOT_A_FORM
            return -1 - position
        if match.group() == b"--":
            self._state = _END
            return match.end()
        self._parts += 1
        if self._parts > MOST_PARTS:
            self.problem = scanner.TOO_MANY_FIELDS
        self._state = _HEAD
        return match.end()

    def _head(self, data: bytes, position: int) -> int:
        """Read the header fields of a part; `position` is that of the line end before them."""
        end = data.find(b"\r\n\r\n", position)
        if end - position > HEAD_BYTES or (end < 0 and len(data) - position > HEAD_BYTES + 3):
            self.problem = scanner.NOT_A_FORM
        if end < 0:
            return -1 - position
        self._is_model = False
        self._stated = -1
        self._begin = self._offset + end + 4
        if end > position:
            problem = self._fields(data[position + 2 : end])
            if problem is not None:
                self.problem = problem
        self._value = []
        self._value_bytes = 0
        self._state = _BODY
        if data.startswith(self._delimiter, end + 4):
            self.problem = scanner.NOT_A_FORM  # a delimiter needs a line end of its own
        return end + 4

    def _body(self, data: bytes, position: int) -> int:
        hit = data.find(self._delimiter, position)
        end = max(position, len(data) - len(self._delimiter) - 1) if hit < 0 else hit - 2
        if hit >= 0 and (end < position or not data.startswith(b"\r\n", end)):
            self.problem = scanner.NOT_A_FORM
            return hit
        if self._is_model:
            self._value.append(data[position:end])
            self._value_bytes += end - position
            if self._value_bytes > LONGEST:
                self.problem = scanner.TOO_LONG
        if hit < 0:
            return -1 - end
        if self._stated >= 0 and self._stated != self._offset + end - self._begin:
            self.problem = scanner.PART_LENGTH  # some readers go by it, and find other parts behind this one
        if self._is_model:
            self._take_value(self._offset + end)
        self._state = _LINE
        return hit + len(self._delimiter)

    def _take_value(self, end: int) -> None:
        try:
            name = b"".join(self._value).decode()
        except UnicodeDecodeError:
            self.problem = scanner.NOT_A_FIELD
            return
        if self._stated < 0:
            self.found = FoundName(name, Notation.MULTIPART, self._begin, end, self._delimiter)
        else:
            self.found = FoundName(name, Notation.MULTIPART, self._stated_at, end, self._delimiter, self._between)

    def _fields(self, block: bytes) -> str | None:
        """Read the header fields of a part; return what is wrong with them."""
        disposition: media_type.Parameters | None = None
        plain = True
        behind = 0  # position in the block behind the present line
        for line in block.split(b"\r\n"):
            behind += len(line) + 2
            match = _FIELD.fullmatch(line)
            if match is None:
                return scanner.NOT_A_FORM
            name, value = match[1].lower(), match[2]
            if name == b"content-disposition":
                if disposition is not None:
                    return scanner.NOT_A_FORM
                disposition = media_type.parse(value)
                if disposition is None:
                    return scanner.NOT_A_FORM
            elif name == b"content-length":
                number = value.strip(b" \t")
                if self._stated >= 0 or not number.isdigit() or len(number) > _MOST_DIGITS:
                    return scanner.PART_LENGTH
                self._stated = int(number)
                after = behind - 2 - (len(value) - len(value.rstrip(b" \t")))
                self._between = block[after:] + b"\r\n\r\n"
                self._stated_at = self._begin - len(self._between) - len(number)
            elif name == b"content-transfer-encoding":
                plain = plain and value.strip(b" \t").lower() in _PLAIN_ENCODINGS
            elif name == b"content-type":
                kind = media_type.parse(value)
                plain = plain and kind is not None and all(map(media_type.is_ascii_charset, kind.all(b"charset")))
        if disposition is None:
            return None
        names = disposition.all(b"name")
        if b"=?" in disposition.value or any(
            b"=?" in key or (b"=?" in text and key.startswith(b"name")) for key, text in disposition.parameters
        ):
            return scanner.ENCODED_WORDS  # RFC 2047; file names may have them
        if len(names) > 1 or any(key.startswith(b"name*") for key, _ in disposition.parameters):
            return scanner.NOT_A_FORM
        if not names:
            return None
        if names[0] != b"model":
            return scanner.LOOKALIKE if _is_lookalike(names[0]) else None
        if self.seen:
            return scanner.DUPLICATE
        self.seen = True
        self._is_model = True
        is_text = not any(key.startswith(b"filename") for key, _ in disposition.parameters)
        return None if plain and is_text and disposition.value == b"form-data" else scanner.NOT_A_FIELD


def _is_lookalike(name: bytes) -> bool:
    """Return whether some readers take a name for `model`: they undo escapes, or take quotes and spaces away."""
    text = unquote_to_bytes(name[:256].replace(b"\\", b"")).decode("utf-8", "ignore").strip("'\" \t")
    return text == KEY or is_lookalike(text)
