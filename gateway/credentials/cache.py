"""How the gateway authenticates to backends: OAuth 2.0 tokens, field values and client certificates.

For OAuth 2.0 a Secret names the hosts it is for and the token endpoint, so a route document that refers to it can send
neither the secret nor the token anywhere else. Tokens are cached by the identity of the credential. Nothing here puts a
secret, a token or what an endpoint wrote into an error or a log line.
"""

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import astuple
from hashlib import blake2b
from pathlib import Path
from secrets import token_bytes
from typing import TYPE_CHECKING, Final, Literal, TypeVar

from gateway import errors
from gateway.api.v1alpha1 import Backend
from gateway.credentials.secrets import Complaints, InNamespace, SecretReader, SecretValues, hosts_in, is_for, problem
from gateway.credentials.token_endpoint import TokenEndpoints
from gateway.upstream.resolver import AddressResolver
from program.oauth import credentials as oauth
from program.oauth.cache import Pacing, TokenCache
from program.oauth.client import TokenClient
from program.oauth.credentials import ClientCredentials
from program.oauth.errors import TokenUnavailable
from program.oauth.responses import Token
from program.settings import OAuth
from program.tls import ClientCertificate

if TYPE_CHECKING:
    from program.addresses import Destination

_WAIT_SECONDS: Final = 5.0
"""Seconds that requests wait for a token that is being fetched, as long as for a connection to a remote backend. After
that the fetch goes on without them: they have other backends."""
_PAUSE_SECONDS: Final = 1.0
"""Seconds between two fetches of one token: after a failure, and after a renewal that a 401 asked for."""
_ENTRIES: Final = 4096
"""Largest number of tokens that are held."""

_T = TypeVar("_T")

TokenResult = Literal["ok", "refused", "failed"]
"""Result of a token request: a token, a refusal by the endpoint, or a failure of another kind."""

Identity = tuple[str, str, str]
"""Kind, namespace and name of what holds a credential."""

_DEFAULT: Final[Identity] = ("settings", "", "defaultRemoteBackend")


def from_settings(settings: OAuth) -> ClientCredentials:
    """Return the credentials of the default remote backend as they are now; a file wins over a value.

    Raises:
        OSError: a file cannot be read.
        ValueError: there is no id or no secret.
    """
    client_id, secret = settings.client_id, settings.client_secret.get_secret_value()
    if settings.client_id_file:
        client_id = _text(settings.client_id_file).strip()
    if settings.client_secret_file:
        secret = _text(settings.client_secret_file).strip()
    if not client_id or not secret:
        raise ValueError("clientId and clientSecret must not be empty")
    return ClientCredentials(
        client_id,
        secret,
        settings.token_url,
        settings.scope,
        audience=settings.audience,
        resources=tuple((settings.resource or "").split()),
        parameters=tuple(settings.parameters.items()),
        token_auth=settings.token_auth,
        authorities=_text(settings.ca_file) if settings.ca_file else None,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path} is not UTF-8") from None  # the error itself repeats a byte of the file


def from_secret(data: Mapping[str, str]) -> ClientCredentials:
    """Return the credentials in the data of a Secret.

    Raises:
        KeyError: a key is missing that there must be.
        ValueError: a key has a value that cannot be used; the message does not repeat it.
    """
    authorities, more = data.get("ca.crt", "").strip(), data.get("tls.caBundle", "").strip()
    return ClientCredentials(
        data["clientId"].strip(),
        data["clientSecret"].strip(),
        data["tokenUrl"].strip(),
        data.get("scope"),
        audience=data.get("audience", "").strip() or None,
        resources=tuple(data.get("resource", "").split()),
        parameters=_read(data, "parameters", oauth.parameter_lines, ()),
        token_auth=_read(data, "tokenAuth", oauth.token_auth, None),
        authorities=authorities or more or None,
        trusts_system=not authorities and bool(more),
    )


def _read(data: Mapping[str, str], key: str, read: Callable[[str], _T], absent: _T) -> _T:
    """Return what a key of a Secret means; `absent` when it is not there, or blank.

    Raises:
        ValueError: its value cannot be used; the message names the key and does not repeat the value.
    """
    text = data.get(key, "").strip()
    try:
        return read(text) if text else absent
    except ValueError as exc:
        raise ValueError(f"{key} {exc}") from None


def _source(identity: Identity) -> str:
    """Return what has a credential, in the words of a sentence."""
    if identity == _DEFAULT:
        return "the section defaultRemoteBackend of the configuration"
    kind, namespace, name = identity
    return f"{kind} {namespace}/{name}"


