"""How the gateway authenticates to backends: OAuth2 client credentials (RFC 6749 4.4), field values and client
certificates from Secrets.

A Secret says itself what it may be used for: it names the hosts it is for and the token endpoint, so a route document
that refers to it can send neither the secret nor the token anywhere else. Tokens are cached by the identity of the
credential, fetched once however many requests wait, and renewed before they end. Nothing here puts a secret, a token
or what an endpoint answered into an error or a log line.
"""

import asyncio
import random
import re
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Protocol
from urllib.parse import urlencode, urlsplit

import httpx
import orjson
import structlog
from authlib.oauth2.auth import ClientAuth

from gateway import errors
from gateway.api.v1alpha1 import Backend
from gateway.http.forwarding import NOT_SETTABLE
from gateway.upstream.resolver import AddressResolver
from program.settings import OAuth
from program.tls import CertificateUnusable, ClientCertificate, client_context

log = structlog.get_logger(__name__)

_ANSWER_BYTES: Final = 65536
"""Largest answer of a token endpoint that is read."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_VALUE: Final = re.compile(r"[\x20-\x7e]{1,8192}")
_DEFAULT_LIFE: Final = 60.0
"""Seconds for a token whose endpoint does not say how long it lives."""
_LONGEST_LIFE: Final = 86400.0
_RENEW_AT: Final = 0.8
"""Part of a token's life after which it is renewed; requests go on with the old one meanwhile."""
_WAIT_SECONDS: Final = 5.0
"""How long requests wait for a token that is being fetched, as long as for a connection to a remote backend. Whoever
comes later than that does not wait: the fetch goes on without them, and they have other backends."""
_PAUSE_SECONDS: Final = 1.0
"""Between two requests to one token endpoint: after a failure, and after a renewal that a 401 asked for."""
_SECRET_SECONDS: Final = 30.0
"""After it field values are read again, while requests go on with the old ones; after twice as long they wait."""
_COMPLAINT_SECONDS: Final = 60.0
"""Between two log lines that say the same."""
_ENTRIES: Final = 4096


class SecretReader(Protocol):
    """Where credentials are."""

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """The decoded data of a Secret that carries the label `gateway.beamlit.com/credential`.

        Raises:
            LookupError: there is none of this name, or it does not carry the label.
            OSError: it cannot be read now.
        """
        ...

    async def inline(self, namespace: str, model_deployment: str) -> Mapping[str, str]:
        """The credentials in a ModelDeployment's own remoteBackend, with the keys of a Secret: clientId, clientSecret,
        tokenUrl, optionally scope, and `hosts`, which is that remoteBackend's host.

        Raises:
            LookupError: there are none.
            OSError: they cannot be read now.
        """
        ...


class InNamespace(Protocol):
    """A route, as far as credentials are concerned."""

    @property
    def namespace(self) -> str:
        """The namespace of the route's document, and of the Secrets it may refer to."""
        ...


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """What buys a token."""

    client_id: str
    client_secret: str = field(repr=False)
    token_url: str
    scope: str | None = None


def from_settings(oauth: OAuth) -> ClientCredentials:
    """The credentials of the default remote backend as they are now; a file wins over a value.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is no id or no secret.
    """
    client_id = oauth.client_id_file.read_text().strip() if oauth.client_id_file else oauth.client_id
    secret = oauth.client_secret
    client_secret = (
        oauth.client_secret_file.read_text().strip() if oauth.client_secret_file else secret.get_secret_value()
    )
    if not client_id or not client_secret:
        raise ValueError("clientId and clientSecret must not be empty")
    return ClientCredentials(client_id, client_secret, oauth.token_url, oauth.scope)


@dataclass(slots=True)
class _Entry:
    """The token of one credential."""

    hosts: frozenset[str] | None = None
    """None: those of the gateway's own settings, which are not checked against a Secret."""
    credentials: ClientCredentials | None = None
    """As last read; what counts while they cannot be read."""
    value: bytes = field(default=b"", repr=False)
    renew_at: float = 0.0
    ends_at: float = 0.0
    forced_at: float = float("-inf")
    failed_at: float = float("-inf")
    fetching: "asyncio.Task[None] | None" = None
    fetching_since: float = 0.0


