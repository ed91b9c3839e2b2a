"""Transport of httpx for control traffic: it connects to addresses that were checked, and reads bounded responses."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

import httpx

from gateway import errors
from gateway.upstream.resolver import AddressResolver
from program.addresses import Destination

UNRESOLVED: Final = "its name does not resolve"
"""Detail of an error that says that the name of a server has no address."""
_CONNECT_SHARE: Final = 0.3
"""Part of the time of an address that TCP may take, and TLS as much again. A handshake is not cut short by the deadline
of the whole request, which would leave its socket to the garbage collector."""


class ResponseUnusable(Exception):
    """A response is compressed, or larger than it may be."""

    def __init__(self, reason: Literal["compressed", "too_large"], status: int) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class NoResponse(Exception):
    """There is no response: the reason is a word of our own, the detail a phrase that says more, or empty."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


@asynccontextmanager
async def checked_client(
    resolver: AddressResolver,
    context: ssl.SSLContext,
    destination: Destination,
    owner: str,
    *,
    timeout_seconds: float,
    most_bytes: int,
) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client for one server, which follows no redirects.

    Args:
        resolver: Finds the addresses of the server and checks them.
        context: Verifies the certificate.
        destination: Who names the server, which says the addresses it may have.
        owner: Object that names it, as `namespace/name`; empty for the administrator.
        timeout_seconds: Seconds for all addresses of the server.
        most_bytes: Bytes of the largest response that is read.
    """
    transport = _CheckedTransport(
        resolver, context, destination, owner, timeout_seconds=timeout_seconds, most_bytes=most_bytes
    )
    async with httpx.AsyncClient(
        transport=transport, timeout=timeout_seconds, follow_redirects=False, trust_env=False
    ) as client:
        yield client


class _CheckedTransport(httpx.AsyncBaseTransport):
    """Connects to addresses that were checked, one after the other, reads no more than it must, never decompresses."""

    def __init__(
        self,
        resolver: AddressResolver,
        context: ssl.SSLContext,
        destination: Destination,
        owner: str,
        *,
        timeout_seconds: float,
        most_bytes: int,
    ) -> None:
        self._resolver = resolver
        self._destination = destination
        self._owner = owner
        self._timeout = timeout_seconds
        self._most_bytes = most_bytes
        self._addresses: list[tuple[str, int]] = []
        """Addresses of the server; the one that responded is the first."""
        self._inner = httpx.AsyncHTTPTransport(verify=context, trust_env=False, http2=False, retries=0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        if not self._addresses:
            found = await self._resolver.resolve(host, port, destination=self._destination, owner=self._owner)
            self._addresses = list(found)
        # The Host field was made from the name already; certificate and SNI stay with the name too.
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.headers["accept-encoding"] = "identity"
        loop = asyncio.get_running_loop()
        end = loop.time() + self._timeout
        for left in range(len(self._addresses), 0, -1):
            # An address that does not respond leaves the others their share of the time. A request of this traffic may
            # be sent twice without harm.
            share = (end - loop.time()) / left
            connect = share * _CONNECT_SHARE
            rest = share if left == 1 else share - 2 * connect
            request.extensions["timeout"] = {"pool": rest, "connect": connect, "write": rest, "read": rest}
            try:
                return await self._ask(request, self._addresses[0])
            except httpx.TransportError:
                if left == 1:
                    raise
                self._addresses.append(self._addresses.pop(0))
        raise errors.ConnectFailed  # the resolver returns one address at least

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def _ask(self, request: httpx.Request, address: tuple[str, int]) -> httpx.Response:
        request.url = request.url.copy_with(host=address[0], port=address[1])
        response = await self._inner.handle_async_request(request)
        try:
            if "content-encoding" in response.headers:
                raise ResponseUnusable("compressed", response.status_code)
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > self._most_bytes:
                    raise ResponseUnusable("too_large", response.status_code)
        finally:
            await response.aclose()
        return httpx.Response(response.status_code, headers={"content-type": "application/json"}, content=body)


def no_response(exc: errors.GatewayError | httpx.HTTPError | OSError) -> NoResponse:
    """Return why there is no response, by what was raised in its place."""
    if isinstance(exc, errors.GatewayError):
        is_unresolved = isinstance(exc, errors.ConnectFailed) and exc.is_unresolved
        return NoResponse(exc.code, UNRESOLVED if is_unresolved else "")
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return NoResponse("tls_failed", cause.verify_message)
        if isinstance(cause, ssl.SSLError):
            return NoResponse("tls_failed", (cause.reason or "").replace("_", " ").lower())
        cause = cause.__cause__ or cause.__context__
    match exc:
        case httpx.ConnectError():
            return NoResponse("connect_failed")
        case TimeoutError() | httpx.TimeoutException():
            return NoResponse("timed_out")
    return NoResponse("connection_broken")
