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
