"""Watched files: they are read again when they change, and the last good value counts while they are of no use."""

import os
from pathlib import Path

import pytest

from program.watched_file import FileMissing, FileUnusable, WatchedFile, stripped


class Watched:
    """A file with one word, the number of times it was parsed, and the problems that were reported."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.parsed = 0
        self.problems: list[str] = []
        self.file = WatchedFile(path, self._parse, limit=16, report=lambda problem: self.problems.append(str(problem)))
        self._time = 0

    def write(self, content: str) -> None:
        """Write other content, at another time than before."""
        self.path.write_text(content)
        self._time += 1
        os.utime(self.path, ns=(self._time, self._time))

    def _parse(self, content: bytes) -> str:
        self.parsed += 1
        return stripped(content).decode()


@pytest.fixture
def watched(tmp_path: Path) -> Watched:
    """Return a file that holds `first`."""
    watched = Watched(tmp_path / "file")
    watched.write("first\n")
    return watched


def test_a_version_is_parsed_once(watched: Watched) -> None:
    """The content is parsed at its first use, and again when it has changed."""
    assert watched.parsed == 0
    assert [watched.file.current(), watched.file.latest(), watched.file.current()] == ["first"] * 3
    assert watched.parsed == 1
    watched.write("other")
    assert [watched.file.latest(), watched.file.current()] == ["other"] * 2
    assert watched.parsed == 2


def test_a_file_that_takes_the_place_of_another(watched: Watched, tmp_path: Path) -> None:
    """A file of the same time and size that takes its place is another version, as for a Secret that is mounted."""
    assert watched.file.current() == "first"
    (tmp_path / "new").write_text("third\n")
    os.utime(tmp_path / "new", ns=(1, 1))
    (tmp_path / "new").rename(watched.path)
    assert watched.file.current() == "third"


@pytest.mark.parametrize(("content", "problem"), [("", "is empty"), (" \n", "is empty"), ("x" * 17, "is larger than")])
def test_content_that_makes_no_value(watched: Watched, content: str, problem: str) -> None:
    """Unusable content raises at each use and is reported once, and the value before counts until it is corrected."""
    assert watched.file.current() == "first"
    watched.write(content)
    for _ in range(3):
        with pytest.raises(FileUnusable, match=f"^{problem}"):
            watched.file.current()
        assert watched.file.latest() == "first"
    assert watched.parsed == (1 if len(content) > 16 else 2)
    assert len(watched.problems) == 1
    watched.write("mended")
    assert watched.file.current() == "mended"
    watched.write(content)
    assert watched.file.latest() == "mended"
    assert len(watched.problems) == 2


def test_a_file_that_is_missing_for_a_moment(watched: Watched) -> None:
    """While a file is missing its last value counts, and the file that comes back is read although it looks the
    same."""
    assert watched.file.current() == "first"
    watched.path.unlink()
    with pytest.raises(FileMissing, match=r"^cannot be read: No such file or directory$"):
        watched.file.current()
    assert watched.file.latest() == "first"
    watched.path.write_text("again")
    assert watched.file.latest() == "again"
    assert watched.problems == ["cannot be read: No such file or directory"]


def test_a_file_that_cannot_be_read(watched: Watched) -> None:
    """A file that cannot be read is tried at each use, because permissions change without the content."""
    assert watched.file.current() == "first"
    watched.path.unlink()
    watched.path.mkdir()
    for _ in range(2):
        with pytest.raises(FileUnusable, match=r"^cannot be read: Is a directory$"):
            watched.file.current()
    assert watched.file.latest() == "first"
    assert len(watched.problems) == 1


def test_a_file_that_was_never_of_use(tmp_path: Path) -> None:
    """A file that was never readable raises, and without a listener nothing is reported."""
    file = WatchedFile(tmp_path / "none", stripped)
    with pytest.raises(FileMissing):
        file.latest()


def test_the_first_reading_is_not_reported(watched: Watched) -> None:
    """The first reading raises without a report, because the program says so itself; later problems are reported."""
    watched.write("")
    with pytest.raises(FileUnusable, match=r"^is empty$"):
        watched.file.first()
    assert watched.problems == []
    watched.write("good")
    assert watched.file.first() == "good"
    watched.write("")
    assert watched.file.latest() == "good"
    assert watched.problems == ["is empty"]
