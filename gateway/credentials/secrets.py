"""Secrets of routes: header values and client certificates, and what every use of a Secret is checked for.

A Secret says itself what it may be used for: it names the hosts it is for, so a route document that refers to it can
send it nowhere else. Nothing here puts what is in a Secret into an error or a log line.
"""

import asyncio
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import structlog

from gateway import errors
from gateway.api.v1alpha1 import Backend
from gateway.http.forwarding import is_settable
from program.tls import CertificateUnusable, ClientCertificate

log = structlog.get_logger(__name__)

_VALUE: Final = re.compile(r"[\x20-\x7e]{1,8192}")
_PAUSE_SECONDS: Final = 1.0
"""Seconds between two reads of a Secret: after a failure, and after a read that a 401 asked for."""
_FRESH_SECONDS: Final = 30.0
"""Seconds after which values are read again, while requests go on with the old ones. After twice as long they wait."""
_COMPLAINT_SECONDS: Final = 60.0
"""Seconds between two log lines that say the same."""
_ENTRIES: Final = 4096
"""Largest number of Secrets whose values are remembered, and of log lines."""


class SecretReader(Protocol):
    """Reads credentials where they are stored."""

    async def secret(self, namespace: str, name: str) -> Mapping[str, str]:
        """Return the decoded data of a Secret that carries the label `gateway.beamlit.com/credential`.

        Raises:
            LookupError: there is none of this name, or it does not carry the label.
            OSError: it cannot be read now.
        """
        ...

    async def inline(self, namespace: str, model_deployment: str) -> Mapping[str, str]:
        """Return the credentials in a ModelDeployment's own remoteBackend, with the keys of a Secret.

        `hosts` is that remoteBackend's host.

        Raises:
            LookupError: there are none.
            OSError: they cannot be read now.
        """
        ...


class InNamespace(Protocol):
    """A route, as far as credentials are concerned."""

    @property
    def namespace(self) -> str:
        """Namespace of the route's document, and of the Secrets it may refer to."""
        ...


