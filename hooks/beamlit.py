"""The API of the Beamlit platform: OAuth 2.0 client credentials, and models and policies by name.

    GET    /models/{name}?environment=E     404: there is none
    POST   /models
    PUT    /models/{name}
    DELETE /models/{name}?environment=E     404: it is gone already

and the same for /policies without environment. Callers set the deadline; what is tried again is tried within it. A call
that may be repeated without harm is: once, when the connection or a gateway in between failed. A token is bought once
for all who wait for it, renewed before it ends, and bought anew when the platform refuses it. When the platform does
not answer, it is left alone for a while (`hooks.circuit`), by the whole process.

    PlatformError               `reason` is one of `hooks.reasons`; the message is a sentence
    ├── Unreachable             no answer, or none that can be used
    │   ├── Unasked             not even asked: it is left alone until `retry_after`
    │   └── Busy                not even asked: as many calls as there may be are under way
    ├── Unauthorized            401, 403, or no token for the account
    ├── Taken                   409: it is there already
    └── Rejected                any other 4xx; the message is the platform's

No message holds the secret, a token, or more than a line of what the platform says.
"""

import asyncio
import random
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, ClassVar, Final
from urllib.parse import quote, urlencode

import httpx
import orjson
import structlog
from authlib.oauth2.auth import ClientAuth

from hooks import reasons
from hooks.account import Account, Accounts
from hooks.api.v1alpha1 import format_time
from hooks.circuit import Circuit, State
from hooks.fields import mapping, text
from hooks.fields import time as time_of
from hooks.protocol import Object
from hooks.registration import Thing
from hooks.telemetry import Metrics
from hooks.upstream import in_words
from program.cluster import cut

CONNECTIONS: Final = 8
"""Calls at the same time; others wait."""
SLOT_SECONDS: Final = 0.4
"""For which they do."""
IDLE_SECONDS: Final = 60.0
"""For which a connection is kept."""
ANSWER_BYTES: Final = 4 << 20
"""Largest answer that is read: a model with its pod template."""
TOKEN_SECONDS: Final = 5.0
"""For a token, which goes on to be bought when those who wait for it give up."""
TOKEN_PAUSE: Final = 5.0
"""Seconds between two attempts to buy one, after a failure."""
LONGEST_RETRY_AFTER: Final = 3600.0
_DEFAULT_LIFE: Final = 60.0
"""Seconds of a token that does not say how long it lives."""
_LONGEST_LIFE: Final = 86400.0
_RENEW_AT: Final = 0.8
"""Part of a token's life after which it is renewed, while calls go on with it."""
_PAUSE: Final = (0.05, 0.15)
"""Seconds before a call is repeated, at random."""
_PASSING: Final = frozenset({502, 503, 504})
"""Statuses of a gateway that may have found nobody behind it."""
_TOKEN: Final = re.compile(r"[\x21-\x7e]{1,16384}")
_WORKSPACE: Final = 253
_HIDDEN: Final = "***"
LATE: Final = "The platform does not answer in time."

log = structlog.get_logger(__name__)


class PlatformError(Exception):
    """The platform did not do what was asked."""

    reason: ClassVar[str] = reasons.UNREACHABLE

    def __init__(self, message: str, *, sent: bool = False, retry_after: float | None = None) -> None:
        """
        Args:
            message: a sentence.
            sent: whether it may have been done nevertheless.
            retry_after: seconds until it is worth asking again.
        """
        super().__init__(message)
        self.sent = sent
        self.retry_after = retry_after


class Unreachable(PlatformError):
    """There is no answer, or none that can be used."""


class Unasked(Unreachable):
    """Nobody asks for now."""


class Busy(Unreachable):
    """As many calls as there may be are under way."""


class Unauthorized(PlatformError):
    """The account is refused."""

    reason = reasons.UNAUTHORIZED


class Taken(PlatformError):
    """What was to be created is there already."""

    reason = reasons.CONFLICT


class Rejected(PlatformError):
    """The platform refuses, for a reason that it gives."""

    reason = reasons.REJECTED


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: httpx.Headers
    body: bytes


