"""API keys: which caller a credential belongs to. Only digests of the keys are in memory."""

import re
from collections.abc import Mapping
from hashlib import sha256
from hmac import compare_digest
from typing import Final

from gateway import errors
from gateway.access.presented import presented
from gateway.http.exchange import Fields

MOST_KEYS: Final = 4096
"""Largest number of keys; further ones are of no use."""
_NAME: Final = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_KEY: Final = re.compile(rb"[\x21-\x7e]{16,4096}")


class ApiKeys:
    """Digests of API keys, with the names of the callers that they belong to."""

    __slots__ = ("_callers", "problems")

    def __init__(self, entries: Mapping[str, bytes]) -> None:
        """Take the entries of a Secret.

        Args:
            entries: Keys by the name of their caller. An entry may have several, each on a line of its own, so that a
                key can be replaced without a moment in which neither is valid.
        """
        self._callers: dict[bytes, tuple[bytes, str]] = {}
        """Digests with the names of their callers, by digest."""
        self.problems: dict[str, str] = {}
        """Why entries are of no use, in whole or in part, by their names."""
        for name in sorted(entries):
            self._add(name, entries[name].split())

    def _add(self, name: str, keys: list[bytes]) -> None:
        if not _NAME.fullmatch(name):
            self.problems[name.encode(errors="backslashreplace").decode()[:253]] = (
                "its name is no key of a Secret: letters, digits, -, _ and ."
            )
            return
        if not keys:
            self.problems[name] = "it is empty"
        for key in keys:
            if not _KEY.fullmatch(key):
                self.problems[name] = "a key must have 16 to 4096 printable ASCII characters"
                continue
            digest = sha256(key).digest()
            present = self._callers.get(digest)
            if present is not None and present[1] != name:
                self.problems[name] = f"it has a key that {present[1]} has, too"
            elif len(self._callers) >= MOST_KEYS:
                self.problems[name] = f"there are more than {MOST_KEYS} keys"
            else:
                self._callers[digest] = (digest, name)

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._callers)

    def is_same(self, other: "ApiKeys") -> bool:
        """Return whether both have the same keys of the same callers, and the same problems."""
        return self._callers == other._callers and self.problems == other.problems

    def caller(self, fields: Fields) -> str:
        """Return the name of the caller by the credentials in the fields of a request.

        Raises:
            errors.Unauthorized: There is no credential, or none that is known.
        """
        credentials = presented(fields)
        for credential in credentials:
            name = self.find(sha256(credential).digest())
            if name is not None:
                return name
        if credentials:
            raise errors.CredentialUnknown
        raise errors.Unauthorized

    def find(self, digest: bytes) -> str | None:
        """Return the name of the caller whose key has this SHA-256 digest; None where no key has it."""
        known = self._callers.get(digest)
        return known[1] if known is not None and compare_digest(known[0], digest) else None
