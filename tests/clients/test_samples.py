"""The samples of docs/clients.md, run as they are written, but for the address of the gateway."""

import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from tests.clients.conftest import Place
from tests.clients.model_server import TEXT
from tests.clients.programs import require
from tests.clients.test_node import packages
from tests.deadlines import NEVER
from tools.repository import ROOT

PAGE: Final = (ROOT / "docs/clients.md").read_text(encoding="utf-8")
GATEWAY: Final = "beamlit-controller-gateway.beamlit-system"
"""Host of the gateway in the samples."""
SAMPLES: Final = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
POM: Final = ROOT / "tests/clients/java/pom.xml"
COPY: Final = "org.apache.maven.plugins:maven-dependency-plugin:3.6.1:copy-dependencies"
_UNSERVED: Final = re.compile(r"Could not (?:transfer|find) artifact|could not be resolved|Unknown host")
"""What Maven prints where a repository cannot be reached, or has not what is asked for."""
_WEBSOCKET: Final = 'import { WebSocket } from "undici";\n'
"""What a page has by itself, and old versions of Node have not."""


def samples(language: str) -> list[str]:
    """Return the samples in a language."""
    return [text for name, text in SAMPLES if name == language]


def here(text: str, place: Place) -> str:
    """Return a sample for the gateway under test."""
    assert GATEWAY in text
    return text.replace(GATEWAY, place.url.removeprefix("http://"))


def output(*command: str | Path, cwd: Path | None = None) -> str:
    """Return what a program prints."""
    result = subprocess.run(list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=NEVER)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()


def test_every_sample_is_run() -> None:
    """The page has samples in these languages and no others, so that none is without a test."""
    assert [name for name, _ in SAMPLES] == ["python", "js", "java", "sh", "js"]


def test_python(place: Place) -> None:
    """The sample for Python prints the text of the model."""
    (text,) = samples("python")
    assert output(sys.executable, "-c", here(text, place)) == TEXT


def test_shell(place: Place) -> None:
    """The sample with curl prints the response of the model."""
    require("curl", "curl")
    (text,) = samples("sh")
    assert f'"content": "{TEXT}"' in output("sh", "-c", here(text, place))


@pytest.mark.xdist_group("node")
@pytest.mark.parametrize("number", [0, 1], ids=["chat", "websocket"])
def test_node(place: Place, number: int) -> None:
    """The samples for JavaScript print the text of the model; that for a page has its WebSocket from undici."""
    node = require("nodejs", "node")
    text = samples("js")[number]
    folder = packages()
    file = folder / f"sample-{os.getpid()}-{number}.mjs"
    file.write_text(("" if number == 0 else _WEBSOCKET) + here(text, place), encoding="utf-8")
    try:
        assert output(node, file.name, cwd=folder) == TEXT
    finally:
        file.unlink()


def libraries() -> Path:
    """Return a folder below build/ with the libraries for Java; fetch them where they are not there yet."""
    folder = ROOT / "build/clients" / hashlib.sha256(POM.read_bytes()).hexdigest()[:16]
    if not (folder / "installed").exists():
        shutil.rmtree(folder, ignore_errors=True)
        maven = require("maven", "mvn")
        fetch = [maven, "--batch-mode", "--quiet", "--file", str(POM), COPY, f"-DoutputDirectory={folder}"]
        result = subprocess.run(fetch, capture_output=True, text=True, timeout=NEVER)
        if _UNSERVED.search(result.stdout):
            pytest.skip("the repository of Maven does not serve LangChain4j, or the plugin that copies it")
        assert result.returncode == 0, result.stdout
        (folder / "installed").touch()
    return folder


@pytest.mark.xdist_group("java")
def test_java(place: Place, tmp_path: Path) -> None:
    """The sample for Java prints the text of the model, although LangChain4j offers HTTP/2 with its request."""
    require("default-jdk-headless", "javac")  # without it, Java runs no program from its source
    java = require("default-jdk-headless", "java")
    (text,) = samples("java")
    file = tmp_path / "Hello.java"
    file.write_text(here(text, place), encoding="utf-8")
    assert output(java, "-XX:TieredStopAtLevel=1", "-cp", f"{libraries()}/*", file) == TEXT
