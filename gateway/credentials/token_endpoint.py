"""Connections to token endpoints.

Addresses are checked, certificates are verified, responses are bounded.
"""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import httpx

from gateway import errors
from gateway.credentials.checked_transport import ResponseUnusable, checked_client, no_response
from gateway.upstream.resolver import AddressResolver
from program.addresses import Destination
from program.oauth.authentication import TokenRequest
from program.oauth.client import Send
from program.oauth.credentials import ClientCredentials
from program.oauth.errors import TokenUnavailable
from program.oauth.responses import RESPONSE_BYTES, TokenResponse
from program.tls import AuthoritiesUnusable, client_context

_CONTEXTS: Final = 64
"""Largest number of TLS contexts that are kept, one for each set of authorities."""


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
        async with checked_client(
            self._resolver,
            context,
            destination,
            owner,
            timeout_seconds=self._timeout,
            most_bytes=RESPONSE_BYTES,
        ) as client:

            async def send(request: TokenRequest) -> TokenResponse:
                try:
                    response = await client.post(request.url, headers=dict(request.headers), content=request.body)
                except httpx.InvalidURL:
                    raise TokenUnavailable("token_url_invalid") from None
                except ResponseUnusable as exc:
                    if exc.reason == "too_large":
                        raise TokenUnavailable("token_answer_too_large", status=exc.status) from None
                    raise TokenUnavailable("token_answer_invalid", "it is compressed", status=exc.status) from None
                except (errors.GatewayError, httpx.HTTPError, OSError) as exc:
                    why = no_response(exc)
                    raise TokenUnavailable(why.reason, why.detail) from None
                return TokenResponse(response.status_code, response.content)

            yield send
