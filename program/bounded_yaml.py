"""YAML that other people wrote, read in bounded time and memory, as a program that must not end reads it.

The parsers of PyYAML follow each level of nesting by a call, which ends the process where there are too many, and write
out an alias wherever it is used. Here the events of the parser are put together one by one. A value is what JSON has:
times stay text, and keys are text as Kubernetes makes them.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import yaml

from program.files import DuplicateKey

MAX_DEPTH: Final = 100
"""Lists and maps within each other, at most."""
MAX_VALUES: Final = 500_000
"""Values in a text at most, with those of each alias counted wherever it is used."""

_Parser: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LONGEST_NUMBER: Final = 100
"""Characters of a number at most: Python takes seconds for those of thousands."""
_TAG: Final = "tag:yaml.org,2002:"
_TEXT: Final = f"{_TAG}str"
_MERGE: Final = f"{_TAG}merge"
_SPECIAL: Final = frozenset({f"{_TAG}{name}" for name in ("null", "bool", "int", "float")})
_CONSTRUCTORS: Final[Mapping[Any, Callable[[Any, Any], Any]]] = yaml.SafeLoader.yaml_constructors


class _Merge:
    """Key `<<` of a mapping, whose value is a mapping, or a list of them, with further entries."""


class _Collection:
    """List or mapping that the text is within."""

    __slots__ = ("anchor", "before", "children", "is_list", "keys", "line")

    def __init__(self, *, is_list: bool, anchor: str | None, line: int, before: int) -> None:
        self.is_list = is_list
        self.anchor = anchor
        self.line = line
        """Line where it begins, from 1."""
        self.before = before
        """Values that were counted before it."""
        self.children: list[Any] = []
        """Items of the list; keys and values of the mapping by turns."""
        self.keys: dict[str, int] = {}
        """Lines of the keys of the mapping, from 1."""

    def key(self, key: str, line: int) -> str:
        """Return a key of the mapping.

        Raises:
            DuplicateKey: The mapping has it already.
        """
        if key in self.keys:
            raise DuplicateKey(key, self.keys[key], line)
        self.keys[key] = line
        return key


def load_all(text: str, *, max_chars: int, max_values: int = MAX_VALUES) -> Iterator[Any]:
    """Yield the documents in a text of YAML: text, numbers, booleans, None, lists, and mappings with text as keys.

    Args:
        text: The text.
        max_chars: Characters of the scalars in the text, with those of each alias counted wherever it is used.
        max_values: Values in the text, counted in the same way.

    Raises:
        yaml.YAMLError: The text is not YAML, or a mapping has a key twice.
        ValueError: The text is larger or nested deeper than it may be, or has something that JSON has not.
    """
    parser = _Parser(text)
    try:
        yield from _Reader(parser, max_chars, max_values).documents()
    finally:
        parser.dispose()


class _Reader:
    """Puts the events of a parser together."""

    def __init__(self, parser: Any, max_chars: int, max_values: int) -> None:
        self._parser = parser
        self._max_chars = max_chars
        self._max_values = max_values
        self._values = self._chars = 0
        """Values and characters so far, with aliases written out."""
        self._open: list[_Collection] = []
        """Lists and mappings that the text is within, from the outside in."""
        self._sizes: list[int] = []
        """Characters that were counted before each of them."""
        self._anchors: dict[str, tuple[Any, int, int] | None] = {}
        """Values with an anchor, with the number of values and characters in each; None for one that has not ended."""

    def documents(self) -> Iterator[Any]:
        """Yield the documents."""
        while self._parser.check_event():
            event = self._parser.get_event()
            line = event.start_mark.line + 1
            if isinstance(event, yaml.ScalarEvent):
                size = len(event.value)
                self._count(1, size)
                value = self._scalar(event, line)
                if event.anchor is not None:
                    self._anchors[event.anchor] = (value, 1, size)
            elif isinstance(event, yaml.AliasEvent):
                value = self._alias(event.anchor, line)
            elif isinstance(event, yaml.CollectionStartEvent):
                self._begin(event, line)
                continue
            elif isinstance(event, yaml.CollectionEndEvent):
                value = self._end()
            else:
                if isinstance(event, yaml.DocumentStartEvent):
                    self._anchors.clear()
                continue
            if not self._open:
                yield value
            else:
                self._open[-1].children.append(value)

    def _count(self, values: int, chars: int) -> None:
        self._values += values
        self._chars += chars
        if self._values > self._max_values:
            raise ValueError(f"has more than {self._max_values} values, with aliases written out")
        if self._chars > self._max_chars:
            raise ValueError(f"is larger than {self._max_chars} bytes, with aliases written out")

    def _scalar(self, event: yaml.ScalarEvent, line: int) -> Any:
        """Return the value of a scalar; as a key it is the text that was written."""
        plain, quoted = event.implicit
        tag = event.tag
        if tag in (None, "!"):
            quoted_text = quoted and not plain
            tag = _TEXT if quoted_text else self._parser.resolve(yaml.ScalarNode, event.value, event.implicit)
        parent = self._open[-1] if self._open else None
        if parent is not None and not parent.is_list and len(parent.children) % 2 == 0:
            return _Merge if tag == _MERGE else parent.key(event.value, line)
        if tag in _SPECIAL:
            if len(event.value) > _LONGEST_NUMBER:
                raise ValueError(f"has a number that is too long in line {line}: put it in quotes")
            try:
                return _CONSTRUCTORS[tag](self._parser, yaml.ScalarNode(tag, event.value))
            except (ValueError, ArithmeticError, LookupError):
                raise ValueError(f"has a number that does not exist in line {line}: put it in quotes") from None
        if event.tag in (None, "!", _TEXT):
            return event.value
        raise ValueError(f"has a tag in line {line}: put a value that begins with ! in quotes")

    def _alias(self, anchor: Any, line: int) -> Any:
        if anchor not in self._anchors:
            raise ValueError(f"has an alias without an anchor in line {line}: put a value that begins with * in quotes")
        known = self._anchors[anchor]
        if known is None:
            raise ValueError(f"has a value that contains itself in line {line}")
        value, values, chars = known
        self._count(values, chars)
        return value

    def _begin(self, event: yaml.CollectionStartEvent, line: int) -> None:
        is_list = isinstance(event, yaml.SequenceStartEvent)
        if event.tag not in (None, "!", f"{_TAG}{'seq' if is_list else 'map'}"):
            raise ValueError(f"has a tag in line {line}: put a value that begins with ! in quotes")
        if len(self._open) >= MAX_DEPTH:
            raise ValueError(f"is nested deeper than {MAX_DEPTH} levels in line {line}")
        if event.anchor is not None:
            self._anchors[event.anchor] = None
        self._open.append(_Collection(is_list=is_list, anchor=event.anchor, line=line, before=self._values))
        self._sizes.append(self._chars)
        self._count(1, 0)

    def _end(self) -> Any:
        one, chars = self._open.pop(), self._sizes.pop()
        value = one.children if one.is_list else _mapping(one)
        if one.anchor is not None:
            self._anchors[one.anchor] = (value, self._values - one.before, self._chars - chars)
        return value


def _mapping(one: _Collection) -> dict[str, Any]:
    """Return a mapping with what is merged into it; its own entries win, and so do the first ones that are merged."""
    own: dict[str, Any] = {}
    merged: list[Any] = []
    for key, value in zip(one.children[::2], one.children[1::2], strict=True):
        if key is _Merge:
            merged += value if isinstance(value, list) else [value]
        elif isinstance(key, str):
            own[key] = value
        else:
            raise ValueError(f"has a key that is not text in the mapping of line {one.line}: put it in quotes")
    result: dict[str, Any] = {}
    for entries in reversed(merged):
        if not isinstance(entries, dict):
            raise ValueError(f"merges something that is no mapping in line {one.line}: put the key << in quotes")
        result |= entries
    return result | own
