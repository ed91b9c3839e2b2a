"""A client for pages of pods: one GET request for each, to an address and a port that a tenant has a say in.

The address is the pod's own and is held to the rules for addresses. No redirect is followed, no proxy of the
environment is used, and a response is read up to a limit and must not be compressed. A connection serves one request.
"""

import asyncio
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, Protocol
from weakref import WeakValueDictionary

import httpx

from hooks import reasons
from hooks.clients.errors import Api, CallFailed
from hooks.clients.http import in_words, read_body
from hooks.clients.measured import measured
from hooks.telemetry import Metrics
from program.addresses import AddressRules
from program.authority import authority

API: Final = Api("pod_metrics", "A pod of the model")
PAGE_BYTES: Final = 1 << 20
"""Bytes that a page may have."""
CONNECTIONS: Final = 256
"""Connections to pods at the same time."""
OF_NAMESPACE: Final = 32
"""Connections to the pods of one namespace at the same time: slow ones keep only their own namespace waiting."""

_ACCEPT: Final = "text/plain;version=0.0.4"
_OPEN_METRICS: Final = "application/openmetrics-text"


@dataclass(frozen=True, slots=True)
class Page:
    """The page of a pod."""

    content: bytes
    is_open_metrics: bool
    """Whether the pod says that the page is in the format OpenMetrics."""


class PageSource(Protocol):
    """A source of pages of pods."""

    async def page(self, namespace: str, address: str, port: int, path: str, /) -> Page:
        """Return the page at a path of a pod, as `PodClient.page` does."""


class PodClient:
    """A client for pods."""

    def __init__(self, metrics: Metrics, rules: AddressRules, seconds: float) -> None:
        """Connect to nothing yet.

        Args:
            metrics: counts the requests.
            rules: addresses that pods may have.
            seconds: seconds that one request may take.
        """
        self._metrics = metrics
        self._rules = rules
        self._seconds = seconds
        self._slots = asyncio.Semaphore(CONNECTIONS)
        self._of_namespace: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()
        self._client = httpx.AsyncClient(
            trust_env=False,
            follow_redirects=False,
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),  # none is kept
            timeout=httpx.Timeout(None),  # each request as a whole has a deadline
            limits=httpx.Limits(max_connections=CONNECTIONS, max_keepalive_connections=0),
        )

    async def page(self, namespace: str, address: str, port: int, path: str) -> Page:
        """Return the page at a path of a pod.

        Args:
            namespace: namespace of the pod.
            address: IP address of the pod.
            port: port of the pod.
            path: path, percent-encoded, with a query where there is one.

        Raises:
            CallFailed: there is no page, or not one that can be used.
        """
        if not self._rules.permit(address):
            words = "The pods have an address that hooks never connect to, such as loopback or link-local."
            raise CallFailed(reasons.REFUSED, words)
        slots = self._of_namespace.setdefault(namespace, asyncio.Semaphore(OF_NAMESPACE))
        try:
            async with asyncio.timeout(self._seconds), slots, self._slots:
                return await self._sent(f"http://{authority(address, port)}{path}")
        except TimeoutError:
            words = f"{API.words} did not respond in time: see that it is up and that no policy is between."
            raise CallFailed(reasons.TIMED_OUT, words) from None

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def _sent(self, url: str) -> Page:
        headers = {"accept": _ACCEPT, "accept-encoding": "identity", "connection": "close"}
        try:
            with measured(self._metrics, API) as call:
                async with self._client.stream("GET", url, headers=headers) as response:
                    if response.status_code != 200:
                        call.code = str(response.status_code)
                        raise _refused(response.status_code)
                    content = await read_body(API, response, PAGE_BYTES)
                    call.code = "200"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as exc:
            raise CallFailed(reasons.UNREACHABLE, f"{API.words} cannot be asked: {in_words(exc)}.") from None
        return Page(content, response.headers.get("content-type", "").startswith(_OPEN_METRICS))


def _refused(status: int) -> CallFailed:
    """Return what a status other than 200 means."""
    if 300 <= status < 400:
        words = f"{API.words} redirects to another page, and hooks follow no redirect: name the page in path."
        return CallFailed(reasons.REFUSED, words)
    if status in (401, 403):
        return CallFailed(reasons.FORBIDDEN, f"{API.words} wants credentials for its page, and hooks have none.")
    if status in (404, 405):
        words = f"{API.words} has no such page: correct port or path, or switch the metrics of its server on."
        return CallFailed(reasons.NOT_SERVED, words)
    return CallFailed(reasons.UNREACHABLE, f"{API.words} responds with status {status}.")
