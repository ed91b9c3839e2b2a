"""Time for hooks under test, for what a test is not about."""

import pytest

from hooks import gatherer
from hooks.metrics import installed
from hooks.platform.beamlit import registrar
from tests.deadlines import SECONDS


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hooks in this process wait for others as long as a test does.

    In production they wait less than a second, or some seconds, which a busy machine takes for an immediate response. A
    test of such a deadline sets it itself.
    """
    monkeypatch.setattr(registrar, "CALL_SECONDS", SECONDS)
    monkeypatch.setattr(gatherer, "DEADLINE_SECONDS", SECONDS)
    monkeypatch.setattr(installed, "CLUSTER_SECONDS", SECONDS)
