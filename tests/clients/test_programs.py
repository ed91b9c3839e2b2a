"""Programs that the suite needs: their versions, and what happens where one is missing."""

import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.clients.chromium import PROGRAMS
from tests.clients.programs import require
from tests.deadlines import SECONDS
from tools.compatibility import PROGRAMS as RECORDED
from tools.compatibility import programs

COMMANDS: Final[Mapping[str, tuple[str, tuple[str, ...], str]]] = {
    "node": ("nodejs", ("node",), "--version"),
    "java": ("default-jdk-headless", ("java",), "--version"),
    "curl": ("curl", ("curl",), "--version"),
    "chromium": ("chromium-headless-shell", PROGRAMS, "--version"),
}
"""Package of Debian, names and flag by which each program tells its version."""


pytestmark = pytest.mark.xdist_group("programs")  # which write one file


def version(name: str) -> str:
    """Return the version of a program that is there."""
    package, names, flag = COMMANDS[name]
    output = subprocess.run(
        [require(package, *names), flag], capture_output=True, text=True, check=True, timeout=SECONDS
    ).stdout
    found = re.search(r"\d+(\.\d+)+", output)
    assert found is not None, output
    return found[0]


@pytest.mark.parametrize("name", COMMANDS)
def test_a_version_is_recorded(name: str) -> None:
    """The page about clients has a version of each program; with CLIENTS_RECORD=1 it is that of this machine."""
    if os.environ.get("CLIENTS_RECORD") == "1":
        recorded = dict(programs()) if RECORDED.exists() else {}
        RECORDED.write_text(json.dumps({**recorded, name: version(name)}, indent=2, sort_keys=True) + "\n")
    assert re.fullmatch(r"\d+(\.\d+)+", programs()[name])


def test_a_missing_program_is_skipped_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """On a developer's machine a test that needs a missing program is skipped, and the reason names its package."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=r"^node: missing; on Debian: apt-get install nodejs$"):
        require("nodejs", "node")


def test_a_missing_program_is_a_failure_in_ci(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With CI=true a missing program is a failure."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"^node: missing"):
        require("nodejs", "node")
