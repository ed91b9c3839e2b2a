"""The token of one client: fetched once for all who wait for it, renewed before it ends."""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from program.oauth.errors import TokenUnavailable
from program.oauth.responses import Token

log = structlog.get_logger(__name__)

_RENEW_AT: Final = 0.8
"""Part of a token's life after which it is renewed; requests go on with the old one meanwhile."""
_NEVER: Final = float("-inf")


@dataclass(frozen=True, slots=True)
class Pacing:
    """Seconds that a cache waits, and lets wait."""

    wait: float
    """Seconds after the start of a fetch in which callers wait for its token. Later callers do not wait at all: the
    fetch goes on without them."""
    refused: float
    """Seconds between two fetches after the endpoint refused the client, and between two renewals that failed."""
    failed: float
    """Seconds between two fetches after any other failure, while there is no token."""
    refresh: float
    """Seconds between two fetches because a token was not accepted."""


class TokenCache:
    """Holds one token, as the value of an Authorization field."""

    def __init__(
        self, fetch: Callable[[], Awaitable[Token]], pacing: Pacing, labels: Callable[[], Mapping[str, str]]
    ) -> None:
        """Hold nothing yet.

        Args:
            fetch: gets a new token; raises TokenUnavailable when there is none.
            pacing: seconds between fetches.
            labels: fields of log lines that say whose token it is.
        """
        self._fetch = fetch
        self._pacing = pacing
        self._labels = labels
        self.value = b""
        """Authorization value; empty when there is none."""
        self.renew_at = 0.0
        self.ends_at = 0.0
        self.error: TokenUnavailable | None = None
        """Why the last fetch failed; None when it did not."""
        self._failed_at = _NEVER
        self._refreshed_at = _NEVER
        self._fetching: asyncio.Task[None] | None = None
        self._fetching_since = 0.0
        self._generation = 0
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def busy(self) -> bool:
        """Whether a token is being fetched."""
        return self._fetching is not None

    def ready(self, now: float) -> bytes:
        """Return the Authorization value where nothing has to be done for it; else an empty one.

        Args:
            now: time.monotonic().
        """
        return self.value if now < self.renew_at else b""

    async def authorization(self, refused: bytes = b"") -> bytes:
        """Return the Authorization value.

        Args:
            refused: a value that was refused. Of many callers with the same one, one has the token renewed, and the
                others get the new one.

        Raises:
            TokenUnavailable: there is none, or none but the refused one.
        """
        now = time.monotonic()
        if refused and refused == self.value:
            if now - self._refreshed_at >= self._pacing.refresh:
                self._refreshed_at = now
                await self._fetched()
            elif self._fetching is not None:
                await self._fetched()
            if self.error is not None and (not self.value or self.value == refused):
                raise self.error.again()  # sending the refused one again would only be refused again
        elif now >= self.ends_at:
            if self.error is not None and self._fetching is None and self._pauses(self.error, now):
                raise self.error.again()
            await self._fetched()
            if time.monotonic() >= self.ends_at:  # what is left is a token that has ended
                raise self.error.again() if self.error is not None else TokenUnavailable("token_ended")
        elif now >= self.renew_at and self._fetching is None:
            pause = self._pacing.refused * (1 if self.error is None else self.error.requests)
            if now - self._failed_at >= pause:
                self._start()
        return self.value

    def forget(self) -> None:
        """Drop the token and what is known of failures: the client is another one from now on."""
        self._generation += 1
        self.value, self.renew_at, self.ends_at = b"", 0.0, 0.0
        self.error, self._failed_at, self._refreshed_at = None, _NEVER, _NEVER
        self._fetching = None

    async def close(self) -> None:
        """Cancel what is being fetched."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _pauses(self, error: TokenUnavailable, now: float) -> bool:
        """Return whether it is too soon for another fetch; a fetch of several requests has a longer pause after it."""
        pause = self._pacing.refused if error.refused else self._pacing.failed
        return now - self._failed_at < pause * error.requests

    def _start(self) -> "asyncio.Task[None]":
        self._fetching_since = time.monotonic()
        task = asyncio.create_task(self._run(self._generation))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._fetching = task
        return task

    async def _fetched(self) -> None:
        """Wait for a token to be fetched.

        Raises:
            TokenUnavailable: it takes too long.
        """
        task = self._fetching or self._start()
        # Not awaited itself: a caller that goes away must not take the token from those that wait with it.
        await asyncio.wait((task,), timeout=max(0.0, self._fetching_since + self._pacing.wait - time.monotonic()))
        if not task.done():
            raise TokenUnavailable("token_late")
        task.result()

    async def _run(self, generation: int) -> None:
        """Fetch a token. A failure leaves the present one in place until its own end."""
        token, error = None, None
        try:
            token = await self._fetch()
        except TokenUnavailable as exc:
            error = exc.again()  # without its traceback, which holds what was sent
            log.warning("token_unavailable", **self._labels(), **exc.fields)
        finally:
            if generation == self._generation:
                self._fetching = None
        if generation != self._generation:
            return
        now = time.monotonic()
        self.error = error
        if token is not None:
            self.value = b"Bearer " + token.value.encode("ascii")
            self.ends_at = now + token.life
            # Not all replicas at the same moment.
            self.renew_at = now + token.life * (_RENEW_AT - 0.05 * random.random())  # noqa: S311
            self._failed_at = _NEVER
        else:
            self._failed_at = now
            if error is not None and error.withdrawn:
                self.value, self.renew_at, self.ends_at = b"", 0.0, 0.0
