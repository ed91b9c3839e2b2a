"""How the keys of an issuer are asked for: at an address that is given, or at the one that OpenID Connect discovers.

Certificates are verified, redirects are not followed, responses are bounded in size and in time.
"""

import asyncio
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import orjson

from gateway import errors
from gateway.access.issuer import KeysUnavailable
from gateway.credentials.checked_transport import ResponseUnusable, checked_client, no_response
from gateway.upstream.resolver import AddressResolver
from program.problems import shown
from program.tls import AuthoritiesUnusable, client_context

RESPONSE_BYTES: Final = 1 << 18
"""Bytes of the largest response of an issuer that is read."""
TIMEOUT_SECONDS: Final = 10.0
"""Seconds of the longest load: of both requests, where keys are discovered."""
_DISCOVERY: Final = "/.well-known/openid-configuration"


class IssuerClient:
    """Client of one issuer, which its administrator has named."""

    def __init__(
        self,
        resolver: AddressResolver,
        *,
        issuer: str,
        jwks_url: str | None,
        ca_file: Path | None,
        strict_tls: bool,
        timeout_seconds: float = TIMEOUT_SECONDS,
    ) -> None:
        """Ask nothing yet.

        Args:
            resolver: Finds the addresses of the issuer.
            issuer: Name of the issuer, which is a URL.
            jwks_url: URL of its keys; None to discover it.
            ca_file: File with the authorities of its certificate; those of the system when None. It is read for each
                load.
            strict_tls: Whether its certificate must follow RFC 5280 to the letter.
            timeout_seconds: Seconds of the longest load.
        """
        self._resolver = resolver
        self._issuer = issuer
        self._jwks_url = jwks_url
        self._ca_file = ca_file
        self._strict = strict_tls
        self._timeout = timeout_seconds

    async def load(self) -> bytes:
        """Return the keys of the issuer, as a JWK Set.

        Raises:
            KeysUnavailable: They cannot be had.
        """
        try:
            async with asyncio.timeout(self._timeout):
                return await self._get(self._jwks_url or await self._discover())
        except TimeoutError:
            raise KeysUnavailable(f"it took longer than {self._timeout:g} seconds") from None

    async def _discover(self) -> str:
        """Return the URL of the keys by the issuer's own description (OpenID Connect Discovery 4).

        Raises:
            KeysUnavailable: It does not say that.
        """
        url = self._issuer.removesuffix("/") + _DISCOVERY
        try:
            document = orjson.loads(await self._get(url))
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            raise KeysUnavailable(f"{url} is no JSON object")
        if document.get("issuer") != self._issuer:
            raise KeysUnavailable(f"{url} is of the issuer {shown(document.get('issuer')) or 'none'}")
        found = document.get("jwks_uri")
        if not isinstance(found, str) or not _is_safe(found, self._issuer):
            raise KeysUnavailable(f"{url} has no usable jwks_uri: {shown(found) or 'none'}")
        return found

    async def _get(self, url: str) -> bytes:
        """Return the content at a URL.

        Raises:
            KeysUnavailable: There is none with status 200.
        """
        try:
            context = client_context(strict=self._strict, authorities=self._ca_file)
        except AuthoritiesUnusable as exc:
            raise KeysUnavailable(f"{self._ca_file} {exc}") from None
        try:
            async with checked_client(
                self._resolver,
                context,
                "configured",
                "",
                timeout_seconds=self._timeout,
                most_bytes=RESPONSE_BYTES,
            ) as client:
                response = await client.get(url, headers={"accept": "application/json"})
        except httpx.InvalidURL:
            raise KeysUnavailable(f"{shown(url)} is no URL") from None
        except ResponseUnusable as exc:
            size = f"is larger than {RESPONSE_BYTES >> 10} KiB"
            raise KeysUnavailable(f"{url} {size if exc.reason == 'too_large' else 'is compressed'}") from None
        except (errors.GatewayError, httpx.HTTPError, OSError) as exc:
            why = no_response(exc)
            raise KeysUnavailable(f"{url}: {why.reason}{f', {why.detail}' if why.detail else ''}") from None
        if response.status_code != 200:
            raise KeysUnavailable(f"{url} responds with {response.status_code}")
        return response.content


def _is_safe(url: str, issuer: str) -> bool:
    """Return whether keys may be asked for at a URL: encrypted, unless the issuer itself is not."""
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname) and parts.port != 0 and "@" not in parts.netloc
    except ValueError:
        return False
    clean = url.isascii() and url.isprintable() and " " not in url
    return named and clean and parts.scheme in ("https", urlsplit(issuer).scheme)
