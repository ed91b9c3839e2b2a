"""A small OAuth 2.0 token endpoint: client credentials for bearer tokens (RFC 6749 section 4.4, RFC 6750)."""

from __future__ import annotations

import base64
import binascii
import hmac
import secrets
import time
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qs, unquote_plus

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_KEPT: Final = 1000
"""Largest number of tokens that are valid at the same time. Beyond it the oldest ends."""


class OAuthError(Exception):
    """A refused token request (RFC 6749 section 5.2)."""

    def __init__(self, code: str, message: str, status: int = 400) -> None:
        super().__init__(message)
        self.code = code
        self.status = status


class TokenIssuer:
    """An issuer of tokens for one client."""

    def __init__(
        self, client_id: str, client_secret: str, *, life_seconds: float, now: Callable[[], float] = time.monotonic
    ) -> None:
        """Create an issuer. `life_seconds` is the lifetime of a token."""
        self._client = (client_id.encode(), client_secret.encode())
        self.life_seconds = life_seconds
        self._now = now
        self._ends: dict[str, float] = {}
        self.issued = 0
        """Number of tokens issued since the start."""

    def issue(self, body: bytes, authorization: str | None) -> dict[str, object]:
        """Return the response to a token request: a form, with the client's id and secret in it or as basic
        authentication.

        Raises:
            OAuthError: it is refused.
        """
        form = {name: values[-1] for name, values in parse_qs(body.decode("utf-8", "replace")).items()}
        self._authenticate(form, authorization)
        if form.get("grant_type") != "client_credentials":
            raise OAuthError("unsupported_grant_type", "grant_type must be client_credentials.")
        now = self._now()
        self._ends = {token: end for token, end in self._ends.items() if end > now}
        if len(self._ends) >= _KEPT:
            del self._ends[next(iter(self._ends))]
        token = secrets.token_urlsafe(24)
        self._ends[token] = now + self.life_seconds
        self.issued += 1
        return {"access_token": token, "token_type": "Bearer", "expires_in": max(1, int(self.life_seconds))}

    def accepts(self, authorization: str | None) -> bool:
        """Return whether a value of the field Authorization carries a token that is valid now."""
        scheme, _, token = (authorization or "").partition(" ")
        return scheme.lower() == "bearer" and self._ends.get(token.strip(), 0.0) > self._now()

    def revoke(self) -> None:
        """Revoke all tokens."""
        self._ends.clear()

    def _authenticate(self, form: Mapping[str, str], authorization: str | None) -> None:
        if authorization is not None and "client_secret" in form:
            raise OAuthError("invalid_request", "Authenticate in one way: basic authentication or the form.")
        if authorization is not None:
            # RFC 6749 section 2.3.1 has both parts form-encoded; many clients send them as they are.
            given = _basic(authorization)
            candidates = [given, tuple(unquote_plus(part) for part in given)]
        else:
            candidates = [(form.get("client_id", ""), form.get("client_secret", ""))]
        matches = [
            hmac.compare_digest(candidate[0].encode(), self._client[0])
            & hmac.compare_digest(candidate[1].encode(), self._client[1])
            for candidate in candidates
        ]
        if not any(matches):
            raise OAuthError("invalid_client", "Client id and secret are not those of this server.", 401)


def _basic(authorization: str) -> tuple[str, str]:
    scheme, _, value = authorization.partition(" ")
    try:
        decoded = base64.b64decode(value.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        decoded = ""
    if scheme.lower() != "basic":
        decoded = ""
    user, _, password = decoded.partition(":")
    return user, password