class Complaints:
    """Log lines about credentials that are of no use, each once a minute however many requests need them."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._written: dict[tuple[str, ...], float] = {}

    def write(self, kind: str, namespace: str, name: str, reason: str) -> None:
        """Log why a credential is of no use, unless it was logged a moment ago."""
        key = (kind, namespace, name, reason)
        now = self._loop.time()
        if now - self._written.get(key, float("-inf")) < _COMPLAINT_SECONDS:
            return
        if len(self._written) >= _ENTRIES:
            self._written.clear()
        self._written[key] = now
        log.warning("credential_unusable", kind=kind, namespace=namespace, name=name, reason=reason)


class Content(Protocol):
    """Content of one Secret, as its user needs it."""

    @property
    def is_known(self) -> bool:
        """Whether there is something to use."""
        ...

    def take(self, data: Mapping[str, str]) -> None:
        """Take the data that the Secret has now."""
        ...

    def lose(self) -> None:
        """Take note that there is no Secret of this name any more, or that it may not be used."""
        ...


_Content = TypeVar("_Content", bound=Content)


class _Entry(Generic[_Content]):
    """One Secret of a cache."""

    __slots__ = ("content", "forced_at", "problem", "reading", "tried_at")

    def __init__(self, content: _Content) -> None:
        self.content = content
        self.tried_at = float("-inf")
        self.forced_at = float("-inf")
        self.reading: asyncio.Task[None] | None = None
        self.problem = ""
        """Why the last read failed; empty where it did not."""


class SecretCache(Generic[_Content]):
    """Secrets that are read by name when a request first needs them, each once for all who wait for it.

    While one cannot be read, what was read before stays.
    """

    def __init__(
        self,
        reader: SecretReader,
        complaints: Complaints,
        new: Callable[[str, str], _Content],
        *,
        timeout_seconds: float,
        fresh_seconds: float | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            reader: Reads Secrets.
            complaints: Log of Secrets that are of no use.
            new: Function that returns the content of a Secret before it is read, by its namespace and name.
            timeout_seconds: Seconds of the longest read.
            fresh_seconds: Seconds after which a Secret is read again, while requests go on with what was read before.
                After twice as long they wait.
        """
        self._reader = reader
        self._complaints = complaints
        self._new = new
        self._timeout = timeout_seconds
        self._fresh = _FRESH_SECONDS if fresh_seconds is None else fresh_seconds
        self._entries: dict[tuple[str, str], _Entry[_Content]] = {}
        self._loop = asyncio.get_running_loop()

    async def read(self, namespace: str, name: str, *, refresh: bool = False) -> _Content:
        """Return the content of a Secret, read again before that where it was refused (`refresh`)."""
        entry = self._entries.get((namespace, name))
        if entry is None:
            if len(self._entries) >= _ENTRIES:
                self._entries = {key: one for key, one in self._entries.items() if one.reading is not None}
            entry = self._entries[namespace, name] = _Entry(self._new(namespace, name))
        now = self._loop.time()
        age = now - entry.tried_at
        forced = refresh and now - entry.forced_at >= _PAUSE_SECONDS
        if forced:
            entry.forced_at = now
        # What was revoked must not live on because there were no requests for a while.
        if forced or age >= (2 * self._fresh if entry.content.is_known else _PAUSE_SECONDS):
            await self._wait(namespace, name, entry)
        elif entry.reading is None and age >= self._fresh:
            self._start(namespace, name, entry)
        elif entry.reading is not None and (refresh or not entry.content.is_known):
            await self._wait(namespace, name, entry)
        return entry.content

    def problem(self, namespace: str, name: str) -> str:
        """Return why the last read of a Secret failed; empty where it did not, or there was none."""
        entry = self._entries.get((namespace, name))
        return "" if entry is None else entry.problem

    async def close(self) -> None:
        """Cancel reads that are under way."""
        tasks = [entry.reading for entry in self._entries.values() if entry.reading is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, namespace: str, name: str, entry: _Entry[_Content]) -> "asyncio.Task[None]":
        task = entry.reading = self._loop.create_task(self._refresh(namespace, name, entry))
        return task

    async def _wait(self, namespace: str, name: str, entry: _Entry[_Content]) -> None:
        # Shielded: a request that goes away must not take the Secret from those that wait with it.
        await asyncio.shield(entry.reading or self._start(namespace, name, entry))

    async def _refresh(self, namespace: str, name: str, entry: _Entry[_Content]) -> None:
        try:
            async with asyncio.timeout(self._timeout):
                data = await self._reader.secret(namespace, name)
        except LookupError as exc:
            entry.content.lose()
            entry.problem = str(exc)
            self._complaints.write("Secret", namespace, name, entry.problem)
        except OSError as exc:
            entry.problem = problem(exc)
            self._complaints.write("Secret", namespace, name, entry.problem)
        else:
            entry.content.take(data)
            entry.problem = ""
        finally:
            entry.tried_at = self._loop.time()
            entry.reading = None


@dataclass(slots=True)
class _Values:
    """Values of one Secret."""

    data: Mapping[str, str] | None = field(default=None, repr=False)
    """Data of the Secret as last read; None when there is none that may be used."""
    certificate: tuple[str, str, ClientCertificate | None] = field(default=("", "", None), repr=False)
    """Values of tls.crt and tls.key, and the certificate that they are; None when they are none."""

    @property
    def is_known(self) -> bool:
        """Whether there is data."""
        return self.data is not None

    def take(self, data: Mapping[str, str]) -> None:
        """Take the data that the Secret has now."""
        self.data = data

    def lose(self) -> None:
        """Forget the data."""
        self.data = None


