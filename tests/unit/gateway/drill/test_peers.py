"""The choice of the gateway that sends completions."""

from collections.abc import Collection, Mapping

import pytest

from gateway.drill import peers
from gateway.drill.peers import Peers

ALL = ("10.0.0.1", "10.0.0.2", "10.0.0.3")


def gateways(
    known: Collection[str] = ALL, own: Mapping[str, Collection[str]] | None = None, host: str = "gateways.test"
) -> list[Peers]:
    """Return gateways, each with one of the addresses of `known` unless `own` says otherwise."""
    names = own or {address: (address,) for address in known}

    async def resolve(name: str) -> Collection[str]:
        if name == host and known:
            return known
        if name not in names:
            raise OSError(f"{name} has no address")
        return names[name]

    return [Peers(host, name, resolve) for name in names]


async def test_one_gateway_is_chosen_for_each_backend() -> None:
    """For each backend exactly one gateway is chosen, and all of them are for some."""
    some = gateways()
    chosen = []
    for number in range(60):
        is_chosen = [await one.choose_this(f"default/m{number}/remote") for one in some]
        assert sorted(is_chosen, key=bool) == [False, False, True]
        chosen.append(is_chosen.index(True))
    assert set(chosen) == {0, 1, 2}


async def test_a_gateway_that_goes_moves_its_own_backends_only() -> None:
    """When a gateway goes, the others keep the backends that they are chosen for."""
    before, after = gateways(), gateways(ALL[:2])
    for number in range(60):
        name = f"default/m{number}/remote"
        for old, new in zip(before, after, strict=False):
            if await old.choose_this(name):
                assert await new.choose_this(name)


@pytest.mark.parametrize(
    "some",
    [
        gateways(own={"this": ("10.0.0.9",)}),
        gateways(known=(), own={"this": ("10.0.0.9",)}),
        gateways(own={"this": ("10.0.0.1",)}, host=""),
    ],
    ids=["not among them", "no addresses", "no name"],
)
async def test_a_gateway_that_does_not_know_itself(some: list[Peers]) -> None:
    """A gateway that is not at the name, or where the name has no address, or without a name, is no choice of it."""
    assert await some[0].choose_this("default/demo/remote") is None


async def test_addresses_are_looked_up_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses are used for some seconds, also those of no gateway."""
    asked: list[str] = []

    async def resolve(name: str) -> Collection[str]:
        asked.append(name)
        raise OSError

    monkeypatch.setattr(peers, "lookup", resolve)
    one = Peers("gateways.test", "this")
    for _ in range(3):
        assert await one.choose_this("default/demo/remote") is None
    assert asked == ["gateways.test"]
