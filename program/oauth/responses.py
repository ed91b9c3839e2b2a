"""What a token endpoint responds: a token (RFC 6749 section 5.1) or an error (section 5.2)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson

from program.oauth.errors import TokenUnavailable

RESPONSE_BYTES: Final = 65536
"""Largest response of a token endpoint that is read."""
SHORT_LIFE: Final = 60.0
"""Seconds for which a token counts whose endpoint does not say how long it lives, or not in a positive number."""
_LONGEST_LIFE: Final = 86400.0
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_TYPES: Final = frozenset({"bearer", "bearertoken"})
"""Token types that are sent as Bearer, in lower case. Some vendors write BearerToken."""

CODES: Final = frozenset(
    {
        *("invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type"),
        *("invalid_scope", "invalid_target", "access_denied", "server_error", "temporarily_unavailable"),
        *("invalid_resource", "invalid_token", "insufficient_scope", "unsupported_token_type", "unauthorized"),
        *("not_found", "rate_limit_exceeded", "slow_down", "too_many_requests", "use_dpop_nonce"),
        *("interaction_required", "consent_required", "login_required", "mfa_required"),
    }
)
"""OAuth error codes that are repeated in log lines: those that are registered, and some of vendors. Any other text may
be what the endpoint was sent."""


@dataclass(frozen=True, slots=True)
class TokenResponse:
    """Status and whole body of a token endpoint's response."""

    status: int
    body: bytes = field(repr=False)
    retry_after: float | None = None
    """Seconds that the endpoint asks to wait (RFC 9110 section 10.2.3); None when it does not ask."""


@dataclass(frozen=True, slots=True)
class Token:
    """A bearer token (RFC 6750)."""

    value: str = field(repr=False)
    life: float
    """Seconds for which it counts."""


def read_response(response: TokenResponse) -> Token:
    """Return the token in a response.

    Raises:
        TokenUnavailable: there is none that can be sent in a header field.
    """
    try:
        content = orjson.loads(response.body)
    except orjson.JSONDecodeError:
        content = None
    code = error_code(content)
    try:
        if response.status != 200:
            raise TokenUnavailable(f"token_status_{response.status}")
        if not isinstance(content, dict):
            raise TokenUnavailable("token_answer_invalid")
        return _token(content)
    except TokenUnavailable as exc:
        exc.status, exc.code, exc.retry_after = response.status, code, response.retry_after
        raise


def error_code(content: object) -> str:
    """Return the OAuth error code in the content of a response; `other` for an unknown one, empty without one."""
    code = content.get("error") if isinstance(content, Mapping) else None
    if not isinstance(code, str) or not code:
        return ""
    return code if code in CODES else "other"


def _token(content: Mapping[str, object]) -> Token:
    value = content.get("access_token")
    if not isinstance(value, str) or not _TOKEN.fullmatch(value):
        raise TokenUnavailable("token_invalid")
    if str(content.get("token_type", "bearer")).lower() not in _TYPES:
        raise TokenUnavailable("token_type_unknown")
    return Token(value, _life(content.get("expires_in")))


def _life(expires_in: object) -> float:
    """Return the seconds that a token lives. An `expires_in` that is no positive number counts as none."""
    if isinstance(expires_in, bool) or not isinstance(expires_in, int | float | str):
        return SHORT_LIFE
    try:
        life = float(expires_in)
    except (ValueError, OverflowError):
        return SHORT_LIFE
    return min(life, _LONGEST_LIFE) if life > 0 else SHORT_LIFE
