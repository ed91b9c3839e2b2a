"""Deadlines of hooks under test, where a test is not about them."""

import pytest

from hooks import gatherer
from hooks.metrics import installed
from hooks.platform.beamlit import registrar
from tests.deadlines import SECONDS


def unhurry(patch: pytest.MonkeyPatch) -> None:
    """Let hooks in this process wait for others as long as a test does.

    In production they wait for less than a second, or for some seconds, which a busy machine takes for an immediate
    response. A test of such a deadline sets it itself.
    """
    patch.setattr(registrar, "CALL_SECONDS", SECONDS)
    patch.setattr(gatherer, "DEADLINE_SECONDS", SECONDS)
    patch.setattr(installed, "CLUSTER_SECONDS", SECONDS)
    patch.setattr(installed, "POD_SECONDS", SECONDS)
