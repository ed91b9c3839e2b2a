"""Resolution of names to allowed addresses, with the real resolver of the machine."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from gateway import errors
from gateway.upstream.resolver import Resolver, parse_overrides
from program.addresses import AddressRules
from tests.deadlines import SECONDS


@contextmanager
def resolving(**options: float) -> Iterator[Resolver]:
    """Yield a resolver with one more allowed address than by default, and one override."""
    rules = AddressRules.parse(allowed=["192.0.2.1/32"])
    resolver = Resolver(rules, overrides=parse_overrides(["Model.example:80=127.0.0.1:9101"]), **options)  # type: ignore[arg-type]
    try:
        yield resolver
    finally:
        resolver.close()


async def test_a_trusted_name_may_lead_anywhere() -> None:
    """A trusted name, such as that of a Service, may have any address, this host's too."""
    with resolving() as resolver:
        assert ("127.0.0.1", 80) in await resolver.resolve("localhost", 80, trusted=True)


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "127.0.0.1", "[::1]", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "169.254.169.254"],
)
async def test_se_15_k_02_a_tenants_name_may_not_lead_inside(host: str) -> None:
    """SE-15: an address inside is refused to a name that is not trusted, in any spelling."""
    with resolving() as resolver, pytest.raises(errors.AddressRefused):
        await resolver.resolve(host, 80, trusted=False)


async def test_an_allowed_address_passes_as_it_is() -> None:
    """An allowed address is returned as it is, with its port."""
    with resolving() as resolver:
        assert await resolver.resolve("192.0.2.1", 8443, trusted=False) == (("192.0.2.1", 8443),)


@pytest.mark.parametrize("host", ["model.example", "MODEL.example."])
async def test_an_override_wins_for_its_port_only(host: str) -> None:
    """An override, whose address needs no permission, replaces the address of its name and port."""
    with resolving() as resolver:
        assert await resolver.resolve(host, 80, trusted=False) == (("127.0.0.1", 9101),)


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a" * 64 + ".invalid", "a..b", ""])
async def test_rd_12_a_name_that_does_not_resolve(host: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """RD-12: an unknown or impossible name counts as a failure to connect."""
    real = socket.getaddrinfo

    def offline(name: str, *args: object, **named: object) -> object:
        if name == "no-such-name.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return real(name or "no host", *args, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", offline)
    with resolving() as resolver, pytest.raises(errors.ConnectFailed):
        await resolver.resolve(host, 80, trusted=True)


async def test_rd_12_addresses_are_cached_and_stale_ones_used_on_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """RD-12: addresses are not looked up again within their time, and old ones are used when a later look-up fails."""
    calls = 0

    def response(*args: object, **named: object) -> list[object]:
        nonlocal calls
        calls += 1
        if calls > 1:
            raise socket.gaierror(socket.EAI_AGAIN, "try again")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))] * 2

    monkeypatch.setattr(socket, "getaddrinfo", response)
    with resolving(cache_seconds=1) as resolver:
        for _ in range(3):
            assert await resolver.resolve("model.example", 81, trusted=False) == (("192.0.2.1", 81),)
        assert calls == 1
        await asyncio.sleep(1.1)
        assert await resolver.resolve("model.example", 81, trusted=False) == (("192.0.2.1", 81),)
        assert calls == 2


async def test_se_15_a_name_that_changes_is_checked_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """SE-15: a name is checked at each look-up, so one that changes to a forbidden address is refused."""
    addresses = iter(["192.0.2.1", "169.254.169.254"])

    def response(*args: object, **named: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(addresses), 0))]

    monkeypatch.setattr(socket, "getaddrinfo", response)
    with resolving(cache_seconds=0.0) as resolver:
        assert await resolver.resolve("rebind.example", 80, trusted=False) == (("192.0.2.1", 80),)
        with pytest.raises(errors.AddressRefused):
            await resolver.resolve("rebind.example", 80, trusted=False)


async def test_addresses_that_are_refused_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of several addresses only the allowed ones are returned."""

    def response(*args: object, **named: object) -> list[object]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (one, 0)) for one in ("127.0.0.1", "192.0.2.1")]

    monkeypatch.setattr(socket, "getaddrinfo", response)
    with resolving() as resolver:
        assert await resolver.resolve("both.example", 80, trusted=False) == (("192.0.2.1", 80),)


async def test_slow_look_ups_are_shared_bounded_and_survive_a_cancel(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look-up serves all callers of its name, also when the first is cancelled; too many look-ups are refused."""
    go = threading.Event()
    calls = 0

    def response(*args: object, **named: object) -> list[object]:
        nonlocal calls
        calls += 1
        go.wait(SECONDS)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.1", 0))]

    monkeypatch.setattr(socket, "getaddrinfo", response)
    with resolving(threads=1, pending=1) as resolver:
        waiting = [asyncio.ensure_future(resolver.resolve("slow.example", 80, trusted=False)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        with pytest.raises(errors.Overloaded):
            await resolver.resolve("other.example", 80, trusted=False)
        go.set()
        async with asyncio.timeout(SECONDS):
            assert await asyncio.gather(*waiting[1:]) == [(("192.0.2.1", 80),)] * 2
        assert calls == 1


def test_overrides_are_parsed() -> None:
    """Overrides are parsed to names in lower case and addresses, with IPv6 in brackets on both sides."""
    assert parse_overrides(["A.b.:80=127.0.0.1:9101", "[::1]:1=[2001:db8::1]:2"]) == {
        ("a.b", 80): ("127.0.0.1", 9101),
        ("::1", 1): ("2001:db8::1", 2),
    }


@pytest.mark.parametrize(
    "entry", ["", "a:80", "a:80=b:80", "a=127.0.0.1:1", "a:0=127.0.0.1:1", "a:80=127.0.0.1:x", ":1=127.0.0.1:1"]
)
def test_a_wrong_override_is_named(entry: str) -> None:
    """A wrong override raises an error that says which form is allowed."""
    with pytest.raises(ValueError, match="is not of the form host:port=address:port"):
        parse_overrides([entry])
