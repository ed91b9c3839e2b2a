"""Resolution of host names to addresses that may be connected to.

Each tenant has its own addresses and its own share of the look-ups, so names of one that hang leave the others alone.
An address is used for as long as the name server says, at most some seconds; the last known one is used longer while
the name server is silent. The caller connects to exactly the address that was checked, so a name that changes between
check and connection gains nothing.
"""

import asyncio
import contextlib
import re
import socket
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address
from math import inf
from typing import Final, Protocol

from gateway import errors
from gateway.upstream.name_server import NameServer
from program.addresses import AddressRules, Destination

Endpoint = tuple[str, int]
"""Host, or IP address, and port."""

_LOOKUP_SECONDS: Final = 10.0
"""Seconds after which a look-up has failed, whatever its questions do."""
_PATIENCE_SECONDS: Final = 0.5
"""Seconds of a look-up after which the last known addresses are used meanwhile."""
_PAUSE_SECONDS: Final = 1.0
"""Seconds after a failed look-up in which a name with known addresses is not looked up again."""
_LEAST_SECONDS: Final = 1.0
"""Least seconds for which addresses are used without a new look-up; those of the hosts file have no time of their
own."""
_STALE_SECONDS: Final = 600.0
"""Age up to which addresses are used while the name does not resolve."""
_NAMES: Final = 1024
"""Number of names of one tenant whose addresses are kept."""
_TENANTS: Final = 4096
"""Number of tenants whose addresses are kept."""
_OLD_SPELLING: Final = re.compile(r"[0-9a-fx]+(\.[0-9a-fx]+){0,3}")
"""Text that may be an IPv4 address in one of the spellings that inet_aton accepts, such as 127.1 and 0x7f000001."""


class AddressResolver(Protocol):
    """Resolver of host names to addresses that may be connected to."""

    async def resolve(self, host: str, port: int, *, destination: Destination, owner: str) -> Sequence[Endpoint]:
        """Return the addresses and ports to connect to for `host` and `port`, in order of preference, at least one.

        Args:
            host: Name or address.
            port: Port, which is returned with each address.
            destination: Kind of the server, which says the addresses it may have.
            owner: Route whose look-up this is, as `namespace/name`; empty for names of the administrator.

        Raises:
            errors.AddressRefused: All addresses of the name are ones that may not be connected to.
            errors.ConnectFailed: The name does not resolve.
            errors.Overloaded: Too many look-ups of the namespace are waiting.
        """
        ...

    def doubt(self, host: str, *, owner: str) -> None:
        """Note that no address of `host` could be connected to: one that is out of date is not used any more while the
        name is looked up."""
        ...


class _Name:
    """A host name of one tenant: its last known addresses, and its look-up where one is under way."""

    __slots__ = ("addresses", "doubted", "fresh_until", "known_at", "lookup", "pause_until", "route", "since")

    def __init__(self) -> None:
        self.addresses: tuple[str, ...] = ()
        self.known_at = -inf
        self.fresh_until = -inf
        self.doubted = False
        """Whether the addresses failed when they were already out of date."""
        self.lookup: asyncio.Future[None] | None = None
        self.since = 0.0
        """Time at which the look-up was asked for."""
        self.route = ""
        """Route whose look-up it is."""
        self.pause_until = -inf


class _Tenant:
    """The names of one namespace, and its share of the look-ups."""

    __slots__ = ("names", "routes", "running", "waiting")

    def __init__(self) -> None:
        self.names: dict[str, _Name] = {}
        self.running = 0
        self.routes: Counter[str] = Counter()
        """Running look-ups by route."""
        self.waiting: deque[tuple[str, _Name]] = deque()
        """Look-ups that wait until others of the namespace or route have ended."""


