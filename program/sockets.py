"""Listening sockets, and what to tell the administrator when there is none to be had."""

import errno
import socket
from typing import Final

BACKLOG: Final = 2048

_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
"""Why `::` cannot be had: a kernel without IPv6, or one where it is switched off (net.ipv6.conf.all.disable_ipv6)."""


class ListenError(Exception):
    """The process cannot listen as it was told. The message is one sentence for the administrator."""


def bind(address: str, flag: str, *, send_buffer_bytes: int | None = None) -> socket.socket:
    """A listening socket on `host:port` or `[address]:port`.

    `[::]:port` is every address, of both families; where there is no IPv6, every one of IPv4.

    Args:
        address: where; port 0 lets the kernel choose.
        flag: what set it, for the message.
        send_buffer_bytes: of the kernel, for each accepted connection; its own choice when None.

    Raises:
        ListenError: the address is in use, not this machine's, or not allowed.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        try:
            return _listening(host, int(port), send_buffer_bytes)
        except OSError as exc:
            if host != "::" or exc.errno not in _NO_IPV6:
                raise
            return _listening("0.0.0.0", int(port), send_buffer_bytes)
    except OSError as exc:
        reason = (exc.strerror or str(exc)).lower()
        raise ListenError(f"{flag} {address} cannot be used: {reason}; free it or choose another.") from exc


def _listening(host: str, port: int, send_buffer_bytes: int | None) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # whatever net.ipv6.bindv6only says
        if send_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)  # accepted sockets inherit it
        sock.bind((host, port))
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
