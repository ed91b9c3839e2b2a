"""Incremental scanner of JSON for the top-level key `model`, and for the places of other keys that a caller names.

It reads as leniently as model servers do: a byte order mark, NaN and Infinity, and lone surrogates are fine, and what
stands below the top level is not checked beyond its brackets and strings. It keeps a depth, a state and a bounded rest
of the last piece, builds no tree, and does its work in passes over whole pieces instead of a step for each byte.
"""

import json
import re
from typing import Final

from gateway.model_names import scanner
from gateway.model_names.scanner import LONGEST, FoundName, NameScanner, Notation
from gateway.model_names.spelling import KEY

PIECE_BYTES: Final = 65536
"""Bytes that are looked at together; longer pieces are divided."""
LONGEST_KEY: Final = 128
"""Bytes of the longest key that is compared with `model`, as it is written."""
MOST_NAMES: Final = 10000
"""Names that an object may have at its top level; each of them takes a step."""
MOST_PLACES: Final = 32
"""Places of other keys that are noted."""
BLANK: Final = b" \t\r\n"
"""White space of JSON (RFC 8259 2)."""
BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


def _wide(unit: bytes, mark: bytes) -> bytes:
    """Return the expression for the start of an object in UTF-16 or UTF-32, of which the end may be missing.

    Args:
        unit: Format of a character.
        mark: Byte order mark.
    """
    blanks = b"(?:%b)*+" % (unit % rb"[ \t\r\n]")
    cut = rb"[\x00 \t\r\n{\"}]{0,3}\Z"
    return b"(?:%b)?%b(?:%b%b(?:%b|%b)|%b)" % (mark, blanks, unit % rb"\{", blanks, unit % rb"[\"}]", cut, cut)


_WIDE_OBJECT: Final = re.compile(
    b"|".join(
        (
            _wide(rb"%b\x00", rb"\xff\xfe"),
            _wide(rb"\x00%b", rb"\xfe\xff"),
            _wide(rb"%b\x00\x00\x00", rb"\xff\xfe\x00\x00"),
            _wide(rb"\x00\x00\x00%b", rb"\x00\x00\xfe\xff"),
        )
    )
)
"""Regular expression for what may be the start of an object in UTF-16 or UTF-32."""
_CUT_MARKS: Final = (b"\xef", b"\xef\xbb", b"\xff", b"\xfe", b"\x00\x00\xfe")
"""Byte order marks of which the end is missing."""

_BLANK_AT_LARGE: Final = bytes(range(33)) + BYTE_ORDER_MARK
_OTHER_MARKS: Final = (b"\xfe\xff", b"\xff\xfe")
_ESCAPE: Final = b"\x01\x01"
"""What stands in for an escaped backslash or quote: a character that strict readers allow nowhere."""
_OUTSIDE: Final = b'{}[]:,"+-.0123456789eEtrufalsnNIiy' + BLANK
"""Characters outside of strings: structure, numbers, and the letters of true, false, null, NaN and Infinity."""
_NO_STRUCTURE: Final = bytes(sorted(set(range(256)) - set(b'{}[]:,"')))
_COLON: Final = re.compile(rb"[ \t\r\n]*:[ \t\r\n]*")
_SCALAR: Final = re.compile(rb"[^ \t\r\n,}]*")
_IGNORED: Final = rb"(?:[\x80-\xff]|\\u(?!00[0-7])[0-9A-Fa-f]{4})*"
_SPELLING: Final = re.compile(
    rb'"('
    + _IGNORED
    + b"".join(
        rb"(?:[%b]|\\u00[46][%b])%b" % (letters, digits, _IGNORED)
        for letters, digits in ((b"mM", b"dD"), (b"oO", b"fF"), (b"dD", b"4"), (b"eE", b"5"), (b"lL", b"cC"))
    )
    + rb"""(?:(?:\x00|\\u0000)[^"]*)?)(?=")"""
)
"""Strings that are the key, also with escaped letters, or that some readers take for it."""

_QUOTE: Final = 34
_COMMA: Final = 44
_OPENING_BRACKET: Final = 91
_CLOSING_BRACKET: Final = 93
_OPENING_BRACE: Final = 123
_CLOSING_BRACE: Final = 125

# States at the top level: what comes next.
_OBJECT: Final = 0
_FIRST_KEY: Final = 1
_KEY: Final = 2
_COLON_NEXT: Final = 3
_VALUE: Final = 4
_NEXT: Final = 5
_END: Final = 6


def may_be_object(start: bytes) -> bool:
    """Return whether text of which `start` is the beginning may be a JSON object, in UTF-8, UTF-16 or UTF-32."""
    text = start.removeprefix(BYTE_ORDER_MARK).lstrip(BLANK)
    if not text or text.startswith(b"{"):
        return True
    return start in _CUT_MARKS or _WIDE_OBJECT.match(start[:PIECE_BYTES]) is not None


