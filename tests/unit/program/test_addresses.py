"""Addresses of backends: which are allowed, and which are refused."""

from ipaddress import IPv4Address, IPv6Address, ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from program.addresses import AddressRules, embedded

REFUSED = [
    "127.0.0.1",
    "127.255.255.254",
    "0.0.0.0",
    "0.1.2.3",
    "169.254.169.254",
    "224.0.0.1",
    "255.255.255.255",
    "240.0.0.1",
    "168.63.129.16",
    "100.100.100.200",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "2001:db8::1%1",
    "ff02::1",
    "fd00:ec2::254",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::127.0.0.1",
    "64:ff9b::7f00:1",
    "64:ff9b:1::a9fe:a9fe",
    "2002:7f00:1::",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
    "10.96.0.1",
    "::ffff:10.96.0.1",
    "127.1",
    "0x7f.0.0.1",
    "2130706433",
    "localhost",
    "",
]


@pytest.mark.parametrize("address", REFUSED)
def test_se_15_addresses_inside_are_refused(address: str) -> None:
    """SE-15: addresses of the host, its link, metadata services and the cluster are refused in every spelling."""
    assert not AddressRules.parse(cluster=["10.96.0.0/12"]).permit(address)


@pytest.mark.parametrize(
    "address",
    ["192.0.2.1", "8.8.8.8", "10.0.0.1", "2001:db8::1", "64:ff9b::808:808", "::ffff:8.8.8.8", "2002:808:808::"],
)
def test_addresses_outside_are_allowed(address: str) -> None:
    """Addresses that are not refused are allowed, private ranges outside of the cluster included."""
    assert AddressRules.parse(cluster=["10.96.0.0/12"]).permit(address)


def test_an_allowed_range_wins() -> None:
    """An address in a range that the administrator allows is allowed, even inside the host or the cluster."""
    rules = AddressRules.parse(cluster=["10.0.0.0/8"], allowed=["127.0.0.1/32", "10.1.0.0/16"])
    permitted = {one: rules.permit(one) for one in ("127.0.0.1", "127.0.0.2", "10.1.2.3", "10.2.0.1")}
    assert permitted == {"127.0.0.1": True, "127.0.0.2": False, "10.1.2.3": True, "10.2.0.1": False}


@pytest.mark.parametrize("text", ["10.0.0.1/8", "x", "10.0.0.0/33"])
def test_a_wrong_range_is_an_error(text: str) -> None:
    """A text that is no range of addresses is an error, and so is a range with bits behind its prefix."""
    with pytest.raises(ValueError):
        AddressRules.parse(cluster=[text])


@given(st.integers(0, 2**32 - 1))
def test_an_embedded_address_is_allowed_as_itself(number: int) -> None:
    """An IPv4 address that is mapped or translated to IPv6 is allowed exactly when it is allowed itself."""
    rules = AddressRules()
    address = IPv4Address(number)
    forms = [
        IPv6Address((0xFFFF << 32) | number),
        IPv6Address((0x64FF9B << 96) | number),
        IPv6Address((0x2002 << 112) | (number << 80)),
    ]
    for form in forms:
        assert embedded(form) == (address,)
        assert rules.permit(str(form)) == rules.permit(str(address))


@given(st.text(max_size=40))
def test_what_is_no_address_is_refused(text: str) -> None:
    """A text that is no IP address, such as a name, is refused."""
    try:
        ip_address(text)
    except ValueError:
        assert not AddressRules().permit(text)


NOWHERE = [one for one in REFUSED if one not in ("240.0.0.1", "10.96.0.1", "::ffff:10.96.0.1")]


@pytest.mark.parametrize("address", NOWHERE)
@pytest.mark.parametrize("allowed", [[], ["0.0.0.0/0", "::/0"]])
def test_a_service_is_never_inside(address: str, allowed: list[str]) -> None:
    """A Service has no address of this host, its link or a metadata service, in any spelling and whatever is allowed
    for remote backends."""
    assert not AddressRules.parse(allowed=allowed).permit(address, "service")
    assert not AddressRules.parse(cluster=["0.0.0.0/0", "::/0"], allowed=allowed).permit(address, "service")


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("10.96.0.1", True),
        ("fd00:10::1", True),
        ("::ffff:10.96.0.1", True),
        ("64:ff9b::a60:1", True),
        ("10.112.0.1", False),
        ("192.0.2.1", False),
        ("fd00:11::1", False),
        ("::ffff:192.0.2.1", False),
        ("64:ff9b::c000:201", False),
        ("2002:c000:201::", False),
    ],
)
def test_a_service_is_in_the_ranges_of_the_cluster(address: str, inside: bool) -> None:
    """Where the ranges of the cluster are set, a Service has an address in them; where they are not, it may have any
    that is not inside this host."""
    assert AddressRules.parse(cluster=["10.96.0.0/12", "fd00:10::/32"]).permit(address, "service") is inside
    assert AddressRules().permit(address, "service")


def test_a_service_may_have_a_reserved_address() -> None:
    """Some clusters give reserved addresses to pods, so a Service may have one, but not the broadcast address."""
    assert AddressRules().permit("240.1.2.3", "service")
    assert not AddressRules().permit("255.255.255.255", "service")


def test_a_configured_server_may_have_any_address() -> None:
    """The administrator's own servers may have any address, but what is no address is none."""
    assert AddressRules.parse(cluster=["0.0.0.0/0"]).permit("127.0.0.1", "configured")
    assert not AddressRules().permit("localhost", "configured")


@given(st.integers(0, 2**32 - 1), st.sampled_from(["0.0.0.0/0", "10.0.0.0/8", "128.0.0.0/1"]))
def test_an_embedded_address_of_a_service_is_allowed_as_itself(number: int, cluster: str) -> None:
    """A Service may have an IPv4 address that is mapped or translated to IPv6 exactly when it may have it itself."""
    rules = AddressRules.parse(cluster=[cluster])
    forms = [(0xFFFF << 32) | number, (0x64FF9B << 96) | number, (0x2002 << 112) | (number << 80)]
    expected = rules.permit(str(IPv4Address(number)), "service")
    assert [rules.permit(str(IPv6Address(form)), "service") for form in forms] == [expected] * 3
