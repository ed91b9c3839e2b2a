"""What all tests of hooks over sockets share."""

import pytest

from tests.unhurried import unhurry


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hooks in this process wait for others as long as a test does."""
    unhurry(monkeypatch)
