"""Gateways of an installation, of which one at a time sends the completions of a backend's drills.

They know each other by the addresses of one name, as a headless Service has it, and choose without a word to each
other: each computes the same number for every address, and the largest wins. When a gateway comes or goes, only the
backends whose winner that is have another one.
"""

import asyncio
import hashlib
import socket
import time
from collections.abc import Awaitable, Callable, Collection
from typing import Final

KEPT_SECONDS: Final = 10.0
"""Seconds for which the addresses of the name are used."""
LOOKUP_SECONDS: Final = 5.0
"""Seconds that a look-up may take."""
MOST: Final = 1000
"""Number of addresses that count, the first ones."""


async def lookup(host: str) -> Collection[str]:
    """Return the addresses of a name.

    Raises:
        OSError: It has none.
    """
    found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return {str(entry[4][0]) for entry in found}


class Peers:
    """Gateways at the addresses of a name, this one among them."""

    def __init__(
        self, host: str, this: str, resolve: Callable[[str], Awaitable[Collection[str]]] | None = None
    ) -> None:
        """Look up nothing yet.

        Args:
            host: Name whose addresses are those of all gateways; empty where there is none.
            this: Name of this gateway's pod, which leads to its own addresses.
            resolve: Function that returns the addresses of a name; None for the one of the system.
        """
        self._host, self._this = host, this
        self._resolve = resolve
        self._turn = asyncio.Lock()
        self._until = float("-inf")
        self._all: frozenset[str] = frozenset()
        self._own: frozenset[str] = frozenset()

    async def choose_this(self, backend: str) -> bool | None:
        """Return whether this gateway is the one for a backend; None where it is not known to be among the others."""
        if not self._host:
            return None
        async with self._turn:
            if time.perf_counter() >= self._until:
                await self._look()
        if not self._own:
            return None
        return max(self._all, key=lambda one: hashlib.sha256(f"{one}\0{backend}".encode()).digest()) in self._own

    async def _look(self) -> None:
        """Look up the addresses of all gateways and of this one; know none where that fails."""
        resolve = self._resolve or lookup
        try:
            async with asyncio.timeout(LOOKUP_SECONDS):
                found = frozenset(sorted(await resolve(self._host))[:MOST])
                self._all, self._own = found, found & frozenset(await resolve(self._this))
        except OSError:  # a timeout, too
            self._all = self._own = frozenset()
        self._until = time.perf_counter() + KEPT_SECONDS
