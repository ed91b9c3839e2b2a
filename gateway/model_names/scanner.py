"""Scanner of a request's body: takes the body in pieces and knows at its end which model the body names."""

from enum import Enum
from typing import Final, NamedTuple

LONGEST: Final = 4096
"""Bytes that the key and its value may have together."""

DUPLICATE: Final = 'The body has more than one value for "model".'
LOOKALIKE: Final = 'The body has a name that some servers read as "model". Write "model".'
NOT_A_STRING: Final = 'The value of "model" in the body must be a string.'
TOO_LONG: Final = 'The value of "model" in the body is too long.'
NOT_UTF_8: Final = "The body must be in UTF-8."
NOT_JSON: Final = "The body must be valid JSON, and nothing else."
NOT_AN_OBJECT: Final = "The body must be a JSON object."
NOT_A_FORM: Final = "The body must be valid multipart/form-data with CRLF line ends, and nothing before or after it."
PART_LENGTH: Final = "A part of the form has a Content-Length that is not its size; leave the field out."
NOT_A_FIELD: Final = 'The field "model" of the form must be plain text in UTF-8.'
TOO_MANY_NAMES: Final = "The body has too many names at its top level."
TOO_MANY_FIELDS: Final = "The form has too many fields."
SEVERAL_STREAMS: Final = "A compressed form must be one stream, because some servers read only the first."
TWO_TEXTS: Final = "The compressed body is also JSON as it is sent; compress it in another way, or not."
ENCODED_WORDS: Final = "The fields of the form must have their names as they are, not as encoded words."
SEPARATORS: Final = 'The value of "model" must not depend on whether ; separates fields.'


class Notation(Enum):
    """Notation in which a name is written."""

    JSON = "json"
    FORM = "form"
    """application/x-www-form-urlencoded, and the query of a target."""
    MULTIPART = "multipart"
    PATH = "path"
    """Segment of the path of a target."""


class FoundName(NamedTuple):
    """Name of a model in a body or a target."""

    name: str
    notation: Notation
    start: int
    """Position of the name as it is written; negative where it is looked for when it is needed."""
    end: int
    guard: bytes = b""
    """Bytes that the name must not contain, because they would end it."""
    between: bytes = b""
    """Bytes between the number of the name's bytes, with which its place begins then, and the name; empty without one.
    Parts of forms may have such a number, their Content-Length."""


class NameScanner:
    """Abstract base of scanners: what they have found so far."""

    def __init__(self) -> None:
        self.found: FoundName | None = None
        self.seen = False
        """Whether there was a key `model`, also with a value that names nothing."""
        self.complete = False
        """Whether all of the notation was there, even if something follows it."""
        self.problem: str | None = None
        """Sentence that says why the name is not clear; None while it is."""

    def feed(self, data: bytes) -> None:
        """Take the next piece of the body."""
        raise NotImplementedError

    def finish(self) -> None:
        """Take the end of the body."""
        raise NotImplementedError