def is_wide_object(content: bytes) -> bool:
    """Return whether a text begins like a JSON object in UTF-16 or UTF-32, which some readers find out by its bytes."""
    return len(content) > 3 and _WIDE_OBJECT.match(content[:PIECE_BYTES]) is not None


class JsonScanner(NameScanner):
    """Scanner of a JSON object."""

    def __init__(self, others: frozenset[bytes] = frozenset()) -> None:
        """Read nothing yet.

        Args:
            others: Keys besides `model` whose places are noted, in lower case.
        """
        super().__init__()
        self.places: list[tuple[bytes, int]] = []
        """Those of the other keys that were found, and the positions in the body behind them, the first ones only."""
        self._others = others
        self._state = _OBJECT
        self._depth = 0
        self._offset = 0
        """Position in the body of what comes next, `_rest` included."""
        self._rest = b""
        """End of the last piece that is looked at again together with the next one."""
        self._begun = False
        """Whether the byte order mark is behind."""
        self._in_string = False
        """Whether the last piece ended within a string that is no candidate for the key."""
        self._names = 0
        """Names at the top level so far."""
        self._foreign = False
        """Whether something outside of strings is no JSON, such as a comment."""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        if len(data) <= PIECE_BYTES:
            self._take(data, last=False)
            return
        for start in range(0, len(data), PIECE_BYTES):
            self._take(data[start : start + PIECE_BYTES], last=False)

    def finish(self) -> None:
        """Take the end of the body."""
        if not self._begun:
            self._take(b"", last=True)
        self.complete = self._state == _END and not self._foreign
        if self.problem is None and not self.complete:
            self.problem = scanner.NOT_AN_OBJECT if self._state == _OBJECT else scanner.NOT_JSON

    def _take(self, data: bytes, *, last: bool) -> None:
        if self.problem is not None:
            return
        if self._rest:
            data = self._rest + data
            self._rest = b""
        if not self._begun:
            if len(data) < 4 and not last:
                self._rest = data
                return
            self._begun = True
            if data.startswith(_OTHER_MARKS) or b"\0" in data[:4]:
                self.problem = scanner.NOT_UTF_8
                return
            if data.startswith(BYTE_ORDER_MARK):
                data = data[3:]
                self._offset = 3
        if self._state == _OBJECT:
            stripped = data.lstrip(BLANK)
            self._offset += len(data) - len(stripped)
            if not stripped:
                return
            if not stripped.startswith(b"{"):
                hidden = stripped.lstrip(_BLANK_AT_LARGE).startswith(b"{")
                self.problem = scanner.NOT_JSON if hidden else scanner.NOT_AN_OBJECT
                return
            data = stripped
        if self._state == _END:
            if data.strip(BLANK):
                self.problem = scanner.NOT_JSON
            return
        self._scan(data)

    def _scan(self, data: bytes) -> None:
        """Scan a piece that begins between two tokens or within a string, but never within an escape."""
        held = b""
        plain = data
        if b"\\" in data:
            plain = data.replace(b"\\\\", _ESCAPE)
            if plain.endswith(b"\\"):  # an escape that continues in the next piece
                held = b"\\"
                data = data[:-1]
                plain = plain[:-1]
            plain = plain.replace(b'\\"', _ESCAPE)
        # Every quote that is left begins or ends a string: strings and what is outside of them alternate.
        parts = plain.split(b'"')
        first = 1 if self._in_string else 0
        if len(parts) > first:
            outside = b'"'.join(parts[first::2])
            if outside.translate(None, _OUTSIDE):
                self._foreign = True
            if not self._walk(data, plain, parts, first, outside, held):
                return
            if (len(parts) - first) % 2:
                self._in_string = False
            elif not self._open_string(data, len(parts[-1]) + 1, held):
                return
        self._offset += len(data)
        self._rest = held

    def _walk(self, data: bytes, plain: bytes, parts: list[bytes], first: int, outside: bytes, held: bytes) -> bool:
        """Walk along the structure of a piece, in which a quote stands for a whole string; return whether to go on."""
        structure = outside.translate(None, _NO_STRUCTURE)
        depth = self._depth
        if depth > 1:
            closing = structure.count(b"}") + structure.count(b"]")
            if closing < depth - 1:  # nothing here is at the top level
                self._depth = depth + structure.count(b"{") + structure.count(b"[") - closing
                return True
        spellings: set[bytes] | None = None
        state = self._state
        index = first - 1
        for byte in structure:
            if byte == _QUOTE:
                index += 2
                if depth > 1:
                    continue
                if state == _VALUE:
                    state = _NEXT
                elif state in (_KEY, _FIRST_KEY):
                    self._names += 1
                    if self._names > MOST_NAMES:
                        self.problem = scanner.TOO_MANY_NAMES
                        break
                    key = parts[index]
                    if self._others and len(key) <= LONGEST_KEY and len(self.places) < MOST_PLACES:
                        self._note(key, sum(map(len, parts[:index])) + index - 1)
                    if spellings is None:
                        spellings = set(_SPELLING.findall(plain))
                    if spellings and key in spellings and len(key) <= LONGEST_KEY:
                        position = sum(map(len, parts[:index])) + index - 1
                        if not self._member(data, plain, key, position):
                            if len(data) - position > LONGEST:
                                self.problem = scanner.TOO_LONG
                            self._rest = data[position:] + held
                            self._offset += position
                            self._depth = depth
                            self._state = state
                            self._in_string = False
                            return False
                        if self.problem is not None:
                            return False
                    state = _COLON_NEXT
                else:
                    self.problem = scanner.NOT_JSON
                    break
            elif byte in (_OPENING_BRACE, _OPENING_BRACKET):
                if depth > 1:
                    depth += 1
                elif depth == 1 and state == _VALUE:
                    depth = 2
                elif state == _OBJECT and byte == _OPENING_BRACE:
                    depth = 1
                    state = _FIRST_KEY
                else:
                    self.problem = scanner.NOT_JSON
                    break
            elif byte in (_CLOSING_BRACE, _CLOSING_BRACKET):
                if depth > 2:
                    depth -= 1
                elif depth == 2:
                    depth = 1
                    state = _NEXT
                elif depth == 1 and byte == _CLOSING_BRACE and state in (_FIRST_KEY, _VALUE, _NEXT):
                    depth = 0
                    state = _END
                else:
                    self.problem = scanner.NOT_JSON
                    break
            elif depth != 1:
                if depth == 0:
                    self.problem = scanner.NOT_JSON
                    break
            elif byte == _COMMA:
                if state not in (_VALUE, _NEXT):
                    self.problem = scanner.NOT_JSON
                    break
                state = _KEY
            elif state == _COLON_NEXT:
                state = _VALUE
            else:
                self.problem = scanner.NOT_JSON
                break
        self._depth = depth
        self._state = state
        if state == _END and self.problem is None and outside.rpartition(b"}")[2].strip(BLANK):
            self.problem = scanner.NOT_JSON
        return self.problem is None

    def _open_string(self, data: bytes, size: int, held: bytes) -> bool:
        """Note the string that a piece ends within, of which it has `size` bytes; return whether the piece is done.

        A string that may become the key is looked at again when there is more of it.
        """
        self._in_string = True
        if self._depth > 1:
            return True
        if self._state == _VALUE:
            self._state = _NEXT
        elif self._state in (_KEY, _FIRST_KEY):
            if size + len(held) <= LONGEST_KEY + 1:
                start = len(data) - size
                self._in_string = False
                self._rest = data[start:] + held
                self._offset += start
                return False
            self._state = _COLON_NEXT
        else:
            self.problem = scanner.NOT_JSON
        return True

    def _note(self, key: bytes, position: int) -> None:
        """Note the place of a key that begins at `position` where it is one of the others, in upper or lower case."""
        name = key.lower()
        if b"\\" in key or not key.isascii():
            text = _string(b'"%b"' % key)
            name = b"" if text is None else text.casefold().encode("utf-8", "surrogatepass")
        if name in self._others:
            self.places.append((name, self._offset + position + len(key) + 2))

    def _member(self, data: bytes, plain: bytes, key: bytes, position: int) -> bool:
        """Read the member whose key, a spelling of `model`, begins at `position`; return whether all of it is there."""
        begin = position + len(key) + 2
        colon = _COLON.match(plain, begin)
        if colon is None:
            if not plain[begin:].strip(BLANK):
                return False
            self.problem = scanner.NOT_JSON
            return True
        begin = colon.end()
        if begin == len(plain):
            return False
        value: bytes | None = None
        if plain[begin] == _QUOTE:
            end = plain.find(b'"', begin + 1) + 1
            if not end:
                return False
            value = data[begin:end]
        else:
            scalar = next(_SCALAR.finditer(plain, begin))
            end = scalar.end()
            if end == len(plain):
                return False
            if scalar.group() != b"null" and _is_key(key):
                self.problem = scanner.NOT_A_STRING
        if not _is_key(key):
            self.problem = scanner.LOOKALIKE
        elif self.seen:
            self.problem = scanner.DUPLICATE
        elif end - position > LONGEST:
            self.problem = scanner.TOO_LONG
        elif value is not None:
            name = _string(value)
            if name is None:
                self.problem = scanner.NOT_JSON
            else:
                self.found = FoundName(name, Notation.JSON, self._offset + begin, self._offset + end)
        self.seen = True
        return True


def _is_key(key: bytes) -> bool:
    """Return whether a spelling of the key is the key, not one that only some readers take for it."""
    return key == b"model" or _string(b'"%b"' % key) == KEY


def _string(token: bytes) -> str | None:
    """Return the value of a JSON string, lone surrogates included; None where it is none or not in UTF-8."""
    try:
        text = token.decode("utf-8", "surrogatepass")
        value: str = json.loads(text, strict=False) if "\\" in text else text[1:-1]
    except ValueError:
        return None
    return value
