"""What every test of a client asks: the outcome of a call, and the bytes that reached the model server."""

import json
from typing import Final

import pytest

from tests.clients.calls import MODELS, SPEECH
from tests.clients.conftest import Place
from tests.clients.model_server import Recorded
from tests.deadlines import SECONDS
from tools.client_cases import CLIENTS

AT_THE_GATEWAY: Final = frozenset({"list", "retrieve", "namespaced", "unknown", "none"})
"""Calls to which the gateway itself responds."""


def calls_of(*clients: str) -> pytest.MarkDecorator:
    """Parametrize a test with every call of these clients."""
    pairs = [(client, call) for client in clients for call in CLIENTS[client].outcomes]
    return pytest.mark.parametrize(("client", "call"), pairs, ids=["-".join(pair) for pair in pairs])


def check(place: Place, client: str, call: str, outcome: str) -> None:
    """Check the outcome of a call, and what the model server got."""
    assert outcome == CLIENTS[client].outcomes[call]
    if call in AT_THE_GATEWAY:
        assert place.server.of(f"{client}/{call}") == []
        return
    recorded = place.server.wait_for(f"{client}/{call}")
    assert recorded.backend == ("remote" if call == "failover" else "local")
    check_bytes(recorded)
    if call == "transcription":
        assert recorded.form() == {"model": b"demo", "file": SPEECH}
    else:
        assert json.loads(recorded.body)["model"] == ("demo" if call == "qualified" else MODELS.get(call, "demo"))
    if call == "cancel":
        assert recorded.gone.wait(SECONDS), "the model server does not notice that the client has left"


def check_bytes(recorded: Recorded) -> None:
    """Check that a request is one message with one framing, without fields of the client's connection."""
    assert recorded.hop_by_hop == []
    framing = [name for name, _ in recorded.fields if name in ("content-length", "transfer-encoding")]
    assert len(framing) <= 1
