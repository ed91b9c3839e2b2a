"""Resolution of names to allowed addresses, with a name server on loopback that may be silent."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from faults.name_server import FakeNameServer, name_server
from gateway import errors
from gateway.api.v1alpha1 import Backend, RouteDocument
from gateway.upstream.connection import Upstream
from gateway.upstream.origin import Origin, Timeouts
from gateway.upstream.resolver import Resolver, parse_overrides
from program.addresses import AddressRules, Destination
from tests.deadlines import NEVER, SECONDS
from tests.integration.gateway.wire import document, gateway
from tests.integration.servers import ServerSide, request_head, serving

OWNER = "team/demo"
LONG = Timeouts(connect=SECONDS, first_byte=SECONDS, idle=SECONDS)


@contextmanager
def resolving(
    addresses: Mapping[str, tuple[str, ...]] | None = None,
    *,
    silent: tuple[str, ...] = (),
    ttl: int = 0,
    search: tuple[str, ...] = (),
    **options: Any,
) -> Iterator[tuple[Resolver, FakeNameServer]]:
    """Yield a resolver with one more allowed address than by default, and one override, and its name server."""
    rules = AddressRules.parse(allowed=["192.0.2.1/32"])
    overrides = parse_overrides(["Model.example:80=127.0.0.1:9101"])
    with name_server(addresses or {}, silent=silent, ttl=ttl) as server:
        resolver = Resolver(rules, overrides=overrides, open_server=lambda: server.open(*search), **options)
        try:
            yield resolver, server
        finally:
            resolver.close()


async def find(resolver: Resolver, host: str, *, owner: str = OWNER, destination: Destination = "remote") -> list[str]:
    """Return the addresses of a host."""
    async with asyncio.timeout(SECONDS):
        return [address for address, _ in await resolver.resolve(host, 80, destination=destination, owner=owner)]


async def test_a_configured_name_may_lead_anywhere() -> None:
    """A name that the administrator has configured may have any address, this host's too."""
    with resolving() as (resolver, _):
        assert "127.0.0.1" in await find(resolver, "localhost", destination="configured")


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST.", "127.0.0.1", "[::1]", "127.1", "0x7f.1", "0177.0.0.1", "2130706433", "169.254.169.254"],
)
@pytest.mark.parametrize("destination", ["remote", "service"])
async def test_se_15_k_02_a_tenants_name_may_not_lead_inside(host: str, destination: Destination) -> None:
    """SE-15: an address inside is refused to a name that a tenant chooses, in any spelling."""
    with resolving() as (resolver, _), pytest.raises(errors.AddressRefused):
        await find(resolver, host, destination=destination)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "169.254.169.254", "0.0.0.0", "::ffff:127.0.0.1", "64:ff9b::a9fe:a9fe"]
)
async def test_the_name_of_a_service_may_not_lead_inside(address: str) -> None:
    """A Service whose name leads to this host, its link or a metadata server is not connected to."""
    name = "demo.default.svc.cluster.local"
    with resolving({name: (address,)}) as (resolver, _), pytest.raises(errors.AddressRefused):
        await find(resolver, name, destination="service")


async def test_an_allowed_address_passes_as_it_is() -> None:
    """An allowed address is returned as it is, with its port."""
    with resolving() as (resolver, _):
        found = await resolver.resolve("192.0.2.1", 8443, destination="remote", owner=OWNER)
        assert found == (("192.0.2.1", 8443),)


@pytest.mark.parametrize("host", ["model.example", "MODEL.example."])
@pytest.mark.parametrize("destination", ["remote", "service"])
async def test_an_override_wins_for_its_port_only(host: str, destination: Destination) -> None:
    """An override, whose address needs no permission, replaces the address of its name and port."""
    with resolving() as (resolver, _):
        assert await resolver.resolve(host, 80, destination=destination, owner=OWNER) == (("127.0.0.1", 9101),)