class Resolver:
    """Resolver that checks addresses against rules, and keeps them for a short time."""

    def __init__(
        self,
        rules: AddressRules,
        *,
        overrides: Mapping[Endpoint, Endpoint] | None = None,
        cache_seconds: float = 10.0,
        lookup_seconds: float = _LOOKUP_SECONDS,
        patience_seconds: float = _PATIENCE_SECONDS,
        per_tenant: int = 32,
        per_route: int = 4,
        waiting: int = 1024,
        open_server: Callable[[], NameServer] = NameServer,
    ) -> None:
        """Prepare a resolver; the first look-up reads the configuration.

        Args:
            rules: Addresses that backends may have.
            overrides: Addresses and ports for hosts and ports that are not looked up (as curl's `--resolve`). The
                administrator sets them, so they are not checked.
            cache_seconds: Seconds for which addresses are used at most without a new look-up; at most 30.
            lookup_seconds: Seconds that a look-up may take.
            patience_seconds: Seconds that a request waits for a look-up when there is a last known address.
            per_tenant: Number of look-ups of one namespace at the same time.
            per_route: Number of look-ups of one route at the same time.
            waiting: Number of look-ups of one namespace that may wait; further ones are refused at once.
            open_server: Function that returns the name servers as they are configured now.
        """
        self._rules = rules
        self._overrides = {(_normalized(host), port): to for (host, port), to in (overrides or {}).items()}
        self._cache_seconds = min(cache_seconds, 30.0)
        self._least_seconds = min(_LEAST_SECONDS, self._cache_seconds)
        self._lookup_seconds = lookup_seconds
        self._patience_seconds = patience_seconds
        self._per_tenant = per_tenant
        self._per_route = per_route
        self._waiting = waiting
        self._open_server = open_server
        self._tenants: dict[str, _Tenant] = {}
        self._server: NameServer | None = None
        self._closed = False

    async def resolve(self, host: str, port: int, *, destination: Destination, owner: str) -> Sequence[Endpoint]:
        """Return the addresses and ports to connect to for `host` and `port`, as `AddressResolver` says.

        Raises:
            errors.AddressRefused: All addresses of the name are ones that may not be connected to.
            errors.ConnectFailed: The name does not resolve.
            errors.Overloaded: Too many look-ups of the namespace are waiting.
        """
        name = _normalized(host)
        override = self._overrides.get((name, port))
        if override is not None:
            return (override,)
        literal = _literal(name)
        addresses = (literal,) if literal is not None else await self._find(name, owner)
        addresses = tuple(address for address in addresses if self._rules.permit(address, destination))
        if not addresses:
            raise errors.AddressRefused
        return tuple((address, port) for address in addresses)

    def doubt(self, host: str, *, owner: str) -> None:
        """Use the addresses of `host` no more while the name is looked up, where they are out of date."""
        tenant = self._tenants.get(owner.partition("/")[0])
        known = None if tenant is None else tenant.names.get(_normalized(host))
        if known is not None and asyncio.get_running_loop().time() >= known.fresh_until:
            known.doubted = True

    def close(self) -> None:
        """End all look-ups."""
        self._closed = True
        for tenant in self._tenants.values():
            tenant.waiting.clear()
            for known in tenant.names.values():
                if known.lookup is not None:
                    known.lookup.cancel()
        if self._server is not None:
            self._server.close()

    async def _find(self, name: str, owner: str) -> tuple[str, ...]:
        """Return the addresses of a name: those it has now, or the last known ones while no name server responds."""
        now = asyncio.get_running_loop().time()
        tenant = self._tenant(owner)
        known = tenant.names.get(name)
        if known is None:
            known = _add(tenant, name)
        if now < known.fresh_until:
            return known.addresses
        useful = bool(known.addresses) and now - known.known_at < _STALE_SECONDS
        if known.lookup is None:
            if useful and now < known.pause_until:
                return known.addresses
            try:
                self._ask(tenant, name, known, owner, now)
            except errors.Overloaded:
                if useful:
                    return known.addresses
                raise
        lookup = known.lookup
        if lookup is not None and not lookup.done():
            patience = known.since + self._patience_seconds - now if useful and not known.doubted else None
            if patience is not None and patience <= 0:
                return known.addresses
            # `wait` cancels no look-up: a request that goes away must not take it from those that wait with it.
            await asyncio.wait((lookup,), timeout=patience)
        if known.addresses and (useful or known.known_at >= now):
            return known.addresses
        raise errors.ConnectFailed(is_unresolved=True)

    def _tenant(self, owner: str) -> _Tenant:
        namespace = owner.partition("/")[0]
        tenant = self._tenants.get(namespace)
        if tenant is None:
            if len(self._tenants) >= _TENANTS:
                idle = next((key for key, one in self._tenants.items() if not one.running), None)
                if idle is not None:
                    del self._tenants[idle]
            tenant = self._tenants[namespace] = _Tenant()
        return tenant

    def _ask(self, tenant: _Tenant, name: str, known: _Name, owner: str, now: float) -> None:
        """Start the look-up of a name, or let it wait for its turn."""
        if self._closed:
            raise errors.ConnectFailed
        room = tenant.running < self._per_tenant and tenant.routes[owner] < self._per_route
        if not room and len(tenant.waiting) >= self._waiting:
            raise errors.Overloaded
        known.lookup = asyncio.get_running_loop().create_future()
        known.since = now
        known.route = owner
        if room:
            self._run(tenant, name, known)
        else:
            tenant.waiting.append((name, known))

    def _run(self, tenant: _Tenant, name: str, known: _Name) -> None:
        tenant.running += 1
        tenant.routes[known.route] += 1
        loop = asyncio.get_running_loop()
        lookup = known.lookup
        late = loop.call_later(self._lookup_seconds, self._ended, tenant, known, lookup, (), 0)

        def ended(addresses: tuple[str, ...], ttl: int) -> None:
            late.cancel()
            self._ended(tenant, known, lookup, addresses, ttl)

        try:
            if self._server is not None and self._server.outdated():
                self._server.close()  # its questions fail
                self._server = None
            if self._server is None:
                self._server = self._open_server()
            self._server.ask(name.encode("idna").decode(), ended)
        except (OSError, UnicodeError):
            loop.call_soon(ended, (), 0)

    def _ended(
        self,
        tenant: _Tenant,
        known: _Name,
        lookup: "asyncio.Future[None] | None",
        addresses: tuple[str, ...],
        ttl: int,
    ) -> None:
        """Note the result of a look-up, which has failed without addresses, and start those that waited for its end."""
        if known.lookup is not lookup or lookup is None or lookup.done():
            return  # it was too late before, or the resolver is closed
        now = asyncio.get_running_loop().time()
        if addresses:
            known.addresses, known.known_at, known.doubted = addresses, now, False
            known.fresh_until = now + min(max(ttl, self._least_seconds), self._cache_seconds)
        else:
            known.pause_until = now + _PAUSE_SECONDS
        known.lookup = None
        lookup.set_result(None)
        tenant.running -= 1
        tenant.routes[known.route] -= 1
        if not tenant.routes[known.route]:
            del tenant.routes[known.route]
        for place, (name, other) in enumerate(tenant.waiting):
            if tenant.routes[other.route] < self._per_route:
                del tenant.waiting[place]
                self._run(tenant, name, other)
                return


def _add(tenant: _Tenant, name: str) -> _Name:
    """Return a new entry for a name, in place of the oldest one without a look-up where there are too many."""
    if len(tenant.names) >= _NAMES:
        oldest = next((key for key, one in tenant.names.items() if one.lookup is None), None)
        if oldest is not None:
            del tenant.names[oldest]
    known = tenant.names[name] = _Name()
    return known


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
    """Return the address that a text spells, also in the old spellings of IPv4; None for a name."""
    try:
        return str(ip_address(name))
    except ValueError:
        pass
    if _OLD_SPELLING.fullmatch(name):
        with contextlib.suppress(OSError):
            return socket.inet_ntoa(socket.inet_aton(name))
    return None
