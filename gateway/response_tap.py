"""Tap of a response: its beginning is looked at while it is relayed.

This module is not compiled, since it stands in for any exchange.
"""

from collections.abc import Callable
from typing import Any

from gateway.backends.response_pods import BEGINNING_BYTES, id_in
from gateway.http.exchange import Exchange


class IdTap:
    """Exchange that tells the id of the response which is written to it."""

    def __init__(self, exchange: Exchange, found: Callable[[bytes], None]) -> None:
        """Write to `exchange`, and call `found` with the id once it has been written."""
        self._exchange = exchange
        self._found = found
        self._beginning = b""
        self._looks = True

    def write(self, data: bytes) -> None:
        """Send a piece of the response's body."""
        if self._looks:
            self._beginning += data[:BEGINNING_BYTES]
            response = id_in(self._beginning)
            if response is not None:
                self._found(response)
            self._looks = response is None and len(self._beginning) < BEGINNING_BYTES
        self._exchange.write(data)

    def __getattr__(self, name: str) -> Any:
        """Return everything else of the exchange."""
        return getattr(self._exchange, name)
