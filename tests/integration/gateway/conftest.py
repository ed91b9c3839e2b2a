"""Fixtures of the gateway's tests: a backend that responds with what it received, and a gateway in front of it."""

from collections.abc import AsyncIterator

import pytest

from tests.integration.gateway.wire import Running, echo, gateway
from tests.integration.servers import ScriptedServer, serving


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    """Yield a backend that responds with what it received."""
    async with serving(echo) as server:
        yield server


@pytest.fixture
async def running(server: ScriptedServer) -> AsyncIterator[Running]:
    """Yield a gateway in front of the backend."""
    async with gateway(local_port=server.port) as running:
        yield running
