"""A missing program is reported by its name, and is a failure in CI."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.controlplane import require
from tools.repository import ROOT


def test_skipped_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a developer's machine a test that needs a missing program is skipped, and the reason names the program."""
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no-such-program: missing"):
        require([Path(sys.executable).name, "no-such-program"])


def test_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    """With CI=true a missing program is a failure."""
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match="no-such-program: missing"):
        require(["no-such-program"])


def test_without_go_one_line(tmp_path: Path) -> None:
    """Without Go the first command of `make e2e` fails, with one line that says what is missing."""
    environment = os.environ | {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "tests.e2e.binaries"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert "built with Go 1.26, which is missing" in line
