"""Questions to the name servers of this machine, by c-ares on the event loop.

c-ares reads resolv.conf (servers, search paths, ndots) and the hosts file, asks for addresses of both families, and
keeps the responses for as long as they say. A question that gets no response costs some memory and no thread.
"""

import asyncio
import contextlib
import socket
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import pycares

CONFIGURATION: Final = Path("/etc/resolv.conf")
"""File with the addresses of the name servers, and with search paths and options."""

_TRIES: Final = 5
"""Number of times that a question is sent. The first waits some times longer than responses usually take, at least a
quarter of a second, each further one twice as long as the one before."""
_TIMEOUT_SECONDS: Final = 1.0
"""Seconds that the first question waits while it is not known how long responses take."""
_TICK_SECONDS: Final = 0.25
"""Seconds between two looks at the questions whose time is over."""
_UNCHANGED_SECONDS: Final = 5.0
"""Seconds between two looks at the file's time of change."""

Result = Callable[[tuple[str, ...], int], None]
"""Function that takes the addresses of a name, none where it has failed, and the seconds for which they count."""


class NameServer:
    """Name servers of this machine, as its configuration was at the start."""

    def __init__(
        self, *, servers: Sequence[str] = (), search: Sequence[str] = (), configuration: Path = CONFIGURATION
    ) -> None:
        """Read the configuration.

        Args:
            servers: Addresses, each with its port, that are asked instead of those in the configuration.
            search: Domains of the search path instead of those in the configuration, as in a pod.
            configuration: File whose change is noticed.

        Raises:
            OSError: There is no memory for it.
        """
        self._loop = asyncio.get_running_loop()
        self._configuration = configuration
        self._readers: set[int] = set()
        self._writers: set[int] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False
        self._looked_at = self._loop.time()
        self._changed_at = self._time_of_change()
        try:
            self._channel = pycares.Channel(
                timeout=_TIMEOUT_SECONDS,
                tries=_TRIES,
                servers=servers,
                domains=search,
                ndots=5 if search else None,
                # Without this c-ares starts a thread and an inotify watch, of which a node may have no more.
                sock_state_cb=self._watch,
            )
        except pycares.AresError as exc:
            raise OSError(str(exc)) from None

    def ask(self, name: str, result: Result) -> None:
        """Look up the addresses of `name`, which is ASCII, and call `result` once, in another turn of the loop.

        Raises:
            OSError: The question cannot be asked.
        """

        def respond(response: Any, error: int | None) -> None:
            nodes = () if error is not None or response is None else response.nodes
            addresses = tuple(dict.fromkeys(node.addr[0].decode() for node in nodes))
            with contextlib.suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(result, addresses, min((node.ttl for node in nodes), default=0))

        try:
            self._channel.getaddrinfo(name, None, type=socket.SOCK_STREAM, callback=respond)
        except pycares.AresError as exc:
            raise OSError(str(exc)) from None

    def outdated(self) -> bool:
        """Return whether the configuration has changed, as on a machine that moves to another network."""
        now = self._loop.time()
        if now - self._looked_at < _UNCHANGED_SECONDS:
            return False
        self._looked_at = now
        return self._time_of_change() != self._changed_at

    def close(self) -> None:
        """Give up all questions."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
        for descriptor in self._readers:
            self._loop.remove_reader(descriptor)
        for descriptor in self._writers:
            self._loop.remove_writer(descriptor)
        self._channel.close()

    def _watch(self, descriptor: int, readable: bool, writable: bool) -> None:
        """Watch a socket of c-ares, or watch it no more."""
        if self._closed:
            return  # c-ares closes its sockets in a thread of its own
        channel = self._channel
        if readable:
            self._loop.add_reader(descriptor, channel.process_fd, descriptor, pycares.ARES_SOCKET_BAD)
            self._readers.add(descriptor)
        elif descriptor in self._readers:
            self._loop.remove_reader(descriptor)
            self._readers.discard(descriptor)
        if writable:
            self._loop.add_writer(descriptor, channel.process_fd, pycares.ARES_SOCKET_BAD, descriptor)
            self._writers.add(descriptor)
        elif descriptor in self._writers:
            self._loop.remove_writer(descriptor)
            self._writers.discard(descriptor)
        self._schedule()

    def _schedule(self) -> None:
        if self._timer is None and (self._readers or self._writers):
            self._timer = self._loop.call_later(_TICK_SECONDS, self._tick)

    def _tick(self) -> None:
        """Let c-ares send questions again that got no response, and give up those that were sent often enough."""
        self._timer = None
        self._channel.process_fd(pycares.ARES_SOCKET_BAD, pycares.ARES_SOCKET_BAD)
        self._schedule()

    def _time_of_change(self) -> int:
        try:
            return self._configuration.stat().st_mtime_ns
        except OSError:
            return 0