@pytest.mark.parametrize("host", ["no-such-name.invalid", "a" * 64 + ".invalid", "a..b", "", "ä" * 70 + ".invalid"])
async def test_rd_12_a_name_that_does_not_resolve(host: str) -> None:
    """RD-12: an unknown or impossible name counts as a failure to connect."""
    with resolving() as (resolver, _), pytest.raises(errors.ConnectFailed):
        await find(resolver, host, destination="configured")


async def test_addresses_of_both_families_are_found_along_the_search_path() -> None:
    """A name is looked up with the domains of the search path first, for addresses of IPv4 and IPv6."""
    addresses = {"demo.team.svc.cluster.local": ("10.1.2.3", "2001:db8::1")}
    search = ("team.svc.cluster.local", "svc.cluster.local")
    with resolving(addresses, search=search) as (resolver, server):
        assert sorted(await find(resolver, "demo.team")) == ["10.1.2.3", "2001:db8::1"]
        assert server.asked == ["demo.team.team.svc.cluster.local", "demo.team.svc.cluster.local"]


async def test_the_hosts_file_counts() -> None:
    """A name of the hosts file needs no name server."""
    with resolving() as (resolver, server):
        assert "127.0.0.1" in await find(resolver, "localhost", destination="configured")
        assert server.asked == []


async def test_rd_12_addresses_are_cached_and_stale_ones_used_on_error() -> None:
    """RD-12: addresses are not looked up again within their time, and old ones are used when a later look-up fails."""
    addresses = {"m.example": ("192.0.2.1",)}
    with resolving(addresses, cache_seconds=NEVER) as (resolver, server):
        for _ in range(3):
            assert await find(resolver, "m.example") == ["192.0.2.1"]
        assert len(server.asked) == 1
    with resolving(addresses, cache_seconds=0.0) as (resolver, server):
        assert await find(resolver, "m.example") == ["192.0.2.1"]
        server.addresses.clear()
        assert await find(resolver, "m.example") == ["192.0.2.1"]
        assert len(server.asked) == 2


async def test_a_short_time_of_the_name_server_counts() -> None:
    """An address is used for as long as its name server says, where that is less than the setting."""
    with resolving({"m.example": ("192.0.2.1",)}, ttl=1, cache_seconds=NEVER) as (resolver, server):
        assert await find(resolver, "m.example") == ["192.0.2.1"]
        server.addresses["m.example"] = ("192.0.2.2",)
        async with asyncio.timeout(SECONDS):
            while await find(resolver, "m.example") != ["192.0.2.2"]:
                await asyncio.sleep(0.1)


async def test_se_15_a_name_that_changes_is_checked_each_time() -> None:
    """SE-15: a name is checked at each look-up, so one that changes to a forbidden address is refused."""
    addresses = {"rebind.example": ("192.0.2.1",)}
    with resolving(addresses, cache_seconds=0.0, patience_seconds=NEVER) as (resolver, server):
        assert await find(resolver, "rebind.example") == ["192.0.2.1"]
        server.addresses["rebind.example"] = ("169.254.169.254",)
        with pytest.raises(errors.AddressRefused):
            await find(resolver, "rebind.example")


async def test_addresses_that_are_refused_are_left_out() -> None:
    """Of several addresses only the allowed ones are returned."""
    with resolving({"both.example": ("127.0.0.1", "192.0.2.1")}) as (resolver, _):
        assert await find(resolver, "both.example") == ["192.0.2.1"]


