"""Budget of the memory for what waits: request bodies that are held, and responses whose clients read slowly.

Memory is reserved before it is used. What does not fit waits without being read, so it costs nothing meanwhile. A
route holds half of the budget at most while there are others, so that one model's requests leave room for the rest.
"""

import asyncio
from typing import Final, NamedTuple

from gateway import errors

FREE_BYTES: Final = 65536
"""Bytes of a body that are held without a reservation: as many as a connection buffers anyway."""
STEP_BYTES: Final = 1 << 20
"""Bytes that are reserved together where the size of a body is not known."""
WAIT_SECONDS: Final = 5.0
"""Seconds for which a request waits for room."""


class _Waiter(NamedTuple):
    owner: str
    size: int


class MemoryBudget:
    """Budget of all connections of this process. Sizes are in bytes; owners are routes, or "" where none is known."""

    __slots__ = ("_held", "_queue", "limit", "refused", "seconds", "shared", "used")

    def __init__(self, limit: int, seconds: float = WAIT_SECONDS) -> None:
        self.limit = limit
        """Bytes that may be reserved in all."""
        self.seconds = seconds
        """Seconds for which a request waits for room."""
        self.used = 0
        """Bytes that are reserved."""
        self.refused = 0
        """Reservations so far that were refused."""
        self.shared = False
        """Whether there are several owners, of which none may have more than half."""
        self._held: dict[str, int] = {}
        self._queue: dict[asyncio.Future[None], _Waiter] = {}
        """Waiting reservations, in the order in which they came."""

    @property
    def waiting(self) -> int:
        """Number of waiting reservations."""
        return len(self._queue)

    @property
    def most(self) -> int:
        """Bytes that one owner may have."""
        return self.limit // 2 if self.shared else self.limit

    def take(self, owner: str, size: int) -> bool:
        """Reserve memory if there is room now, and return whether there was."""
        if not self._fits(owner, size):
            self.refused += 1
            return False
        self._add(owner, size)
        return True

    async def reserve(self, owner: str, size: int) -> None:
        """Reserve memory, and wait for it behind those that wait already.

        Raises:
            errors.BodyTooLarge: There can never be as much room.
            errors.Overloaded: There was no room in time.
        """
        if size > self.most:
            self.refused += 1
            raise errors.BodyTooLarge
        if not self._queue and self._fits(owner, size):
            self._add(owner, size)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue[future] = _Waiter(owner, size)
        self._serve()  # those ahead may wait for their own share only
        try:
            async with asyncio.timeout(self.seconds):
                await future
        except (TimeoutError, asyncio.CancelledError) as exc:
            granted = not future.cancelled()
            if granted and isinstance(exc, TimeoutError):
                return  # the room came at the same moment
            if granted:
                self.give_back(owner, size)
                raise
            self._queue.pop(future, None)
            self._serve()
            if isinstance(exc, TimeoutError):
                self.refused += 1
                raise errors.Overloaded(retry_after=1) from None
            raise

    def give_back(self, owner: str, size: int) -> None:
        """Free memory that was reserved."""
        self.used -= size
        left = self._held[owner] - size
        if left:
            self._held[owner] = left
        else:
            del self._held[owner]
        if self._queue:
            self._serve()

    def _fits(self, owner: str, size: int) -> bool:
        return self.used + size <= self.limit and self._has_share(owner, size)

    def _has_share(self, owner: str, size: int) -> bool:
        return self._held.get(owner, 0) + size <= self.most

    def _add(self, owner: str, size: int) -> None:
        self.used += size
        self._held[owner] = self._held.get(owner, 0) + size

    def _serve(self) -> None:
        """Give room to those that wait, in their order; one that only lacks room in its own share is passed over."""
        for future, (owner, size) in tuple(self._queue.items()):
            if not self._has_share(owner, size):
                continue
            if self.used + size > self.limit:
                return
            del self._queue[future]
            if not future.done():
                self._add(owner, size)
                future.set_result(None)
