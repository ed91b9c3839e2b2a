"""A Prometheus-compatible server over HTTP: instant queries, authentication, certificate authorities, errors.

https://prometheus.io/docs/prometheus/latest/querying/api/
"""

import base64
import re
import ssl
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import orjson
import structlog

from hooks import reasons
from hooks.clients import urls
from hooks.clients.errors import Api, CallFailed
from hooks.clients.http import Upstream
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
LONG: Final = 2000
"""Characters of an expression above which it is sent in a body: proxies bound URLs."""
ANSWER_BYTES: Final = 8 << 20
WARNED: Final = 1000
"""Expressions of which it is remembered that their warnings were logged."""
_SECTION: Final = "metricInformer.prometheus"
_VISIBLE: Final = re.compile(rb"[\x20-\x7e]+")

log = structlog.get_logger(__name__)


class PrometheusServer:
    """One server and the credentials for it."""

    def __init__(self, settings: Prometheus, metrics: Metrics, *, strict_tls: bool = False) -> None:
        """
        Args:
            settings: of the server.
            metrics: where requests and warnings are counted.
            strict_tls: whether its certificate is verified as `tls.strict` asks.

        Raises:
            SettingsError: a file that is named in them cannot be used.
        """
        self._settings = settings
        self._metrics = metrics
        self._strict_tls = strict_tls
        self._username = _credential(settings.username_file, "usernameFile")
        self._password = _credential(settings.password_file, "passwordFile")
        self._bearer = _credential(settings.bearer_file, "bearerFile")
        self._contexts = self._watched_context()
        self._context = self._context_of(None) if self._contexts is None else self._contexts.latest()
        self._upstream = self._connect()
        self._warned: OrderedDict[str, None] = OrderedDict()

    async def query(self, expression: str) -> tuple[Point, ...]:
        """The values of an expression now.

        Raises:
            CallFailed: there are none.
        """
        await self._renew()
        parameters = [("query", expression), ("timeout", f"{self._settings.timeout_seconds:g}s")]
        ask = self._upstream.post if len(expression) > LONG else self._upstream.get
        answer = await ask(API, PATH, parameters, ANSWER_BYTES)
        content = _content(answer.body)
        if answer.status != 200 or content is None or text(content, "status") != "success":
            raise _refusal(answer.status, content)
        if content.get("warnings") or content.get("infos"):
            self._metrics.source_warnings.inc()
            if expression not in self._warned:
                self._warned[expression] = None
                log.warning("prometheus_warning", query=expression, said=_said(content))
                if len(self._warned) > WARNED:
                    self._warned.popitem(last=False)
        try:
            return vectors.points(content)
        except vectors.Unreadable as exc:
            raise CallFailed(reasons.REFUSED, str(exc)) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._upstream.close()

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

    def _connect(self) -> Upstream:
        return Upstream(
            urls.url(self._settings.address),
            self._metrics,
            headers=self._headers,
            context=self._context,
            seconds=self._settings.timeout_seconds,
        )

    async def _renew(self) -> None:
        """Use other certificate authorities when the file has others. Connections that are in use then break off."""
        context = self._context if self._contexts is None else self._contexts.latest()
        if context is self._context:
            return
        self._context = context
        old, self._upstream = self._upstream, self._connect()
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
    """The value of a header field.

    Raises:
        CallFailed: it cannot be one.
    """
    if not _VISIBLE.fullmatch(value):
        raise CallFailed(reasons.FORBIDDEN, f"{_SECTION}.{name} holds something that cannot be sent in a header field.")
    return value.decode()


def _content(body: bytes) -> Object | None:
    """The JSON object that it is; None when it is something else."""
    try:
        found = orjson.loads(body)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _said(content: Object) -> list[str]:
    """The first warnings, cut."""
    warnings = [*(content.get("warnings") or ()), *(content.get("infos") or ())]
    return [cut(str(one)) for one in warnings[:3]]


def _refusal(status: int, content: Object | None) -> CallFailed:
    """What an answer without a result says."""
    words = API.words
    kind = text(content or {}, "errorType")
    if status in (401, 403):
        message = f"{words} refuses hooks: check {_SECTION}.usernameFile and passwordFile, or bearerFile."
        return CallFailed(reasons.FORBIDDEN, message)
    if kind == "bad_data":
        return CallFailed(reasons.REFUSED, f"{words} refuses the expression: {cut(text(content or {}, 'error'))}.")
    if kind == "execution":
        return CallFailed(reasons.REFUSED, f"{words} cannot work the expression out: try it there.")
    if kind in ("timeout", "canceled") or status == 504:
        return CallFailed(reasons.TIMED_OUT, f"{words} did not work the expression out in time: make it cheaper.")
    if 300 <= status < 400:
        return CallFailed(
            reasons.UNREACHABLE, f"{words} sends hooks elsewhere: set {_SECTION}.address to where it leads."
        )
    if status == 404:
        return CallFailed(reasons.NOT_SERVED, f"{_SECTION}.address leads to no Prometheus API: check its path.")
    if status in (400, 422) or kind:
        return CallFailed(reasons.REFUSED, f"{words} refuses the question with status {status}.")
    if status == 200:
        return CallFailed(reasons.UNREACHABLE, f"{_SECTION}.address leads to something that is no Prometheus API.")
    return CallFailed(reasons.UNREACHABLE, f"{words} answers with status {status}.")
