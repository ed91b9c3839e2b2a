"""Fixtures of all tests of hooks over sockets."""

import pytest

from tests.unhurried import unhurry


@pytest.fixture(autouse=True)
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let hooks in this process wait for other servers as long as a test does."""
    unhurry(monkeypatch)
