"""Names to addresses that may be connected to.

Look-ups run in threads of their own: `getaddrinfo` cannot be cancelled, and in the loop's default executor a few slow
ones would stop everything else that uses it. Answers are kept for a short time, and a stale answer is better than none
while the name server is away. What is returned was checked, and the caller connects to exactly that, so a name that
changes between check and connect gains nothing.
"""

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Final, Protocol

from gateway import errors
from gateway.upstream.addresses import AddressRules

Endpoint = tuple[str, int]
"""An IP address and a port."""

_CACHED_NAMES: Final = 4096
_STALE_SECONDS: Final = 600.0


class AddressResolver(Protocol):
    """Resolver of host names to addresses that may be connected to."""

    async def resolve(self, host: str, port: int, *, trusted: bool) -> Sequence[Endpoint]:
        """Return the addresses to connect to for `host` and `port`, in order of preference, at least one.

        `trusted` allows every address: the name is a Service of the cluster or comes from the administrator.

        Raises:
            errors.AddressRefused: All addresses of the name are ones that may not be connected to.
            errors.ConnectFailed: The name does not resolve.
            errors.Overloaded: Too many look-ups are waiting.
        """
        ...


class Resolver:
    """Looks names up, checks what they lead to, and remembers it for a short time."""

    def __init__(
        self,
        rules: AddressRules,
        *,
        overrides: Mapping[Endpoint, Endpoint] | None = None,
        cache_seconds: float = 10.0,
        threads: int = 16,
        pending: int = 256,
    ) -> None:
        """Resolve under `rules`.

        Args:
            rules: which addresses a name from a tenant may lead to.
            overrides: where a host and port lead, instead of asking the name server (as curl's `--resolve`). The
                administrator set them, so their addresses are not checked.
            cache_seconds: how long an answer counts as fresh; at most 30.
            threads: look-ups at the same time.
            pending: names that may wait for a look-up; more are refused at once.
        """
        self._rules = rules
        self._overrides = {(_canonical(host), port): to for (host, port), to in (overrides or {}).items()}
        self._cache_seconds = min(cache_seconds, 30.0)
        self._pending = pending
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="resolver")
        self._cache: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._lookups: dict[str, asyncio.Future[tuple[str, ...]]] = {}

    async def resolve(self, host: str, port: int, *, trusted: bool) -> Sequence[Endpoint]:
        """Where to connect to for `host` and `port`, in order of preference, never empty.

        With `trusted` every address is allowed: the name is a Service of the cluster, or the administrator's.

        Raises:
            errors.AddressRefused: it leads to addresses that are not allowed, and to no other.
            errors.ConnectFailed: it does not resolve.
            errors.Overloaded: too many look-ups are waiting.
        """
        name = _canonical(host)
        override = self._overrides.get((name, port))
        if override is not None:
            return (override,)
        literal = _literal(name)
        addresses = (literal,) if literal is not None else await self._look_up(name)
        if not trusted:
            addresses = tuple(address for address in addresses if self._rules.permit(address))
            if not addresses:
                raise errors.AddressRefused
        return tuple((address, port) for address in addresses)

    def close(self) -> None:
        """Take no more look-ups; those that run end by themselves."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def _look_up(self, name: str) -> tuple[str, ...]:
        loop = asyncio.get_running_loop()
        cached = self._cache.get(name)
        now = loop.time()
        if cached is not None and now - cached[0] < self._cache_seconds:
            return cached[1]
        lookup = self._lookups.get(name)
        if lookup is None:
            if len(self._lookups) >= self._pending:
                raise errors.Overloaded
            lookup = loop.run_in_executor(self._executor, _getaddrinfo, name)
            self._lookups[name] = lookup
            lookup.add_done_callback(lambda done: self._finished(name, done, loop.time()))
        try:
            # Shielded: a request that goes away must not take the answer from those that wait with it.
            return await asyncio.shield(lookup)
        except OSError as exc:
            if cached is not None and now - cached[0] < _STALE_SECONDS:
                return cached[1]
            raise errors.ConnectFailed from exc

    def _finished(self, name: str, lookup: "asyncio.Future[tuple[str, ...]]", now: float) -> None:
        del self._lookups[name]
        if lookup.cancelled() or lookup.exception() is not None:
            return
        if len(self._cache) >= _CACHED_NAMES:
            del self._cache[min(self._cache, key=lambda one: self._cache[one][0])]
        self._cache[name] = (now, lookup.result())


def parse_overrides(entries: Iterable[str]) -> dict[Endpoint, Endpoint]:
    """Overrides from `host:port=address:port`; IPv6 addresses stand in brackets.

    Raises:
        ValueError: an entry does not have this form; the message names it.
    """
    overrides: dict[Endpoint, Endpoint] = {}
    for entry in entries:
        left, equals, right = entry.partition("=")
        try:
            if not equals:
                raise ValueError
            host, port = _endpoint(left)
            address, to_port = _endpoint(right)
            overrides[_canonical(host), port] = (str(ip_address(address)), to_port)
        except ValueError as exc:
            raise ValueError(f"{entry!r} is not of the form host:port=address:port") from exc
    return overrides


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError
    return host, int(port)


def _canonical(host: str) -> str:
    return host.lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _literal(name: str) -> str | None:
    try:
        return str(ip_address(name))
    except ValueError:
        return None


def _getaddrinfo(name: str) -> tuple[str, ...]:
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError as exc:
        raise OSError(f"not a host name: {type(exc).__name__}") from exc
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))
