"""The API server, asked by `program.kubernetes`: failures become reasons and sentences, requests are counted."""

import asyncio
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, Self
from urllib.parse import quote

import structlog

from hooks import reasons
from hooks.clients.errors import Api, CallFailed, TooLarge, Trouble
from hooks.clients.http import CONNECT_SHARE, CONNECTIONS, RESPONSE_BYTES, Parameters
from hooks.kube.objects import Object
from hooks.telemetry import Metrics
from program.excerpts import cut
from program.kubernetes.connection import connect
from program.kubernetes.errors import (
    ApiCredentialsError,
    ApiError,
    ApiInterrupted,
    ApiMalformed,
    ApiRefusal,
    ApiTooLarge,
    ApiUnreachable,
    ClusterError,
)

if TYPE_CHECKING:
    from program.kubernetes.client import KubernetesClient

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Group:
    """A group of the API, with what messages say of it."""

    api: Api
    resource: str
    """Resource that a role has to allow."""
    name: str
    """Name of the group; empty for the core."""
    provider: str
    """Program to install where nothing serves the group."""


class ObjectSource(Protocol):
    """An API server, whichever client makes the calls."""

    async def get(self, group: Group, path: str, query: Parameters, limit: int = ..., /) -> Object | None:
        """Return the object at a path, as `ApiServer.get` does."""


class ApiServer:
    """An API server, or none."""

    def __init__(self, client: "KubernetesClient | None", metrics: Metrics, seconds: float, without: str = "") -> None:
        """Ask by a client, which `close` closes.

        Args:
            client: client for the server; None outside of a cluster.
            metrics: where requests are counted.
            seconds: seconds after which callers give a call up.
            without: sentence that says what to set, where there is no client.
        """
        self._client = client
        self._metrics = metrics
        self._seconds = seconds
        self._without = without
        self._slots = asyncio.Semaphore(CONNECTIONS)

    @classmethod
    async def connect(cls, metrics: Metrics, seconds: float, *, strict_tls: bool = False) -> Self:
        """Return the API server of the cluster that `KUBECONFIG` names or hooks run in.

        Args:
            metrics: where requests are counted.
            seconds: seconds after which callers give a call up.
            strict_tls: whether certificates are verified as `tls.strict` asks.
        """
        try:
            client = await connect(None, connections=CONNECTIONS, strict_tls=strict_tls)
        except ClusterError as exc:
            log.warning("api_server_unusable", error=str(exc))
            without = "Hooks cannot use the API server that they are configured with: their log says why."
            return cls(None, metrics, seconds, without)
        without = "Hooks know no API server: run them in a cluster, or set KUBECONFIG."
        return cls(client, metrics, seconds, without)

    async def get(self, group: Group, path: str, query: Parameters, limit: int = RESPONSE_BYTES) -> Object | None:
        """Return the object at a path; None when the group is served and has no such object.

        The deadline is the caller's: a call that is cancelled gives its connection up.

        Raises:
            CallFailed: the object cannot be had.
        """
        if self._client is None:
            raise CallFailed(reasons.UNREACHABLE, self._without)
        async with self._slots:
            started, code = time.perf_counter(), "cancelled"
            try:
                result = await self._client.get(
                    path, query, connect_seconds=self._seconds * CONNECT_SHARE, read_seconds=None, limit=limit
                )
                code = "200"
            except ApiCredentialsError as exc:
                code = ""  # no request was made
                raise _no_credentials(exc) from None
            except ApiRefusal as exc:
                code = str(exc.status)
                if exc.status == 404 and exc.is_status:
                    return None
                raise _refusal(group, exc.status) from None
            except ApiError as exc:
                code = "200" if isinstance(exc, ApiMalformed) else "error"
                raise _failure(group.api, exc, limit) from None
            finally:
                if code:
                    self._metrics.source_requests.labels(group.api.name, code).inc()
                    self._metrics.source_seconds.labels(group.api.name).observe(time.perf_counter() - started)
        return result

    async def close(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.close()


@lru_cache(maxsize=8192)
def path(*segments: str) -> str:
    """Return a path of these segments, encoded.

    Raises:
        CallFailed: a segment would make the API server read another path.
    """
    for segment in segments:
        if segment in ("", ".", "..") or "/" in segment or "%" in segment:
            raise CallFailed(
                reasons.REFUSED, f"{cut(segment)!r} cannot be asked for: it must be a name without / and %."
            )
    return "".join(f"/{quote(segment, safe='*')}" for segment in segments)


def _no_credentials(exc: ApiCredentialsError) -> CallFailed:
    if exc.readable:
        message = "The token of hooks for the API server cannot be sent in a header field."
    else:
        log.warning("api_server_credentials_unusable", error=str(exc))
        message = "The credentials of hooks for the API server cannot be read."
    return CallFailed(reasons.FORBIDDEN, message)


def _failure(api: Api, exc: ApiError, limit: int) -> CallFailed:
    """Return why there is no whole response, in a sentence that does not differ from call to call."""
    match exc:
        case ApiTooLarge():
            return TooLarge(reasons.REFUSED, f"{api.words} responds with more than {limit >> 20} MiB: ask for less.")
        case ApiMalformed():
            return CallFailed(reasons.UNREACHABLE, f"{api.words} {exc.problem}.")
        case ApiUnreachable(timed_out=True):
            message = f"{api.words} cannot be connected to in time: see that it is up and that no policy is between."
            return CallFailed(reasons.TIMED_OUT, message, Trouble.GONE)
        case ApiUnreachable():
            return CallFailed(reasons.UNREACHABLE, f"{api.words} cannot be asked: {exc.problem}.", Trouble.GONE)
        case ApiInterrupted():
            return CallFailed(reasons.UNREACHABLE, f"{api.words} cannot be asked: {exc.problem}.", Trouble.SILENT)
        case _:
            return CallFailed(reasons.UNREACHABLE, f"{api.words} cannot be asked.", Trouble.SILENT)


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
            return CallFailed(reasons.TIMED_OUT, f"{words} did not respond to the API server in time.")
        case 400 | 422:
            return CallFailed(reasons.REFUSED, f"{words} refuses the request with status {status}.")
        case _:
            return CallFailed(reasons.UNREACHABLE, f"{words} responds with status {status}.")
