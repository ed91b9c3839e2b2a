"""Public keys of an issuer, in the form of a JWK Set (RFC 7517)."""

from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from cryptography.exceptions import UnsupportedAlgorithm
from joserfc.errors import JoseError
from joserfc.jwk import Key
from joserfc.jwk import import_key as import_jwk

MOST_KEYS: Final = 128
"""Largest number of keys that are used; further ones are of no use."""
MOST_TRIES: Final = 8
"""Largest number of keys that are tried for a token."""
_LEAST_BITS: Final = 2048
_MOST_BITS: Final = 8192
"""Bits of the smallest and the largest RSA key: a larger one would make each signature costly."""
_MOST_EXPONENT: Final = 6
"""Characters of the largest exponent of an RSA key, for the same reason."""
_MEMBERS: Final[Mapping[str, tuple[str, ...]]] = {"RSA": ("n", "e"), "EC": ("crv", "x", "y"), "OKP": ("crv", "x")}
"""Public members of a key by its type. Types of shared secrets are not among them."""


class SigningKeys:
    """Keys by which signatures of an issuer are verified."""

    __slots__ = ("_keys", "_members", "unusable")

    def __init__(self, content: bytes) -> None:
        """Take the keys of a JWK Set. Keys for other purposes, and of other types, are left out.

        Raises:
            ValueError: It is no JWK Set, or has no key that can be used; the message is a phrase.
        """
        try:
            document = orjson.loads(content)
        except orjson.JSONDecodeError:
            raise ValueError("is not JSON") from None
        entries = document.get("keys") if isinstance(document, dict) else None
        if not isinstance(entries, list):
            raise ValueError("is no JWK Set: it has no list of keys")
        self._keys: list[tuple[str | None, Key]] = []
        self._members: list[Mapping[str, str]] = []
        """Members of all keys, to tell one set from another."""
        self.unusable = 0
        """Number of keys for signatures that cannot be used."""
        for entry in entries:
            if not isinstance(entry, dict) or not _is_for_signatures(entry):
                continue
            members = _public(entry)
            key = None if members is None or len(self._keys) >= MOST_KEYS else _imported(members)
            if members is None or key is None:
                self.unusable += 1
                continue
            kid = entry.get("kid")
            self._keys.append((kid if isinstance(kid, str) else None, key))
            self._members.append({**members, "kid": str(kid)})
        if not self._keys:
            raise ValueError("has no key by which a signature can be verified")

    def __len__(self) -> int:
        """Return the number of keys."""
        return len(self._keys)

    def is_same(self, other: "SigningKeys") -> bool:
        """Return whether both have the same keys."""
        return self._members == other._members

    def candidates(self, kid: str | None, key_type: str) -> Sequence[Key]:
        """Return the keys that may have signed a token, which are few where they are not found by their id.

        A key without an id may be the one that a token names, so such keys are tried where no key has the id.

        Args:
            kid: Id of the key that the token names; None where it names none.
            key_type: Type of key that the token's algorithm needs.
        """
        of_type = [(known, key) for known, key in self._keys if key.key_type == key_type]
        if kid is None:
            return [key for _, key in of_type][:MOST_TRIES]
        named = [key for known, key in of_type if known == kid]
        return (named or [key for known, key in of_type if known is None])[:MOST_TRIES]


def _is_for_signatures(entry: Mapping[str, Any]) -> bool:
    operations = entry.get("key_ops")
    if isinstance(operations, list) and "verify" not in operations:
        return False
    kind = entry.get("kty")
    return isinstance(kind, str) and kind in _MEMBERS and entry.get("use") in (None, "sig")


def _public(entry: Mapping[str, Any]) -> dict[str, str] | None:
    """Return the members of a key that are needed to verify a signature; None where one is missing."""
    members = {"kty": entry["kty"]}
    for name in _MEMBERS[entry["kty"]]:
        value = entry.get(name)
        if not isinstance(value, str) or not value.isascii():
            return None
        members[name] = value
    algorithm = entry.get("alg")
    if isinstance(algorithm, str):
        members["alg"] = algorithm
    return members


def _imported(members: Mapping[str, str]) -> Key | None:
    """Return a key by its members; None where they are no key that can be used."""
    try:
        if members["kty"] == "RSA" and not _is_sound(members["n"], members["e"]):
            return None
        return import_jwk(dict(members))
    except (JoseError, UnsupportedAlgorithm, ValueError, TypeError, KeyError):
        return None


def _is_sound(modulus: str, exponent: str) -> bool:
    """Return whether an RSA key is neither too weak nor too costly; raise ValueError where it is none."""
    number = urlsafe_b64decode(modulus + "=" * (-len(modulus) % 4))
    return _LEAST_BITS <= int.from_bytes(number, "big").bit_length() <= _MOST_BITS and len(exponent) <= _MOST_EXPONENT
