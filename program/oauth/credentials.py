"""What a client shows to a token endpoint, and what it asks for."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final
from urllib.parse import urlsplit

from program.oauth.errors import TokenUnavailable
from program.problems import Mistake

_NAME: Final = re.compile(r"[A-Za-z0-9._~:\[\]-]{1,128}")
_OWN_KEYS: Final = frozenset({"scope", "audience", "resource"})
_FIXED: Final = frozenset({"grant_type", "client_id", "client_secret"})
_PARAMETERS: Final = 32
"""Largest number of further parameters."""
_VALUE_CHARACTERS: Final = 4096


class TokenAuth(StrEnum):
    """How a client shows its id and its secret to a token endpoint (RFC 6749 section 2.3.1).

    In this order they are tried where none is chosen.
    """

    BASIC = "client_secret_basic"
    """HTTP Basic, with id and secret form-encoded first, as the RFC says."""
    BASIC_RAW = "client_secret_basic_raw"
    """HTTP Basic with id and secret as they are, for servers that do not decode them."""
    POST = "client_secret_post"
    """Two fields of the form in the body."""


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """Credentials of one client at one token endpoint."""

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str
    scope: str | None = None
    audience: str | None = None
    """Service that the token is for, as Auth0 and others ask for it."""
    resources: tuple[str, ...] = ()
    """URIs of the services that the token is for (RFC 8707)."""
    parameters: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    """Further fields of the request, name and value."""
    token_auth: TokenAuth | None = None
    """The only form of authentication to use; None tries them."""
    authorities: str | None = field(default=None, repr=False)
    """Certificates in PEM that may have issued the endpoint's, instead of those of the system."""
    trusts_system: bool = False
    """Whether the authorities of the system are trusted beside `authorities`."""

    @property
    def endpoint(self) -> str:
        """URL of the token endpoint without its query, for log lines and as the endpoint's identity.

        Raises:
            TokenUnavailable: the URL is not absolute, not http or https, or it has a user or a fragment.
        """
        url = self.token_url
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise TokenUnavailable("token_url_invalid") from None
        clean = parts.geturl() == url and url.isascii() and url.isprintable() and " " not in url
        if not clean or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
            raise TokenUnavailable("token_url_invalid")
        if "@" in parts.netloc or parts.fragment:
            raise TokenUnavailable("token_url_invalid")
        return f"{parts.scheme}://{parts.netloc.lower()}{parts.path}"


def token_auth(text: str) -> TokenAuth:
    """Return the form of authentication of that name.

    Raises:
        Mistake: there is none of that name; the message says which there are.
    """
    try:
        return TokenAuth(text.strip())
    except ValueError:
        *names, last = TokenAuth
        raise Mistake(f"must be {', '.join(names)} or {last}") from None


def parameters(fields: Mapping[str, str] | Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Return further parameters of a token request after checking them.

    Raises:
        Mistake: one cannot be sent, or is set elsewhere. The message repeats names and never values.
    """
    pairs = tuple(fields.items() if isinstance(fields, Mapping) else fields)
    if len(pairs) > _PARAMETERS:
        raise Mistake(f"must have {_PARAMETERS} entries at most")
    for name, value in pairs:
        if name in _OWN_KEYS:
            raise Mistake(f"must not have {name}: it has a key of its own")
        if name in _FIXED:
            raise Mistake(f"must not have {name}: the gateway sets it")
        if not _NAME.fullmatch(name):
            raise Mistake("must have names of letters, digits and - . _ ~ : [ ]")
        if len(value) > _VALUE_CHARACTERS:
            raise Mistake(f"must have values of {_VALUE_CHARACTERS} characters at most, and {name} has a longer one")
    return pairs


def parameter_lines(text: str) -> tuple[tuple[str, str], ...]:
    """Return the parameters in a text that has one `name=value` on each line.

    Raises:
        Mistake: a line has another form, or a parameter cannot be sent.
    """
    pairs = []
    for line in filter(None, map(str.strip, text.splitlines())):
        name, equals, value = line.partition("=")
        if not equals:
            raise Mistake("must be name=value, one on each line")
        pairs.append((name.strip(), value.strip()))
    return parameters(pairs)
