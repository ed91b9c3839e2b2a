"""The Dockerfile and the files that its build can see; no image is built here, because that needs an engine."""

import re
from pathlib import Path

import pytest

from tests import dockerfile
from tests.node import image
from tools.repository import ROOT


def test_what_is_copied_is_not_ignored() -> None:
    """Every file and folder that the Dockerfile copies exists and is let through by .dockerignore, and no other is."""
    let_through = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    copied = dockerfile.copied()
    assert copied == let_through
    assert all((ROOT / name).exists() for name in copied)


def test_what_it_builds_on_is_pinned() -> None:
    """The base is pinned by its digest, and all stages have that base; uv is pinned by its version."""
    assert re.fullmatch(r"python:3\.13-slim@sha256:[0-9a-f]{64}", dockerfile.argument("BASE"))
    assert re.fullmatch(r"\d+\.\d+\.\d+", dockerfile.argument("UV_VERSION"))
    lines = dockerfile.PATH.read_text().splitlines()
    assert [line for line in lines if line.startswith("FROM ")] == ["FROM ${BASE} AS build", "FROM ${BASE}"]


@pytest.mark.parametrize(("ci", "code"), [("", 0), ("true", 1)])
def test_without_an_engine_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], ci: str, code: int
) -> None:
    """Where no engine works, `make image` is skipped in one line that says so; in CI that is a failure."""
    monkeypatch.setenv("CI", ci)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(image, "_FOLDER", tmp_path)
    assert image.main() == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("skipped: neither docker, podman nor buildah works here: ")
