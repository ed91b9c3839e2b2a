"""Connections to an API server, with decisions that the package leaves to the environment or to aiohttp.

By itself its session obeys the proxies of the environment, ends each response after 300 s, sends a request again when a
connection is lost, follows redirects, keeps cookies, and opens 100 connections at most.
"""

import os
import re
import socket
import ssl
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import aiohttp
from kubernetes.aio.client import ApiClient, Configuration
from kubernetes.utils.keepalive import tcp_keepalive_socket_options
from yarl import URL

from program.kubernetes.configuration import UNUSABLE, authorization, problem
from program.kubernetes.errors import (
    ApiCredentialsError,
    ApiError,
    ApiInterrupted,
    ApiRefusal,
    ApiUnreachable,
    ClusterError,
)
from program.tls import AuthoritiesUnusable, CertificateUnusable, ClientCertificate, client_context

KEEPALIVE: Final = (10, 5, 3)
"""Seconds of idleness, seconds between probes, probes: a machine that is gone is noticed within 25 seconds."""
IDLE_SECONDS: Final = 30.0
"""Seconds for which an idle connection is kept for the next request."""
_SENDABLE: Final = re.compile(r"[\x21-\x7e]+( [\x21-\x7e]+)?")
"""Form of a value of the header field Authorization: a scheme and a token (RFC 9110 11.6.2)."""
_READ_BYTES: Final = 1 << 16
"""Bytes of a response that are read ahead of what is parsed; aiohttp stops reading at twice as many."""

Query = Sequence[tuple[str, str]]
"""Parameters of a URL, not encoded yet."""


class ApiTransport:
    """Sends requests to one API server under one identity. It belongs to the event loop in which it was made."""

    def __init__(self, settings: Configuration, connections: int, *, strict_tls: bool) -> None:
        """Prepare connections without opening any.

        Args:
            settings: address and credentials.
            connections: connections that may be open at the same time; a watch holds one.
            strict_tls: whether certificates are verified as `tls.strict` asks.

        Raises:
            ClusterError: the address or the certificates cannot be used.
        """
        self._settings = settings
        self._host = str(settings.host).rstrip("/")
        if not _is_server(self._host):
            raise ClusterError("the address of the API server cannot be used: it is no http or https URL.")
        self._connector = aiohttp.TCPConnector(
            limit=connections,
            ssl=_context(settings, strict_tls),
            keepalive_timeout=IDLE_SECONDS,
            socket_factory=_socket,
            resolver=aiohttp.ThreadedResolver(),
        )
        settings.retries = None
        settings.client_session_kwargs = {
            "connector": self._connector,
            "trust_env": False,
            "cookie_jar": aiohttp.DummyCookieJar(),
            "auto_decompress": False,
            "read_bufsize": _READ_BYTES,
            "middlewares": (_once,),
        }
        self._api = ApiClient(settings)

    async def send(
        self,
        method: str,
        path: str,
        query: Query,
        *,
        connect_seconds: float,
        read_seconds: float | None,
        body: Any = None,
        content_type: str = "application/json",
    ) -> aiohttp.ClientResponse:
        """Send one request and return the response with its head read. The caller closes the response.

        Args:
            method: GET or PATCH.
            path: path from the root of the API server, encoded.
            query: parameters.
            connect_seconds: seconds until a connection is ready, TLS included.
            read_seconds: seconds without a byte of the response; None for no limit.
            body: JSON to send.
            content_type: media type of `body`.

        Raises:
            ApiError: there is no response, or one that redirects.
        """
        headers = {"Accept": "application/json", "Accept-Encoding": "identity", "Content-Type": content_type}
        headers |= await self._authorization()
        try:
            response = await self._api.call_api(
                method,
                # Encoded already: another quoting of the same path would be another object to some servers.
                URL(f"{self._host}{path}{_query(query)}", encoded=True),
                headers,
                body,
                _request_timeout=aiohttp.ClientTimeout(total=None, connect=connect_seconds, sock_read=read_seconds),
            )
        except _Redirect as exc:
            raise ApiRefusal(exc.status, exc.reason) from None
        except (aiohttp.ClientError, OSError, ValueError) as exc:
            raise failure(exc) from None  # what aiohttp raises has the request with its header fields
        result: aiohttp.ClientResponse = response.response
        return result

    async def close(self) -> None:
        """Close all connections, with whatever runs on them."""
        await self._api.close()
        await self._connector.close()

    async def _authorization(self) -> dict[str, str]:
        try:
            value = await authorization(self._settings)
        except UNUSABLE as exc:
            raise ApiCredentialsError(problem(exc), readable=False) from None
        if not value:
            return {}
        if not _SENDABLE.fullmatch(value):
            raise ApiCredentialsError("the token cannot be sent in a header field", readable=True)
        return {"Authorization": value}


