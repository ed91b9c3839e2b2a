"""The Dockerfile and what its build may see. No image is built here: that needs an engine."""

from tests import dockerfile
from tools.repository import ROOT


def test_what_is_copied_is_not_ignored() -> None:
    """Every file and folder that the Dockerfile copies from the project is let through by .dockerignore, and exists."""
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = dockerfile.copied()
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)
