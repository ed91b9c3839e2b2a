"""Names in forms and queries: the one field `model`, and what readers may understand differently."""

import itertools
import tracemalloc
from urllib.parse import parse_qsl, quote, quote_plus, unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.model_names import body, form, scanner
from gateway.model_names.form import FormScanner
from gateway.model_names.scanner import FoundName
from gateway.model_names.spelling import is_lookalike


def scanned(text: bytes) -> FormScanner:
    """Return a scanner that has read a form."""
    one = FormScanner()
    one.feed(text)
    one.finish()
    return one


@pytest.mark.parametrize(
    ("target", "name", "after"),
    [
        (b"/v1/realtime?model=a", "a", b"/v1/realtime?model=new%2Fname"),
        (b"/v1/realtime?x=1&model=a%2Fb+c&y", "a/b c", b"/v1/realtime?x=1&model=new%2Fname&y"),
        (b"/?%6dodel=a", "a", b"/?%6dodel=new%2Fname"),
        (b"/?model", "", b"/?model=new%2Fname"),
        (b"/?model=", "", b"/?model=new%2Fname"),
        (b"/?model=a=b", "a=b", b"/?model=new%2Fname"),
        (b"/?mode=x&models=y&model=%C3%A9", "é", b"/?mode=x&models=y&model=new%2Fname"),
    ],
)
def test_a_query_names_its_model(target: bytes, name: str, after: bytes) -> None:
    """The value of `model` in a query is found, and replaced without a change of anything else."""
    found = form.in_target(target)
    assert isinstance(found, FoundName)
    assert found.name == name
    assert body.renamed_target(target, found, "new/name") == after


@pytest.mark.parametrize("target", [b"/model=a", b"/v1/x", b"/?", b"/?a=model", b"/?models=a;b=%zz", b"/v1/model?x"])
def test_a_query_without_a_model(target: bytes) -> None:
    """A query without the field names no model."""
    assert form.in_target(target) is None


QUERY_PROBLEMS = {
    scanner.DUPLICATE: 'The query has more than one value for "model".',
    scanner.LOOKALIKE: 'The query has a name that some servers read as "model". Write "model".',
    scanner.SEPARATORS: 'The value of "model" in the query must not depend on whether ; separates fields.',
    scanner.NOT_A_FIELD: 'The value of "model" in the query must be plain text in UTF-8.',
    scanner.TOO_LONG: 'The value of "model" in the query is too long.',
}
"""What is said about a query, by what is said about a form."""


@pytest.mark.parametrize(
    ("target", "problem"),
    [
        (b"/?model=a&model=a", scanner.DUPLICATE),
        (b"/?model=a&%6Dodel=b", scanner.DUPLICATE),
        (b"/?model=a&Model=b", scanner.DUPLICATE),
        (b"/?MODEL=a", scanner.LOOKALIKE),
        (b"/?model%00=a", scanner.LOOKALIKE),
        (b"/?+model=a", scanner.LOOKALIKE),
        (b"/?x=1;model=a", scanner.SEPARATORS),
        (b"/?model=a;b", scanner.SEPARATORS),
        (b"/?model=%ff", scanner.NOT_A_FIELD),
        (b"/?model=" + b"a" * 5000, scanner.TOO_LONG),
    ],
)
def test_what_readers_may_understand_differently(target: bytes, problem: str) -> None:
    """A query in which some reader may find another name has a problem, whose sentence is about a query."""
    told = form.in_target(target)
    assert told == QUERY_PROBLEMS[problem]
    assert "query" in told
    assert scanned(target[2:]).problem == problem


def test_a_form_of_too_many_fields() -> None:
    """A form of too many fields is not searched."""
    assert scanned(b"a&" * 2000).problem == scanner.TOO_MANY_FIELDS


