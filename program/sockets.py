"""Listening sockets, and what to tell the administrator when there is none to be had."""

import socket
from typing import Final

BACKLOG: Final = 2048


class ListenError(Exception):
    """The process cannot listen as it was told. The message is one sentence for the administrator."""


def bind(address: str, flag: str, *, send_buffer_bytes: int | None = None) -> socket.socket:
    """A listening socket on `host:port` or `[address]:port`.

    Args:
        address: where; port 0 lets the kernel choose.
        flag: what set it, for the message.
        send_buffer_bytes: of the kernel, for each accepted connection; its own choice when None.

    Raises:
        ListenError: the address is in use, not this machine's, or not allowed.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if send_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)  # accepted sockets inherit it
        sock.bind((host, int(port)))
        sock.listen(BACKLOG)
    except OSError as exc:
        sock.close()
        reason = (exc.strerror or str(exc)).lower()
        raise ListenError(f"{flag} {address} cannot be used: {reason}; free it or choose another.") from exc
    sock.setblocking(False)
    return sock
