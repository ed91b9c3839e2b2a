"""Claims of tokens: paths to them, and what becomes of names and groups."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from gateway.access.claims import LONGEST_NAME, MOST_GROUPS, ClaimPath, groups_in, name_in
from gateway.settings import ClaimName

CLAIMS = {
    "groups": ["a", "b"],
    "realm_access": {"roles": ["models"]},
    "https://example.com/groups": "c",
    "a.b": {"c\\d": "e"},
    "resource_access": {"chat.app": {"roles": ["f"]}},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("groups", ["a", "b"]),
        ("realm_access.roles", ["models"]),
        ("https://example\\.com/groups", "c"),
        ("a\\.b.c\\\\d", "e"),
        ("resource_access.chat\\.app.roles", ["f"]),
        ("https://example.com/groups", None),
        ("groups.a", None),
        ("realm_access.none.roles", None),
        ("none", None),
    ],
)
def test_a_path_leads_to_a_claim(path: str, found: object) -> None:
    """A path has dots between the names of objects, and a backslash before a dot that is part of a name."""
    assert TypeAdapter(ClaimName).validate_python(path) == path
    assert ClaimPath(path).find(CLAIMS) == found


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b", "a\\", "a\\b", "\\"])
def test_a_path_with_a_mistake_is_no_setting(path: str) -> None:
    """A path without a name between dots, or with a backslash before something else, is refused."""
    with pytest.raises(ValidationError):
        TypeAdapter(ClaimName).validate_python(path)


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ("alice", "oidc:alice"),
        ("Älice Ünal", "oidc:Älice Ünal"),
        ("auth0|5f7c8ec7c33c6c004bbafe82", "oidc:auth0|5f7c8ec7c33c6c004bbafe82"),
        ("a\nb\x1b[31m", "oidc:a\\x0ab\\x1b[31m"),
        ("a\u202eb\u2028", "oidc:a\\u202eb\\u2028"),
        ("a\\x0ab", "oidc:a\\x5cx0ab"),
        ("\U000e0001", "oidc:\\U000e0001"),
        ("", None),
        (7, None),
        (["alice"], None),
        (None, None),
    ],
)
def test_a_name_is_safe_to_show(value: object, name: str | None) -> None:
    """Characters that are not seen are escaped, and what is no text is no name."""
    assert name_in(value) == name


@settings(max_examples=200, deadline=None)
@given(st.text(min_size=1, max_size=400), st.text(min_size=1, max_size=400))
def test_no_two_callers_have_one_name(one: str, other: str) -> None:
    """Names are printable and bounded, and different ones stay different."""
    name = name_in(one)
    assert name is not None
    assert name.isprintable()
    assert len(name) <= LONGEST_NAME
    assert (name == name_in(other)) is (one == other)


def test_long_names_stay_different() -> None:
    """Names that differ at their end alone are different callers."""
    first, second = name_in("x" * 1000 + "a"), name_in("x" * 1000 + "b")
    assert first != second
    assert name_in("\ud800" * 300) is not None


@pytest.mark.parametrize(
    ("value", "spaced", "groups"),
    [
        (["a", "b"], False, {"a", "b"}),
        ("Platform Team", False, {"Platform Team"}),
        ("openid models:read", True, {"openid", "models:read"}),
        (["a", 7, None, ["b"], ""], False, {"a"}),
        ({"a": 1}, False, set()),
        (None, False, set()),
        (True, False, set()),
        (["x" * 254], False, set()),
    ],
)
def test_groups_are_a_list_or_a_text(value: object, spaced: bool, groups: set[str]) -> None:
    """Groups are texts in a list, or one text, which is a list of its own in a claim such as `scope`."""
    assert groups_in(value, spaced=spaced) == groups


def test_groups_have_a_bound() -> None:
    """Of too many groups only the first ones count."""
    assert len(groups_in([str(number) for number in range(1000)])) == MOST_GROUPS
    assert ClaimPath("scope").is_spaced
    assert ClaimPath("a.scp").is_spaced
    assert not ClaimPath("groups").is_spaced
