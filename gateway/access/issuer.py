"""The keys of an issuer of tokens: loaded in the background, never by a request.

While the issuer cannot be asked, or responds with what is of no use, the keys that were loaded last stay in force.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

from gateway import errors
from gateway.access.signing_keys import SigningKeys

REFRESH_SECONDS: Final = 300.0
"""Seconds after which keys are loaded again."""
PAUSE_SECONDS: Final = 10.0
"""Seconds between two loads at least, however many tokens name a key that is not known."""
RETRY_SECONDS: Final = 1.0
"""Seconds after the first load that failed; each further one doubles them, up to `PAUSE_SECONDS`."""
WAIT_SECONDS: Final = 5.0
"""Seconds that a request waits at most while keys are loaded for the first time."""

log = structlog.get_logger(__name__)


class KeysUnavailable(Exception):
    """The keys of an issuer cannot be had. The message is a phrase for the log."""


class Issuer:
    """Issuer of tokens, with the keys by which it signs them."""

    def __init__(
        self,
        name: str,
        load: Callable[[], Awaitable[bytes]],
        *,
        refresh_seconds: float = REFRESH_SECONDS,
        pause_seconds: float = PAUSE_SECONDS,
        retry_seconds: float = RETRY_SECONDS,
        wait_seconds: float = WAIT_SECONDS,
    ) -> None:
        """Load nothing yet.

        Args:
            name: Name of the issuer, as the claim `iss` has it.
            load: Function that returns the issuer's JWK Set; raises KeysUnavailable.
            refresh_seconds: Seconds after which keys are loaded again.
            pause_seconds: Seconds between two loads at least.
            retry_seconds: Seconds after the first load that failed.
            wait_seconds: Seconds that a request waits at most while keys are loaded for the first time.
        """
        self._name = name
        self._load = load
        self._refresh, self._pause, self._retry = refresh_seconds, pause_seconds, retry_seconds
        self._wait = wait_seconds
        self._keys: SigningKeys | None = None
        self._loaded_at = time.monotonic()
        """Time of the last load that succeeded; before the first one, of the start."""
        self._tried = asyncio.Event()
        self._missed = asyncio.Event()
        self._problem: str | None = None
        self.changed: Callable[[], None] = lambda: None
        """Called after other keys have come into force."""

    @property
    def name(self) -> str:
        """Name of the issuer, as the claim `iss` has it."""
        return self._name

    @property
    def age(self) -> float:
        """Seconds since the keys were loaded last; since the start where they have never been."""
        return time.monotonic() - self._loaded_at

    async def keys(self) -> SigningKeys:
        """Return the keys; wait for a while where the first load is under way.

        Raises:
            errors.IssuerUnavailable: There are none yet.
        """
        if self._keys is None and not self._tried.is_set():
            try:
                async with asyncio.timeout(self._wait):
                    await self._tried.wait()
            except TimeoutError:
                pass
        if self._keys is None:
            raise errors.IssuerUnavailable(retry_after=1)
        return self._keys

    def miss(self) -> None:
        """Take note that a token names a key which is not known: the issuer may have a new one."""
        self._missed.set()

    async def watch(self) -> None:
        """Load the keys again and again, until cancelled. There is one load at a time."""
        retry = self._retry
        while True:
            if await self._update():
                wait, retry = self._refresh, self._retry
            else:
                wait, retry = retry, min(2 * retry, self._pause)
            self._tried.set()
            pause = min(wait, self._pause)
            await asyncio.sleep(pause)
            try:
                async with asyncio.timeout(wait - pause):
                    await self._missed.wait()
            except TimeoutError:
                pass
            self._missed.clear()

    async def _update(self) -> bool:
        """Load the keys once; return whether that succeeded."""
        try:
            keys = SigningKeys(await self._load())
        except (KeysUnavailable, ValueError) as exc:
            reason = str(exc)
            if reason != self._problem:
                log.error("access_issuer_unusable", issuer=self._name, reason=reason, has_keys=self._keys is not None)
            self._problem = reason
            return False
        except Exception as exc:  # whatever it is, later loads have to count
            log.exception("access_issuer_failed", error=type(exc).__name__)
            return False
        self._problem = None
        self._loaded_at = time.monotonic()
        if self._keys is None or not keys.is_same(self._keys):
            self._keys = keys
            log.info("access_issuer_read", issuer=self._name, keys=len(keys), unusable=keys.unusable)
            self.changed()
        return True
