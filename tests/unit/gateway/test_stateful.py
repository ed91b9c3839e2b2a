"""Requests that refer to an earlier response: told by their path or their body."""

import pytest

from gateway.stateful import Place, may_be, place


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (b"/v1/responses", Place.COLLECTION),
        (b"/v1/responses/", Place.COLLECTION),
        (b"/v1/responses?a=/v1/responses/x", Place.COLLECTION),
        (b"/v1/responses/input_tokens", Place.COLLECTION),
        (b"/v1/responses/compact", Place.COLLECTION),
        (b"/openai/responses?api-version=1", Place.COLLECTION),
        (b"/v1/responses/resp_1", Place.RESPONSE),
        (b"/v1/responses/resp_1?include=a", Place.RESPONSE),
        (b"/v1/responses/resp_1/input_items", Place.RESPONSE),
        (b"/v1/responses/resp_1/cancel", Place.RESPONSE),
        (b"/openai/v1/responses/resp_1", Place.RESPONSE),
        (b"/v1//responses//resp_1", Place.RESPONSE),
        (b"/V1/Responses/resp_1", Place.RESPONSE),
        (b"/v1/%72esponses/resp_1", Place.RESPONSE),
        (b"/v1/responses;a=b/resp_1", Place.RESPONSE),
        (b"/v1/chat/completions", None),
        (b"/v1/chat/completions?next=/v1/responses/a", None),
        (b"/responses/resp_1", None),
        (b"/v1/models/responses/x", None),
        (b"/", None),
    ],
)
def test_the_place_of_a_target(target: bytes, expected: Place | None) -> None:
    """A target has a place in the Responses API by its path alone, as servers read it."""
    assert place(target) is expected
    assert expected is None or may_be(target)


def test_a_place_with_the_prefix_of_a_backend() -> None:
    """A path that is one of the Responses API behind a backend's prefix has its place there."""
    assert place(b"/responses/resp_1", (b"", b"/v1")) is Place.RESPONSE
    assert place(b"/responses", (b"/acme/v1/",)) is Place.COLLECTION
    assert place(b"/chat", (b"/v1/responses",)) is None


def test_most_targets_need_no_second_look() -> None:
    """A target of another API is told by one look."""
    assert not may_be(b"/v1/chat/completions")
