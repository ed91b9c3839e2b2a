"""The cache of compiled modules, with a stand-in for the build, which takes minutes."""

import os
import sys
from pathlib import Path
from typing import Final

import pytest

from tools import compiled
from tools.repository import ROOT

BUILD: Final = f"""\
#!{sys.executable}
import os, sys, zipfile
with open(os.environ["BUILDS"], "a") as builds:
    builds.write(os.environ["HATCH_BUILD_HOOK_ENABLE_MYPYC"] + "\\n")
if os.environ.get("BROKEN"):
    sys.exit("gateway/proxy.py:1: error: no")
for name in ("pyproject.toml", "README.md", "LICENSE", "gateway/proxy.py", "hooks/__init__.py", "program/__init__.py"):
    assert os.path.exists(name), name
folder = sys.argv[sys.argv.index("--out-dir") + 1]
os.mkdir(folder)
with zipfile.ZipFile(os.path.join(folder, "x-1.whl"), "w") as wheel:
    for name in ("gateway/proxy.so", "gateway/proxy.py", "shared.so"):
        wheel.writestr(name, "compiled")
"""
"""Program that stands for uv, and builds a wheel that has what one of the project has."""


@pytest.fixture
def builds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file with a line for each build, beside an empty cache."""
    program, builds = tmp_path / "bin/uv", tmp_path / "builds"
    program.parent.mkdir()
    program.write_text(BUILD)
    program.chmod(0o755)
    builds.touch()
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("BUILDS", str(builds))
    monkeypatch.setattr(compiled, "_FOLDER", tmp_path / "cache")
    return builds


def target(folder: Path) -> Path:
    """Return a folder with the packages, without compiled modules."""
    (folder / "target/gateway").mkdir(parents=True)
    return folder / "target"


def test_modules_are_laid_beside_their_sources(builds: Path, tmp_path: Path) -> None:
    """Compiled modules, and nothing else of the wheel, are where Python finds them."""
    folder = target(tmp_path)
    assert compiled.main(folder) == 0
    assert {str(path.relative_to(folder)) for path in folder.rglob("*.*")} == {"gateway/proxy.so", "shared.so"}


def test_they_are_built_once(builds: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same sources are compiled once, other ones anew; what nothing asked for within a day is removed."""
    first = compiled.modules()
    assert compiled.modules() == first
    assert builds.read_text() == "1\n"
    monkeypatch.setattr(compiled, "_key", lambda: "other")
    assert compiled.modules() != first
    assert (builds.read_text(), first.is_dir()) == ("1\n1\n", True)
    os.utime(first / compiled._USED, (0, 0))
    monkeypatch.setattr(compiled, "_key", lambda: "third")
    compiled.modules()
    assert not first.exists()


def test_a_build_that_fails(
    builds: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What the compiler says is printed, and the next run compiles again."""
    monkeypatch.setenv("BROKEN", "1")
    assert compiled.main(target(tmp_path)) == 1
    assert "gateway/proxy.py:1: error: no" in capsys.readouterr().err
    monkeypatch.delenv("BROKEN")
    assert compiled.main(tmp_path / "target") == 0


def test_what_the_compiler_reads_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The key changes with a module of the gateway and with the options of the compiler, and not with hooks."""
    project = (ROOT / "pyproject.toml").read_text()
    monkeypatch.setattr(compiled, "ROOT", tmp_path)
    files = {"pyproject.toml": project, "gateway/a.py": "a", "program/b.py": "b", "hooks/c.py": "c"}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    keys = [compiled._key()]
    for name, text in (("hooks/c.py", "d"), ("gateway/a.py", "e"), ("program/b.py", "f")):
        (tmp_path / name).write_text(text)
        keys.append(compiled._key())
    (tmp_path / "pyproject.toml").write_text(project.replace('opt_level = "3"', 'opt_level = "2"'))
    keys.append(compiled._key())
    assert keys[0] == keys[1]
    assert len(set(keys)) == 4
