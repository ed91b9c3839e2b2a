"""Claims of a token: who the caller is, and which groups it belongs to.

What a token says goes into the log, metrics and rules, so it is bounded, and characters that are not seen are escaped.
No two callers get the same name by that.
"""

import re
from collections.abc import Mapping
from hashlib import sha256
from sys import intern
from typing import Final

NAME_PREFIX: Final = "oidc:"
"""Beginning of the names of callers that are known by a token. No name of an API key has a colon."""
LONGEST_NAME: Final = 253
"""Characters of the longest name of a caller, and of the longest group."""
MOST_GROUPS: Final = 256
"""Largest number of groups of one caller; further ones do not count."""
_CUT: Final = 200
"""Characters that are left of a longer name, in front of its digest."""
_SPACED: Final = frozenset({"scope", "scp"})
"""Claims whose text is a list with spaces between its items (RFC 8693 4.2)."""
_PART: Final = re.compile(r"(?:[^.\\]|\\[.\\])+")
_ESCAPE: Final = re.compile(r"\\(.)")

Claims = Mapping[str, object]


class ClaimPath:
    """Path to a claim: its name, or the names of the objects around it with dots between, as `realm_access.roles`."""

    def __init__(self, text: str) -> None:
        r"""Take a path. A dot in a name is written as `\.`, a backslash as `\\`."""
        self._names = tuple(_ESCAPE.sub(r"\1", part) for part in _PART.findall(text))
        self.is_spaced = self._names[-1:] != () and self._names[-1] in _SPACED
        """Whether the claim is a list that is written as a text."""

    def find(self, claims: Claims) -> object:
        """Return the value of the claim; None where there is none."""
        found: object = claims
        for name in self._names:
            if not isinstance(found, Mapping):
                return None
            found = found.get(name)
        return found


def name_in(value: object) -> str | None:
    """Return the name of the caller by the value of its claim; None where that is no text, or an empty one."""
    if not isinstance(value, str) or not value:
        return None
    name = NAME_PREFIX + _escaped(value)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[:_CUT]}~{sha256(value.encode(errors='surrogatepass')).hexdigest()[:32]}"


def groups_in(value: object, *, spaced: bool = False) -> frozenset[str]:
    """Return the groups by the value of their claim: a list of texts, or one text.

    Args:
        value: Value of the claim; whatever is no text in it does not count.
        spaced: Whether a text is a list with spaces between its items.
    """
    items: list[object]
    if isinstance(value, str):
        items = list(value.split()) if spaced else [value]
    elif isinstance(value, list):
        items = value
    else:
        items = []
    found = [one for one in items if isinstance(one, str) and 0 < len(one) <= LONGEST_NAME]
    return frozenset(map(intern, found[:MOST_GROUPS]))  # callers share them


def _escaped(text: str) -> str:
    """Return a text in which backslashes, and characters that are not seen, are written as escapes."""
    if text.isprintable() and "\\" not in text:
        return text
    return "".join(one if one.isprintable() and one != "\\" else _escape(one) for one in text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
