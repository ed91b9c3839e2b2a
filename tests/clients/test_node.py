"""Clients for Node at the gateway: openai, undici and the fetch that Node has."""

import hashlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

from tests.clients.conftest import Place
from tests.clients.model_server import TEXT
from tests.clients.outcomes import calls_of, check
from tests.clients.programs import require
from tests.deadlines import NEVER
from tools.repository import ROOT

HERE: Final = ROOT / "tests/clients/node"
CLIENTS: Final = ("openai-node", "undici", "fetch-undici", "fetch-node")

pytestmark = pytest.mark.xdist_group("node")


def packages() -> Path:
    """Return a folder below build/ with the packages of the lock file; install them where they are not there yet."""
    folder = ROOT / "build/clients" / hashlib.sha256((HERE / "package-lock.json").read_bytes()).hexdigest()[:16]
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(HERE / name, folder)
        npm = require("npm", "npm")
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]
        subprocess.run(command, cwd=folder, check=True, timeout=NEVER)
        (folder / "installed").touch()
    for source in (HERE / "calls.mjs", HERE.parent / "fetching.mjs"):
        shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="module")
def outcomes(place: Place) -> Mapping[tuple[str, str], str]:
    """Outcomes by client and call, all made by one process."""
    node = require("nodejs", "node")
    command = [node, "calls.mjs", place.url, TEXT, *CLIENTS]
    result = subprocess.run(command, cwd=packages(), capture_output=True, text=True, timeout=NEVER)
    assert result.returncode == 0, result.stderr
    lines = map(json.loads, result.stdout.splitlines())
    return {(line["client"], line["call"]): line["outcome"] for line in lines}


@calls_of(*CLIENTS)
def test_a_call(place: Place, client: str, call: str, outcomes: Mapping[tuple[str, str], str]) -> None:
    """A call of a client for Node has its outcome, and the model server gets exactly what it should."""
    check(place, client, call, outcomes[client, call])


def test_the_lock_file_names_no_registry() -> None:
    """The lock file has a checksum for each package and names no place to get it from."""
    packages = json.loads((HERE / "package-lock.json").read_text(encoding="utf-8"))["packages"]
    for name, package in packages.items():
        assert "resolved" not in package
        assert bool(name) is ("integrity" in package)