@dataclass(slots=True)
class _Values:
    """The field values of one Secret."""

    data: Mapping[str, str] | None = field(default=None, repr=False)
    """As last read; None when there is none that may be used."""
    tried_at: float = float("-inf")
    forced_at: float = float("-inf")
    reading: "asyncio.Task[None] | None" = None
    certificate: tuple[str, str, ClientCertificate | None] = field(default=("", "", None), repr=False)
    """Of tls.crt and tls.key, what they make; None when they make none."""


class TokenUnusable(Exception):
    """Why there is no token; the reason is one of our own words, the detail has nothing that is secret."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.detail = detail


Identity = tuple[str, str, str]
"""Kind, namespace and name of what holds a credential."""

_DEFAULT: Final[Identity] = ("settings", "", "defaultRemoteBackend")


class Credentials:
    """Tokens and secret field values, for the backends of all routes."""

    def __init__(
        self,
        reader: SecretReader,
        resolver: AddressResolver,
        *,
        default: Callable[[], ClientCredentials] | None = None,
        context: ssl.SSLContext | None = None,
        timeout_seconds: float = 10.0,
        wait_seconds: float = _WAIT_SECONDS,
    ) -> None:
        """Read secrets with `reader`, find token endpoints with `resolver`.

        Args:
            reader: where Secrets are.
            resolver: checks the addresses of token endpoints that a Secret names.
            default: reads the credentials of the install-wide default backend, anew for each token request, so that a
                rotated file counts; raises OSError or ValueError when they cannot be had.
            context: verifies the token endpoints' certificates; the authorities of the system when None.
            timeout_seconds: for a whole token request.
            wait_seconds: after the start of one, in which requests wait for it.
        """
        self._reader = reader
        self._resolver = resolver
        self._default = default
        self._context = context or client_context(strict=False)
        self._timeout = timeout_seconds
        self._wait = wait_seconds
        self._entries: dict[Identity, _Entry] = {}
        self._values: dict[tuple[str, str], _Values] = {}
        self._complaints: dict[tuple[str, ...], float] = {}
        self._loop = asyncio.get_running_loop()

    async def authorization(
        self, route: InNamespace, backend: Backend, *, refresh: bool | bytes = False
    ) -> bytes | None:
        """The Authorization value for `backend`; None when it needs none.

        After a 401 ask again with `refresh`: true, or better the value that was refused, so that of many requests
        that got a 401 one renews the token and the others get the new one.

        Raises:
            errors.CredentialsFailed: there are credentials, and they buy no token for this host, or none but the
                refused one.
        """
        identity = self._identity(route, backend)
        if identity is None:
            return None
        entry = self._entries.get(identity)
        if entry is None:
            if len(self._entries) >= _ENTRIES:
                self._drop_oldest()
            entry = self._entries[identity] = _Entry()
        now = self._loop.time()
        if refresh and entry.value and (refresh is True or refresh == entry.value):
            if now - entry.forced_at >= _PAUSE_SECONDS:
                entry.forced_at = now
                await self._fetched(identity, entry)
            elif entry.fetching is not None:
                await self._fetched(identity, entry)
        elif now >= entry.ends_at:
            if now - entry.failed_at < _PAUSE_SECONDS:
                raise errors.CredentialsFailed
            await self._fetched(identity, entry)
            if self._loop.time() >= entry.ends_at:
                raise errors.CredentialsFailed  # what is left is a token that has ended
        elif now >= entry.renew_at and entry.fetching is None and now - entry.failed_at >= _PAUSE_SECONDS:
            self._start(identity, entry)
        if not entry.value or (entry.value == refresh and entry.failed_at > float("-inf")):
            raise errors.CredentialsFailed  # sending the refused one again would only be refused again
        if not _is_for(entry.hosts, backend):
            self._complain(*identity, f"it is not for the host {backend.host}")
            raise errors.CredentialsFailed
        return entry.value

    async def headers(self, route: InNamespace, backend: Backend, *, refresh: bool = False) -> dict[bytes, bytes]:
        """The fields that `backend.headers.setFrom` names, with their values; names in lower case.

        Raises:
            errors.CredentialsFailed: a Secret is not there, is not for this host, or has no usable value.
        """
        values: dict[bytes, bytes] = {}
        for name, source in backend.headers.set_from.items():
            key = name.lower().encode("ascii")
            if key in NOT_SETTABLE:
                continue
            if backend.default:
                raise errors.CredentialsFailed  # its fields come from the gateway's settings alone
            data = (await self._secret_values(route.namespace, source.name, refresh=refresh)).data or {}
            # A Service is in the Secret's own namespace; whatever is outside must be named by the Secret.
            if backend.service is None and not _is_for(_hosts(data), backend):
                self._complain("Secret", route.namespace, source.name, f"it is not for the host {backend.host}")
                raise errors.CredentialsFailed
            value = data.get(source.key, "").strip()
            if not _VALUE.fullmatch(value):
                self._complain("Secret", route.namespace, source.name, f"{source.key} is missing or no field value")
                raise errors.CredentialsFailed
            values[key] = value.encode("ascii")
        return values

    async def certificate(self, route: InNamespace, backend: Backend) -> ClientCertificate | None:
        """The certificate that `backend.tls.clientCertificate` names; None when it names none.

        It is the same object until the Secret changes.

        Raises:
            errors.CredentialsFailed: the Secret is not there, is not for this host, or has no certificate with its key.
        """
        name = backend.tls.client_certificate
        if name is None:
            return None
        if backend.default:
            raise errors.CredentialsFailed  # what it is shown comes from the gateway's settings alone
        values = await self._secret_values(route.namespace, name, refresh=False)
        data = values.data or {}
        if backend.service is None and not _is_for(_hosts(data), backend):
            self._complain("Secret", route.namespace, name, f"it is not for the host {backend.host}")
            raise errors.CredentialsFailed
        pair = data.get("tls.crt", ""), data.get("tls.key", "")
        if values.certificate[:2] != pair:
            certificate = ClientCertificate(*pair)
            try:
                certificate.check()
            except CertificateUnusable:
                values.certificate = (*pair, None)
            else:
                values.certificate = (*pair, certificate)
        if values.certificate[2] is None:
            self._complain("Secret", route.namespace, name, "tls.crt and tls.key are no certificate with its key")
            raise errors.CredentialsFailed
        return values.certificate[2]

    async def close(self) -> None:
        """Cancel what is under way."""
        fetching = [entry.fetching for entry in self._entries.values()]
        reading = [values.reading for values in self._values.values()]
        tasks = [task for task in (*fetching, *reading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _identity(self, route: InNamespace, backend: Backend) -> Identity | None:
        if backend.default:
            return _DEFAULT if self._default is not None else None
        if backend.credentials is None:
            return None
        oauth2 = backend.credentials.oauth2
        return oauth2.kind, route.namespace, oauth2.name

    async def _secret_values(self, namespace: str, name: str, *, refresh: bool) -> _Values:
        """A Secret whose data is there, read once however many requests wait for it.

        Raises:
            errors.CredentialsFailed: there is none that may be used.
        """
        values = self._values.get((namespace, name))
        if values is None:
            if len(self._values) >= _ENTRIES:
                self._values = {key: one for key, one in self._values.items() if one.reading is not None}
            values = self._values[namespace, name] = _Values()
        now = self._loop.time()
        age = now - values.tried_at
        forced = refresh and now - values.forced_at >= _PAUSE_SECONDS
        if forced:
            values.forced_at = now
        if forced or age >= (_PAUSE_SECONDS if values.data is None else 2 * _SECRET_SECONDS):
            await self._read_values(namespace, name, values)
        elif values.reading is None and age >= _SECRET_SECONDS:
            self._start_reading(namespace, name, values)
        elif values.reading is not None and (refresh or values.data is None):
            await self._read_values(namespace, name, values)
        if values.data is None:
            raise errors.CredentialsFailed
        return values

    def _start_reading(self, namespace: str, name: str, values: _Values) -> "asyncio.Task[None]":
        task = values.reading = self._loop.create_task(self._read_secret(namespace, name, values))
        return task

    async def _read_values(self, namespace: str, name: str, values: _Values) -> None:
        # Shielded, as for tokens.
        await asyncio.shield(values.reading or self._start_reading(namespace, name, values))

    async def _read_secret(self, namespace: str, name: str, values: _Values) -> None:
        """Read a Secret into `values`. While it cannot be read, what was read before stays."""
        try:
            async with asyncio.timeout(self._timeout / 2):
                values.data = await self._reader.secret(namespace, name)
        except LookupError as exc:
            values.data = None
            self._complain("Secret", namespace, name, str(exc))
        except OSError as exc:
            self._complain("Secret", namespace, name, _reason(exc))
        finally:
            values.tried_at = self._loop.time()
            values.reading = None

    def _complain(self, kind: str, namespace: str, name: str, reason: str) -> None:
        """Log why a credential is of no use, each reason once a minute however many requests need it."""
        key = (kind, namespace, name, reason)
        now = self._loop.time()
        if now - self._complaints.get(key, float("-inf")) < _COMPLAINT_SECONDS:
            return
        if len(self._complaints) >= _ENTRIES:
            self._complaints.clear()
        self._complaints[key] = now
        log.warning("credential_unusable", kind=kind, namespace=namespace, name=name, reason=reason)

    def _drop_oldest(self) -> None:
        for identity, entry in self._entries.items():
            if entry.fetching is None:
                del self._entries[identity]
                return

    def _start(self, identity: Identity, entry: _Entry) -> "asyncio.Task[None]":
        entry.fetching_since = self._loop.time()
        task = entry.fetching = self._loop.create_task(self._fetch(identity, entry))
        return task

    async def _fetched(self, identity: Identity, entry: _Entry) -> None:
        """Wait for a token to be fetched.

        Raises:
            errors.CredentialsFailed: it takes too long.
        """
        task = entry.fetching or self._start(identity, entry)
        # Not awaited itself: a request that goes away must not take the token from those that wait with it.
        await asyncio.wait((task,), timeout=max(0.0, entry.fetching_since + self._wait - self._loop.time()))
        if not task.done():
            raise errors.CredentialsFailed
        task.result()

    async def _fetch(self, identity: Identity, entry: _Entry) -> None:
        """Fetch a token into `entry`. A failure leaves a token in place until its own end."""
        try:
            async with asyncio.timeout(self._timeout):
                credentials, hosts = await self._read(identity, entry)
                value, life = await self._buy(credentials, trusted=identity == _DEFAULT)
        except (TokenUnusable, errors.UpstreamError, errors.RoutingError, httpx.HTTPError, OSError) as exc:
            entry.failed_at = self._loop.time()
            reason = exc.reason if isinstance(exc, TokenUnusable) else type(exc).__name__
            detail = exc.detail if isinstance(exc, TokenUnusable) else ""
            kind, namespace, name = identity
            log.warning("token_unavailable", kind=kind, namespace=namespace, name=name, reason=reason, detail=detail)
            if isinstance(exc, TokenUnusable) and exc.reason == "credential_missing":
                # Withdrawn: what it bought is not used any longer.
                entry.value, entry.ends_at, entry.credentials = b"", 0.0, None
        else:
            now = self._loop.time()
            entry.hosts, entry.credentials, entry.value = hosts, credentials, value
            entry.ends_at = now + life
            # Not all replicas at the same moment.
            entry.renew_at = now + life * (_RENEW_AT - 0.05 * random.random())  # noqa: S311
            entry.failed_at = float("-inf")
        finally:
            entry.fetching = None

    async def _read(self, identity: Identity, entry: _Entry) -> tuple[ClientCredentials, frozenset[str] | None]:
        kind, namespace, name = identity
        if identity == _DEFAULT:
            if self._default is None:
                raise TokenUnusable("credential_missing")
            try:
                return self._default(), None
            except ValueError as exc:
                raise TokenUnusable("credential_incomplete", str(exc)) from None
            except OSError as exc:
                raise TokenUnusable("credential_unreadable", _reason(exc)) from None
        try:
            read = self._reader.inline if kind == "ModelDeployment" else self._reader.secret
            async with asyncio.timeout(self._timeout / 2):
                data = await read(namespace, name)
        except LookupError as exc:
            raise TokenUnusable("credential_missing", str(exc)) from None
        except OSError as exc:
            if entry.credentials is None:
                raise TokenUnusable("credential_unreadable", _reason(exc)) from None
            self._complain(kind, namespace, name, _reason(exc))
            return entry.credentials, entry.hosts  # the API server may be away for longer than a token lives
        try:
            credentials = ClientCredentials(
                data["clientId"].strip(), data["clientSecret"].strip(), data["tokenUrl"].strip(), data.get("scope")
            )
        except KeyError as exc:
            raise TokenUnusable("credential_incomplete", f"there is no {exc.args[0]}") from None
        return credentials, _hosts(data)

    async def _buy(self, credentials: ClientCredentials, *, trusted: bool) -> tuple[bytes, float]:
        _check_url(credentials.token_url)
        form = {"grant_type": "client_credentials"} | ({"scope": credentials.scope} if credentials.scope else {})
        auth = ClientAuth(credentials.client_id, credentials.client_secret, "client_secret_basic")
        url, headers, body = auth.prepare(
            "POST",
            credentials.token_url,
            {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
            urlencode(form),
        )
        # authlib's own clients change their base class with what is installed, so it only makes the request here.
        transport = _CheckedTransport(self._resolver, self._context, trusted=trusted)
        try:
            async with httpx.AsyncClient(
                transport=transport, timeout=self._timeout, follow_redirects=False, trust_env=False
            ) as client:
                response = await client.post(url, headers=headers, content=body)
        except httpx.InvalidURL:
            raise TokenUnusable("token_url_invalid") from None
        if response.status_code != 200:
            raise TokenUnusable(f"token_status_{response.status_code}")
        try:
            answer = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            raise TokenUnusable("token_answer_invalid") from None
        return read_token(answer)


class _CheckedTransport(httpx.AsyncBaseTransport):
    """Connects to the address that was checked, reads no more than it must, and never decompresses."""

    def __init__(self, resolver: AddressResolver, context: ssl.SSLContext, *, trusted: bool) -> None:
        self._resolver = resolver
        self._trusted = trusted
        self._inner = httpx.AsyncHTTPTransport(verify=context, trust_env=False, http2=False, retries=0)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        host = request.url.host
        port = request.url.port or (443 if request.url.scheme == "https" else 80)
        address, to_port = (await self._resolver.resolve(host, port, trusted=self._trusted))[0]
        # The Host field was made from the name already; certificate and SNI stay with the name too.
        request.url = request.url.copy_with(host=address, port=to_port)
        request.extensions = {**request.extensions, "sni_hostname": host}
        request.headers["accept-encoding"] = "identity"
        response = await self._inner.handle_async_request(request)
        try:
            if "content-encoding" in response.headers:
                raise TokenUnusable("token_answer_invalid")
            body = b""
            async for piece in response.aiter_raw():
                body += piece
                if len(body) > _ANSWER_BYTES:
                    raise TokenUnusable("token_answer_too_large")
        finally:
            await response.aclose()
        return httpx.Response(response.status_code, headers={"content-type": "application/json"}, content=body)

    async def aclose(self) -> None:
        await self._inner.aclose()


def read_token(answer: object) -> tuple[bytes, float]:
    """The Authorization value and the life in seconds that a token endpoint's answer gives (RFC 6749 5.1).

    Raises:
        TokenUnusable: it is not a bearer token that can be sent in a field, or it has no life.
    """
    if not isinstance(answer, Mapping):
        raise TokenUnusable("token_answer_invalid")
    token = answer.get("access_token")
    if not isinstance(token, str) or not _TOKEN.fullmatch(token):
        raise TokenUnusable("token_invalid")
    if str(answer.get("token_type", "bearer")).lower() != "bearer":
        raise TokenUnusable("token_type_unknown")
    given = answer.get("expires_in")
    if given is None:
        return b"Bearer " + token.encode("ascii"), _DEFAULT_LIFE
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        raise TokenUnusable("token_life_invalid")
    try:
        life = float(given)
    except (ValueError, OverflowError):
        raise TokenUnusable("token_life_invalid") from None
    if not life > 0:
        raise TokenUnusable("token_life_invalid")
    return b"Bearer " + token.encode("ascii"), min(life, _LONGEST_LIFE)


def _check_url(url: str) -> None:
    """A token URL is absolute http or https, and carries neither a user nor a fragment."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise TokenUnusable("token_url_invalid") from None
    clean = parts.geturl() == url and url.isascii() and url.isprintable() and " " not in url
    if not clean or parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise TokenUnusable("token_url_invalid")
    if "@" in parts.netloc or parts.fragment:
        raise TokenUnusable("token_url_invalid")


def _reason(exc: OSError) -> str:
    """Why a credential cannot be read: the API server's or the kernel's words, never content."""
    return exc.strerror or str(exc) or type(exc).__name__


def _hosts(data: Mapping[str, str]) -> frozenset[str]:
    return frozenset(host.lower().removesuffix(".") for host in re.split(r"[\s,]+", data.get("hosts", "")) if host)


def _is_for(hosts: frozenset[str] | None, backend: Backend) -> bool:
    """Whether a credential for `hosts` may be used at `backend`: as `host`, or as `host:port`."""
    if hosts is None:
        return backend.default
    if backend.host is None:
        return False
    host = backend.host.lower().removesuffix(".")
    port = backend.port or (443 if backend.scheme == "https" else 80)
    return host in hosts or f"{host}:{port}" in hosts