class SecretValues:
    """Header values and client certificates from Secrets."""

    def __init__(
        self,
        reader: SecretReader,
        complaints: Complaints,
        *,
        timeout_seconds: float,
        certificate_seen: Callable[[str, str], None] = lambda *_: None,
    ) -> None:
        """Read Secrets with `reader`, each for `timeout_seconds` at most; report certificates to `certificate_seen`."""
        self._certificate_seen = certificate_seen
        self._complaints = complaints
        self._secrets = SecretCache(reader, complaints, lambda *_: _Values(), timeout_seconds=timeout_seconds)

    async def headers(self, route: InNamespace, backend: Backend, *, refresh: bool = False) -> dict[bytes, bytes]:
        """Return the fields that `backend.headers.setFrom` names, with their values; names in lower case.

        Raises:
            errors.CredentialsFailed: a Secret is not there, is not for this host, or has no usable value.
        """
        values: dict[bytes, bytes] = {}
        for name, source in backend.headers.set_from.items():
            key = name.lower().encode("ascii")
            if not is_settable(key, appends=backend.gets_forwarded):
                continue
            if backend.default:
                raise errors.CredentialsFailed  # its fields come from the gateway's settings alone
            data = (await self._read(route.namespace, source.name, refresh=refresh)).data or {}
            self._check_host(route.namespace, source.name, data, backend)
            value = data.get(source.key, "").strip()
            if not _VALUE.fullmatch(value):
                raise self._refused(route.namespace, source.name, f"{source.key} is missing or no field value")
            values[key] = value.encode("ascii")
        return values

    async def certificate(
        self, route: InNamespace, backend: Backend, *, refresh: bool = False
    ) -> ClientCertificate | None:
        """Return the certificate that `backend.tls.clientCertificate` names; None when it names none.

        It is the same object until the Secret changes.

        Raises:
            errors.CredentialsFailed: the Secret is not there, is not for this host, or has no certificate with its key.
        """
        name = backend.tls.client_certificate
        if name is None:
            return None
        if backend.default:
            raise errors.CredentialsFailed  # what it is shown comes from the gateway's settings alone
        values = await self._read(route.namespace, name, refresh=refresh)
        data = values.data or {}
        self._check_host(route.namespace, name, data, backend)
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
            raise self._refused(route.namespace, name, "tls.crt and tls.key are no certificate with its key")
        self._certificate_seen(f"{route.namespace}/{name}", pair[0])
        return values.certificate[2]

    async def close(self) -> None:
        """Cancel reads that are under way."""
        await self._secrets.close()

    def _check_host(self, namespace: str, name: str, data: Mapping[str, str], backend: Backend) -> None:
        # A Service is in the Secret's own namespace. Whatever is outside must be named by the Secret.
        if backend.service is None and not is_for(hosts_in(data), backend):
            raise self._refused(namespace, name, f"it is not for the host {backend.host}")

    def _refused(self, namespace: str, name: str, reason: str) -> errors.CredentialsFailed:
        """Log why a Secret is of no use; return the error that says it."""
        self._complaints.write("Secret", namespace, name, reason)
        return errors.CredentialsFailed(reason, source=f"Secret {namespace}/{name}")

    async def _read(self, namespace: str, name: str, *, refresh: bool) -> _Values:
        """Return a Secret whose data is there.

        Raises:
            errors.CredentialsFailed: there is none that may be used.
        """
        values = await self._secrets.read(namespace, name, refresh=refresh)
        if values.data is None:
            reason = self._secrets.problem(namespace, name)
            raise errors.CredentialsFailed(reason, source=f"Secret {namespace}/{name}")
        return values


def problem(exc: OSError) -> str:
    """Return why a credential cannot be read, in the words of the API server or the kernel, never its content."""
    return exc.strerror or str(exc) or type(exc).__name__


def hosts_in(data: Mapping[str, str]) -> frozenset[str]:
    """Return the hosts that a Secret names, each as `host` or `host:port`."""
    return frozenset(host.lower().removesuffix(".") for host in re.split(r"[\s,]+", data.get("hosts", "")) if host)


def is_for(hosts: frozenset[str] | None, backend: Backend) -> bool:
    """Return whether a credential for `hosts` may be used at a backend.

    Args:
        hosts: hosts that the Secret names; None for the credentials of the default remote backend.
        backend: where the credential is to be sent.
    """
    if hosts is None:
        return backend.default
    if backend.host is None:
        return False
    host = backend.host.lower().removesuffix(".")
    port = backend.port or (443 if backend.scheme == "https" else 80)
    return host in hosts or f"{host}:{port}" in hosts
