"""Imports of the programs: the client for Kubernetes and the HTTP server are loaded only where they are needed."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import pytest

from tests.deadlines import SECONDS
from tests.integration.apiserver import kubeconfig
from tests.processes import poll
from tools.repository import ROOT

PORTS: Final = {
    "gateway": ("--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"),
    "hooks": ("serve", "--listen", "127.0.0.1:0", "--operations", "127.0.0.1:0"),
}
KUBERNETES: Final = {"kubernetes", "aiohttp", "urllib3", "requests_oauthlib"}
SERVER: Final = {"fastapi", "uvicorn", "uvloop"}
MANIFEST: Final = "examples/explain/demo.yaml"


def imported(arguments: Sequence[str], log: Path, **environment: str) -> set[str]:
    """Return the packages that a program has imported when it listens, or has ended."""
    environment = {"PATH": os.environ["PATH"], **environment}  # without the variables that name a cluster
    command = [sys.executable, "-X", "importtime", "-m", *arguments]
    with log.open("wb") as stream:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=stream)
    try:
        if arguments[0] in PORTS and set(PORTS[arguments[0]]) <= set(arguments):
            poll(lambda: '"event":"listening"' in log.read_text(), "it listens")
        else:
            assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.wait()
    return set(re.findall(r"^import time:.*\| +(\w+)$", log.read_text(), re.MULTILINE))


@pytest.mark.parametrize(
    "arguments",
    [
        ("gateway", "--help"),
        ("hooks", "--help"),
        ("hooks", "release-finalizers", "--help"),
        ("hooks", "render", MANIFEST),
        ("hooks", "explain", MANIFEST),
        ("gateway", *PORTS["gateway"], "--routes", "examples"),
        ("hooks", *PORTS["hooks"]),
    ],
    ids=" ".join,
)
def test_no_cluster_is_asked(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A command that sends nothing to an API server does not load the client for Kubernetes."""
    found = imported(arguments, tmp_path / "log")
    assert not KUBERNETES & found
    assert "pydantic" in found


@pytest.mark.parametrize("arguments", [("--help",), ("render", MANIFEST), ("explain", MANIFEST)], ids=" ".join)
def test_nothing_is_served(tmp_path: Path, arguments: tuple[str, ...]) -> None:
    """A command of hooks that serves nothing does not load the HTTP server."""
    assert not SERVER & imported(("hooks", *arguments), tmp_path / "log")


def test_no_page_is_rendered(tmp_path: Path) -> None:
    """The gateway does not load what renders its page before it is opened."""
    assert "jinja2" not in imported(("gateway", *PORTS["gateway"], "--routes", "examples"), tmp_path / "log")


@pytest.mark.parametrize("name", PORTS)
def test_a_cluster_is_asked(tmp_path: Path, name: str) -> None:
    """A program that follows a cluster loads the client for Kubernetes before it listens."""
    path = kubeconfig(tmp_path, 1, "token")
    assert "kubernetes" in imported((name, *PORTS[name]), tmp_path / "log", KUBECONFIG=str(path))
