"""Addresses of servers as administrators write them."""

import pytest

from hooks.clients import urls


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("my-local-prom:9090", "http://my-local-prom:9090"),
        ("prometheus", "http://prometheus"),
        ("http://prometheus.monitoring:9090/", "http://prometheus.monitoring:9090"),
        ("https://metrics.example.com/a/b/", "https://metrics.example.com/a/b"),
        ("10.0.0.7:9090/prometheus", "http://10.0.0.7:9090/prometheus"),
        ("[::1]:9090", "http://[::1]:9090"),
    ],
)
def test_an_address(address: str, url: str) -> None:
    """An address may have a scheme and a path, and an IP address of either family as its host."""
    assert urls.problem(address) is None
    assert urls.url(address) == url


def test_an_empty_address_is_no_problem() -> None:
    """An empty address is no problem here; whether one is needed is checked elsewhere."""
    assert urls.problem("") is None


@pytest.mark.parametrize(
    ("address", "problem"),
    [
        ("ftp://prometheus", "must be host:port or an http or https URL"),
        ("http://", "must be host:port or an http or https URL"),
        ("prometheus:port", "must be host:port or an http or https URL"),
        ("prometheus:99999", "must be host:port or an http or https URL"),
        ("http://[::1", "must be host:port or an http or https URL"),
        ("https://ada:canary@prometheus", "must not hold credentials: use usernameFile and passwordFile"),
        ("ada@prometheus:9090", "must not hold credentials: use usernameFile and passwordFile"),
        ("prometheus:9090?x=y", "must end with its path"),
        ("prometheus:9090/#x", "must end with its path"),
    ],
)
def test_problems_of_an_address(address: str, problem: str) -> None:
    """The problem of an address is worded to follow the name of the setting, without the address."""
    assert urls.problem(address) == problem
