"""Tokens (JWT, RFC 7519) by which callers are known: verified once, then remembered by their digests until they end."""

import json
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import (
    ExpiredTokenError,
    InvalidClaimError,
    JoseError,
    MissingClaimError,
    UnsupportedAlgorithmError,
)
from joserfc.jwt import JWTClaimsRegistry

from gateway import errors
from gateway.access.caller import Caller
from gateway.access.claims import ClaimPath, groups_in, name_in
from gateway.access.issuer import Issuer
from gateway.access.remembered import RememberedTokens
from gateway.access.signing_keys import SigningKeys

MOST_BYTES: Final = 16384
"""Bytes of the largest token."""
_LONGEST_SECONDS: Final = 3600
"""Seconds after which a token is verified again, however long it lives."""

_MALFORMED: Final = "The token in the request is no signed JWT that can be read."
_TOO_LARGE: Final = (
    f"The token in the request is too large: this gateway takes tokens of {MOST_BYTES >> 10} KiB at most."
)
_ALGORITHM: Final = "The token in the request is signed with an algorithm that this gateway does not take."
_SIGNATURE: Final = "The signature of the token in the request is not valid."
_KEY: Final = "The token in the request is signed with a key that the issuer does not publish, or not yet."
_EXPIRED: Final = "The token in the request has expired."
_EARLY: Final = "The token in the request is not valid yet."
_NAMELESS: Final = "The token in the request does not say who the caller is."
_OF_CLAIMS: Final = {
    "iss": "The token in the request is not of the issuer that this gateway trusts.",
    "aud": "The token in the request is not for this gateway: its audience is another one.",
    "exp": "The token in the request does not say in a number when it expires.",
    "nbf": _EARLY,
    "iat": _EARLY,
}
"""What is wrong with a token, by the claim that says so."""


@dataclass(frozen=True, slots=True)
class TokenRules:
    """What a token must have."""

    issuer: str
    audiences: Collection[str]
    """Audiences of which it must have one."""
    algorithms: Collection[str]
    """Algorithms that it may be signed with: all of them with a key pair."""
    name_claim: str
    groups_claim: str
    groups: frozenset[str]
    """Groups of which it must have one; empty where it needs none."""
    skew_seconds: int
    """Seconds by which the clock of the issuer may be wrong."""


class _Algorithms(jws.JWSRegistry):
    """Algorithms that are allowed. A registry of the library without any would allow some with a shared secret."""

    max_header_length = MOST_BYTES
    max_payload_length = MOST_BYTES
    max_signature_length = MOST_BYTES

    def get_alg(self, name: str) -> Any:
        """Return an algorithm by its name.

        Raises:
            UnsupportedAlgorithmError: It is not among those that are allowed.
        """
        if name not in (self.allowed or ()):
            raise UnsupportedAlgorithmError(name)
        return self.algorithms[name]  # without a warning: EdDSA has another name in newer RFCs


class Tokens:
    """Tokens of one issuer."""

    def __init__(self, rules: TokenRules, issuer: Issuer, *, clock: Callable[[], float] = time.time) -> None:
        """Verify tokens by rules and by the keys of their issuer; `clock` returns the seconds since 1970."""
        self._issuer = issuer
        self._clock = clock
        self._algorithms = _Algorithms(algorithms=rules.algorithms, strict_check_header=False)
        self._claims = JWTClaimsRegistry(
            now=lambda: int(clock()),
            leeway=rules.skew_seconds,
            iss={"essential": True, "value": rules.issuer},
            aud={"essential": True, "values": list(rules.audiences)},
            exp={"essential": True},
        )
        self._skew = rules.skew_seconds
        self._name, self._groups = ClaimPath(rules.name_claim), ClaimPath(rules.groups_claim)
        self._needed = rules.groups
        self._remembered = RememberedTokens()
        issuer.changed = self._remembered.clear

    def remembered(self, digest: bytes) -> Caller | None:
        """Return the caller of a token that was verified before, by its SHA-256 digest; None without one."""
        return self._remembered.find(digest, self._clock())

    async def caller(self, token: bytes, digest: bytes) -> Caller:
        """Return the caller of a token, which is verified for that.

        Raises:
            errors.TokenRefused: It is not valid; the message says why.
            errors.TokenForbidden: It is valid, and has none of the groups that are needed.
            errors.IssuerUnavailable: The keys of the issuer are not there yet.
        """
        signed = self._parsed(token)
        claims = self._checked(signed)
        self._verify(signed, await self._issuer.keys())
        name = name_in(self._name.find(claims))
        if name is None:
            raise errors.TokenRefused(_NAMELESS)
        groups = groups_in(self._groups.find(claims), spaced=self._groups.is_spaced)
        if self._needed and self._needed.isdisjoint(groups):
            raise errors.TokenForbidden
        caller = Caller(name, groups, groups_in(claims["aud"]), by_token=True)
        # The smaller one first: an `exp` may be too large for a float.
        self._remembered.add(digest, caller, float(min(claims["exp"], self._clock() + _LONGEST_SECONDS) + self._skew))
        return caller

    def _parsed(self, token: bytes) -> jws.CompactSignature:
        """Return the parts of a token.

        Raises:
            errors.TokenRefused: It is none that can be read, or it is signed in another way than it may be.
        """
        if len(token) > MOST_BYTES:
            raise errors.TokenRefused(_TOO_LARGE)
        try:
            signed = jws.extract_compact(token, registry=self._algorithms)
            header = signed.headers()
            self._algorithms.check_header(header)
            self._algorithms.get_alg(header["alg"])
            if "b64" in header:  # which no JWT has (RFC 7797 7)
                raise errors.TokenRefused(_MALFORMED)
        except UnsupportedAlgorithmError:
            raise errors.TokenRefused(_ALGORITHM) from None
        except (JoseError, ValueError, TypeError, AttributeError, RecursionError):
            raise errors.TokenRefused(_MALFORMED) from None
        return signed

    def _checked(self, signed: jws.CompactSignature) -> dict[str, Any]:
        """Return the claims of a token, whose signature is not verified yet.

        Raises:
            errors.TokenRefused: They are not those of a token that is valid now and here.
        """
        try:
            claims = json.loads(signed.payload)
        except (ValueError, RecursionError):
            claims = None
        if not isinstance(claims, dict):
            raise errors.TokenRefused(_MALFORMED)
        try:
            self._claims.validate(claims)
        except ExpiredTokenError:
            raise errors.TokenRefused(_EXPIRED) from None
        except MissingClaimError as exc:
            raise errors.TokenRefused(_OF_CLAIMS.get(exc.claim.partition(",")[0], _MALFORMED)) from None
        except InvalidClaimError as exc:
            raise errors.TokenRefused(_OF_CLAIMS.get(exc.claim, _MALFORMED)) from None
        return claims

    def _verify(self, signed: jws.CompactSignature, keys: SigningKeys) -> None:
        """Verify the signature of a token.

        Raises:
            errors.TokenRefused: It is not valid.
        """
        header = signed.headers()
        algorithm = self._algorithms.get_alg(header["alg"])
        candidates = keys.candidates(header.get("kid"), algorithm.key_type)
        if not candidates:
            self._issuer.miss()
            raise errors.TokenRefused(_KEY)
        for key in candidates:
            try:
                if jws.validate_compact(signed, key, registry=self._algorithms):
                    return
            except (JoseError, ValueError, TypeError):
                continue  # a key for another algorithm or on another curve
        self._issuer.miss()  # another key may have the same id now, or none may have one
        raise errors.TokenRefused(_SIGNATURE)
