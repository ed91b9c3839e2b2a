"""Reader of YAML that other people wrote: values as PyYAML has them, and bounds on everything."""

import contextlib
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from program import bounded_yaml
from program.files import DuplicateKey

LARGEST = 1 << 20

plain = st.none() | st.booleans() | st.integers(-(10**18), 10**18) | st.floats(allow_nan=False) | st.text()
values = st.recursive(plain, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4))

PIECES = (
    "a",
    "&a ",
    "*a",
    "<<",
    ": ",
    "- ",
    "[",
    "]",
    "{",
    "}",
    ",",
    "\n",
    "  ",
    "1",
    "1:1",
    "? ",
    "!!int ",
    "!x ",
    "'",
    '"',
)


def load(text: str) -> Any:
    """Return the one document of a text."""
    (document,) = bounded_yaml.load_all(text, max_chars=LARGEST)
    return document


def bomb(first: str, level: str) -> str:
    """Return a text in which each of ten levels has the level above it ten times."""
    lines = [f"a0: &a0 {first}"]
    lines += [f"a{n}: &a{n} {level.format(','.join([f'*a{n - 1}'] * 10))}" for n in range(1, 10)]
    return "\n".join(lines)


@given(values)
def test_values_are_those_of_the_library(value: Any) -> None:
    """A value that the library writes is read as the library reads it."""
    text = yaml.safe_dump(value)
    assert load(text) == yaml.safe_load(text) == value


@given(st.lists(st.sampled_from(PIECES) | st.text(max_size=3), max_size=40).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    """Any text is read, or refused by one of two errors."""
    with contextlib.suppress(ValueError, yaml.YAMLError):
        list(bounded_yaml.load_all(text, max_chars=LARGEST))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a: &x {b: 1}\nc: *x", {"a": {"b": 1}, "c": {"b": 1}}),
        ("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", {"a": {"b": 1, "c": 2}, "d": {"b": 1, "c": 3}}),
        ("<<: [{a: 1}, {a: 2, b: 3}]", {"a": 1, "b": 3}),
        ("'<<': 1", {"<<": 1}),
        ("1: a\ntrue: b\nnull: c", {"1": "a", "true": "b", "null": "c"}),
        ("a: 2026-01-01T00:00:00Z", {"a": "2026-01-01T00:00:00Z"}),
        ("a: 2030-13-45", {"a": "2030-13-45"}),
        ("a: 0x1F", {"a": 31}),
        ("a: !!str 1", {"a": "1"}),
        ("a: .inf", {"a": math.inf}),
        ("a:", {"a": None}),
    ],
)
def test_values(text: str, value: Any) -> None:
    """Aliases and merges are written out, times stay text, and keys are the text that was written."""
    assert load(text) == value


def test_documents() -> None:
    """A text has any number of documents, each with anchors of its own."""
    assert list(bounded_yaml.load_all("", max_chars=0)) == []
    assert list(bounded_yaml.load_all("&a 1\n---\n---\n[b]\n", max_chars=99)) == [1, None, ["b"]]
    with pytest.raises(ValueError, match="alias without an anchor in line 3"):
        list(bounded_yaml.load_all("&a 1\n---\n*a\n", max_chars=99))


@pytest.mark.parametrize("text", ["[" * 200_000, '{"a": ' * 200_000, "- " * 200_000, "? " * 200_000])
def test_depth_is_bounded(text: str) -> None:
    """A text that is nested too deep is refused at that level, before the rest is parsed."""
    with pytest.raises(ValueError, match="nested deeper than 100 levels"):
        load(text)


@pytest.mark.parametrize(
    "text",
    [
        bomb("[x, x, x, x, x, x, x, x, x, x]", "[{}]"),
        bomb("{x: 1}", "{{<<: [{}]}}"),
        bomb("{x: 1}", "{{<<: [{}], y: 1}}"),
        "[" + "1," * bounded_yaml.MAX_VALUES + "]",
    ],
    ids=["lists", "merges", "merges-and-keys", "plain"],
)
def test_values_are_bounded(text: str) -> None:
    """A text of too many values is refused; those of an alias count wherever it is used."""
    with pytest.raises(ValueError, match="more than 500000 values"):
        load(text)


def test_characters_are_bounded() -> None:
    """A long text that aliases repeat is refused when it would be too large written out."""
    with pytest.raises(ValueError, match=f"larger than {LARGEST} bytes, with aliases written out"):
        load(f"a: &a {'x' * 1000}\nb: [{','.join(['*a'] * 2000)}]")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: &a [*a]", "contains itself in line 1"),
        ("a: &a {<<: *a}", "contains itself"),
        ("a:\n  *b", "alias without an anchor in line 2"),
        ("[a]: b", "a key that is not text in the mapping of line 1"),
        ("b: &a [1]\nc: {*a : 1}", "a key that is not text in the mapping of line 2"),
        ("<<: 1", "merges something that is no mapping"),
        ("<<: [a]", "merges something that is no mapping"),
        ("a: !!binary aGk=", "has a tag in line 1"),
        ("a: !x [b]", "has a tag in line 1"),
        ("a: !!set {b}", "has a tag in line 1"),
        ("!!python/object/apply:os.system [x]", "has a tag in line 1"),
        ("a: !!int b", "a number that does not exist in line 1"),
        ("a: !!bool b", "a number that does not exist in line 1"),
        ("a: !!float ''", "a number that does not exist in line 1"),
        (f"a: {':'.join(['1'] * 100_000)}", "a number that is too long in line 1"),
        (f"a: {'9' * 100_000}", "a number that is too long in line 1"),
    ],
)
def test_what_json_has_not_is_refused(text: str, problem: str) -> None:
    """A value that JSON cannot have is refused, in words for the person who wrote it."""
    with pytest.raises(ValueError, match=problem):
        load(text)


@pytest.mark.parametrize(
    ("text", "key"), [("a: 1\nb: 2\na: 3", "a"), ("1: a\n\n'1': b", "1"), ("- <<: {a: 1}\n  c: 1\n  c: 2", "c")]
)
def test_a_key_twice_is_refused(text: str, key: str) -> None:
    """A mapping that has a key twice is refused with both lines; a merged key may be there again."""
    with pytest.raises(DuplicateKey) as caught:
        load(text)
    assert (caught.value.key, caught.value.again) == (key, 3)
    assert load("<<: {a: 1}\n<<: {b: 2}\na: 3") == {"a": 3, "b": 2}
