"""Names of children, which are derived from that of the parent: legal, stable and distinct."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hooks import names

LABEL = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
object_names = st.from_regex(
    r"[a-z0-9]([-a-z0-9]{0,80}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,80}[a-z0-9])?){0,2}", fullmatch=True
)


def test_plain_names_are_the_parents_with_a_suffix() -> None:
    """A name that is legal with its suffix is used unchanged."""
    assert (names.deployment("demo"), names.local_service("demo"), names.route("demo"), names.label_value("demo")) == (
        "demo",
        "demo-local",
        "demo-route",
        "demo",
    )


@pytest.mark.parametrize(
    ("parent", "service"),
    [
        ("llama-3.1", "llama-3-1-26cd283e-local"),
        ("7b", "m-7b-925a7bf1-local"),
        ("x" * 80, "x" * 48 + "-d929cdee-local"),
    ],
)
def test_other_names_get_a_hash_of_the_whole_name(parent: str, service: str) -> None:
    """A name with dots, a leading digit or too many characters is replaced by a legal one, which never changes."""
    assert names.local_service(parent) == service


@given(object_names)
def test_every_derived_name_is_a_dns_label(parent: str) -> None:
    """The children of a ModelDeployment have legal names, whatever its own name is."""
    derived = (names.deployment(parent), names.local_service(parent), names.route(parent), names.label_value(parent))
    assert all(LABEL.fullmatch(name) for name in derived)


@given(object_names, object_names)
def test_two_parents_never_share_a_name(one: str, other: str) -> None:
    """Two parents have the same name of a child only if they have the same name."""
    assert (one == other) == (names.local_service(one) == names.local_service(other))


@pytest.mark.parametrize(
    ("name", "is_service", "is_object"),
    [
        ("a", True, True),
        ("a-b", True, True),
        ("7b", False, True),
        ("a.b", False, True),
        ("a" * 64, False, True),
        ("a" * 254, False, False),
        ("A", False, False),
        ("a-", False, False),
        ("", False, False),
        ("a\n", False, False),
    ],
)
def test_syntax(name: str, is_service: bool, is_object: bool) -> None:
    """The name of a Service is a DNS label (RFC 1035), that of other objects a DNS subdomain (RFC 1123)."""
    assert (names.is_service_name(name), names.is_object_name(name)) == (is_service, is_object)