@dataclass(slots=True)
class _Token:
    account: Account | None = None
    """Whose it is."""
    value: str = field(default="", repr=False)
    renew_at: float = 0.0
    ends_at: float = 0.0
    error: PlatformError | None = None
    """Why there is none."""
    failed_at: float = float("-inf")
    fetching: "asyncio.Task[None] | None" = None


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
        self._token = _Token()
        self._buying: set[asyncio.Task[None]] = set()
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._circuit = Circuit(self._noticed)
        self._learned: PlatformError = Unreachable("The platform has not answered.")
        self._noticed(State.CLOSED)
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            timeout=httpx.Timeout(TOKEN_SECONDS),
            limits=httpx.Limits(max_connections=CONNECTIONS + 1, keepalive_expiry=IDLE_SECONDS),
        )

    @property
    def account(self) -> str:
        """Who asks whom, for the hash of what was sent. Nothing in it is secret."""
        return f"{self._accounts.current().client_id} at {self._url}"

    async def find(self, thing: Thing) -> Object | None:
        """What is there under a name; None when there is nothing.

        Raises:
            PlatformError: it is not known.
        """
        answer = await self._call("get", "GET", _path(thing), repeat=True)
        return None if answer.status == 404 else self._object(answer)

    async def create(self, thing: Thing, body: Object) -> Mapping[str, str]:
        """Create it; the facts about it, under the names of status.

        Raises:
            PlatformError: it was not created, or it is not known.
        """
        return facts(self._object(await self._call("create", "POST", f"/{thing.kind}", body)))

    async def replace(self, thing: Thing, body: Object) -> Mapping[str, str]:
        """Let it be as in `body`; the facts about it, under the names of status.

        Raises:
            PlatformError: it was not done, or it is not known.
        """
        answer = await self._call("replace", "PUT", f"/{thing.kind}/{_segment(thing.name)}", body, repeat=True)
        if answer.status == 404:
            raise Unreachable("The platform lost it between two calls.")
        return facts(self._object(answer))

    async def delete(self, thing: Thing) -> None:
        """Let it be gone; it may be gone already.

        Raises:
            PlatformError: it was not done, or it is not known.
        """
        await self._call("delete", "DELETE", _path(thing), repeat=True)

    async def close(self) -> None:
        """End everything that is under way."""
        buying = list(self._buying)
        for task in buying:
            task.cancel()
        await asyncio.gather(*buying, return_exceptions=True)
        await self._client.aclose()

    async def _call(
        self, operation: str, method: str, path: str, body: Object | None = None, *, repeat: bool = False
    ) -> _Answer:
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

    async def _answered(self, operation: str, method: str, path: str, body: Object | None, *, repeat: bool) -> _Answer:
        content = None if body is None else orjson.dumps(body)
        refused = repeated = False
        while True:
            token = await self._bearer()
            headers = {"authorization": f"Bearer {token}", "accept": "application/json"}
            if content is not None:
                headers["content-type"] = "application/json"
            try:
                answer = await self._sent(operation, method, path, headers, content)
            except Unreachable as exc:
                if repeated or not (repeat or not exc.sent):
                    raise
                repeated = True
                await asyncio.sleep(random.uniform(*self._retry_seconds))  # noqa: S311 - spreads load
                continue
            if answer.status == 401 and not refused:
                refused = True
                self._token.ends_at = 0.0 if self._token.value == token else self._token.ends_at
                continue
            passing = answer.status in _PASSING and "retry-after" not in answer.headers
            if passing and repeat and not repeated:
                repeated = True
                await asyncio.sleep(random.uniform(*self._retry_seconds))  # noqa: S311
                continue
            if 200 <= answer.status < 300 or answer.status == 404:
                return answer
            raise self._refusal(answer)

    async def _sent(
        self, operation: str, method: str, path: str, headers: Mapping[str, str], content: bytes | None
    ) -> _Answer:
        """One request and its answer, whatever the status.

        Raises:
            Unreachable: there is none.
        """
        started, result = time.perf_counter(), "cancelled"
        try:
            async with self._client.stream(
                method, self._url + path, headers={**headers, "accept-encoding": "identity"}, content=content
            ) as response:
                pieces, size = [], 0
                async for piece in response.aiter_raw():
                    size += len(piece)
                    if size > ANSWER_BYTES:
                        result = "unreachable"
                        raise Unreachable("The platform answers with more than can be read.", sent=method != "GET")
                    pieces.append(piece)
                result = _result(response.status_code)
                return _Answer(response.status_code, response.headers, b"".join(pieces))
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            result = "unreachable"
            unsent = isinstance(exc, httpx.ConnectError | httpx.ConnectTimeout | httpx.InvalidURL)
            said = "it does not answer in time" if isinstance(exc, httpx.TimeoutException) else in_words(exc)
            raise Unreachable(f"The platform cannot be asked: {said}.", sent=method != "GET" and not unsent) from None
        finally:
            self._metrics.platform_requests.labels(operation, result).inc()
            self._metrics.platform_seconds.labels(operation).observe(time.perf_counter() - started)

    def _refusal(self, answer: _Answer) -> PlatformError:
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
                return Unreachable("The platform asks to be left alone for a while.", retry_after=_retry_after(answer))
            case status if status < 400:
                return Unreachable("The platform answers with a redirect, which is not followed.", sent=True)
            case status if status < 500:
                return Rejected(f"The platform refuses: {self._said(answer)}.")
        wait = _retry_after(answer) if "retry-after" in answer.headers else None
        return Unreachable("The platform answers with an error of its own.", sent=True, retry_after=wait)

    def _said(self, answer: _Answer) -> str:
        """The platform's own words, in one short line without anything that is secret."""
        try:
            found = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            found = None
        said = ""
        if isinstance(found, dict):
            said = next((text(found, key) for key in ("message", "error", "detail") if text(found, key)), "")
        said = "".join(one if one.isprintable() else " " for one in said)
        account = self._token.account
        for secret in (self._token.value, *(account.secrets if account is not None else ())):
            said = said.replace(secret, _HIDDEN) if secret else said
        return cut(said) or f"status {answer.status}"

    def _object(self, answer: _Answer) -> Object:
        try:
            found = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            found = None
        if not isinstance(found, dict) or not isinstance(found.get("metadata"), dict):
            raise Unreachable("The platform answers with something that is no object of its API.", sent=True)
        return found

    async def _bearer(self) -> str:
        """A token for the account as it is now.

        Raises:
            PlatformError: there is none.
        """
        account, now = self._accounts.current(), time.monotonic()
        if self._token.account != account:
            self._token = _Token(account)
        token = self._token
        if now >= token.ends_at:
            # That nobody answers is the circuit's business.
            refused = isinstance(token.error, Unauthorized) and now - token.failed_at < TOKEN_PAUSE
            if token.fetching is None and token.error is not None and refused:
                raise token.error
            await asyncio.shield(token.fetching or self._fetch())
            if token.error is not None:
                raise token.error
        elif now >= token.renew_at and token.fetching is None and now - token.failed_at >= TOKEN_PAUSE:
            self._fetch()
        return token.value

    def _fetch(self) -> "asyncio.Task[None]":
        token = self._token
        token.fetching = asyncio.create_task(self._bought(token))
        self._buying.add(token.fetching)
        token.fetching.add_done_callback(self._buying.discard)
        return token.fetching

    async def _bought(self, token: _Token) -> None:
        """Buy a token. A failure leaves the present one in place until its own end."""
        try:
            async with asyncio.timeout(TOKEN_SECONDS):
                value, life = await self._buy(token.account or self._accounts.current())
        except TimeoutError:
            token.error, token.failed_at = Unreachable("The platform gives no token in time."), time.monotonic()
        except PlatformError as exc:
            token.error, token.failed_at = exc, time.monotonic()
        else:
            now = time.monotonic()
            token.value, token.error = value, None
            token.ends_at = now + life
            token.renew_at = now + life * (_RENEW_AT - 0.05 * random.random())  # noqa: S311 - spreads load
        finally:
            token.fetching = None

    async def _buy(self, account: Account) -> tuple[str, float]:
        """A token and its life in seconds (RFC 6749 sections 4.4 and 5.1)."""
        auth = ClientAuth(account.client_id, account.client_secret, "client_secret_basic")
        _, headers, body = auth.prepare(
            "POST",
            f"{self._url}/oauth/token",
            {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
            urlencode({"grant_type": "client_credentials"}),
        )
        answer = await self._sent("token", "POST", "/oauth/token", headers, str(body).encode())
        if answer.status in (400, 401, 403):
            raise Unauthorized("The platform gives no token for the credentials of hooks: see that they are valid.")
        if answer.status != 200:
            wait = _retry_after(answer) if "retry-after" in answer.headers else None
            raise Unreachable("The platform gives no token.", retry_after=wait)
        try:
            found = orjson.loads(answer.body)
        except orjson.JSONDecodeError:
            found = None
        value = found.get("access_token") if isinstance(found, dict) else None
        if not isinstance(value, str) or not _TOKEN.fullmatch(value):
            raise Unreachable("The platform answers with something that is no token.")
        return value, _life(found)

    def _noticed(self, state: State) -> None:
        for one in State:
            self._metrics.platform_circuit.labels(one.value).set(1 if one is state else 0)
        if state is State.OPEN:
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


def _path(thing: Thing) -> str:
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


def _result(status: int) -> str:
    if status < 300:
        return "ok"
    named = {401: "unauthorized", 403: "unauthorized", 404: "absent", 409: "conflict", 429: "throttled"}
    return named.get(status, "unreachable" if status < 400 or status >= 500 else "rejected")


def _retry_after(answer: _Answer) -> float:
    """Seconds (RFC 9110 section 10.2.3); some when it does not say."""
    written = answer.headers.get("retry-after", "").strip()
    if written.isascii() and written.isdigit():
        return min(LONGEST_RETRY_AFTER, max(1.0, float(written[:9])))
    try:
        moment = parsedate_to_datetime(written)
    except ValueError:
        return TOKEN_PAUSE
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return min(LONGEST_RETRY_AFTER, max(1.0, (moment - datetime.now(UTC)).total_seconds()))


def _life(found: Mapping[str, Any]) -> float:
    given = found.get("expires_in")
    if isinstance(given, bool) or not isinstance(given, int | float | str):
        return _DEFAULT_LIFE
    try:
        life = float(given)
    except (ValueError, OverflowError):
        return _DEFAULT_LIFE
    return min(life, _LONGEST_LIFE) if life > 0 else _DEFAULT_LIFE
