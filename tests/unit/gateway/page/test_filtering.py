"""Filter of the page: which routes and requests a query string asks for."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.page import filtering
from gateway.page.filtering import Filter
from tests.unit.gateway.test_journal import record


@pytest.mark.parametrize(
    ("route", "key", "has"),
    [
        ("", "default/demo", True),
        ("", None, True),
        ("default/demo", "default/demo", True),
        ("default/demo", "default/demo-2", False),
        ("demo", "default/demo-2", True),
        ("fault", "default/demo", True),
        ("demo", "default/other", False),
        ("demo", None, False),
    ],
)
def test_routes(route: str, key: str | None, has: bool) -> None:
    """A value with a slash is the key of one route, any other one a part of keys; no route has no key."""
    assert Filter(route).has_route(key) is has


@pytest.mark.parametrize(
    ("query", "has"),
    [
        ({}, True),
        ({"status": "502"}, True),
        ({"status": "5XX"}, True),
        ({"status": "503"}, False),
        ({"status": "2xx"}, False),
        ({"reason": "failover"}, True),
        ({"reason": "connectfailure"}, True),
        ({"reason": "UPSTREAM_RESET"}, True),
        ({"reason": "budget"}, True),
        ({"reason": "fail"}, False),
        ({"route": "default/demo", "status": "5xx", "reason": " Failover "}, True),
        ({"route": "default/demo", "status": "4xx", "reason": "Failover"}, False),
    ],
)
def test_requests(query: dict[str, str], has: bool) -> None:
    """A request is asked for by its status or the class of it, and by everything that says why it went as it did."""
    one = record(
        status=502,
        reason="Failover",
        code="upstream_reset",
        not_retryable="budget",
        failures=[("local", "connectFailure", 0.1, None)],
    )
    wanted, problem = filtering.read(query)
    assert problem is None
    assert wanted.has(one) is has


@pytest.mark.parametrize("status", ["abc", "99", "600", "5x", "5xx5", "٥٠٢"])
def test_a_status_that_is_none(status: str) -> None:
    """What is no status is said, and the rest of the filter counts."""
    wanted, problem = filtering.read({"status": status, "reason": "x"})
    assert wanted == Filter("", "", "x")
    assert problem is not None


def test_a_filter_that_is_too_long() -> None:
    """A value of any length costs nothing: it is no filter, and the page says so."""
    wanted, problem = filtering.read({"route": "x" * 600, "status": "502"})
    assert wanted.is_empty
    assert problem is not None


@settings(max_examples=50)
@given(st.text(max_size=20), st.text(max_size=6), st.text(max_size=20))
def test_any_query(route: str, status: str, reason: str) -> None:
    """Any query is read, a filter is read again as it is, and a wider one has all requests of a narrower one."""
    wanted, _ = filtering.read({"route": route, "status": status, "reason": reason})
    assert filtering.read(wanted._asdict()) == (wanted, None)
    one = record(status=502, reason="Failover")
    if wanted.has(one):
        assert wanted._replace(route="").has(one)
        assert wanted._replace(status="").has(one)
        assert wanted._replace(reason="").has(one)
