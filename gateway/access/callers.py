"""Callers that the installation knows, by API keys and by tokens of an issuer."""

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from gateway import errors
from gateway.access.caller import Caller
from gateway.access.directory import KeyDirectory
from gateway.access.presented import presented
from gateway.http.exchange import Fields

if TYPE_CHECKING:
    from gateway.access.tokens import Tokens

_TOKEN_DOTS: Final = frozenset({2, 4})
"""Dots in a token that is signed, and in one that is encrypted."""
_TOKEN_NEEDED: Final = "This gateway needs a token, as Authorization: Bearer <token>."  # noqa: S105 - a sentence
_EITHER_NEEDED: Final = (
    "This gateway needs a token or an API key, as Authorization: Bearer <token or key>; a key may be in x-api-key or"
    " api-key, too."
)


class Callers:
    """Callers that are served: those with one of the API keys, and those with a token of the issuer."""

    __slots__ = ("_keys", "_tokens")

    def __init__(self, keys: KeyDirectory | None, tokens: "Tokens | None") -> None:
        """Know callers by keys, by tokens, or by both."""
        self._keys = keys
        self._tokens = tokens

    def known(self, fields: Fields) -> Caller | None:
        """Return the caller of a request that is known at once; None where a token has to be verified first.

        A key counts before tokens, and of several tokens the first that is valid, whichever of them are remembered.

        Raises:
            errors.Unauthorized: The request has no credential, or none that can be of use.
        """
        credentials = presented(fields)
        tokens = self._tokens
        first = b""
        for credential in credentials:
            digest = sha256(credential).digest()
            if self._keys is not None and (name := self._keys.find(digest)) is not None:
                return Caller(name)
            if tokens is not None and not first and credential.count(b".") in _TOKEN_DOTS:
                first = digest
        if first and tokens is not None:
            return tokens.remembered(first)
        if credentials:
            raise errors.CredentialUnknown
        raise errors.Unauthorized(self._needed())

    async def verified(self, fields: Fields) -> Caller:
        """Return the caller of a request by the first token in it that is valid.

        Raises:
            errors.Unauthorized: No token in it is valid; the message says what is wrong with the first one.
            errors.TokenForbidden: The token is valid, and has no group that is served.
            errors.IssuerUnavailable: The keys of the issuer are not there yet.
        """
        refusal: errors.GatewayError | None = None
        if self._tokens is not None:
            for credential in presented(fields):
                if credential.count(b".") in _TOKEN_DOTS:
                    digest = sha256(credential).digest()
                    if (caller := self._tokens.remembered(digest)) is not None:
                        return caller
                    try:
                        return await self._tokens.caller(credential, digest)
                    except errors.RequestError as exc:
                        refusal = refusal or exc
        raise refusal or errors.CredentialUnknown()

    def _needed(self) -> str | None:
        if self._tokens is None:
            return None
        return _TOKEN_NEEDED if self._keys is None else _EITHER_NEEDED
