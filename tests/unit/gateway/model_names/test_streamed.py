"""Tests of `gateway.model_names.streamed`: a name replaced in a body that passes in pieces."""

import json
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway import errors
from gateway.model_names import body as bodies
from gateway.model_names.streamed import StreamedName

JSON = ((b"content-type", b"application/json"),)


def split(content: bytes, cuts: list[int]) -> list[bytes]:
    """Return the content in pieces."""
    places = sorted({0, len(content), *(cut % (len(content) + 1) for cut in cuts)})
    return [content[start:end] for start, end in pairwise(places)]


def read(pieces: list[bytes]) -> bodies.BodyReader:
    """Return a reader that has read as many of the pieces as it needs for a name."""
    reader = bodies.BodyReader(bodies.describe(JSON), 1 << 20)
    for piece in pieces:
        assert not list(reader.feed(piece))
        if reader.is_certain:
            break
    else:
        reader.finish()
    return reader


@given(
    st.text(max_size=40), st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=60), st.lists(st.integers(0))
)
def test_a_name_is_replaced_wherever_the_pieces_end(text: str, old: str, new: str, cuts: list[int]) -> None:
    """A body in pieces gets the new name exactly where a whole one does, twice in a row, and its length is known."""
    content = json.dumps({"a": text, "model": old, "messages": [text]}, ensure_ascii=False).encode(
        "utf-8", "surrogatepass"
    )
    pieces = split(content, cuts)
    reader = read(pieces)
    found = reader.found
    assert found is not None
    expected = bodies.renamed(content, found, new)
    for _ in range(2):  # a second attempt sees a body that the reader knows already
        change = StreamedName(found, new, reader)
        sent = b"".join(change.apply(piece) for piece in pieces)
        change.finish()
        assert sent == expected
        assert change.growth == len(expected) - len(content)


@given(st.lists(st.integers(0), max_size=8), st.sampled_from(["model", "mod\\u0065l", "Model"]))
def test_a_second_name_in_the_rest_ends_the_attempt(cuts: list[int], key: str) -> None:
    """A second key that some server may take for the model's is found before the end of the body is sent."""
    rest = f'"messages": ["{"x" * 50}"], "{key}": "b"}}'
    start = b'{"model": "a", '
    pieces = [start, *split(rest.encode(), cuts)]
    reader = read([start])
    assert reader.is_certain
    change = StreamedName(reader.found, None, reader)  # type: ignore[arg-type]
    with pytest.raises(errors.ModelMissing):
        b"".join(map(change.apply, pieces))


def test_a_body_that_ends_too_early_is_not_completed() -> None:
    """The rest of a body that is no JSON is refused at its end at the latest."""
    reader = read([b'{"model": "a", '])
    change = StreamedName(reader.found, None, reader)  # type: ignore[arg-type]
    assert change.apply(b'{"model": "a", ') == b'{"model": "a", '
    change.apply(b'"messages": [')
    with pytest.raises(errors.ModelMissing):
        change.finish()
