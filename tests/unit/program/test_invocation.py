"""Invocation of a program, as its help and its messages name it."""

import sys
from pathlib import Path

import pytest

from program import invocation


@pytest.mark.parametrize(
    ("argument", "name"),
    [
        ("/usr/bin/beamlit-hooks", "beamlit-hooks"),
        (".venv/bin/beamlit-hooks", "beamlit-hooks"),
        ("/opt/hooks/__main__.py", "python -m hooks"),
        ("/usr/bin/beamlit-gateway", "python -m hooks"),
        ("", "python -m hooks"),
    ],
)
def test_the_name_of_a_command(monkeypatch: pytest.MonkeyPatch, argument: str, name: str) -> None:
    """A program has the name of the console script that started it, or else that of its module."""
    monkeypatch.setattr(sys, "argv", [argument, "serve"])
    assert invocation.command("hooks") == name


def test_a_script_as_it_was_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    """An example begins with the path of the console script as it was typed."""
    monkeypatch.setattr(sys, "argv", [".venv/bin/beamlit-hooks"])
    assert invocation.typed("hooks") == ".venv/bin/beamlit-hooks"


def test_a_module_as_it_can_be_typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An example begins with `python` where that is the running interpreter, and else with the interpreter's path."""
    monkeypatch.setattr(sys, "argv", ["hooks/__main__.py"])
    python = tmp_path / "bin" / "python"
    python.parent.mkdir()
    python.write_text("#!/bin/sh\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setenv("PATH", "/nowhere")
    assert invocation.typed("hooks") == f"{python} -m hooks"
    monkeypatch.chdir(tmp_path)
    assert invocation.typed("hooks") == "bin/python -m hooks"
    monkeypatch.setenv("PATH", str(python.parent))
    assert invocation.typed("hooks") == "python -m hooks"


def test_paragraphs() -> None:
    """Paragraphs of text are wrapped, and a command to copy stays as it is."""
    command = f"  {'x' * 100} \\\n    y"
    assert (
        invocation.paragraphs("word " * 20, command)
        == f"{' '.join(['word'] * 16)}\n{' '.join(['word'] * 4)}\n\n{command}"
    )
