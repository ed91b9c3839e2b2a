"""The parts of the Dockerfile that tests use."""

import hashlib
from pathlib import Path

from tools.repository import ROOT

PATH = ROOT / "Dockerfile"


def copied() -> set[str]:
    """Return the files and folders of the project that the Dockerfile copies."""
    return {name for words in _instructions("COPY") if not words[0].startswith("--from") for name in words[:-1]}


def sources() -> list[Path]:
    """Return the Dockerfile and every file that it copies, in the order of their paths."""
    found = [PATH]
    for name in copied():
        path = ROOT / name
        found += path.rglob("*") if path.is_dir() else (path,)
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def digest(*more: str) -> str:
    """Return a digest of all that goes into the image, and of what else decides what it becomes."""
    result = hashlib.sha256("\n".join(more).encode())
    for path in sources():
        result.update(f"{path.relative_to(ROOT)} {path.stat().st_mode & 0o111:o}\n".encode())
        result.update(hashlib.sha256(path.read_bytes()).digest())
    return result.hexdigest()


def argument(name: str) -> str:
    """Return the default of an argument of the build.

    Raises:
        LookupError: the Dockerfile has no such argument with a default.
    """
    for words in _instructions("ARG"):
        argument, _, default = words[0].partition("=")
        if argument == name and default:
            return default
    raise LookupError(name)


def layers() -> int:
    """Return the number of layers that the last stage puts on its base."""
    last = PATH.read_text().rpartition("\nFROM ")[2]
    return sum(line.startswith(("RUN ", "COPY ", "ADD ")) for line in last.splitlines())


def _instructions(name: str) -> list[list[str]]:
    """Return the words after the name of each instruction of that name."""
    lines = (line.split() for line in PATH.read_text().splitlines())
    return [words[1:] for words in lines if words[:1] == [name]]
