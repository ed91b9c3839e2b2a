"""Names in paths: the places where APIs have a model's name as a segment of the path.

These are `/v1/models/{id}`, `/v1/engines/{id}/…` and `/openai/deployments/{id}/…` of OpenAI's API and Azure's,
`/v1beta/models/{id}:generateContent` and `/publishers/google/models/{id}:generateContent` of Google's, with whatever
version, and `/model/{id}/invoke` of Amazon's.
"""

import re
from collections.abc import Collection
from typing import Final
from urllib.parse import quote, unquote_to_bytes

from gateway import errors
from gateway.model_names.scanner import FoundName, Notation

_PLACE: Final = re.compile(rb"/(?:models?|engines|deployments)[/;]|%")
"""Regular expression for paths (in lower case) that may have a place for a name."""
PLACELESS: Final = frozenset(
    (
        b"/v1/chat/completions",
        b"/v1/completions",
        b"/v1/embeddings",
        b"/v1/messages",
        b"/v1/responses",
        b"/v1/rerank",
    )
)
"""Targets of nearly all requests, which have no place for a name."""
_SEGMENT: Final = re.compile(rb"[^/]+")
VERSION: Final = re.compile(rb"v[0-9]+[a-z0-9.]*")
"""Regular expression for the version of an API, as a word of a path."""
_OPERATIONS: Final = frozenset({b"invoke", b"invoke-with-response-stream", b"converse", b"converse-stream"})
"""Words that follow a name in Amazon's API."""
_DOT_SEGMENTS: Final = frozenset({".", ".."})
_MOST_SEGMENTS: Final = 8
"""Segments of the longest name, whose slashes need not be encoded."""


def in_target(target: bytes, names: Collection[str], prefix: bytes = b"") -> FoundName | None:
    """Return the name in the path of a target; None where the path has no place for one.

    Where slashes are not encoded, the longest of `names` is meant that the rest of the path begins with; without one it
    is the first segment. What follows a colon in the last segment is the method of Google's API, unless it belongs to
    a name.

    Args:
        target: Request target.
        names: Names that are known; another one is found, too.
        prefix: Path that a backend has in front of the target, which may be the beginning of a place.
    """
    path = target.partition(b"?")[0]
    if not _PLACE.search((prefix + path).lower()):
        return None
    segments = list(_SEGMENT.finditer(path))
    begin = _place(_SEGMENT.findall(prefix), [one.group() for one in segments])
    if begin is None:
        return None
    decoded = [unquote_to_bytes(one.group()).decode("utf-8", "replace") for one in segments[begin:][:_MOST_SEGMENTS]]
    start = segments[begin].start()
    for count in range(len(decoded), 0, -1):
        last = segments[begin + count - 1]
        name = "/".join(decoded[:count])
        if name in names:
            return FoundName(name, Notation.PATH, start, last.end())
        if begin + count == len(segments) and b":" in last.group():
            method = last.group().rpartition(b":")[2]
            name = name[: len(name) - len(unquote_to_bytes(method).decode("utf-8", "replace")) - 1]
            if name in names:
                return FoundName(name, Notation.PATH, start, last.end() - len(method) - 1)
    first = segments[begin].group()
    other = first.rpartition(b":")[0] if begin + 1 == len(segments) and b":" in first else first
    return FoundName(unquote_to_bytes(other).decode("utf-8", "replace"), Notation.PATH, start, start + len(other))


def renamed(target: bytes, found: FoundName, name: str) -> bytes:
    """Return a target with `name` in the place of the one in its path; slashes are encoded unless they were not.

    Raises:
        errors.ModelNotFound: The name has dot segments, by which a server would take the path for another one.
    """
    if not _DOT_SEGMENTS.isdisjoint(name.split("/")):
        raise errors.ModelNotFound
    safe = "/" if b"/" in target[found.start : found.end] else ""
    return target[: found.start] + quote(name, safe=safe).encode("ascii") + target[found.end :]


def _place(prefix: list[bytes], segments: list[bytes]) -> int | None:
    """Return the index of the first segment of a name, none of which is in the prefix; None where there is no place."""
    words = [word(one) for one in (*prefix, *segments)]
    for index in range(len(prefix), len(words)):
        if _is_name(words, index):
            return index - len(prefix)
    return None


def words_of(path: bytes) -> list[bytes]:
    """Return the segments of a path as servers compare them."""
    return [word(one) for one in _SEGMENT.findall(path)]


def word(segment: bytes) -> bytes:
    """Return a segment as servers compare it: they decode a path first, and some ignore case and parameters."""
    return unquote_to_bytes(segment).partition(b";")[0].lower()


def _is_name(words: list[bytes], index: int) -> bool:
    """Return whether the segment with this index is a name, by what stands around it."""
    before = words[index - 1] if index else b""
    further = words[index - 2] if index > 1 else b""
    if before in (b"models", b"engines") and VERSION.fullmatch(further):
        return True
    if before == b"models":
        return index > 2 and words[index - 3] == b"publishers"
    if before == b"deployments":
        return further == b"openai"
    return before == b"model" and not _OPERATIONS.isdisjoint(words[index + 1 : index + 1 + _MOST_SEGMENTS])
