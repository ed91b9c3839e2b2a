"""The parts of the Dockerfile that tests use."""

from tools.repository import ROOT


def copied() -> set[str]:
    """Return the files and folders of the project that the Dockerfile copies."""
    names: set[str] = set()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--from"):
            names.update(words[1:-1])
    return names