async def test_slow_look_ups_are_shared_and_survive_a_cancel() -> None:
    """One look-up serves all callers of its name, also when the first is cancelled."""
    with resolving({"slow.example": ("192.0.2.1",)}, silent=("slow.example",)) as (resolver, server):
        waiting = [asyncio.ensure_future(find(resolver, "slow.example")) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        server.silent.clear()
        assert await asyncio.gather(*waiting[1:]) == [["192.0.2.1"]] * 2
        assert set(server.asked) == {"slow.example"}


async def test_too_many_look_ups_of_a_namespace_are_refused() -> None:
    """Look-ups of a namespace wait for one another up to a limit, and those of another namespace do not."""
    limits: dict[str, Any] = {"per_tenant": 2, "per_route": 1, "waiting": 1}
    with resolving({"quick.example": ("192.0.2.1",)}, silent=("slow.example",), **limits) as (
        resolver,
        server,
    ):
        names = ("a", "b", "c")
        owners = ("bad/one", "bad/two", "bad/three")
        hung = [
            asyncio.ensure_future(find(resolver, f"{name}.slow.example", owner=owner))
            for name, owner in zip(names, owners, strict=True)
        ]
        await asyncio.sleep(0)
        with pytest.raises(errors.Overloaded):
            await find(resolver, "quick.example", owner="bad/four")
        assert await find(resolver, "quick.example", owner="good/one") == ["192.0.2.1"]
        server.silent.clear()  # the names do not exist: each look-up ends, and the one that waited begins
        assert [type(one) for one in await asyncio.gather(*hung, return_exceptions=True)] == [errors.ConnectFailed] * 3
        assert "c.slow.example" in server.asked
        assert await find(resolver, "quick.example", owner="bad/four") == ["192.0.2.1"]


async def test_a_route_whose_look_ups_hang_leaves_those_of_its_namespace_alone() -> None:
    """A route has a share of the look-ups of its namespace, so many names of one that hang hold up no other route."""
    with resolving({"quick.example": ("192.0.2.1",)}, silent=("slow.example",)) as (resolver, _):
        hung = [asyncio.ensure_future(find(resolver, f"{n}.slow.example", owner="team/bad")) for n in range(200)]
        await asyncio.sleep(0)
        assert await find(resolver, "quick.example", owner="team/good") == ["192.0.2.1"]
        assert not any(one.done() for one in hung)
        for one in hung:
            one.cancel()


async def test_a_look_up_ends_at_its_deadline() -> None:
    """A look-up that gets no response fails after its time, and its slot is free again."""
    options: dict[str, Any] = {"lookup_seconds": 0.1, "per_tenant": 1}
    with resolving({"quick.example": ("192.0.2.1",)}, silent=("slow.example",), **options) as (resolver, _):
        for _ in range(2):
            with pytest.raises(errors.ConnectFailed):
                await find(resolver, "slow.example")
        assert await find(resolver, "quick.example") == ["192.0.2.1"]


async def test_the_last_known_address_is_used_while_the_name_server_is_silent() -> None:
    """An address that is out of date is used while its name server is silent, and without a wait from then on."""
    options: dict[str, Any] = {"cache_seconds": 0.0, "patience_seconds": 0.1, "lookup_seconds": NEVER}
    with resolving({"m.example": ("192.0.2.1",)}, **options) as (resolver, server):
        assert await find(resolver, "m.example") == ["192.0.2.1"]
        server.silent.add("m.example")
        for _ in range(20):
            assert await find(resolver, "m.example") == ["192.0.2.1"]


async def test_a_last_known_address_that_fails_is_used_no_more_while_the_name_is_looked_up() -> None:
    """An address that is out of date and cannot be connected to waits for the look-up, and counts if that fails."""
    options: dict[str, Any] = {"cache_seconds": 0.0, "patience_seconds": 0.0, "lookup_seconds": NEVER}
    with resolving({"m.example": ("192.0.2.1",)}, **options) as (resolver, server):
        assert await find(resolver, "m.example") == ["192.0.2.1"]
        server.silent.add("m.example")
        assert await find(resolver, "m.example") == ["192.0.2.1"]
        resolver.doubt("m.example", owner=OWNER)
        waiting = asyncio.ensure_future(find(resolver, "m.example"))
        await asyncio.sleep(0)
        assert not waiting.done()
        server.addresses["m.example"] = ("192.0.2.2",)
        server.silent.clear()
        assert await waiting == ["192.0.2.2"]
        resolver.doubt("m.example", owner=OWNER)
        server.addresses.clear()
        assert await find(resolver, "m.example") == ["192.0.2.2"]


async def test_a_tenant_keeps_the_names_of_no_other() -> None:
    """The names of one namespace, however many, take no address from another."""
    with resolving({"m.example": ("192.0.2.1",)}, waiting=NEVER) as (resolver, server):
        assert await find(resolver, "m.example", owner="good/demo") == ["192.0.2.1"]
        for n in range(1100):
            with pytest.raises(errors.ConnectFailed):
                await find(resolver, f"{n}.invalid", owner="bad/demo")
        server.silent.add("m.example")
        assert await find(resolver, "m.example", owner="good/demo") == ["192.0.2.1"]


async def test_a_changed_configuration_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of resolv.conf counts without a restart."""
    monkeypatch.setattr("gateway.upstream.name_server._UNCHANGED_SECONDS", 0.0)
    file = tmp_path / "resolv.conf"
    with (
        name_server({"m.example": ("192.0.2.1",)}) as first,
        name_server({"m.example": ("192.0.2.2",)}) as second,
    ):
        now = first
        resolver = Resolver(AddressRules(), cache_seconds=0.0, open_server=lambda: now.open(configuration=file))
        assert await find(resolver, "m.example") == ["192.0.2.1"]
        now = second
        assert await find(resolver, "m.example") == ["192.0.2.1"]
        file.write_text("nameserver 192.0.2.53")
        async with asyncio.timeout(SECONDS):
            while await find(resolver, "m.example") != ["192.0.2.2"]:
                await asyncio.sleep(0.01)
        resolver.close()


async def _always_ok(side: ServerSide) -> None:
    while True:
        await side.request()
        await side.send(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")


async def test_a_request_that_cannot_connect_casts_doubt_on_an_old_address() -> None:
    """A request that fails to connect to an old address makes the next one wait for the name server."""
    with name_server({"m.example": ("127.0.0.2",)}) as server:
        resolver = Resolver(
            AddressRules.parse(allowed=["127.0.0.0/8"]),
            open_server=server.open,
            cache_seconds=0.0,
            patience_seconds=0.0,
            lookup_seconds=NEVER,
        )
        upstream = Upstream(resolver)
        try:
            async with serving(_always_ok) as backend:
                origin = Origin("m.example", backend.port)
                with pytest.raises(errors.ConnectFailed):
                    await upstream.send(origin, request_head(b"GET", b"/"), b"", LONG, owner=OWNER)
                server.silent.add("m.example")
                server.addresses["m.example"] = ("127.0.0.1",)
                asyncio.get_running_loop().call_later(0.1, server.silent.clear)
                async with asyncio.timeout(SECONDS):
                    response = await upstream.send(origin, request_head(b"GET", b"/"), b"", LONG, owner=OWNER)
                assert response.head.status == 200
                response.abort()
        finally:
            upstream.close()
            resolver.close()


async def test_a_tenants_silent_name_server_fails_no_request_of_another() -> None:
    """While all requests of one tenant wait for a silent name server, those of another are served."""
    silent = [
        RouteDocument(
            name=f"bad-{n}",
            backends=tuple(
                Backend(id=f"remote-{m}", host=f"h{m}.{n}.silent.example", weight=0 if m else 100) for m in range(4)
            ),
        )
        for n in range(30)
    ]
    with name_server({"good.example": ("127.0.0.1",)}, silent=("silent.example",)) as server:
        settings = {"gateway": {"allowedAddresses": ["127.0.0.0/8"]}}
        async with (
            serving(_always_ok) as backend,
            gateway(settings=settings, open_server=server.open) as running,
        ):
            good = document(Backend(id="remote", host="good.example", port=backend.port, weight=100), name="good")
            running.load_all({"bad": silent, "good": [good]})
            hung = [
                asyncio.ensure_future(running.post(b"/bad/bad-%d/v1/chat/completions" % (n % 30), b"{}"))
                for n in range(120)
            ]
            async with asyncio.timeout(SECONDS):
                while len({name for name in server.asked if name.endswith("silent.example")}) < 30:
                    await asyncio.sleep(0.01)
            for _ in range(10):
                response = await running.post(b"/good/good/v1/chat/completions", b"{}")
                assert response.status == 200
                running.upstream.forget({Origin("good.example", backend.port)})  # so that the next one connects again
            assert not any(one.done() for one in hung)
            for one in hung:
                one.cancel()
            await asyncio.gather(*hung, return_exceptions=True)


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
