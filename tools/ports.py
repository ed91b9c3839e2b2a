"""TCP ports on loopback for the servers that tests, benchmarks and the fault campaign start.

A server that another process is to start needs a port before it listens, and a server that is restarted needs the same
one again. In between nothing may take it. So each process claims a block of ports and gives out each port of it in
turn, and the blocks lie outside the range from which the kernel chooses ports for outgoing connections (ip(7),
`ip_local_port_range`). Programs that run at the same time, for instance the workers of a test run, have other blocks.
"""

import atexit
import functools
import itertools
import socket
from pathlib import Path
from typing import Final

LOWEST: Final = 10240
"""Lowest port of the first block: those below are for programs that people run, for instance by `make run`."""
BLOCK: Final = 512
"""Number of ports in a block."""
_HOST: Final = "127.0.0.1"
_CHOSEN_BY_KERNEL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """Return a port of this process's block on which nothing listens; the next call returns another one.

    Raises:
        OSError: every block, or every port of the block, is taken.
    """
    return _block().free_port()


def ports_outside(first: int, last: int) -> range:
    """Return the ports for blocks, where the kernel chooses from `first` to `last` for outgoing connections.

    They are those below, or those above where these are more. Where neither have room for a block, they are what is
    right on most systems, and an outgoing connection may now and then take the port of a server.
    """
    ports = max(range(LOWEST, first), range(max(LOWEST, last + 1), 65536), key=len)
    return ports if len(ports) >= BLOCK else range(LOWEST, 32768)


class _Block:
    """A block of ports that no other process has for as long as this one lives."""

    def __init__(self) -> None:
        self._claim, first = _claimed()
        self._ports = itertools.cycle(range(first + 1, first + BLOCK))

    def free_port(self) -> int:
        for port in itertools.islice(self._ports, BLOCK):
            with socket.socket() as probe:
                try:
                    probe.bind((_HOST, port))
                except OSError:
                    continue
                return port
        raise OSError(f"no port of the {BLOCK} in this process's block is free")


_block = functools.cache(_Block)


def _claimed() -> tuple[socket.socket, int]:
    """Claim a block by binding its first port, on which nothing ever listens, and return the socket and that port."""
    try:
        first, last = map(int, _CHOSEN_BY_KERNEL.read_text(encoding="ascii").split())
    except OSError:
        first, last = 49152, 65535  # RFC 6335 section 6, for other systems than Linux
    ports = ports_outside(first, last)
    for start in range(ports.start, ports.stop - BLOCK + 1, BLOCK):
        claim = socket.socket()
        try:
            claim.bind((_HOST, start))
        except OSError:
            claim.close()
            continue
        atexit.register(claim.close)
        return claim, start
    raise OSError(f"every block of ports from {ports.start} to {ports.stop - 1} is taken")