@given(st.lists(st.tuples(st.sampled_from(["model", "x", "a b", "é"]), st.text(max_size=8)), max_size=5))
def test_forms_are_read_as_others_read_them(pairs: list[tuple[str, str]]) -> None:
    """The name in a form is the one that Python's parser finds, and a new name is what it finds afterwards."""
    for encode in (quote, quote_plus):
        text = "&".join(f"{encode(key)}={encode(value, safe='')}" for key, value in pairs).encode()
        names = [value for key, value in pairs if key == "model"]
        one = scanned(text)
        if len(names) > 1:
            assert one.problem == scanner.DUPLICATE
        elif not names:
            assert (one.found, one.problem, one.seen) == (None, None, False)
        else:
            assert one.found is not None
            assert one.found.name == names[0]
            after = body.renamed(text, one.found, "new/name+é")
            expected = [(key, "new/name+é" if key == "model" else value) for key, value in pairs]
            assert parse_qsl(after.decode(), keep_blank_values=True) == expected


class WholeForm:
    """What a form says when it is read in one go, field by field, as its rules are written."""

    def __init__(self, text: bytes) -> None:
        self.found: FoundName | None = None
        self.problem: str | None = None
        self.seen = False
        if text.count(b"&") + text.count(b";") >= form.MOST_FIELDS:
            self.problem = scanner.TOO_MANY_FIELDS
            return
        position = 0
        for field in text.split(b"&"):
            self._read(field, position)
            if b";" in field and any(map(self._is_named, field.split(b";"))):
                self.problem = self.problem or scanner.SEPARATORS
            position += len(field) + 1

    @staticmethod
    def _is_named(field: bytes) -> bool:
        key = field.partition(b"=")[0]
        text = unquote_to_bytes(key[:1024].replace(b"+", b" ")).decode("utf-8", "replace").strip()
        return len(key) >= 5 and (text == "model" or is_lookalike(text))

    def _read(self, field: bytes, position: int) -> None:
        if not self._is_named(field):
            return
        key, _, value = field.partition(b"=")
        problem = scanner.DUPLICATE if self.seen else None
        self.seen = True
        if unquote_to_bytes(key.replace(b"+", b" ")) != b"model":
            problem = problem or scanner.LOOKALIKE
        elif len(value) > scanner.LONGEST:
            problem = problem or scanner.TOO_LONG
        else:
            try:
                name = unquote_to_bytes(value.replace(b"+", b" ")).decode()
            except UnicodeDecodeError:
                problem = problem or scanner.NOT_A_FIELD
            else:
                self.found = FoundName(name, scanner.Notation.FORM, position + len(key), position + len(field))
        self.problem = self.problem or problem


WORDS = (
    b"model", b"%6dodel", b"Model", b"mode", b"=", b"=", b"&", b"&", b";", b"+", b"%", b"%ff", b"a", b"x=1", b"\x00",
    b"+" * 1024, b"y" * 1019, b"z" * scanner.LONGEST, b"&" * 998, b";" * 500,
)  # fmt: skip


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.lists(st.integers(1, 3000), min_size=1, max_size=5))
def test_a_form_in_pieces_is_the_form(words: list[bytes], sizes: list[int]) -> None:
    """A form that comes in pieces of any sizes says what it says in one go."""
    text = b"".join(words)
    one = FormScanner()
    start = 0
    for size in itertools.cycle(sizes):
        if start >= len(text):
            break
        one.feed(text[start : start + size])
        start += size
    one.finish()
    whole = WholeForm(text)
    assert (one.found, one.problem, one.seen, one.complete) == (whole.found, whole.problem, whole.seen, True)


@pytest.mark.parametrize("piece", [b"a" * 65536, b"model=" + b"a" * 65530, b"a=" + b";" * 10 + b"b" * 65524])
def test_a_long_form_costs_no_memory(piece: bytes) -> None:
    """Whatever a form of 32 MiB holds, its scanner keeps only the beginning of one field."""
    one = FormScanner(most=10000)
    tracemalloc.start()
    try:
        for _ in range(512):
            one.feed(piece)
        one.finish()
        assert tracemalloc.get_traced_memory()[1] < 300_000
    finally:
        tracemalloc.stop()
