"""The API of the Beamlit platform: OAuth 2.0 client credentials, and models and policies by name.

    GET    /models/{name}?environment=E     404: there is none
    POST   /models
    PUT    /models/{name}
    DELETE /models/{name}?environment=E     404: it is gone already

and the same for /policies without environment. Callers set the deadline; what is tried again is tried within it. A call
that may be repeated without harm is: once, when the connection or a gateway in between failed. A token is fetched once
for all who wait for it, renewed before it ends, and fetched anew when the platform refuses it. When the platform does
not respond, it is left alone for a while (`hooks.platform.circuit`), by the whole process.

What may go wrong is in `hooks.platform.beamlit.errors`.
"""

import asyncio
import random
import time
from collections.abc import Mapping
from typing import Final
from urllib.parse import quote, urlencode

import orjson
import structlog

from hooks.api.common import format_time
from hooks.kube.objects import Object
from hooks.kube.unstructured import mapping, text
from hooks.kube.unstructured import time as time_of
from hooks.platform.beamlit.credentials import Accounts
from hooks.platform.beamlit.errors import Busy, PlatformError, Rejected, Taken, Unasked, Unauthorized, Unreachable
from hooks.platform.beamlit.http import CONNECTIONS, SOME_RETRY_AFTER, Exchange, Response
from hooks.platform.beamlit.tokens import Tokens
from hooks.platform.circuit import Circuit, CircuitState
from hooks.platform.state import PlatformKey
from hooks.telemetry import Metrics
from program.excerpts import cut
from program.tls import client_context

SLOT_SECONDS: Final = 0.2
"""Seconds that a call waits while as many calls as there may be are under way.

Two calls of one task that wait for so long leave more than half of `registrar.CALL_SECONDS` to the platform: hooks that
wait for each other are not taken for a platform that does not respond.
"""
LATE: Final = "The platform does not respond in time."
_PAUSE: Final = (0.05, 0.15)
"""Shortest and longest pause before a call is repeated, in seconds; drawn at random between them."""
_PASSING: Final = frozenset({502, 503, 504})
"""Statuses of a gateway that may have found no server behind it."""
_WORKSPACE: Final = 253
"""Longest name of a workspace that is believed, in characters."""
_HIDDEN: Final = "***"

log = structlog.get_logger(__name__)


