"""Scanner of forms with parts: the one field `model`, and what readers may understand differently."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model_names import scanner
from gateway.model_names.body import renamed
from gateway.model_names.multipart import MultipartScanner

MODEL = b'Content-Disposition: form-data; name="model"'
FILE = b'Content-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav'


def form(*parts: tuple[bytes, bytes], boundary: bytes = b"xx") -> bytes:
    """Return a form of parts, each a head and a value."""
    body = b"".join(b"--%b\r\n%b\r\n\r\n%b\r\n" % (boundary, head, value) for head, value in parts)
    return body + b"--%b--\r\n" % boundary


def scanned(body: bytes, *cuts: int, boundary: bytes = b"xx") -> MultipartScanner:
    """Return a scanner that has read a form, cut at the given positions."""
    places = [0, *sorted(min(cut, len(body)) for cut in cuts), len(body)]
    one = MultipartScanner(boundary)
    for start, end in itertools.pairwise(places):
        one.feed(body[start:end])
    one.finish()
    return one


def outcome(body: bytes, *cuts: int) -> tuple[Any, ...]:
    """Return all that a scanner says about a form."""
    one = scanned(body, *cuts)
    return one.found, one.seen, one.complete, one.problem


@pytest.mark.parametrize(
    "head",
    [
        MODEL,
        b"content-disposition:form-data;name=model",
        b'Content-Type: text/plain; charset=UTF-8\r\nContent-Disposition: form-data; name="model"',
        b'Content-Disposition: form-data; name="model"\r\nContent-Transfer-Encoding: 8bit',
    ],
)
def test_the_field_is_found(head: bytes) -> None:
    """The field is found in each spelling that all readers know, before or after a file."""
    data = b"\0\r\n--x\r\n--\r\n" * 9
    for parts in ([(head, b"whisper"), (FILE, data)], [(FILE, data), (head, b"whisper")]):
        body = form(*parts)
        for cuts in ((), range(len(body))):
            one = scanned(body, *cuts)
            assert one.problem is None
            assert one.found is not None
            assert (one.found.name, body[one.found.start : one.found.end]) == ("whisper", b"whisper")


@pytest.mark.parametrize(
    "head",
    [
        MODEL + b"\r\nContent-Length: 7",
        b"Content-Length:7 \t\r\nContent-Type: text/plain\r\n" + MODEL,
        b"content-length: 007\r\n" + MODEL,
    ],
)
@pytest.mark.parametrize("name", ["a", "the-other-model", ""])
def test_the_stated_size_of_the_field_changes_with_it(head: bytes, name: str) -> None:
    """The place of a value that has its size before it begins with that number, and both are replaced."""
    parts = [(FILE + b"\r\nContent-Length: 4", b"\0\r\n\0"), (head, b"whisper"), (FILE, b"--x")]
    body = form(*parts)
    new = head.replace(b"007", b"7").replace(b"7", b"%d" % len(name))
    expected = form(parts[0], (new, name.encode()), parts[2])
    for cuts in ((), range(len(body))):
        one = scanned(body, *cuts)
        assert one.problem is None
        assert one.found is not None
        assert one.found.name == "whisper"
        assert renamed(body, one.found, name) == expected


@pytest.mark.parametrize("value", [b"", "modèle".encode(), b" a ", b"--xy-", b"\r\n-"])
def test_the_value_is_as_it_stands(value: bytes) -> None:
    """A value is all bytes between the head of its part and the line end before the delimiter."""
    one = scanned(form((MODEL, value)))
    assert value == b"--xy-" or (one.found is not None and one.found.name.encode() == value)


def test_a_form_without_the_field() -> None:
    """A form without the field `model` names none."""
    body = form(
        (FILE, b"data"), (b"Content-Type: a/b", b"model"), (b'Content-Disposition: form-data; name="models"', b"x")
    )
    assert outcome(body) == (None, False, True, None)
    assert outcome(b"--xx--") == (None, False, True, None)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        (form((MODEL, b"a"), (MODEL, b"a")), scanner.DUPLICATE),
        (form((MODEL, b"a"), (b"Content-Disposition: form-data; name=model", b"b")), scanner.DUPLICATE),
        (form((b'Content-Disposition: form-data; name="Model"', b"a")), scanner.LOOKALIKE),
        (form((b'Content-Disposition: form-data; name="mo\\del"', b"a")), scanner.LOOKALIKE),
        (form((b'Content-Disposition: form-data; name="%6dodel"', b"a")), scanner.LOOKALIKE),
        (form((b"Content-Disposition: form-data; name='model'", b"a")), scanner.LOOKALIKE),
        (form((b'Content-Disposition: form-data; name=" model"', b"a")), scanner.LOOKALIKE),
        (form((b"Content-Disposition: form-data; name*=utf-8''model", b"a")), scanner.NOT_A_FORM),
        (form((b'Content-Disposition: form-data; name="x"; name="model"', b"a")), scanner.NOT_A_FORM),
        (form((MODEL + b"\r\n" + MODEL, b"a")), scanner.NOT_A_FORM),
        (form((b'Content-Disposition: form-data;\r\n name="model"', b"a")), scanner.NOT_A_FORM),
        (form((b'Content-Disposition : form-data; name="model"', b"a")), scanner.NOT_A_FORM),
        (form((b'Content-Disposition: form-data; name="model', b"a")), scanner.NOT_A_FORM),
        (form((b'X: y\nContent-Disposition: form-data; name="model"', b"a")), scanner.NOT_A_FORM),
        (form((MODEL + b'; filename="a"', b"a")), scanner.NOT_A_FIELD),
        (form((b'Content-Disposition: attachment; name="model"', b"a")), scanner.NOT_A_FIELD),
        (form((MODEL + b"\r\nContent-Transfer-Encoding: base64", b"YQ==")), scanner.NOT_A_FIELD),
        (form((MODEL + b"\r\nContent-Type: text/plain; charset=utf-16", b"a")), scanner.NOT_A_FIELD),
        (form((MODEL, b"\xff")), scanner.NOT_A_FIELD),
        (form((MODEL + b"\r\nContent-Length: 2", b"abc")), scanner.PART_LENGTH),
        (form((MODEL + b"\r\nContent-Length: 4", b"abc")), scanner.PART_LENGTH),
        (form((MODEL + b"\r\nContent-Length: 1\r\nContent-Length: 1", b"a")), scanner.PART_LENGTH),
        (form((MODEL + b"\r\nContent-Length: +1", b"a")), scanner.PART_LENGTH),
        (form((MODEL + b"\r\nContent-Length:", b"")), scanner.PART_LENGTH),
        (form((FILE + b"\r\nContent-Length: 60", b"a"), (MODEL, b"a")), scanner.PART_LENGTH),
        (form((b"Content-Length: 0", b"a"), (MODEL, b"a")), scanner.PART_LENGTH),
        (form((MODEL, b"a" * 5000)), scanner.TOO_LONG),
        (b"preamble\r\n" + form((MODEL, b"a")), scanner.NOT_A_FORM),
        (b'{"model":"a"}\r\n' + form((MODEL, b"a")), scanner.NOT_A_FORM),
        (form((MODEL, b"a")) + b"epilogue", scanner.NOT_A_FORM),
        (form((MODEL, b"a"))[:-5], scanner.NOT_A_FORM),
        (form((MODEL, b"a")).replace(b"\r\n", b"\n"), scanner.NOT_A_FORM),
        (form((FILE, b"a\n--xx\n%b\n\nb" % MODEL)), scanner.NOT_A_FORM),
        (form((FILE, b"a\r\n--xx \t\x0b\r\n%b\r\n\r\nb" % MODEL)), scanner.NOT_A_FORM),
        (b"--xx\r\n%b\r\n\r\n--xx--\r\n" % MODEL, scanner.NOT_A_FORM),
        (form(*[(FILE, b"")] * 1001), scanner.TOO_MANY_FIELDS),
        (b"", scanner.NOT_A_FORM),
    ],
)
def test_what_readers_may_understand_differently(body: bytes, problem: str) -> None:
    """A form in which some reader may find another name has a problem, wherever it is cut."""
    assert scanned(body).problem == problem
    if len(body) < 2000:
        assert scanned(body, *range(len(body))).problem == problem


PIECES = [b"--xx", b"\r\n", b"--", b" ", MODEL, FILE, b"a", b"\n", b"-", b"x", b"\r\n\r\n", b":", b'"']


@given(st.lists(st.sampled_from(PIECES), max_size=20).map(b"".join), st.lists(st.integers(0, 200), max_size=8))
def test_the_pieces_do_not_matter(body: bytes, cuts: list[int]) -> None:
    """Whatever the bytes and wherever they are cut, the outcome is that of the whole form."""
    assert outcome(body, *cuts) == outcome(body)
    assert outcome(body, *range(len(body))) == outcome(body)


@given(st.binary(max_size=300), st.lists(st.integers(0, 400), max_size=5))
def test_any_file_may_stand_beside_the_field(data: bytes, cuts: list[int]) -> None:
    """Whatever a file contains, but for the delimiter, the field beside it is found."""
    body = form((FILE, data), (MODEL, b"whisper"), boundary=b"a-boundary-of-a-client")
    one = scanned(body, *cuts, boundary=b"a-boundary-of-a-client")
    assert one.found is not None
    assert one.found.name == "whisper"
