"""The parser of PromQL expressions, whose panics are an error like any other and leave no trace on standard error."""

import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, Any, Final

import promql_parser as parser

_STANDARD_ERROR: Final = 2
_parsing: Final = threading.Lock()


class Unparsable(ValueError):
    """The text is no expression. The message says why; it is empty where the parser has failed at it."""


@lru_cache(maxsize=4096)
def parsed(expression: str) -> Any:
    """Return the syntax tree of an expression, or an `Unparsable`, which is returned so that it is kept as well."""
    with _parsing, _quiet() as written:
        try:
            return parser.parse(expression)
        except (ValueError, OverflowError) as exc:
            return Unparsable(str(exc))
        except BaseException as exc:
            if type(exc).__name__ != "PanicException":  # the parser raises it, and it derives from BaseException alone
                raise
            written.clear()
            return Unparsable()


class _Written:
    """What was written to standard error meanwhile."""

    def __init__(self) -> None:
        self.keeps = True

    def clear(self) -> None:
        """Drop it: it is the trace of a panic."""
        self.keeps = False


@contextmanager
def _quiet() -> Iterator[_Written]:
    """Keep what is written to standard error, and write it at the end unless it is dropped."""
    written = _Written()
    try:
        original = os.dup(_STANDARD_ERROR)
    except OSError:  # it is closed, so there is nothing to keep quiet
        yield written
        return
    with _file() as file:
        os.dup2(file.fileno(), _STANDARD_ERROR)
        try:
            yield written
        finally:
            os.dup2(original, _STANDARD_ERROR)
            os.close(original)
            if written.keeps:
                file.seek(0)
                _write(file.read())


def _file() -> IO[bytes]:
    """Return an empty file; one in memory where there is such a thing, for containers have a read-only root."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("standard-error"), "w+b")
    return tempfile.TemporaryFile()


def _write(content: bytes) -> None:
    while content:
        content = content[os.write(_STANDARD_ERROR, content) :]
