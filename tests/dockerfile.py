"""The parts of the Dockerfile that tests use."""

from tools.repository import ROOT

PATH = ROOT / "Dockerfile"


def copied() -> set[str]:
    """Return the files and folders of the project that the Dockerfile copies."""
    return {name for words in _instructions("COPY") if not words[0].startswith("--from") for name in words[:-1]}


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
