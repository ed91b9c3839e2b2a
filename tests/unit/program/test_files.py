"""Problems of YAML files, in words for the user who wrote them."""

import re
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from program import files

CLOSE: Final = "close the list with ] or the map with }, and put commas between its entries"
INDENT: Final = "indent the line as the lines that it belongs to"
LIBRARY: Final = re.compile(r"expected|found|token|scanning|parsing|mapping|sequence|stream|alias|constructor|scalar")
LOADERS: Final = (files.Loader, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
"""The loader for files of users, and the parser of the C library, which reads route documents."""


def refused(text: str, loader: Any) -> str:
    """Return the problem of a text that is not YAML."""
    with pytest.raises(yaml.YAMLError) as caught:
        list(files.load_all(text, loader))
    return files.problem(caught.value)


@pytest.mark.parametrize("loader", LOADERS)
@pytest.mark.parametrize(
    ("text", "advice"),
    [
        ("a: b: c", " in line 1: put a value that has a colon in it in quotes, or mend the indentation"),
        ("a: 1\nb\nc: 1", " in line 3: put a colon and a space behind the key"),
        (
            "a:\n\tb: 1",
            " in line 2: indent with spaces, not tabs, and put a value that begins with @, ` or % in quotes",
        ),
        ("a: @b", " in line 1: indent with spaces, not tabs, and put a value that begins with @, ` or % in quotes"),
        ("a:\n  b: 1\n c: 1", f" in line 3: {INDENT}"),
        ("a:\n  - 1\n  b: 1", f" in line 3: {INDENT}"),
        ("a: - b", " in line 1: begin the list on a line of its own"),
        ("a: [1, 2", f" in line 1: {CLOSE}"),
        ("a: {b: 1", f" in line 1: {CLOSE}"),
        ("a: [", " in line 1: write a value, or close the list with ] or the map with }"),
        ("a: 'b", " in line 1: close the quote"),
        ('a: "\\q"', " in line 1: write a backslash twice, or use single quotes"),
        ("a: *b", " in line 1: put a value that begins with * in quotes"),
        ("a: *", " in line 1: put a value that begins with * or & in quotes"),
        ("a: !b c", " in line 1: put a value that begins with ! in quotes"),
        ("a: !b!c d", " in line 1: put a value that begins with ! in quotes"),
        ("a: {{ b }}", " in line 1: put a value that begins with { in quotes"),
        ("a: \x01", ": take out the control characters"),
        ("a: |x\n  b", " in line 1: mend quotes, colons or indentation there"),
        (
            "a: 2030-13-45",
            ": a date or a number in it does not exist, or it is nested too deep; put values in quotes",
        ),
    ],
)
def test_advice(text: str, advice: str, loader: Any) -> None:
    """The problem of a text that is not YAML has the line and what to do, with both parsers of the library."""
    problem = refused(text, loader)
    assert re.sub(r"line \d+", "line N", problem) == re.sub(r"line \d+", "line N", f"is not YAML{advice}")
    assert not LIBRARY.search(problem)


@pytest.mark.parametrize(
    ("text", "key", "first", "again"),
    [
        ("a: 1\nb: 2\na: 1", "a", 1, 3),
        ("a: 1\n'a': 2", "a", 1, 2),
        ("1: a\n'1': b", "1", 1, 2),
        ("a:\n  - {b: 1, c: [{d: 1}]}\n  - {b: 1,\n     b: 2}", "b", 3, 4),
        ("a: 1\n---\nb: 1\nb: 2", "b", 3, 4),
        ("{x: {y: 1, y: 2}, x: 3}", "x", 1, 1),
        ("a: {b: 1, b: 1}\nc: {d: 1, d: 1}", "b", 1, 1),
        ("? {k: 1, k: 2}\n: value", "k", 1, 1),
        ("a: &a {x: 1}\nb: {<<: *a, y: 1, y: 2}", "y", 2, 2),
    ],
)
def test_a_key_that_is_there_twice(text: str, key: str, first: int, again: int) -> None:
    """A mapping with a key twice is refused with the key and both lines, wherever the mapping is in the text."""
    words = f"has the key '{key}' in line {first} and again in line {again}: leave one of them out"
    assert refused(text, files.Loader) == words


@pytest.mark.parametrize(
    ("text", "content"),
    [
        ("a: {k: 1}\nb: {k: 1}", {"a": {"k": 1}, "b": {"k": 1}}),
        ("a: &a {k: 1}\nb: *a\nc: [*a, *a]", {"a": {"k": 1}, "b": {"k": 1}, "c": [{"k": 1}, {"k": 1}]}),
        ("a: &a {k: 1}\nc: {<<: *a, k: 2}", {"a": {"k": 1}, "c": {"k": 2}}),
        ("a: &a {k: 1}\nb: &b {l: 1}\nc: {<<: *a, <<: *b}", {"a": {"k": 1}, "b": {"l": 1}, "c": {"k": 1, "l": 1}}),
        ("a: {x: &b {<<: &a {k: 1}, k: 2}}\nc: {<<: *b}", {"a": {"x": {"k": 2}}, "c": {"k": 2}}),
    ],
)
def test_keys_that_are_there_once(text: str, content: Any) -> None:
    """The same key of several mappings, aliases and merged mappings are no duplicates."""
    assert list(files.load_all(text)) == [content]


def test_a_mapping_that_has_itself_in_it() -> None:
    """Looking for duplicate keys ends where a mapping refers to itself, and where aliases multiply."""
    content = files.load("a: &a {b: *a}")
    assert content["a"]["b"] is content["a"]
    lines = ["a0: &a0 [x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12))]
    assert len(files.load("\n".join(lines))) == 12


def test_what_is_nested_too_deep() -> None:
    """A text that is nested deeper than Python can follow is reported as no YAML, not as an error in the program."""
    assert "nested too deep" in refused("[" * 5000, yaml.SafeLoader)


def test_a_file_of_one_document() -> None:
    """A file of one document is refused when it has a second one, and read as None when it is empty."""
    assert files.load("a: 1") == {"a": 1}
    assert files.load("") is None
    with pytest.raises(yaml.YAMLError) as caught:
        files.load("a: 1\n---\nb: 1")
    assert files.in_yaml(caught.value).endswith(": leave one document, without a line of three dashes between two")
    with pytest.raises(yaml.YAMLError) as caught:
        files.load("a: 2030-13-45")
    assert "does not exist" in files.in_yaml(caught.value)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    """The problem of a file that is missing or in another encoding has the cause."""
    with pytest.raises(FileNotFoundError) as missing:
        (tmp_path / "none").read_text(encoding="utf-8")
    assert files.problem(missing.value) == "cannot be read: No such file or directory"
    (tmp_path / "latin").write_bytes(b"\xe9")
    with pytest.raises(UnicodeDecodeError) as encoded:
        (tmp_path / "latin").read_text(encoding="utf-8")
    assert files.problem(encoded.value) == "cannot be read: it is not UTF-8"


def test_no_complaint_of_the_library_is_repeated() -> None:
    """An error of the library that has no advice of its own gets general advice."""
    mark = yaml.error.Mark("", 0, 4, 0, None, 0)
    error = yaml.error.MarkedYAMLError("while doing something", mark, "found something", mark)
    assert files.problem(error) == "is not YAML in line 5: mend quotes, colons or indentation there"
    assert files.problem(yaml.YAMLError("found something")) == "is not YAML: mend quotes, colons or indentation there"
