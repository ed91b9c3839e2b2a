"""The Dockerfile and the files that its build can see; no image is built here, because that needs an engine."""

from tests import dockerfile
from tools.repository import ROOT


def test_what_is_copied_is_not_ignored() -> None:
    """Every file and folder that the Dockerfile copies exists and is let through by .dockerignore, and no other is."""
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = dockerfile.copied()
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)
