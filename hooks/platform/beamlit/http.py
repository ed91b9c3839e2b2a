"""One request to the platform and its answer, whole, bounded, counted."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

import httpx
import orjson

from hooks.clients.http import in_words
from hooks.platform.beamlit.errors import Unreachable
from hooks.telemetry import Metrics

CONNECTIONS: Final = 8
"""At the same time, besides one for a token."""
IDLE_SECONDS: Final = 60.0
"""For which a connection is kept."""
SECONDS: Final = 5.0
"""For each step of a request, whatever its caller's deadline."""
ANSWER_BYTES: Final = 4 << 20
"""Largest answer that is read: a model with its pod template."""
LONGEST_RETRY_AFTER: Final = 3600.0
SOME_RETRY_AFTER: Final = 5.0
"""Where the platform asks to wait and cannot say for how long."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status, fields and whole body."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def content(self) -> object:
        """The body as JSON; None when it is none."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @property
    def retry_after(self) -> float | None:
        """Seconds that it asks to wait (RFC 9110 section 10.2.3); None when it does not ask."""
        written = self.headers.get("retry-after")
        return None if written is None else _seconds(written.strip())


class Exchange:
    """Connections to one server."""

    def __init__(self, url: str, metrics: Metrics) -> None:
        """`url` is what paths are appended to."""
        self._url = url
        self._metrics = metrics
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(SECONDS),
            limits=httpx.Limits(max_connections=CONNECTIONS + 1, keepalive_expiry=IDLE_SECONDS),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def ask(
        self, operation: str, method: str, path: str, headers: Mapping[str, str], content: bytes | None
    ) -> Answer:
        """One request and its answer, whatever the status.

        Raises:
            Unreachable: there is none.
        """
        started, result = time.perf_counter(), "cancelled"
        try:
            async with self._client.stream(
                method, self._url + path, headers={**headers, "accept-encoding": "identity"}, content=content
            ) as response:
                pieces, size = [], 0
                async for piece in response.aiter_raw():
                    size += len(piece)
                    if size > ANSWER_BYTES:
                        result = "unreachable"
                        raise Unreachable("The platform answers with more than can be read.", sent=method != "GET")
                    pieces.append(piece)
                result = result_of(response.status_code)
                return Answer(response.status_code, response.headers, b"".join(pieces))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            result = "unreachable"
            unsent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL)
            said = "it does not answer in time" if isinstance(exc, httpx.TimeoutException) else in_words(exc)
            raise Unreachable(f"The platform cannot be asked: {said}.", sent=method != "GET" and not unsent) from None
        finally:
            self._metrics.platform_requests.labels(operation, result).inc()
            self._metrics.platform_seconds.labels(operation).observe(time.perf_counter() - started)


def result_of(status: int) -> str:
    """What a status is counted as."""
    if status < 300:
        return "ok"
    named = {401: "unauthorized", 403: "unauthorized", 404: "absent", 409: "conflict", 429: "throttled"}
    return named.get(status, "unreachable" if status < 400 or status >= 500 else "rejected")


def _seconds(written: str) -> float:
    if written.isascii() and written.isdigit():
        return min(LONGEST_RETRY_AFTER, max(1.0, float(written[:9])))
    try:
        moment = parsedate_to_datetime(written)
    except ValueError:
        return SOME_RETRY_AFTER
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(LONGEST_RETRY_AFTER, max(1.0, (moment - datetime.now(UTC)).total_seconds()))
