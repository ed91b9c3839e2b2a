"""An HTTP client for one server that hooks read metrics from.

Responses are read up to a limit and must not be compressed. No redirect is followed, no proxy of the environment is
used, and nothing is sent to another host. Callers set the deadlines: a call that is cancelled gives its connection up.
"""

import asyncio
import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import httpx

from hooks import reasons
from hooks.clients.errors import Api, CallFailed, TooLarge, Trouble
from hooks.clients.measured import measured
from hooks.telemetry import Metrics

CONNECTIONS: Final = 16
"""Connections to a server at the same time. Further calls wait for one of them."""
IDLE_SECONDS: Final = 30.0
"""Seconds that an idle connection stays open: long enough to serve several reads of the same metric."""
RESPONSE_BYTES: Final = 16 << 20
"""Bytes of a response body, unless a call has another limit."""
CONNECT_SHARE: Final = 0.8
"""Share of a call's time that may pass until a connection is ready, TLS included."""

Parameters = Sequence[tuple[str, str]]
"""Names and values of query parameters, or of the fields of a form."""
Headers = Callable[[], Awaitable[Mapping[str, str]]]
"""Function that returns the header fields with the credentials of a call; raises `CallFailed` when there are none."""


@dataclass(frozen=True, slots=True)
class HttpResponse:
    """The status and the whole body of a response."""

    status: int
    body: bytes


class HttpClient:
    """A client for one server."""

    def __init__(
        self,
        url: str,
        metrics: Metrics,
        *,
        headers: Headers,
        context: ssl.SSLContext,
        seconds: float,
    ) -> None:
        """Connect to nothing yet.

        Args:
            url: URL that all paths are appended to.
            metrics: counts the requests.
            headers: returns the credentials.
            context: TLS context for https.
            seconds: seconds after which callers give a call up.
        """
        self._url = url
        self._metrics = metrics
        self._headers = headers
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._client = httpx.AsyncClient(
            verify=context,
            trust_env=False,
            follow_redirects=False,
            # The caller's deadline counts, but a cancelled handshake leaves its socket to the garbage collector.
            timeout=httpx.Timeout(None, connect=seconds * CONNECT_SHARE),
            limits=httpx.Limits(max_connections=CONNECTIONS, keepalive_expiry=IDLE_SECONDS),
        )

    async def get(self, api: Api, path: str, query: Parameters, limit: int = RESPONSE_BYTES) -> HttpResponse:
        """Send a GET request, and return the response whatever its status.

        Args:
            api: API that the path belongs to.
            path: path, percent-encoded.
            query: query parameters.
            limit: bytes that the body may have.

        Raises:
            CallFailed: there is no response, or its body is larger.
        """
        return await self._call(api, "GET", path, query, (), limit)

    async def post(self, api: Api, path: str, form: Parameters, limit: int = RESPONSE_BYTES) -> HttpResponse:
        """Send a POST request with a form, which may be longer than a URL; otherwise do as `get` does."""
        return await self._call(api, "POST", path, (), form, limit)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _call(
        self, api: Api, method: str, path: str, query: Parameters, form: Parameters, limit: int
    ) -> HttpResponse:
        async with self._slots:  # the client's own queue takes a time that rises with the square of its length
            return await self._sent(api, method, path, query, form, limit)

    async def _sent(
        self, api: Api, method: str, path: str, query: Parameters, form: Parameters, limit: int
    ) -> HttpResponse:
        headers = {"accept": "application/json", "accept-encoding": "identity", **await self._headers()}
        try:
            with measured(self._metrics, api) as call:
                async with self._client.stream(
                    method,
                    self._url + path,
                    params=list(query) or None,
                    data=dict(form) or None,
                    headers=headers,
                ) as response:
                    body = await read_body(api, response, limit)
                    call.code = str(response.status_code)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            if isinstance(exc, httpx.ConnectTimeout):
                words = f"{api.words} cannot be connected to in time: see that it is up and that no policy is between."
                raise CallFailed(reasons.TIMED_OUT, words, Trouble.GONE) from None
            trouble = Trouble.GONE if isinstance(exc, httpx.ConnectError | httpx.ProxyError) else Trouble.SILENT
            raise CallFailed(reasons.UNREACHABLE, f"{api.words} cannot be asked: {in_words(exc)}.", trouble) from None
        return HttpResponse(response.status_code, body)


async def read_body(api: Api, response: httpx.Response, limit: int) -> bytes:
    """Return the whole body of a response.

    Raises:
        CallFailed: the body is larger than the limit, or compressed.
    """
    if response.headers.get("content-encoding", "identity") != "identity":
        raise CallFailed(reasons.UNREACHABLE, f"{api.words} responds in an encoding that was not asked for.")
    pieces, size = [], 0
    async for piece in response.aiter_raw():
        size += len(piece)
        if size > limit:
            raise TooLarge(reasons.REFUSED, f"{api.words} responds with more than {limit >> 20} MiB: ask for less.")
        pieces.append(piece)
    return b"".join(pieces)


def in_words(exc: BaseException) -> str:
    """Return what went wrong as a clause, without details of the single call and without anything secret."""
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
            return "it does not respond in HTTP, or its response broke off"
        case httpx.NetworkError():
            return "the connection broke off"
        case _:
            return "the address or the credentials cannot be sent"
