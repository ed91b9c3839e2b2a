"""Listening sockets, and messages for the administrator when an address cannot be listened on."""

import errno
import socket
from typing import Final

from program.authority import authority

BACKLOG: Final = 2048
"""Connections that the kernel holds until the program accepts them."""

_NO_IPV6: Final = frozenset({errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL})
"""Errors of `::` where the kernel has no IPv6, or where it is switched off (net.ipv6.conf.all.disable_ipv6)."""


class ListenError(Exception):
    """The process cannot listen on the configured address. The message is one sentence for the administrator."""


def bind(address: str, flag: str, *, send_buffer_bytes: int | None = None, listening: bool = True) -> socket.socket:
    """Return a socket on `host:port` or `[address]:port`.

    `[::]:port` means every address of both families; where there is no IPv6, every address of IPv4.

    Args:
        address: address and port; the kernel chooses a port for 0.
        flag: command line flag that sets the address, for the message.
        send_buffer_bytes: size of the kernel's send buffer of each accepted connection; chosen by the kernel when None.
        listening: whether connections are accepted from now on; otherwise `listen` begins it, once it is served.

    Raises:
        ListenError: the address is in use, is no address of this machine, or is not allowed.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    try:
        try:
            return _bound(host, int(port), send_buffer_bytes, listening=listening)
        except OSError as exc:
            if host != "::" or exc.errno not in _NO_IPV6:
                raise
            return _bound("0.0.0.0", int(port), send_buffer_bytes, listening=listening)
    except OSError as exc:
        raise _unusable(flag, address, exc) from exc


def listen(sock: socket.socket, flag: str) -> None:
    """Accept connections on a socket of `bind`.

    Raises:
        ListenError: another process has begun to listen on its address meanwhile.
    """
    try:
        sock.listen(BACKLOG)
    except OSError as exc:
        host, port, *_ = sock.getsockname()
        raise _unusable(flag, authority(host, port), exc) from exc


def _unusable(flag: str, address: str, exc: OSError) -> ListenError:
    reason = (exc.strerror or str(exc)).lower()
    return ListenError(f"{flag} {address} cannot be used: {reason}; free it or choose another.")


def _bound(host: str, port: int, send_buffer_bytes: int | None, *, listening: bool) -> socket.socket:
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if host == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)  # net.ipv6.bindv6only may say otherwise
        if send_buffer_bytes is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)  # accepted sockets inherit it
        sock.bind((host, port))
        if listening:
            sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
