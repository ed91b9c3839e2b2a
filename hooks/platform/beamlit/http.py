"""One request to the platform and its response: read whole, bounded, counted."""

import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx
import orjson

from hooks.clients.http import in_words
from hooks.platform.beamlit.errors import Unreachable
from hooks.telemetry import Metrics
from program import retry_after

CONNECTIONS: Final = 8
"""Largest number of connections at the same time, besides one for a token."""
IDLE_SECONDS: Final = 60.0
"""Seconds for which an idle connection is kept."""
SECONDS: Final = 5.0
"""Seconds for each step of a request, whatever the deadline of its caller."""
RESPONSE_BYTES: Final = 4 << 20
"""Largest response that is read: a model with its pod template."""
SHORTEST_RETRY_AFTER: Final = 1.0
"""Shortest pause when the platform asks for one, in seconds."""
LONGEST_RETRY_AFTER: Final = 3600.0
"""Longest pause that the platform gets when it asks for one, in seconds."""
SOME_RETRY_AFTER: Final = 5.0
"""Pause in seconds when the platform asks for one and does not say how long."""


@dataclass(frozen=True, slots=True)
class Response:
    """Status, header fields and whole body of a response."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def content(self) -> object:
        """Body as JSON; None when it is no JSON."""
        try:
            return orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return None

    @property
    def retry_after(self) -> float | None:
        """Seconds that the platform asks to wait, by Retry-After or retry-after-ms; None when it does not ask."""
        value, milliseconds = (self._value(name) for name in ("retry-after", "retry-after-ms"))
        if value is None and milliseconds is None:
            return None
        seconds = retry_after.asked(value, milliseconds, time.time())
        return SOME_RETRY_AFTER if seconds is None else min(LONGEST_RETRY_AFTER, max(SHORTEST_RETRY_AFTER, seconds))

    def _value(self, name: str) -> bytes | None:
        """Return the value of a header field; None where the response does not have it."""
        value = self.headers.get(name)
        return None if value is None else value.strip().encode()


class Exchange:
    """Connections to the platform."""

    def __init__(self, url: str, metrics: Metrics, context: ssl.SSLContext) -> None:
        """Connect to nothing yet.

        Args:
            url: base URL that paths are appended to.
            metrics: counts the requests.
            context: verifies the platform's certificate.
        """
        self._url = url
        self._metrics = metrics
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(SECONDS),
            limits=httpx.Limits(max_connections=CONNECTIONS + 1, keepalive_expiry=IDLE_SECONDS),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def send(
        self, operation: str, method: str, path: str, headers: Mapping[str, str], content: bytes | None
    ) -> Response:
        """Send one request and return the response, whatever its status.

        Raises:
            Unreachable: there is no response, or it is too large.
        """
        started, result = time.perf_counter(), "cancelled"
        try:
            async with self._client.stream(
                method, self._url + path, headers={**headers, "accept-encoding": "identity"}, content=content
            ) as response:
                pieces, size = [], 0
                async for piece in response.aiter_raw():
                    size += len(piece)
                    if size > RESPONSE_BYTES:
                        result = "unreachable"
                        raise Unreachable("The platform responds with more than can be read.", sent=method != "GET")
                    pieces.append(piece)
                result = result_of(response.status_code)
                return Response(response.status_code, response.headers, b"".join(pieces))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            result = "unreachable"
            unsent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL)
            words = "it does not respond in time" if isinstance(exc, httpx.TimeoutException) else in_words(exc)
            raise Unreachable(f"The platform cannot be asked: {words}.", sent=method != "GET" and not unsent) from None
        finally:
            self._metrics.platform_requests.labels(operation, result).inc()
            self._metrics.platform_seconds.labels(operation).observe(time.perf_counter() - started)


def result_of(status: int) -> str:
    """Return what a status is counted as in metrics."""
    if status < 300:
        return "ok"
    named = {401: "unauthorized", 403: "unauthorized", 404: "absent", 409: "conflict", 429: "throttled"}
    return named.get(status, "unreachable" if status < 400 or status >= 500 else "rejected")
