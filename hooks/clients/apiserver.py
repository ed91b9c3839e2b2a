"""The API server, asked for JSON under the identity that hooks were given.

Configuration and authentication are the official client's; the calls are not, for those block a thread for as long as
a server likes.
"""

import asyncio
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Final, Self
from urllib.parse import quote

import httpx
import orjson
import structlog
from kubernetes import client
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from hooks import reasons
from hooks.clients.errors import Api, CallFailed
from hooks.clients.http import ANSWER_BYTES, Answer, Parameters, Upstream
from hooks.kube.objects import Object
from hooks.telemetry import Metrics
from program.cluster import ClusterError, configuration, cut
from program.tls import client_context

TOKEN_SECONDS: Final = 5.0
"""For which a token is used before it is looked at again."""
_LARGE: Final = 1 << 18
"""Bytes above which a thread parses, so that others do not wait."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]+( [\x21-\x7e]+)?")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the API that is asked, and what has to be said of it."""

    api: Api
    resource: str
    """What a role has to allow."""
    name: str
    """Of the group; empty for the core."""
    provider: str
    """What to install where nothing serves it."""


class ApiServer:
    """An API server, or none."""

    def __init__(self, upstream: Upstream | None, without: str = "") -> None:
        """
        Args:
            upstream: the server; None outside of a cluster.
            without: a sentence that says what to set, where there is none.
        """
        self._upstream = upstream
        self._without = without

    @classmethod
    def connect(cls, metrics: Metrics, seconds: float, *, strict_tls: bool = False) -> Self:
        """Return the API server of the cluster which hooks run in, or which `KUBECONFIG` names.

        Args:
            metrics: where calls are counted.
            seconds: for one call.
            strict_tls: whether certificates are verified as `tls.strict` asks.
        """
        try:
            settings = configuration(None)
            if settings is None:
                return cls(None, "Hooks know no API server: run them in a cluster, or set KUBECONFIG.")
            proxy = httpx.Proxy(settings.proxy, headers=settings.proxy_headers) if settings.proxy else None
            upstream = Upstream(
                str(settings.host).rstrip("/"),
                metrics,
                headers=_Credentials(settings).headers,
                context=_context(settings, strict=strict_tls),
                seconds=seconds,
                proxy=proxy,
                server_name=settings.tls_server_name or None,
            )
        except (ClusterError, OSError, ValueError, httpx.InvalidURL) as exc:
            log.warning("api_server_unusable", error=str(exc) if isinstance(exc, ClusterError) else type(exc).__name__)
            return cls(None, "Hooks cannot use the API server that they were told of: their log says why.")
        return cls(upstream)

    async def get(self, group: Group, path: str, query: Parameters, limit: int = ANSWER_BYTES) -> Object | None:
        """The object at a path; None when the group is served and has no such thing.

        Raises:
            CallFailed: it cannot be had.
        """
        if self._upstream is None:
            raise CallFailed(reasons.UNREACHABLE, self._without)
        answer = await self._upstream.get(group.api, path, query, limit)
        if answer.status == 404 and _is_status(answer):
            return None
        if answer.status != 200:
            raise _refusal(group, answer.status)
        found = await _parsed(answer.body)
        if found is None:
            raise CallFailed(reasons.UNREACHABLE, f"{group.api.words} answers with something that is no JSON object.")
        return found

    async def close(self) -> None:
        """Close all connections."""
        if self._upstream is not None:
            await self._upstream.close()


class _Credentials:
    """The token of a configuration, which is read again when it is time."""

    def __init__(self, settings: client.Configuration) -> None:
        self._settings = settings
        self._known: Mapping[str, str] = {}
        self._until = 0.0

    async def headers(self) -> Mapping[str, str]:
        """The header field with it.

        Raises:
            CallFailed: there is none that can be sent.
        """
        now = time.monotonic()
        if now >= self._until:
            self._known, self._until = await self._read(), now + TOKEN_SECONDS
        return self._known

    async def _read(self) -> Mapping[str, str]:
        """A kubeconfig may run a program for the token, so a thread asks for it."""
        try:
            found = await asyncio.to_thread(self._settings.get_api_key_with_prefix, "BearerToken", "authorization")
        except (ApiException, ConfigException, OSError, ValueError) as exc:
            log.warning("api_server_credentials_unusable", error=type(exc).__name__)
            raise CallFailed(reasons.FORBIDDEN, "The credentials of hooks for the API server cannot be read.") from None
        token = (found or "").strip()  # the file may end with a line feed
        if not token:
            return {}
        if not _TOKEN.fullmatch(token):
            raise CallFailed(
                reasons.FORBIDDEN, "The token of hooks for the API server cannot be sent in a header field."
            )
        return {"authorization": token}


@lru_cache(maxsize=8192)
def path(*segments: str) -> str:
    """A path of these segments.

    Raises:
        CallFailed: one of them cannot be a segment: the API server would read another path.
    """
    for segment in segments:
        if segment in ("", ".", "..") or "/" in segment or "%" in segment:
            raise CallFailed(
                reasons.REFUSED, f"{cut(segment)!r} cannot be asked for: it must be a name without / and %."
            )
    return "".join(f"/{quote(segment, safe='*')}" for segment in segments)


def _context(settings: client.Configuration, *, strict: bool) -> ssl.SSLContext:
    context = client_context(
        strict=strict,
        authorities=Path(settings.ssl_ca_cert) if settings.ssl_ca_cert else settings.ca_cert_data,
        verify=settings.verify_ssl,
        verify_name=settings.assert_hostname is not False,
    )
    if settings.cert_file:
        context.load_cert_chain(settings.cert_file, settings.key_file)
    return context


async def _parsed(body: bytes) -> Object | None:
    """A JSON object; None when it is something else."""
    try:
        found = orjson.loads(body) if len(body) < _LARGE else await asyncio.to_thread(orjson.loads, body)
    except orjson.JSONDecodeError:
        return None
    return found if isinstance(found, dict) else None


def _is_status(answer: Answer) -> bool:
    """Whether the group is served: for paths that nobody serves there is a line of text."""
    try:
        found = orjson.loads(answer.body)
    except orjson.JSONDecodeError:
        return False
    return isinstance(found, dict) and found.get("kind") == "Status"


def _refusal(group: Group, status: int) -> CallFailed:
    words = group.api.words
    match status:
        case 401:
            return CallFailed(reasons.FORBIDDEN, "The API server does not accept the credentials of hooks.")
        case 403:
            where = f"in the API group {group.name}" if group.name else "of the core API"
            return CallFailed(
                reasons.FORBIDDEN,
                f"Hooks may not read {group.resource} {where} in this namespace: allow their service account to get"
                " and list them.",
            )
        case 404:
            return CallFailed(
                reasons.NOT_SERVED, f"Nothing in the cluster serves {group.name}: install {group.provider}."
            )
        case 503 if group.name:
            return CallFailed(
                reasons.UNREACHABLE,
                f"What serves {group.name} is not available: see that {group.provider} runs, and what"
                " `kubectl get apiservices` says of it.",
            )
        case 504:
            return CallFailed(reasons.TIMED_OUT, f"{words} did not answer the API server in time.")
        case 400 | 422:
            return CallFailed(reasons.REFUSED, f"{words} refuses the question with status {status}.")
        case _:
            return CallFailed(reasons.UNREACHABLE, f"{words} answers with status {status}.")