class _Entry:
    """The token of one credential, and where it may be sent."""

    __slots__ = ("credentials", "hosts", "token")

    def __init__(self, token: TokenCache) -> None:
        self.token = token
        self.hosts: frozenset[str] | None = None
        """Hosts that the Secret named when the token was fetched; None for the gateway's own settings."""
        self.credentials: ClientCredentials | None = None
        """Credentials that got a token last; they count while they cannot be read, or are of no use."""


class Credentials:
    """Tokens, secret field values and client certificates, for the backends of all routes."""

    def __init__(
        self,
        reader: SecretReader,
        resolver: AddressResolver,
        *,
        default: Callable[[], ClientCredentials] | None = None,
        strict_tls: bool = False,
        timeout_seconds: float = 10.0,
        wait_seconds: float = _WAIT_SECONDS,
        token_request: Callable[[TokenResult], None] = lambda _: None,
        certificate_seen: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """Read secrets with `reader`, find token endpoints with `resolver`.

        Args:
            reader: reads Secrets.
            resolver: checks the addresses of token endpoints that a Secret names.
            default: reads the credentials of the install-wide default backend, anew for each token request, so that a
                rotated file counts; raises OSError or ValueError when they cannot be had.
            strict_tls: whether certificates of token endpoints must follow RFC 5280 to the letter.
            timeout_seconds: seconds for a whole token request.
            wait_seconds: seconds after the start of one in which requests wait for it.
            token_request: called with the result of each token request.
            certificate_seen: called with namespace and name of the Secret, and the chain in PEM, for each client
                certificate that is used.
        """
        self._reader = reader
        self._default = default
        self._timeout = timeout_seconds
        self._pacing = Pacing(wait_seconds, _PAUSE_SECONDS, _PAUSE_SECONDS, _PAUSE_SECONDS)
        self._complaints = Complaints()
        self._values = SecretValues(
            reader, self._complaints, timeout_seconds=timeout_seconds / 2, certificate_seen=certificate_seen
        )
        self._endpoints = TokenEndpoints(resolver, timeout_seconds=timeout_seconds, strict_tls=strict_tls)
        self._client = TokenClient()
        self._token_request = token_request
        self._entries: dict[Identity, _Entry] = {}
        self._salt = token_bytes(32)
        """Key of the fingerprints, so that they tell nothing about credentials."""

    async def authorization(
        self, route: InNamespace, backend: Backend, *, refresh: bool | bytes = False
    ) -> bytes | None:
        """Return the Authorization value for `backend`; None when it needs none.

        After a 401 ask again with `refresh`: true, or better the value that was refused, so that of many requests
        that got a 401 one renews the token and the others get the new one.

        Raises:
            errors.CredentialsFailed: there are credentials, and they buy no token for this host, or none but the
                refused one.
        """
        identity = self._identity(route, backend)
        if identity is None:
            return None
        entry = self._entries.get(identity) or self._add(identity)
        value = b"" if refresh else entry.token.ready(time.monotonic())
        if not value:
            refused = entry.token.value if refresh is True else refresh or b""
            try:
                value = await entry.token.authorization(refused)
            except TokenUnavailable as exc:
                raise errors.CredentialsFailed(source=_source(identity), unavailable=exc.again()) from None
        if not is_for(entry.hosts, backend):
            reason = f"it is not for the host {backend.host}"
            self._complaints.write(*identity, reason)
            raise errors.CredentialsFailed(reason, source=_source(identity))
        return value

    async def headers(self, route: InNamespace, backend: Backend, *, refresh: bool = False) -> dict[bytes, bytes]:
        """Return the fields that `backend.headers.setFrom` names, with their values; names in lower case.

        Raises:
            errors.CredentialsFailed: a Secret is not there, is not for this host, or has no usable value.
        """
        return await self._values.headers(route, backend, refresh=refresh)

    async def certificate(
        self, route: InNamespace, backend: Backend, *, refresh: bool = False
    ) -> ClientCertificate | None:
        """Return the certificate that `backend.tls.clientCertificate` names; None when it names none.

        It is the same object until the Secret changes.

        Raises:
            errors.CredentialsFailed: the Secret is not there, is not for this host, or has no certificate with its key.
        """
        return await self._values.certificate(route, backend, refresh=refresh)

    def sources(self, route: InNamespace, backend: Backend) -> frozenset[Identity]:
        """Return what holds the credentials for `backend`."""
        token = self._identity(route, backend)
        names = {source.name for source in backend.headers.set_from.values()}
        if backend.tls.client_certificate is not None:
            names.add(backend.tls.client_certificate)
        secrets: list[Identity] = [("Secret", route.namespace, name) for name in names]
        return frozenset(secrets if token is None else (*secrets, token))

    async def fingerprint(self, source: Identity) -> bytes | None:
        """Return bytes that change with what a source of credentials holds now; None where it cannot be read.

        They tell nothing about it, and those of another process are others.
        """
        try:
            if source == _DEFAULT:
                text = "" if self._default is None else repr(astuple(self._default()))
            else:
                text = repr(sorted((await self._data(source)).items()))
        except TokenUnavailable:
            text = ""
        except (OSError, ValueError):
            return None
        return blake2b(text.encode(), key=self._salt).digest()

    async def close(self) -> None:
        """Cancel what is under way."""
        await asyncio.gather(*(entry.token.close() for entry in self._entries.values()), self._values.close())

    def _identity(self, route: InNamespace, backend: Backend) -> Identity | None:
        if backend.default:
            return _DEFAULT if self._default is not None else None
        if backend.credentials is None:
            return None
        oauth2 = backend.credentials.oauth2
        return oauth2.kind, route.namespace, oauth2.name

    def _add(self, identity: Identity) -> _Entry:
        if len(self._entries) >= _ENTRIES:
            self._drop_oldest()
        kind, namespace, name = identity

        async def fetch() -> Token:
            try:
                token = await self._fetch(identity, entry)
            except TokenUnavailable as exc:
                self._token_request("refused" if exc.refused else "failed")
                raise
            self._token_request("ok")
            return token

        entry = _Entry(TokenCache(fetch, self._pacing, lambda: {"kind": kind, "namespace": namespace, "name": name}))
        self._entries[identity] = entry
        return entry

    def _drop_oldest(self) -> None:
        for identity, entry in self._entries.items():
            if not entry.token.busy:
                del self._entries[identity]
                return

    async def _fetch(self, identity: Identity, entry: _Entry) -> Token:
        """Return a new token, and note in `entry` where it may be sent.

        Raises:
            TokenUnavailable: there is none.
        """
        endpoint = ""
        try:
            async with asyncio.timeout(self._timeout):
                credentials, hosts = await self._read(identity, entry)
                endpoint = credentials.endpoint
                try:
                    context = self._endpoints.context(credentials)
                except ValueError as exc:
                    if entry.credentials is None:
                        raise TokenUnavailable("credential_invalid", str(exc)) from None
                    self._complaints.write(*identity, str(exc))
                    context = self._endpoints.context(entry.credentials)
                    credentials = entry.credentials
                _, namespace, name = identity
                destination: Destination = "configured" if identity == _DEFAULT else "remote"
                owner = "" if identity == _DEFAULT else f"{namespace}/{name}"
                async with self._endpoints.open(context, destination=destination, owner=owner) as send:
                    token = await self._client.fetch(credentials, send)
        except TimeoutError:
            late = TokenUnavailable("timed_out")
            late.endpoint = endpoint
            raise late from None
        except TokenUnavailable as exc:
            if exc.withdrawn:
                entry.credentials = None
            raise
        entry.hosts, entry.credentials = hosts, credentials
        return token

    async def _read(self, identity: Identity, entry: _Entry) -> tuple[ClientCredentials, frozenset[str] | None]:
        """Return credentials as they are now, and the hosts they are for.

        While they cannot be read, or a setting in them is of no use, those that got a token last stay in force.
        """
        hosts: frozenset[str] | None = None
        try:
            if identity == _DEFAULT:
                if self._default is None:
                    raise TokenUnavailable("credential_missing")
                return self._default(), hosts
            data = await self._data(identity)
            hosts = hosts_in(data)
            return from_secret(data), hosts
        except KeyError as exc:
            raise TokenUnavailable("credential_incomplete", f"there is no {exc.args[0]}") from None
        except ValueError as exc:
            if identity == _DEFAULT:
                raise TokenUnavailable("credential_incomplete", str(exc)) from None
            if entry.credentials is None:
                raise TokenUnavailable("credential_invalid", str(exc)) from None
            self._complaints.write(*identity, str(exc))
            return entry.credentials, hosts
        except OSError as exc:
            if entry.credentials is None:
                raise TokenUnavailable("credential_unreadable", problem(exc)) from None
            self._complaints.write(*identity, problem(exc))
            return entry.credentials, entry.hosts  # the API server may be away for longer than a token lives

    async def _data(self, identity: Identity) -> Mapping[str, str]:
        """Return the data of what holds a credential.

        Raises:
            OSError: it cannot be read now.
            TokenUnavailable: there is none.
        """
        kind, namespace, name = identity
        read = self._reader.inline if kind == "ModelDeployment" else self._reader.secret
        try:
            async with asyncio.timeout(self._timeout / 2):
                return await read(namespace, name)
        except LookupError as exc:
            raise TokenUnavailable("credential_missing", str(exc)) from None
