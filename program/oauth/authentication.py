"""The request for a token, in each form in which endpoints take id and secret of a client."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import quote_plus, urlencode

from authlib.oauth2.auth import ClientAuth

from program.oauth.credentials import ClientCredentials, TokenAuth

_HEADERS: Final = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}


@dataclass(frozen=True, slots=True)
class TokenRequest:
    """A POST to a token endpoint."""

    url: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


def token_request(credentials: ClientCredentials, form: TokenAuth) -> TokenRequest:
    """Return the request for a token, with id and secret in the given form."""
    client_id, secret = credentials.client_id, credentials.client_secret
    method = "client_secret_post" if form is TokenAuth.POST else "client_secret_basic"
    if form is TokenAuth.BASIC:
        client_id, secret = encoded(client_id), encoded(secret)
    elif form is TokenAuth.BASIC_RAW:
        # authlib writes Latin-1 into the field. Servers read UTF-8 (RFC 7617 section 2.1).
        client_id, secret = client_id.encode().decode("latin-1"), secret.encode().decode("latin-1")
    # authlib's own clients change their base class with what is installed, so it only makes the request here.
    auth = ClientAuth(client_id, secret, method)
    url, headers, body = auth.prepare("POST", credentials.token_url, dict(_HEADERS), urlencode(_fields(credentials)))
    return TokenRequest(url, headers, str(body).encode())


def encoded(text: str) -> str:
    """Return a text form-encoded (RFC 6749 appendix B)."""
    return quote_plus(text)


def is_changed(credentials: ClientCredentials) -> bool:
    """Return whether form-encoding changes the id or the secret."""
    client_id, secret = credentials.client_id, credentials.client_secret
    return (encoded(client_id), encoded(secret)) != (client_id, secret)


def _fields(credentials: ClientCredentials) -> list[tuple[str, str]]:
    fields = [("grant_type", "client_credentials")]
    if credentials.scope:
        fields.append(("scope", credentials.scope))
    if credentials.audience:
        fields.append(("audience", credentials.audience))
    fields.extend(("resource", resource) for resource in credentials.resources)
    return [*fields, *credentials.parameters]
