"""The compiled modules of the gateway's data path, for the Python that runs this.

Compiling takes minutes of one core, so they are kept in a cache outside the tree, and built once for each state of what
they are made from: `make compiled`, `make bench`, `make fairness` and the end-to-end tests share them.
`python -m tools.compiled FOLDER` lays them beside their sources in a folder.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
import zipfile
from pathlib import Path
from typing import Any, Final

from tests.e2e.binaries import CACHE
from tools.repository import ROOT

_FOLDER: Final = CACHE / "compiled"
_READ: Final = ("gateway", "program")
"""Packages that the compiler reads: those with the modules, and what these import."""
_COPIED: Final = ("pyproject.toml", "README.md", "LICENSE", "hooks", *_READ)
_USED: Final = "used"
"""File whose time is that of the last use."""
_DAY: Final = 24 * 3600.0


class CompileError(Exception):
    """The modules cannot be compiled. The message has the end of what the compiler printed."""


def modules() -> Path:
    """Return a folder with the compiled modules, at the paths that they have beside their sources.

    Raises:
        CompileError: the compiler fails.
    """
    folder = _FOLDER / _key()
    _FOLDER.mkdir(parents=True, exist_ok=True)
    with (_FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _USED).exists():
            _remove_old()
            shutil.rmtree(folder, ignore_errors=True)
            _build(folder)
        (folder / _USED).touch()
    return folder


def lay(target: Path) -> None:
    """Copy the compiled modules to the packages in a folder.

    Raises:
        CompileError: the compiler fails.
    """
    folder = modules()
    for path in folder.rglob("*.so"):
        shutil.copy(path, target / path.relative_to(folder))


def _key() -> str:
    """Return a digest of all that decides what the compiler makes."""
    project: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
    options = project["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"]["mypyc"]
    words = (sys.version, sys.base_prefix, repr(options), repr(project["project"]["dependencies"]))
    result = hashlib.sha256("\n".join(words).encode())
    for path in sorted(path for package in _READ for path in (ROOT / package).rglob("*.py")):
        result.update(f"{path.relative_to(ROOT)}\n".encode())
        result.update(hashlib.sha256(path.read_bytes()).digest())
    return result.hexdigest()[:16]


def _build(folder: Path) -> None:
    uv = shutil.which("uv") or str(ROOT / ".uv/bin/uv")
    began = time.monotonic()
    print("compiling the data path", flush=True)
    with tempfile.TemporaryDirectory() as name:
        source, output = Path(name) / "source", Path(name) / "wheel"
        source.mkdir()
        for part in _COPIED:
            if (ROOT / part).is_dir():
                shutil.copytree(ROOT / part, source / part, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / part, source)
        command = (uv, "build", "--quiet", "--wheel", "--python", sys.executable, "--out-dir", str(output))
        environment = os.environ | {"HATCH_BUILD_HOOK_ENABLE_MYPYC": "1"}
        result = subprocess.run(  # noqa: S603
            command, cwd=source, env=environment, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise CompileError((result.stdout + result.stderr)[-4000:])
        (wheel,) = output.glob("*.whl")
        with zipfile.ZipFile(wheel) as content:
            content.extractall(folder, [name for name in content.namelist() if name.endswith(".so")])
    print(f"compiled in {time.monotonic() - began:.0f} s", flush=True)


def _remove_old() -> None:
    """Remove modules that nothing has asked for within a day."""
    for folder in _FOLDER.iterdir():
        used = folder / _USED
        if folder.is_dir() and (not used.exists() or time.time() - used.stat().st_mtime > _DAY):
            shutil.rmtree(folder)


def main(target: Path) -> int:
    """Lay the compiled modules beside their sources in a folder."""
    try:
        lay(target)
    except CompileError as exc:
        print(exc, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
