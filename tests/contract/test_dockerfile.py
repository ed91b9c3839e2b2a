"""The Dockerfile and what its build may see. No image is built here: that needs an engine."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_what_is_copied_is_not_ignored() -> None:
    """Every file and folder that the Dockerfile copies from the project is let through by .dockerignore, and exists."""
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied: set[str] = set()
    for line in (ROOT / "Dockerfile").read_text().splitlines():
        words = line.split()
        if words[:1] == ["COPY"] and not words[1].startswith("--from"):
            copied.update(words[1:-1])
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)
