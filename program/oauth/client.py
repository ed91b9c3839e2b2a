"""One token from one endpoint, with the client authenticated in the form that the endpoint takes."""

from collections.abc import Awaitable, Callable, Collection
from typing import Final

from program.oauth.authentication import TokenRequest, is_changed, token_request
from program.oauth.credentials import ClientCredentials, TokenAuth
from program.oauth.errors import TokenUnavailable
from program.oauth.responses import Token, TokenResponse, read_response

_ENDPOINTS: Final = 1024
"""Largest number of endpoints of which is remembered what form they take."""

Send = Callable[[TokenRequest], Awaitable[TokenResponse]]
"""Sends a request and returns the response, whatever its status; raises TokenUnavailable when there is none."""


class TokenClient:
    """Requests tokens, and remembers for each endpoint which form of authentication worked.

    HTTP Basic with id and secret form-encoded is the first. Many servers do not decode them, and for a secret with a
    plus sign, say, that is another secret: on `invalid_client` they get it as it is. Others take id and secret in the
    body alone.
    """

    def __init__(self, forms: Collection[TokenAuth] = tuple(TokenAuth)) -> None:
        """Remember nothing yet.

        Args:
            forms: forms that are tried, in this order, where credentials do not choose one.
        """
        self._allowed = forms
        self._worked: dict[str, TokenAuth] = {}

    async def fetch(self, credentials: ClientCredentials, send: Send) -> Token:
        """Return a new token.

        Raises:
            TokenUnavailable: there is none.
        """
        endpoint = credentials.endpoint
        refusal = TokenUnavailable("client_refused")
        for number, form in enumerate(self._forms(endpoint, credentials), 1):
            try:
                token = read_response(await send(token_request(credentials, form)))
            except TokenUnavailable as exc:
                exc.endpoint, exc.requests = endpoint, number
                if not (exc.wrong_client if number == 1 else exc.refused):
                    raise
                if number == 1:
                    refusal = exc  # it counts: the other forms may be unknown to the endpoint
                refusal.requests = number
            else:
                self._remember(endpoint, form, credentials)
                return token
        raise refusal

    def _forms(self, endpoint: str, credentials: ClientCredentials) -> list[TokenAuth]:
        """Return the forms to try, in order: what worked at the endpoint before is the first."""
        if credentials.token_auth is not None:
            return [credentials.token_auth]
        forms = [form for form in self._allowed if form is not TokenAuth.BASIC_RAW or _differs(credentials)]
        worked = self._worked.get(endpoint)
        if worked is TokenAuth.BASIC_RAW and worked not in forms:
            worked = TokenAuth.BASIC  # the same for these credentials
        return sorted(forms, key=lambda form: form is not worked)

    def _remember(self, endpoint: str, form: TokenAuth, credentials: ClientCredentials) -> None:
        worked = self._worked.get(endpoint)
        if credentials.token_auth is not None or worked is form:
            return
        if form is TokenAuth.BASIC and worked is TokenAuth.BASIC_RAW and not _differs(credentials):
            return  # it does not tell whether the endpoint decodes
        if worked is None and len(self._worked) >= _ENDPOINTS:
            del self._worked[next(iter(self._worked))]
        self._worked[endpoint] = form


def _differs(credentials: ClientCredentials) -> bool:
    """Return whether HTTP Basic without encoding is another field, and one that has one meaning: in it, the id ends at
    the first colon."""
    return is_changed(credentials) and ":" not in credentials.client_id