class Beamlit:
    """Client of the platform's API."""

    def __init__(
        self,
        base_url: str,
        accounts: Accounts,
        metrics: Metrics,
        *,
        strict_tls: bool = False,
        retry_seconds: tuple[float, float] = _PAUSE,
    ) -> None:
        """Connect to nothing yet.

        Args:
            base_url: base URL of the API, without a slash at its end.
            accounts: says whose token the calls carry.
            metrics: counts the calls.
            strict_tls: whether the platform's certificate must follow RFC 5280 to the letter.
            retry_seconds: shortest and longest pause before a call is repeated.
        """
        self._url = base_url
        self._accounts = accounts
        self._metrics = metrics
        self._retry_seconds = retry_seconds
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._circuit = Circuit(self._noticed)
        self._learned: PlatformError = Unreachable(LATE)
        self._noticed(CircuitState.CLOSED)
        self._exchange = Exchange(base_url, metrics, client_context(strict=strict_tls))
        self._tokens = Tokens(base_url, accounts, self._exchange)

    @property
    def account(self) -> str:
        """Client id and base URL, for the hash of what was sent. Nothing in it is secret."""
        return f"{self._accounts.current().client_id} at {self._url}"

    async def find(self, key: PlatformKey) -> Object | None:
        """Return the object of a name; None when there is none.

        Raises:
            PlatformError: it is not known whether there is one.
        """
        response = await self._call("get", "GET", _path(key), repeat=True)
        return None if response.status == 404 else self._object(response)

    async def create(self, key: PlatformKey, body: Object) -> Mapping[str, str]:
        """Create an object, and return the facts about it under the names of status.

        Raises:
            PlatformError: it was not created, or that is not known.
        """
        return facts(self._object(await self._call("create", "POST", f"/{key.kind}", body)))

    async def replace(self, key: PlatformKey, body: Object) -> Mapping[str, str]:
        """Replace an object, and return the facts about it under the names of status.

        Raises:
            PlatformError: it was not replaced, or that is not known.
        """
        response = await self._call("replace", "PUT", f"/{key.kind}/{_segment(key.name)}", body, repeat=True)
        if response.status == 404:
            raise Unreachable("The platform lost it between two calls.")
        return facts(self._object(response))

    async def delete(self, key: PlatformKey) -> None:
        """Delete an object, which may be gone already.

        Raises:
            PlatformError: it was not deleted, or that is not known.
        """
        await self._call("delete", "DELETE", _path(key), repeat=True)

    async def close(self) -> None:
        """Cancel calls that are under way, and close all connections."""
        await self._tokens.close()
        await self._exchange.close()

    async def _call(
        self, operation: str, method: str, path: str, body: Object | None = None, *, repeat: bool = False
    ) -> Response:
        """Make one call, and return the response: a success, or 404.

        Args:
            operation: name of the call in metrics.
            method: HTTP method.
            path: path with its query, below the base URL.
            body: object to send; None for none.
            repeat: whether the call may be repeated without harm.
        """
        wait = self._circuit.wait(time.monotonic())
        if wait > 0:
            self._metrics.platform_requests.labels(operation, "unasked").inc()
            raise Unasked(str(self._learned), retry_after=wait)
        await self._slot(operation)
        try:
            response = await self._attempts(operation, method, path, body, repeat=repeat)
        except PlatformError as exc:
            self._learn(exc)
            raise
        except asyncio.CancelledError:
            self._learn(Unreachable(LATE))
            raise
        finally:
            self._slots.release()
        self._circuit.responded()
        return response

    async def _slot(self, operation: str) -> None:
        """Wait until another call may be made; the caller releases the slot."""
        try:
            async with asyncio.timeout(SLOT_SECONDS):
                await self._slots.acquire()
        except TimeoutError:
            self._circuit.given_up(time.monotonic())
            self._metrics.platform_requests.labels(operation, "unasked").inc()
            raise Busy("Hooks ask the platform for as much as they may at once.") from None
        except asyncio.CancelledError:
            self._circuit.given_up(time.monotonic())
            raise

    def _learn(self, exc: PlatformError) -> None:
        """Note what a failure says of the platform as a whole."""
        now = time.monotonic()
        if exc.retry_after is not None:
            self._circuit.asked_to_wait(exc.retry_after, now)
            self._learned = exc
        if isinstance(exc, Unreachable) and exc.retry_after is None:
            self._learned = exc
            self._circuit.failed(now)
        else:
            self._circuit.responded()

    async def _attempts(self, operation: str, method: str, path: str, body: Object | None, *, repeat: bool) -> Response:
        content = None if body is None else orjson.dumps(body)
        refused, repeated = b"", False
        while True:
            authorization = await self._tokens.authorization(refused)
            headers = {"authorization": authorization.decode("ascii"), "accept": "application/json"}
            if content is not None:
                headers["content-type"] = "application/json"
            try:
                response = await self._exchange.send(operation, method, path, headers, content)
            except Unreachable as exc:
                if repeated or not (repeat or not exc.sent):
                    raise
                repeated = True
                await asyncio.sleep(random.uniform(*self._retry_seconds))  # noqa: S311 - spreads load
                continue
            if response.status == 401 and not refused:
                refused = authorization
                continue
            passing = response.status in _PASSING and response.retry_after is None
            if passing and repeat and not repeated:
                repeated = True
                await asyncio.sleep(random.uniform(*self._retry_seconds))  # noqa: S311
                continue
            if 200 <= response.status < 300 or response.status == 404:
                return response
            raise self._refusal(response)

    def _refusal(self, response: Response) -> PlatformError:
        match response.status:
            case 401:
                return Unauthorized("The platform does not accept the token of hooks: see that it is still valid.")
            case 403:
                return Unauthorized(
                    "The platform does not allow this to the service account of the token of hooks: give it the right."
                )
            case 409:
                return Taken("The platform says that the name is taken.")
            case 429:
                return Unreachable(
                    "The platform asks to be left alone for a while.",
                    retry_after=response.retry_after or SOME_RETRY_AFTER,
                )
            case status if status < 400:
                return Unreachable("The platform responds with a redirect, which is not followed.", sent=True)
            case status if status < 500:
                return Rejected(f"The platform refuses: {self._message(response)}.")
        return Unreachable(
            "The platform responds with an error of its own.", sent=True, retry_after=response.retry_after
        )

    def _message(self, response: Response) -> str:
        """Return the platform's own words, in one short line without anything that is secret."""
        content = response.content
        message = ""
        if isinstance(content, dict):
            keys = ("message", "error", "detail")
            message = next((text(content, key) for key in keys if text(content, key)), "")
        message = "".join(one if one.isprintable() else " " for one in message)
        for secret in sorted(self._tokens.secrets, key=len, reverse=True):  # one may begin with another
            message = message.replace(secret, _HIDDEN)
        return cut(message) or f"status {response.status}"

    def _object(self, response: Response) -> Object:
        content = response.content
        if not isinstance(content, dict) or not isinstance(content.get("metadata"), dict):
            raise Unreachable("The platform responds with something that is no object of its API.", sent=True)
        return content

    def _noticed(self, state: CircuitState) -> None:
        for one in CircuitState:
            self._metrics.platform_circuit.labels(one.value).set(1 if one is state else 0)
        if state is CircuitState.OPEN:
            log.warning("platform_left_alone", reason=str(self._learned))


def facts(item: Object) -> dict[str, str]:
    """Return what the platform says of an object, under the names of status. What cannot be read is left out."""
    metadata = mapping(item, "metadata")
    result: dict[str, str] = {}
    workspace = text(metadata, "workspace")
    if 0 < len(workspace) <= _WORKSPACE and workspace.isprintable():
        result["workspace"] = workspace
    for key, name in (("createdAt", "createdAtOnBeamlit"), ("updatedAt", "updatedAtOnBeamlit")):
        moment = time_of(metadata, key)
        if moment is not None:
            result[name] = format_time(moment)
    return result


def _path(key: PlatformKey) -> str:
    query = f"?{urlencode({'environment': key.environment})}" if key.environment else ""
    return f"/{key.kind}/{_segment(key.name)}{query}"


def _segment(name: str) -> str:
    """Return a name as one segment of a path (RFC 3986 section 3.3).

    Raises:
        Rejected: the name would be read as another path.
    """
    if name in ("", ".", ".."):
        raise Rejected("The platform cannot be asked for such a name: choose another one.")
    return quote(name, safe="")