def failure(exc: Exception) -> ApiError:
    """Return why there is no whole response, in words that repeat nothing of the request."""
    match exc:
        case ApiError():
            return exc
        case aiohttp.ConnectionTimeoutError():
            return ApiUnreachable("it cannot be connected to in time", "the connection timed out", timed_out=True)
        case aiohttp.ClientConnectorCertificateError(certificate_error=ssl.SSLCertVerificationError() as refusal):
            return ApiUnreachable(f"its certificate is not accepted, {refusal.verify_message}")
        case aiohttp.ClientConnectorSSLError():
            return ApiUnreachable("it does not speak TLS as expected")
        case aiohttp.ClientHttpProxyError():
            return ApiUnreachable("the proxy refuses")
        case aiohttp.ClientConnectorDNSError():
            return ApiUnreachable("it cannot be connected to", "its name is not known")
        case aiohttp.ClientConnectorError(os_error=error):
            return ApiUnreachable("it cannot be connected to", os.strerror(error.errno) if error.errno else "")
        case TimeoutError():
            return ApiInterrupted("its response timed out")
        case _Lost() | aiohttp.ClientOSError():
            return ApiInterrupted("the connection broke off")
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientPayloadError() | aiohttp.ClientResponseError():
            return ApiInterrupted("it does not respond in HTTP, or its response broke off")
        case _:
            return ApiInterrupted("the address or the credentials cannot be sent")


class _Lost(aiohttp.ClientError):
    """A connection that was lost before the head of the response."""


class _Redirect(aiohttp.ClientError):
    """A response that sends the client elsewhere."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(status)
        self.status = status
        self.reason = reason


async def _once(request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType) -> aiohttp.ClientResponse:
    """Send a request once and to one server: callers decide when to try again, and credentials go nowhere else."""
    try:
        response = await handler(request)
    except aiohttp.ClientConnectorError:
        raise
    except aiohttp.ServerDisconnectedError as exc:
        raise aiohttp.ClientPayloadError from exc
    except aiohttp.ClientOSError as exc:
        raise _Lost from exc
    if 300 <= response.status < 400:
        response.close()
        raise _Redirect(response.status, response.reason or "without a reason")
    return response


def _query(parameters: Query) -> str:
    return f"?{urlencode(parameters)}" if parameters else ""


def _is_server(address: str) -> bool:
    """Return whether an address is the URL of an HTTP server."""
    try:
        url = URL(address)
        return url.scheme in ("http", "https") and bool(url.host) and url.port is not None
    except ValueError:
        return False


def _context(settings: Configuration, strict: bool) -> ssl.SSLContext:
    """Return how the certificate of the API server is verified, and the certificate that is shown to it.

    Raises:
        ClusterError: the certificates cannot be used.
    """
    try:
        return client_context(
            strict=strict,
            authorities=Path(settings.ssl_ca_cert) if settings.ssl_ca_cert else settings.ca_cert_data,
            certificate=_certificate(settings),
            verify=settings.verify_ssl,
            verify_name=settings.assert_hostname is not False,
        )
    except AuthoritiesUnusable as exc:
        raise ClusterError(f"the certificate authority of the API server {exc}.") from exc
    except (CertificateUnusable, OSError) as exc:
        raise ClusterError("the client certificate for the API server and its key cannot be used.") from exc


def _certificate(settings: Configuration) -> ClientCertificate | None:
    """Return the certificate in the files of the settings, None without one; raise OSError."""
    if not settings.cert_file:
        return None
    key = _pem(settings.key_file) if settings.key_file else ""
    return ClientCertificate(_pem(settings.cert_file), key)


def _pem(path: str) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")  # remarks around a certificate may be anything


def _socket(address: Any) -> socket.socket:
    """Return a socket for an address, as getaddrinfo gives it, that notices when the other machine is gone."""
    family, kind, protocol, _, _ = address
    result = socket.socket(family, kind, protocol)
    for level, option, value in tcp_keepalive_socket_options(*KEEPALIVE):
        result.setsockopt(level, option, value)
    return result
