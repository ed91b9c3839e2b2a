"""Budget of the memory for what waits: request bodies that are held, and responses whose clients read slowly.

Memory is reserved before it is used. What does not fit waits without being read, so it costs nothing meanwhile. A
route holds half of the budget at most while there are others, so that one model's requests leave room for the rest.
Where a request's route is not known yet, the address of its client holds what it needs. All routes of a namespace
together hold three quarters at most while there are other namespaces, and so do all addresses.
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


def namespace_share(whole: int) -> int:
    """Return how much of a whole all routes of one namespace may have while there are other namespaces."""
    return whole - whole // 4


class _Waiter(NamedTuple):
    owner: str
    size: int


class MemoryBudget:
    """Budget of all connections of this process. Sizes are in bytes.

    An owner is a route, as `namespace/name`, or `/` and the address of a client whose route is not known.
    """

    __slots__ = ("_held", "_queue", "_together", "divided", "limit", "refused", "seconds", "shared", "used")

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
        """Whether there are several routes: then no owner may have more than half."""
        self.divided = False
        """Whether there are several namespaces, of which none may have more than `namespace_share`."""
        self._held: dict[str, int] = {}
        self._together: dict[str, int] = {}
        """Bytes that all routes of a namespace hold, and under "" those of all addresses."""
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
        _subtract(self._held, owner, size)
        _subtract(self._together, owner.partition("/")[0], size)
        if self._queue:
            self._serve()

    def _fits(self, owner: str, size: int) -> bool:
        return self.used + size <= self.limit and self._has_share(owner, size)

    def _has_share(self, owner: str, size: int) -> bool:
        if self._held.get(owner, 0) + size > self.most:
            return False
        namespace = owner.partition("/")[0]
        limited = self.divided if namespace else self.shared
        return not limited or self._together.get(namespace, 0) + size <= namespace_share(self.limit)

    def _add(self, owner: str, size: int) -> None:
        self.used += size
        self._held[owner] = self._held.get(owner, 0) + size
        namespace = owner.partition("/")[0]
        self._together[namespace] = self._together.get(namespace, 0) + size

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


def _subtract(held: dict[str, int], key: str, size: int) -> None:
    left = held[key] - size
    if left:
        held[key] = left
    else:
        del held[key]
