"""The HTTP client of Java at the gateway, as it is by default: it offers HTTP/2 with each request."""

import subprocess
from collections.abc import Mapping
from typing import Final

import pytest

from tests.clients.conftest import Place
from tests.clients.model_server import TEXT
from tests.clients.outcomes import calls_of, check
from tests.clients.programs import require
from tests.deadlines import NEVER
from tools.repository import ROOT

PROGRAM: Final = ROOT / "tests/clients/java/Calls.java"

pytestmark = pytest.mark.xdist_group("java")


@pytest.fixture(scope="module")
def outcomes(place: Place) -> Mapping[str, str]:
    """Outcomes by call, all made by one process with one client."""
    require("default-jdk-headless", "javac")  # without it, Java runs no program from its source
    java = require("default-jdk-headless", "java")
    command = [java, "-XX:TieredStopAtLevel=1", str(PROGRAM), place.url, TEXT]
    result = subprocess.run(command, capture_output=True, text=True, timeout=NEVER)
    assert result.returncode == 0, result.stderr
    return dict(line.split("\t", 1) for line in result.stdout.splitlines())


@calls_of("java")
def test_a_call(place: Place, client: str, call: str, outcomes: Mapping[str, str]) -> None:
    """A call of Java's client has its outcome, and the model server gets no sign of the offer."""
    check(place, client, call, outcomes[call])


def test_a_websocket(place: Place, outcomes: Mapping[str, str]) -> None:
    """Java's WebSocket, whose handshake has a length of 0, opens by the model's name, and the server gets no length."""
    assert outcomes["websocket"] == "works"
    recorded = place.server.wait_for("java/websocket")
    assert recorded.line == "GET /v1/realtime?model=demo HTTP/1.1"
    assert "content-length" not in dict(recorded.fields)
