"""Tokens of the platform: fetched once for all who wait, renewed beside the calls, replaced when they are refused."""

import asyncio
from typing import Final

from hooks.platform.beamlit.credentials import Account, Accounts
from hooks.platform.beamlit.errors import PlatformError, Unauthorized, Unreachable
from hooks.platform.beamlit.http import Exchange
from program.oauth.authentication import TokenRequest
from program.oauth.cache import Pacing, TokenCache
from program.oauth.client import TokenClient
from program.oauth.credentials import ClientCredentials, TokenAuth
from program.oauth.errors import TokenUnavailable
from program.oauth.responses import Token, TokenResponse

TOKEN_SECONDS: Final = 5.0
"""Seconds that the platform may take for a token. A fetch goes on when those who wait for it give up."""
TOKEN_PAUSE: Final = 5.0
"""Seconds between two fetches after the platform refused the account."""
_PATH: Final = "/oauth/token"
# That the platform does not respond at all is the circuit's business.
_PACING: Final = Pacing(wait=TOKEN_SECONDS, refused=TOKEN_PAUSE, failed=0.0, refresh=0.0)


class Tokens:
    """The token of the account."""

    def __init__(self, url: str, accounts: Accounts, exchange: Exchange) -> None:
        """Hold no token yet.

        Args:
            url: base URL of the API.
            accounts: says whose token it is.
            exchange: sends requests to the platform.
        """
        self._url = url
        self._accounts = accounts
        self._exchange = exchange
        self._account: Account | None = None
        # The API takes HTTP Basic; whether it decodes id and secret is found out.
        self._client = TokenClient((TokenAuth.BASIC, TokenAuth.BASIC_RAW))
        self._cache = TokenCache(self._fetch, _PACING, lambda: {"kind": "platform"})

    @property
    def secrets(self) -> tuple[str, ...]:
        """Texts that must not be repeated."""
        account, value = self._account, self._cache.value.decode().removeprefix("Bearer ")
        return (*(account.secrets if account is not None else ()), *((value,) if value else ()))

    async def close(self) -> None:
        """Cancel what is being fetched."""
        await self._cache.close()

    async def authorization(self, refused: bytes = b"") -> bytes:
        """Return the Authorization value for the account as it is now.

        Args:
            refused: a value that the platform did not accept, and that is to be replaced.

        Raises:
            PlatformError: there is none.
        """
        account = self._accounts.current()
        if self._account != account:
            self._account = account
            self._cache.forget()
        try:
            return await self._cache.authorization(refused)
        except TokenUnavailable as exc:
            raise _platform_error(exc) from None

    async def _fetch(self) -> Token:
        account = self._account or self._accounts.current()
        credentials = ClientCredentials(account.client_id, account.client_secret, f"{self._url}{_PATH}")
        try:
            async with asyncio.timeout(TOKEN_SECONDS):
                return await self._client.fetch(credentials, self._send)
        except TimeoutError:
            raise TokenUnavailable("timed_out") from None

    async def _send(self, request: TokenRequest) -> TokenResponse:
        try:
            response = await self._exchange.send("token", "POST", _PATH, request.headers, request.body)
        except Unreachable as exc:
            raise TokenUnavailable("unreachable", str(exc)) from None
        return TokenResponse(response.status, response.body, response.retry_after)


def _platform_error(exc: TokenUnavailable) -> PlatformError:
    """Return what a missing token says about the platform."""
    if exc.refused:
        return Unauthorized("The platform gives no token for the credentials of hooks: see that they are valid.")
    if exc.status == 200:
        return Unreachable("The platform responds with something that is no token.")
    if exc.status is not None:
        return Unreachable("The platform gives no token.", retry_after=exc.retry_after)
    if exc.reason == "unreachable":
        return Unreachable(exc.detail)
    return Unreachable("The platform gives no token in time.")
