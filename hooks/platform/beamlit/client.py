"""The API of the Beamlit platform: OAuth 2.0 client credentials, and models and policies by name.

    GET    /models/{name}?environment=E     404: there is none
    POST   /models
    PUT    /models/{name}
    DELETE /models/{name}?environment=E     404: it is gone already

and the same for /policies without environment. Callers set the deadline; what is tried again is tried within it. A call
that may be repeated without harm is: once, when the connection or a gateway in between failed. A token is bought once
for all who wait for it, renewed before it ends, and bought anew when the platform refuses it. When the platform does
not answer, it is left alone for a while (`hooks.circuit`), by the whole process.

What may go wrong is in `hooks.beamlit.errors`.
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
from hooks.platform.beamlit.http import CONNECTIONS, SOME_RETRY_AFTER, Answer, Exchange
from hooks.platform.beamlit.tokens import Tokens
from hooks.platform.circuit import Circuit, CircuitState
from hooks.platform.state import PlatformKey
from hooks.telemetry import Metrics
from program.cluster import cut

SLOT_SECONDS: Final = 0.4
"""For which a call waits while as many as there may be are under way."""
LATE: Final = "The platform does not answer in time."
_PAUSE: Final = (0.05, 0.15)
"""Seconds before a call is repeated, at random."""
_PASSING: Final = frozenset({502, 503, 504})
"""Statuses of a gateway that may have found nobody behind it."""
_WORKSPACE: Final = 253
_HIDDEN: Final = "***"

log = structlog.get_logger(__name__)


class Beamlit:
    """The platform."""

    def __init__(
        self,
        base_url: str,
        accounts: Accounts,
        metrics: Metrics,
        *,
        retry_seconds: tuple[float, float] = _PAUSE,
    ) -> None:
        """
        Args:
            base_url: of the API, without a slash at its end.
            accounts: who asks.
            metrics: where calls are counted.
            retry_seconds: the shortest and the longest pause before a call is repeated.
        """
        self._url = base_url
        self._accounts = accounts
        self._metrics = metrics
        self._retry_seconds = retry_seconds
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._circuit = Circuit(self._noticed)
        self._learned: PlatformError = Unreachable(LATE)
        self._noticed(CircuitState.CLOSED)
        self._exchange = Exchange(base_url, metrics)
        self._tokens = Tokens(base_url, accounts, self._exchange)

    @property
    def account(self) -> str:
        """Who asks whom, for the hash of what was sent. Nothing in it is secret."""
        return f"{self._accounts.current().client_id} at {self._url}"

    async def find(self, thing: PlatformKey) -> Object | None:
        """What is there under a name; None when there is nothing.

        Raises:
            PlatformError: it is not known.
        """
        answer = await self._call("get", "GET", _path(thing), repeat=True)
        return None if answer.status == 404 else self._object(answer)

    async def create(self, thing: PlatformKey, body: Object) -> Mapping[str, str]:
        """Create it; the facts about it, under the names of status.

        Raises:
            PlatformError: it was not created, or it is not known.
        """
        return facts(self._object(await self._call("create", "POST", f"/{thing.kind}", body)))

    async def replace(self, thing: PlatformKey, body: Object) -> Mapping[str, str]:
        """Let it be as in `body`; the facts about it, under the names of status.

        Raises:
            PlatformError: it was not done, or it is not known.
        """
        answer = await self._call("replace", "PUT", f"/{thing.kind}/{_segment(thing.name)}", body, repeat=True)
        if answer.status == 404:
            raise Unreachable("The platform lost it between two calls.")
        return facts(self._object(answer))

    async def delete(self, thing: PlatformKey) -> None:
        """Let it be gone; it may be gone already.

        Raises:
            PlatformError: it was not done, or it is not known.
        """
        await self._call("delete", "DELETE", _path(thing), repeat=True)

    async def close(self) -> None:
        """End everything that is under way."""
        await self._tokens.close()
        await self._exchange.close()

    async def _call(
        self, operation: str, method: str, path: str, body: Object | None = None, *, repeat: bool = False
    ) -> Answer:
        """One call, of which 404 is an answer.

        Args:
            operation: for telemetry.
            method: of HTTP.
            path: with its query, below the base URL.
            body: to send.
            repeat: whether it may be repeated without harm.
        """
        wait = self._circuit.wait(time.monotonic())
        if wait > 0:
            self._metrics.platform_requests.labels(operation, "unasked").inc()
            raise Unasked(str(self._learned), retry_after=wait)
        await self._slot(operation)
        try:
            answer = await self._answered(operation, method, path, body, repeat=repeat)
        except PlatformError as exc:
            self._learn(exc)
            raise
        except asyncio.CancelledError:
            self._learn(Unreachable(LATE))
            raise
        finally:
            self._slots.release()
        self._circuit.answered()
        return answer

    async def _slot(self, operation: str) -> None:
        """Wait until another call may be made; whoever goes on releases it."""
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
        """What a failure says of the platform as a whole."""
        now = time.monotonic()
        if exc.retry_after is not None:
            self._circuit.asked_to_wait(exc.retry_after, now)
            self._learned = exc
        if isinstance(exc, Unreachable) and exc.retry_after is None:
            self._learned = exc
            self._circuit.failed(now)
        else:
            self._circuit.answered()

    async def _answered(self, operation: str, method: str, path: str, body: Object | None, *, repeat: bool) -> Answer:
        content = None if body is None else orjson.dumps(body)
        refused = repeated = False
        while True:
            token = await self._tokens.current()
            headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
            if content is not None:
                headers["content-type"] = "application/json"
            try:
                answer = await self._exchange.ask(operation, method, path, headers, content)
            except Unreachable as exc:
                if repeated or not (repeat or not exc.sent):
                    raise
                repeated = True
                await asyncio.sleep(random.uniform(*self._retry_seconds))  # noqa: S311 - spreads load
                continue
            if answer.status == 401 and not refused:
                refused = True
                self._tokens.refuse(token)
                continue
            passing = answer.status in _PASSING and answer.retry_after is None
            if passing and repeat and not repeated:
                repeated = True
                await asyncio.sleep(random.uniform(*self._retry_seconds))  # noqa: S311
                continue
            if 200 <= answer.status < 300 or answer.status == 404:
                return answer
            raise self._refusal(answer)

    def _refusal(self, answer: Answer) -> PlatformError:
        match answer.status:
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
                    retry_after=answer.retry_after or SOME_RETRY_AFTER,
                )
            case status if status < 400:
                return Unreachable("The platform answers with a redirect, which is not followed.", sent=True)
            case status if status < 500:
                return Rejected(f"The platform refuses: {self._said(answer)}.")
        return Unreachable("The platform answers with an error of its own.", sent=True, retry_after=answer.retry_after)

    def _said(self, answer: Answer) -> str:
        """The platform's own words, in one short line without anything that is secret."""
        found = answer.content
        said = ""
        if isinstance(found, dict):
            said = next((text(found, key) for key in ("message", "error", "detail") if text(found, key)), "")
        said = "".join(one if one.isprintable() else " " for one in said)
        for secret in self._tokens.secrets:
            said = said.replace(secret, _HIDDEN)
        return cut(said) or f"status {answer.status}"

    def _object(self, answer: Answer) -> Object:
        found = answer.content
        if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
            raise Unreachable("The platform answers with something that is no object of its API.", sent=True)
        return found

    def _noticed(self, state: CircuitState) -> None:
        for one in CircuitState:
            self._metrics.platform_circuit.labels(one.value).set(1 if one is state else 0)
        if state is CircuitState.OPEN:
            log.warning("platform_left_alone", reason=str(self._learned))


def facts(found: Object) -> dict[str, str]:
    """What the platform says of something, under the names of status. What cannot be read is not known."""
    metadata = mapping(found, "metadata")
    said: dict[str, str] = {}
    workspace = text(metadata, "workspace")
    if 0 < len(workspace) <= _WORKSPACE and workspace.isprintable():
        said["workspace"] = workspace
    for key, name in (("createdAt", "createdAtOnBeamlit"), ("updatedAt", "updatedAtOnBeamlit")):
        moment = time_of(metadata, key)
        if moment is not None:
            said[name] = format_time(moment)
    return said


def _path(thing: PlatformKey) -> str:
    query = f"?{urlencode({'environment': thing.environment})}" if thing.environment else ""
    return f"/{thing.kind}/{_segment(thing.name)}{query}"


def _segment(name: str) -> str:
    """A name as one segment of a path (RFC 3986 section 3.3).

    Raises:
        Rejected: it would be read as another path.
    """
    if name in ("", ".", ".."):
        raise Rejected("The platform cannot be asked for such a name: choose another one.")
    return quote(name, safe="")
