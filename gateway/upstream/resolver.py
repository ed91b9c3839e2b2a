"""Resolution of host names to addresses that may be connected to.

Look-ups run in threads of their own: `getaddrinfo` cannot be cancelled, and in the loop's default executor a few slow
ones would stop everything else that uses it. Addresses are cached for a short time, and old ones are used while the
name server is away. The caller connects to exactly the address that was checked, so a name that changes between check
and connection gains nothing.
"""

import asyncio
import socket
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address
from typing import Final, Protocol

from gateway import errors
from program.addresses import AddressRules

Endpoint = tuple[str, int]
"""Host, or IP address, and port."""

_CACHED_NAMES: Final = 4096
_STALE_SECONDS: Final = 600.0
"""Age up to which cached addresses are used while the name does not resolve."""


class AddressResolver(Protocol):
    """Resolver of host names to addresses that may be connected to."""

    async def resolve(self, host: str, port: int, *, trusted: bool) -> Sequence[Endpoint]:
        """Return the addresses and ports to connect to for `host` and `port`, in order of preference, at least one.

        `trusted` allows every address: the name is a Service of the cluster or comes from the administrator.

        Raises:
            errors.AddressRefused: All addresses of the name are ones that may not be connected to.
            errors.ConnectFailed: The name does not resolve.
            errors.Overloaded: Too many look-ups are waiting.
        """
        ...


class Resolver:
    """Resolver that checks addresses against rules, and caches them for a short time."""

    def __init__(
        self,
        rules: AddressRules,
        *,
        overrides: Mapping[Endpoint, Endpoint] | None = None,
        cache_seconds: float = 10.0,
        threads: int = 16,
        pending: int = 256,
    ) -> None:
        """Start a resolver.

        Args:
            rules: Addresses that a name from a tenant may lead to.
            overrides: Addresses and ports for hosts and ports that are not looked up (as curl's `--resolve`). The
                administrator sets them, so they are not checked.
            cache_seconds: Seconds for which addresses are used without a new look-up; at most 30.
            threads: Number of look-ups at the same time.
            pending: Number of names that may wait for a look-up; further ones are refused at once.
        """
        self._rules = rules
        self._overrides = {(_normalized(host), port): to for (host, port), to in (overrides or {}).items()}
        self._cache_seconds = min(cache_seconds, 30.0)
        self._pending = pending
        self._executor = ThreadPoolExecutor(threads, thread_name_prefix="resolver")
        self._cache: dict[str, tuple[float, tuple[str, ...]]] = {}
        self._lookups: dict[str, asyncio.Future[tuple[str, ...]]] = {}

    async def resolve(self, host: str, port: int, *, trusted: bool) -> Sequence[Endpoint]:
        """Return the addresses and ports to connect to for `host` and `port`, as `AddressResolver` says.

        Raises:
            errors.AddressRefused: All addresses of the name are ones that may not be connected to.
            errors.ConnectFailed: The name does not resolve.
            errors.Overloaded: Too many look-ups are waiting.
        """
        name = _normalized(host)
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
        """Start no more look-ups; those that run end by themselves."""
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
            # Shielded: a request that is cancelled must not cancel the look-up of those that wait with it.
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
    """Return overrides from entries of the form `host:port=address:port`; IPv6 addresses stand in brackets.

    Raises:
        ValueError: An entry does not have this form; the message names it.
    """
    overrides: dict[Endpoint, Endpoint] = {}
    for entry in entries:
        left, equals, right = entry.partition("=")
        try:
            if not equals:
                raise ValueError
            host, port = _endpoint(left)
            address, to_port = _endpoint(right)
            overrides[_normalized(host), port] = (str(ip_address(address)), to_port)
        except ValueError as exc:
            raise ValueError(f"{entry!r} is not of the form host:port=address:port") from exc
    return overrides


def _endpoint(text: str) -> Endpoint:
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit()) or not 0 < int(port) < 65536:
        raise ValueError
    return host, int(port)


def _normalized(host: str) -> str:
    return host.lower().removeprefix("[").removesuffix("]").removesuffix(".")


def _literal(name: str) -> str | None:
    try:
        return str(ip_address(name))
    except ValueError:
        return None


def _getaddrinfo(name: str) -> tuple[str, ...]:
    try:
        addresses = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except UnicodeError as exc:
        raise OSError(f"not a host name: {type(exc).__name__}") from exc
    return tuple(dict.fromkeys(str(address[0]) for *_, address in addresses))
