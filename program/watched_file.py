"""A file that is read again when it changes: a kubelet or an administrator replaces it while a program uses it."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, Generic, TypeVar

Value = TypeVar("Value")

LIMIT: Final = 1 << 20
"""Bytes that a file may have unless its reader sets another limit."""


class FileUnusable(ValueError):
    """A file cannot be read, or does not hold what it should.

    The message is a phrase that follows the file's name, such as "is empty". It repeats nothing of the content.
    """


class FileMissing(FileUnusable):
    """A file is not there, or not yet there again while it is being replaced."""


class WatchedFile(Generic[Value]):
    """The value that a file holds, parsed once for each version of the file."""

    def __init__(
        self,
        path: Path,
        parse: Callable[[bytes], Value],
        *,
        limit: int = LIMIT,
        report: Callable[[FileUnusable], None] | None = None,
    ) -> None:
        """Read nothing yet.

        Args:
            path: the file.
            parse: makes the value of the content; raises `FileUnusable` where that is impossible.
            limit: bytes that the file may have.
            report: called once when the file becomes unusable, and once more when another problem takes its place.
        """
        self._path = path
        self._parse = parse
        self._limit = limit
        self._report = report
        self._version: tuple[int, int, int] | None = None
        self._values: list[Value] = []
        """The value that was parsed last, if there was one."""
        self._problem: FileUnusable | None = None
        """The problem of the present version."""
        self._reported = ""

    def first(self) -> Value:
        """Return the value that the file holds at the start of a program, which ends when there is none.

        Raises:
            FileUnusable: the file holds no value. That is not reported, for the caller does it.
        """
        self._refresh()
        if self._problem is not None:
            raise self._problem.with_traceback(None)
        return self._values[0]

    def current(self) -> Value:
        """Return the value that the file holds now.

        Raises:
            FileUnusable: the file holds none now.
        """
        try:
            value = self.first()
        except FileUnusable as exc:
            if self._report is not None and str(exc) != self._reported:
                self._reported = str(exc)
                self._report(exc)
            raise
        self._reported = ""
        return value

    def latest(self) -> Value:
        """Return the value that the file holds now or, while it holds none, the value that it held before.

        Raises:
            FileUnusable: the file has never held a value.
        """
        try:
            return self.current()
        except FileUnusable:
            if not self._values:
                raise
            return self._values[0]

    def _refresh(self) -> None:
        """Parse the file if it has changed.

        Raises:
            FileUnusable: it cannot be read.
        """
        known, self._version = self._version, None
        try:
            status = self._path.stat()
        except OSError as exc:
            raise FileMissing(f"cannot be read: {exc.strerror}") from None
        version = (status.st_mtime_ns, status.st_size, status.st_ino)
        if version != known:
            try:
                with self._path.open("rb") as file:
                    content = file.read(self._limit + 1)
            except OSError as exc:
                raise FileUnusable(f"cannot be read: {exc.strerror}") from None
            try:
                self._values, self._problem = [self._checked(content)], None
            except FileUnusable as exc:
                self._problem = exc
        self._version = version

    def _checked(self, content: bytes) -> Value:
        if len(content) > self._limit:
            raise FileUnusable(f"is larger than {self._limit >> 10} KiB")
        return self._parse(content)


def stripped(content: bytes) -> bytes:
    """Return the content of a file without white space around it.

    Raises:
        FileUnusable: nothing is left.
    """
    if value := content.strip():
        return value
    raise FileUnusable("is empty")
