"""A server that is asked for metrics over HTTP.

Answers are read up to a limit, uncompressed; no redirect is followed, no environment names a proxy, nothing is sent to
another host. Deadlines are those of callers: who is cancelled gives the
connection up.
"""

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from hooks import reasons
from hooks.clients.errors import Api, CallFailed, TooLarge, Trouble
from hooks.telemetry import Metrics

CONNECTIONS: Final = 16
"""At once; further calls wait for one."""
IDLE_SECONDS: Final = 30.0
"""For which a connection is kept, so that one serves several intervals."""
ANSWER_BYTES: Final = 16 << 20
CONNECT_SHARE: Final = 0.8
"""Share of a call's time that may pass until a connection is ready, TLS included."""

Parameters = Sequence[tuple[str, str]]
Headers = Callable[[], Awaitable[Mapping[str, str]]]
"""Gives the credentials at the time of a call; raises `CallFailed`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and whole body."""

    status: int
    body: bytes


class Upstream:
    """A server and how it is reached."""

    def __init__(
        self,
        url: str,
        metrics: Metrics,
        *,
        headers: Headers,
        context: ssl.SSLContext,
        seconds: float,
    ) -> None:
        """
        Args:
            url: what all paths are appended to.
            metrics: where requests are counted.
            headers: credentials.
            context: for https.
            seconds: after which callers give up.
        """
        self._url = url
        self._metrics = metrics
        self._headers = headers
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            # The caller's deadline counts, but a handshake that it cuts short would leave its socket to the collector.
            timeout=httpx.Timeout(None, connect=seconds * CONNECT_SHARE),
            limits=httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=IDLE_SECONDS),
        )

    async def get(self, api: Api, path: str, query: Parameters, limit: int = ANSWER_BYTES) -> Answer:
        """Ask.

        Args:
            api: that the path belongs to.
            path: encoded, from the root of the server.
            query: parameters.
            limit: bytes of the body at most.

        Raises:
            CallFailed: there is no answer, or it is larger.
        """
        return await self._call(api, "GET", path, query, (), limit)

    async def post(self, api: Api, path: str, form: Parameters, limit: int = ANSWER_BYTES) -> Answer:
        """The same with the parameters in the body, where they may be longer than a URL."""
        return await self._call(api, "POST", path, (), form, limit)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _call(self, api: Api, method: str, path: str, query: Parameters, form: Parameters, limit: int) -> Answer:
        async with self._slots:  # the client's own queue takes a time that rises with the square of its length
            return await self._sent(api, method, path, query, form, limit)

    async def _sent(self, api: Api, method: str, path: str, query: Parameters, form: Parameters, limit: int) -> Answer:
        headers = {"accept": "application/json", "accept-encoding": "identity", **await self._headers()}
        started, code = time.perf_counter(), "cancelled"
        try:
            async with self._client.stream(
                method,
                self._url + path,
                params=list(query) or None,
                data=dict(form) or None,
                headers=headers,
            ) as response:
                body = await _read(api, response, limit)
                code = str(response.status_code)
                return Answer(response.status_code, body)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            code = "error"
            if isinstance(exc, httpx.ConnectTimeout):
                words = f"{api.words} cannot be connected to in time: see that it is up and that no policy is between."
                raise CallFailed(reasons.TIMED_OUT, words, Trouble.GONE) from None
            trouble = Trouble.GONE if isinstance(exc, httpx.ConnectError | httpx.ProxyError) else Trouble.SILENT
            raise CallFailed(reasons.UNREACHABLE, f"{api.words} cannot be asked: {in_words(exc)}.", trouble) from None
        except CallFailed:
            code = "error"
            raise
        finally:
            self._metrics.source_requests.labels(api.name, code).inc()
            self._metrics.source_seconds.labels(api.name).observe(time.perf_counter() - started)


async def _read(api: Api, response: httpx.Response, limit: int) -> bytes:
    if response.headers.get("content-encoding", "identity") != "identity":
        raise CallFailed(reasons.UNREACHABLE, f"{api.words} answers in an encoding that was not asked for.")
    pieces, size = [], 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > limit:
            raise TooLarge(reasons.REFUSED, f"{api.words} answers with more than {limit >> 20} MiB: ask for less.")
        pieces.append(piece)
    return b"".join(pieces)


def in_words(exc: BaseException) -> str:
    """What went wrong, without what differs from call to call and without what may repeat a credential."""
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return f"its certificate is not accepted, {cause.verify_message}"
        if isinstance(cause, ssl.SSLError):
            return "it does not speak TLS as expected"
        cause = cause.__cause__ or cause.__context__
    match exc:
        case httpx.ProxyError():
            return "the proxy refuses"
        case httpx.ConnectError():
            return "it cannot be connected to"
        case httpx.RemoteProtocolError():
            return "it does not answer in HTTP, or its answer broke off"
        case httpx.NetworkError():
            return "the connection broke off"
        case _:
            return "the address or the credentials cannot be sent"
