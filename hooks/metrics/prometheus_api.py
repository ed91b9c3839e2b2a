"""The HTTP API of a Prometheus-compatible server: instant queries, authentication, certificate authorities, errors.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

import base64
import re
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Final, Protocol

import orjson
import structlog

from hooks import reasons
from hooks.clients import urls
from hooks.clients.errors import Api, CallFailed
from hooks.clients.http import HttpClient
from hooks.kube.objects import Object
from hooks.kube.unstructured import text
from hooks.metrics import vectors
from hooks.metrics.vectors import Point
from hooks.settings import Prometheus
from hooks.telemetry import Metrics
from program.excerpts import cut
from program.settings import SettingsError
from program.tls import AuthoritiesUnusable, client_context
from program.watched_file import FileMissing, FileUnusable, WatchedFile, stripped

API: Final = Api("prometheus", "The Prometheus server")
PATH: Final = "/api/v1/query"
"""Path of instant queries."""
LONG: Final = 2000
"""Characters of an expression above which it is sent in a request body, because proxies limit URLs."""
RESPONSE_BYTES: Final = 8 << 20
"""Bytes that the result of a query may have."""
WARNED: Final = 1000
"""Expressions of which is remembered that their warnings were logged."""
_SECTION: Final = "metricInformer.prometheus"
_VISIBLE: Final = re.compile(rb"[\x20-\x7e]+")

log = structlog.get_logger(__name__)


class QuerySource(Protocol):
    """A Prometheus server, whichever client makes the calls."""

    async def query(self, expression: str, /) -> tuple[Point, ...]:
        """Return the values that an expression has now, as `PrometheusServer.query` does."""


class PrometheusServer:
    """A client for one Prometheus server, with its credentials."""

    def __init__(self, settings: Prometheus, metrics: Metrics, *, strict_tls: bool = False) -> None:
        """Connect to nothing yet, and read the files that the settings name.

        Args:
            settings: settings of the server.
            metrics: counts requests and warnings.
            strict_tls: whether the server's certificate must follow RFC 5280 to the letter.

        Raises:
            SettingsError: one of the files cannot be used.
        """
        self._settings = settings
        self._metrics = metrics
        self._strict_tls = strict_tls
        self._username = _credential(settings.username_file, "usernameFile")
        self._password = _credential(settings.password_file, "passwordFile")
        self._bearer = _credential(settings.bearer_file, "bearerFile")
        self._contexts = self._watched_context()
        self._context = self._context_of(None) if self._contexts is None else self._contexts.latest()
        self._client = self._connect()
        self._warned: OrderedDict[str, None] = OrderedDict()

    async def query(self, expression: str) -> tuple[Point, ...]:
        """Return the values that an expression has now.

        Raises:
            CallFailed: the server returns none that hooks can use.
        """
        await self._renew()
        parameters = [("query", expression), ("timeout", f"{self._settings.timeout_seconds:g}s")]
        send = self._client.post if len(expression) > LONG else self._client.get
        response = await send(API, PATH, parameters, RESPONSE_BYTES)
        content = _content(response.body)
        if response.status != 200 or content is None or text(content, "status") != "success":
            raise _refusal(response.status, content)
        if content.get("warnings") or content.get("infos"):
            self._metrics.source_warnings.inc()
            if expression not in self._warned:
                self._warned[expression] = None
                log.warning("prometheus_warning", query=expression, said=_warnings(content))
                if len(self._warned) > WARNED:
                    self._warned.popitem(last=False)
        try:
            return vectors.points(content)
        except vectors.ResultUnusable as exc:
            raise CallFailed(reasons.REFUSED, str(exc)) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.close()

    def _watched_context(self) -> WatchedFile[ssl.SSLContext] | None:
        """Return the context for the authorities in `caFile`; None when those of the system count.

        Raises:
            SettingsError: the file holds no authorities.
        """
        path = self._settings.ca_file
        if path is None:
            return None

        def report(problem: FileUnusable) -> None:
            log.warning("prometheus_authorities_unusable", file=str(path), problem=str(problem))

        contexts = WatchedFile(path, self._context_of, report=report)
        try:
            contexts.first()
        except FileUnusable as exc:
            raise SettingsError(f"{_SECTION}.caFile {path} {exc}.") from exc
        return contexts

    def _context_of(self, authorities: bytes | None) -> ssl.SSLContext:
        """Return the context for authorities in PEM; for those of the system when None.

        Raises:
            FileUnusable: they hold no certificate.
        """
        pem = None if authorities is None else authorities.decode("ascii", "ignore")  # remarks may be in any language
        try:
            return client_context(
                strict=self._strict_tls, authorities=pem, verify=not self._settings.insecure_skip_verify
            )
        except AuthoritiesUnusable as exc:
            raise FileUnusable(str(exc)) from None

    def _connect(self) -> HttpClient:
        return HttpClient(
            urls.url(self._settings.address),
            self._metrics,
            headers=self._headers,
            context=self._context,
            seconds=self._settings.timeout_seconds,
        )

    async def _renew(self) -> None:
        """Trust other certificate authorities when the file has others. Connections that are in use then break off."""
        context = self._context if self._contexts is None else self._contexts.latest()
        if context is self._context:
            return
        self._context = context
        old, self._client = self._client, self._connect()
        log.info("prometheus_authorities_replaced", file=str(self._settings.ca_file))
        await old.close()

    async def _headers(self) -> Mapping[str, str]:
        if self._bearer is not None:
            return {"authorization": _field("bearerFile", b"Bearer " + _content_of(self._bearer, "bearerFile"))}
        if self._username is not None and self._password is not None:
            pair = _content_of(self._username, "usernameFile") + b":" + _content_of(self._password, "passwordFile")
            return {"authorization": f"Basic {base64.b64encode(pair).decode()}"}
        return {}


def _credential(path: Path | None, name: str) -> WatchedFile[bytes] | None:
    """Return the file of a credential; None when there is none.

    Raises:
        SettingsError: it cannot be read, or is empty.
    """
    if path is None:
        return None
    file = WatchedFile(path, stripped)
    try:
        file.first()
    except FileUnusable as exc:
        raise SettingsError(f"{_SECTION}.{name} {path} {exc}.") from exc
    return file


def _content_of(file: WatchedFile[bytes], name: str) -> bytes:
    """Return a credential; while its file is missing, for instance because it is being replaced, the one before.

    Raises:
        CallFailed: the file cannot be read, or is empty.
    """
    try:
        return file.current()
    except FileMissing:
        return file.latest()
    except FileUnusable as exc:
        raise CallFailed(reasons.FORBIDDEN, f"{_SECTION}.{name} {exc}.") from exc


def _field(name: str, value: bytes) -> str:
    """Return a credential as the value of a header field.

    Raises:
        CallFailed: it has characters that cannot be sent.
    """
    if not _VISIBLE.fullmatch(value):
        raise CallFailed(reasons.FORBIDDEN, f"{_SECTION}.{name} holds something that cannot be sent in a header field.")
    return value.decode()


def _content(body: bytes) -> Object | None:
    """Return the JSON object in a body; None when the body is something else."""
    try:
        content = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return content if isinstance(content, dict) else None


def _warnings(content: Object) -> list[str]:
    """Return the first warnings in a result, shortened."""
    warnings = [*(content.get("warnings") or ()), *(content.get("infos") or ())]
    return [cut(str(one)) for one in warnings[:3]]


def _refusal(status: int, content: Object | None) -> CallFailed:
    """Return the failure for a response without a result."""
    words = API.words
    kind = text(content or {}, "errorType")
    if status in (401, 403):
        message = f"{words} refuses hooks: check {_SECTION}.usernameFile and passwordFile, or bearerFile."
        return CallFailed(reasons.FORBIDDEN, message)
    if kind == "bad_data":
        return CallFailed(reasons.REFUSED, f"{words} refuses the expression: {cut(text(content or {}, 'error'))}.")
    if kind == "execution":
        return CallFailed(reasons.REFUSED, f"{words} cannot evaluate the expression: try it there.")
    if kind in ("timeout", "canceled") or status == 504:
        return CallFailed(reasons.TIMED_OUT, f"{words} did not evaluate the expression in time: make it cheaper.")
    if 300 <= status < 400:
        return CallFailed(
            reasons.UNREACHABLE, f"{words} sends hooks elsewhere: set {_SECTION}.address to where it leads."
        )
    if status == 404:
        return CallFailed(reasons.NOT_SERVED, f"{_SECTION}.address leads to no Prometheus API: check its path.")
    if status in (400, 422) or kind:
        return CallFailed(reasons.REFUSED, f"{words} refuses the query with status {status}.")
    if status == 200:
        return CallFailed(reasons.UNREACHABLE, f"{_SECTION}.address leads to something that is no Prometheus API.")
    return CallFailed(reasons.UNREACHABLE, f"{words} responds with status {status}.")
