"""Files that people write, and what is wrong with one in words for the person who wrote it."""

from collections.abc import Iterator
from typing import Any, Final

import yaml

from program.excerpts import cut

Unreadable = (OSError, UnicodeDecodeError, yaml.YAMLError)
"""What reading a file of YAML may raise."""

_ADVICE: Final = (
    ("mapping values are not allowed", "put a value that has a colon in it in quotes, or mend the indentation"),
    ("could not find expected ':'", "put a colon and a space behind the key"),
    (
        "that cannot start any token",
        "indent with spaces, not tabs, and put a value that begins with @, ` or % in quotes",
    ),
    ("<block end>", "indent the line as the lines that it belongs to"),
    ("did not find expected key", "indent the line as the lines that it belongs to"),
    ("did not find expected '-'", "indent the line as the lines that it belongs to"),
    ("sequence entries are not allowed", "begin the list on a line of its own"),
    ("',' or", "close the list with ] or the map with }, and put commas between its entries"),
    ("node content", "write a value, or close the list with ] or the map with }"),
    ("unexpected end of stream", "close the quote"),
    ("unexpected document separator", "close the quote"),
    ("unknown escape", "write a backslash twice, or use single quotes"),
    ("expected alphabetic or numeric", "put a value that begins with * or & in quotes"),
    ("undefined alias", "put a value that begins with * in quotes"),
    ("duplicate anchor", "name each anchor (&) differently"),
    ("a constructor for the tag", "put a value that begins with ! in quotes"),
    ("undefined tag handle", "put a value that begins with ! in quotes"),
    ("another document", "leave one document, without a line of three dashes between two"),
    ("unhashable key", "put a value that begins with { in quotes"),
)
"""What to do about a complaint of the library, by words that it has in it."""
_MERGE: Final = "tag:yaml.org,2002:merge"
"""Tag of the key `<<`."""
_OTHER_ADVICE: Final = "mend quotes, colons or indentation there"


class _Impossible(yaml.YAMLError):
    """A value that looks like a date or a number and is none, or one inside of too many others."""


class DuplicateKey(yaml.YAMLError):
    """A mapping that has a key twice, of which YAML libraries silently take the last."""

    def __init__(self, key: str, first: int, again: int) -> None:
        super().__init__(key)
        self.key = key
        self.first = first
        """Line of the key, from 1."""
        self.again = again
        """Line where the key is there again."""


class Loader(yaml.SafeLoader):
    """YAML loader that refuses duplicate keys."""

    def construct_document(self, node: yaml.Node) -> Any:
        """Return a document.

        Raises:
            DuplicateKey: A mapping has a key twice.
        """
        _check_keys(node)
        return super().construct_document(node)


def _check_keys(document: yaml.Node) -> None:
    """Check that no mapping of a document has a key twice, as it would be written in JSON: `1` and `"1"` are the same.

    The key `<<` may be there for each mapping that is merged in.

    Raises:
        DuplicateKey: A mapping has a key twice.
    """
    rest, seen = [document], {id(document)}
    while rest:
        node = rest.pop()
        below: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            below = node.value
        elif isinstance(node, yaml.MappingNode):
            lines: dict[str, int] = {}
            for key, value in node.value:
                below += (key, value)
                if isinstance(key, yaml.ScalarNode) and key.tag != _MERGE:
                    line = key.start_mark.line + 1
                    if key.value in lines:
                        raise DuplicateKey(key.value, lines[key.value], line)
                    lines[key.value] = line
        for one in reversed(below):
            if id(one) not in seen:  # an alias leads to a node that another place has, too
                seen.add(id(one))
                rest.append(one)


def load(text: str) -> Any:
    """Return the one document in a text of YAML, or None where it is empty.

    Raises:
        yaml.YAMLError: it is not YAML, a mapping has a key twice, or a value in it cannot be had.
    """
    try:
        loader = Loader(text)
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except (ValueError, RecursionError) as exc:
        raise _Impossible from exc


def load_all(text: str, loader: Any = Loader) -> Iterator[Any]:
    """Yield the documents in a text of YAML.

    Raises:
        yaml.YAMLError: it is not YAML, a mapping has a key twice, or a value in it cannot be had.
    """
    try:
        yield from yaml.load_all(text, Loader=loader)
    except (ValueError, RecursionError) as exc:
        raise _Impossible from exc


def problem(exc: Exception) -> str:
    """Return why a file could not be read, to follow its name: `cannot be read: …` or `is not YAML in line 3: …`."""
    if isinstance(exc, DuplicateKey):
        return f"has the key {cut(exc.key)!r} in line {exc.first} and again in line {exc.again}: leave one of them out"
    if isinstance(exc, yaml.YAMLError):
        return f"is not YAML{in_yaml(exc)}"
    if isinstance(exc, UnicodeDecodeError):
        return "cannot be read: it is not UTF-8"
    return f"cannot be read: {getattr(exc, 'strerror', None) or exc}"


def in_yaml(exc: yaml.YAMLError) -> str:
    """Return where a text is not YAML and what to do about it: ` in line 3: close the quote`."""
    if isinstance(exc, _Impossible):
        return ": a date or a number in it does not exist, or it is nested too deep; put values in quotes"
    if isinstance(exc, yaml.reader.ReaderError):
        return ": take out the control characters"
    mark = getattr(exc, "problem_mark", None)
    complaint = str(getattr(exc, "problem", None))
    advice = next((advice for words, advice in _ADVICE if words in complaint), _OTHER_ADVICE)
    return f"{'' if mark is None else f' in line {mark.line + 1}'}: {advice}"
