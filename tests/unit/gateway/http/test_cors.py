"""Rules of CORS: fields of preflights and of responses, for origins that are allowed and for others."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.cors import CorsRule, canonical_origin, is_preflight
from gateway.http.exchange import Fields, RequestHead

SITE = b"https://chat.example.com"
OWN = b"request-id, retry-after, x-beamlit-backend, x-beamlit-reason, x-request-id, x-should-retry"


def rule(*origins: str, **values: Any) -> CorsRule:
    """Return a rule for origins with the defaults of the settings."""
    given = {"methods": ("GET", "POST"), "headers": ("*",), "exposed_headers": (), "credentials": False, "max_age": 600}
    return CorsRule(origins=origins, **{**given, **values})


def head(*fields: tuple[bytes, bytes], method: bytes = b"OPTIONS") -> RequestHead:
    """Return the head of a request with the given fields."""
    return RequestHead(method, b"/v1/x", "gateway", b"gateway", (*fields, (b"host", b"gateway")), 1, None, False)


def preflight(origin: bytes = SITE, headers: bytes | None = b"authorization,content-type") -> RequestHead:
    """Return the head of a preflight for a POST."""
    fields = [(b"origin", origin), (b"access-control-request-method", b"POST")]
    return head(*fields, *([] if headers is None else [(b"access-control-request-headers", headers)]))


def values(fields: Fields, name: bytes) -> list[bytes]:
    """Return all values of a field."""
    return [value for key, value in fields if key == name]


def test_a_preflight_of_an_allowed_origin() -> None:
    """A preflight of an allowed origin gets its origin, the methods, the names it asked for and the age."""
    fields = rule("https://other.example", "https://chat.example.com").preflight(preflight())
    assert dict(fields) == {
        b"access-control-allow-origin": SITE,
        b"access-control-expose-headers": OWN,
        b"access-control-allow-methods": b"GET, POST",
        b"access-control-max-age": b"600",
        b"access-control-allow-headers": b"authorization,content-type",
        b"vary": b"Access-Control-Request-Headers",
    }
    assert values(fields, b"vary") == [b"Origin", b"Access-Control-Request-Headers"]


def test_a_preflight_with_named_headers() -> None:
    """A rule that names header fields lists those, whatever is asked for."""
    fields = rule("https://chat.example.com", headers=("Authorization", "x-team")).preflight(preflight())
    assert values(fields, b"access-control-allow-headers") == [b"authorization, x-team"]
    assert values(fields, b"vary") == [b"Origin"]


@pytest.mark.parametrize("names", [None, b"", b"a b", b"a,,b", b'"a"', b"a\x00"])
def test_names_that_are_none_are_not_repeated(names: bytes | None) -> None:
    """What a preflight asks for is repeated only where it is a list of names."""
    assert not values(rule("*").preflight(preflight(headers=names)), b"access-control-allow-headers")


@pytest.mark.parametrize(
    "origin",
    [b"https://chat.example.com.evil.example", b"https://evil-chat.example.com", b"http://chat.example.com",
     b"https://chat.example.com:8443", b"https://CHAT.example.com", b"null", b"", b"*"],
)  # fmt: skip
def test_any_other_origin_is_refused(origin: bytes) -> None:
    """An origin that differs in any way gets no permission, neither for a preflight nor for a response."""
    named = rule("https://chat.example.com", credentials=True)
    assert named.preflight(preflight(origin)) == ((b"vary", b"Origin"),)
    assert named.fields(head((b"origin", origin))) == ((b"vary", b"Origin"),)


def test_all_origins() -> None:
    """A rule for all origins permits each by the same fields, which do not depend on the origin."""
    everyone = rule("*")
    for origin in (SITE, b"null"):
        fields = everyone.fields(head((b"origin", origin)))
        assert values(fields, b"access-control-allow-origin") == [b"*"]
        assert fields == everyone.fields(head())
        assert not values(fields, b"vary")
        assert values(everyone.preflight(preflight(origin)), b"access-control-allow-origin") == [b"*"]


def test_credentials() -> None:
    """A rule that allows credentials says so to its origins, by name."""
    fields = rule("https://chat.example.com", credentials=True).fields(head((b"origin", SITE)))
    assert values(fields, b"access-control-allow-credentials") == [b"true"]
    assert values(fields, b"access-control-allow-origin") == [SITE]


@given(st.sampled_from(["*", "https://chat.example.com", "null"]), st.none() | st.sampled_from([SITE, b"null", b"*"]))
def test_an_origin_alone_gets_the_same_fields(allowed: str, origin: bytes | None) -> None:
    """The fields for an origin are those for a request that has it, and those for None are for one that has none."""
    request = head() if origin is None else head((b"origin", origin))
    assert rule(allowed).fields_for(origin) == rule(allowed).fields(request)


def test_exposed_headers() -> None:
    """Fields of the gateway are always exposed, beside those that the rule names, each once."""
    fields = rule("*", exposed_headers=("X-RateLimit-Limit", "X-Request-Id")).fields(head())
    assert values(fields, b"access-control-expose-headers") == [OWN + b", x-ratelimit-limit"]


@given(st.lists(st.sampled_from(["allow-origin", "allow-credentials", "expose-headers", "max-age", "new"])))
def test_fields_of_a_backend_are_replaced(names: list[str]) -> None:
    """Whatever fields of CORS a backend sends, the response has those of the rule, and all its other fields."""
    backend = tuple((f"access-control-{name}".encode(), b"theirs") for name in names)
    named = rule("https://chat.example.com")
    request = head((b"origin", SITE))
    fields = named.applied(((b"a", b"1"), *backend, (b"vary", b"Accept")), request)
    assert fields == ((b"a", b"1"), (b"vary", b"Accept"), *named.fields(request))


def test_what_a_preflight_is() -> None:
    """A preflight is an OPTIONS request with an origin and the method that is asked about; no other request is one."""
    assert is_preflight(preflight())
    assert not is_preflight(preflight()._replace(method=b"POST"))
    assert not is_preflight(head((b"origin", SITE)))
    assert not is_preflight(head((b"access-control-request-method", b"POST")))


@pytest.mark.parametrize(
    ("origin", "canonical"),
    [
        ("https://Chat.Example.com", "https://chat.example.com"),
        ("https://chat.example.com:443", "https://chat.example.com"),
        ("http://chat.example.com:80", "http://chat.example.com"),
        ("http://chat.example.com:443", "http://chat.example.com:443"),
        ("https://chat.example.com:8443", "https://chat.example.com:8443"),
        ("http://[::1]:3000", "http://[::1]:3000"),
        ("app://obsidian.md", "app://obsidian.md"),
        ("*", "*"),
    ],
)
def test_origins_are_compared_as_browsers_send_them(origin: str, canonical: str) -> None:
    """An origin counts in lower case and without the default port of its scheme, which browsers leave out."""
    assert canonical_origin(origin) == canonical
    if origin != "*":
        assert values(rule(origin).fields(head((b"origin", canonical.encode()))), b"access-control-allow-origin")
