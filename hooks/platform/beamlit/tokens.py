"""Tokens of the platform: bought once for all who wait, renewed beside the calls, replaced when they are refused."""

import asyncio
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import urlencode

from authlib.oauth2.auth import ClientAuth

from hooks.platform.beamlit.credentials import Account, Accounts
from hooks.platform.beamlit.errors import PlatformError, Unauthorized, Unreachable
from hooks.platform.beamlit.http import Exchange

TOKEN_SECONDS: Final = 5.0
"""For a token, which goes on to be bought when those who wait for it give up."""
TOKEN_PAUSE: Final = 5.0
"""Seconds between two attempts to buy one, after a failure."""
_DEFAULT_LIFE: Final = 60.0
"""Seconds of a token that does not say how long it lives."""
_LONGEST_LIFE: Final = 86400.0
_RENEW_AT: Final = 0.8
"""Part of a token's life after which it is renewed, while calls go on with it."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_PATH: Final = "/oauth/token"


@dataclass(slots=True)
class _Token:
    account: Account | None = None
    """Whose it is."""
    value: str = field(default="", repr=False)
    renew_at: float = 0.0
    ends_at: float = 0.0
    error: PlatformError | None = None
    """Why there is none."""
    failed_at: float = float("-inf")
    fetching: "asyncio.Task[None] | None" = None


class Tokens:
    """The token of the account."""

    def __init__(self, url: str, accounts: Accounts, exchange: Exchange) -> None:
        """
        Args:
            url: base of the API.
            accounts: whose token it is.
            exchange: with the platform.
        """
        self._url = url
        self._accounts = accounts
        self._exchange = exchange
        self._token = _Token()
        self._buying: set[asyncio.Task[None]] = set()

    @property
    def secrets(self) -> tuple[str, ...]:
        """What must not be repeated."""
        account, value = self._token.account, self._token.value
        return (*(account.secrets if account is not None else ()), *((value,) if value else ()))

    def refuse(self, value: str) -> None:
        """The platform refuses it: it is used no more."""
        if self._token.value == value:
            self._token.ends_at = 0.0

    async def close(self) -> None:
        """End what is being bought."""
        buying = list(self._buying)
        for task in buying:
            task.cancel()
        await asyncio.gather(*buying, return_exceptions=True)

    async def current(self) -> str:
        """A token for the account as it is now.

        Raises:
            PlatformError: there is none.
        """
        account, now = self._accounts.current(), time.monotonic()
        if self._token.account != account:
            self._token = _Token(account)
        token = self._token
        if now >= token.ends_at:
            # That nobody answers is the circuit's business.
            refused = isinstance(token.error, Unauthorized) and now - token.failed_at < TOKEN_PAUSE
            if token.fetching is None and token.error is not None and refused:
                raise _again(token.error)
            await asyncio.shield(token.fetching or self._fetch())
            if token.error is not None:
                raise _again(token.error)
        elif now >= token.renew_at and token.fetching is None and now - token.failed_at >= TOKEN_PAUSE:
            self._fetch()
        return token.value

    def _fetch(self) -> "asyncio.Task[None]":
        token = self._token
        token.fetching = asyncio.create_task(self._bought(token))
        self._buying.add(token.fetching)
        token.fetching.add_done_callback(self._buying.discard)
        return token.fetching

    async def _bought(self, token: _Token) -> None:
        """Buy a token. A failure leaves the present one in place until its own end."""
        try:
            async with asyncio.timeout(TOKEN_SECONDS):
                value, life = await self._buy(token.account or self._accounts.current())
        except TimeoutError:
            token.error, token.failed_at = Unreachable("The platform gives no token in time."), time.monotonic()
        except PlatformError as exc:
            token.error, token.failed_at = exc, time.monotonic()
        else:
            now = time.monotonic()
            token.value, token.error = value, None
            token.ends_at = now + life
            token.renew_at = now + life * (_RENEW_AT - 0.05 * random.random())  # noqa: S311 - spreads load
        finally:
            token.fetching = None

    async def _buy(self, account: Account) -> tuple[str, float]:
        """A token and its life in seconds (RFC 6749 sections 4.4 and 5.1)."""
        auth = ClientAuth(account.client_id, account.client_secret, "client_secret_basic")
        _, headers, body = auth.prepare(
            "POST",
            f"{self._url}{_PATH}",
            {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
            urlencode({"grant_type": "client_credentials"}),
        )
        answer = await self._exchange.ask("token", "POST", _PATH, headers, str(body).encode())
        if answer.status in (400, 401, 403):
            raise Unauthorized("The platform gives no token for the credentials of hooks: see that they are valid.")
        if answer.status != 200:
            raise Unreachable("The platform gives no token.", retry_after=answer.retry_after)
        found = answer.content
        said = found if isinstance(found, dict) else {}
        value = said.get("access_token")
        if not isinstance(value, str) or not _TOKEN.fullmatch(value):
            raise Unreachable("The platform answers with something that is no token.")
        return value, _life(said)


def _again(error: PlatformError) -> PlatformError:
    """The same once more, for each who waits one of his own."""
    return type(error)(str(error), retry_after=error.retry_after)


def _life(found: Mapping[str, Any]) -> float:
    given = found.get("expires_in")
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return _DEFAULT_LIFE
    try:
        life = float(given)
    except (ValueError, OverflowError):
        return _DEFAULT_LIFE
    return min(life, _LONGEST_LIFE) if life > 0 else _DEFAULT_LIFE
