"""Connections to token endpoints.

Addresses are checked, certificates are verified, responses are bounded.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx

from gateway import errors
from gateway.upstream.resolver import AddressResolver
from program.addresses import Destination
from program.oauth.authentication import TokenRequest
from program.oauth.client import Send
from program.oauth.credentials import ClientCredentials
from program.oauth.errors import TokenUnavailable
from program.oauth.responses import RESPONSE_BYTES, TokenResponse
from program.tls import AuthoritiesUnusable, client_context

UNRESOLVED: Final = "its name does not resolve"
"""Detail of an error that says that the name of a token endpoint has no address."""
_CONTEXTS: Final = 64
"""Largest number of TLS contexts that are kept, one for each set of authorities."""

_CONNECT_SHARE: Final = 0.3
"""Part of the time of an address that TCP may take, and TLS as much again. A handshake is not cut short by the deadline
of the whole request, which would leave its socket to the garbage collector."""


class TokenEndpoints:
    """Connections to token endpoints."""

    def __init__(self, resolver: AddressResolver, *, timeout_seconds: float, strict_tls: bool) -> None:
        """Connect to addresses that `resolver` returns.

        Args:
            resolver: checks the addresses of endpoints that a Secret names.
            timeout_seconds: seconds for all addresses of an endpoint.
            strict_tls: whether certificates must follow RFC 5280 to the letter.
        """
        self._resolver = resolver
        self._timeout = timeout_seconds
        self._strict = strict_tls
        self._system = client_context(strict=strict_tls)
        self._contexts: dict[tuple[str, bool], ssl.SSLContext] = {}

    def context(self, credentials: ClientCredentials) -> ssl.SSLContext:
        """Return the TLS context that verifies the certificate of the endpoint.

        Raises:
            ValueError: the authorities of `credentials` are no certificates.
        """
        authorities = credentials.authorities
        if authorities is None:
            return self._system
        key = authorities, credentials.trusts_system
        context = self._contexts.get(key)
        if context is None:
            try:
                context = client_context(strict=self._strict, authorities=authorities, system=credentials.trusts_system)
            except AuthoritiesUnusable:
                raise ValueError("the authorities are no certificates in PEM") from None
            if len(self._contexts) >= _CONTEXTS:
                self._contexts.clear()
            self._contexts[key] = context
        return context

    @asynccontextmanager
    async def open(self, context: ssl.SSLContext, *, destination: Destination, owner: str) -> AsyncIterator[Send]:
        """Yield what sends requests to one endpoint; several go over one connection where the endpoint allows it.

        Args:
            context: verifies the certificate.
            destination: who names the endpoint, which says the addresses it may have.
            owner: object that names it, as `namespace/name`; empty for the administrator.
        """
        transport = _CheckedTransport(self._resolver, context, destination, owner, timeout_seconds=self._timeout)
        async with httpx.AsyncClient(
            transport=transport, timeout=self._timeout, follow_redirects=False, trust_env=False
        ) as client:

            async def send(request: TokenRequest) -> TokenResponse:
                try:
                    response = await client.post(request.url, headers=dict(request.headers), content=request.body)
                except httpx.InvalidURL:
                    raise TokenUnavailable("token_url_invalid") from None
                except (errors.GatewayError, httpx.HTTPError, OSError) as exc:
                    raise _unavailable(exc) from None
                return TokenResponse(response.status_code, response.content)

            yield send


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
    ) -> None:
        self._resolver = resolver
        self._destination = destination
        self._owner = owner
        self._timeout = timeout_seconds
        self._addresses: list[tuple[str, int]] = []
        """Addresses of the endpoint; the one that responded is the first."""
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
            # An address that does not respond leaves the others their share of the time. A token request may be sent
            # twice without harm.
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
                raise TokenUnavailable("token_answer_invalid", "it is compressed", status=response.status_code)
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > RESPONSE_BYTES:
                    raise TokenUnavailable("token_answer_too_large", status=response.status_code)
        finally:
            await response.aclose()
        return httpx.Response(response.status_code, headers={"content-type": "application/json"}, content=body)


def _unavailable(exc: Exception) -> TokenUnavailable:
    """Return why there is no response."""
    if isinstance(exc, errors.GatewayError):
        is_unresolved = isinstance(exc, errors.ConnectFailed) and exc.is_unresolved
        return TokenUnavailable(exc.code, UNRESOLVED if is_unresolved else "")
    cause: BaseException | None = exc
    while cause is not None:
        if isinstance(cause, ssl.SSLCertVerificationError):
            return TokenUnavailable("tls_failed", cause.verify_message)
        if isinstance(cause, ssl.SSLError):
            return TokenUnavailable("tls_failed", (cause.reason or "").replace("_", " ").lower())
        cause = cause.__cause__ or cause.__context__
    match exc:
        case httpx.ConnectError():
            return TokenUnavailable("connect_failed")
        case TimeoutError() | httpx.TimeoutException():
            return TokenUnavailable("timed_out")
    return TokenUnavailable("connection_broken")
