"""What asyncio's transports do not offer of the sockets below them: reset, state of the connection, unread bytes."""

import asyncio
import fcntl
import socket
import struct
import termios
from typing import Final

_NO_LINGER: Final = struct.pack("ii", 1, 0)
"""Linger time of no seconds: the kernel closes the socket with RST (Linux, socket(7))."""
_CLOSE: Final = 7
_PEER_CLOSED: Final = frozenset({_CLOSE, 8, 11})
"""TCP states after the peer has closed: CLOSE (it has reset), CLOSE_WAIT and CLOSING (Linux, tcp_states.h)."""


def reset(transport: asyncio.Transport) -> None:
    """Drop the connection with RST, which the peer cannot take for an orderly end, as it can FIN."""
    raw = transport.get_extra_info("socket")
    if raw is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    transport.abort()


def is_reset(transport: asyncio.Transport) -> bool:
    """Return whether the kernel knows that the peer has reset the connection; False where it does not tell."""
    return _state(transport) == _CLOSE


def peer_has_closed(transport: asyncio.Transport) -> bool:
    """Return whether the kernel knows that the peer has closed or reset; False where it does not tell.

    A connection that is not read tells it in no other way.
    """
    return _state(transport) in _PEER_CLOSED


def has_unread_bytes(transport: asyncio.Transport) -> bool:
    """Return whether the kernel holds bytes of the peer that have not been read; False where it does not tell."""
    raw = transport.get_extra_info("socket")
    if raw is None:
        return False
    try:
        return fcntl.ioctl(raw.fileno(), termios.FIONREAD, bytes(4)) != bytes(4)
    except OSError:
        return False


def _state(transport: asyncio.Transport) -> int | None:
    """Return the TCP state of the connection, or None where the kernel does not tell."""
    raw = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_INFO", None)
    if raw is None or option is None:
        return None
    try:
        return int(raw.getsockopt(socket.IPPROTO_TCP, option, 1)[0])  # first byte of tcp_info (Linux, tcp(7))
    except OSError:
        return _CLOSE
