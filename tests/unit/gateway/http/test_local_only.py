"""Requests that never leave the cluster: which they are, and the document for them."""

from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.v1alpha1 import Backend, Cors, LocalOnly, RouteDocument, Split, Use
from gateway.http.local_only import LocalOnlyRule, confined

FIELD = b"x-data-class"


def rule(*values: str, missing: Literal["anywhere", "local"] = "anywhere") -> LocalOnlyRule:
    """Return a rule about `X-Data-Class`, by default with the value `Restricted`."""
    return LocalOnlyRule(LocalOnly(header="X-Data-Class", values=values or ("Restricted",), missing=missing))


@pytest.mark.parametrize(
    "value",
    [
        b"restricted",
        b"RESTRICTED",
        b" restricted\t",
        b'"restricted"',
        b"public, restricted",
        b"restricted;eu",
        b",restricted,",
    ],
)
def test_a_value_of_the_rule_keeps_a_request(value: bytes) -> None:
    """A request with one of the values stays in the cluster, however the value is spelled."""
    assert rule().applies(((b"host", b"x"), (FIELD, value)))
    assert rule().applies(((FIELD, b"public"), (FIELD, value)))


@pytest.mark.parametrize("value", [b"public", b"restricted-not", b"un restricted", b"eu;restricted", b"\xff\xfe"])
def test_another_value_keeps_none(value: bytes) -> None:
    """A request with another value, or with the value in another field, may leave the cluster."""
    for missing in ("anywhere", "local"):
        assert not rule(missing=missing).applies(((FIELD, value), (b"x-other", b"restricted")))


@pytest.mark.parametrize("fields", [(), ((FIELD, b""),), ((FIELD, b" , ;"),), ((b"x-other", b"restricted"),)])
def test_what_counts_without_the_field_is_configured(fields: tuple[tuple[bytes, bytes], ...]) -> None:
    """A request without the field, or with an empty one, stays in the cluster where the rule says so."""
    assert not rule().applies(fields)
    assert rule(missing="local").applies(fields)


def test_a_value_may_have_spaces() -> None:
    """A value of several words is one value."""
    assert rule("Top Secret").applies(((FIELD, b"public, top secret"),))
    assert not rule("Top Secret").applies(((FIELD, b"top, secret"),))


PLACES = st.sampled_from(
    [
        {"service": "demo-local"},
        {"service": "demo-local", "inFlight": 1},
        {"host": "models.example.com"},
        {"default": True},
    ]
)


@given(places=st.lists(PLACES, max_size=5), heaviest=st.integers(0, 4), uses=st.lists(st.sampled_from(Use)))
def test_the_document_for_them_has_no_remote_backend(
    places: list[dict[str, object]], heaviest: int, uses: list[Use]
) -> None:
    """Only local backends are left, one of them has the whole weight, and everything else is as it was."""
    document = RouteDocument(
        name="demo",
        backends=tuple(
            Backend.model_validate(
                place | {"id": f"b{index}", "weight": 100 * (index == heaviest), "use": [Use.WEIGHTED, *uses]}
            )
            for index, place in enumerate(places)
        ),
        cors=Cors(origins=("https://chat.example.com",)),
        split=Split(percentage=100, reason="MetricReached"),
        local_only=LocalOnly(header=FIELD.decode(), values=("restricted",)),
    )
    inside = confined(document)
    assert [one.id for one in inside.backends] == [one.id for one in document.backends if one.service is not None]
    assert sum(one.weight for one in inside.backends) == (100 if inside.backends else 0)
    assert (inside.split, inside.local_only) == (Split(percentage=0, reason="LocalOnly"), None)
    assert (inside.name, inside.cors) == (document.name, document.cors)
